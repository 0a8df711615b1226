"""Models of which no closed form knows: one adapter is traced, the others follow from it."""

from __future__ import annotations

from typing import Any

import pytest
import transformers

from peft_shop import recommend
from peft_shop.ask import settling
from peft_shop.errors import ForecastError
from peft_shop.forecast import ladder
from peft_shop.forecast.dry_run import base
from peft_shop.forecast.dry_run.forecasting import dry_run
from peft_shop.forecast.quick.beside import beside
from peft_shop.forecast.records import Settings
from peft_shop.forecast.traced import traced_base
from peft_shop.model.inspection import Target, inspect_model

LORA = {"peft_type": "LORA", "r": 8, "target_modules": ["q_proj", "v_proj"]}
STEP = Settings(sequence_length=64)


def experts(**changed: Any) -> Target:
    return inspect_model(
        transformers.Qwen3MoeConfig(
            hidden_size=64,
            intermediate_size=128,
            moe_intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=16,
            vocab_size=128,
            dtype="bfloat16",
            architectures=["Qwen3MoeForCausalLM"],
            **{"num_experts": 8, "num_experts_per_tok": 2, **changed},
        )
    )


def test_where_there_is_room_one_setup_is_traced_and_else_all() -> None:
    target = experts()
    known = {"fixed": (), "bfloat16": True}
    assert base.trace_base(target, STEP, usable=2**40, **known)
    first = traced_base(target.structure, STEP)
    assert first is not None
    assert not first.complete
    assert len(first.peaks) == 1
    assert first.knows(STEP)
    assert base.trace_base(target, STEP, **known)
    every = traced_base(target.structure, STEP)
    assert every is not None
    assert every.complete
    assert len(every.peaks) > 1
    assert every.peaks.items() >= first.peaks.items()
    little = experts()
    assert base.trace_base(little, STEP, usable=2**20, **known)
    found = traced_base(little.structure, STEP)
    assert found is not None
    assert found.complete


def test_counts_and_files_beside_a_traced_base_are_those_of_a_dry_run() -> None:
    target = experts()
    assert beside(target.structure, LORA, STEP) is None
    base.trace_base(target, STEP, fixed=(), bfloat16=True, usable=2**40)
    found = beside(target.structure, LORA, STEP)
    traced = dry_run(target, LORA, STEP)
    assert found is not None
    assert found.trainable_parameters == traced.trainable_parameters
    assert found.total_parameters == traced.total_parameters
    assert found.checkpoint_bytes == traced.checkpoint_bytes
    assert sum(term.bytes for term in found.terms) == round(found.peak_memory.value)


def test_ranked_candidates_on_experts_have_counts() -> None:
    found = recommend(model=experts(), device="H200")
    lora = [one for one in found.candidates if one.method == "lora" and one.setup is not None]
    assert lora
    assert all(one.values["trainable_parameters"] > 0 for one in lora)
    assert all(one.values["checkpoint_size"] > 0 for one in lora)
    assert all(one.forecasted is not None for one in lora)


def test_time_counts_the_experts_that_a_token_goes_through() -> None:
    def work(**changed: int) -> ladder._Work:
        return ladder._work_of(experts(**changed).structure)

    few, many = work(num_experts_per_tok=2), work(num_experts_per_tok=4)
    expert = 2 * 8 * (3 * 64 * 32)  # layers, experts, three matrices
    assert few.blocks == many.blocks
    assert few.blocks - few.active == pytest.approx(expert * 6 / 8)
    assert many.active - few.active == pytest.approx(expert * 2 / 8)
    dense = inspect_model(transformers.LlamaConfig(hidden_size=64, intermediate_size=128,
                                                   num_hidden_layers=2, num_attention_heads=4,
                                                   vocab_size=128))  # fmt: skip
    whole = ladder._work_of(dense.structure)
    assert whole.active == whole.blocks


def test_a_model_that_no_dry_run_takes_is_given_up_after_a_few(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    def fails(*_: object) -> None:
        asked.append(1)
        raise ForecastError("a training step of X cannot be run on the meta device: nan")

    monkeypatch.setattr("peft_shop.forecast.asking.forecast", fails)
    monkeypatch.setattr(settling, "_look_at_base", lambda *_, **__: None)
    found = recommend(model=experts(), device="H200")
    assert len(asked) == 3
    told = [one.unusable["peak_memory"] for one in found.front]
    assert told
    assert all("cannot be run on the meta device" in one for one in told)


def test_nothing_but_the_inputs_of_a_step_is_made_while_it_is_recorded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("other inputs were made beside the usual ones")

    target = experts()
    before = dry_run(target, LORA, STEP).peak_memory.value
    monkeypatch.setattr("peft_shop.forecast.dry_run.forecasting.make_batches", never)
    assert dry_run(target, LORA, STEP).peak_memory.value == before
    # a model that refuses the usual inputs gets copies of what was made before
    monkeypatch.undo()
    video = inspect_model(
        transformers.TimesformerConfig(
            hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
            image_size=32, patch_size=16, num_frames=2,
        )
    )  # fmt: skip
    one, two = (
        dry_run(
            video,
            {"peft_type": "LORA", "r": 8, "target_modules": ["qkv"]},
            STEP.model_copy(update={"batch_size": size}),
        ).peak_memory.value
        for size in (1, 64)
    )
    assert one < two

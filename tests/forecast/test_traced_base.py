"""Models of which no closed form knows: one adapter is traced, the others follow from it."""

from __future__ import annotations

import dataclasses
import itertools
from typing import TYPE_CHECKING, Any

import pytest
import transformers
from torch import nn

from peft_shop import recommend
from peft_shop.ask import settling
from peft_shop.errors import ForecastError
from peft_shop.forecast import ladder
from peft_shop.forecast.asking import forecast
from peft_shop.forecast.deadline import OutOfTimeError, until
from peft_shop.forecast.dry_run.extrapolation import few_layers
from peft_shop.forecast.dry_run.forecasting import dry_run
from peft_shop.forecast.fitting import Fittable, fitted
from peft_shop.forecast.looking import look_at_base
from peft_shop.forecast.quick.beside import beside
from peft_shop.forecast.quick.frozen import blocks_of
from peft_shop.forecast.records import Settings
from peft_shop.forecast.traced import TracedBase, branch_of, keep_traced, traced_base
from peft_shop.model.inspection import Target, inspect_model
from peft_shop.preflight.remembered import preflight

if TYPE_CHECKING:
    from pathlib import Path

LORA = {"peft_type": "LORA", "r": 8, "target_modules": ["q_proj", "v_proj"]}
STEP = Settings(sequence_length=64)


def experts_of(**changed: Any) -> Any:
    usual = {
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "vocab_size": 128,
        "num_experts": 8,
        "num_experts_per_tok": 2,
    }
    return transformers.Qwen3MoeConfig(
        intermediate_size=128,
        moe_intermediate_size=32,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        dtype="bfloat16",
        architectures=["Qwen3MoeForCausalLM"],
        **{**usual, **changed},
    )


def experts(**changed: Any) -> Target:
    return inspect_model(experts_of(**changed))


def test_setups_are_traced_in_the_order_of_their_cost_until_one_fits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[Settings] = []

    def peaks(_: Target, step: Settings) -> tuple[float, float] | None:
        asked.append(step)
        if step.fused_loss:
            return None  # as of a step that cannot be traced
        each = 2e9 if step.gradient_checkpointing else 8e9
        return 10e9 + each, 10e9 + 2 * each

    monkeypatch.setattr("peft_shop.forecast.dry_run.base.plain_peaks", peaks)
    target = experts()
    known: dict[str, Any] = {"fixed": (), "bfloat16": True, "effective": 4}
    assert look_at_base(target, STEP, usable=10**11, **known)
    first = traced_base(target.structure, STEP)
    assert first is not None
    assert len(asked) == len(first.peaks) == 1
    assert first.knows(STEP)
    assert not first.complete
    # one that fits little is looked at from there on, up to checkpointing
    assert look_at_base(target, STEP, usable=25 * 10**9, **known)
    assert [step.gradient_checkpointing for step in asked] == [False, True]
    assert look_at_base(target, STEP, **known)
    every = traced_base(target.structure, STEP)
    assert every is not None
    assert every.complete
    assert len(asked) == len(every.peaks) > 4
    assert every.peaks.items() >= first.peaks.items()
    assert not every.knows(STEP.model_copy(update={"fused_loss": True}))
    # other kernels take another peak
    assert traced_base(target.structure, STEP.model_copy(update={"attention": "eager"})) is None


def test_models_whose_levels_see_other_tokens_are_not_reckoned_beside_one_adapter() -> None:
    # what an adapter adds on a UNet does not follow from the tokens of its input
    target = experts()
    image = Target(target.structure.model_copy(update={"modality": "image"}))
    assert not look_at_base(image, STEP, fixed=(), bfloat16=True)


def test_a_slow_model_ends_at_the_time_that_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    # a clock that goes on with every operation
    ticks = itertools.count()
    monkeypatch.setattr("peft_shop.forecast.deadline.time.monotonic", lambda: float(next(ticks)))
    target = experts()
    with until(1000.0):
        assert not look_at_base(target, STEP, fixed=(), bfloat16=True)
    assert next(ticks) < 1010
    found = traced_base(target.structure, STEP)
    assert found is not None
    assert not found.complete
    assert not found.peaks, "what was ended says nothing of the model"
    assert found.cut
    # what was traced takes too much: that is no "nothing fits" of what was not
    few = TracedBase({branch_of(STEP): (9e12, 10e12)}, complete=False, cut=True)
    keep_traced(target.structure, STEP, few)
    asked = [Fittable("plain", LORA, bnb_4bit="yes", checkpointing=True)]
    small: dict[str, Any] = {"fixed": (), "device": 2**34, "effective_batch": 4}
    late = fitted(target.structure, asked, STEP, **small)
    assert "before every setup was traced" in late.unknown["plain"]
    assert late.nothing_fits is None
    keep_traced(target.structure, STEP, dataclasses.replace(few, cut=False))
    sure = fitted(target.structure, asked, STEP, **small)
    assert not sure.unknown
    assert sure.nothing_fits is not None
    with until(1500.0), pytest.raises(OutOfTimeError, match="time for dry runs was up"):
        forecast(target, LORA, STEP)


def test_what_was_traced_of_files_is_not_traced_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PEFT_SHOP_CACHE", str(tmp_path / "cache"))
    (tmp_path / "model").mkdir()
    experts_of().to_json_file(tmp_path / "model" / "config.json")
    asked: dict[str, Any] = {"device": "H200", "methods": "shadow"}
    before = recommend(model=str(tmp_path / "model"), **asked)
    assert all("peak_memory" in one.values for one in before.candidates)

    def never(*_: object, **__: object) -> None:
        raise AssertionError("traced again")

    for name in ("base.plain_peaks", "forecasting.dry_run"):
        monkeypatch.setattr(f"peft_shop.forecast.dry_run.{name}", never)
    after = recommend(model=str(tmp_path / "model"), **asked)
    assert after.model_dump(exclude={"query"}) == before.model_dump(exclude={"query"})


def test_depths_to_go_by_hold_whole_periods() -> None:
    def blocks(kinds: str) -> nn.Module:
        made = [nn.Linear(2, 1 + ord(kind) - ord("a"), device="meta") for kind in kinds]
        return nn.ModuleDict({"layers": nn.ModuleList(made)})

    assert few_layers(blocks("a" * 12)) == (2, 4)
    assert few_layers(blocks("a" * 16), recomputed=True) == (4, 8)
    assert few_layers(blocks("a" * 5)) is None, "all of them take no longer"
    assert few_layers(blocks("b" + "a" * 12)) == (2, 4), "what comes once is in both"
    assert few_layers(blocks("bbb" + "a" * 12)) == (3, 5)
    assert few_layers(blocks("aaab" * 6)) == (4, 8)
    assert few_layers(blocks("aaab" * 6 + "a")) == (5, 9)
    assert few_layers(blocks("abbabaabbbabaa")) is None


@pytest.mark.slow
@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize(
    "config", [LORA, {"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 20}, None]
)
def test_few_layers_tell_what_all_of_them_take(config: Any, again: bool) -> None:
    # wide, so that the allocator's segments count for little
    target = experts(num_hidden_layers=14, hidden_size=2048, vocab_size=32_000)
    step = STEP.model_copy(update={"gradient_checkpointing": again, "sequence_length": 512})
    task = {} if config is None else {**config, "task_type": "CAUSAL_LM"}
    whole, few = (
        dry_run(target, task or None, step, brief=brief).peak_memory for brief in (False, True)
    )
    assert few.low <= whole.value <= few.high


def test_counts_and_files_beside_a_traced_base_are_those_of_a_dry_run() -> None:
    target = experts()
    assert beside(target.structure, LORA, STEP) is None
    look_at_base(target, STEP, fixed=(), bfloat16=True, usable=2**40)
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


def test_blocks_hold_every_layer_of_the_experts() -> None:
    structure = experts().structure
    gates = [
        group.model_copy(update={"role": "expert_gate"})
        if group.role == "expert_gate_up"
        else group
        for group in structure.groups
    ]
    (block,) = blocks_of(structure.model_copy(update={"groups": tuple(gates)}))
    assert {"expert_gate", "expert_down", "router"} <= {group.role for group in block.groups}


def test_a_model_that_no_dry_run_takes_is_given_up_after_a_few(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    def fails(*_: object, **__: object) -> None:
        asked.append(1)
        raise ForecastError("a training step of X cannot be run on the meta device: nan")

    monkeypatch.setattr("peft_shop.forecast.asking.forecast", fails)
    monkeypatch.setattr(settling, "_look_at_base", lambda *_, **__: False)
    # of no size that was traced before
    found = recommend(model=experts(num_experts=6), device="H200")
    assert len(asked) == 3
    told = [one.unusable["peak_memory"] for one in found.front]
    assert told
    assert all("cannot be run on the meta device" in one for one in told)


def test_what_other_libraries_say_of_a_dry_run_is_kept_off_the_screen(
    caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder
) -> None:
    step = STEP.model_copy(update={"gradient_checkpointing": True, "attention": "eager"})
    mamba = inspect_model(
        transformers.Mamba2Config(
            hidden_size=32, num_hidden_layers=1, vocab_size=64, num_heads=4, head_dim=16,
            state_size=8, n_groups=1,
        )
    )  # fmt: skip
    config = {"peft_type": "LORA", "r": 4, "target_modules": ["in_proj"]}
    assert forecast(mamba, config, step).way == "dry_run"
    assert preflight(mamba, config).trainable_parameters
    assert not caplog.records
    assert not [str(one.message) for one in recwarn]


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

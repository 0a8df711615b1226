"""Dry runs of what torch cannot run on the meta device as it is, and of chunked losses."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("transformers")

from transformers import LlamaConfig, Qwen3MoeConfig

from peft_shop.errors import ConfigError, ForecastError
from peft_shop.forecast.asking import forecast
from peft_shop.forecast.dry_run.forecasting import dry_run, measure
from peft_shop.forecast.fitting import Fittable, Fitting, fitted
from peft_shop.forecast.looking import look_at_base
from peft_shop.forecast.quick.closed_forms import closed_form
from peft_shop.forecast.records import Settings
from peft_shop.model.inspection import Target, inspect_model

LORA: dict[str, Any] = {
    "peft_type": "LORA",
    "r": 8,
    "target_modules": ["q_proj", "v_proj"],
    "task_type": "CAUSAL_LM",
}
SIZES: dict[str, Any] = {
    "hidden_size": 128,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "vocab_size": 8192,
}


def llama(layers: int) -> Target:
    return inspect_model(LlamaConfig(intermediate_size=256, num_hidden_layers=layers, **SIZES))


@pytest.fixture(scope="module")
def experts() -> Target:
    return inspect_model(
        Qwen3MoeConfig(
            intermediate_size=256,
            moe_intermediate_size=64,
            num_experts=8,
            num_experts_per_tok=2,
            num_hidden_layers=2,
            **SIZES,
        )
    )


def test_a_deep_model_on_a_quantized_base_is_traced_in_part() -> None:
    settings = Settings(
        batch_size=1, sequence_length=64, quantization="bnb_4bit", gradient_checkpointing=True
    )
    target = llama(49)
    found = dry_run(target, LORA, settings)
    assert any("of 49 layers were traced" in note for note in found.warnings)
    base = sum(term.bytes for term in found.terms if term.name == "base")
    quick = closed_form(target.structure, LORA, settings)
    expected = sum(term.bytes for term in quick.terms if term.name == "base")
    assert base == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize(
    ("config", "fields"),
    [
        (LORA, {"quantization": "bnb_4bit"}),
        (LORA, {"quantization": "bnb_4bit", "prepare_kbit": False}),
        (LORA, {"dtype": "float16"}),
        (
            {
                "peft_type": "LORA",
                "r": 4,
                "target_modules": [],
                "target_parameters": ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"],
                "task_type": "CAUSAL_LM",
            },
            {},
        ),
    ],
)
def test_mixtures_of_experts_have_a_dry_run(
    experts: Target, config: dict[str, Any], fields: dict[str, Any]
) -> None:
    settings = Settings(batch_size=1, sequence_length=64, **fields)
    found = dry_run(experts, config, settings)
    plain = dry_run(experts, LORA, Settings(batch_size=1, sequence_length=64))
    weights = sum(
        group.experts * group.in_features * group.out_features * group.count
        for group in experts.structure.groups
        if group.experts
    )
    base = sum(term.bytes for term in found.terms if term.name == "base")
    # bitsandbytes leaves fused experts as they are; preparing makes float32 of them
    assert base >= weights * (
        4 if fields.get("prepare_kbit", bool(fields.get("quantization"))) else 2
    )
    assert (fields.get("quantization") is not None) == any(
        "packs no fused experts" in note for note in found.warnings
    )
    if not fields:
        assert found.trainable_parameters > plain.trainable_parameters


def test_where_neither_way_works_neither_advises_the_other(experts: Target) -> None:
    broken = {**LORA, "target_modules": [], "target_parameters": ["mlp.experts.gate_up_proj"]}
    broken["peft_type"] = "MISS"
    with pytest.raises((ForecastError, ConfigError)) as refusal:
        forecast(experts, broken, Settings(batch_size=1, sequence_length=32))
    assert "make a dry run" not in str(refusal.value)
    assert "use the closed form" not in str(refusal.value)


def test_a_step_that_cannot_be_traced_is_not_sent_back_to_it(
    experts: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> None:
        msg = "cannot be run on the meta device"
        raise ForecastError(msg)

    monkeypatch.setattr("peft_shop.forecast.dry_run.forecasting.dry_run", refused)
    with pytest.raises(ForecastError, match="closed forms know") as refusal:
        forecast(experts, LORA, Settings())
    assert "no closed form for experts" in str(refusal.value)
    assert "make a dry run" not in str(refusal.value)


def test_a_chunked_loss_never_holds_all_logits() -> None:
    target = llama(4)
    settings = Settings(batch_size=2, sequence_length=512, gradient_checkpointing=True)
    chunked = settings.model_copy(update={"fused_loss": True})
    whole, parts = (measure(target, LORA, one).memory for one in (settings, chunked))
    tokens, vocabulary = 2 * 512, 8192
    assert whole.peak_allocated > 14 * tokens * vocabulary
    assert parts.peak_allocated < whole.peak_allocated - 10 * tokens * vocabulary
    assert not any("fused" in note for note in dry_run(target, LORA, chunked).warnings)


def test_eager_attention_sums_its_gradient_in_one_more_score_matrix() -> None:
    target = llama(2)
    settings = Settings(
        batch_size=1,
        sequence_length=2048,
        attention="eager",
        padding=False,
        gradient_checkpointing=True,
        dtype="float16",
    )
    found = measure(target, LORA, settings).memory
    # float32: probabilities, their gradient, the product of both; float16: the scores' gradient
    scores = 4 * 2048 * 2048
    assert found.peak_allocated > (4 + 4 + 4 + 2) * scores


def test_adapters_on_experts_are_fitted_from_dry_runs_of_plain_lora(experts: Target) -> None:
    target = inspect_model(experts.config)
    structure = target.structure
    wide = {**LORA, "r": 64}
    prompt = {"peft_type": "PREFIX_TUNING", "num_virtual_tokens": 4, "task_type": "CAUSAL_LM"}
    able: dict[str, Any] = {"bnb_4bit": "yes", "checkpointing": True}
    candidates = [
        Fittable("plain", {**LORA, "r": 32}, **able),
        Fittable("wide", wide, **able),
        Fittable("prompt", prompt, **able),
    ]
    settings = Settings(sequence_length=1024)

    def fit(memory: int) -> Fitting:
        return fitted(structure, candidates, settings, fixed=(), device=memory, effective_batch=4)

    assert set(fit(2**34).unknown) == {"plain", "wide", "prompt"}
    assert look_at_base(target, settings, fixed=(), bfloat16=True)
    found = fit(2**34)
    assert set(found.unknown) == {"prompt"}
    for key, config in (("plain", {**LORA, "r": 32}), ("wide", wide)):
        setup = found.setups[key]
        assert setup is not None
        assert setup.longest_sequence is None
        assert (setup.settings.batch_size, setup.settings.accumulation) == (4, 1)
        traced = dry_run(target, config, setup.settings).peak_memory.value
        # segments of the allocator are a large share of so small a model
        assert setup.peak.value == pytest.approx(traced, rel=0.15)
    assert fit(2**20).nothing_fits is not None
    # other lengths were not traced, and models with a closed form need none
    longer = settings.model_copy(update={"sequence_length": 1023})
    again = fitted(structure, candidates, longer, fixed=(), device=2**34, effective_batch=4)
    assert "plain" in again.unknown
    assert not look_at_base(llama(2), settings, fixed=(), bfloat16=True)

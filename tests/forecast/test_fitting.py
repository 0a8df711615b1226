"""Setups against cases reckoned by hand, the single forecast, and laws of fitting."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

pytest.importorskip("transformers")

from transformers import (
    Gemma3TextConfig,
    LlamaConfig,
    MistralConfig,
    Qwen2Config,
    Qwen3Config,
)

from peft_shop.catalog.store import load
from peft_shop.curate.calibration.structures import load_structures
from peft_shop.curate.calibration.suites import cases_of
from peft_shop.errors import ConfigError
from peft_shop.forecast.devices import Device, device_of
from peft_shop.forecast.fitting import Fittable, Fitting, fitted
from peft_shop.forecast.ladder import chunkable, ladder
from peft_shop.forecast.quick.closed_forms import closed_form
from peft_shop.forecast.quick.methods.registry import adapter_of
from peft_shop.forecast.quick.spread import ShapeSpread, shape_of
from peft_shop.forecast.records import Settings
from peft_shop.model.inspection import inspect_model

if TYPE_CHECKING:
    from peft_shop.forecast.records import Setup
    from peft_shop.model.structure import Structure

GIB = 2**30
DATA = Path(__file__).resolve().parents[2] / "data"
LORA: dict[str, Any] = {"peft_type": "LORA", "r": 32, "target_modules": ["q_proj", "v_proj"]}
CAN = {"bnb_4bit": "yes", "bnb_8bit": "yes", "checkpointing": True}


def sizes(
    hidden: int, inner: int, layers: int, heads: int, vocabulary: int, **more: Any
) -> dict[str, Any]:
    return {
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": 8,
        "vocab_size": vocabulary,
        "tie_word_embeddings": False,
        **more,
    }


CONFIGS: dict[str, tuple[Any, dict[str, Any]]] = {
    "Qwen3-8B": (Qwen3Config, sizes(4096, 12288, 36, 32, 151936, head_dim=128)),
    "Llama-3.1-8B": (LlamaConfig, sizes(4096, 14336, 32, 32, 128256)),
    "Mistral-7B": (MistralConfig, sizes(4096, 14336, 32, 32, 32000)),
    "Llama-3.2-3B": (
        LlamaConfig,
        sizes(3072, 8192, 28, 24, 128256, head_dim=128, tie_word_embeddings=True),
    ),
    "Gemma-3-12B": (
        Gemma3TextConfig,
        sizes(3840, 15360, 48, 16, 262208, head_dim=256, tie_word_embeddings=True),
    ),
    "Qwen2.5-32B": (Qwen2Config, sizes(5120, 27648, 64, 40, 152064)),
    "Llama-3.1-70B": (LlamaConfig, sizes(8192, 28672, 80, 64, 128256)),
}


@cache
def structure_of(name: str) -> Structure:
    kind, fields = CONFIGS[name]
    return inspect_model(kind(**fields)).structure


def fit_lora(name: str, device: Device | int, *, effective: int = 4, **fields: Any) -> Fitting:
    """One candidate; the fields are fixed."""
    return fitted(
        structure_of(name),
        [Fittable("lora", LORA, **CAN)],
        Settings(**fields),
        fixed=frozenset(fields),
        device=device,
        effective_batch=effective,
    )


def words(setup: Setup) -> str:
    """A setup in the shorthand of the cases below."""
    step = setup.settings
    parts = [
        {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}[step.dtype],
        "4bit" if step.quantization == "bnb_4bit" else str(step.quantization or "16"),
        f"{step.batch_size}x{step.accumulation}",
    ]
    if step.quantization is not None and step.prepare_kbit:
        parts.append("upcast")
    parts += ["ckpt"] * step.gradient_checkpointing + ["chunked"] * step.fused_loss
    return " ".join(parts + ["8bit-adam"] * (step.optimizer == "adamw_8bit"))


# --- cases with figures: effective batch 4, 512 tokens


@pytest.mark.parametrize(
    ("model", "device", "setup", "peak", "time"),
    [
        ("Qwen3-8B", "RTX 4090", "bf16 16 4x1 ckpt", (18.0, 20.9, 22.5), 1.31),
        ("Qwen3-8B", "RTX 3060", "bf16 4bit 2x2 ckpt", (7.4, 8.6, 9.8), 1.56),
        ("Qwen3-8B", "T4", "fp16 4bit 2x2 upcast ckpt", (10.0, 11.6, 13.2), 1.65),
        ("Qwen3-8B", "A100-40GB", "bf16 16 4x1", (32.1, 33.8, 36.2), 1.0),
        ("Llama-3.1-8B", "RTX 4090", "bf16 16 4x1 ckpt", (17.0, 19.8, 21.3), 1.31),
        ("Mistral-7B", "RTX 4090", "bf16 16 2x2", (19.2, 20.2, 21.6), 1.12),
        ("Mistral-7B", "T4", "fp16 4bit 4x1 upcast ckpt", (6.0, 7.0, 8.0), 1.45),
        ("Llama-3.2-3B", "T4", "fp16 16 2x2", (10.9, 11.5, 12.3), 1.18),
        ("Gemma-3-12B", "RTX 4090", "bf16 4bit 4x1 ckpt", (14.0, 16.3, 18.6), 1.35),
        ("Qwen2.5-32B", "RTX 4090", "bf16 4bit 1x4 ckpt", (17.1, 19.9, 22.7), 1.84),
        ("Qwen2.5-32B", "A100-40GB", "bf16 4bit 4x1 ckpt", (21.1, 24.6, 28.0), 1.37),
    ],
)
def test_a_model_on_a_device_gets_the_cheapest_setup_that_fits(
    model: str, device: str, setup: str, peak: tuple[float, float, float], time: float
) -> None:
    found = fit_lora(model, device_of(device))
    own = found.setups["lora"]
    assert own is not None
    assert own == found.setup
    assert own.fits == "yes"
    assert words(own) == setup
    assert own.effect == ("slight" if "4bit" in setup else "same")
    ends = (own.peak.low / GIB, own.peak.value / GIB, own.peak.high / GIB)
    assert ends == pytest.approx(peak, rel=0.02)
    assert own.time_factor == pytest.approx(time, abs=0.02)
    assert found.compared == {"lora": own.peak.value}


@pytest.mark.parametrize(
    ("model", "device", "setup", "peak"),
    [
        ("Mistral-7B", "T4", "fp16 16 1x4 ckpt", 14.1),
        ("Gemma-3-12B", "RTX 4090", "bf16 16 2x2 ckpt chunked", 23.2),
    ],
)
def test_a_setup_without_effect_on_the_result_stays_as_an_alternative(
    model: str, device: str, setup: str, peak: float
) -> None:
    own = fit_lora(model, device_of(device)).setups["lora"]
    assert own is not None
    other = own.alternative
    assert other is not None
    assert words(other) == setup
    assert (other.fits, other.effect) == ("maybe", "same")
    assert other.peak.value / GIB == pytest.approx(peak, rel=0.02)


def test_where_nothing_fits_it_is_said_what_would() -> None:
    found = fit_lora("Llama-3.1-70B", device_of("RTX 4090"))
    assert found.setup is None
    assert found.setups == {"lora": None}
    most = found.nothing_fits
    assert most is not None
    assert most.least is not None
    assert words(most.least) == "bf16 4bit 1x4 ckpt chunked 8bit-adam"
    ends = (most.least.peak.low, most.least.peak.value, most.least.peak.high)
    assert [end / GIB for end in ends] == pytest.approx([30.7, 38.9, 44.3], rel=0.02)
    assert most.device is not None
    assert 44.3 * GIB < device_of(most.device).memory_bytes <= 48 * GIB
    assert most.longest_sequence is None
    assert most.parameters is not None
    assert 34e9 < most.parameters < 37e9


def test_a_little_too_small_a_device_is_told_the_longest_sequence() -> None:
    size = 11 * GIB
    found = fit_lora("Qwen3-8B", size, sequence_length=16384)
    most = found.nothing_fits
    assert most is not None
    longest = most.longest_sequence
    assert longest is not None
    assert 64 <= longest < 16384
    for length, fits in ((longest, "yes"), (longest + 64, "maybe")):
        own = fit_lora("Qwen3-8B", size, sequence_length=length).setups["lora"]
        assert own is not None
        assert own.fits == fits


def test_more_tokens_take_more_steps_of_the_ladder() -> None:
    device = device_of("RTX 4090")
    found = {}
    for length in (2048, 4096, 8192):
        own = fit_lora("Qwen3-8B", device, effective=16, sequence_length=length).setups["lora"]
        assert own is not None
        assert own.effective_batch == 16
        found[length] = own
    assert words(found[2048]) == "bf16 16 1x16 ckpt"
    assert found[2048].peak.value / GIB == pytest.approx(20.9, rel=0.02)
    assert "chunked" in words(found[4096])
    assert "chunked" in words(found[8192])


def test_a_method_that_needs_whole_logits_gets_no_chunked_loss() -> None:
    device, fields = device_of("RTX 4090"), {"sequence_length": 4096}
    found = fitted(
        structure_of("Qwen3-8B"),
        [Fittable("any", LORA, **CAN), Fittable("whole", LORA, **CAN, chunked=False)],
        Settings(**fields),
        fixed=set(fields),
        device=device,
        effective_batch=16,
    ).setups
    assert found["any"] is not None
    assert found["any"].settings.fused_loss
    assert found["whole"] is None or not found["whole"].settings.fused_loss


# --- the same bytes as the single forecast


@pytest.mark.parametrize("suite", ["metamathqa", "image_gen"])
def test_peaks_of_many_at_once_equal_single_forecasts(suite: str) -> None:
    structures = load_structures(DATA)
    structure = structures[suite]
    adapters, configs = [], []
    for case in cases_of(load(), structures):
        if case.run.benchmark == suite and case.config is not None:
            try:
                adapters.append(adapter_of(structure, case.config))
            except ConfigError:
                continue
            configs.append(case.config)
    adapters, configs = adapters[::4], configs[::4]
    assert len(configs) > 8
    spread = ShapeSpread(structure, [shape_of(structure, one, Settings()) for one in adapters])
    rungs = ladder(
        structure, Settings(sequence_length=300), frozenset(), effective=4, bfloat16=True
    )
    for rung in [*rungs[::7], rungs[0]]:
        for attention in ("sdpa", "eager"):
            step = rung.settings.model_copy(update={"attention": attention})
            together = spread.peaks(step)
            for config, peak in zip(configs, together, strict=True):
                alone = closed_form(structure, config, step).peak_memory.value
                assert peak == pytest.approx(alone, rel=1e-6)


@given(st.integers(1, 4096), st.integers(1, 3))
@examples(max_examples=15, deadline=None)
def test_a_length_in_place_of_the_settings_gives_the_peak_of_that_length(
    length: int, batch: int
) -> None:
    structure = structure_of("Qwen3-8B")
    config = {**LORA, "peft_type": "PREFIX_TUNING", "num_virtual_tokens": 20}
    configs = [LORA, {key: config[key] for key in ("peft_type", "num_virtual_tokens")}]
    shapes = [shape_of(structure, adapter_of(structure, one), Settings()) for one in configs]
    step = Settings(batch_size=batch, gradient_checkpointing=True)
    together = ShapeSpread(structure, shapes).peaks(step, length)
    exact = step.model_copy(update={"sequence_length": length})
    for one, peak in zip(configs, together, strict=True):
        assert peak == pytest.approx(closed_form(structure, one, exact).peak_memory.value, rel=1e-6)


# --- laws


def candidates() -> list[Fittable]:
    """Some that can all, and some that lack a capability."""
    wide = {**LORA, "target_modules": "all-linear", "r": 64}
    return [
        Fittable("plain", LORA, **CAN),
        Fittable("wide", wide, **CAN),
        Fittable("own", LORA, optimizer="lora_fa", plain_adamw=False, **CAN),
        Fittable("prepared", LORA, bnb_4bit="prepared", bnb_8bit="prepared", checkpointing=True),
        Fittable("loaded", LORA, bnb_4bit="as_loaded", checkpointing=True),
        Fittable("eight", LORA, bnb_4bit="no", bnb_8bit="yes", checkpointing=True),
        Fittable("rigid", LORA),
        Fittable("full", None, checkpointing=True),
        Fittable("unknown", {"peft_type": "XLORA"}, **CAN),
    ]


def fit_all(memory: float, *, bfloat16: bool = True, effective: int = 4, **fields: Any) -> Fitting:
    device = Device(name="some", memory_bytes=int(memory * GIB), bfloat16=bfloat16)
    return fitted(
        structure_of("Qwen3-8B"),
        candidates(),
        Settings(**fields),
        fixed=frozenset(fields),
        device=device,
        effective_batch=effective,
    )


def rank(setup: Setup) -> tuple[bool, bool, int]:
    """Class, chunked loss and time: what a smaller device may only raise."""
    return (
        setup.effect == "slight",
        setup.settings.fused_loss,
        round(setup.time_factor / 0.05),
    )


@given(st.floats(5, 90), st.floats(5, 90))
@examples(max_examples=25, deadline=None)
def test_a_smaller_device_never_gets_a_cheaper_setup(first: float, second: float) -> None:
    small, large = (fit_lora("Qwen3-8B", int(size * GIB)) for size in sorted((first, second)))
    less, more = small.setups["lora"], large.setups["lora"]
    if less is None:
        return
    assert more is not None
    if less.fits == "yes":
        assert more.fits == "yes"
        assert rank(less) >= rank(more)


@given(
    st.floats(6, 60),
    st.sampled_from([1, 2, 4, 8]),
    st.sampled_from([128, 512, 1024]),
    st.booleans(),
)
@examples(max_examples=25, deadline=None)
def test_what_fits_surely_still_does_with_less_to_do_or_more_memory(
    memory: float, effective: int, length: int, checkpointing: bool
) -> None:
    fields = {"gradient_checkpointing": checkpointing, "quantization": None, "fused_loss": False}
    size = int(memory * GIB)
    own = fit_lora("Qwen3-8B", size, effective=effective, sequence_length=length, **fields).setups[
        "lora"
    ]
    if own is None or own.fits != "yes":
        return
    for changed in (
        fit_lora("Qwen3-8B", size + GIB, effective=effective, sequence_length=length, **fields),
        fit_lora("Qwen3-8B", size, effective=effective, sequence_length=length // 2, **fields),
        fit_lora(
            "Qwen3-8B", size, effective=max(1, effective // 2), sequence_length=length, **fields
        ),
    ):
        again = changed.setups["lora"]
        assert again is not None
        assert again.fits == "yes"


@given(
    st.floats(6, 60),
    st.booleans(),
    st.fixed_dictionaries(
        {},
        optional={
            "batch_size": st.integers(1, 4),
            "quantization": st.sampled_from([None, "bnb_4bit", "bnb_8bit"]),
            "gradient_checkpointing": st.booleans(),
            "fused_loss": st.booleans(),
            "optimizer": st.sampled_from(["adamw", "adamw_8bit"]),
            "prepare_kbit": st.booleans(),
            "dtype": st.sampled_from(["bfloat16", "float16"]),
        },
    ),
)
@examples(max_examples=40, deadline=None)
def test_what_the_user_states_stays_and_no_denied_capability_is_used(
    memory: float, bfloat16: bool, fields: dict[str, Any]
) -> None:
    found = fit_all(memory, bfloat16=bfloat16, **fields)
    assert found == fit_all(memory, bfloat16=bfloat16, **fields)
    by_key = {one.key: one for one in candidates()}
    assert set(found.setups) == set(by_key)
    assert set(found.unknown) == {"unknown"}
    assert (found.nothing_fits is None) == any(found.setups.values())
    for key, setup in found.setups.items():
        if setup is None:
            continue
        one, step = by_key[key], setup.settings
        for name, value in fields.items():
            if name != "optimizer" or one.plain_adamw:
                assert getattr(step, name) == value
        if not one.plain_adamw:
            assert step.optimizer == one.optimizer
        if step.gradient_checkpointing:
            assert one.checkpointing
        ways = {"bnb_4bit": one.bnb_4bit, "bnb_8bit": one.bnb_8bit, None: "yes"}
        assert ways[step.quantization] != "no"
        if step.quantization and ways[step.quantization] != "yes":
            assert step.prepare_kbit == (ways[step.quantization] == "prepared")
        if "dtype" not in fields and not bfloat16:
            assert step.dtype == "float16"
        if "batch_size" not in fields:
            assert step.batch_size * step.accumulation == setup.effective_batch == 4
        assert setup.peak.low <= memory * GIB
        if setup.fits == "yes":
            assert setup.peak.high <= memory * GIB - 0.6 * GIB + 1


def test_a_missing_capability_that_would_let_it_fit_is_named() -> None:
    found = fit_all(13.0)
    assert found.setups["plain"] is not None
    assert found.setups["rigid"] is None
    assert found.lacking["rigid"] == ("quantization.bnb_4bit",)
    assert "full" not in found.lacking


def test_eight_bits_stand_in_only_where_four_do_not_train() -> None:
    found = fit_all(14.0).setups
    backends = {key: setup.settings.quantization for key, setup in found.items() if setup}
    assert backends["eight"] == "bnb_8bit"
    assert {backends[key] for key in backends if key != "eight"} == {"bnb_4bit"}


def test_eager_attention_never_fits_surely() -> None:
    own = fit_lora("Qwen3-8B", device_of("H200"), attention="eager").setups["lora"]
    assert own is not None
    assert own.fits == "maybe"


def test_several_devices_share_the_batch() -> None:
    one = fit_lora("Qwen3-8B", device_of("A100-80GB"), effective=8).setups["lora"]
    two = fit_lora("Qwen3-8B", device_of("2x A100-80GB"), effective=8).setups["lora"]
    assert one is not None
    assert two is not None
    assert one.effective_batch == two.effective_batch == 8
    assert one.settings.batch_size * one.settings.accumulation == 8
    assert two.settings.batch_size * two.settings.accumulation == 4


def test_the_longest_sequence_is_the_last_that_surely_fits() -> None:
    device = device_of("RTX 4090")
    own = fit_lora("Qwen3-8B", device).setups["lora"]
    assert own is not None
    longest = own.longest_sequence
    assert longest is not None
    for length, fits in ((longest, True), (longest + 1, False)):
        step = own.settings.model_copy(update={"sequence_length": length})
        peak = closed_form(structure_of("Qwen3-8B"), LORA, step).peak_memory
        assert (peak.high <= device.usable_bytes) == fits


def test_a_loss_is_chunked_only_where_the_head_is_all_there_is() -> None:
    plain = structure_of("Qwen3-8B")
    assert chunkable(plain)
    assert not chunkable(plain.model_copy(update={"model_type": "gemma2"}))
    assert not chunkable(plain.model_copy(update={"task_type": "SEQ_CLS"}))

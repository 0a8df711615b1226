"""How far a forecast of memory may be off: residuals, widened where nothing was measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

from peft_shop.forecast.records import Interval

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from peft_shop.forecast.constants import Regime
    from peft_shop.forecast.records import Settings, Way
    from peft_shop.model.structure import Structure

__all__ = ["MEASURED_STEPS", "ON_MEASURED_CARD", "memory_interval", "memory_shares"]

_SPECTRAL: Final = frozenset({"fourierft", "waveft", "c3a"})
MEASURED_STEPS: Final = 40
"""Rows of `data/measured_memory.csv`."""
_EAGER: Final = frozenset({"gemma2"})
"""Model types that cap their attention scores, which keeps the scores in memory."""
_MEASURED_ACCELERATOR: Final = "NVIDIA L40S"
# widenings are judgements about cases without a run, not fits; each stands in the answer's basis
_NEW_METHOD: Final = (-0.10, 0.10)
_NEW_MODEL: Final = (-0.10, 0.10)
_OTHER_SIZE: Final = (-0.05, 0.05)
_OTHER_BLOCK: Final = (-0.15, 0.30)
_QUANTIZED: Final = (-0.15, 0.15)
_SPECTRAL_CHECKPOINTED: Final = (-0.03, 0.15)
_FULL: Final = (-0.05, 0.10)
_KERNEL: Final = (-0.15, 0.15)
# text models: the extremes of the measured steps in `data/measured_memory.csv` and of published
# steps on an A100, and 5 points for another accelerator
_OTHER_TEXT: Final = (-0.05, 0.07)
_CHECKPOINTED_TEXT: Final = (-0.14, 0.08)
_QUANTIZED_TEXT: Final = (-0.14, 0.14)
_EAGER_TEXT: Final = (-0.25, 0.25)
_STEPS_ON: Final = "Tesla T4"
ON_MEASURED_CARD: Final[Mapping[Way, tuple[float, float]]] = {
    "closed_form": (-0.0959, 0.1250),
    "dry_run": (-0.0163, 0.0726),
}
"""Ends within which 90 % of another step on the card of the measured ones are expected: order
statistics 2 and 39 of the 40 residuals, as split conformal prediction takes them. With ends from
the other models' steps alone 36 of 40 lie inside (closed forms) and 38 (dry runs). A test works
them out anew from `data/forecast_measured.json`."""
_CHUNKED_LOWER: Final = 0.07
"""Chunked losses took less than reckoned: points by which the lower end is lower."""
_ADDED_POINTS: Final = 0.02
_OTHER_ACCELERATOR: Final = 0.05


def _is_llama_like(structure: Structure) -> bool:
    """Whether blocks have a gated MLP, RMS norms and a fused attention, as Llama's."""
    if structure.model_type in _EAGER:
        return False
    gated = any(True for _ in structure.of(["mlp_gate", "mlp_gate_up"]))
    norms = {group.kind for group in structure.of(["norm"])}
    return gated and norms == {"rms_norm"}


def memory_interval(
    value: float,
    method: str,
    structure: Structure,
    settings: Settings,
    regime: Regime,
    *,
    way: Way = "dry_run",
) -> Interval:
    """Interval around `value` [B] for training `method` on a model of this structure.

    Args:
        value: the forecast.
        method: identifier of the method, or `full_finetuning`.
        structure: of the base model.
        settings: the training step.
        regime: the constants that the forecast was made with.
        way: how it was made; closed forms know less of a model's code.
    """
    low, high, reasons = memory_shares(method, structure, settings, regime, way=way)
    return Interval(
        low=value * (1 + low), value=value, high=value * (1 + high), basis="; ".join(reasons)
    )


def memory_shares(
    method: str, structure: Structure, settings: Settings, regime: Regime, *, way: Way = "dry_run"
) -> tuple[float, float, list[str]]:
    """Ends of the interval as shares of the value beyond one, and what they rest on."""
    quantized = (settings.quantization or structure.quantization) is not None
    image = structure.modality == "image"
    own = not settings.gradient_checkpointing or image
    residuals = regime.residuals
    low, high = (residuals.low, residuals.high) if own else _CHECKPOINTED_TEXT
    measured = not own and settings.accelerator == _STEPS_ON
    if measured:
        low, high = ON_MEASURED_CARD[way]
    steps = f"{MEASURED_STEPS} measured steps of language models with gradient checkpointing"
    reasons = [
        f"90 % of {residuals.runs} runs of {regime.benchmark} lay within "
        f"{residuals.low:+.1%} and {residuals.high:+.1%} of a forecast made without their method"
        if own
        else f"90 % of {steps} on this card"
        if measured
        else f"the extremes of {steps}, and 5 points for another card"
    ]
    rows = (
        *_of_any(method, structure, settings, regime, way),
        *(_of_images(structure, settings, regime, quantized=quantized) if image else ()),
        *(() if image or measured else _of_text(structure, settings, regime, quantized=quantized)),
    )
    for applies, (below, above), reason in rows:
        if applies:
            low, high = min(low, below), max(high, above)
            reasons.append(reason)
    if settings.fused_loss and not image:
        low -= _CHUNKED_LOWER
        reasons.append("steps with a chunked loss took less than reckoned")
    if image and settings.accelerator not in {None, _MEASURED_ACCELERATOR}:
        low = min(low, -_OTHER_ACCELERATOR) - _ADDED_POINTS
        high = max(high, _OTHER_ACCELERATOR) + _ADDED_POINTS
        reasons.append(f"all runs are from one {_MEASURED_ACCELERATOR}")
    return low, high, reasons


_Row: TypeAlias = tuple[bool, tuple[float, float], str]


def _of_any(
    method: str, structure: Structure, settings: Settings, regime: Regime, way: Way
) -> Iterator[_Row]:
    full = method == "full_finetuning"
    yield full, _FULL, "full fine-tuning was compared once per suite"
    yield (
        not full and method not in regime.methods,
        _NEW_METHOD,
        f"{method} was never compared under these settings",
    )
    yield (
        way == "closed_form" and method in _SPECTRAL and settings.gradient_checkpointing,
        _SPECTRAL_CHECKPOINTED,
        "transforms of whole weights pass through memory in ways no closed form follows",
    )
    yield (
        way == "closed_form" and structure.modality != "image" and not _is_llama_like(structure),
        _OTHER_BLOCK,
        "its blocks are not the gated ones with RMS norms that were measured",
    )


def _of_images(
    structure: Structure, settings: Settings, regime: Regime, *, quantized: bool
) -> Iterator[_Row]:
    yield quantized, _QUANTIZED, "no run had a quantized base"
    yield (
        structure.architecture != "Flux2Transformer2DModel",
        _NEW_MODEL,
        f"{structure.architecture} was never measured",
    )
    yield (
        regime.parameters not in {None, structure.parameters},
        _OTHER_SIZE,
        f"one model was measured, of {regime.parameters} parameters",
    )
    yield (
        settings.attention != "sdpa" or settings.fused_loss or settings.dtype != "bfloat16",
        _KERNEL,
        "no run used this kernel, loss or dtype",
    )


def _of_text(
    structure: Structure, settings: Settings, regime: Regime, *, quantized: bool
) -> Iterator[_Row]:
    yield quantized, _QUANTIZED_TEXT, "steps on a 4-bit base were measured on a T4"
    yield (
        settings.attention == "eager",
        _EAGER_TEXT,
        "eager attention leaves holes in memory that depend on the order of allocations",
    )
    same = (
        structure.model_type == "llama"
        and regime.parameters in {None, structure.parameters}
        and settings.attention == "sdpa"
        and settings.dtype == "bfloat16"
        and not settings.fused_loss
        and settings.accelerator in {None, _MEASURED_ACCELERATOR}
    )
    yield (
        not same and not settings.gradient_checkpointing,
        _OTHER_TEXT,
        f"the runs are of one model in bfloat16 on one {_MEASURED_ACCELERATOR}",
    )

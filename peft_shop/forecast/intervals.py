"""How far a forecast of memory may be off: residuals, widened where nothing was measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from peft_shop.forecast.records import Interval

if TYPE_CHECKING:
    from peft_shop.forecast.constants import Regime
    from peft_shop.forecast.records import Settings, Way
    from peft_shop.model.structure import Structure

__all__ = ["memory_interval"]

_SPECTRAL: Final = frozenset({"fourierft", "waveft", "c3a"})
_EAGER: Final = frozenset({"gemma2"})
"""Model types that cap their attention scores, which keeps the scores in memory."""
_MEASURED_ACCELERATOR: Final = "NVIDIA L40S"
# widenings are judgements about cases without a run, not fits; each stands in the answer's basis
_NEW_METHOD: Final = (-0.10, 0.10)
_NEW_MODEL: Final = (-0.10, 0.10)
_OTHER_SIZE: Final = (-0.05, 0.05)
_OTHER_BLOCK: Final = (-0.15, 0.30)
_CHECKPOINTED_TEXT: Final = (-0.12, 0.15)
_QUANTIZED: Final = (-0.15, 0.15)
_SPECTRAL_CHECKPOINTED: Final = (-0.03, 0.15)
_FULL: Final = (-0.05, 0.10)
_KERNEL: Final = (-0.15, 0.15)


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
    low, high = regime.residuals.low, regime.residuals.high
    reasons = [
        (
            f"90 % of {regime.residuals.runs} runs of {regime.benchmark} lay within "
            f"{low:+.1%} and {high:+.1%} of a forecast made without their method"
        )
    ]
    for applies, (below, above), reason in (
        (method == "full_finetuning", _FULL, "full fine-tuning was compared once per suite"),
        (
            method not in {*regime.methods, "full_finetuning"},
            _NEW_METHOD,
            f"{method} was never compared under these settings",
        ),
        (
            way == "closed_form" and method in _SPECTRAL and settings.gradient_checkpointing,
            _SPECTRAL_CHECKPOINTED,
            "transforms of whole weights pass through memory in ways no closed form follows",
        ),
        (
            settings.gradient_checkpointing and structure.modality != "image",
            _CHECKPOINTED_TEXT,
            "no run of a language model used gradient checkpointing",
        ),
        (
            (settings.quantization or structure.quantization) is not None,
            _QUANTIZED,
            "no run had a quantized base",
        ),
        (
            structure.model_type != "llama" and structure.architecture != "Flux2Transformer2DModel",
            _NEW_MODEL,
            f"{structure.architecture} was never measured",
        ),
        (
            regime.parameters not in {None, structure.parameters},
            _OTHER_SIZE,
            f"one model was measured, of {regime.parameters} parameters",
        ),
        (
            way == "closed_form"
            and structure.modality != "image"
            and not _is_llama_like(structure),
            _OTHER_BLOCK,
            "its blocks are not the gated ones with RMS norms that were measured",
        ),
        (
            settings.attention != "sdpa" or settings.fused_loss or settings.dtype != "bfloat16",
            _KERNEL,
            "no run used this kernel, loss or dtype",
        ),
    ):
        if applies:
            low, high = min(low, below), max(high, above)
            reasons.append(reason)
    if settings.accelerator not in {None, _MEASURED_ACCELERATOR}:
        low, high = min(low, -0.05) - 0.02, max(high, 0.05) + 0.02
        reasons.append(f"all runs are from one {_MEASURED_ACCELERATOR}")
    return Interval(
        low=value * (1 + low), value=value, high=value * (1 + high), basis="; ".join(reasons)
    )

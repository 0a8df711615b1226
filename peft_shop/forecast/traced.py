"""What dry runs of plain LoRA told of a model without a closed form; needs no torch itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from peft_shop.forecast.quick.remembered import recalled, remembered

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

    from peft_shop.forecast.records import Settings
    from peft_shop.model.structure import Structure

__all__ = ["TracedBase", "branch_of", "keep_traced", "stays", "traced_base"]

_KEPT: Final = (
    "sequence_length",
    "image_size",
    "attention",
    "padding",
    "quantization_bits",
    "double_quantization",
    "moved_after_injection",
)
"""Settings that no setup changes and that the peak depends on."""


def branch_of(settings: Settings) -> tuple[object, ...]:
    """Settings within which memory is linear in the batch."""
    return (
        settings.dtype,
        settings.quantization,
        settings.quantization is not None and settings.prepare_kbit,
        settings.gradient_checkpointing,
        settings.fused_loss,
    )


def stays(settings: Settings) -> tuple[object, ...]:
    """What the traces of one model have in common."""
    return tuple(getattr(settings, name) for name in _KEPT)


@dataclass(frozen=True)
class TracedBase:
    """Peaks of plain LoRA with AdamW.

    Attributes:
        peaks: per branch, of one and of two sequences at a time [B]; `None` for one in which no
            step can be traced.
        complete: whether every branch was looked at; else those that were not needed are missing.
        cut: whether the time was up before one was found: what fits in no branch that is here may
            fit in another.
    """

    peaks: Mapping[tuple[object, ...], tuple[float, float] | None]
    complete: bool = True
    cut: bool = False

    def knows(self, settings: Settings) -> bool:
        """Whether the peak in the branch of the settings is known."""
        return self.peaks.get(branch_of(settings)) is not None

    def peak(self, settings: Settings) -> float:
        """Peak of plain LoRA [B]; infinite where it is not known."""
        pair = self.peaks.get(branch_of(settings))
        if pair is None:
            return float("inf")
        one, two = pair
        return one + (settings.batch_size - 1) * (two - one)


def traced_base(structure: Structure, settings: Settings) -> TracedBase | None:
    """What was traced of a structure with such sequences, if anything was."""
    kept = recalled(structure, _key(settings))
    found = kept.get("base") if isinstance(kept, dict) else None
    return found if isinstance(found, TracedBase) else None


def keep_traced(structure: Structure, settings: Settings, base: TracedBase) -> None:
    """Keeps what was traced, as long as the structure is in use."""
    kept: dict[str, TracedBase] = remembered(structure, _key(settings), dict)
    kept["base"] = base


def _key(settings: Settings) -> Hashable:
    return ("traced base", *stays(settings))

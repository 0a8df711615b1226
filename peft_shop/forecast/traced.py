"""What dry runs of plain LoRA told of a model without a closed form; needs no torch itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from peft_shop.forecast.quick.remembered import recalled

if TYPE_CHECKING:
    from collections.abc import Mapping

    from peft_shop.forecast.records import Settings
    from peft_shop.model.structure import Structure

__all__ = ["TRACED", "TracedBase", "branch_of", "traced_base"]

TRACED: Final = "traced base"
"""Key under which the base of a structure is remembered, with the tokens of a sequence."""


def branch_of(settings: Settings) -> tuple[object, ...]:
    """Settings within which memory is linear in the batch."""
    return (
        settings.dtype,
        settings.quantization,
        settings.quantization is not None and settings.prepare_kbit,
        settings.gradient_checkpointing,
        settings.fused_loss,
    )


@dataclass(frozen=True)
class TracedBase:
    """Peaks of plain LoRA with AdamW.

    Attributes:
        peaks: per branch, of one and of two sequences at a time [B].
        complete: whether every branch was looked at; else those that were not needed are missing.
    """

    peaks: Mapping[tuple[object, ...], tuple[float, float]]
    complete: bool = True

    def knows(self, settings: Settings) -> bool:
        """Whether the branch of the settings was traced."""
        return branch_of(settings) in self.peaks

    def peak(self, settings: Settings) -> float:
        """Peak of plain LoRA [B]."""
        one, two = self.peaks[branch_of(settings)]
        return one + (settings.batch_size - 1) * (two - one)


def traced_base(structure: Structure, settings: Settings) -> TracedBase | None:
    """What was traced of a structure at this length, if anything was."""
    kept = recalled(structure, (TRACED, settings.sequence_length))
    found = kept.get("base") if isinstance(kept, dict) else None
    return found if isinstance(found, TracedBase) else None

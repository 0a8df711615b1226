"""What a training is told besides its recipe, and who stops at half the steps (`halving`).

All are held against one yardstick, plain LoRA: its first rates are trained first and in full, and a
run of the sweep whose validation loss after half the steps is significantly above the best of
theirs stops there. So who stops depends on nothing but the runs themselves, not on their order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from peft_shop.catalog.features import FULL_FINETUNING
from peft_shop.records import Finite, Record
from peft_shop.trial.records import BASE, Job
from peft_shop.trial.sampling import error_of_gap

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peft_shop.trial.records import Contestant, Protocol
    from peft_shop.trial.results import Result

__all__ = ["Briefing", "briefing_of", "half_of", "hopeless", "may_begin", "yardstick_of"]

_DEVIATIONS: Final = 3.0
"""Standard errors by which a run must be worse than the yardstick to be stopped."""
_PLAIN: Final = "lora"


class Briefing(Record):
    """What a training is told besides its recipe.

    Attributes:
        base_valid_loss: validation loss of the model as it is; `None` while it is not known.
        half: step after which the run is looked at; `None` where it is not.
        bar: validation loss and tokens of every example after that step, of the yardstick; `None`
            where the run goes on whatever it has.
    """

    base_valid_loss: Finite | None = None
    half: int | None = None
    bar: tuple[tuple[Finite, int], ...] | None = None


def briefing_of(protocol: Protocol, results: Mapping[str, Result], job: Job) -> Briefing:
    """What a job's training is told, from what is on file."""
    loss = next(
        (
            result.measured.valid_loss
            for result in results.values()
            if result.job.stage == "base" and result.measured is not None
        ),
        None,
    )
    half = half_of(protocol)
    if half is None or job.stage != "rates":
        return Briefing(base_valid_loss=loss)
    spared = job.contestant in {yardstick_of(protocol).name, FULL_FINETUNING}
    bar = None if spared else _bar(protocol, results)
    return Briefing(base_valid_loss=loss, half=half, bar=bar)


def half_of(protocol: Protocol) -> int | None:
    """The step after which runs may be stopped; `None` where none is."""
    half = protocol.asked.steps // 2
    return half if protocol.asked.halving and half else None


def yardstick_of(protocol: Protocol) -> Contestant:
    """Plain LoRA, or else the first candidate by name."""
    rest = sorted(protocol.contestants[1:], key=lambda each: each.name)
    return next((each for each in rest if each.method == _PLAIN and not each.variants), rest[0])


def may_begin(protocol: Protocol, results: Mapping[str, Result], job: Job) -> bool:
    """Whether the bar for a job stands, if there is to be one."""
    if half_of(protocol) is None or job.contestant in {yardstick_of(protocol).name, BASE}:
        return True
    return all(first.id(protocol) in results for first in _first_jobs(protocol))


def hopeless(
    ours: Sequence[tuple[float, int]], bar: Sequence[tuple[float, int]]
) -> tuple[bool, float, float]:
    """Whether a run is significantly worse than the bar, by how much, and the standard error.

    Args:
        ours: loss and tokens of every validation example.
        bar: likewise, of the yardstick, in the same order.
    """
    tokens = sum(count for _, count in ours)
    gap = (sum(loss for loss, _ in ours) - sum(loss for loss, _ in bar)) / max(tokens, 1)
    error = error_of_gap(ours, bar)
    return gap > 0 and gap > _DEVIATIONS * error, gap, error


def _first_jobs(protocol: Protocol) -> list[Job]:
    yardstick = yardstick_of(protocol)
    return [
        Job(stage="rates", contestant=yardstick.name, learning_rate=rate, seed=0)
        for rate in yardstick.rates
    ]


def _bar(protocol: Protocol, results: Mapping[str, Result]) -> tuple[tuple[float, int], ...] | None:
    """Validation items after half the steps of the best of the yardstick's first rates."""
    items = [
        result.measured.half_items
        for job in _first_jobs(protocol)
        if (result := results.get(job.id(protocol))) is not None
        and result.measured is not None
        and result.measured.half_items
    ]
    return min(items, key=lambda each: sum(loss for loss, _ in each), default=None)

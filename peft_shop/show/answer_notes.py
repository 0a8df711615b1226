"""What stands below an answer: how to read it, and where it comes from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from peft_shop.show.doubts import doubts
from peft_shop.show.questions import provenance
from peft_shop.show.rates import rates_footnote

if TYPE_CHECKING:
    from collections.abc import Sequence

    from peft_shop.ask.places import Dropped
    from peft_shop.ask.recommendation import Recommendation
    from peft_shop.catalog.benchmarks import Metric

__all__ = ["failures", "footnotes"]


def footnotes(recommendation: Recommendation, objectives: Sequence[Metric]) -> tuple[str, ...]:
    """What the figures mean, how many tries there were, which evidence and versions it is."""
    found = []
    groups = (recommendation.front, recommendation.ties, recommendation.dominated)
    measured = [candidate for group in groups for candidate in group]
    noisy = [
        metric for metric in objectives if any(metric.id in candidate.sds for candidate in measured)
    ]
    if measured:
        found.append(doubts(recommendation, measured, noisy))
    several = {
        candidate.method: candidate.configurations
        for candidate in sorted(measured, key=lambda one: (-one.configurations, one.method))
        if candidate.configurations > 1
    }
    if several:
        listed = ", ".join(f"{method} {count}" for method, count in several.items())
        found.append(
            f"Configurations tried: {listed}; one of every other method. More tries give a better "
            "best one by luck alone."
        )
    rates = rates_footnote(recommendation)
    if rates is not None:
        found.append(rates)
    return (*found, provenance(recommendation))


def failures(dropped: Dropped) -> str:
    """Every constraint that a candidate fails, with the reason."""
    return "; ".join(f"{failure.constraint}: {failure.reason}" for failure in dropped.failures)

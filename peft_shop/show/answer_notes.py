"""What stands below an answer: how to read it, and where it comes from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from peft_shop.show.questions import provenance

if TYPE_CHECKING:
    from collections.abc import Sequence

    from peft_shop.ask.answer import Recommendation
    from peft_shop.ask.candidates import Dropped
    from peft_shop.catalog.runs import Metric

__all__ = ["failures", "footnotes"]


def footnotes(recommendation: Recommendation, objectives: Sequence[Metric]) -> tuple[str, ...]:
    """What the figures mean, how many tries there were, which evidence and versions it is."""
    found = []
    groups = (recommendation.front, recommendation.ties, recommendation.dominated)
    measured = [one for group in groups for one in group]
    noisy = [metric for metric in objectives if any(metric.id in one.sds for one in measured)]
    if measured:
        text = "P(front): probability of being on the front of the true figures"
        if noisy:
            names = " and ".join(metric.label for metric in noisy)
            text += f", when {names} would change as in a re-run (±: one standard deviation)"
        seeds = {one.run.provenance.seed for one in measured}
        if len(seeds) == 1:
            text += (
                f". Every run has seed {next(iter(seeds))}: another seed adds noise that is not "
                "counted, so all of this is surer than it should be"
            )
        found.append(text + ".")
    several = {
        one.method: one.configurations
        for one in sorted(measured, key=lambda one: (-one.configurations, one.method))
        if one.configurations > 1
    }
    if several:
        listed = ", ".join(f"{method} {count}" for method, count in several.items())
        found.append(
            f"Configurations tried: {listed}; one of every other method. More tries give a better "
            "best one by luck alone."
        )
    return (*found, provenance(recommendation))


def failures(one: Dropped) -> str:
    """Every constraint that a candidate fails, with the reason."""
    return "; ".join(f"{failure.constraint}: {failure.reason}" for failure in one.failures)

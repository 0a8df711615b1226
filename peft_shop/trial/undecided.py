"""Which candidates of a trial cannot be told from the best one, and what would tell."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from peft_shop.ask.quantiles import significance_threshold
from peft_shop.records import Finite, Record, Text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peft_shop.catalog.catalog import Catalog

__all__ = ["Undecided", "undecided_pairs"]

_CONFIDENCE: Final = 0.95


class Undecided(Record):
    """A candidate that may be as good as the best one.

    Attributes:
        best: the candidate with the best mean of the trial's headline metric.
        other: the candidate.
        difference: by which it is worse, of their means, in the metric's base unit.
        seeds: that would decide, all else equal [count]; `None` where no number of them would.
        examples: of the test set that would decide with the seeds there are [count]; `None`
            where no number of them would.
    """

    best: Text
    other: Text
    difference: Finite
    seeds: int | None = None
    examples: int | None = None


def undecided_pairs(catalog: Catalog, names: Sequence[str]) -> tuple[Undecided, ...]:
    """Pairs of the best candidate and those that are not significantly worse.

    Seeds and test examples both count: the variance of a difference is the sum of sd^2 / n from n
    seeds of each, and that of the examples, which falls with their number. Empty where no noise is
    known.

    Args:
        catalog: of a trial.
        names: of the candidates.
    """
    own, headline = catalog.benchmarks[0].id, catalog.benchmarks[0].headline
    metric = catalog.metric_by_id[headline]
    sign = 1 if metric.better == "lower" else -1
    told = [each for each in catalog.noise if (each.benchmark, each.metric) == (own, headline)]
    noise = next((each for each in told if not each.experiments), None)
    scores: dict[str, list[float]] = {}
    for run in catalog.runs_by_benchmark[own]:
        if run.experiment in names and metric.field in run.metrics:
            scores.setdefault(run.experiment, []).append(sign * run.metrics[metric.field])
    if noise is None or noise.degrees is None or len(scores) < 2:
        return ()
    variances = dict.fromkeys(scores, noise.sd**2)
    variances |= {name: each.sd**2 for each in told for name in each.experiments}
    threshold = significance_threshold(_CONFIDENCE, noise.degrees)
    means = {name: math.fsum(values) / len(values) for name, values in scores.items()}
    best = min(means, key=lambda name: (means[name], name))
    sampled: Mapping[frozenset[str], tuple[float, int]] = {
        frozenset((pair.a, pair.b)): (pair.sd, pair.items)
        for pair in catalog.pairings
        if (pair.benchmark, pair.metric) == (own, headline)
    }
    found = []
    for name in sorted(means, key=means.__getitem__):
        difference = means[name] - means[best]
        sd, items = sampled.get(frozenset((best, name)), (0.0, 0))
        seeds = variances[name] / len(scores[name]) + variances[best] / len(scores[best])
        if name != best and difference <= threshold * math.sqrt(seeds + sd * sd):
            bar = (difference / threshold) ** 2
            found.append(
                Undecided(
                    best=best,
                    other=name,
                    difference=difference,
                    seeds=_enough(variances[name] + variances[best], bar - sd * sd),
                    examples=_enough(sd * sd * items, bar - seeds),
                )
            )
    return tuple(found)


def _enough(variance: float, room: float) -> int | None:
    """How many repeats bring a variance below what there is room for; `None` where none does."""
    if room <= 0:
        return None
    return math.floor(variance / room) + 1

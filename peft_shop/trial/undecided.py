"""Which candidates of a trial cannot be told from the best one, and what would tell."""

from __future__ import annotations

import math
import statistics
from itertools import combinations
from typing import TYPE_CHECKING, Final, NamedTuple

from peft_shop.ask.quantiles import significance_threshold
from peft_shop.records import Finite, Record, Text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from peft_shop.catalog.catalog import Catalog

__all__ = ["Undecided", "smallest_difference", "undecided_pairs"]

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


class _Rivals(NamedTuple):
    """Candidates of a trial and what chance adds to their differences.

    Attributes:
        costs: means of the headline metric, less is better.
        seeds: runs behind each [count].
        variances: of one run, by candidate.
        sampled: standard deviation that the test examples add to a difference, and their number.
        threshold: standard deviations that a difference needs.
    """

    costs: dict[str, float]
    seeds: dict[str, int]
    variances: dict[str, float]
    sampled: dict[frozenset[str], tuple[float, int]]
    threshold: float

    def seed_variance(self, one: str, other: str) -> float:
        """What the seeds add to the variance of a difference."""
        return self.variances[one] / self.seeds[one] + self.variances[other] / self.seeds[other]

    def examples(self, one: str, other: str) -> tuple[float, int]:
        """What the test examples add to the deviation of a difference, and their number."""
        return self.sampled.get(frozenset((one, other)), (0.0, 0))

    def needed(self, one: str, other: str) -> float:
        """The smallest difference of two candidates that counts."""
        sd, _ = self.examples(one, other)
        return self.threshold * math.sqrt(self.seed_variance(one, other) + sd * sd)


def undecided_pairs(catalog: Catalog, names: Sequence[str]) -> tuple[Undecided, ...]:
    """Pairs of the best candidate and those that are not significantly worse.

    Seeds and test examples both count: the variance of a difference is the sum of sd^2 / n from n
    seeds of each, and that of the examples, which falls with their number. Empty where no noise is
    known.

    Args:
        catalog: of a trial.
        names: of the candidates.
    """
    rivals = _rivals(catalog, names)
    if rivals is None:
        return ()
    best = min(rivals.costs, key=lambda name: (rivals.costs[name], name))
    pairs = []
    for name in sorted(rivals.costs, key=rivals.costs.__getitem__):
        difference = rivals.costs[name] - rivals.costs[best]
        if name != best and difference <= rivals.needed(best, name):
            sd, items = rivals.examples(best, name)
            bar = (difference / rivals.threshold) ** 2
            both = rivals.variances[name] + rivals.variances[best]
            pairs.append(
                Undecided(
                    best=best,
                    other=name,
                    difference=difference,
                    seeds=_enough(both, bar - sd * sd),
                    examples=_enough(sd * sd * items, bar - rivals.seed_variance(best, name)),
                )
            )
    return tuple(pairs)


def smallest_difference(catalog: Catalog, names: Sequence[str]) -> float | None:
    """The difference of two candidates that a trial can show, of the median pair.

    In the headline metric's base unit; `None` where no noise is known.

    Args:
        catalog: of a trial.
        names: of the candidates.
    """
    rivals = _rivals(catalog, names)
    if rivals is None:
        return None
    return statistics.median(rivals.needed(*pair) for pair in combinations(rivals.costs, 2))


def _rivals(catalog: Catalog, names: Sequence[str]) -> _Rivals | None:
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
        return None
    variances = dict.fromkeys(scores, noise.sd**2)
    variances |= {name: each.sd**2 for each in told for name in each.experiments}
    return _Rivals(
        costs={name: math.fsum(values) / len(values) for name, values in scores.items()},
        seeds={name: len(values) for name, values in scores.items()},
        variances=variances,
        sampled={
            frozenset((pair.a, pair.b)): (pair.sd, pair.items)
            for pair in catalog.pairings
            if (pair.benchmark, pair.metric) == (own, headline)
        },
        threshold=significance_threshold(_CONFIDENCE, noise.degrees),
    )


def _enough(variance: float, room: float) -> int | None:
    """How many repeats bring a variance below what there is room for; `None` where none does."""
    if room <= 0:
        return None
    return math.floor(variance / room) + 1

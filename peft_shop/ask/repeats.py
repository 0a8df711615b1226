"""Noise from repeats: least squares, and who has a variance of its own.

Model: value = row + column + error, where a row is one recipe and a column is what all runs of a
day share (software, or the seed that orders the data). The residual variance is the noise. A kind
of runs (a method, or one recipe) whose residuals are significantly larger than the rest's spoils
the estimate of the others, and is not described by theirs: it gets an estimate of its own.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from peft_shop.ask.quantiles import f_above
from peft_shop.catalog.noise import Noise

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Mapping, Sequence

__all__ = ["Estimates", "RunDeviation", "noise_of_seeds", "separated", "two_way"]

_LEAST_DEGREES: Final = 3
"""Degrees of freedom without which no noise of seeds is claimed."""
_LEVEL: Final = 0.01
"""Probability of an estimate of its own for some kind where all kinds are alike."""


@dataclass(frozen=True, slots=True)
class RunDeviation:
    """Standard deviation of one run.

    Attributes:
        sd: residual standard deviation.
        degrees: degrees of freedom.
        used: indices of the observations that entered, ascending.
    """

    sd: float
    degrees: int
    used: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Estimates:
    """Of the kinds that are alike, and of each that is not.

    Attributes:
        common: `None` where nothing that is alike was repeated.
        own: by kind, the most significant first.
    """

    common: RunDeviation | None
    own: Mapping[str, RunDeviation]


def two_way(observations: Sequence[tuple[Hashable, Hashable, float]]) -> RunDeviation | None:
    """Least-squares fit of value = row + column, or `None` with no degree of freedom left.

    Args:
        observations: (row, column, value); rows that occur once carry no information.
    """
    import numpy as np

    counts: dict[Hashable, int] = defaultdict(int)
    for row, _, _ in observations:
        counts[row] += 1
    used = tuple(i for i, (row, _, _) in enumerate(observations) if counts[row] > 1)
    if not used:
        return None
    rows = {row: k for k, row in enumerate(dict.fromkeys(observations[i][0] for i in used))}
    columns = {name: k for k, name in enumerate(dict.fromkeys(observations[i][1] for i in used))}
    design = np.zeros((len(used), len(rows) + len(columns)))
    for k, i in enumerate(used):
        design[k, rows[observations[i][0]]] = 1
        design[k, len(rows) + columns[observations[i][1]]] = 1
    values = np.array([observations[i][2] for i in used], dtype=float)
    values -= values.mean()  # bytes are large against their differences
    solution, _, rank, _ = np.linalg.lstsq(design, values)
    degrees = len(used) - int(rank)
    if degrees <= 0:
        return None
    residuals = values - design @ solution
    return RunDeviation(math.sqrt(float(residuals @ residuals) / degrees), degrees, used)


def separated(
    observations: Sequence[tuple[Hashable, Hashable, float]], kinds: Sequence[str]
) -> Estimates:
    """Noise of all kinds that are alike, and of each that is significantly noisier.

    One after the other, the kind is set apart whose residuals exceed those of the rest the most,
    as long as chance would bring such a one among so many in less than 1 % (F test with
    Bonferroni's correction). What it adds to the sum of squares over what it adds to the degrees
    of freedom is its variance: columns are those of the rest.

    Args:
        observations: as for `two_way`.
        kinds: the kind of each observation.
    """
    rest = list(range(len(observations)))
    own: dict[str, RunDeviation] = {}
    while True:
        common = _fit(observations, rest)
        if common is None:
            return Estimates(None, own)
        suspects: list[tuple[float, str, RunDeviation, list[int]]] = []
        names = sorted({kinds[i] for i in common.used})
        for name in names if len(names) > 1 else ():
            others = [i for i in rest if kinds[i] != name]
            without = _fit(observations, others)
            if without is None or without.degrees >= common.degrees or without.sd == 0:
                continue
            degrees = common.degrees - without.degrees
            squares = common.sd**2 * common.degrees - without.sd**2 * without.degrees
            variance = max(squares, 0.0) / degrees
            used = tuple(i for i in common.used if kinds[i] == name)
            chance = f_above(variance / without.sd**2, degrees, without.degrees)
            estimate = RunDeviation(math.sqrt(variance), degrees, used)
            suspects.append((chance, name, estimate, others))
        if not suspects:
            return Estimates(common, own)
        chance, name, estimate, others = min(suspects, key=lambda suspect: suspect[:2])
        if chance * len(suspects) >= _LEVEL:
            return Estimates(common, own)
        own[name], rest = estimate, others


def noise_of_seeds(
    observations: Sequence[tuple[Hashable, Hashable, float]],
    experiments: Sequence[str],
    *,
    benchmark: str,
    metric: str,
    era: str | None = None,
) -> Iterator[Noise]:
    """Noise of one metric from recipes that ran with several seeds: what both leave open.

    What all recipes share of a seed says nothing of which one is better. A recipe whose variance is
    significantly larger than that of the others has a noise of its own.

    Args:
        observations: (recipe, seed, figure).
        experiments: the name of each observation's recipe.
        benchmark: whose runs.
        metric: the figures' metric.
        era: the runs' era.
    """
    estimates = separated(observations, experiments)
    if estimates.common is None or estimates.common.degrees < _LEAST_DEGREES:
        return
    parts = [((), estimates.common), *(((name,), own) for name, own in estimates.own.items())]
    for named, estimate in parts:
        recipes = {observations[place][0] for place in estimate.used}
        seeds = {observations[place][1] for place in estimate.used}
        yield Noise(
            benchmark=benchmark,
            metric=metric,
            era=era,
            sd=estimate.sd,
            degrees=estimate.degrees,
            experiments=named,
            covers=("rerun", "seed"),
            method=f"{len(seeds)} seeds of {len(recipes)} recipes, two-way model",
        )


def _fit(
    observations: Sequence[tuple[Hashable, Hashable, float]], places: Sequence[int]
) -> RunDeviation | None:
    """`two_way` of some observations, with the indices of all."""
    fit = two_way([observations[i] for i in places])
    if fit is None:
        return None
    return RunDeviation(fit.sd, fit.degrees, tuple(places[i] for i in fit.used))

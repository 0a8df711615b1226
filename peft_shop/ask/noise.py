"""How sure a front is: probabilities of being on it, and ties, for costs measured with noise.

Costs are minimised; `sds[i][k]` is the standard deviation of `costs[i][k]`, 0 where a metric is
exact. The model: the true cost of a row is normal around the measured one, independently. With
noise in one column the probability is an integral over that column,

    P(i on the front) = E_t [ prod over rivals j of P(cost_j > t) ],   t ~ N(cost_i, sd_i)

where the rivals of i are the rows that are nowhere worse in the exact columns. It is computed by
the trapezoidal rule, which converges exponentially for such integrands (Trefethen and Weideman,
SIAM Review 56, 2014, doi 10.1137/120876132). With noise in several columns it is a seeded Monte
Carlo estimate.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from typing import TYPE_CHECKING

from peft_shop.errors import InputError
from peft_shop.pareto import dominates

if TYPE_CHECKING:
    from collections.abc import Sequence

    Matrix = Sequence[Sequence[float]]

__all__ = ["front_probabilities", "probability_below", "significance_threshold", "tie_set"]

_SPAN = 6.0
"""The integral is cut at this many standard deviations: what is left out is below 2e-9."""
_STEP = 0.6
"""Step of the trapezoidal rule in deviations of the sharpest factor: the error is below 2e-6."""
_SURE = 6.5
"""Differences of more standard deviations than this are taken as certain."""
_DRAWS = 20_000


def probability_below(difference: float, sd: float) -> float:
    """Probability that a normal variable with mean `difference` and deviation `sd` is below 0.

    >>> probability_below(0.0, 1.0)
    0.5
    """
    if sd <= 0:
        return 0.5 if difference == 0 else float(difference < 0)
    return 0.5 * math.erfc(difference / (sd * math.sqrt(2)))


def significance_threshold(confidence: float) -> float:
    """Standard normal quantile of a one-sided `confidence`, 1.645 for 0.95.

    Raises:
        InputError: the confidence is not in [0.5, 1).
    """
    if not 0.5 <= confidence < 1:
        raise InputError(f"confidence must be in [0.5, 1), got {confidence!r}")
    # Newton's steps from 0 rise to the quantile, since the distribution is concave above it;
    # `statistics.NormalDist` would do, but importing it takes a tenth of a command's time
    x, step = 0.0, 1.0
    while step > 1e-12:
        density = math.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)
        step = (confidence - probability_below(-x, 1.0)) / density
        x += step
    return x


def front_probabilities(costs: Matrix, sds: Matrix, *, seed: int = 0) -> list[float]:
    """Probability that each row is on the front of the true costs.

    Exact columns decide by themselves; one noisy column is integrated; several are sampled
    (standard error below 0.004).

    Args:
        costs: (n, m) finite costs.
        sds: (n, m) standard deviations, not negative.
        seed: of the generator; used only when several columns are noisy.
    """
    noisy = sorted({k for row in sds for k, sd in enumerate(row) if sd > 0})
    if not costs:
        return []
    if not noisy:
        return [0.0 if any(dominates(other, row) for other in costs) else 1.0 for row in costs]
    if len(noisy) == 1:
        return _integrated(costs, sds, noisy[0])
    return _sampled(costs, sds, seed)


def _rivals(costs: Matrix, exact: Sequence[int]) -> list[list[int]]:
    """For each row the other rows that are nowhere worse in the `exact` columns."""
    count = len(costs)
    if len(exact) != 1:
        keys = [tuple(row[k] for k in exact) for row in costs]
        return [
            [
                j
                for j in range(count)
                if j != i and all(a <= b for a, b in zip(keys[j], keys[i], strict=True))
            ]
            for i in range(count)
        ]
    column = [row[exact[0]] for row in costs]
    order = sorted(range(count), key=column.__getitem__)
    ends = [column[i] for i in order]
    return [[j for j in order[: bisect_right(ends, column[i])] if j != i] for i in range(count)]


def _integrated(costs: Matrix, sds: Matrix, column: int) -> list[float]:
    exact = [k for k in range(len(costs[0])) if k != column]
    means = [row[column] for row in costs]
    deviations = [row[column] for row in sds]
    result: list[float] = []
    for i, others in enumerate(_rivals(costs, exact)):
        close: list[tuple[float, float]] = []
        mean, deviation = means[i], deviations[i]
        for j in others:
            lead = means[j] - mean
            spread = math.hypot(deviation, deviations[j])
            if spread == 0.0:
                if dominates(costs[j], costs[i]):
                    break
            elif lead < -_SURE * spread:
                break
            elif lead <= _SURE * spread:
                close.append((means[j], deviations[j]))
        else:
            result.append(_survival(mean, deviation, close))
            continue
        result.append(0.0)
    return result


def _survival(mean: float, sd: float, rivals: list[tuple[float, float]]) -> float:
    """Probability that a normal variable is below all of `rivals`, each (mean, deviation)."""
    if not rivals:
        return 1.0
    root = math.sqrt(2)
    if sd == 0.0:
        return math.prod(0.5 * math.erfc((mean - m) / (s * root)) for m, s in rivals)
    sharpest = min((s for _, s in rivals if s > 0), default=sd)
    step = max(_STEP * min(1.0, sharpest / sd), 0.02)
    # the most dangerous rival first, so that a vanishing product is seen at once
    scaled = [((mean - m) / (s * root), sd / (s * root)) for m, s in sorted(rivals) if s > 0]
    steps = [(m - mean) / sd for m, s in rivals if s == 0]
    upper = min([_SPAN, *steps])
    erfc = math.erfc
    total = 0.0
    for index in range(-round(_SPAN / step), round(_SPAN / step) + 1):
        t = index * step
        if t > upper:
            break
        value = math.exp(-0.5 * t * t)
        for offset, slope in scaled:
            value *= 0.5 * erfc(offset + slope * t)
            if value < 1e-14:
                break
        total += value
    return min(1.0, total * step / math.sqrt(2 * math.pi))


def _sampled(costs: Matrix, sds: Matrix, seed: int) -> list[float]:
    import numpy as np

    means = np.asarray(costs, dtype=float)
    rng = np.random.default_rng(seed)
    count = len(means)
    hits = np.zeros(count)
    block = max(1, min(_DRAWS, 4_000_000 // (count * count)))
    done = 0
    while done < _DRAWS:
        size = min(block, _DRAWS - done)
        draws = means + rng.standard_normal((size, *means.shape)) * np.asarray(sds, dtype=float)
        no_worse = np.ones((size, count, count), dtype=bool)
        better = np.zeros((size, count, count), dtype=bool)
        for k in range(means.shape[1]):
            mine, other = draws[:, None, :, k], draws[:, :, None, k]
            no_worse &= other <= mine
            better |= other < mine
        hits += (~(no_worse & better).any(axis=1)).sum(axis=0)
        done += size
    return [float(value) for value in hits / _DRAWS]


def tie_set(
    costs: Matrix,
    sds: Matrix,
    *,
    confidence: float = 0.95,
    epsilons: Sequence[float] | None = None,
) -> list[int]:
    """Indices of the rows that no other row significantly dominates, ascending.

    Row j significantly dominates row i when j is no worse than i in every exact column, better
    in every noisy one by more than `significance_threshold(confidence)` standard deviations of
    the difference, and, where no column is noisy, better in some column by more than its epsilon.
    The rows of the front are always among the ties.

    Args:
        costs: (n, m) finite costs.
        sds: (n, m) standard deviations; a column is noisy when any of them is above 0.
        confidence: one-sided, in [0.5, 1).
        epsilons: per column the difference below which exact values count as equal; 0 if absent.
    """
    if not costs:
        return []
    columns = range(len(costs[0]))
    noisy = [k for k in columns if any(row[k] > 0 for row in sds)]
    exact = [k for k in columns if k not in noisy]
    slack = list(epsilons) if epsilons is not None else [0.0] * len(costs[0])
    threshold = significance_threshold(confidence)

    def beats(j: int, i: int) -> bool:
        mine, other = costs[i], costs[j]
        if not noisy:
            return any(other[k] < mine[k] - slack[k] for k in exact)
        for k in noisy:  # noqa: SIM110 - a plain loop: this is the hot spot of a query
            if mine[k] - other[k] <= threshold * math.hypot(sds[i][k], sds[j][k]):
                return False
        return True

    return [
        i for i, others in enumerate(_rivals(costs, exact)) if not any(beats(j, i) for j in others)
    ]

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
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from peft_shop.errors import InputError
from peft_shop.pareto import dominates, front

if TYPE_CHECKING:
    from collections.abc import Sequence

    Matrix = Sequence[Sequence[float]]

__all__ = ["front_probabilities", "probability_below", "significance_threshold", "tie_set"]

_SPAN = 6.0
"""The integral is cut at this many standard deviations: what is left out is below 2e-9."""
_STEP = 0.6
"""Step of the trapezoidal rule in deviations of the sharpest factor: the error is below 2e-6."""
_CUT = 0.5
"""Pairs of steps of Simpson's rule are this much of the trapezoidal step: the error is as small."""
_SURE = 6.5
"""Differences of more standard deviations than this are taken as certain."""
_DRAWS = 20_000
_LARGE = 100_000
"""From this many pairs on rows are compared as arrays."""


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
    if not costs:
        return []
    noisy = _noisy_columns(sds)
    result = [0.0] * len(costs)
    close = _close_to_front(costs, sds, noisy)
    near, spread = [costs[i] for i in close], [sds[i] for i in close]
    if not noisy:
        chances = [1.0] * len(close)
    elif len(noisy) == 1:
        chances = _integrated(near, spread, noisy[0])
    else:
        chances = _sampled(near, spread, seed)
    for i, chance in zip(close, chances, strict=True):
        result[i] = chance
    return result


def _noisy_columns(sds: Matrix) -> list[int]:
    return sorted({k for row in sds for k, sd in enumerate(row) if sd > 0})


def _close_to_front(costs: Matrix, sds: Matrix, noisy: Sequence[int]) -> list[int]:
    """Indices of the rows that no member of the measured front certainly dominates, ascending.

    Certain is nowhere worse in the exact columns and better by `_SURE` deviations in every noisy
    one. What is certainly dominated is on no front, and whatever it dominates is dominated by the
    same member of the front all the more: the rest decides alone, and is few.
    """
    members = front(costs)
    if not noisy:
        return members
    exact = [k for k in range(len(costs[0])) if k not in noisy]
    if len(members) * len(costs) >= _LARGE:
        return _close_of_many(costs, sds, members, exact, noisy)
    best = [(costs[i], sds[i]) for i in members]

    def beaten(row: Sequence[float], sd: Sequence[float]) -> bool:
        for other, other_sd in best:
            if all(other[k] <= row[k] for k in exact) and all(
                row[k] - other[k] > _SURE * math.hypot(sd[k], other_sd[k]) for k in noisy
            ):
                return True
        return False

    return [i for i, (row, sd) in enumerate(zip(costs, sds, strict=True)) if not beaten(row, sd)]


def _close_of_many(
    costs: Matrix,
    sds: Matrix,
    members: Sequence[int],
    exact: Sequence[int],
    noisy: Sequence[int],
) -> list[int]:
    """As `_close_to_front`; a member drops all at once that it certainly dominates."""
    import numpy as np

    rows, deviations = np.asarray(costs, dtype=float), np.asarray(sds, dtype=float)
    close = np.arange(len(rows))
    for member in members:
        leads = rows[close][:, noisy] - rows[member, noisy]
        spread = np.hypot(deviations[close][:, noisy], deviations[member, noisy])
        beaten = (leads > _SURE * spread).all(axis=1)
        beaten &= (rows[member, exact] <= rows[close][:, exact]).all(axis=1)
        close = close[~beaten]
    return [int(i) for i in close]


def _rivals(costs: Matrix, exact: Sequence[int]) -> list[list[int]]:
    """For each row the other rows that are nowhere worse in the `exact` columns."""
    if len(exact) == 1:
        column = [row[exact[0]] for row in costs]
        order = sorted(range(len(column)), key=column.__getitem__)
        ascending = [column[i] for i in order]
        return [
            [j for j in order[: bisect_right(ascending, value)] if j != i]
            for i, value in enumerate(column)
        ]
    if not exact:
        every = list(range(len(costs)))
        return [[j for j in every if j != i] for i in every]
    keys = [tuple(row[k] for k in exact) for row in costs]
    if len(keys) ** 2 >= _LARGE:
        import numpy as np

        columns = np.asarray(keys, dtype=float)
        found = (np.flatnonzero((columns <= key).all(axis=1)).tolist() for key in columns)
        return [[j for j in others if j != i] for i, others in enumerate(found)]
    return [
        [
            j
            for j, other in enumerate(keys)
            if j != i and all(a <= b for a, b in zip(other, key, strict=True))
        ]
        for i, key in enumerate(keys)
    ]


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
    if upper <= -_SPAN:
        return 0.0
    erfc = math.erfc

    def density(t: float) -> float:
        value = math.exp(-0.5 * t * t)
        for offset, slope in scaled:
            value *= 0.5 * erfc(offset + slope * t)
            if value < 1e-14:
                break
        return value

    if upper == _SPAN:
        half = round(_SPAN / step)
        total = math.fsum(density(index * step) for index in range(-half, half + 1)) * step
    else:
        # a rival without noise cuts the integrand off where it has not vanished: Simpson's rule
        count = 2 * math.ceil((upper + _SPAN) / (_CUT * step))
        width = (upper + _SPAN) / count
        weights = ((4 if index % 2 else 2) for index in range(1, count))
        inner = (
            weight * density(index * width - _SPAN) for index, weight in enumerate(weights, start=1)
        )
        total = math.fsum([density(-_SPAN), *inner, density(upper)]) * width / 3
    return min(1.0, total / math.sqrt(2 * math.pi))


def _sampled(costs: Matrix, sds: Matrix, seed: int) -> list[float]:
    import numpy as np

    means, deviations = np.asarray(costs, dtype=float), np.asarray(sds, dtype=float)
    rng = np.random.default_rng(seed)
    count, width = means.shape
    # rows without noise that are equal stay equal in every draw, which a sweep does not see
    still = [tuple(row) for row, sd in zip(costs, sds, strict=True) if not any(sd)]
    apart = width != 2 or len(set(still)) < len(still)
    hits = np.zeros(count)
    size = max(1, min(_DRAWS, 4_000_000 // count**2))
    for start in range(0, _DRAWS, size):
        shape = (min(size, _DRAWS - start), count, width)
        draws = means + rng.standard_normal(shape) * deviations
        hits += (_front_of_many(draws) if apart else _front_of_two(draws)).sum(axis=0)
    return [float(value) for value in hits / _DRAWS]


def _front_of_two(draws: Any) -> Any:
    """Which rows of each draw are on its front; (s, n, 2) -> (s, n).

    Sorted by the first column, a row is on the front where its second is below all before it.
    """
    import numpy as np

    order = np.lexsort((draws[:, :, 1], draws[:, :, 0]), axis=1)
    second = np.take_along_axis(draws[:, :, 1], order, axis=1)
    least = np.minimum.accumulate(second, axis=1)
    on_front = np.ones(order.shape, dtype=bool)
    on_front[:, 1:] = second[:, 1:] < least[:, :-1]
    result = np.empty_like(on_front)
    np.put_along_axis(result, order, on_front, axis=1)
    return result


def _front_of_many(draws: Any) -> Any:
    """Which rows of each draw are on its front; (s, n, m) -> (s, n)."""
    import numpy as np

    size, count, width = draws.shape
    no_worse = np.ones((size, count, count), dtype=bool)
    better = np.zeros((size, count, count), dtype=bool)
    for k in range(width):
        mine, other = draws[:, None, :, k], draws[:, :, None, k]
        no_worse &= other <= mine
        better |= other < mine
    return ~(no_worse & better).any(axis=1)


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
    noisy = _noisy_columns(sds)
    exact = [k for k in range(len(costs[0])) if k not in noisy]
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

    if noisy and threshold <= _SURE:
        # what the front certainly dominates is beaten, and beats nobody whom the front does not
        judges = suspects = _close_to_front(costs, sds, noisy)
    elif noisy:
        judges = suspects = list(range(len(costs)))
    else:
        # what an exact row beats, the member of the front that dominates it beats as well
        judges, suspects = front(costs), list(range(len(costs)))

    if len(judges) * len(suspects) >= _LARGE:
        rule = _Significance(exact, noisy, threshold, slack)
        return _unbeaten(costs, sds, judges, suspects, rule)

    def no_worse(j: int, i: int) -> bool:
        return all(costs[j][k] <= costs[i][k] for k in exact)

    return [
        i for i in suspects if not any(j != i and no_worse(j, i) and beats(j, i) for j in judges)
    ]


@dataclass(frozen=True, slots=True)
class _Significance:
    """When a row beats another that is no better in the exact columns.

    Attributes:
        exact: columns without noise.
        noisy: columns with noise.
        threshold: standard deviations by which every noisy column must lead.
        slack: by column the lead that counts where none is noisy.
    """

    exact: Sequence[int]
    noisy: Sequence[int]
    threshold: float
    slack: Sequence[float]


def _unbeaten(
    costs: Matrix,
    sds: Matrix,
    judges: Sequence[int],
    suspects: Sequence[int],
    rule: _Significance,
) -> list[int]:
    """As the last step of `tie_set`; a judge strikes all at once that it beats."""
    import numpy as np

    exact, noisy = rule.exact, rule.noisy
    rows, deviations = np.asarray(costs, dtype=float), np.asarray(sds, dtype=float)
    left = np.asarray(suspects)
    for judge in judges:
        mine = rows[left]
        beaten = (rows[judge, exact] <= mine[:, exact]).all(axis=1) & (left != judge)
        if noisy:
            spread = np.hypot(deviations[left][:, noisy], deviations[judge, noisy])
            beaten &= (mine[:, noisy] - rows[judge, noisy] > rule.threshold * spread).all(axis=1)
        else:
            beaten &= (rows[judge] < mine - np.asarray(rule.slack)).any(axis=1)
        left = left[~beaten]
    return [int(i) for i in left]

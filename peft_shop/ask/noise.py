"""How sure a front is: probabilities of being on it, for costs measured with noise.

Costs are minimised; `sds[i][k]` is the standard deviation of `costs[i][k]`, 0 where a metric is
exact. The model: the true cost of a row is normal around the measured one, independently of the
other rows. With noise in one column the probability is an integral over that column,

    P(i on the front) = E_t [ prod over rivals j of P(cost_j > t) ],   t ~ N(cost_i, sd_i)

where the rivals of i are the rows that are nowhere worse in the exact columns. It is computed by
the trapezoidal rule, which converges exponentially for such integrands (Trefethen and Weideman,
SIAM Review 56, 2014, doi 10.1137/120876132). With noise in several columns the same expectation is
taken over the figures of i alone, its rivals being integrated in closed form, at the points of a
lattice (no random numbers).

Where the noise was estimated with few degrees of freedom, the probability is averaged over what
the true noise may be, given the estimate: for two rows it is then Student's.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from typing import TYPE_CHECKING, Final

from peft_shop.ask.lattice import MANY, on_lattice
from peft_shop.ask.noise_scales import scaled, scales_of
from peft_shop.ask.quantiles import significance_threshold
from peft_shop.pareto import dominates, front

if TYPE_CHECKING:
    from collections.abc import Sequence

    Matrix = Sequence[Sequence[float]]

__all__ = ["close_to_front", "front_probabilities", "noisy_columns", "probability_below"]

_SPAN = 6.0
"""The integral is cut at this many standard deviations: what is left out is below 2e-9."""
_STEP = 0.6
"""Step of the trapezoidal rule in deviations of the sharpest factor: the error is below 2e-6."""
_CUT = 0.5
"""Pairs of steps of Simpson's rule are this much of the trapezoidal step: the error is as small."""
SURE: Final = 6.5
"""Differences of more standard deviations than this are taken as certain."""
_NEGLIGIBLE: Final = 1e-7
"""Chance of an overturned lead that is not worth a look."""
_LARGE: Final = 100_000
"""From this many pairs on rows are compared as arrays."""


def probability_below(difference: float, sd: float) -> float:
    """Probability that a normal variable with mean `difference` and deviation `sd` is below 0.

    >>> probability_below(0.0, 1.0)
    0.5
    """
    if sd <= 0:
        return 0.5 if difference == 0 else float(difference < 0)
    return 0.5 * math.erfc(difference / (sd * math.sqrt(2)))


def front_probabilities(
    costs: Matrix,
    sds: Matrix,
    *,
    reruns: Matrix | None = None,
    degrees: Sequence[float] | None = None,
) -> list[float]:
    """Probability that each row is on the front of the true costs.

    Exact columns decide by themselves; one noisy column is integrated; several, or one of hundreds
    of rows close to the front, are taken at the points of a lattice (error below 0.005).

    Args:
        costs: (n, m) finite costs.
        sds: (n, m) standard deviations, not negative.
        reruns: (n, m) the part of `sds` that was estimated from repeats; all of it where absent.
        degrees: (m,) of freedom behind the estimates of a column; infinite where absent.
    """
    if not costs:
        return []
    noisy = noisy_columns(sds)
    parts = sds if reruns is None else reruns
    freedom = [math.inf] * len(costs[0]) if degrees is None else list(degrees)
    if not noisy:
        members = set(front(costs))
        return [float(i in members) for i in range(len(costs))]
    sure = max(SURE, significance_threshold(1 - _NEGLIGIBLE, min(freedom[k] for k in noisy)))
    close = close_to_front(costs, sds, noisy, sure)
    near, spread, part = ([rows[i] for i in close] for rows in (costs, sds, parts))
    if len(noisy) == 1 and len(near) < 2 * MANY:
        chances = _averaged(near, spread, part, noisy[0], freedom[noisy[0]])
    else:
        chances = on_lattice(near, spread, part, noisy, freedom)
    result = [0.0] * len(costs)
    for i, chance in zip(close, chances, strict=True):
        result[i] = chance
    return result


def noisy_columns(sds: Matrix) -> list[int]:
    """Columns in which some deviation is above 0, ascending."""
    return sorted({k for row in sds for k, sd in enumerate(row) if sd > 0})


def close_to_front(
    costs: Matrix, sds: Matrix, noisy: Sequence[int], sure: float = SURE
) -> list[int]:
    """Indices of the rows that no member of the measured front certainly dominates, ascending.

    Certain is nowhere worse in the exact columns and better by `sure` deviations in every noisy
    one. What is certainly dominated is on no front, and whatever it dominates is dominated by the
    same member of the front all the more: the rest decides alone, and is few.
    """
    members = front(costs)
    if not noisy:
        return members
    exact = [k for k in range(len(costs[0])) if k not in noisy]
    if len(members) * len(costs) >= _LARGE:
        return _close_of_many(costs, sds, members, noisy, sure)
    best = [(costs[i], sds[i]) for i in members]

    def beaten(row: Sequence[float], sd: Sequence[float]) -> bool:
        for other, other_sd in best:
            if all(other[k] <= row[k] for k in exact) and all(
                row[k] - other[k] > sure * math.hypot(sd[k], other_sd[k]) for k in noisy
            ):
                return True
        return False

    return [i for i, (row, sd) in enumerate(zip(costs, sds, strict=True)) if not beaten(row, sd)]


def _close_of_many(
    costs: Matrix, sds: Matrix, members: Sequence[int], noisy: Sequence[int], sure: float
) -> list[int]:
    """As `close_to_front`; a member drops all at once that it certainly dominates."""
    import numpy as np

    rows, deviations = np.asarray(costs, dtype=float), np.asarray(sds, dtype=float)
    exact = [k for k in range(rows.shape[1]) if k not in noisy]
    close = np.arange(len(rows))
    for member in members:
        leads = rows[close][:, noisy] - rows[member, noisy]
        spread = np.hypot(deviations[close][:, noisy], deviations[member, noisy])
        beaten = (leads > sure * spread).all(axis=1)
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


def _averaged(
    costs: Matrix, sds: Matrix, reruns: Matrix, column: int, degrees: float
) -> list[float]:
    """As `_integrated`, averaged over what the estimated noise may be in truth."""
    chances = [0.0] * len(costs)
    for ratio, weight in scales_of(degrees):
        widths = [1 / ratio if k == column else 1.0 for k in range(len(costs[0]))]
        spread = sds
        if ratio != 1.0:
            spread = [scaled(row, part, widths) for row, part in zip(sds, reruns, strict=True)]
        for i, chance in enumerate(_integrated(costs, spread, column)):
            chances[i] += weight * chance
    return [min(1.0, chance) for chance in chances]


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
            elif lead < -SURE * spread:
                break
            elif lead <= SURE * spread:
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

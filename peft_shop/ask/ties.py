"""Which rows no other row dominates beyond doubt: the ties of the front.

A single lead is held against Student's t. Here every row is compared with all of its rivals at
once, and the best of many equal rivals is ahead by chance: their largest lead is held against
Dunnett's factor, so that each of several equal rows stays a tie with the stated confidence.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from peft_shop.ask.noise import noisy_columns
from peft_shop.ask.spread import counts, factor, factor_bound, lead_spread
from peft_shop.pareto import front

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Matrix = Sequence[Sequence[float]]

__all__ = ["rival_counts", "tie_set"]

_LARGE: Final = 100_000
"""From this many pairs on rows are compared as arrays."""


def rival_counts(costs: Matrix, sds: Matrix) -> list[int]:
    """With how many rivals each row is compared: rows that are nowhere worse where costs are exact.

    With several exact columns at most so many.
    """
    noisy = noisy_columns(sds)
    width = len(costs[0]) if costs else 0
    counts = [len(costs) - 1] * len(costs)
    for k in range(width):
        if k in noisy:
            continue
        ascending = sorted(row[k] for row in costs)
        counts = [
            min(count, bisect_right(ascending, row[k]) - 1)
            for count, row in zip(counts, costs, strict=True)
        ]
    return counts


def tie_set(
    costs: Matrix,
    sds: Matrix,
    *,
    confidence: float = 0.95,
    epsilons: Sequence[float] | None = None,
    reruns: Matrix | None = None,
    degrees: Matrix | None = None,
    paired: Mapping[tuple[int, int, int], float] | None = None,
) -> list[int]:
    """Indices of the rows that no other row significantly dominates, ascending.

    Row j significantly dominates row i when j is no worse than i in every exact column, better
    in every noisy one by more than Dunnett's factor for the rivals of i times the deviation of
    the difference, and, where no column is noisy, better in some column by more than its epsilon.
    The rows of the front are always among the ties.

    Args:
        costs: (n, m) finite costs.
        sds: (n, m) standard deviations; a column is noisy when any of them is above 0.
        confidence: one-sided, in [0.5, 1).
        epsilons: per column the difference below which exact values count as equal; 0 if absent.
        reruns: (n, m) the part of `sds` that was estimated from repeats; all of it where absent.
        degrees: (n, m) of freedom behind the estimates; infinite where absent.
        paired: by row, row and column the standard deviation of a difference from the choice of
            questions, where it is known better than from `sds`.
    """
    if not costs:
        return []
    noisy = noisy_columns(sds)
    if not noisy:
        return _exact_ties(costs, epsilons)
    rule = _Rule(
        costs,
        sds,
        reruns=sds if reruns is None else reruns,
        degrees=degrees,
        confidence=confidence,
        noisy=noisy,
        paired=paired or {},
    )
    members = front(costs)
    on_front = set(members)
    # what some member of the front beats needs no further look
    left = [i for i in rule.unbeaten(members) if i not in on_front]
    return sorted([*members, *(i for i in left if not rule.is_beaten(i))])


class _Rule:
    """When a row significantly dominates another."""

    def __init__(
        self,
        costs: Matrix,
        sds: Matrix,
        *,
        reruns: Matrix,
        degrees: Matrix | None,
        confidence: float,
        noisy: Sequence[int],
        paired: Mapping[tuple[int, int, int], float],
    ) -> None:
        self.costs = costs
        self.sds = sds
        self.reruns = reruns
        self.degrees = degrees
        self.confidence = confidence
        self.noisy = noisy
        self.paired = paired
        self.exact = [k for k in range(len(costs[0])) if k not in noisy]
        self.counts = rival_counts(costs, sds)
        # bounds that settle most pairs: a normal pair needs least, the worst known of all most
        self.least = factor(confidence, math.inf)
        worst = min((value for row in degrees or () for value in row), default=math.inf)
        self.most = factor_bound(confidence, worst, max(self.counts))

    def beats(self, j: int, i: int) -> bool:
        """Whether row `j` significantly dominates row `i`."""
        mine, other = self.costs[i], self.costs[j]
        for k in self.exact:
            if other[k] > mine[k]:
                return False
        for k in self.noisy:
            lead = mine[k] - other[k]
            if lead <= 0:
                return False
            spread = lead_spread(
                self._deviation(i, k), self._deviation(j, k), self.paired.get((i, j, k))
            )
            if lead <= self.least * spread.sd or (
                lead <= self.most * spread.sd
                and not counts(lead, spread, self.confidence, self.counts[i])
            ):
                return False
        return True

    def _deviation(self, i: int, k: int) -> tuple[float, float, float]:
        degrees = math.inf if self.degrees is None else self.degrees[i][k]
        return self.sds[i][k], self.reruns[i][k], degrees

    def unbeaten(self, judges: Sequence[int]) -> list[int]:
        """Rows that none of `judges` significantly dominates, ascending."""
        count = len(self.costs)
        if len(judges) * count < _LARGE or self.paired:
            return [i for i in range(count) if not any(j != i and self.beats(j, i) for j in judges)]
        import numpy as np

        left = np.arange(count)
        for judge in judges:
            able, sure = self._settled(left, judge, sign=1)
            open_ = [
                place
                for place in np.flatnonzero(able & ~sure)
                if self.beats(judge, int(left[place]))
            ]
            sure[open_] = True
            left = left[~sure]
        return [int(i) for i in left]

    def is_beaten(self, i: int) -> bool:
        """Whether any row significantly dominates row `i`."""
        count = len(self.costs)
        if count < math.isqrt(_LARGE) or self.paired:
            return any(j != i and self.beats(j, i) for j in range(count))
        import numpy as np

        able, sure = self._settled(np.arange(count), i, sign=-1)
        return bool(sure.any()) or any(self.beats(int(j), i) for j in np.flatnonzero(able))

    def _settled(self, rows: Any, pivot: int, *, sign: int) -> tuple[Any, Any]:
        """Which pairs may be decided, and which surely are, by bounds that hold for every pair.

        With `sign` 1 the pivot judges the rows, with -1 the rows judge the pivot.
        """
        costs, sds = self._arrays
        exact = sign * (costs[rows][:, self.exact] - costs[pivot, self.exact])
        able = (exact >= 0).all(axis=1) & (rows != pivot)
        leads = sign * (costs[rows][:, self.noisy] - costs[pivot, self.noisy])
        spread = (sds[rows][:, self.noisy] ** 2 + sds[pivot, self.noisy] ** 2) ** 0.5
        # a hair apart, so that rounding leaves the pairs at a bound to `beats`
        able &= ((leads > 0) & (leads >= self.least * spread * (1 - 1e-9))).all(axis=1)
        return able, able & (leads > self.most * spread * (1 + 1e-9)).all(axis=1)

    @cached_property
    def _arrays(self) -> tuple[Any, Any]:
        import numpy as np

        return np.asarray(self.costs, dtype=float), np.asarray(self.sds, dtype=float)


def _exact_ties(costs: Matrix, epsilons: Sequence[float] | None) -> list[int]:
    """Rows that no other dominates by more than what counts as equal.

    What an exact row beats, the member of the front that dominates it beats as well.
    """
    slack = list(epsilons) if epsilons is not None else [0.0] * len(costs[0])
    members = front(costs)
    if len(members) * len(costs) >= _LARGE:
        import numpy as np

        rows = np.asarray(costs, dtype=float)
        left = np.arange(len(rows))
        for member in members:
            no_worse = (rows[member] <= rows[left]).all(axis=1)
            left = left[~(no_worse & (rows[member] < rows[left] - np.asarray(slack)).any(axis=1))]
        return [int(i) for i in left]

    def beats(j: int, i: int) -> bool:
        return all(a <= b for a, b in zip(costs[j], costs[i], strict=True)) and any(
            a < b - width for a, b, width in zip(costs[j], costs[i], slack, strict=True)
        )

    return [i for i in range(len(costs)) if not any(j != i and beats(j, i) for j in members)]

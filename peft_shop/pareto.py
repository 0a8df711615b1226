"""Dominance on an (n, m) cost matrix; knows nothing of PEFT.

Every column is minimised. A row dominates another when it is nowhere worse and somewhere better,
so equal rows do not dominate each other: they are on the front together or not at all.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING

from peft_shop.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    Costs = Sequence[Sequence[float]]
    """n rows of m finite costs."""
    Point = tuple[float, ...]

__all__ = ["dominates", "dominators", "front"]

_LARGE = 2000
"""From this many distinct rows on, four and more columns go through numpy."""


def dominates(a: Sequence[float], b: Sequence[float]) -> bool:
    """Whether cost row `a` is nowhere worse than `b` and somewhere better.

    >>> dominates((1, 2), (1, 3)), dominates((1, 2), (1, 2))
    (True, False)
    """
    better = False
    for left, right in zip(a, b, strict=True):
        if left > right:
            return False
        if left < right:
            better = True
    return better


def front(costs: Costs) -> list[int]:
    """Indices of the rows that no other row dominates, ascending.

    Sorts once, then sweeps: O(n log n) for up to three columns. From four on a row is compared
    with the front found so far, which stays small on random data.

    Args:
        costs: (n, m) finite costs, all minimised.

    Raises:
        InputError: a cost is NaN or infinite, or rows differ in length.

    >>> front([(1, 3), (2, 2), (2, 3), (3, 1)])
    [0, 1, 3]
    """
    places: dict[Point, list[int]] = {}
    for index, row in enumerate(costs):
        places.setdefault(tuple(row), []).append(index)
    if not places:
        return []
    width = len(next(iter(places)))
    for point in places:
        if len(point) != width or not math.isfinite(math.fsum(point)):
            raise InputError(f"costs must be finite rows of one length, got {point!r}")
    if width == 0:
        return list(range(len(costs)))
    # in this order whatever dominates a row comes before it
    points = sorted(places)
    if width == 1:
        kept: Iterable[Point] = points[:1]
    elif width == 2:
        kept = _sweep_two(points)
    elif width == 3:
        kept = _sweep_three(points)
    elif len(points) < _LARGE:
        kept = _filter(points)
    else:
        kept = _filter_large(points)
    return sorted(index for point in kept for index in places[point])


def dominators(costs: Costs, candidates: Sequence[int]) -> dict[int, int]:
    """For every row that some candidate dominates, the first such candidate in their order.

    Args:
        costs: (n, m) costs.
        candidates: indices of rows, usually the front in order of preference.
    """
    found: dict[int, int] = {}
    for index, row in enumerate(costs):
        for candidate in candidates:
            if dominates(costs[candidate], row):
                found[index] = candidate
                break
    return found


def _sweep_two(points: list[Point]) -> list[Point]:
    kept: list[Point] = []
    best = math.inf
    for point in points:
        if point[1] < best:
            best = point[1]
            kept.append(point)
    return kept


def _sweep_three(points: list[Point]) -> list[Point]:
    """Keeps the staircase of (second, third) seen so far: ascending second, descending third."""
    kept: list[Point] = []
    seconds: list[float] = []
    thirds: list[float] = []
    for point in points:
        _, second, third = point
        place = bisect_right(seconds, second)
        if place and thirds[place - 1] <= third:
            continue
        kept.append(point)
        start = bisect_left(seconds, second)
        end = start
        while end < len(thirds) and thirds[end] >= third:
            end += 1
        seconds[start:end] = [second]
        thirds[start:end] = [third]
    return kept


def _filter(points: list[Point]) -> list[Point]:
    kept: list[Point] = []
    for point in points:
        if not any(
            all(left <= right for left, right in zip(other, point, strict=True)) for other in kept
        ):
            kept.append(point)
    return kept


def _filter_large(points: list[Point]) -> list[Point]:
    import numpy as np

    rows = np.array(points)
    # dense ranks make columns of any scale comparable, and whatever dominates a row has a
    # smaller sum of them
    ranks = sum(np.unique(column, return_inverse=True)[1] for column in rows.T)
    alive = np.argsort(ranks, kind="stable")
    kept: list[int] = []
    while alive.size:
        first = alive[0]
        kept.append(int(first))
        alive = alive[(rows[alive] < rows[first]).any(axis=1)]
    return [points[index] for index in kept]

"""Dominance on an (n, m) cost matrix; knows nothing of PEFT.

Every column is minimised. A row dominates another when it is nowhere worse and somewhere better,
so equal rows do not dominate each other: they are on the front together or not at all.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from importlib.util import find_spec
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
_MANY_PAIRS = 100_000
"""From this many pairs of a row and a candidate on, dominators are found through numpy."""


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
        if len(point) != width or not _finite(point):
            shown = repr(point) if len(point) < 20 else f"a row of {len(point)}"
            raise InputError(f"costs must be finite rows of one length, got {shown[:300]}")
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
    elif find_spec("moocore") is not None:
        kept = _by_moocore(points)
    else:
        kept = _filter_large(points)
    return sorted(index for point in kept for index in places[point])


def _finite(point: Point) -> bool:
    try:
        return all(map(math.isfinite, point))
    except (OverflowError, TypeError, ValueError):  # beyond floats, or no number at all
        return False


def dominators(costs: Costs, candidates: Sequence[int]) -> dict[int, int]:
    """For every row that some candidate dominates, the first such candidate in their order.

    Args:
        costs: (n, m) costs.
        candidates: indices of rows, usually the front in order of preference.
    """
    if len(costs) * len(candidates) > _MANY_PAIRS:
        return _dominators_large(costs, candidates)
    first: dict[int, int] = {}
    for index, row in enumerate(costs):
        for candidate in candidates:
            if dominates(costs[candidate], row):
                first[index] = candidate
                break
    return first


def _dominators_large(costs: Costs, candidates: Sequence[int]) -> dict[int, int]:
    import numpy as np

    rows = np.asarray(costs, dtype=float)
    first: dict[int, int] = {}
    alive = np.arange(len(rows))
    for candidate in candidates:
        point = rows[candidate]
        beaten = (point <= rows[alive]).all(axis=1) & (point < rows[alive]).any(axis=1)
        first.update(dict.fromkeys(alive[beaten].tolist(), candidate))
        alive = alive[~beaten]
    return first


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


def _by_moocore(points: list[Point]) -> list[Point]:
    """As `_filter_large`, which is quadratic where all rows are on the front."""
    import numpy as np
    from moocore import is_nondominated  # noqa: PLC0415 - optional, and only for large arrays

    # ranks, since floats would make large integers equal
    ranks = [np.unique(column, return_inverse=True)[1] for column in np.array(points).T]
    kept = is_nondominated(np.column_stack(ranks).astype(float))
    return [points[index] for index in np.flatnonzero(kept)]

"""The front against brute force and its laws; moocore as an independent oracle."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peft_shop import pareto
from peft_shop.errors import InputError
from peft_shop.pareto import dominates, dominators, front

WIDTHS = st.integers(1, 5)


def matrices(width: int) -> st.SearchStrategy[list[tuple[float, ...]]]:
    # few distinct values, so that ties and duplicates are common
    value = st.integers(0, 4).map(float) | st.floats(-1e6, 1e6)
    return st.lists(st.tuples(*[value] * width), max_size=30)


costs = WIDTHS.flatmap(matrices)


def brute_force(rows: list[tuple[float, ...]]) -> list[int]:
    return [i for i, row in enumerate(rows) if not any(dominates(other, row) for other in rows)]


@given(costs)
def test_equals_brute_force(rows: list[tuple[float, ...]]) -> None:
    assert front(rows) == brute_force(rows)


@given(costs)
def test_the_filter_for_large_arrays_agrees(rows: list[tuple[float, ...]]) -> None:
    points = sorted(set(rows))
    kept = pareto._filter_large(points) if points else []
    assert sorted(kept) == [points[i] for i in brute_force(points)]


@given(costs)
def test_laws(rows: list[tuple[float, ...]]) -> None:
    found = front(rows)
    assert bool(found) == bool(rows)
    assert not any(dominates(rows[i], rows[j]) for i in found for j in found)
    above = dominators(rows, found)
    assert set(above) == set(range(len(rows))) - set(found)
    assert all(dominates(rows[winner], rows[loser]) for loser, winner in above.items())


@given(costs, st.randoms(use_true_random=False))
def test_invariant_to_order(rows: list[tuple[float, ...]], rng: random.Random) -> None:
    places = list(range(len(rows)))
    rng.shuffle(places)
    shuffled = [rows[i] for i in places]
    assert sorted(places[i] for i in front(shuffled)) == front(rows)


@given(WIDTHS.flatmap(lambda m: st.lists(st.tuples(*[st.integers(-50, 50)] * m), max_size=20)))
def test_invariant_to_rescaling(rows: list[tuple[int, ...]]) -> None:
    scaled = [tuple(3.0 * value + 7 for value in row) for row in rows]
    assert front(scaled) == front(rows)


@given(costs.filter(bool), st.data())
def test_a_dominated_point_changes_nothing(
    rows: list[tuple[float, ...]], data: st.DataObject
) -> None:
    base = data.draw(st.sampled_from(rows))
    worse = tuple(math.nextafter(value, math.inf) + 1 for value in base)
    assert front([*rows, worse]) == front(rows)


def test_equal_rows_stand_together() -> None:
    assert front([(1, 1), (1, 1), (2, 1)]) == [0, 1]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 10**400, -(10**400), "1", None])
def test_refuses_what_cannot_be_compared(bad: Any) -> None:
    with pytest.raises(InputError, match="finite"):
        front([(1.0, 2.0), (bad, 1.0)])


def test_sums_beyond_floats_are_no_obstacle() -> None:
    assert pareto.front([(1e308, 1e308), (1e308, 1.0)]) == [1]


@given(costs)
def test_the_way_for_large_arrays_through_moocore_agrees(rows: list[tuple[float, ...]]) -> None:
    pytest.importorskip("moocore", reason="needs peft-shop[fast]")
    points = sorted(set(rows))
    if points and points[0]:
        assert sorted(pareto._by_moocore(points)) == sorted(points[i] for i in brute_force(points))


@given(costs.filter(bool))
def test_dominators_of_large_arrays_agree(rows: list[tuple[float, ...]]) -> None:
    members = pareto.front(rows)
    assert pareto._dominators_large(rows, members) == pareto.dominators(rows, members)


def test_refuses_ragged_rows() -> None:
    with pytest.raises(InputError, match="one length"):
        front([(1.0, 2.0), (1.0,)])


@pytest.mark.parametrize("width", [2, 3, 4, 5])
def test_agrees_with_moocore(width: int) -> None:
    moocore = pytest.importorskip("moocore")
    numpy = pytest.importorskip("numpy")
    rng = random.Random(width)
    rows = [tuple(rng.random() for _ in range(width)) for _ in range(3000)]
    oracle = moocore.is_nondominated(numpy.array(rows))
    assert front(rows) == numpy.flatnonzero(oracle).tolist()

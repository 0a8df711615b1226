"""Probabilities and ties: limits, symmetry, agreement of the two methods, calibration."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peft_shop.ask import lattice, noise
from peft_shop.ask.noise import _integrated, front_probabilities, probability_below
from peft_shop.ask.spread import factor
from peft_shop.ask.ties import rival_counts, tie_set
from peft_shop.pareto import front

points = st.lists(
    st.tuples(st.integers(0, 6).map(float), st.floats(-3, 3).map(lambda x: round(x, 3))),
    min_size=1,
    max_size=12,
)


def noisy(rows: list[tuple[float, float]], sd: float) -> list[tuple[float, float]]:
    return [(0.0, sd)] * len(rows)


@given(points)
def test_without_noise_the_front_is_certain(rows: list[tuple[float, float]]) -> None:
    certain = [1.0 if i in front(rows) else 0.0 for i in range(len(rows))]
    assert front_probabilities(rows, noisy(rows, 0.0)) == certain
    assert tie_set(rows, noisy(rows, 0.0)) == front(rows)


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(-30, 30)), unique=True, max_size=12))
def test_vanishing_noise_tends_to_the_front(rows: list[tuple[int, int]]) -> None:
    # distinct scores: equal ones stay undecided however small the noise is
    distinct = list({y: (float(x), float(y)) for x, y in rows}.values())
    certain = [1.0 if i in front(distinct) else 0.0 for i in range(len(distinct))]
    assert front_probabilities(distinct, noisy(distinct, 1e-6)) == pytest.approx(certain)


@given(st.integers(1, 9))
def test_boundless_noise_leaves_only_the_order_of_costs(count: int) -> None:
    rows = [(float(i), float(i % 3)) for i in range(count)]
    got = front_probabilities(rows, noisy(rows, 1e9))
    # the k-th cheapest must beat k - 1 equal rivals
    assert got == pytest.approx([1 / (i + 1) for i in range(count)], abs=1e-5)


@given(
    st.integers(1, 3).flatmap(
        lambda width: st.lists(
            st.tuples(*[st.integers(0, 8).map(float)] * width), min_size=1, max_size=12
        )
    ),
    st.data(),
)
def test_what_is_far_from_the_front_may_be_left_out(
    rows: list[tuple[float, ...]], data: st.DataObject
) -> None:
    width = len(rows[0])
    column = data.draw(st.integers(0, width - 1))
    kinds = st.sampled_from([0.0, 0.05, 0.3, 2.0])
    sds = [tuple(data.draw(kinds) if k == column else 0.0 for k in range(width)) for _ in rows]
    if not any(map(any, sds)):
        return
    # the definition, with every row a rival of every other
    assert front_probabilities(rows, sds) == pytest.approx(_integrated(rows, sds, column), abs=2e-6)
    counts = rival_counts(rows, sds)
    beaten = {
        i
        for i, row in enumerate(rows)
        for j, other in enumerate(rows)
        if i != j
        and all(other[k] <= row[k] for k in range(width) if k != column)
        and row[column] > other[column]
        and row[column] - other[column]
        > factor(0.95, math.inf, counts[i]) * math.hypot(sds[i][column], sds[j][column])
    }
    assert tie_set(rows, sds) == [i for i in range(len(rows)) if i not in beaten]


def sampled(
    rows: list[tuple[float, ...]], sds: list[tuple[float, ...]], draws: int = 4000, seed: int = 7
) -> list[float]:
    """The definition: how often each row is on the front of figures drawn around its own."""
    rng = np.random.default_rng(seed)
    means, spread = np.asarray(rows, dtype=float), np.asarray(sds, dtype=float)
    hits = np.zeros(len(rows))
    for _ in range(draws):
        truth = means + rng.standard_normal(means.shape) * spread
        no_worse = (truth[:, None, :] <= truth[None, :, :]).all(axis=2)
        better = (truth[:, None, :] < truth[None, :, :]).any(axis=2)
        hits += ~(no_worse & better).any(axis=0)
    return [float(value) for value in hits / draws]


@given(
    st.lists(st.tuples(*[st.integers(0, 3).map(float)] * 3), min_size=1, max_size=9),
    st.lists(st.sampled_from([0.0, 0.4, 3.0]), min_size=9, max_size=9),
    st.sampled_from([(1, 1, 0), (1, 1, 1), (1, 0, 1)]),
)
@settings(max_examples=25)
def test_several_noisy_columns_are_as_in_the_definition(
    rows: list[tuple[float, ...]], sds: list[float], where: tuple[int, ...]
) -> None:
    # equal rows without noise stand in another test
    rows = [(a + 1e-9 * i, b + 1e-9 * i, c) for i, (a, b, c) in enumerate(rows)]
    spread = [tuple(sd * k for k in where) for sd in sds[: len(rows)]]
    assert front_probabilities(rows, spread) == pytest.approx(sampled(rows, spread), abs=0.035)


def test_a_rival_without_noise_cuts_exactly() -> None:
    rows, sds = [(0.0,), (0.3,)], [(0.0,), (1.0,)]
    below = probability_below(0.3, 1.0)
    assert front_probabilities(rows, sds) == pytest.approx([1 - below, below], abs=1e-6)


def test_equal_rows_without_noise_stand_together_beside_noisy_ones() -> None:
    rows = [(1.0, 1.0), (1.0, 1.0), (2.0, 0.0)]
    sds = [(0.0, 0.0), (0.0, 0.0), (0.1, 0.1)]
    assert front_probabilities(rows, sds) == [1.0, 1.0, pytest.approx(1.0, abs=1e-3)]


@pytest.mark.parametrize(("difference", "probability"), [(1.0, 0.0), (0.0, 0.5), (-1.0, 1.0)])
def test_without_deviation_the_sign_decides(difference: float, probability: float) -> None:
    assert probability_below(difference, 0.0) == probability


def test_two_rivals_have_a_closed_form() -> None:
    rows, sds = [(1.0, 0.3), (2.0, 0.0)], [(0.0, 1.0), (0.0, 2.0)]
    want = probability_below(0.0 - 0.3, math.hypot(1, 2))
    assert front_probabilities(rows, sds) == pytest.approx([1.0, want], abs=1e-9)


def test_unequal_noise_is_integrated_finely_enough() -> None:
    rows = [(1.0, 0.0), (1.5, 0.1), (2.0, 0.05)]
    sds = [(0.0, 0.01), (0.0, 0.02), (0.0, 1.0)]
    want = sampled(rows, sds, draws=8000, seed=3)
    assert front_probabilities(rows, sds) == pytest.approx(want, abs=0.022)


@given(points, st.randoms(use_true_random=False), st.floats(0.01, 100))
def test_invariant_to_order_and_units(
    rows: list[tuple[float, float]], rng: random.Random, scale: float
) -> None:
    places = list(range(len(rows)))
    rng.shuffle(places)
    moved = [(1000 * rows[i][0] + 5, scale * rows[i][1]) for i in places]
    base = front_probabilities(rows, noisy(rows, 0.5))
    got = front_probabilities(moved, noisy(moved, 0.5 * scale))
    assert got == pytest.approx([base[i] for i in places], abs=1e-9)
    again = tie_set(moved, noisy(moved, 0.5 * scale))
    assert sorted(places[i] for i in again) == tie_set(rows, noisy(rows, 0.5))


@given(points)
def test_at_least_one_row_is_on_every_front(rows: list[tuple[float, float]]) -> None:
    got = front_probabilities(rows, noisy(rows, 0.7))
    assert all(0 <= p <= 1 for p in got)
    assert sum(got) >= 1 - 1e-6


@given(points, st.floats(0.05, 2.0), st.sampled_from([(0.6, 0.9), (0.9, 0.99)]))
def test_ties_hold_the_front_and_grow_with_confidence(
    rows: list[tuple[float, float]], sd: float, levels: tuple[float, float]
) -> None:
    low, high = (set(tie_set(rows, noisy(rows, sd), confidence=level)) for level in levels)
    assert set(front(rows)) <= low <= high


def test_integration_and_lattice_agree() -> None:
    rng = random.Random(5)
    rows = [(rng.random(), rng.gauss(0, 1)) for _ in range(15)]
    exact = front_probabilities(rows, noisy(rows, 0.6))
    # noise far below every difference of the first column changes nothing but the method
    lattice = front_probabilities(rows, [(1e-12, 0.6)] * len(rows))
    assert lattice == pytest.approx(exact, abs=0.005)
    assert lattice == front_probabilities(rows, [(1e-12, 0.6)] * len(rows))


def test_probabilities_are_calibrated() -> None:
    """Draws truths and measurements: what is called 70 % likely is true in 70 % of the cases.

    With a flat prior the truth given a measurement is normal around it, which is the model.
    """
    rng = random.Random(11)
    bins: dict[int, list[float]] = {}
    for _ in range(600):
        measured = [(float(i), rng.uniform(-3, 3)) for i in range(6)]
        truth = [(x, rng.gauss(y, 0.8)) for x, y in measured]
        real = set(front(truth))
        for i, p in enumerate(front_probabilities(measured, noisy(measured, 0.8))):
            bins.setdefault(min(int(p * 5), 4), []).append(p - (i in real))
    for gaps in bins.values():
        error = 0.5 / math.sqrt(len(gaps))
        assert abs(sum(gaps) / len(gaps)) < 3 * error
    assert sum(len(gaps) for gaps in bins.values()) == 3600


def test_the_truly_best_run_is_among_the_ties_at_the_stated_rate() -> None:
    rng = random.Random(2)
    held = 0
    rounds = 1500
    for _ in range(rounds):
        truth = [0.0, 0.4, 0.8, 1.0]
        measured = [(1.0, rng.gauss(y, 0.5)) for y in truth]
        held += 0 in tie_set(measured, noisy(measured, 0.5), confidence=0.95)
    # the three rivals together beat it by chance with at most 5 %
    assert held / rounds > 0.95
    assert held < rounds


def test_exact_metrics_tie_within_their_epsilon() -> None:
    rows = [(1.0, 10.0), (1.05, 10.4), (2.0, 20.0)]
    zero = [(0.0, 0.0)] * 3
    assert tie_set(rows, zero) == [0]
    assert tie_set(rows, zero, epsilons=[0.1, 0.5]) == [0, 1]


def test_many_rows_tell_what_few_would(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(6)
    rows = [(rng.uniform(0, 4), rng.gauss(0, 1)) for _ in range(90)]
    exact = front_probabilities(rows, noisy(rows, 0.6), degrees=(math.inf, 11))
    both = [(0.5, 0.6)] * len(rows)
    plain = front_probabilities(rows, both)
    monkeypatch.setattr(noise, "MANY", 20)
    monkeypatch.setattr(lattice, "MANY", 20)
    quick = front_probabilities(rows, noisy(rows, 0.6), degrees=(math.inf, 11))
    assert quick == pytest.approx(exact, abs=0.006)
    assert front_probabilities(rows, both) == pytest.approx(plain, abs=0.003)

"""What a lead must exceed: Satterthwaite's degrees, the tables' sides, and parts of differences."""

from __future__ import annotations

import math
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peft_shop.ask.quantiles import dunnett_factor, significance_threshold
from peft_shop.ask.spread import (
    Spread,
    counts,
    factor,
    factor_bound,
    lead_spread,
    separate_parts,
)

deviations = st.floats(0.001, 3)


@given(deviations, deviations, st.floats(1, 100))
def test_one_estimate_keeps_its_degrees(a: float, b: float, degrees: float) -> None:
    spread = lead_spread((a, a, degrees), (b, b, degrees))
    assert spread.sd == pytest.approx(math.hypot(a, b))
    assert spread.degrees == pytest.approx(degrees)


@given(deviations, deviations, st.floats(1, 100), st.floats(1, 100))
def test_two_estimates_have_the_degrees_of_welch(
    a: float, b: float, first: float, second: float
) -> None:
    found = lead_spread((a, a, first), (b, b, second)).degrees
    if first == second:
        return
    assert found == pytest.approx((a**2 + b**2) ** 2 / (a**4 / first + b**4 / second))
    assert min(first, second) <= found * (1 + 1e-12)
    assert found <= (first + second) * (1 + 1e-12)


@given(deviations, deviations, st.floats(1, 100))
def test_what_is_known_adds_degrees(rerun: float, questions: float, degrees: float) -> None:
    whole = math.hypot(rerun, questions)
    spread = lead_spread((whole, rerun, degrees), (whole, rerun, degrees))
    assert spread.sd == pytest.approx(math.sqrt(2) * whole)
    assert spread.degrees >= degrees
    # the questions' part of a pair may be known better than that of each
    paired = lead_spread((whole, rerun, degrees), (whole, rerun, degrees), questions)
    assert paired.sd == pytest.approx(math.sqrt(2 * rerun**2 + questions**2))


def test_exact_figures_have_no_spread() -> None:
    assert lead_spread((0, 0, math.inf), (0, 0, math.inf)) == (0, math.inf)
    assert lead_spread((0.2, 0, math.inf), (0, 0, math.inf)) == (0.2, math.inf)


@given(st.integers(2, 200), st.floats(2, 3000))
@settings(max_examples=20)
def test_the_tables_err_towards_ties_and_by_little(rivals: int, degrees: float) -> None:
    used, exact = factor(0.95, degrees, rivals), dunnett_factor(0.95, rivals, degrees)
    assert exact - 1e-6 <= used <= exact * 1.04


@given(
    st.floats(0.01, 12),
    st.sampled_from([1.0, 2.5, 8.0, 30.0, math.inf]),
    st.integers(1, 12_000),
    st.sampled_from([0.5, 0.7, 0.95, 0.999]),
)
@settings(max_examples=20)
def test_a_lead_counts_where_it_is_above_its_factor(
    lead: float, degrees: float, rivals: int, confidence: float
) -> None:
    needed = factor(confidence, degrees, rivals) * 1.5
    for each in (lead, needed * (1 - 1e-6), needed * (1 + 1e-6) + 1e-12):
        assert counts(each, Spread(1.5, degrees), confidence, rivals) == (each > needed)
    assert not counts(0.0, Spread(0.0, math.inf), confidence, rivals)


@pytest.mark.parametrize("confidence", [0.5, 0.6, 0.95, 0.999])
@pytest.mark.parametrize("degrees", [1.0, 2.5, 10.0, 1000.0])
def test_the_bounds_of_a_factor_hold(confidence: float, degrees: float) -> None:
    for rivals in (2, 3, 9, 100):
        needed = factor(confidence, degrees, rivals)
        assert factor(confidence, math.inf, rivals) <= needed * (1 + 1e-7)
        assert needed <= factor_bound(confidence, degrees, rivals) * (1 + 1e-7)


def test_a_pair_is_held_against_student() -> None:
    assert factor(0.95, 11.3) == significance_threshold(0.95, 11.3)
    assert factor(0.95, math.inf, 8) == pytest.approx(2.38, abs=0.005)
    assert factor(0.95, 0.7, 8) > factor(0.95, 1, 8) - 1e-9  # no fewer degrees than one are tabled
    assert factor(0.95, math.inf, 20_000) > factor(0.95, math.inf, 10_000)


@given(st.lists(st.floats(0.01, 4), min_size=3, max_size=9))
def test_parts_are_found_again(parts: list[float]) -> None:
    differences = {
        (i, j): math.hypot(parts[i], parts[j]) for i, j in combinations(range(len(parts)), 2)
    }
    found = separate_parts(differences, len(parts) + 1)
    assert found[-1] is None
    assert found[:-1] == pytest.approx(parts, rel=1e-3, abs=1e-3)


def test_two_share_their_difference() -> None:
    assert separate_parts({(0, 1): 2.0}, 2) == pytest.approx([math.sqrt(2), math.sqrt(2)])
    assert separate_parts({}, 2) == [None, None]

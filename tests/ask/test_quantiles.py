"""Quantiles against published tables, and against integration and root-finding of another kind."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peft_shop.ask.quantiles import (
    chi_square_quantile,
    dunnett_factor,
    f_above,
    scale_nodes,
    significance_threshold,
    student_below,
)
from peft_shop.errors import InputError

INFINITE = math.inf


@pytest.mark.parametrize(
    ("probability", "degrees", "value"),
    [
        (0.025, 1, 0.000982),
        (0.025, 10, 3.24697),
        (0.975, 10, 20.48318),
        (0.025, 50, 32.35736),
        (0.975, 50, 71.42020),
        (0.975, 2, 7.37776),
    ],
)
def test_chi_square_is_that_of_the_tables(probability: float, degrees: int, value: float) -> None:
    assert chi_square_quantile(probability, degrees) == pytest.approx(value, rel=2e-4)


@pytest.mark.parametrize(
    ("confidence", "degrees", "value"),
    [
        (0.95, 1, 6.313752),
        (0.95, 2, 2.919986),
        (0.95, 3, 2.353363),
        (0.975, 5, 2.570582),
        (0.99, 10, 2.763769),
        (0.95, 30, 1.697261),
        (0.95, 120, 1.657651),
        (0.95, INFINITE, 1.644854),
        (0.9, 4, 1.533206),
    ],
)
def test_student_is_that_of_the_tables(confidence: float, degrees: float, value: float) -> None:
    assert significance_threshold(confidence, degrees) == pytest.approx(value, abs=1e-6)


@given(st.floats(0.5, 400), st.floats(-12, 12))
def test_student_is_the_integral_of_its_density(degrees: float, t: float) -> None:
    # with t = sqrt(degrees) tan(angle) the density is a power of the cosine: no tail is cut off
    def power(limit: float) -> float:
        angles = np.linspace(-math.pi / 2, limit, 4001)
        heights = np.maximum(np.cos(angles), 0.0) ** (degrees - 1)
        return float(np.trapezoid(heights, angles))

    angle = math.atan(t / math.sqrt(degrees))
    if degrees >= 2:  # below that the density in the angle is not bounded
        want = power(angle) / power(math.pi / 2)
        assert student_below(t, degrees) == pytest.approx(want, abs=1e-5)
    assert student_below(t, degrees) + student_below(-t, degrees) == pytest.approx(1)


@given(st.floats(0.5, 0.9999), st.floats(0.8, 1e7))
def test_a_quantile_is_the_inverse(confidence: float, degrees: float) -> None:
    found = significance_threshold(confidence, degrees)
    assert student_below(found, degrees) == pytest.approx(confidence, abs=1e-10)


# Dunnett, Journal of the American Statistical Association 50 (1955), table 1a: one-sided 95 %
DUNNETT = {
    5: (2.02, 2.44, 2.68, 2.85, 2.98, 3.08, 3.16, 3.24, 3.30),
    10: (1.81, 2.15, 2.34, 2.47, 2.56, 2.64, 2.70, 2.76, 2.81),
    20: (1.72, 2.03, 2.19, 2.30, 2.39, 2.46, 2.51, 2.56, 2.60),
    INFINITE: (1.64, 1.92, 2.06, 2.16, 2.23, 2.29, 2.34, 2.38, 2.42),
}


@pytest.mark.parametrize("degrees", DUNNETT)
def test_dunnett_is_that_of_the_tables(degrees: float) -> None:
    for rivals, value in enumerate(DUNNETT[degrees], start=1):
        assert dunnett_factor(0.95, rivals, degrees) == pytest.approx(value, abs=0.0055)


@pytest.mark.parametrize(
    ("rivals", "degrees", "correlation"),
    [(2, 3, 0.5), (8, 3, 0.5), (9, 40, 0.3), (39, 11, 0.5), (63, INFINITE, 0.5), (5, 2, 0.8)],
)
def test_dunnett_is_the_quantile_of_the_integral(
    rivals: int, degrees: float, correlation: float
) -> None:
    """The definition on a fine grid, by Simpson's rule in the deviation itself."""
    from scipy import stats  # type: ignore[import-untyped]

    factor = dunnett_factor(0.95, rivals, degrees, correlation)
    z = np.linspace(-9, 9, 601)
    shared, own = math.sqrt(correlation), math.sqrt(1 - correlation)

    def below(scale: float) -> float:
        inner = stats.norm.cdf((factor * scale - shared * z) / own) ** rivals
        return float(np.trapezoid(stats.norm.pdf(z) * inner, z))

    if degrees == INFINITE:
        found = below(1.0)
    else:
        s = np.linspace(1e-9, math.sqrt(stats.chi2.ppf(1 - 1e-13, degrees) / degrees), 801)
        density = stats.chi.pdf(s * math.sqrt(degrees), degrees) * math.sqrt(degrees)
        heights = density * np.array([below(scale) for scale in s])
        weights = np.full(len(s), 2.0)
        weights[1::2] = 4.0
        weights[0] = weights[-1] = 1.0
        found = float(heights @ weights) * (s[1] - s[0]) / 3
    assert found == pytest.approx(0.95, abs=1e-7)


@settings(max_examples=20)
@given(st.floats(0.55, 0.99), st.integers(2, 60), st.sampled_from([3.0, 11.0, 40.0, INFINITE]))
def test_dunnett_lies_between_one_lead_and_bonferroni(
    confidence: float, rivals: int, degrees: float
) -> None:
    factor = dunnett_factor(confidence, rivals, degrees)
    assert significance_threshold(confidence, degrees) < factor
    assert factor <= significance_threshold(1 - (1 - confidence) / rivals, degrees) + 1e-9
    assert factor < dunnett_factor(confidence, rivals + 1, degrees)


def test_without_confidence_the_largest_of_equal_leads_still_needs_something() -> None:
    # the greater of two equal leads that share a run is above 0 in two thirds of all cases
    factor = dunnett_factor(0.5, 2)
    assert factor > 0
    assert dunnett_factor(1 / 3 + 0.2, 2) > factor
    assert dunnett_factor(0.5, 1) == 0


@pytest.mark.parametrize(
    ("ratio", "upper", "lower", "value"),
    [(4.9646, 1, 10, 0.05), (3.3258, 5, 10, 0.05), (5.6363, 5, 10, 0.01), (4.9774, 2, 60, 0.01)],
)
def test_f_is_that_of_the_tables(ratio: float, upper: int, lower: int, value: float) -> None:
    assert f_above(ratio, upper, lower) == pytest.approx(value, abs=2e-5)


@given(st.floats(1, 500), st.floats(-4, 4))
def test_averaging_the_normal_over_the_scale_gives_student(degrees: float, t: float) -> None:
    nodes = scale_nodes(degrees, 0.5)
    mean = math.fsum(w * 0.5 * math.erfc(-t * ratio / math.sqrt(2)) for ratio, w in nodes)
    assert math.fsum(w for _, w in nodes) == pytest.approx(1)
    assert mean == pytest.approx(student_below(t, degrees), abs=3e-6)


@pytest.mark.parametrize("confidence", [0.2, 1.0, math.nan])
def test_a_confidence_that_is_none_is_refused(confidence: float) -> None:
    with pytest.raises(InputError, match="confidence"):
        significance_threshold(confidence, 5)
    with pytest.raises(InputError, match="confidence"):
        dunnett_factor(confidence, 3, 5)

"""Probabilities and quantiles: normal, Student's t, Dunnett's maximum, F and chi-square.

A deviation that was itself estimated from few repeats is uncertain: a lead is then held against
Student's t with the degrees of freedom of the estimate. Where one run is compared with several
rivals at once, the greatest of their leads is held against Dunnett's distribution (Journal of the
American Statistical Association 50, 1955, 1096-1121). Plain Python: importing scipy would take
longer than a whole answer.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Final

from peft_shop.errors import InputError

__all__ = [
    "chi_square_quantile",
    "dunnett_factor",
    "f_above",
    "normal_below",
    "scale_nodes",
    "significance_threshold",
    "student_below",
]

_NORMAL_FROM: Final = 1e6
"""From so many degrees of freedom on Student's t is normal to every digit shown."""
_ROOT: Final = math.sqrt(2)


def normal_below(x: float) -> float:
    """Probability that a standard normal variable is below `x`."""
    return 0.5 * math.erfc(-x / _ROOT)


def student_below(t: float, degrees: float) -> float:
    """Probability that Student's t with `degrees` of freedom is below `t`.

    >>> round(student_below(2.228, 10), 4)
    0.975
    """
    if degrees >= _NORMAL_FROM:
        return normal_below(t)
    tail = 0.5 * _incomplete_beta(degrees / (degrees + t * t), degrees / 2, 0.5)
    return tail if t < 0 else 1 - tail


def chi_square_quantile(probability: float, degrees: float) -> float:
    """Quantile of the chi-square distribution.

    >>> round(chi_square_quantile(0.975, 10), 3)
    20.483
    """
    low, high = 0.0, degrees + 10.0
    while _incomplete_gamma(high / 2, degrees / 2) < probability:
        high *= 2
    while high - low > 1e-10 * high:
        middle = (low + high) / 2
        if _incomplete_gamma(middle / 2, degrees / 2) < probability:
            low = middle
        else:
            high = middle
    return high


def _incomplete_gamma(x: float, a: float) -> float:
    """Regularised lower incomplete gamma function by its series (Abramowitz 6.5.29)."""
    if x <= 0:
        return 0.0
    log = a * math.log(x) - x - math.lgamma(a + 1)
    term = total = 1.0
    step = a
    while term > 1e-17 * total:
        step += 1
        term *= x / step
        total += term
    return min(1.0, math.exp(log) * total)


def f_above(ratio: float, upper: float, lower: float) -> float:
    """Probability that the ratio of two estimates of one variance is above `ratio`.

    Args:
        ratio: of the estimates.
        upper: degrees of freedom of the one in the numerator.
        lower: of the other.

    >>> round(f_above(4.965, 1, 10), 3)
    0.05
    """
    return _incomplete_beta(lower / (lower + upper * ratio), lower / 2, upper / 2)


def _incomplete_beta(x: float, a: float, b: float) -> float:
    """Regularised incomplete beta function, by its continued fraction (Abramowitz 26.5.8)."""
    if x <= 0:
        return 0.0
    if x >= 1:
        return 1.0
    if x > (a + 1) / (a + b + 2):  # where the fraction converges slowly, its mirror is fast
        return 1 - _incomplete_beta(1 - x, b, a)
    log = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    front = math.exp(log + a * math.log(x) + b * math.log1p(-x)) / a
    # Lentz's evaluation: ratios of successive numerators and of successive denominators
    tiny = 1e-300
    upper = 1.0
    lower = 1 / ((1 - (a + b) * x / (a + 1)) or tiny)
    value = lower
    for m in range(1, 10_000):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            lower = 1 / ((1 + term * lower) or tiny)
            upper = (1 + term / upper) or tiny
            value *= lower * upper
        if abs(lower * upper - 1) < 1e-15:
            break
    return front * value


@lru_cache(maxsize=4096)
def significance_threshold(confidence: float, degrees: float = math.inf) -> float:
    """Quantile of a one-sided `confidence`: of Student's t, or the normal one (1.645 for 0.95).

    Args:
        confidence: one-sided, in [0.5, 1).
        degrees: of freedom of the estimated deviation; infinite where it is known.

    Raises:
        InputError: the confidence is not in [0.5, 1).
    """
    if not 0.5 <= confidence < 1:
        raise InputError(f"confidence must be in [0.5, 1), got {confidence!r}")
    # Newton's steps from 0 rise to the quantile, since the distribution is concave above it
    x, step = 0.0, 1.0
    while step > 1e-12 * max(1.0, x):
        step = (confidence - student_below(x, degrees)) / _student_density(x, degrees)
        x += step
    return x


def _student_density(t: float, degrees: float) -> float:
    if degrees >= _NORMAL_FROM:
        return math.exp(-0.5 * t * t) / math.sqrt(2 * math.pi)
    log = math.lgamma((degrees + 1) / 2) - math.lgamma(degrees / 2)
    log -= 0.5 * math.log(degrees * math.pi) + (degrees + 1) / 2 * math.log1p(t * t / degrees)
    return math.exp(log)


@lru_cache(maxsize=256)
def scale_nodes(degrees: float, step: float) -> tuple[tuple[float, float], ...]:
    """Nodes and weights for the ratio of an estimated standard deviation to the true one.

    Its square times the degrees of freedom is chi-square. The trapezoidal rule over its logarithm,
    whose standard deviation is near 1 / sqrt(2 degrees). An integral over it is right to 5e-8 with
    a step of 0.5, and from ten degrees on with one of 0.7.

    Args:
        degrees: of freedom; infinite for a deviation that is known.
        step: distance of the nodes in standard deviations of the logarithm.

    Returns:
        Pairs (ratio, weight); the weights sum to 1.
    """
    if degrees >= _NORMAL_FROM:
        return ((1.0, 1.0),)
    width = step / math.sqrt(2 * degrees)
    nodes: list[tuple[float, float]] = []
    for sign in (-1, 1):
        index = 0 if sign > 0 else -1
        while True:
            log = index * width
            # the density at its peak (ratio 1) is taken as 1: the sum of the weights is divided out
            weight = math.exp(degrees * (log - 0.5 * math.expm1(2 * log)))
            if weight < 1e-10:
                break
            nodes.append((math.exp(log), weight))
            index += sign
    total = math.fsum(weight for _, weight in nodes)
    return tuple(sorted((ratio, weight / total) for ratio, weight in nodes))


@lru_cache(maxsize=4096)
def dunnett_factor(
    confidence: float, rivals: int, degrees: float = math.inf, correlation: float = 0.5
) -> float:
    """Standard deviations that the best of several equal rivals exceeds in `1 - confidence`.

    The largest of `rivals` leads over one run, each divided by its estimated deviation. The leads
    share that run, so any two have the `correlation`; 1/2 where all deviations are equal.

    Args:
        confidence: one-sided, in [0.5, 1).
        rivals: how many are compared with the one run; with 1 it is Student's quantile.
        degrees: of freedom of the estimated deviation.
        correlation: of two leads, in [0, 1).

    Raises:
        InputError: the confidence is not in [0.5, 1).
    """
    low = significance_threshold(confidence, degrees)
    if rivals <= 1 or low == 0:
        return low if rivals <= 1 else _bisected(confidence, rivals, degrees, correlation)
    # between the quantile of one lead and Bonferroni's, which assumes nothing
    high = significance_threshold(1 - (1 - confidence) / rivals, degrees)

    def excess(limit: float) -> float:
        rest = 1 - _all_below(limit, rivals, degrees, correlation)
        return math.log(max(rest, 1e-300) / (1 - confidence))

    # the logarithm is nearly straight, so that secants need few steps; a half where one leads out
    if degrees < _NORMAL_FROM:
        # with few nodes for a known deviation; half as far as the quantiles of one lead stretch it
        # and half as far as Bonferroni's
        known = dunnett_factor(confidence, rivals, math.inf, correlation)
        ends = (
            significance_threshold(confidence),
            significance_threshold(1 - (1 - confidence) / rivals),
        )
        older = min(known * math.sqrt(low * high / math.prod(ends)), high)
        before = excess(older)
        newer = min(max(older + before / older, low), high)
    else:
        older, before = high, excess(high)
        newer = 0.3 * low + 0.7 * high
    value = excess(newer)
    for _ in range(60):
        low, high = (newer, high) if value > 0 else (low, newer)
        step = value - before
        limit = newer - value * (newer - older) / step if step else low
        if (abs(value) < 1e-5 and abs(before) < 1e-2) or high - low < 1e-9:
            return limit  # whose error is of the order of their product
        if not low < limit < high:
            limit = (low + high) / 2
        older, before = newer, value
        newer, value = limit, excess(limit)
    return newer


def _bisected(confidence: float, rivals: int, degrees: float, correlation: float) -> float:
    """As `dunnett_factor`, where a lone lead needs nothing (a confidence of one half)."""
    low, high = 0.0, significance_threshold(1 - (1 - confidence) / rivals, degrees)
    while high - low > 1e-9:
        middle = (low + high) / 2
        if _all_below(middle, rivals, degrees, correlation) < confidence:
            low = middle
        else:
            high = middle
    return high


def _all_below(limit: float, rivals: int, degrees: float, correlation: float) -> float:
    """Probability that all of the correlated leads stay below `limit` estimated deviations."""
    own = math.sqrt(1 - correlation) * _ROOT
    erfc = math.erfc
    parts = [
        weight * (0.5 * erfc((offset - limit * ratio) / own)) ** rivals
        for weight, offset, ratio in _nodes(rivals, degrees, correlation)
    ]
    return math.fsum(parts)


@lru_cache(maxsize=16)
def _nodes(
    rivals: int, degrees: float, correlation: float
) -> tuple[tuple[float, float, float], ...]:
    """Where `_all_below` is summed up: weight, what the leads share, ratio of the deviations.

    Nodes of which all together weigh less than 1e-9 are left out.
    """
    shared = math.sqrt(correlation)
    # the more rivals and the more they share, the sharper the integrand rises
    width = math.sqrt((1 - correlation) / max(correlation, 0.1)) / (1 + 0.35 * math.log(rivals))
    step = min(0.75, width)
    half = round(6.5 / step)
    factors = [
        (math.exp(-0.5 * (k * step) ** 2) * step / math.sqrt(2 * math.pi), k * step * shared)
        for k in range(-half, half + 1)
    ]
    found = [
        (weight * density, offset, ratio)
        for ratio, weight in scale_nodes(degrees, 0.7 if degrees >= 10 else 0.5)
        for density, offset in factors
    ]
    negligible = 1e-9 / len(found)
    return tuple(node for node in found if node[0] > negligible)

"""How uncertain the difference of two figures is, and how large it must be to count.

The variance of a figure has two parts. Re-run noise is estimated from repeats, with few degrees of
freedom, and differs from run to run; what the choice of test questions adds follows from the
questions. Added up for two figures they give the variance of a lead, whose degrees of freedom are
Satterthwaite's (Biometrics Bulletin 2, 1946, 110-114). Adding is careful: the chance in a single
answer is a little of both and counts twice.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from peft_shop.ask.quantiles import dunnett_factor, significance_threshold

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "HasFigures",
    "Spread",
    "between",
    "counts",
    "factor",
    "factor_bound",
    "lead_spread",
    "separate_parts",
]

_DEGREES: Final = (1, 1.2, 1.5, 1.75, 2, 2.5, *range(3, 21), 24, 30, 40, 60, 120, 240, 1000)
_RIVALS: Final = (
    *(*range(1, 13), 14, 16, 18, 20, 23, 26, 30, 35, 40, 46, 53, 60, 70, 80, 90, 100),
    *(120, 145, 175, 210, 250, 300, 360, 430, 500, 600, 750, 1000, 1500, 2500, 5000, 10_000),
)
_COARSE: Final = 8


class Spread(NamedTuple):
    """Standard deviation of a difference.

    Attributes:
        sd: in the base unit of the metric; 0 where both figures are exact.
        degrees: of freedom behind it; infinite where it is known.
    """

    sd: float
    degrees: float


class HasFigures(Protocol):
    """What has figures and their deviations by metric id: contenders and candidates."""

    @property
    def name(self) -> str:
        """What it is called among its rivals."""

    @property
    def values(self) -> Mapping[str, float]:
        """Figures, in base units."""

    @property
    def sds(self) -> Mapping[str, float]:
        """Standard deviations of the noisy figures."""

    @property
    def rerun_sds(self) -> Mapping[str, float]:
        """The part of `sds` that re-runs have; all of it where absent."""

    @property
    def degrees(self) -> Mapping[str, float]:
        """Degrees of freedom behind `rerun_sds`; infinite where absent."""

    @property
    def paired_sds(self) -> Mapping[str, Mapping[str, float]]:
        """What the choice of questions adds to the difference from another, by its name."""


def between(one: HasFigures, other: HasFigures, metric: str) -> Spread:
    """Spread of the difference of two figures of `metric`."""

    def deviation(which: HasFigures) -> tuple[float, float, float]:
        sd = which.sds.get(metric, 0.0)
        return sd, which.rerun_sds.get(metric, sd), which.degrees.get(metric, math.inf)

    questions = one.paired_sds.get(metric, {}).get(other.name)
    return lead_spread(deviation(one), deviation(other), questions)


def lead_spread(
    one: tuple[float, float, float],
    other: tuple[float, float, float],
    questions: float | None = None,
) -> Spread:
    """Spread of the difference of two figures.

    Args:
        one: standard deviation of a figure, the part of it that re-runs were seen to have, and the
            degrees of freedom behind that part.
        other: the same of the other figure.
        questions: standard deviation of their difference from the choice of questions alone, where
            results of single questions tell it; `None` where the figures' own must do.
    """
    sd, rerun, degrees = one
    other_sd, other_rerun, other_degrees = other
    first, second = rerun * rerun, other_rerun * other_rerun
    estimated = first + second
    if questions is None:
        variance = sd * sd + other_sd * other_sd
    else:
        variance = estimated + questions * questions
    if variance <= 0:
        return Spread(0.0, math.inf)
    if estimated <= 0 or (degrees == other_degrees == math.inf):
        return Spread(math.sqrt(variance), math.inf)
    if degrees == other_degrees:  # one estimate stands behind both
        doubt = estimated * estimated / degrees
    else:
        doubt = first * first / degrees + second * second / other_degrees
    return Spread(math.sqrt(variance), variance * variance / doubt if doubt else math.inf)


def factor(confidence: float, degrees: float, rivals: int = 1, correlation: float = 0.5) -> float:
    """Standard deviations of a lead that must be exceeded before it counts.

    For a pair Student's t. Where the best of several rivals is looked for, Dunnett's factor, at
    tabulated degrees (no more than given) and numbers of rivals (no fewer), which errs on the side
    of ties by less than 4 %.
    """
    if rivals <= 1:
        return significance_threshold(confidence, degrees)
    table_degrees, table_rivals = _tabulated(degrees, rivals)
    return dunnett_factor(confidence, table_rivals, table_degrees, correlation)


def _tabulated(degrees: float, rivals: int) -> tuple[float, int]:
    """The next lower degrees and the next higher number of rivals of the table."""
    place = bisect_right(_DEGREES, degrees)
    table_degrees = math.inf if degrees == math.inf else float(_DEGREES[max(place - 1, 0)])
    place = bisect_left(_RIVALS, rivals)
    return table_degrees, _RIVALS[place] if place < len(_RIVALS) else rivals


def factor_bound(confidence: float, degrees: float, rivals: int) -> float:
    """At least `factor`, and worked out at once: Bonferroni's, which assumes nothing."""
    if rivals <= 1:
        return significance_threshold(confidence, degrees)
    table_degrees, table_rivals = _tabulated(degrees, rivals)
    return significance_threshold(1 - (1 - confidence) / table_rivals, table_degrees)


def counts(lead: float, spread: Spread, confidence: float, rivals: int) -> bool:
    """Whether a lead is above its `factor`, at best without the costly factor of these rivals.

    Bonferroni's factor is above it, and that of a known deviation below. It rises with the number
    of rivals: every eighth of the table settles most of the leads that are left.
    """
    if rivals > 1:
        if lead > factor_bound(confidence, spread.degrees, rivals) * spread.sd:
            return True
        if lead <= factor(confidence, math.inf, rivals) * spread.sd:
            return False
        place = bisect_left(_RIVALS, rivals) // _COARSE * _COARSE
        if place < len(_RIVALS) and _falls_short(lead, spread, confidence, _RIVALS[place]):
            return False
        place += _COARSE
        if place < len(_RIVALS) and not _falls_short(lead, spread, confidence, _RIVALS[place]):
            return True
    return not _falls_short(lead, spread, confidence, rivals)


def _falls_short(lead: float, spread: Spread, confidence: float, rivals: int) -> bool:
    return lead <= factor(confidence, spread.degrees, rivals) * spread.sd


def separate_parts(differences: Mapping[tuple[int, int], float], count: int) -> list[float | None]:
    """Standard deviations of single figures whose squares best add up to those of differences.

    Least squares on the variances, none below 0; `None` for a figure in no difference. Two figures
    share their difference equally.

    Args:
        differences: standard deviation of a difference by pair of places, each pair once.
        count: of figures.
    """
    partners: list[list[tuple[int, float]]] = [[] for _ in range(count)]
    for (i, j), sd in differences.items():
        partners[i].append((j, sd * sd))
        partners[j].append((i, sd * sd))
    parts = [
        sum(variance for _, variance in mine) / (2 * len(mine)) if mine else 0.0
        for mine in partners
    ]
    for _ in range(200):  # damped Jacobi steps; the error halves in each at the slowest
        moved = [
            max(
                0.0,
                (part + sum(variance - parts[j] for j, variance in mine) / len(mine)) / 2,
            )
            if mine
            else 0.0
            for part, mine in zip(parts, partners, strict=True)
        ]
        change = max(abs(a - b) for a, b in zip(parts, moved, strict=True)) if parts else 0.0
        parts = moved
        if change <= 1e-12 * max(parts, default=0.0):
            break
    return [math.sqrt(part) if mine else None for part, mine in zip(parts, partners, strict=True)]

"""The one fitter of both forecasts: constants that reproduce what runs recorded, and how well.

Constants are never below zero, and have the least sum of absolute relative errors.
"""

from __future__ import annotations

from itertools import combinations
from statistics import mean, median, quantiles
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["coverage", "least_absolute", "quantile_pair", "summary"]

_SINGULAR: Final = 1e-12
"""Determinant below which two runs do not tell the constants apart."""
_ROUNDS: Final = 40
_SMALLEST: Final = 1e-4


def least_absolute(
    parts: Sequence[Sequence[float]],
    recorded: Sequence[float],
    *,
    offsets: Sequence[float] | None = None,
) -> tuple[float, ...]:
    """Constants with which the parts of runs, weighted and added, come to what was recorded.

    Two constants are exact; more are found among the sets of those that are not zero.

    Args:
        parts: (n, m) what each constant multiplies.
        recorded: (n,) figures above zero.
        offsets: (n,) what no constant touches; nothing by default.

    Raises:
        ValueError: there is nothing to fit to.
    """
    if not parts:
        msg = "no runs to fit the constants of the forecast to"
        raise ValueError(msg)
    scale = 1 / np.array(recorded, dtype=float)
    rows = np.array(parts, dtype=float) * scale[:, None]
    goals = 1 - (0 if offsets is None else np.array(offsets, dtype=float)) * scale
    best = _among_corners(rows, goals) if rows.shape[1] == 2 else _among_sets(rows, goals)
    return tuple(float(constant) for constant in best)


def _among_corners(rows: Any, goals: Any) -> Any:
    """The best pair: the loss is piecewise linear, so one of its least points forecasts two runs
    exactly, or one with the other constant at zero. All of those are tried.
    """
    first, second = np.triu_indices(len(rows), k=1)
    systems = np.stack([rows[first], rows[second]], axis=1)
    right = np.stack([goals[first], goals[second]], axis=1)
    solvable = np.abs(np.linalg.det(systems)) > _SINGULAR
    points = np.linalg.solve(systems[solvable], right[solvable][..., None])[..., 0]
    alone = np.stack([goals / rows[:, 0], np.zeros(len(goals))], axis=1)
    points = np.concatenate([points[(points >= 0).all(axis=1)], alone])
    losses = np.abs(points @ rows.T - goals).sum(axis=1)
    return points[int(losses.argmin())]


def _among_sets(rows: Any, goals: Any) -> Any:
    """The best of all sets of constants that are not zero, each by weighted least squares."""
    scale = np.where(rows.max(axis=0) > 0, rows.max(axis=0), 1.0)
    rows = rows / scale
    usable = [k for k in range(rows.shape[1]) if rows[:, k].any()]
    best, least = np.zeros(rows.shape[1]), float("inf")
    for size in range(1, len(usable) + 1):
        for chosen in combinations(usable, size):
            constants = _reweighted(rows[:, chosen], goals)
            loss = float(np.abs(rows[:, chosen] @ constants - goals).sum())
            if (constants >= 0).all() and loss < least - 1e-12:
                least = loss
                best = np.zeros(rows.shape[1])
                best[list(chosen)] = constants
    return best / scale


def _reweighted(rows: Any, goals: Any) -> Any:
    weights = np.ones(len(rows))
    constants: Any = np.zeros(rows.shape[1])
    for _ in range(_ROUNDS):
        constants = np.linalg.lstsq(rows * weights[:, None], goals * weights, rcond=None)[0]
        weights = 1 / np.sqrt(np.maximum(np.abs(rows @ constants - goals), _SMALLEST))
    return constants


def quantile_pair(errors: Sequence[float]) -> tuple[float, float]:
    """5 % and 95 % quantile of recorded over forecast less one, from errors of forecasts."""
    ratios = [1 / (1 + error) - 1 for error in errors]
    cuts = quantiles(ratios, n=20, method="exclusive")
    return cuts[0], cuts[-1]


def summary(errors: Sequence[float]) -> dict[str, Any]:
    """Size of errors [fraction]."""
    sizes = [abs(error) for error in errors]
    if not sizes:
        return {"runs": 0, "mean": None, "median": None, "maximum": None}
    return {
        "runs": len(sizes),
        "mean": round(mean(sizes), 5),
        "median": round(median(sizes), 5),
        "maximum": round(max(sizes), 5),
    }


def coverage(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Size of the errors of runs, and how many of them lay inside their intervals."""
    inside = sum(bool(run["inside"]) for run in runs)
    return {
        **summary([run["error"] for run in runs]),
        "inside": inside,
        "coverage": round(inside / len(runs), 4) if runs else None,
    }

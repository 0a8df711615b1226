"""Costs of work that fit recorded step times, none below zero, by least absolute relative error."""

from __future__ import annotations

from itertools import combinations
from statistics import quantiles
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["COSTS", "fit_costs", "relative_errors", "shares"]

COSTS: Final = ("half_flop", "full_flop", "byte", "launch", "synchronization")
"""Constants in the order of the numbers in `forecast.dry_run.timing.Work`."""
_ROUNDS: Final = 40
_SMALLEST: Final = 1e-4


def fit_costs(works: Sequence[Sequence[float]], seconds: Sequence[float]) -> tuple[float, ...]:
    """Costs with which `works` take `seconds`, with the least sum of absolute relative errors.

    Every set of costs that are not zero is tried; within a set the sum is minimised by weighted
    least squares.

    Raises:
        ValueError: there is nothing to fit to.
    """
    if not works:
        msg = "no runs to fit the costs of a step to"
        raise ValueError(msg)
    rows = np.array(works, dtype=float) / np.array(seconds, dtype=float)[:, None]
    scale = np.where(rows.max(axis=0) > 0, rows.max(axis=0), 1.0)
    rows = rows / scale
    usable = [k for k in range(len(COSTS)) if rows[:, k].any()]
    best, least = np.zeros(len(COSTS)), float("inf")
    for size in range(1, len(usable) + 1):
        for chosen in combinations(usable, size):
            costs = _reweighted(rows[:, chosen])
            loss = float(np.abs(rows[:, chosen] @ costs - 1).sum())
            if (costs >= 0).all() and loss < least - 1e-12:
                least = loss
                best = np.zeros(len(COSTS))
                best[list(chosen)] = costs
    return tuple(float(f"{cost:.6g}") for cost in best / scale)


def _reweighted(rows: Any) -> Any:
    weights = np.ones(len(rows))
    costs: Any = np.zeros(rows.shape[1])
    for _ in range(_ROUNDS):
        costs = np.linalg.lstsq(rows * weights[:, None], weights, rcond=None)[0]
        weights = 1 / np.sqrt(np.maximum(np.abs(rows @ costs - 1), _SMALLEST))
    return costs


def relative_errors(
    costs: Sequence[float], works: Sequence[Sequence[float]], seconds: Sequence[float]
) -> list[float]:
    """Forecast over record, less one, for each run."""
    forecast = np.array(works, dtype=float) @ np.array(costs)
    return [float(one) for one in forecast / np.array(seconds) - 1]


def shares(errors: Sequence[float]) -> tuple[float, float]:
    """5 % and 95 % quantile of recorded over forecast less one, from errors of forecasts."""
    cuts = quantiles([1 / (1 + error) - 1 for error in errors], n=20, method="exclusive")
    return cuts[0], cuts[-1]

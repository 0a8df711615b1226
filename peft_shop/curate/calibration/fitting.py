"""Two constants per way of training, fitted to recorded peaks; one method is left out at a time."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import quantiles
from typing import TYPE_CHECKING, Final

import numpy as np

from peft_shop.errors import ConfigError
from peft_shop.forecast.quick.memory import Parts, parts_of
from peft_shop.forecast.quick.methods.registry import adapter_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from peft_shop.curate.calibration.suites import Case

__all__ = ["Fit", "Sample", "fit", "left_out", "quantile_pair", "samples_of"]

_SINGULAR: Final = 1e-12
"""Determinant below which two runs do not tell the constants apart."""


@dataclass(frozen=True)
class Sample:
    """A run and the parts of its peak before any fitted constant.

    Attributes:
        case: the run.
        parts: of its peak.
        offset: bytes that no constant touches.
        factor: bytes that the constant for activations multiplies.
    """

    case: Case
    parts: Parts
    offset: float
    factor: float

    def forecast(self, constants: Fit) -> float:
        """Peak with these constants [B]."""
        return (
            self.offset
            + constants.activations * self.factor
            + constants.trained * self.parts.trained
        )

    def error(self, constants: Fit) -> float:
        """Forecast over record, less one."""
        return self.forecast(constants) / self.case.recorded - 1


@dataclass(frozen=True)
class Fit:
    """Fitted constants, as `forecast.constants.Regime` explains them."""

    activations: float
    trained: float


def samples_of(cases: Sequence[Case]) -> tuple[list[Sample], dict[str, str]]:
    """Samples of the cases with a closed form; the others' runs with the reason."""
    found, refused = [], {}
    for case in cases:
        if case.config is None:
            continue
        try:
            adapter = adapter_of(case.structure, case.config)
            parts = parts_of(case.structure, adapter, case.settings)
        except ConfigError as error:
            refused[case.run.id] = str(error)
            continue
        static, dynamic = sum(parts.static.values()), sum(parts.dynamic.values())
        if case.settings.gradient_checkpointing:
            found.append(Sample(case, parts, static + dynamic, parts.block))
        else:
            found.append(Sample(case, parts, static, dynamic))
    return found, refused


def fit(samples: Sequence[Sample]) -> Fit:
    """Constants with the least sum of absolute relative errors, neither below zero.

    The loss is piecewise linear in two constants, so one of its least points forecasts two runs
    exactly (or one, with the other constant at zero): all of those are tried.

    Raises:
        ValueError: there is nothing to fit to.
    """
    if not samples:
        msg = "no runs to fit the constants of the forecast to"
        raise ValueError(msg)
    scale = np.array([1 / sample.case.recorded for sample in samples])
    rows = np.array([[sample.factor, sample.parts.trained] for sample in samples]) * scale[:, None]
    goals = 1 - np.array([sample.offset for sample in samples]) * scale
    first, second = np.triu_indices(len(samples), k=1)
    systems = np.stack([rows[first], rows[second]], axis=1)
    right = np.stack([goals[first], goals[second]], axis=1)
    solvable = np.abs(np.linalg.det(systems)) > _SINGULAR
    points = np.linalg.solve(systems[solvable], right[solvable][..., None])[..., 0]
    alone = np.stack([goals / rows[:, 0], np.zeros(len(goals))], axis=1)
    points = np.concatenate([points[(points >= 0).all(axis=1)], alone])
    losses = np.abs(points @ rows.T - goals).sum(axis=1)
    best = points[int(losses.argmin())]
    return Fit(round(float(best[0]), 4), round(float(best[1]), 3))


def left_out(samples: Sequence[Sample], others: Sequence[Sample]) -> dict[str, float]:
    """Error of each sample, by run, with constants fitted to the `others` of another method."""
    fits: dict[str, Fit] = {}
    errors = {}
    for sample in samples:
        method = sample.case.run.method
        if method not in fits:
            fits[method] = fit([one for one in others if one.case.run.method != method])
        errors[sample.case.run.id] = sample.error(fits[method])
    return errors


def quantile_pair(errors: Sequence[float]) -> tuple[float, float]:
    """5 % and 95 % quantile of recorded over forecast less one, from errors of forecasts."""
    ratios = [1 / (1 + error) - 1 for error in errors]
    cuts = quantiles(ratios, n=20, method="exclusive")
    return cuts[0], cuts[-1]

"""Runs as samples of the closed forms: the parts of their peaks, and constants fitted to them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from peft_shop.curate.calibration.fitting import least_absolute
from peft_shop.errors import ConfigError
from peft_shop.forecast.quick.memory import Parts, parts_of
from peft_shop.forecast.quick.methods.registry import adapter_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from peft_shop.curate.calibration.suites import Case

__all__ = ["Fit", "Sample", "fit", "left_out", "samples_of"]


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

    Raises:
        ValueError: there is nothing to fit to.
    """
    best = least_absolute(
        [[sample.factor, sample.parts.trained] for sample in samples],
        [sample.case.recorded for sample in samples],
        offsets=[sample.offset for sample in samples],
    )
    return Fit(round(best[0], 4), round(best[1], 3))


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

"""How far figures can be relied on, as frozen records: noise, pairings, shifts, forecasts."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from peft_shop.catalog.features import ExperimentName
from peft_shop.records import Finite, Name, Record, Text

__all__ = [
    "EraShift",
    "ForecastAccuracy",
    "Noise",
    "Pairing",
]


class Noise(Record):
    """Run-to-run standard deviation of one metric.

    Attributes:
        metric: identifier of the metric.
        era: era it holds for; `None` for all.
        sd: standard deviation of one run, in the metric's base unit (relative: see `relative`).
        low: lower end of the 95 % confidence interval.
        high: upper end.
        degrees: degrees of freedom behind it.
        relative: whether `sd` is a fraction of the value.
        methods: methods that it holds for, whose own variance is significantly larger; empty for
            all that no other entry names.
        experiments: likewise, where it holds for single recipes.
        covers: what differed between the repeats: nothing but the run, or the seed too.
        method: how it was estimated.
        runs: the runs it rests on; left out of the compiled catalog.
    """

    benchmark: Name
    metric: Name
    era: Name | None = None
    sd: Annotated[float, Field(ge=0)]
    low: Finite | None = None
    high: Finite | None = None
    degrees: Finite | None = None
    relative: bool = False
    methods: tuple[Name, ...] = ()
    experiments: tuple[ExperimentName, ...] = ()
    covers: tuple[Literal["rerun", "seed"], ...] = ("rerun",)
    method: Text
    runs: tuple[str, ...] = ()


class Pairing(Record):
    """What the choice of test items adds to the difference of two experiments.

    Attributes:
        a: one experiment.
        b: the other.
        metric: identifier of the metric.
        sd: standard deviation of the difference of their means over the items, from the results of
            both on each item.
        items: how many there were.
    """

    benchmark: Name
    a: ExperimentName
    b: ExperimentName
    metric: Name
    sd: Annotated[float, Field(ge=0)]
    items: Annotated[int, Field(gt=1)]


class EraShift(Record):
    """Mean change of a score from one era to the next, from experiments run in both."""

    benchmark: Name
    metric: Name
    older: Name
    newer: Name
    shift: Finite
    standard_error: Finite
    pairs: int


class ForecastAccuracy(Record):
    """How near the forecasts of one metric came to the runs on file.

    Errors are forecast over record, less one, without their sign, of runs whose method took no
    part in any fit.

    Attributes:
        metric: what is forecast.
        way: `injection` and `closed_form` count; `closed_form` and `dry_run` estimate.
        benchmark: whose runs; `None` for those of all.
        steps_on: accelerator of single training steps that others measured, which stand in place
            of runs; no constant of ours was fitted to their memory but one factor a kernel.
        runs: compared ones [count].
        exact: forecasts that are equal to the record [count]; `None` for estimates.
        mean: of the errors [fraction].
        median: likewise.
        maximum: likewise.
        coverage: share of the runs that lay inside the 90 % interval.
        bias: mean of the errors with their sign [fraction].
    """

    metric: Name
    way: Literal["injection", "closed_form", "dry_run"]
    benchmark: Name | None = None
    steps_on: Text | None = None
    runs: int
    exact: int | None = None
    mean: Finite | None = None
    median: Finite | None = None
    maximum: Finite | None = None
    coverage: Finite | None = None
    bias: Finite | None = None

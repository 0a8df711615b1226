"""Which figures of a run can be compared with those of others.

What makes a figure unusable (older definition, other hardware, a stand-in that was removed) is
decided here once and kept as the reason.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from dataclasses import field as member
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from peft_shop.ask.pooling import Shifts
    from peft_shop.ask.uncertainty import NoiseBook
    from peft_shop.catalog.benchmarks import Metric
    from peft_shop.catalog.runs import Run

__all__ = [
    "Comparability",
    "RunConditions",
    "UsableFigures",
    "conditions_of",
    "figures_of",
    "older_definitions",
    "set_noise",
    "usual_conditions",
]


_ENVIRONMENT_SCOPES = frozenset({"memory", "time"})


@dataclass(slots=True)
class UsableFigures:
    """Usable figures of a run or its pool, by metric; fields as in `Contender`.

    Attributes:
        counts: runs behind a mean.
    """

    values: dict[str, float] = member(default_factory=dict)
    unusable: dict[str, str] = member(default_factory=dict)
    sds: dict[str, float] = member(default_factory=dict)
    rerun_sds: dict[str, float] = member(default_factory=dict)
    degrees: dict[str, float] = member(default_factory=dict)
    counts: dict[str, int] = member(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Comparability:
    """What makes figures comparable.

    Attributes:
        conditions: of every run, by its identity.
        reference: those under which figures are compared; `None` compares all.
        moved: brings scores of older eras to the newest; `None` leaves them.
    """

    conditions: Mapping[int, RunConditions]
    reference: RunConditions | None
    moved: Shifts | None


def figures_of(
    run: Run,
    pool: Sequence[Run],
    defined: Iterable[tuple[Metric, Sequence[Metric]]],
    compared: Comparability,
) -> UsableFigures:
    """Figures of a run or of its pool.

    Args:
        run: whose.
        pool: runs whose mean is taken, `run` first.
        defined: the metrics of the benchmark, each with its retired definitions.
        compared: what makes figures comparable.
    """
    figures = UsableFigures()
    conditions, reference, moved = compared.conditions, compared.reference, compared.moved
    own = conditions[id(run)]
    usual = reference is None or own is reference
    for metric, retired in defined:
        if usual and metric.field in run.metrics:
            reason = None
        else:
            reason = _why_unusable(run, own, metric, reference)
        if reason is not None:
            figures.unusable[metric.id] = _retired_only(run, metric, retired) or reason
        elif len(pool) == 1 and moved is None:
            figures.values[metric.id] = run.metrics[metric.field]
        else:
            measured = [
                each.metrics[metric.field] if moved is None else moved.figure(each, metric)
                for each in pool
                if each is run
                or _why_unusable(each, conditions[id(each)], metric, reference) is None
            ]
            figures.counts[metric.id] = len(measured)
            figures.values[metric.id] = (
                # fsum: the mean does not depend on the order of the file
                measured[0] if len(measured) == 1 else math.fsum(measured) / len(measured)
            )
    return figures


@dataclass(frozen=True, slots=True, order=True)
class RunConditions:
    """What figures of a run depend on besides its recipe.

    Attributes:
        environment: what memory and time depend on, in the order of `_ENVIRONMENT_NAMES`.
        marks: fields concerned (none: all) and reason of the run's `environment` flags, which know
            more settings than stand here.
    """

    environment: tuple[str, bool, int, int, str]
    marks: tuple[tuple[tuple[str, ...], str], ...]

    def marks_on(self, metric: Metric) -> list[str]:
        """Reasons that concern `metric`."""
        return [reason for fields, reason in self.marks if not fields or metric.field in fields]


_ENVIRONMENT_NAMES = ("accelerator", "gradient checkpointing", "batch size", "length", "dtype")


def _conditions(run: Run) -> RunConditions:
    training = run.recipe.training
    return RunConditions(
        environment=(
            run.provenance.accelerator,
            training.gradient_checkpointing,
            training.batch_size,
            training.max_length,
            training.dtype,
        ),
        marks=tuple(
            sorted((flag.metrics, flag.reason) for flag in run.flags if flag.code == "environment")
        ),
    )


def conditions_of(runs: Iterable[Run]) -> dict[int, RunConditions]:
    """The conditions of every run, by its identity; equal ones are one object."""
    known: dict[RunConditions, RunConditions] = {}
    conditions = {}
    for run in runs:
        mine = _conditions(run)
        conditions[id(run)] = known.setdefault(mine, mine)
    return conditions


def usual_conditions(
    runs: Sequence[Run], conditions: Mapping[int, RunConditions], accelerator: str | None
) -> RunConditions | None:
    """The conditions of most runs, on `accelerator` if one is named; ties by name."""
    counts = Counter(
        conditions[id(run)]
        for run in runs
        if accelerator is None or run.provenance.accelerator == accelerator
    )
    return min(counts, key=lambda key: (-counts[key], key)) if counts else None


def _why_unusable(
    run: Run, mine: RunConditions, metric: Metric, reference: RunConditions | None
) -> str | None:
    if metric.field not in run.metrics:
        for flag in run.flags:
            if flag.code == "sentinel" and metric.field in flag.metrics:
                return flag.reason
        return "not measured"
    if reference is None or mine is reference:
        return None
    if metric.scope in _ENVIRONMENT_SCOPES and mine.environment != reference.environment:
        differences = ", ".join(
            f"{name} {ours} instead of {theirs}"
            for name, ours, theirs in zip(
                _ENVIRONMENT_NAMES, mine.environment, reference.environment, strict=True
            )
            if ours != theirs
        )
        return f"measured under other conditions ({differences})"
    marks = mine.marks_on(metric) if mine.marks else []
    usual = reference.marks_on(metric) if reference.marks else []
    if marks != usual:
        return " ".join(marks) or "measured under other conditions than most runs"
    return None


def older_definitions(metric: Metric, metrics: Iterable[Metric]) -> list[Metric]:
    """Retired metrics of the same name with another meaning: the name with its date added."""
    return [one for one in metrics if one.retired and one.id.startswith(f"{metric.id}_")]


def _retired_only(run: Run, metric: Metric, retired: Iterable[Metric]) -> str | None:
    """Why a run that lacks `metric` has a figure of the same name with another meaning."""
    if metric.field in run.metrics:
        return None
    for other in retired:
        if other.field in run.metrics:
            return f"measured by an older definition only, which is never ranked ({other.title})"
    return None


def set_noise(
    figures: UsableFigures, metric: Metric, run: Run, book: NoiseBook, *, headline: bool
) -> None:
    """Standard deviation of a figure; near-exact metrics have a tie width instead."""
    deviation = book.deviation(
        metric,
        figures.values[metric.id],
        run,
        runs=figures.counts.get(metric.id, 1),
        headline=headline,
    )
    if deviation is None:
        return
    figures.sds[metric.id], figures.rerun_sds[metric.id] = deviation.sd, deviation.rerun
    if deviation.degrees != math.inf:
        figures.degrees[metric.id] = deviation.degrees

"""Figures with their units, directions and uncertainties, as cells and as words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from peft_shop.ask.reasons import amount, certainty, lead
from peft_shop.show.documents import Cell, Column
from peft_shop.units import format_quantity

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from peft_shop.ask.spread import HasFigures
    from peft_shop.catalog.benchmarks import Metric

__all__ = [
    "chance",
    "comparison",
    "figure",
    "figures",
    "heading",
    "metric_column",
    "quantity",
    "signed",
    "uncertain",
]


def heading(metric: Metric) -> str:
    """Title with an arrow that points to the better side."""
    return f"{metric.title}\xa0{'↑' if metric.better == 'higher' else '↓'}"


def metric_column(metric: Metric, priority: int = 0) -> Column:
    """Column of a metric, called by its field, which has the unit."""
    return Column(metric.field, heading(metric), right=True, priority=priority)


def quantity(value: float | None, metric: Metric) -> Cell:
    """One figure without its uncertainty."""
    if value is None:
        return Cell("-")
    return Cell(format_quantity(value, metric.unit), value)


def uncertain(value: float, sd: float, metric: Metric) -> str:
    """Figure and standard deviation: "51.3 % ± 0.9"."""
    text = format_quantity(value, metric.unit)
    if sd <= 0:
        return text
    if metric.unit == "fraction":
        return f"{text} ± {sd * 100:.1f}" if sd >= 0.0005 else f"{text} ± {sd * 100:.1g}"
    if metric.unit == "score":
        if sd >= 0.0005:
            return f"{text} ± {sd:.3f}"
        return f"{format_quantity(value, metric.unit, digits=4)} ± {sd:.1g}"
    return f"{text} ± {format_quantity(sd, metric.unit)}"


def figure(one: HasFigures, metric: Metric, *, below: bool = False) -> Cell:
    """A candidate's figure, with the noise of a re-run where it is known.

    Args:
        one: the candidate.
        metric: which figure.
        below: whether the noise has a line of its own.
    """
    value = one.values.get(metric.id)
    if value is None:
        return Cell("-")
    text = uncertain(value, one.sds.get(metric.id, 0.0), metric)
    if not below:
        return Cell(text, value)
    text, _, noise = text.partition(" ± ")
    return Cell(text, value, f"± {noise}" if noise else "")


def figures(one: HasFigures, metrics: Iterable[Metric]) -> str:
    """Figures in words: "test accuracy 51.3 % ± 0.9, peak memory 21.01 GiB"."""
    return ", ".join(
        f"{metric.label} {figure(one, metric).text}"
        for metric in metrics
        if metric.id in one.values
    )


def signed(difference: float, metric: Metric) -> str:
    """Difference with sign and unit: "+1.3 points", "-2.85 GiB"."""
    if difference == 0:
        return "±0"
    return f"{'+' if difference > 0 else '-'}{amount(difference, metric)}"


def chance(probability: float | None) -> Cell:
    """A probability in per cent; never 0 or 100, for the model of the noise is only a model."""
    if probability is None:
        return Cell("-")
    if probability > 0.995:
        return Cell(">99 %", probability)
    if probability < 0.005:
        return Cell("<1 %", probability)
    return Cell(f"{probability * 100:.0f} %", probability)


def comparison(one: HasFigures, other: HasFigures, metrics: Sequence[Metric]) -> str:
    """How `one` stands to `other`: "better by 1.3 points of test accuracy (...), worse by ..."."""
    parts = []
    for metric in metrics:
        if metric.id not in one.values or metric.id not in other.values:
            continue
        ahead = lead(one, other, metric)
        name = metric.label
        if ahead == 0:
            parts.append(f"equal in {name}")
            continue
        sure = certainty(one, other, metric)
        side = "better" if ahead > 0 else "worse"
        parts.append(
            f"{side} by {amount(ahead, metric)} of {name}" + (f" ({sure})" if sure else "")
        )
    return ", ".join(parts)

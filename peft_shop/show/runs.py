"""Runs: lists of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from peft_shop.ask.contenders import newest_snapshot
from peft_shop.show.documents import Cell, Column, Document, Row, Table, label
from peft_shop.show.figures import metric_column, quantity

if TYPE_CHECKING:
    from collections.abc import Sequence

    from peft_shop.catalog.benchmarks import Benchmark, Metric
    from peft_shop.catalog.catalog import Catalog
    from peft_shop.catalog.runs import Run

__all__ = ["runs_document", "runs_table"]


def runs_document(
    catalog: Catalog, benchmark: Benchmark, runs: Sequence[Run], *, sort_by: Metric | None = None
) -> Document:
    """Runs of one benchmark as they were measured, comparable or not.

    Args:
        catalog: for the metrics.
        benchmark: the runs' benchmark.
        runs: which ones.
        sort_by: best first by this metric, runs without it last; by name when `None`.
    """
    metrics = [catalog.metric_by_id[name] for name in benchmark.metrics]
    metrics.sort(key=lambda metric: metric.id != benchmark.headline)
    if sort_by is not None:
        metrics.sort(key=lambda metric: (metric.id != benchmark.headline, metric != sort_by))
        runs = sorted(runs, key=lambda run: (_cost(run, sort_by), run.experiment))
    retired = [metric for metric in metrics if metric.retired]
    return Document(
        title=f"{len(runs)} runs on {benchmark.title} ({benchmark.model_id})",
        parts=(runs_table(catalog, benchmark, runs, metrics, ordered=sort_by is not None),),
        footnotes=tuple(f"{metric.title}: {metric.retired}" for metric in retired),
    )


def _cost(run: Run, metric: Metric) -> float:
    value = run.metrics.get(metric.field)
    if value is None:
        return float("inf")
    return value if metric.better == "lower" else -value


def runs_table(
    catalog: Catalog,
    benchmark: Benchmark,
    runs: Sequence[Run],
    metrics: Sequence[Metric],
    *,
    ordered: bool = False,
) -> Table:
    """A row per run: what it is, its figures as measured, and the reasons not to rank it.

    Args:
        catalog: for the newest snapshot.
        benchmark: the runs' benchmark.
        runs: which ones.
        metrics: which figures, the headline first; the others go where the width is short.
        ordered: whether `runs` are in the order wanted; else current ones first, then by name.
    """
    newest = newest_snapshot(catalog, benchmark.id)
    several_eras = len({run.era for run in runs}) > 1
    some_old = any(newest not in run.snapshots for run in runs)
    if not ordered:
        runs = sorted(runs, key=lambda run: (newest not in run.snapshots, run.experiment))

    def row(run: Run) -> Row:
        current = newest in run.snapshots
        flags = ", ".join(dict.fromkeys(flag.code for flag in run.flags))
        return Row(
            (
                label(run.experiment),
                label(run.method),
                label(" ".join(run.variants)),
                Cell(run.created_at[:10], run.created_at),
                Cell("yes" if current else "", current),
                Cell(run.era or "", run.era),
                *(quantity(run.metrics.get(metric.field), metric) for metric in metrics),
                Cell(flags, flags or None),
            ),
            note=" ".join(f"{flag.code}: {flag.reason}" for flag in run.flags),
        )

    return Table(
        key=f"runs_{benchmark.id}",
        title=f"Runs on {benchmark.title}",
        columns=(
            Column("experiment", "Experiment", least=30),
            Column("method", hidden=True),
            Column("variants", hidden=True),
            Column("created_at", "Date", least=10, priority=2),
            Column("current", "Current", least=7, priority=1, hidden=not some_old),
            # scores of different eras never stand in one column without saying so
            Column("era", "Era", least=7, hidden=not several_eras),
            *(metric_column(metric, 2 * place) for place, metric in enumerate(metrics)),
            Column("flags", hidden=True),
        ),
        rows=tuple(row(run) for run in runs),
    )

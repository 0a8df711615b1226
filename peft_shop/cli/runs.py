"""`peft-shop runs`: the measured runs of a benchmark."""

from typing import Annotated

import typer

from peft_shop.ask.meanings import current_runs, method_meaning
from peft_shop.ask.reading import build_query, resolve_metric
from peft_shop.catalog.store import load
from peft_shop.cli.options import Benchmark, CatalogFile, Snapshot, takes
from peft_shop.cli.output import NOTHING_FOUND, Output, output
from peft_shop.cli.values import split
from peft_shop.show.naming import briefly
from peft_shop.show.runs import runs_document

__all__ = ["runs"]


@takes(output)
def runs(
    out: Output,
    *,
    benchmark: Benchmark = None,
    method: Annotated[
        list[str] | None, typer.Option("--method", help="Only these methods.", metavar="METHOD")
    ] = None,
    sort_by: Annotated[
        str | None,
        typer.Option("--sort", help="Best first by this metric.", metavar="METRIC"),
    ] = None,
    snapshot: Snapshot = None,
    catalog: CatalogFile = None,
) -> None:
    """List the measured runs of a benchmark."""
    source = load(catalog)
    query = build_query(source, benchmark=benchmark, snapshot=snapshot)
    where = source.benchmark_by_id[query.benchmark]
    meanings = [method_meaning(source, name, keyword="methods") for name in split(method)]
    found = [
        run
        for run in current_runs(source, where.id, query.snapshot)
        if not meanings or any(meaning.covers(run) for meaning in meanings)
    ]
    by = resolve_metric(source, where, sort_by) if sort_by else None
    out.show(briefly(source, runs_document(source, where, found, sort_by=by)))
    if not found:
        raise typer.Exit(NOTHING_FOUND)

"""`peft-shop compare`: runs or methods side by side."""

from dataclasses import replace
from typing import Annotated

import typer

from peft_shop.ask.comparison import Comparison
from peft_shop.ask.lookup import benchmark_of, resolve_subjects
from peft_shop.ask.meanings import is_method, method_meaning
from peft_shop.ask.reading import build_query
from peft_shop.catalog.store import load
from peft_shop.cli.completion import run_or_method_names
from peft_shop.cli.opening import Open, check_shown, link, serve_page
from peft_shop.cli.options import Benchmark, CatalogFile, Force, Plot, Snapshot, takes
from peft_shop.cli.output import Output, output, write_picture
from peft_shop.cli.values import split
from peft_shop.errors import QueryError
from peft_shop.show.comparisons import compare_document
from peft_shop.show.naming import briefly

__all__ = ["compare"]


@takes(output)
def compare(
    out: Output,
    names: Annotated[
        list[str],
        typer.Argument(
            help="Runs or methods, two or more.",
            metavar="NAME...",
            autocompletion=run_or_method_names,
        ),
    ],
    *,
    benchmark: Benchmark = None,
    objective: Annotated[
        list[str] | None,
        typer.Option("--objective", "-o", help="Metrics to put in words.", metavar="METRIC"),
    ] = None,
    snapshot: Snapshot = None,
    era: Annotated[
        str | None,
        typer.Option("--era", help="'shifted' moves older scores by the shift.", metavar="NAME"),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Also show what is the same for all.")
    ] = False,
    plot: Plot = None,
    force: Force = False,
    open_page: Open = False,
    catalog: CatalogFile = None,
) -> None:
    """Put runs or methods side by side: figures with their certainty, recipes, capabilities."""
    source = load(catalog)
    query = build_query(
        source,
        benchmark=benchmark or benchmark_of(source, names),
        objectives=split(objective) or None,
        snapshot=snapshot,
        era=era,
    )
    subjects = resolve_subjects(source, query, names)
    if len(subjects) < 2:
        raise QueryError("compare needs two different runs or methods")
    if plot is not None:
        write_picture(Comparison(source, query, subjects).plot(), plot, force=force)
    document = compare_document(source, query, subjects, everything=everything)
    meanings = [method_meaning(source, name) for name in names if is_method(source, name)]
    remarks = [f"{meaning.remark}." for meaning in meanings if meaning.remark]
    document = replace(document, paragraphs=(*remarks, *document.paragraphs))
    out.show(briefly(source, document))
    if open_page:
        check_shown(source, query.benchmark)
        chosen = ",".join(subject.name for subject in subjects)
        serve_page(source, link(benchmark=query.benchmark, view="compare", compare=chosen))

"""`peft-shop catalog ready`: adapted configurations tried on tiny models of every architecture."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from peft_shop.cli.options import takes
from peft_shop.cli.output import NOTHING_FOUND, Output, output
from peft_shop.cli.values import split
from peft_shop.errors import QueryError

__all__ = ["ready"]

_FILE = Path("data/readiness.json")


@takes(output)
def ready(
    out: Output,
    architectures: Annotated[
        list[str] | None,
        typer.Argument(
            help="Architectures of the zoo, such as llama. Default: all.",
            metavar="ARCHITECTURE...",
        ),
    ] = None,
    *,
    method: Annotated[
        list[str] | None,
        typer.Option("--method", help="Only these methods and their recipes.", metavar="METHOD"),
    ] = None,
    jobs: Annotated[int, typer.Option("--jobs", help="Processes to run at a time.", min=1)] = 1,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; exit 1 if a verdict differs.")
    ] = False,
    force_refused: Annotated[
        int,
        typer.Option(
            "--force-refused",
            help="Write nothing, but try this many refused configurations of each architecture "
            "all the same; exit 1 if one works.",
            metavar="N",
            min=0,
        ),
    ] = 0,
    catalog: Annotated[
        Path | None,
        typer.Option("--catalog", help="Catalog file whose methods and runs are tried."),
    ] = None,
    destination: Annotated[
        Path, typer.Option("--output", "-o", help="File to write, or to compare with.")
    ] = _FILE,
) -> None:
    """Adapt every method and recipe to every architecture, then train, save and reload it.

    A verdict is `ready`, `refused` (retargeting says why it cannot work) or `failed`. A part of
    the matrix replaces that part of the file.
    """
    from peft_shop.curate.readiness import matrix, verdicts
    from peft_shop.curate.reports.readiness import forced_document, readiness_document

    names, methods = split(architectures) or None, split(method) or None
    if force_refused:
        forced = matrix.force_refused(force_refused, names, methods, catalog=catalog, jobs=jobs)
        out.show(forced_document(forced))
        if any(one.verdict.status == "ready" for one in forced):
            raise typer.Exit(NOTHING_FOUND)
        return
    part = names is not None or methods is not None
    committed = verdicts.read(destination) if check or destination.is_file() else None
    if part and committed is None:
        msg = f"{destination}: there is no such file to replace a part of; make the whole first"
        raise QueryError(msg)
    found = matrix.survey(names, methods, catalog=catalog, jobs=jobs)
    tried = matrix.subject_names(catalog, methods)
    changes = None if committed is None else verdicts.differences(committed, found, tried)
    out.show(readiness_document(found, tried, changes))
    if check:
        if changes:
            raise typer.Exit(NOTHING_FOUND)
        return
    whole = verdicts.merge(committed, found, tried) if part and committed is not None else found
    changed = verdicts.write(whole, destination)
    sys.stderr.write(f"{'wrote' if changed else 'unchanged:'} {destination}\n")

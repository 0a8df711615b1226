"""`peft-shop catalog ...`: for those who maintain a catalog and for those who vendor it.

What only maintainers need is imported when one of these commands runs.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from peft_shop.cli_options import takes
from peft_shop.cli_output import (
    NOTHING_FOUND,
    Output,
    output,
    write_file,
    write_out,
)
from peft_shop.cli_ready import ready
from peft_shop.cli_values import split
from peft_shop.errors import CatalogError, Problem, QueryError
from peft_shop.store import load

__all__ = ["app"]

app = typer.Typer(
    help="Make, check and export the catalog.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

app.command()(ready)

Sources = Annotated[
    Path,
    typer.Option(
        "--catalog",
        help="Folder with curated/ and observed/.",
        metavar="DIR",
        rich_help_panel="Folders",
    ),
]
Data = Annotated[
    Path,
    typer.Option(
        "--data",
        help="Folder with runs/ and benchmarks.toml.",
        metavar="DIR",
        rich_help_panel="Folders",
    ),
]
_SOURCES = Path("catalog")
_DATA = Path("data")


@contextmanager
def _writing(place: Path) -> Iterator[None]:
    """Turns a failure of the file system into one that says where it happened.

    Raises:
        CatalogError: the operating system refuses.
    """
    try:
        yield
    except OSError as error:
        path = str(error.filename or place)
        problem = Problem(path, "", error.strerror or str(error), "check the path and its rights")
        raise CatalogError("cannot read or write", [problem]) from error


@app.command()
@takes(output)
def ingest(
    out: Output,
    paths: Annotated[
        list[Path],
        typer.Argument(
            help="Folders of result files: a checkout of the suite's method_comparison, an archive "
            "of its results, or your own runs in the same format.",
            metavar="PATH...",
        ),
    ],
    *,
    snapshot: Annotated[
        str | None,
        typer.Option(
            "--snapshot",
            help="Name under which these runs are current. Default: the date of a checkout's "
            "newest run; none for a plain folder.",
        ),
    ] = None,
    keep_going: Annotated[
        bool, typer.Option("--keep-going", help="Leave out what is malformed and say so.")
    ] = False,
    catalog: Sources = _SOURCES,
    data: Data = _DATA,
) -> None:
    """Take raw result files into data/runs, all of them or none."""
    from peft_shop.curate.ingest import ingest as take_in  # noqa: PLC0415 - maintainers only
    from peft_shop.views.maintenance import ingest_document  # noqa: PLC0415 - as above

    with _writing(data):
        report = take_in(
            paths, data=data, catalog=catalog, snapshot=snapshot, keep_going=keep_going
        )
    out.show(ingest_document(report))


@app.command("compile")
def compile_(
    *,
    destination: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="File to write. Default: the one inside the package."),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; exit 1 if the file would change.")
    ] = False,
    catalog: Sources = _SOURCES,
    data: Data = _DATA,
) -> None:
    """Compile the sources into the one file that others vendor."""
    from peft_shop.curate.compile import (  # noqa: PLC0415 - maintainers only
        ARTIFACT,
        compile_catalog,
        outputs,
        write,
    )

    path = destination or ARTIFACT
    compiled = compile_catalog(catalog, data)
    if check:
        with _writing(path):
            same = all(
                file.is_file() and file.read_bytes() == content
                for file, content in outputs(compiled, path).items()
            )
        _say(f"{path} is {'up to date' if same else 'out of date: compile again'}")
        if not same:
            raise typer.Exit(NOTHING_FOUND)
        return
    with _writing(path):
        changed = write(compiled, path)
    _say(f"{'wrote' if changed else 'unchanged:'} {path}")


@app.command()
@takes(output)
def validate(out: Output, *, catalog: Sources = _SOURCES, data: Data = _DATA) -> None:
    """Check the sources against every rule; exit 1 if one is broken."""
    from peft_shop.curate.rules import validate as check  # noqa: PLC0415 - maintainers only
    from peft_shop.views.maintenance import validation_document  # noqa: PLC0415 - as above

    with _writing(catalog):
        report = check(catalog, data)
    out.show(validation_document(report))
    if not report.ok:
        raise typer.Exit(NOTHING_FOUND)


@app.command()
def schema(
    *,
    destination: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write it to.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file.")] = False,
) -> None:
    """Print the JSON Schema of the catalog file."""
    from peft_shop.curate.export import schema_json  # noqa: PLC0415 - maintainers only

    _deliver(schema_json(), destination, force=force)


class ExportFormat(StrEnum):
    """How the catalog leaves the house."""

    JSON = "json"
    CSV = "csv"


@app.command()
def export(
    *,
    form: Annotated[ExportFormat, typer.Option("--format", help="Format.")] = ExportFormat.JSON,
    table: Annotated[
        str | None,
        typer.Option(
            "--table",
            help="Only this table: methods, variants, capabilities or runs.",
            metavar="NAME",
        ),
    ] = None,
    destination: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="File to write; for CSV without --table a folder."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace what is there.")] = False,
    file: Annotated[
        Path | None,
        typer.Option("--catalog", help="Catalog file to export.", metavar="FILE"),
    ] = None,
) -> None:
    """Write the whole catalog as JSON, or flat tables as JSON or CSV."""
    from peft_shop.curate.compile import dump  # noqa: PLC0415 - maintainers only
    from peft_shop.curate.export import as_csv, as_json, tables  # noqa: PLC0415 - as above
    from peft_shop.errors import UnknownNameError  # noqa: PLC0415 - as above

    catalog = load(file)
    if table is None and form is ExportFormat.JSON:
        _deliver(dump(catalog).decode(), destination, force=force)
        return
    found = tables(catalog)
    write: Callable[[Any], str] = as_csv if form is ExportFormat.CSV else as_json
    if table is not None:
        if table not in found:
            raise UnknownNameError("table", table, found)
        _deliver(write(found[table]), destination, force=force)
        return
    if destination is None:
        raise QueryError("CSV is several tables: name one with --table, or a folder with --output")
    with _writing(destination):
        destination.mkdir(parents=True, exist_ok=True)
    for name, rows in found.items():
        write_file(destination / f"{name}.csv", write(rows), force=force)
    _say(f"wrote {', '.join(f'{name}.csv' for name in found)} into {destination}")


@app.command()
@takes(output)
def diff(
    out: Output,
    old: Annotated[Path, typer.Argument(help="The earlier catalog file.", metavar="OLD")],
    new: Annotated[
        Path | None,
        typer.Argument(help="The later one. Default: that of peft-shop.", metavar="NEW"),
    ] = None,
) -> None:
    """Tell what changed for a user between two catalog files."""
    from peft_shop.curate.difference import diff as compare  # noqa: PLC0415 - maintainers only
    from peft_shop.views.maintenance import difference_document  # noqa: PLC0415 - as above

    out.show(difference_document(compare(load(old), load(new))))


@app.command()
@takes(output)
def probe(
    out: Output,
    methods: Annotated[
        list[str] | None,
        typer.Argument(help="Methods to probe. Default: all.", metavar="METHOD..."),
    ] = None,
    *,
    feature: Annotated[
        list[str] | None,
        typer.Option("--feature", help="Only these features, such as merging.", metavar="NAME"),
    ] = None,
    jobs: Annotated[int, typer.Option("--jobs", help="Processes to run at a time.", min=1)] = 1,
    device: Annotated[str, typer.Option("--device", help="Where the models live.")] = "cpu",
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; exit 1 if something differs.")
    ] = False,
    catalog: Sources = _SOURCES,
) -> None:
    """Try every capability of the methods and write what was seen into observed/."""
    from peft_shop.curate.probe import (  # noqa: PLC0415 - maintainers only
        probe as observe,
    )
    from peft_shop.curate.probe import read_observations, write  # noqa: PLC0415 - as above
    from peft_shop.views.maintenance import observation_document  # noqa: PLC0415 - as above

    with _writing(catalog):
        earlier = read_observations(catalog)
        found = observe(
            split(methods) or None,
            split(feature) or None,
            catalog=catalog,
            jobs=jobs,
            device=device,
        )
        document = observation_document(earlier, found)
        changed = [] if check else write(found, catalog)
    out.show(document)
    for path in changed:
        _say(f"wrote {path}")
    if check and document.tables[0].rows:
        raise typer.Exit(NOTHING_FOUND)


@app.command()
def history(
    wheels: Annotated[
        Path,
        typer.Argument(help="Folder with one wheel of peft per release.", metavar="DIR"),
    ],
    *,
    fetch: Annotated[
        bool, typer.Option("--download", help="Fetch the releases that are missing, with pip.")
    ] = False,
    catalog: Sources = _SOURCES,
) -> None:
    """Read since which release of peft each method, option and variant exists."""
    from peft_shop.curate.history import download, read_history, write  # noqa: PLC0415 - as above

    with _writing(wheels):
        found = download(wheels) if fetch else sorted(wheels.glob("peft-*.whl"))
        if not found:
            raise QueryError(f"{wheels}: no wheel of peft here; fetch them with --download")
        read = read_history(found, catalog / "curated")
        path = catalog / "observed" / "history.json"
        write(read, path)
    _say(f"{len(read['methods'])} methods in {len(read['releases'])} releases: {path}")


@app.command()
@takes(output)
def noise(
    out: Output,
    *,
    write: Annotated[
        bool, typer.Option("--write", help="Write noise.json, which the catalog is made from.")
    ] = False,
    catalog: Sources = _SOURCES,
    data: Data = _DATA,
) -> None:
    """Estimate again how much figures differ from run to run."""
    from peft_shop.curate.compile import compile_catalog  # noqa: PLC0415 - maintainers only
    from peft_shop.curate.files import write_atomically  # noqa: PLC0415 - as above
    from peft_shop.curate.noise_model import dump, estimate, read_reported  # noqa: PLC0415
    from peft_shop.views.maintenance import noise_document  # noqa: PLC0415 - as above

    compiled = compile_catalog(catalog, data)
    model = estimate(compiled, read_reported(data / "noise_reported.toml"))
    out.show(noise_document(compiled, model.noise, model.era_shifts))
    if write:
        path = data / "noise.json"
        with _writing(path):
            changed = write_atomically(path, dump(model))
        _say(f"{'wrote' if changed else 'unchanged:'} {path}")


def _deliver(content: str, destination: Path | None, *, force: bool) -> None:
    if destination is None:
        write_out(content)
    else:
        write_file(destination, content, force=force)
        _say(f"wrote {destination}")


def _say(text: str) -> None:
    """Tells people what was done; programs read the standard output."""
    sys.stderr.write(text + "\n")

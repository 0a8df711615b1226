"""The commands of `peft-shop catalog` that make and check the catalog: they need a checkout."""

from pathlib import Path
from typing import Annotated

import typer

from peft_shop.cli.options import takes
from peft_shop.cli.output import NOTHING_FOUND, Output, output, say, writing
from peft_shop.cli.values import split
from peft_shop.errors import QueryError

__all__ = ["compile_", "history", "ingest", "noise", "probe", "validate"]

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
    from peft_shop.curate.intake.ingest import ingest as take_in
    from peft_shop.curate.reports.maintenance import ingest_document

    with writing(data):
        report = take_in(
            paths, data=data, catalog=catalog, snapshot=snapshot, keep_going=keep_going
        )
    out.show(ingest_document(report))


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
    from peft_shop.curate.publish.compile import ARTIFACT, compile_catalog, outputs, write

    path = destination or ARTIFACT
    compiled = compile_catalog(catalog, data)
    if check:
        with writing(path):
            same = all(
                file.is_file() and file.read_bytes() == content
                for file, content in outputs(compiled, path).items()
            )
        say(f"{path} is {'up to date' if same else 'out of date: compile again'}")
        if not same:
            raise typer.Exit(NOTHING_FOUND)
        return
    with writing(path):
        changed = write(compiled, path)
    say(f"{'wrote' if changed else 'unchanged:'} {path}")


@takes(output)
def validate(out: Output, *, catalog: Sources = _SOURCES, data: Data = _DATA) -> None:
    """Check the sources against every rule; exit 1 if one is broken."""
    from peft_shop.curate.reports.maintenance import validation_document
    from peft_shop.curate.sources.rules import validate as check

    with writing(catalog):
        report = check(catalog, data)
    out.show(validation_document(report))
    if not report.ok:
        raise typer.Exit(NOTHING_FOUND)


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
    from peft_shop.curate.probe.runner import probe as observe
    from peft_shop.curate.probe.runner import read_observations, write
    from peft_shop.curate.reports.maintenance import observation_document

    with writing(catalog):
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
        say(f"wrote {path}")
    if check and document.tables[0].rows:
        raise typer.Exit(NOTHING_FOUND)


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
    from peft_shop.curate.releases.history import download, read_history, write

    with writing(wheels):
        files = download(wheels) if fetch else sorted(wheels.glob("peft-*.whl"))
        if not files:
            raise QueryError(f"{wheels}: no wheel of peft here; fetch them with --download")
        read = read_history(files, catalog / "curated")
        path = catalog / "observed" / "history.json"
        write(read, path)
    say(f"{len(read['methods'])} methods in {len(read['releases'])} releases: {path}")


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
    from peft_shop.curate.publish.compile import compile_catalog
    from peft_shop.curate.publish.noise_model import dump, estimate, read_reported
    from peft_shop.curate.reports.maintenance import noise_document
    from peft_shop.files import write_atomically

    compiled = compile_catalog(catalog, data)
    model = estimate(compiled, read_reported(data / "noise_reported.toml"))
    out.show(noise_document(compiled, model.noise, model.era_shifts))
    if write:
        path = data / "noise.json"
        with writing(path):
            changed = write_atomically(path, dump(model))
        say(f"{'wrote' if changed else 'unchanged:'} {path}")

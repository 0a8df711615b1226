"""The command line: options become the fields of a question, answers become text and exit codes."""

import json
import sys
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from peft_shop.catalog.store import load
from peft_shop.cli.catalog import app as catalog_app
from peft_shop.cli.convert import convert
from peft_shop.cli.forecast import forecast
from peft_shop.cli.inspect import inspect
from peft_shop.cli.model import Adapt, Model, TrustRemoteCode, adapted, inspected
from peft_shop.cli.options import (
    Benchmark,
    CatalogFile,
    Command,
    Snapshot,
    capabilities,
    question,
    takes,
)
from peft_shop.cli.output import NOTHING_FOUND, Format, Output, output, write_file, write_out
from peft_shop.cli.route import route
from peft_shop.cli.values import split
from peft_shop.errors import InputError, QueryError

__all__ = ["app"]

_EPILOG: Final = (
    "Exit codes: 0 an answer; 1 nothing meets the constraints (the answer says what to relax), or "
    "a check of the catalog found something; 2 bad input or a broken file (the reason is on the "
    "standard error)."
)

app = typer.Typer(
    name="peft-shop",
    help="Which parameter-efficient fine-tuning (PEFT) method, with which configuration, for your "
    "model and hardware: answered from measured runs, with the reason and its certainty.",
    epilog=_EPILOG,
    no_args_is_help=True,
    add_completion=False,
    # a failure on purpose is one line; any other is a mistake of ours and shows itself whole
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(catalog_app, name="catalog")
app.command()(route)
app.command()(convert)
app.command()(forecast)
app.command()(inspect)


def _versions(wanted: bool) -> None:
    if not wanted:
        return
    from peft_shop.ask.recommendation import installed_peft_version  # noqa: PLC0415 - not for --help

    catalog = load()
    write_out(
        f"peft-shop {version('peft-shop')}\n"
        f"catalog {catalog.catalog_version} (schema {catalog.schema_version})\n"
        f"describes peft {catalog.peft_version}\n"
        f"installed peft {installed_peft_version() or 'none'}\n"
    )
    raise typer.Exit


@app.callback()
def _main(
    *,
    show_version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_versions,
            is_eager=True,
            help="Show the versions of peft-shop, its catalog and peft, and exit.",
        ),
    ] = False,
) -> None:
    pass


# --- answers ---


@app.command(cls=Command)
@takes(question, output)
def recommend(
    asked: dict[str, Any],
    out: Output,
    *,
    everything: Annotated[
        bool,
        typer.Option(
            "--all",
            help="Also list what is dominated and what was dropped.",
            rich_help_panel="Output",
        ),
    ] = False,
) -> None:
    """Find the best measured configurations that meet your constraints.

    Best: no other one is better in one objective without being worse in another.

    Each has its reason, what it gives up, and the probability that it really belongs there.

    Example: peft-shop recommend -b metamathqa --max peak_memory=20GiB --merging
    """
    from peft_shop.ask.recommendation import recommend as ask  # noqa: PLC0415 - not for --help
    from peft_shop.show.answers import answer_document, answer_records  # noqa: PLC0415 - as above

    answer = ask(**asked)
    if asked["model"] is not None:
        answer = answer.preflighted()
    document = answer_document(answer, everything=everything)
    if answer.front and out.format is Format.TABLE:
        name = answer.best.name
        further = f"Next: peft-shop why {name} | snippet {name} | config {name}"
        document = replace(document, footnotes=(*document.footnotes, further))
    out.show(
        document,
        rows=answer_records(answer),
        json=lambda: answer.to_json(indent=2) + "\n",
    )
    if not answer:
        raise typer.Exit(NOTHING_FOUND)


@app.command(cls=Command)
@takes(question, output)
def why(
    asked: dict[str, Any],
    out: Output,
    name: Annotated[
        str, typer.Argument(help="A run, or a method for all its runs.", metavar="NAME")
    ],
) -> None:
    """Tell why a run or method is, or is not, among the best: all constraints that it fails.

    Takes the options of recommend: the answer is about that question.
    """
    from peft_shop.ask.lookup import benchmark_of  # noqa: PLC0415 - as above
    from peft_shop.ask.recommendation import recommend as ask  # noqa: PLC0415 - not for --help
    from peft_shop.show.verdicts import why_document  # noqa: PLC0415 - as above

    asked["benchmark"] = asked["benchmark"] or benchmark_of(asked["catalog"], [name])
    out.show(why_document(ask(**asked), name))


# --- methods and runs ---


@app.command(cls=Command)
@takes(capabilities, output)
def methods(asked: dict[str, Any], out: Output) -> None:
    """List the methods, or those that can do what you ask for, measured or not."""
    from peft_shop.ask.judging import GROUPS  # noqa: PLC0415 - not for --help
    from peft_shop.ask.lookup import matching_methods  # noqa: PLC0415 - as above
    from peft_shop.ask.reading import AnyOf  # noqa: PLC0415 - as above
    from peft_shop.show.methods import methods_document  # noqa: PLC0415 - as above

    catalog = asked.pop("catalog")
    chosen = {key: asked.pop(key) for key in ("methods", "exclude", "min_evidence")}
    wanted = asked.pop("peft_version")
    found = matching_methods(
        catalog, asked, peft_version=None if wanted == "any" else wanted, **chosen
    )
    features = [name for name, value in asked.items() if value is not None]
    for group in GROUPS:
        values = asked[group]
        names = values.values if isinstance(values, AnyOf) else values or ()
        features += [f"{group}.{name.lower().replace('-', '_')}" for name in names]
    out.show(methods_document(catalog, found, features))
    if not found:
        raise typer.Exit(NOTHING_FOUND)


@app.command()
@takes(output)
def show(
    out: Output,
    method: Annotated[str, typer.Argument(help="A method or a variant, such as lora or dora.")],
    *,
    catalog: CatalogFile = None,
) -> None:
    """Show one method on a page: what it does, what it can do, variants, and all its runs."""
    from peft_shop.ask.lookup import resolve_card  # noqa: PLC0415 - not for --help
    from peft_shop.show.methods import card_document  # noqa: PLC0415 - as above

    source = load(catalog)
    found = resolve_card(source, method)

    def whole() -> str:
        runs = [run for run in source.runs if run.method == found.id]
        card = {
            "method": found.model_dump(mode="json"),
            "runs": [run.model_dump(mode="json") for run in runs],
        }
        return _json(card)

    out.show(card_document(source, found), rows=_capability_rows(source, found), json=whole)


def _capability_rows(catalog: Any, method: Any) -> list[dict[str, Any]]:
    return [
        {
            "method": method.id,
            "feature": feature.id,
            "support": method.capabilities[feature.id].support,
            "evidence": method.capabilities[feature.id].level,
            "note": method.capabilities[feature.id].note,
        }
        for feature in catalog.features
    ]


@app.command()
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
    from peft_shop.ask.lookup import current_runs  # noqa: PLC0415 - as above
    from peft_shop.ask.reading import build_query, resolve_methods, resolve_metric  # noqa: PLC0415 - not for --help
    from peft_shop.show.runs import runs_document  # noqa: PLC0415 - as above

    source = load(catalog)
    query = build_query(source, benchmark=benchmark, snapshot=snapshot)
    where = source.benchmark_by_id[query.benchmark]
    wanted = resolve_methods(source, split(method), "method")
    found = [
        run
        for run in current_runs(source, where.id, query.snapshot)
        if not wanted or run.method in wanted
    ]
    by = resolve_metric(source, where, sort_by) if sort_by else None
    out.show(runs_document(source, where, found, sort_by=by))
    if not found:
        raise typer.Exit(NOTHING_FOUND)


@app.command()
@takes(output)
def compare(
    out: Output,
    names: Annotated[
        list[str], typer.Argument(help="Runs or methods, two or more.", metavar="NAME...")
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
    catalog: CatalogFile = None,
) -> None:
    """Put runs or methods side by side: figures with their certainty, recipes, capabilities."""
    from peft_shop.ask.lookup import benchmark_of, resolve_subjects  # noqa: PLC0415 - as above
    from peft_shop.ask.reading import build_query  # noqa: PLC0415 - not for --help
    from peft_shop.show.comparisons import compare_document  # noqa: PLC0415 - as above

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
    out.show(compare_document(source, query, subjects, everything=everything))


# --- what to run ---

Destination = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="Where to write it instead of showing it."),
]
Force = Annotated[bool, typer.Option("--force", help="Replace what is there already.")]
RunName = Annotated[
    str,
    typer.Argument(help="A run, or a method that has one run only.", metavar="NAME"),
]


@app.command()
@takes(output)
def snippet(
    out: Output,
    name: RunName,
    *,
    destination: Destination = None,
    force: Force = False,
    benchmark: Benchmark = None,
    model: Model = None,
    adapt: Adapt = None,
    trust_remote_code: TrustRemoteCode = False,
    catalog: CatalogFile = None,
) -> None:
    """Print a training script with the run's own configuration and hyper-parameters."""
    from peft_shop.ask.lookup import resolve_run  # noqa: PLC0415 - not for --help
    from peft_shop.scripts.script import snippet as script_of  # noqa: PLC0415 - as above

    source = load(catalog)
    run = resolve_run(source, name, benchmark)
    target = inspected(model, trust_remote_code=trust_remote_code)
    found = adapted(source, run, target, adapt)
    structure = None if target is None else target.structure
    script = script_of(run, source.benchmark_by_id[run.benchmark], found, structure)
    if destination is not None:
        write_file(destination, script, force=force)
        _say(f"wrote {destination}")
    else:
        whole = {"name": run.experiment, "benchmark": run.benchmark, "script": script}
        _write_code(out, script, "python", _json(whole))


@app.command()
@takes(output)
def config(
    out: Output,
    name: RunName,
    *,
    destination: Destination = None,
    force: Force = False,
    benchmark: Benchmark = None,
    model: Model = None,
    adapt: Adapt = None,
    trust_remote_code: TrustRemoteCode = False,
    catalog: CatalogFile = None,
) -> None:
    """Print a run's peft configuration as JSON; with -o, write it into a folder as peft does.

    With --model it is valid on that model; what had to change is told on the standard error.
    """
    from peft_shop.adapt.records import retargeted_recipe  # noqa: PLC0415 - as above
    from peft_shop.ask.lookup import resolve_run  # noqa: PLC0415 - as above
    from peft_shop.show.adaptations import change_sentence  # noqa: PLC0415 - as above
    from peft_shop.upstream.configs import config_dict, save_config  # noqa: PLC0415 - not for --help

    source = load(catalog)
    run = resolve_run(source, name, benchmark)
    recipe = run.recipe
    target = inspected(model, trust_remote_code=trust_remote_code)
    found = adapted(source, run, target, adapt)
    if found is not None:
        recipe = retargeted_recipe(recipe, found)
        for change in found.changes:
            _say(change_sentence(change))
    if destination is None:
        content = _json(config_dict(recipe))
        _write_code(out, content, "json", content)
    elif (destination / "adapter_config.json").exists() and not force:
        raise InputError(
            f"{destination} has an adapter_config.json already; choose another folder or add "
            "--force"
        )
    else:
        _say(f"wrote {save_config(recipe, destination, overwrite=force)}")


def _write_code(out: Output, code: str, language: str, as_json: str) -> None:
    """Writes code as it is, fenced, or inside JSON.

    Raises:
        QueryError: as CSV.
    """
    if out.format is Format.CSV:
        raise QueryError(f"{language} code cannot be written as CSV")
    if out.format is Format.MARKDOWN:
        write_out(f"```{language}\n{code}```\n")
    else:
        write_out(as_json if out.format is Format.JSON else code)


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _say(text: str) -> None:
    """Tells people what was done; programs read the standard output."""
    sys.stderr.write(text + "\n")

"""The command line: options become the fields of a question, answers become text and exit codes."""

from typing import Annotated, ClassVar, Final

import typer

from peft_shop.cli.catalog import app as catalog_app
from peft_shop.cli.commands import CommandEntry, Group
from peft_shop.cli.trial import app as trial_app

__all__ = ["app"]


_SUMMARIES: Final = {
    "route": "Tell how an adapter reaches serving engines: as it is, converted to LoRA, merged, "
    "or not.",
    "trainers": "Tell which methods training tools take, what they lose in silence, and their "
    "words for it.",
    "convert": "Turn an adapter of any weight-based method into a plain LoRA, or merge it, and "
    "measure it.",
    "forecast": "Forecast parameters, checkpoint, peak memory and step time of training on your "
    "model.",
    "inspect": "Show a model's modules by what they do, with sizes, and the benchmark that fits "
    "it.",
    "recommend": "Find the best measured configurations that meet your constraints.",
    "why": "Tell why a run or method is, or is not, among the best: all constraints that it fails.",
    "methods": "List the methods, or those that can do what you ask for, measured or not.",
    "show": "Show one method on a page: what it does, what it can do, variants, and all its runs.",
    "runs": "List the measured runs of a benchmark.",
    "compare": "Put runs or methods side by side: figures with their certainty, recipes, "
    "capabilities.",
    "snippet": "Print a training script with the run's own configuration and hyper-parameters.",
    "site": "Write the shop as a static web page: filters, plot, methods, comparisons, "
    "configurations.",
    "serve": "Serve the web page on 127.0.0.1 until you press Ctrl-C; nobody else can reach it.",
    "config": "Print a run's peft configuration as JSON; with -o, write it into a folder as peft "
    "does.",
    "skill": "Print what an agent must know to use this program, or install it among its skills.",
}
"""What the commands do, in the order of the help."""
_EPILOG: Final = (
    "Exit codes: 0 an answer; 1 nothing meets the constraints (the answer says what to relax), or "
    "a check of the catalog found something; 2 bad input, a broken file or an output that cannot "
    "be written (the reason is on the standard error); 130 interrupted; 141 nobody reads the "
    "output any more."
)


class Program(Group):
    """The program's own commands, each in the file of its name."""

    table: ClassVar = {
        name: CommandEntry(f"peft_shop.cli.{name}:{name}", summary)
        for name, summary in _SUMMARIES.items()
    }


app = typer.Typer(
    name="peft-shop",
    cls=Program,
    help="Which parameter-efficient fine-tuning (PEFT) method, with which configuration, for your "
    "model and hardware: answered from measured runs, with the reason and its certainty.",
    epilog=_EPILOG,
    no_args_is_help=True,
    # a failure on purpose is one line; any other is a mistake of ours and shows itself whole
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(trial_app, name="trial")
app.add_typer(catalog_app, name="catalog")


def _versions(wanted: bool) -> None:
    if wanted:
        from peft_shop.cli.versions import versions  # noqa: PLC0415 - not for --help

        versions()
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

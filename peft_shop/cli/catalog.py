"""`peft-shop catalog ...`: for those who maintain a catalog and for those who vendor it."""

from collections.abc import Callable
from importlib.util import find_spec
from typing import ClassVar

import typer

from peft_shop.cli.commands import CommandEntry, Group
from peft_shop.errors import InputError

__all__ = ["app"]


def _checkout_only(name: str) -> Callable[[], None]:
    """Stands in for a command of the workshop, which an installed package does not have."""

    def refuse() -> None:
        raise InputError(
            f"`peft-shop catalog {name}` needs a checkout of the repository: the installed package "
            "leaves out what makes the catalog"
        )

    refuse.__doc__ = "Needs a checkout of the repository."
    return refuse


def _workshop(name: str, function: str, summary: str) -> CommandEntry:
    """A command of the workshop, or its stand-in where the package comes without one."""
    if find_spec("peft_shop.curate") is None:
        refusal = _checkout_only(name)
        return CommandEntry("", refusal.__doc__ or "", refusal)
    return CommandEntry(f"peft_shop.curate.{function}", summary)


class CatalogGroup(Group):
    """Commands about the catalog, in the order of the help."""

    table: ClassVar = {
        "ready": _workshop(
            "ready",
            "ready_command:ready",
            "Adapt every method and recipe to every architecture, then train, save and reload it.",
        ),
        "ingest": _workshop(
            "ingest",
            "commands:ingest",
            "Take raw result files into data/runs, all of them or none.",
        ),
        "compile": _workshop(
            "compile",
            "commands:compile_",
            "Compile the sources into the one file that others vendor.",
        ),
        "validate": _workshop(
            "validate",
            "commands:validate",
            "Check the sources against every rule; exit 1 if one is broken.",
        ),
        "schema": CommandEntry(
            "peft_shop.cli.vendor:schema", "Print the JSON Schema of the catalog file."
        ),
        "export": CommandEntry(
            "peft_shop.cli.vendor:export",
            "Write the whole catalog as JSON, or flat tables as JSON or CSV.",
        ),
        "diff": CommandEntry(
            "peft_shop.cli.vendor:diff", "Tell what changed for a user between two catalog files."
        ),
        "probe": _workshop(
            "probe",
            "commands:probe",
            "Try every capability of the methods and write what was seen into observed/.",
        ),
        "history": _workshop(
            "history",
            "commands:history",
            "Read since which release of peft each method, option and variant exists.",
        ),
        "noise": _workshop(
            "noise",
            "commands:noise",
            "Estimate again how much figures differ from run to run.",
        ),
    }


app = typer.Typer(
    cls=CatalogGroup,
    help="Make, check and export the catalog.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

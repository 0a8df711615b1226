"""What options are made of, and those that several commands have."""

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, TypeAlias

import typer

from peft_shop.cli.completion import benchmark_names, run_or_method_names
from peft_shop.names import BENCHMARK_ALIASES

__all__ = [
    "Benchmark",
    "CatalogFile",
    "Destination",
    "Force",
    "Plot",
    "RunName",
    "Several",
    "Snapshot",
    "option",
    "parameters_of",
    "takes",
]

_ASK: Final = "What to optimise"
_EVIDENCE: Final = "Which evidence"


def takes(*blocks: Callable[..., Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorator: the options of `blocks` become those of a command, before its own.

    The command's first parameters receive what the blocks make of their options.
    """

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        shared = [list(parameters_of(block)) for block in blocks]
        own = list(parameters_of(command))[len(blocks) :]

        def run(**given: Any) -> Any:
            made = [
                block(**{parameter.name: given.pop(parameter.name) for parameter in parameters})
                for block, parameters in zip(blocks, shared, strict=True)
            ]
            return command(*made, **given)

        every = [*own, *(parameter for parameters in shared for parameter in parameters)]
        run.__name__ = command.__name__
        run.__doc__ = command.__doc__
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in every}
        run.__signature__ = inspect.Signature(  # type: ignore[attr-defined] # functions have it
            [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in every]
        )
        return run

    return decorate


def parameters_of(function: Callable[..., Any]) -> Sequence[inspect.Parameter]:
    """Parameters of a function, in their order."""
    return tuple(inspect.signature(function).parameters.values())


def option(
    *names: str,
    text: str,
    panel: str,
    metavar: str | None = None,
    offers: Callable[[str], list[str]] | None = None,
) -> Any:
    """An option in a panel of the help; a shell completes what it `offers`."""
    return typer.Option(
        *names, help=text, rich_help_panel=panel, metavar=metavar, autocompletion=offers
    )


Several: TypeAlias = list[str] | None
"""Values of an option that can be repeated."""
Benchmark: TypeAlias = Annotated[
    str | None,
    option(
        "--benchmark",
        "-b",
        text="What was measured: "
        + "; ".join(f"{name} ({', '.join(also)})" for name, also in BENCHMARK_ALIASES.items())
        + ". Default: what is evidence for the model, else the first.",
        panel=_ASK,
        metavar="NAME",
        offers=benchmark_names,
    ),
]
Snapshot: TypeAlias = Annotated[
    str | None,
    option(
        "--snapshot",
        text="State of the runs on a date, such as 2026-06-10; 'all' for every run. "
        "Default: the newest.",
        panel=_EVIDENCE,
        metavar="DATE",
    ),
]
CatalogFile: TypeAlias = Annotated[
    Path | None,
    option(
        "--catalog",
        text="Catalog file to ask instead of the one that comes with peft-shop.",
        panel=_EVIDENCE,
        metavar="FILE",
    ),
]
Destination: TypeAlias = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="Where to write it instead of showing it."),
]
Force: TypeAlias = Annotated[bool, typer.Option("--force", help="Replace what is there already.")]
Plot: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--plot",
        help="Also draw it into this file, .svg or .png (pip install 'peft-shop[plot]').",
        rich_help_panel="Output",
        metavar="FILE",
    ),
]
RunName: TypeAlias = Annotated[
    str,
    typer.Argument(
        help="A run, or a method that has one run only.",
        metavar="NAME",
        autocompletion=run_or_method_names,
    ),
]

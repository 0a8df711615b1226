"""`peft-shop catalog ...`: for those who maintain a catalog and for those who vendor it.

What only maintainers need is imported when one of these commands runs.
"""

from collections.abc import Callable, Mapping
from enum import StrEnum
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from peft_shop.catalog.store import load
from peft_shop.cli.options import takes
from peft_shop.cli.output import (
    Output,
    output,
    say,
    write_file,
    write_files,
    write_out,
    writing,
)
from peft_shop.errors import InputError, QueryError
from peft_shop.files import new_folder

__all__ = ["app"]


def schema(
    *,
    destination: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write it to.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file.")] = False,
) -> None:
    """Print the JSON Schema of the catalog file."""
    from peft_shop.catalog.export import schema_json  # noqa: PLC0415 - maintainers only

    _deliver(schema_json(), destination, force=force)


class ExportFormat(StrEnum):
    """How the catalog leaves the house."""

    JSON = "json"
    CSV = "csv"


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
    from peft_shop.catalog.export import (  # noqa: PLC0415 - as above
        as_csv,
        as_json,
        dump,
        tables,
    )
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
    _deliver_all({f"{name}.csv": write(rows) for name, rows in found.items()}, destination, force)
    say(f"wrote {', '.join(f'{name}.csv' for name in found)} into {destination}")


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
    from peft_shop.catalog.difference import diff as compare  # noqa: PLC0415 - maintainers only
    from peft_shop.show.differences import difference_document  # noqa: PLC0415 - as above

    out.show(difference_document(compare(load(old), load(new))))


def _deliver(content: str, destination: Path | None, *, force: bool) -> None:
    if destination is None:
        write_out(content)
    else:
        write_file(destination, content, force=force)
        say(f"wrote {destination}")


def _deliver_all(contents: Mapping[str, str], folder: Path, force: bool) -> None:
    """Makes a folder of files in one step; of one that is there, changes all files or none."""
    if folder.is_dir():
        write_files({folder / name: content for name, content in contents.items()}, force=force)
        return
    with writing(folder), new_folder(folder, replace=False) as made:
        for name, content in contents.items():
            (made.path / name).write_text(content, encoding="utf-8")


def _checkout_only(name: str) -> Callable[[], None]:
    """Stands in for a command of the workshop, which an installed package does not have."""

    def refuse() -> None:
        raise InputError(
            f"`peft-shop catalog {name}` needs a checkout of the repository: the installed package "
            "leaves out what makes the catalog"
        )

    refuse.__doc__ = "Needs a checkout of the repository."
    return refuse


app = typer.Typer(
    help="Make, check and export the catalog.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
_WORKSHOP: Final = "peft_shop.curate.commands"
_COMMANDS: Final[dict[str, Callable[..., Any] | None]] = {
    "ready": None,
    "ingest": None,
    "compile": None,
    "validate": None,
    "schema": schema,
    "export": export,
    "diff": diff,
    "probe": None,
    "history": None,
    "noise": None,
}
"""The commands in the order of the help; those without a function are the workshop's."""
_workshop = import_module(_WORKSHOP) if find_spec("peft_shop.curate") else None
for _name, _command in _COMMANDS.items():
    if _command is not None:
        app.command(_name)(_command)
    elif _workshop is not None:
        app.command(_name)(_workshop.COMMANDS[_name])
    else:
        app.command(
            _name, context_settings={"allow_extra_args": True, "ignore_unknown_options": True}
        )(_checkout_only(_name))

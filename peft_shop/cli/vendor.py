"""`peft-shop catalog schema`, `export` and `diff`: for those who vendor the catalog."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from peft_shop.catalog.difference import diff as compare
from peft_shop.catalog.export import as_csv, as_json, dump, require_shareable, schema_json, tables
from peft_shop.catalog.new_folder import new_folder
from peft_shop.catalog.store import load
from peft_shop.cli.options import takes
from peft_shop.cli.output import Output, output, say, write_file, write_files, write_out, writing
from peft_shop.errors import QueryError, UnknownNameError
from peft_shop.show.differences import difference_document

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["diff", "export", "schema"]


def schema(
    *,
    destination: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write it to.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file.")] = False,
) -> None:
    """Print the JSON Schema of the catalog file."""
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
    catalog = load(file)
    require_shareable(catalog)
    if table is None and form is ExportFormat.JSON:
        _deliver(dump(catalog).decode(), destination, force=force)
        return
    rows_by_table = tables(catalog)
    write: Callable[[Any], str] = as_csv if form is ExportFormat.CSV else as_json
    if table is not None:
        if table not in rows_by_table:
            raise UnknownNameError("table", table, rows_by_table)
        _deliver(write(rows_by_table[table]), destination, force=force)
        return
    if destination is None:
        raise QueryError("CSV is several tables: name one with --table, or a folder with --output")
    _deliver_all(
        {f"{name}.csv": write(rows) for name, rows in rows_by_table.items()}, destination, force
    )
    say(f"wrote {', '.join(f'{name}.csv' for name in rows_by_table)} into {destination}")


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
    out.show(difference_document(compare(load(old), load(new))))


def _deliver(content: str, destination: Path | None, *, force: bool) -> None:
    if destination is None:
        write_out(content)
    else:
        write_file(destination, content, force=force)
        say(f"wrote {destination}")


def _deliver_all(contents: "Mapping[str, str]", folder: Path, force: bool) -> None:
    """Makes a folder of files in one step; of one that is there, changes all files or none."""
    if folder.is_dir():
        write_files({folder / name: content for name, content in contents.items()}, force=force)
        return
    with writing(folder), new_folder(folder, replace=False) as made:
        for name, content in contents.items():
            (made.path / name).write_text(content, encoding="utf-8")

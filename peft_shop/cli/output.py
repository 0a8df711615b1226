"""What every command has in common at its end: formats, the terminal, files, exit codes."""

import contextlib
import io
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from peft_shop.cli.streams import READER_GONE, in_encoding
from peft_shop.errors import CatalogError, InputError, PeftShopError, Problem, QueryError
from peft_shop.files import write_all
from peft_shop.show.documents import Document, Value
from peft_shop.show.markup import markdown
from peft_shop.show.tables import csv_text, json_text, records
from peft_shop.show.terminal import Line, document_lines, lines_text

__all__ = [
    "NOTHING_FOUND",
    "OK",
    "TOO_CLOSE",
    "Format",
    "Output",
    "output",
    "say",
    "terminal_width",
    "write_code",
    "write_file",
    "write_files",
    "write_out",
    "write_picture",
    "writing",
]

OK: Final = 0
NOTHING_FOUND: Final = 1
"""Nothing meets the constraints, or a check found something."""
TOO_CLOSE: Final = 3
"""The interval of a forecast holds the device's memory: nobody can tell."""
_PANEL: Final = "Output"


class Format(StrEnum):
    """How an answer is written."""

    TABLE = "table"
    MARKDOWN = "markdown"
    CSV = "csv"
    JSON = "json"


@dataclass(frozen=True, slots=True)
class Output:
    """The format that was asked for."""

    format: Format

    def show(
        self,
        document: Document | Callable[[], Document],
        *,
        lines: Sequence[Line] | None = None,
        rows: Callable[[], Sequence[Mapping[str, Value]]] | None = None,
        json: Callable[[], str] | None = None,
    ) -> None:
        """Writes a document to the standard output; what the format does not need is not made.

        Args:
            document: for people, and for programs where nothing else is given.
            lines: for a terminal, laid out already, instead of the document.
            rows: makes those of CSV, instead of the document's first table.
            json: makes JSON text, instead of the document's tables.
        """

        def whole() -> Document:
            return document if isinstance(document, Document) else document()

        if self.format is Format.TABLE:
            laid_out = document_lines(whole(), terminal_width()) if lines is None else lines
            write_out(lines_text(laid_out, terminal_width(), colour=_has_colour()))
        elif self.format is Format.MARKDOWN:
            write_out(markdown(whole()))
        elif self.format is Format.CSV:
            write_out(csv_text(records(whole().tables[0]) if rows is None else rows()))
        else:
            write_out(json() if json is not None else json_text(_tables(whole())))


def _tables(document: Document) -> Any:
    """The rows of the only table, or the rows of each by its key."""
    tables = document.tables
    if len(tables) == 1:
        return records(tables[0])
    return {table.key: records(table) for table in tables}


def output(
    form: Annotated[
        Format,
        typer.Option("--format", help="How to write the answer.", rich_help_panel=_PANEL),
    ] = Format.TABLE,
    *,
    as_json: Annotated[
        bool, typer.Option("--json", help="Short for --format json.", rich_help_panel=_PANEL)
    ] = False,
) -> Output:
    """The options that every command has which prints data.

    Raises:
        QueryError: two formats are asked for.
    """
    if as_json and form not in {Format.TABLE, Format.JSON}:
        raise QueryError(f"--json and --format {form} contradict each other")
    return Output(Format.JSON if as_json else form)


def terminal_width() -> int:
    """Columns of the terminal; `COLUMNS` goes before, and 80 where neither tells."""
    return shutil.get_terminal_size().columns


def _has_colour() -> bool:
    return (
        sys.stdout.isatty()
        and not os.environ.get("NO_COLOR")
        and os.environ.get("TERM", "") != "dumb"
    )


def write_out(content: str) -> None:
    """Writes to the standard output, whatever its encoding; ends quietly when nobody reads."""
    try:
        sys.stdout.write(in_encoding(content, sys.stdout.encoding))
        sys.stdout.flush()
    except BrokenPipeError:
        # the interpreter flushes once more when it ends: that must not fail again
        with contextlib.suppress(OSError, io.UnsupportedOperation):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(READER_GONE) from None


def write_file(path: Path, content: str, *, force: bool = False) -> None:
    """Writes a file, whole or not at all; a link is followed.

    Raises:
        InputError: the file exists and `force` is false.
        PeftShopError: it cannot be written, or there is something else than a regular file.
    """
    write_files({path: content}, force=force)


def write_files(contents: Mapping[Path, str], *, force: bool = False) -> None:
    """Writes several files, all or none of them, into folders that exist.

    Raises:
        InputError: one exists and `force` is false.
        PeftShopError: one cannot be written, or there is something else than a regular file.
    """
    for path in contents:
        if not path.parent.is_dir():
            raise PeftShopError(f"cannot write {path}: there is no folder {path.parent}")
    try:
        write_all({path: text.encode() for path, text in contents.items()}, replace=force)
    except FileExistsError as error:
        name = error.filename or next(iter(contents))
        raise InputError(f"{name} exists already; choose another name or add --force") from error
    except OSError as error:
        name = ", ".join(map(str, contents))
        raise PeftShopError(f"cannot write {name}: {error.strerror or error}") from error


def write_picture(ax: Any, path: Path, *, force: bool = False) -> None:
    """Writes the figure of axes as .svg or .png, whole or not at all.

    Raises:
        InputError: it is another kind of file, or exists and `force` is false.
        PeftShopError: it cannot be written.
    """
    from peft_shop.show.plots.canvas import picture  # noqa: PLC0415 - only when something is drawn

    if not path.parent.is_dir():
        raise PeftShopError(f"cannot write {path}: there is no folder {path.parent}")
    content = picture(ax, path)
    try:
        write_all({path: content}, replace=force)
    except FileExistsError as error:
        raise InputError(f"{path} exists already; choose another name or add --force") from error
    except OSError as error:
        raise PeftShopError(f"cannot write {path}: {error.strerror or error}") from error
    say(f"wrote {path}")


@contextlib.contextmanager
def writing(place: Path) -> Iterator[None]:
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


def say(text: str) -> None:
    """Tells people what was done; programs read the standard output."""
    sys.stderr.write(text + "\n")


def write_code(out: Output, code: str, language: str, as_json: str) -> None:
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

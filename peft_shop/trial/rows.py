"""Files of examples -> their rows, with the numbers that people count them by."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any, Final

from peft_shop.errors import CatalogError, InputError, MissingExtraError, Problem
from peft_shop.files import read_bounded
from peft_shop.records import parse_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

__all__ = ["MOST_PROBLEMS", "rows_of"]

_LARGEST: Final = 2**31
"""Bytes of a file of examples; larger ones can be given as a folder of `datasets`."""
MOST_PROBLEMS: Final = 20
"""Mistakes that are told at once."""


def rows_of(path: Path) -> list[tuple[int, Any]]:
    """Rows with their numbers, from 1 on.

    Raises:
        CatalogError: the file breaks its format.
        InputError: it cannot be read.
    """
    readers: dict[str, Callable[[str, Path], Iterable[tuple[int, Any]]]] = {
        ".jsonl": _jsonl,
        ".json": _json,
        ".csv": _csv,
        ".tsv": _csv,
        ".txt": _text,
    }
    if path.is_dir() or path.suffix == ".parquet":
        return _by_datasets(path)
    read = readers.get(path.suffix.lower())
    if read is None:
        known = ", ".join([*readers, ".parquet"])
        raise InputError(
            f"{path}: examples are read from {known} and from folders that `datasets` saved"
        )
    try:
        content = read_bounded(path, _LARGEST, "a file of examples").decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text at byte {error.start}") from error
    return list(read(content, path))


def _jsonl(content: str, path: Path) -> Iterable[tuple[int, Any]]:
    rows, problems = [], []
    for number, line in enumerate(content.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            rows.append((number, parse_json(line)))
        except ValueError as error:
            problems.append(Problem(str(path), f"row {number}", f"not JSON: {error}"))
    if problems:
        raise CatalogError("cannot read the examples", problems[:MOST_PROBLEMS])
    return rows


def _json(content: str, path: Path) -> Iterable[tuple[int, Any]]:
    try:
        rows = parse_json(content)
    except ValueError as error:
        problem = Problem(str(path), "", f"not JSON: {error}", "one object a line is called .jsonl")
        raise CatalogError("cannot read the examples", [problem]) from error
    if not isinstance(rows, list):
        raise InputError(f"{path}: expected a list of rows")
    return enumerate(rows, start=1)


def _csv(content: str, path: Path) -> Iterable[tuple[int, Any]]:
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    return enumerate(csv.DictReader(io.StringIO(content), delimiter=delimiter), start=1)


def _text(content: str, _: Path) -> Iterable[tuple[int, Any]]:
    pieces = [piece.strip() for piece in content.replace("\r\n", "\n").split("\n\n")]
    if len([piece for piece in pieces if piece]) <= 1:
        pieces = content.splitlines()
    texts = [piece for piece in pieces if piece.strip()]
    return enumerate(({"text": text} for text in texts), start=1)


def _by_datasets(path: Path) -> list[tuple[int, Any]]:
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    try:
        import datasets  # noqa: PLC0415 - only for what it alone reads
    except ImportError as error:
        raise MissingExtraError("datasets", "trial", f"reading {path}") from error
    try:
        if path.is_dir():
            rows = datasets.load_from_disk(str(path))
        else:
            rows = datasets.Dataset.from_parquet(str(path))
        return list(enumerate(rows, start=1))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: {error}") from error

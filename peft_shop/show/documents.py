"""What can be shown: a title, paragraphs, tables, listings, warnings and footnotes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, TypeAlias

__all__ = ["Cell", "Column", "Document", "Item", "Listing", "Row", "Table", "Value", "clean"]

Value: TypeAlias = str | int | float | bool | None
"""What a cell stands for, as JSON and CSV have it; absent as `None`."""

# Control characters and those that turn the direction of text: they could move the cursor, clear
# the screen or make one name look like another.
_HARMFUL: Final = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def clean(text: str) -> str:
    """`text` on one line, without characters that a terminal or a browser would obey."""
    return _HARMFUL.sub(" ", text)


@dataclass(frozen=True, slots=True)
class Cell:
    """One place of a table.

    Attributes:
        text: what people read.
        value: what programs read, in base units.
        detail: a second, less important line.
    """

    text: str
    value: Value = None
    detail: str = ""


def label(text: str) -> Cell:
    """A cell that stands for its own text."""
    return Cell(text, text)


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table.

    Attributes:
        key: its name in JSON and CSV; empty when it is only for people.
        title: its header.
        right: whether it is aligned right, as numbers are.
        priority: 0 for columns that are always shown; of the others the highest goes first where
            the width is short.
        least: width below which its text is not folded further [characters].
        hidden: whether only programs read it.
    """

    key: str
    title: str = ""
    right: bool = False
    priority: int = 0
    least: int = 12
    hidden: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """Cells in the order of the columns, and a remark about them as a whole."""

    cells: tuple[Cell, ...]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under common headers.

    Attributes:
        key: its name where several tables become one JSON object.
        title: its heading; may be empty.
        columns: of which only programs read the hidden ones.
        rows: with a cell for every column.
    """

    key: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class Item:
    """A labelled remark; every text is a paragraph of its own."""

    label: str
    texts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Listing:
    """Remarks under one heading."""

    title: str
    items: tuple[Item, ...]


@dataclass(frozen=True, slots=True)
class Document:
    """Everything that one command or notebook cell shows.

    Attributes:
        title: the heading.
        paragraphs: what stands before the parts.
        parts: tables and listings, in order.
        warnings: what must not be overlooked.
        footnotes: how to read it, and where it comes from.
    """

    title: str
    paragraphs: tuple[str, ...] = ()
    parts: tuple[Table | Listing, ...] = ()
    warnings: tuple[str, ...] = ()
    footnotes: tuple[str, ...] = ()

    @property
    def shown(self) -> tuple[Table | Listing, ...]:
        """The parts that people read: not the tables whose columns are all hidden."""
        return tuple(
            part
            for part in self.parts
            if isinstance(part, Listing) or not all(column.hidden for column in part.columns)
        )

    @property
    def tables(self) -> tuple[Table, ...]:
        """The tables among the parts."""
        return tuple(part for part in self.parts if isinstance(part, Table))


def plain(value: Value) -> Cell:
    """Cell that shows a value as it is, and a dash where there is none."""
    return Cell("-" if value is None else str(value), value)

"""Short names of runs in whatever is shown to people; programs read the whole names."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from peft_shop.catalog.short_names import short_names
from peft_shop.show.documents import Cell, Document, Item, Listing, Row, Table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from peft_shop.catalog.catalog import Catalog

__all__ = ["briefly", "in_short"]

# a folder and an experiment in it, not a part of a longer name or of a path
_NAME: Final = re.compile(r"(?<![\w./-])\w[\w.+=-]*/[\w.+=-]*\w(?![\w/-])")


def in_short(catalog: Catalog, text: str) -> str:
    """`text` with every run's name as short as it can be."""
    if "/" not in text:
        return text
    names = _known(catalog)
    return _NAME.sub(lambda match: names.get(match[0], match[0]), text)


def briefly(catalog: Catalog, document: Document) -> Document:
    """The document with short names wherever people read; values stay as they are."""

    def short(text: str) -> str:
        return in_short(catalog, text)

    def texts(several: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(map(short, several))

    def cell(one: Cell) -> Cell:
        return replace(one, text=short(one.text), detail=short(one.detail))

    def part(table: Table | Listing) -> Table | Listing:
        if isinstance(table, Listing):
            items = tuple(Item(short(item.label), texts(item.texts)) for item in table.items)
            return Listing(short(table.title), items)
        rows = tuple(Row(tuple(map(cell, row.cells)), short(row.note)) for row in table.rows)
        columns = tuple(replace(column, title=short(column.title)) for column in table.columns)
        return replace(table, title=short(table.title), columns=columns, rows=rows)

    return Document(
        title=short(document.title),
        paragraphs=texts(document.paragraphs),
        parts=tuple(map(part, document.parts)),
        warnings=texts(document.warnings),
        footnotes=texts(document.footnotes),
    )


def _known(catalog: Catalog) -> Mapping[str, str]:
    """Short names of all runs by whole ones."""
    key = "names in texts"
    if key not in catalog.derived:
        names: dict[str, str] = {}
        for benchmark in catalog.benchmarks:
            for name, short in short_names(catalog, benchmark.id).items():
                # one name on two benchmarks, short in two ways, stays whole
                names[name] = short if names.get(name, short) == short else name
        catalog.derived[key] = names
    found: Mapping[str, str] = catalog.derived[key]
    return found

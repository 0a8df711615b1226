"""Tables as data: CSV and JSON hold base units and names, never what was rounded for people."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from peft_shop.catalog.export import as_csv, guarded
from peft_shop.show.documents import clean

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peft_shop.show.documents import Table, Value

__all__ = ["csv_text", "json_text", "records"]


def records(table: Table) -> list[dict[str, Value]]:
    """One dictionary per row, by the keys of the columns."""
    return [
        {
            column.key: cell.value
            for column, cell in zip(table.columns, row.cells, strict=True)
            if column.key
        }
        for row in table.rows
    ]


def csv_text(rows: Sequence[Mapping[str, Value]]) -> str:
    """CSV with a header line; absent values are empty.

    Text that a spreadsheet would take for a formula gets an apostrophe in front.
    """
    return as_csv(rows, _cell)


def _cell(value: Value) -> Value:
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, str):
        return value
    return clean(value) if guarded(value) == value else f"'{clean(value)}"


def json_text(value: Any) -> str:
    """Indented JSON with a final newline; refuses what is not finite."""
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"

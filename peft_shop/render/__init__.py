"""Plain documents -> text, rich, Markdown, HTML, CSV and JSON; the only room that imports rich.

What a document says is decided in `views`; how it looks on a terminal, in a notebook or in a file
is decided here. Nothing of peft-shop is known here but `errors`.
"""

from __future__ import annotations

from peft_shop.render.documents import (
    Cell,
    Column,
    Document,
    Item,
    Listing,
    Row,
    Table,
    Value,
    label,
)
from peft_shop.render.markup import html, markdown
from peft_shop.render.tables import csv_text, json_text, records
from peft_shop.render.terminal import renderables, text

__all__ = [
    "Cell",
    "Column",
    "Document",
    "Item",
    "Listing",
    "Row",
    "Table",
    "Value",
    "csv_text",
    "html",
    "json_text",
    "label",
    "markdown",
    "records",
    "renderables",
    "text",
]

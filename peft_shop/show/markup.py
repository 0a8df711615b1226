"""Documents as HTML for notebooks and as Markdown for issues and reports."""

from __future__ import annotations

import re
from html import escape
from typing import TYPE_CHECKING, Final

from peft_shop.show.documents import Table, clean

if TYPE_CHECKING:
    from collections.abc import Callable

    from peft_shop.show.documents import Document, Listing

__all__ = ["html", "markdown"]

_CODE: Final = re.compile(r"`[^`]+`")
# no colours but half-transparent grey: readable on light and on dark pages
_CELL: Final = "padding:0.2em 0.7em;border-bottom:1px solid rgba(128,128,128,0.35);"
_FAINT: Final = "opacity:0.72;font-size:0.88em;"


def _spans(text: str, code: Callable[[str], str], plain: Callable[[str], str]) -> str:
    """`text` with what stands between backticks and the rest treated by their own functions."""
    found, end = [], 0
    for match in _CODE.finditer(text):
        found += [plain(text[end : match.start()]), code(match[0][1:-1])]
        end = match.end()
    return "".join([*found, plain(text[end:])])


# --- HTML ---


def html(document: Document) -> str:
    """A self-contained fragment of HTML; every text is escaped."""
    parts = [f"<h4>{_text(document.title)}</h4>"]
    parts += [f"<p>{_text(text)}</p>" for text in document.paragraphs]
    parts += [f"<p><strong>Careful:</strong> {_text(text)}</p>" for text in document.warnings]
    for part in document.shown:
        if part.title:
            parts.append(f"<h5>{_text(part.title)}</h5>")
        parts.append(_html_table(part) if isinstance(part, Table) else _html_listing(part))
    parts += [f'<p style="{_FAINT}">{_text(text)}</p>' for text in document.footnotes]
    return '<div class="peft-shop">' + "\n".join(parts) + "</div>"


def _text(text: str) -> str:
    return _spans(clean(text), lambda code: f"<code>{escape(code)}</code>", escape)


def _html_table(table: Table) -> str:
    shown = [(i, column) for i, column in enumerate(table.columns) if not column.hidden]
    sides = {i: "text-align:right" if column.right else "text-align:left" for i, column in shown}
    head = "".join(
        f'<th style="{_CELL}{sides[i]}">{_text(column.title)}</th>' for i, column in shown
    )
    lines = [f"<tr>{head}</tr>"]
    for row in table.rows:
        cells = []
        for i, _ in shown:
            cell = row.cells[i]
            content = _text(cell.text)
            if cell.detail:
                content += f'<br><span style="{_FAINT}">{_text(cell.detail)}</span>'
            cells.append(f'<td style="{_CELL}{sides[i]}">{content}</td>')
        lines.append(f"<tr>{''.join(cells)}</tr>")
        if row.note:
            style = f"{_CELL}{_FAINT}text-align:left"
            note = f'<td colspan="{len(shown)}" style="{style}">{_text(row.note)}</td>'
            lines.append(f"<tr>{note}</tr>")
    body = "\n".join(lines)
    return f'<table style="border-collapse:collapse">\n{body}\n</table>'


def _html_listing(listing: Listing) -> str:
    lines = []
    for item in listing.items:
        name = f"<strong>{_text(item.label)}</strong> " if item.label else ""
        lines.append(f"<li>{name}{'<br>'.join(_text(text) for text in item.texts)}</li>")
    body = "\n".join(lines)
    return f"<ul>\n{body}\n</ul>"


# --- Markdown ---

_SPECIAL: Final = re.compile(r"[\\`*\[\]|]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")
_BLOCK: Final = re.compile(r"^[#+=~-]")


def markdown(document: Document) -> str:
    """GitHub-flavoured Markdown, with a final newline; text cannot become markup or HTML."""
    blocks = [f"## {_mark(document.title)}"]
    blocks += [_paragraph(text) for text in document.paragraphs]
    blocks += [f"> **Careful:** {_mark(text)}" for text in document.warnings]
    for part in document.shown:
        if part.title:
            blocks.append(f"### {_mark(part.title)}")
        blocks.append(_mark_table(part) if isinstance(part, Table) else _mark_listing(part))
    blocks += [_paragraph(text) for text in document.footnotes]
    return "\n\n".join(blocks) + "\n"


def _mark(text: str) -> str:
    return _spans(clean(text), lambda code: f"`{code}`", _plain)


def _plain(text: str) -> str:
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _SPECIAL.sub(lambda match: "\\" + match[0], text)


def _paragraph(text: str) -> str:
    """Text that no first character turns into a heading, a list or a quotation."""
    return _BLOCK.sub(lambda match: "\\" + match[0], _mark(text).strip())


def _mark_table(table: Table) -> str:
    shown = [(i, column) for i, column in enumerate(table.columns) if not column.hidden]
    noted = any(row.note for row in table.rows)
    titles = [_in_cell(column.title) for _, column in shown] + ["Note"] * noted
    rules = ["--:" if column.right else ":--" for _, column in shown] + [":--"] * noted
    lines = [titles, rules]
    for row in table.rows:
        cells = []
        for i, _ in shown:
            cell = row.cells[i]
            detail = f"<br>{_in_cell(cell.detail)}" if cell.detail else ""
            cells.append(_in_cell(cell.text) + detail)
        lines.append(cells + [_in_cell(row.note)] * noted)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _in_cell(text: str) -> str:
    """Marked text; a bar would end the cell even inside code."""
    return _spans(clean(text), lambda code: "`" + code.replace("|", "\\|") + "`", _plain)


def _mark_listing(listing: Listing) -> str:
    lines = []
    for item in listing.items:
        texts = [_mark(text) for text in item.texts]
        name = f"**{_mark(item.label)}** " if item.label else ""
        lines.append(f"- {name}" + "<br>".join(texts))
    return "\n".join(lines)

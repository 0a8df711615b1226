"""Documents as text that fits a terminal's width.

Columns of low priority are left out where the width is short, names are folded at their
separators, and a table that fits in no way is written as one block per row. Rich is imported only
where there is colour.
"""

from __future__ import annotations

import io
import re
import unicodedata
from typing import TYPE_CHECKING, Final, TypeAlias

from peft_shop.show.documents import Table, clean

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.text import Text

    from peft_shop.show.documents import Column, Document, Listing, Row

__all__ = [
    "Line",
    "document_lines",
    "fold",
    "lines_text",
    "renderables",
    "rich_lines",
    "text",
    "width_of",
]

Line: TypeAlias = "list[tuple[str, str]]"
"""Pieces of one line, each with its style."""

_LEAST_WIDTH: Final = 20
_PROSE: Final = 100
"""Longest line of running text [characters]: longer ones are hard to read."""
_EASY: Final = 44
"""Width of a text column that is worth more than another column beside it [characters]."""
_GAP: Final = "  "
_STYLES: Final = {
    "title": "bold",
    "head": "bold",
    "faint": "dim",
    "careful": "bold yellow",
    "good": "green",
}
# a number keeps its unit beside it
_SPACE: Final = re.compile(r" +(?:(?<!\d )|(?!(?:%|[KMGT]?i?B|k|M|min|h|s|points)(?!\w)))")
_PIECES: Final = re.compile(r"[^/_=.,;:|+-]*[/_=.,;:|+-]+|[^/_=.,;:|+-]+")


def text(document: Document, width: int = 80, *, colour: bool = False) -> str:
    """The document as text with a final newline; no line is wider than `width` (at least 20).

    Args:
        document: what to show.
        width: of the terminal [characters].
        colour: whether to add the codes that terminals understand.
    """
    return lines_text(document_lines(document, width), width, colour=colour)


def document_lines(document: Document, width: int = 80) -> list[Line]:
    """The document laid out, each line in pieces with their styles."""
    return list(_document(document, max(width, _LEAST_WIDTH)))


def lines_text(lines: Sequence[Line], width: int = 80, *, colour: bool = False) -> str:
    """Lines that are laid out already, as text with a final newline.

    Args:
        lines: pieces with their styles.
        width: of the terminal [characters].
        colour: whether to add the codes that terminals understand.
    """
    if not colour:
        return "".join("".join(piece for piece, _ in line).rstrip() + "\n" for line in lines)
    from rich.console import Console

    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=width, color_system="standard")
    for line in lines:
        console.print(rich_lines([line]), soft_wrap=True)
    return stream.getvalue()


def renderables(document: Document, width: int = 80) -> Iterator[Text]:
    """The document for a rich console of `width` characters."""
    yield rich_lines(document_lines(document, width))


def rich_lines(lines: Sequence[Line]) -> Text:
    """Lines that are laid out already, for a rich console."""
    from rich.text import Text

    whole = Text(no_wrap=True, overflow="ignore")
    for number, line in enumerate(lines):
        if number:
            whole.append("\n")
        for piece, style in line:
            whole.append(piece, _STYLES.get(style, ""))
    return whole


# --- folding ---


def width_of(word: str) -> int:
    """Columns that `word` takes on a terminal."""
    if word.isascii():
        return len(word)
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in word
    )


def fold(paragraph: str, width: int, *, offset: int = 0) -> list[str]:
    """Lines of at most `width` columns; words too long for one are broken, names at separators.

    Args:
        paragraph: the text.
        width: of every line [columns].
        offset: columns of the first line that are taken already.

    >>> fold("see lora/llama-rank32 too", 12)
    ['see', 'lora/llama-', 'rank32 too']
    """
    lines: list[str] = []
    line, used = "", offset
    for word in _SPACE.split(clean(paragraph).strip(" ")):
        size = width_of(word)
        gap = 1 if line else 0
        if used + gap + size <= width:
            line, used = f"{line} {word}" if line else word, used + gap + size
            continue
        if used:
            lines.append(line)
        *full, line = [word] if size <= width else _broken(word, width)
        lines += full
        used = width_of(line)
    # what was held together by a no-break space is together now
    return [one.replace("\xa0", " ") for one in ([*lines, line] if line else lines)]


def _broken(word: str, width: int) -> list[str]:
    """Parts of a word that is longer than a line."""
    parts = [""]
    for piece in _PIECES.findall(word):
        rest = piece
        if width_of(parts[-1]) + width_of(rest) <= width:
            parts[-1] += rest
            continue
        if parts[-1]:
            parts.append("")
        while width_of(rest) > width:
            cut = next(k for k in range(len(rest), 0, -1) if k == 1 or width_of(rest[:k]) <= width)
            parts[-1] = rest[:cut]
            parts.append("")
            rest = rest[cut:]
        parts[-1] = rest
    return [part for part in parts if part]


# --- the document ---


def _document(document: Document, width: int) -> Iterator[Line]:
    prose = min(width, _PROSE)
    yield from ([(line, "title")] for line in fold(document.title, prose))
    above = bool(document.title)
    for paragraph in document.paragraphs:
        yield []
        yield from ([(line, "")] for line in fold(paragraph, prose))
    if document.warnings:
        yield []
    for warning in document.warnings:
        yield from _hanging("Careful:", "careful", (warning,), prose)
    above = above or bool(document.paragraphs or document.warnings)
    for part in document.shown:
        if above:
            yield []
        above = True
        yield from ([(line, "head")] for line in fold(part.title, prose))
        yield from _table(part, width) if isinstance(part, Table) else _listing(part, prose)
    if document.footnotes:
        yield []
    for footnote in document.footnotes:
        yield from ([(line, "faint")] for line in fold(footnote, prose))


def _hanging(
    head: str, style: str, texts: Sequence[str], width: int, indent: str = ""
) -> Iterator[Line]:
    """Texts after and below a head, indented; a long head has lines of its own."""
    inner = indent + _GAP
    room = width - len(inner)
    lead = width_of(head)
    first, *rest = texts or ("",)
    if len(indent) + lead >= width // 2:
        yield from ([(indent + line, style)] for line in fold(head, width - len(indent)))
        rest = [first, *rest]
    else:
        # the text starts one column after the head
        start, *below = fold(first, room, offset=max(lead + 1 - len(_GAP), 0)) or [""]
        yield [(indent, ""), (head, style), (f" {start}", "")]
        yield from ([(inner + line, "")] for line in below)
    for paragraph in rest:
        yield from ([(inner + line, "")] for line in fold(paragraph, room))


def _listing(listing: Listing, width: int) -> Iterator[Line]:
    indent = _GAP if width > 2 * _LEAST_WIDTH else ""
    for item in listing.items:
        yield from _hanging(clean(item.label) or "-", "head", item.texts, width, indent)


# --- tables ---


def _table(table: Table, width: int) -> Iterator[Line]:
    if not table.rows:
        yield [("  (none)", "faint")]
        return
    fitting = _fitting(table, width)
    if fitting is None:
        yield from _stacked(table, width)
        return
    columns = [table.columns[i] for i in fitting]
    widths = list(fitting.values())
    titles = [fold(column.title, size) for column, size in zip(columns, widths, strict=True)]
    for line in _lines(titles, columns, widths):
        yield [(piece, "head") for piece, _ in line]
    yield [("─" * (sum(widths) + len(_GAP) * (len(widths) - 1)), "faint")]
    for row in table.rows:
        cells = [row.cells[i] for i in fitting]
        upper = [fold(cell.text, size) for cell, size in zip(cells, widths, strict=True)]
        lower = [fold(cell.detail, size) for cell, size in zip(cells, widths, strict=True)]
        yield from _lines(upper, columns, widths)
        for line in _lines(lower, columns, widths):
            yield [(piece, "faint") for piece, _ in line]
        yield from ([(f"    {line}", "faint")] for line in fold(row.note, min(width, _PROSE) - 4))


def _lines(
    cells: Sequence[Sequence[str]], columns: Sequence[Column], widths: Sequence[int]
) -> Iterator[Line]:
    """Lines of one row whose cells are folded already."""
    for k in range(max(map(len, cells), default=0)):
        line: Line = []
        for number, (folded, column, size) in enumerate(zip(cells, columns, widths, strict=True)):
            content = folded[k] if k < len(folded) else ""
            padding = " " * (size - width_of(content))
            gap = _GAP if number else ""
            line.append((gap + (padding + content if column.right else content + padding), ""))
        yield line


def _fitting(table: Table, width: int) -> dict[int, int] | None:
    """Widths of the columns to show, by index; `None` where not even the needed ones fit."""
    shown = [i for i, column in enumerate(table.columns) if not column.hidden]
    natural = {i: _natural(table, i) for i in shown}
    least = {i: _least(table, i, natural[i]) for i in shown}

    def rank(index: int) -> tuple[int, int]:
        return table.columns[index].priority, index

    def gaps() -> int:
        return len(_GAP) * (len(shown) - 1)

    def wide() -> int:
        return gaps() + sum(
            least[i] if table.columns[i].right else max(least[i], min(natural[i], _EASY))
            for i in shown
        )

    def spare() -> int:
        return width - gaps() - sum(least[i] for i in shown)

    # what can be left out is left out before names are folded
    optional = sorted((i for i in shown if table.columns[i].priority), key=rank)
    while optional and wide() > width:
        shown.remove(optional.pop())
    if spare() < 0:
        return None
    sizes = {i: least[i] for i in shown}
    for _ in range(spare()):
        growing = [i for i in shown if sizes[i] < natural[i]]
        if not growing:
            break
        # text first: a header in two lines hurts less than a name in two
        sizes[min(growing, key=lambda i: (table.columns[i].right, sizes[i] - natural[i], i))] += 1
    return sizes


def _texts(table: Table, index: int) -> Iterator[str]:
    for row in table.rows:
        yield clean(row.cells[index].text)
        yield clean(row.cells[index].detail)


def _natural(table: Table, index: int) -> int:
    return max(map(width_of, [clean(table.columns[index].title), *_texts(table, index)]))


def _least(table: Table, index: int, natural: int) -> int:
    """Width that keeps figures on one line, headers in whole words and text readable."""
    column = table.columns[index]
    words = max(map(width_of, clean(column.title).split(" ")))
    if column.right:
        return max([words, *map(width_of, _texts(table, index))])
    return min(natural, max(words, column.least))


def _stacked(table: Table, width: int) -> Iterator[Line]:
    """One block per row: a line for each column."""
    for number, row in enumerate(table.rows):
        if number:
            yield []
        yield from _block(table, row, width)


def _block(table: Table, row: Row, width: int) -> Iterator[Line]:
    for column, cell in zip(table.columns, row.cells, strict=True):
        if column.hidden or not cell.text:
            continue
        value = f"{cell.text} ({cell.detail})" if cell.detail else cell.text
        yield from _hanging(f"{clean(column.title) or '-'}:", "head", (value,), width)
    if row.note:
        yield from ([(f"  {line}", "faint")] for line in fold(row.note, width - 2))

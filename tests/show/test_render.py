"""Whatever a document says, it fits the width, stays text, and stays the same as data."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peft_shop.show.documents import Cell, Column, Document, Item, Listing, Row, Table, clean, label
from peft_shop.show.markup import html, markdown
from peft_shop.show.tables import csv_text, json_text, records
from peft_shop.show.terminal import fold, renderables, text, width_of

few = settings(max_examples=40, deadline=None, derandomize=True)

EVIL = "<script>alert(1)</script> & \"'`|*_[x](y) \x1b[31m\x07\u202e"
TEXTS = st.text(
    st.characters(codec="utf-8", categories=("L", "N", "P", "S", "Z", "Cc")), max_size=60
)
WORDS = st.text("abcxyz0189 /-_=.,%`|<>&*漢字é", max_size=60)


@st.composite
def tables(draw: st.DrawFn, texts: st.SearchStrategy[str] = WORDS) -> Table:
    columns = draw(
        st.lists(
            st.builds(
                Column,
                key=st.just(""),
                title=texts,
                right=st.booleans(),
                priority=st.integers(0, 3),
                least=st.integers(1, 40),
                hidden=st.booleans(),
            ),
            min_size=1,
            max_size=6,
        )
    )
    columns = [replace(column, key=f"k{place}") for place, column in enumerate(columns)]
    cell = st.builds(Cell, text=texts, value=st.none() | st.integers() | texts, detail=texts)
    row = st.builds(Row, cells=st.tuples(*[cell] * len(columns)), note=texts)
    rows = draw(st.lists(row, max_size=4))
    return Table("t", draw(texts), tuple(columns), tuple(rows))


def documents(texts: st.SearchStrategy[str] = WORDS) -> st.SearchStrategy[Document]:
    several = st.lists(texts, max_size=3).map(tuple)
    item = st.builds(Item, label=texts, texts=several)
    listing = st.builds(Listing, title=texts, items=st.lists(item, max_size=3).map(tuple))
    return st.builds(
        Document,
        title=texts,
        paragraphs=several,
        parts=st.lists(tables(texts) | listing, max_size=3).map(tuple),
        warnings=several,
        footnotes=several,
    )


def squeezed(words: str) -> str:
    return "".join(words.split())


# --- text ---


@few
@given(WORDS, st.integers(2, 50), st.integers(0, 20))
def test_folding_keeps_the_text_and_the_width(words: str, width: int, offset: int) -> None:
    lines = fold(words, width, offset=min(offset, width))
    assert all(width_of(line) <= width for line in lines)
    assert not lines or width_of(lines[0]) <= width - min(offset, width) or not lines[0]
    assert squeezed("".join(lines)) == squeezed(words)


def test_names_are_folded_at_their_separators() -> None:
    assert fold("lora/llama-3.2-3B-rank64-rslora", 20) == ["lora/llama-3.2-3B-", "rank64-rslora"]


def test_a_number_keeps_its_unit_beside_it() -> None:
    assert fold("leads by 97 % today", 11) == ["leads by", "97 % today"]
    assert fold("needs 21.01 GiB", 13) == ["needs", "21.01 GiB"]


@few
@given(documents(), st.integers(20, 130))
def test_no_line_is_wider_than_the_terminal(document: Document, width: int) -> None:
    for line in text(document, width).splitlines():
        assert width_of(line) <= width


@few
@given(documents(TEXTS))
def test_text_has_no_control_characters(document: Document) -> None:
    shown = text(document, 60)
    assert all(clean(line) == line for line in shown.split("\n"))


@few
@given(documents(), st.integers(20, 130))
def test_colour_changes_nothing_but_the_colour(document: Document, width: int) -> None:
    from rich.text import Text

    def trimmed(shown: str) -> list[str]:
        return [line.rstrip() for line in shown.strip().split("\n")]

    plain = text(document, width)
    assert trimmed(Text.from_ansi(text(document, width, colour=True)).plain) == trimmed(plain)
    (shown,) = renderables(document, width)
    assert trimmed(shown.plain) == trimmed(plain)


def test_rich_is_loaded_only_for_colour() -> None:
    code = (
        "import sys\nfrom peft_shop.show.documents import Document\n"
        "from peft_shop.show.markup import html, markdown\n"
        "from peft_shop.show.terminal import text\n"
        "document = Document('x')\ntext(document), html(document), markdown(document)\n"
        "print('rich' in sys.modules, end=' ')\n"
        "text(document, colour=True)\nprint('rich' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]


def test_text_never_becomes_rich_markup() -> None:
    document = Document("[bold red]x[/] [link=evil]y[/link]")
    assert "[bold red]x[/] [link=evil]y[/link]" in text(document, colour=True)


@few
@given(tables(), st.integers(40, 130))
def test_columns_of_priority_zero_are_never_left_out(table: Table, width: int) -> None:
    shown = squeezed(text(Document("", parts=(table,)), width))
    for row in table.rows:
        for column, cell in zip(table.columns, row.cells, strict=True):
            if not column.hidden and not column.priority and len(cell.text) < 6 and cell.text:
                assert squeezed(cell.text) in shown


def test_a_narrow_terminal_loses_the_least_important_column_first() -> None:
    columns = (
        Column("a", "Alpha"),
        Column("b", "Beta", priority=1),
        Column("c", "Gamma", priority=2),
    )
    table = Table("t", "", columns, (Row((label("x" * 20), label("y" * 20), label("z" * 20))),))
    document = Document("", parts=(table,))
    assert [name in text(document, 80) for name in ("Alpha", "Beta", "Gamma")] == [True] * 3
    assert [name in text(document, 50) for name in ("Alpha", "Beta", "Gamma")] == [
        True,
        True,
        False,
    ]
    assert [name in text(document, 30) for name in ("Alpha", "Beta", "Gamma")] == [
        True,
        False,
        False,
    ]


def test_a_table() -> None:
    table = Table(
        "t",
        "Runs",
        (Column("name", "Name"), Column("size", "Size ↓", right=True)),
        (
            Row((Cell("LoRA", "lora", "lora/x"), Cell("21.01 GiB", 1))),
            Row((Cell("IA3", "ia3"), Cell("9.0 GiB", 2)), note="smaller"),
        ),
    )
    assert text(Document("Title", parts=(table,))) == (
        "Title\n"
        "\n"
        "Runs\n"
        "Name       Size ↓\n"
        "─────────────────\n"
        "LoRA    21.01 GiB\n"
        "lora/x\n"
        "IA3       9.0 GiB\n"
        "    smaller\n"
    )
    assert markdown(Document("Title", parts=(table,))) == (
        "## Title\n\n### Runs\n\n"
        "| Name | Size ↓ | Note |\n"
        "| :-- | --: | :-- |\n"
        "| LoRA<br>lora/x | 21.01 GiB |  |\n"
        "| IA3 | 9.0 GiB | smaller |\n"
    )


# --- markup ---


class Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.open: list[str] = []
        self.data = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.data += data


TAGS = {"div", "h4", "h5", "p", "strong", "table", "tr", "th", "td", "br", "span", "ul", "li"}


@few
@given(documents(TEXTS | WORDS | st.just(EVIL)))
def test_html_holds_the_text_and_nothing_but_the_text(document: Document) -> None:
    reader = Reader()
    reader.feed(html(document))
    reader.close()
    assert not reader.open
    assert reader.tags <= TAGS | {"code"}
    assert reader.attributes <= {"style", "class", "colspan"}
    for paragraph in document.paragraphs:
        expected = clean(paragraph).replace("`", "")
        assert squeezed(expected) in squeezed(reader.data.replace("`", ""))


def unescaped_bars(line: str) -> int:
    return line.replace("\\\\", "").replace("\\|", "").count("|")


@few
@given(tables(TEXTS | WORDS | st.just(EVIL)))
def test_a_markdown_table_keeps_its_columns(table: Table) -> None:
    shown = markdown(Document("T", parts=(table,)))
    lines = [line for line in shown.split("\n") if line.startswith("| ")]
    if all(column.hidden for column in table.columns):
        assert not lines
        return
    assert len(lines) == len(table.rows) + 2
    assert len({unescaped_bars(line) for line in lines}) == 1


def test_markdown_cannot_hold_html() -> None:
    shown = markdown(Document(EVIL, (EVIL,), (Listing(EVIL, (Item(EVIL, (EVIL,)),)),), (EVIL,)))
    assert "<script" not in shown
    assert "[x]" not in shown.replace("\\[x\\]", "")
    assert "\x1b" not in shown


def test_a_bar_inside_code_does_not_end_the_cell() -> None:
    table = Table("t", "", (Column("a", "A"),), (Row((label("use `x|y`"),)),))
    assert "| use `x\\|y` |" in markdown(Document("T", parts=(table,)))


# --- data ---


@few
@given(st.lists(st.dictionaries(st.just("a"), st.integers() | TEXTS, min_size=1), min_size=1))
def test_csv_is_read_back(rows: list[dict[str, int | str]]) -> None:
    back = list(csv.DictReader(io.StringIO(csv_text(rows), newline="")))
    assert len(back) == len(rows)
    for mine, theirs in zip(rows, back, strict=True):
        expected = str(mine["a"])
        assert theirs["a"].removeprefix("'") in {clean(expected), clean(expected).removeprefix("'")}


@pytest.mark.parametrize("formula", ["=1+1", "+1", "-1", "@x", "\tx"])
def test_csv_text_is_no_formula(formula: str) -> None:
    assert csv_text([{"a": formula}]).splitlines()[1].startswith(("'", "\"'"))


def test_numbers_stay_numbers() -> None:
    assert csv_text([{"a": -1, "b": 0.5, "c": None, "d": True}]) == "a,b,c,d\n-1,0.5,,true\n"


def test_records_have_every_column_with_a_key() -> None:
    table = Table("t", "", (Column("a"), Column("", "x"), Column("b", hidden=True)), ())
    row = Row((Cell("1", 1), Cell("text", "text"), Cell("", None)))
    assert records(replace(table, rows=(row,))) == [{"a": 1, "b": None}]


def test_json_refuses_what_is_not_finite() -> None:
    assert json.loads(json_text({"é": [1]})) == {"é": [1]}
    with pytest.raises(ValueError, match="JSON compliant"):
        json_text(float("nan"))

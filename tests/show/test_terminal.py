"""How text is laid out: lines are full, columns go and fold at their widths, and styles stay."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peft_shop.show.documents import Cell, Column, Document, Item, Listing, Row, Table, label
from peft_shop.show.terminal import document_lines, fold, rich_lines, text, width_of

few = settings(max_examples=30, deadline=None, derandomize=True)
PLAIN = st.lists(st.text("abcxyz", min_size=1, max_size=9), min_size=1, max_size=12)


@pytest.mark.parametrize(
    ("word", "columns"),
    [("", 0), ("abc", 3), ("é", 1), ("e\u0301", 1), ("漢字", 4), ("a漢", 3), ("\uff21", 2)],
)
def test_columns_of_a_word(word: str, columns: int) -> None:
    assert width_of(word) == columns


@few
@given(PLAIN, st.integers(9, 40), st.integers(0, 9))
def test_every_line_is_as_full_as_it_can_be(words: list[str], width: int, offset: int) -> None:
    lines = fold(" ".join(words), width, offset=offset)
    filled: list[str] = []
    room = width - offset
    for word in words:  # the same by hand: a word goes on, or opens a line
        if filled and len(filled[-1]) + bool(filled[-1]) + len(word) <= room:
            filled[-1] += f" {word}" if filled[-1] else word
        elif not filled and len(word) <= room:
            filled.append(word)
        else:
            filled += [word] if filled or not offset else ["", word]
            room = width
    assert lines == filled


@few
@given(st.integers(1, 60), st.integers(2, 30))
def test_a_word_without_separators_fills_its_lines(length: int, width: int) -> None:
    assert [len(line) for line in fold("x" * length, width)] == [
        min(width, length - start) for start in range(0, length, width)
    ]
    wide = fold("漢" * length, width)
    assert all(width_of(line) == width // 2 * 2 for line in wide[:-1])


def test_a_document_whole() -> None:
    columns = (Column("a", "Name"), Column("b", "Size", right=True), Column("c", "x", hidden=True))
    rows = (
        Row((Cell("one", detail="more"), Cell("9.0 GiB"), Cell("h"))),
        Row((label("two"), label("1"), label("h")), note="of two"),
    )
    document = Document(
        "Title",
        ("First.", "Second."),
        (
            Listing("Remarks", (Item("why", ("because", "and so")), Item("", ("bare",)))),
            Table("t", "Rows", columns, rows),
            Table("e", "None", columns, ()),
        ),
        ("heed this",),
        ("a note",),
    )
    assert text(document, 60) == (
        "Title\n\nFirst.\n\nSecond.\n\nCareful: heed this\n\nRemarks\n"
        "  why because\n    and so\n  - bare\n\nRows\n"
        "Name     Size\n─────────────\none   9.0 GiB\nmore\ntwo         1\n    of two\n\n"
        "None\n  (none)\n\na note\n"
    )
    lines = document_lines(document, 60)
    styles = {piece.strip(): style for line in lines for piece, style in line if piece.strip()}
    assert {name: styles[name] for name in ("Title", "Careful:", "First.", "a note")} == {
        "Title": "title",
        "Careful:": "careful",
        "First.": "",
        "a note": "faint",
    }
    assert {styles[name] for name in ("Remarks", "why", "-", "Rows", "Name")} == {"head"}
    assert {styles[name] for name in ("more", "of two", "(none)", "─" * 13)} == {"faint"}
    assert {styles[name] for name in ("one", "9.0 GiB", "because", "and so")} == {""}


@pytest.mark.parametrize(
    ("style", "shown"),
    [("title", "bold"), ("head", "bold"), ("faint", "dim"), ("careful", "bold yellow"),
     ("good", "green")],
)  # fmt: skip
def test_every_style_has_its_look(style: str, shown: str) -> None:
    whole = rich_lines([[("plain ", ""), ("word", style)], [("below", "")]])
    assert whole.plain == "plain word\nbelow"
    assert [(span.start, span.end, str(span.style)) for span in whole.spans] == [(6, 10, shown)]


@pytest.mark.parametrize("width", [20, 39, 40, 41, 60])
def test_a_listing_is_indented_where_there_is_room(width: int) -> None:
    item = Item("word " * 30, ("text " * 30,))
    lines = text(Document("", parts=(Listing("", (item,)),)), width).splitlines()
    lines = [line for line in lines if line]
    indent = "  " if width > 40 else ""
    heads = [line for line in lines if "word" in line]
    below = [line for line in lines if "text" in line]
    assert all(line.startswith(f"{indent}word") for line in heads)
    assert all(line.startswith(f"{indent}  text") for line in below)
    for full in (heads[:-1], below[:-1]):  # one more word would not fit
        assert all(width - 5 < len(line) <= width for line in full)


@pytest.mark.parametrize(("lead", "alone"), [(8, False), (9, False), (10, True), (19, True)])
def test_a_long_head_has_a_line_of_its_own(lead: int, alone: bool) -> None:
    item = Item("h" * lead, ("text",))
    lines = text(Document("", parts=(Listing("", (item,)),)), 20).split()
    shown = text(Document("", parts=(Listing("", (item,)),)), 20)
    assert lines == ["h" * lead, "text"]
    assert (f"{'h' * lead}\n  text\n" in shown) == alone
    assert (f"{'h' * lead} text\n" in shown) != alone


def laid(columns: tuple[Column, ...], cells: tuple[str, ...], width: int) -> list[str]:
    table = Table("t", "", columns, (Row(tuple(Cell(cell) for cell in cells)),))
    return text(Document("", parts=(table,)), width).splitlines()


@few
@given(st.lists(st.integers(8, 20), min_size=2, max_size=4))
def test_a_column_goes_exactly_where_it_no_longer_fits(sizes: list[int]) -> None:
    columns = tuple(
        Column(f"k{place}", f"c{place}", right=True, priority=place)
        for place, _ in enumerate(sizes)
    )
    cells = tuple("1" * size for size in sizes)
    for count in range(len(sizes), 1, -1):
        needed = sum(sizes[:count]) + 2 * (count - 1)
        for width in (needed, needed - 1):
            if width < 20:
                continue
            head, *_ = laid(columns, cells, width)
            left = count - (width < needed)
            if sizes[0] <= width:
                assert head.split() == [f"c{place}" for place in range(left)]


@pytest.mark.parametrize("right", [True, False])
def test_a_table_that_fits_in_no_way_is_written_in_blocks(right: bool) -> None:
    columns = (
        Column("a", "First", right=right, least=14),
        Column("b", "Next", right=right, least=14),
    )
    cells = ("x" * 14, "y" * 14)
    assert laid(columns, cells, 30)[-1] == "  ".join(cells)
    assert laid(columns, cells, 29) == [f"First: {cells[0]}", f"Next: {cells[1]}"]
    table = Table(
        "t", "", (*columns, Column("c", "Z", hidden=True)),
        (
            Row((Cell(cells[0], detail="more"), Cell(""), Cell("z"))),
            Row((Cell("x"), Cell(cells[1]), Cell("z")), note="noted"),
        ),
    )  # fmt: skip
    assert text(Document("", parts=(table,)), 29) == (
        f"First: {cells[0]} (more)\n\nFirst: x\nNext: {cells[1]}\n  noted\n"
    )


@few
@given(st.integers(20, 90), st.lists(st.integers(1, 40), min_size=1, max_size=4))
def test_room_is_used_and_never_more_than_needed(width: int, sizes: list[int]) -> None:
    columns = tuple(Column(f"k{place}", "t", least=3) for place, _ in enumerate(sizes))
    lines = laid(columns, tuple("x" * size for size in sizes), width)
    (rule,) = [line for line in lines if line.startswith("─")]
    assert len(rule) == min(width, sum(sizes) + 2 * (len(sizes) - 1))

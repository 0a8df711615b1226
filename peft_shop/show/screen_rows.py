"""Rows of the first screen: names whole, figures beside or below them as the width allows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from peft_shop.ask.places import Unmeasured
from peft_shop.errors import UnknownNameError
from peft_shop.show.documents import clean
from peft_shop.show.overview import all_metrics, figure_text, header
from peft_shop.show.terminal import fold, width_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from peft_shop.ask.recommendation import Recommendation
    from peft_shop.catalog.benchmarks import Metric
    from peft_shop.show.overview import Entry
    from peft_shop.show.terminal import Line

__all__ = ["COLUMNS", "Figures", "row_lines"]

COLUMNS: Final = {
    "score": "",
    "memory": "peak_memory",
    "file": "checkpoint_size",
    "serving": "",
    "again": "",
}
"""Columns of the first screen by the names that people type, and their metrics."""
_GAP: Final = "  "
_INDENT: Final = "   "
_LEAST_TITLE: Final = 16
_STYLES: Final = {"direct": "good", "none": "faint", "unknown": "faint"}


class Figures:
    """The columns of figures, with the widths that their contents need."""

    def __init__(
        self,
        answer: Recommendation,
        shown: Sequence[Entry],
        width: int,
        wanted: Sequence[str] = (),
    ) -> None:
        self.answer, self.width = answer, width
        columns = _columns(answer, wanted)
        self.names = list(columns)
        self.metrics = columns
        self.further: list[str] = []
        while True:
            self.sizes = {name: self._size(name, shown) for name in self.names}
            self.total = sum(self.sizes.values()) + len(_GAP) * (len(self.names) - 1)
            room = width - len(_INDENT) - self.total
            extra = [name for name in self.names if name not in COLUMNS]
            if room >= 0 or not extra:
                break
            # what has no room beside the others stands behind the name
            self.names.remove(extra[-1])
            self.further.insert(0, extra[-1])
        self.beside = room - len(_GAP) >= _LEAST_TITLE
        self.room = room - len(_GAP) if self.beside else width - len(_INDENT)

    def _size(self, name: str, shown: Sequence[Entry]) -> int:
        return max([width_of(self.title(name)), *(width_of(self.text(name, one)) for one in shown)])

    def title(self, name: str) -> str:
        """Header of a column."""
        metric = self.metrics[name]
        return clean(header(metric)) if metric is not None else name.capitalize()

    def text(self, name: str, entry: Entry) -> str:
        """What a column says of an entry."""
        metric = self.metrics[name]
        if metric is not None:
            return figure_text(entry.one, metric)
        return entry.serving if name == "serving" else entry.again

    def head(self, title: str) -> list[Line]:
        """The headers."""
        cells = [self._padded(name, self.title(name)) for name in self.names]
        figures = _GAP.join(cells)
        if self.total + len(_INDENT) > self.width:
            return [[(title, "head")]]
        label = f"{_INDENT}{title}"
        if self.beside:
            return [[(f"{label:<{self.width - self.total}}{figures}"[: self.width], "head")]]
        return [[(_INDENT + figures, "head")]]

    def _padded(self, name: str, text: str) -> str:
        pad = " " * (self.sizes[name] - width_of(text))
        return text + pad if name == "serving" else pad + text

    def cells(self, entry: Entry) -> Line:
        """The figures of an entry on one line."""
        pieces: Line = []
        for place, name in enumerate(self.names):
            text = self.text(name, entry)
            gap = _GAP if place else ""
            style = _STYLES.get(text, "") if name == "serving" else ""
            pieces.append((gap + self._padded(name, text), style))
        return pieces

    def folded(self, entry: Entry) -> list[Line]:
        """The figures of an entry with their headers, where they have no room in columns."""
        named = [f"{self.title(name)}\xa0{self.text(name, entry)}" for name in self.names]
        return [[(_INDENT + line, "")] for line in fold(", ".join(named), self.width - 3)]

    def aside(self, entry: Entry) -> str:
        """What has no column, behind the name."""
        if not self.further:
            return ""
        texts = [f"{self.title(name).lower()} {self.text(name, entry)}" for name in self.further]
        return ", ".join(texts)


def _columns(answer: Recommendation, wanted: Sequence[str]) -> dict[str, Metric | None]:
    """Columns by name: the usual ones and what else is asked about, or those that are named."""
    by_id = {metric.id: metric for metric in answer.metrics}
    headline = answer.benchmark.headline
    known: dict[str, Metric | None] = {
        "score": by_id[headline],
        "memory": by_id.get("peak_memory"),
        "file": by_id.get("checkpoint_size"),
    }
    known = {name: metric for name, metric in known.items() if metric is not None}
    usual = {headline, "peak_memory", "checkpoint_size"}
    last: dict[str, Metric | None] = {"serving": None, "again": None}
    if not wanted:
        further = {metric.id: metric for metric in all_metrics(answer) if metric.id not in usual}
        return {**known, **further, **last}
    metrics: dict[str, Metric | None] = {}
    for given in wanted:
        name = given.strip().lower().replace("-", "_")
        if name in known or name in last:
            metrics[name] = known.get(name)
        elif name in by_id:
            metrics[name] = by_id[name]
        else:
            raise UnknownNameError("column", given, [*known, *last, *by_id], keyword="columns")
    return metrics


def row_lines(figures: Figures, entry: Entry, *, named: bool = True) -> list[Line]:
    """An entry: its place, title, figures and name, in two lines; three where it is narrow."""
    place = f"{entry.rank:>2} " if entry.rank is not None else _INDENT
    if figures.total + len(_INDENT) > figures.width:
        start = [(place + (entry.short if named else _cut(entry.title, figures.width - 3)), "head")]
        return [start, *figures.folded(entry)]
    aside = figures.aside(entry)
    if figures.beside:
        title = _cut(_title(figures, entry), figures.room)
        padding = " " * (figures.room + len(_GAP) - width_of(title))
        first: Line = [(place + title + padding, ""), *figures.cells(entry)]
        if not named or isinstance(entry.one, Unmeasured):
            return [first]
        return [first, *_second(_INDENT, entry.short, aside, figures.width)]
    title = _cut(entry.title, figures.room)
    if not named or isinstance(entry.one, Unmeasured):
        start_line: Line = [(place + title, "")]
        return [start_line, [(_INDENT, ""), *figures.cells(entry)]]
    lines = _second(place, entry.short, aside or title, figures.width)
    return [*lines, [(_INDENT, ""), *figures.cells(entry)]]


def _second(indent: str, name: str, aside: str, width: int) -> list[Line]:
    """The name, and what stands behind it where there is room."""
    line: Line = [(indent + name, "faint")]
    if aside and width_of(indent + name + _GAP + aside) <= width:
        line.append((_GAP + aside, ""))
    elif aside and any(character.isdigit() for character in aside):
        return [line, *([(_INDENT + text, "")] for text in fold(aside, width - len(_INDENT)))]
    return [line]


def _title(figures: Figures, entry: Entry) -> str:
    """The title; that of the method alone where the whole has no room."""
    if width_of(entry.title) <= figures.room or isinstance(entry.one, Unmeasured):
        return entry.title
    if entry.title.startswith("Plain LoRA"):
        return "Plain LoRA"
    method = figures.answer.catalog.method_by_id.get(entry.one.method)
    return entry.title if method is None else method.title


def _cut(text: str, room: int) -> str:
    """Text on one line of at most `room` columns."""
    text = clean(text)
    if width_of(text) <= room:
        return text
    while text and width_of(text) > room - 3:
        text = text[:-1]
    return text.rstrip() + "..."

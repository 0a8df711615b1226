"""The first screen of an answer: at most 25 lines, whatever was asked.

Best runs with what they score, need and leave behind, how they are served and how sure their place
is; plain LoRA beside them; what speaks against them; what to do next. Everything else has a flag.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from shlex import quote, split
from typing import TYPE_CHECKING, Final

from peft_shop.show.cautions import USUAL, cautions
from peft_shop.show.documents import clean
from peft_shop.show.model_lines import model_lines, serving_lines, training_lines
from peft_shop.show.naming import in_short
from peft_shop.show.overview import (
    advised,
    entries,
    objectives_of,
    versus_yardstick,
    yardsticks,
)
from peft_shop.show.questions import demands
from peft_shop.show.screen_rows import Figures, row_lines
from peft_shop.show.terminal import fold

if TYPE_CHECKING:
    from collections.abc import Sequence

    from peft_shop.ask.recommendation import Recommendation
    from peft_shop.show.overview import Entry
    from peft_shop.show.terminal import Line

__all__ = ["LINES", "Screen", "first_screen", "summary"]

LINES: Final = 25
"""Lines of the first screen."""
_ROWS: Final = 5
_LEAST_ROWS: Final = 3
_CAREFUL: Final = 2
"""Lines of cautions; more where a model brings more to know, as far as there is room."""
_CAREFUL_ON_MODEL: Final = 5
_NARROW: Final = 76
_AGAIN: Final = {
    "rerun": "(±, again: if all ran again)",
    "questions": "(±, again: on other questions)",
}
"""What the last column and the deviations are about."""
_MORE: Final = "--why --ties --left-out --sure --all"


@dataclass(frozen=True, slots=True)
class Screen:
    """What the first screen shows.

    Attributes:
        width: of the terminal [characters].
        limit: most rows; by default five, and fewer where the lines do not suffice.
        columns: figures to show, by name; the usual ones where empty.
        remarks: said below the title.
        cautions: told before all others.
        next: a command line to go on with.
        more: flags that tell more.
    """

    width: int = 80
    limit: int | None = None
    columns: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    cautions: tuple[str, ...] = ()
    next: str | None = None
    more: str = field(default=_MORE)


def first_screen(recommendation: Recommendation, screen: Screen = Screen()) -> list[Line]:
    """Lines of the first screen, each of pieces with their styles; at most `LINES`.

    Only what the user sets makes it longer or wider: a limit of rows, or a name that is longer
    than the terminal is wide.
    """
    return _Writer(recommendation, screen).lines()


class _Writer:
    """Blocks of lines, put together so that they fit."""

    def __init__(self, recommendation: Recommendation, screen: Screen) -> None:
        self.answer = recommendation
        self.screen = screen
        self.width = max(screen.width, 20)
        self.objectives = objectives_of(recommendation)
        self.entries = entries(recommendation)
        self.yardsticks = yardsticks(recommendation)

    def lines(self) -> list[Line]:
        head, tail = self._head(), self._next()
        careful_most = _CAREFUL if self.answer.query.model is None else _CAREFUL_ON_MODEL
        if self.screen.limit is not None:
            wanted = self.screen.limit
            blocks = [head, *self._table(wanted), self._judged(wanted, careful_most), tail]
            return _joined(blocks, LINES + 2 * wanted)
        most = min(_ROWS, len(self.entries))
        least = min(_LEAST_ROWS, len(self.entries))
        plans = [(rows, _CAREFUL) for rows in range(most, least - 1, -1)]
        if careful_most > _CAREFUL:
            more = range(careful_most, _CAREFUL, -1)
            plans = [(rows, c) for c in more for rows in range(most, least - 1, -1)] + plans
        plans += [(rows, 1) for rows in range(least, -1, -1)]
        for full in (True, False):
            for rows, careful in plans:
                table = self._table(rows, yardsticks=len(self.yardsticks) if full else 1)
                blocks = [head, *table, self._judged(rows, careful), tail]
                if sum(map(len, blocks)) + _gaps(blocks, LINES) <= LINES:
                    return _joined(blocks, LINES)
        return _joined([head, self._judged(0, 1), tail], LINES)[:LINES]

    # --- blocks ---

    def _head(self) -> list[Line]:
        answer = self.answer
        lines: list[Line] = [[(line, "title")] for line in self._fold(_title(answer))]
        asked = demands(answer)
        if asked:
            lines += self._plain(f"Asked: {'; '.join(asked)}", most=2)
        lines += self._plain(_counts(answer))
        for caveat in answer.benchmark.caveats:
            lines += self._plain(caveat, most=2)
        for remark in self.screen.remarks:
            lines += self._plain(remark, most=2)
        for text in model_lines(answer, self.entries):
            lines += self._plain(in_short(answer.catalog, text), most=4)
        return lines

    def _table(self, rows: int, *, yardsticks: int = 2) -> list[list[Line]]:
        """The rows, and the yardsticks below them."""
        answer = self.answer
        if not self.entries:
            return [self._nothing(), *self._reference(yardsticks)]
        figures = self._figures(rows)
        head = "Best" if answer.front else "Too close to call" if answer.too_close else "Works"
        lines = figures.head(head)
        for entry in self.entries[:rows]:
            lines += row_lines(figures, entry)
        rest = self.entries[rows:]
        if rest:
            lines.append([(self._rest(rest), "")])
        return [lines, *self._reference(yardsticks, figures)]

    def _figures(self, rows: int) -> Figures:
        shown = (*self.entries[:rows], *self.yardsticks)
        return Figures(self.answer, shown, self.width, self.screen.columns)

    def _reference(self, count: int, figures: Figures | None = None) -> list[list[Line]]:
        below = self.yardsticks[:count]
        if not below:
            return []
        table = figures or Figures(self.answer, below, self.width, self.screen.columns)
        lines: list[Line] = [] if figures else table.head("For orientation")
        for entry in below:
            lines += row_lines(table, entry, named=False)
        return [lines]

    def _nothing(self) -> list[Line]:
        """Why there is nothing, and what would change that."""
        answer = self.answer
        texts = []
        if answer.nothing_fits is None:
            texts.append("Nothing meets the constraints." if answer.relaxations else "Nothing.")
        texts += [f"- {relaxation.suggestion}" for relaxation in answer.relaxations]
        lines: list[Line] = []
        for place, text in enumerate(texts):
            folded = fold(in_short(answer.catalog, text), self.width - 2)
            if len(lines) + len(folded) > 8 and place:
                lines.append([(f"+ {len(texts) - place} more: --left-out", "faint")])
                break
            lines += [[(("  " if k else "") + line, "")] for k, line in enumerate(folded)]
        return lines

    def _rest(self, rest: Sequence[Entry]) -> str:
        """The rest of the front in one line, as many names as fit."""
        names = [entry.title for entry in rest]
        start = f"   + {len(rest)} more: "
        text = start + ", ".join(names)
        while len(clean(text)) > self.width and len(names) > 1:
            names.pop()
            text = f"{start}{', '.join(names)}, ... (--all)"
        text = clean(text)
        return text if len(text) <= self.width else f"   + {len(rest)} more: --all"

    def _judged(self, rows: int, careful: int) -> list[Line]:
        shown = self.entries[: rows or len(self.entries)]
        lines: list[Line] = []
        sentence = versus_yardstick(self.answer, shown, self.objectives)
        if sentence:
            lines += self._plain(sentence, most=2)
        lines += self._careful(shown, careful)
        best = advised(shown, self._warned(shown))
        for text in (*serving_lines(self.answer, best), *training_lines(best)):
            lines += self._plain(in_short(self.answer.catalog, text), most=1)
        return lines

    def _careful(self, shown: Sequence[Entry], most: int) -> list[Line]:
        """The gravest cautions that `most` lines hold, and how many more there are."""
        warnings = cautions(self.answer, shown, self.objectives)
        texts = [one.text for one in warnings if one.gravity < USUAL]
        texts = [*self.screen.cautions, *texts]
        texts = [in_short(self.answer.catalog, text) for text in texts]
        for count in range(len(texts), 0, -1):
            rest = len(texts) - count
            tail = f" {rest} more: --sure." if rest else ""
            folded = fold(f"Careful: {'; '.join(texts[:count])}.{tail}", self.width)
            if len(folded) <= most:
                return _careful_lines(folded)
        if not texts:
            return []
        # not even the gravest fits: its beginning, which tells what it is about
        tail_text = f" ... {len(texts)} to know: --sure"
        kept = fold(f"Careful: {texts[0]}", self.width)[:most]
        while len(kept[-1]) + len(tail_text) > self.width and " " in kept[-1]:
            kept[-1] = kept[-1].rpartition(" ")[0]
        return _careful_lines([*kept[:-1], kept[-1] + tail_text])

    def _warned(self, shown: Sequence[Entry]) -> list[str]:
        warnings = cautions(self.answer, shown, self.objectives)
        return [name for caution in warnings for name in caution.about]

    def _next(self) -> list[Line]:
        lines: list[Line] = []
        if self.screen.next:
            lines += _command(self.screen.next, self.width)
        # the gap behind the first word is no place to fold at
        more = fold(f"More\xa0\xa0{self.screen.more}", self.width)
        if any(entry.rank is not None for entry in self.entries):
            more = fold(
                f"More\xa0\xa0{self.screen.more}\xa0\xa0{_AGAIN[self.answer.query.certainty]}",
                self.width,
            )
        return [*lines, *([(line, "faint")] for line in more)]

    # --- lines ---

    def _fold(self, text: str) -> list[str]:
        return fold(text, self.width)

    def _plain(self, text: str, *, most: int | None = None) -> list[Line]:
        folded = self._fold(text)
        if most is not None and len(folded) > most:
            folded = folded[:most]
            while len(folded[-1]) > self.width - 4 and " " in folded[-1]:
                folded[-1] = folded[-1].rpartition(" ")[0]
            folded[-1] = f"{folded[-1][: self.width - 4]} ..."
        return [[(line, "")] for line in folded]


def _careful_lines(folded: Sequence[str]) -> list[Line]:
    head = "Careful:"
    first = folded[0].removeprefix(head)
    return [[(head, "careful"), (first, "")], *([(line, "")] for line in folded[1:])]


def _command(line: str, width: int) -> list[Line]:
    """A command that can be copied: broken between its words, as a shell takes it."""
    words: list[str] = []
    for word in map(quote, split(line)):
        # an option stays beside its value
        if words and words[-1].startswith("-") and " " not in words[-1] and word[0] != "-":
            words[-1] += f" {word}"
        else:
            words.append(word)
    rows = [f"Next  {words[0]}"]
    for word in words[1:]:
        if len(rows[-1]) + len(word) + 3 <= width:
            rows[-1] += f" {word}"
        else:
            rows.append(f"        {word}")
    return [[(row + (" \\" if k < len(rows) - 1 else ""), "")] for k, row in enumerate(rows)]


def _gaps(blocks: Sequence[Sequence[Line]], most: int) -> int:
    """Empty lines between the blocks: where there is room; one there is always."""
    full = sum(bool(block) for block in blocks) - 1
    free = most - sum(map(len, blocks))
    return min(full, max(free, 0))


def _joined(blocks: Sequence[Sequence[Line]], most: int) -> list[Line]:
    gaps = _gaps(blocks, most)
    lines: list[Line] = []
    for block in blocks:
        if not block:
            continue
        if lines and gaps:
            lines.append([])
            gaps -= 1
        lines += block
    return lines


# --- words ---


def summary(answer: Recommendation) -> tuple[str, ...]:
    """What was asked and how many there are of what: title, demands, counts, caveats."""
    asked = demands(answer)
    texts = (_title(answer), f"Asked: {'; '.join(asked)}" if asked else "", _counts(answer))
    return (*filter(None, texts), *answer.benchmark.caveats)


def _title(answer: Recommendation) -> str:
    query = answer.query
    if not query.ranked and query.model is not None:
        return f"{query.model.name}: methods that work on it, without a ranking"
    goals = [
        f"{'most' if metric.better == 'higher' else 'least'} {metric.label}"
        for metric in objectives_of(answer)
    ]
    aim = goals[0] if len(goals) == 1 else f"{goals[0]} for {' and '.join(goals[1:])}"
    where = answer.benchmark.model_id.rpartition("/")[2]
    return f"{answer.benchmark.title} on {where}: {aim}"


def _counts(answer: Recommendation) -> str:
    kept = (
        (len(answer.front), "best"),
        (len(answer.ties), "as good within noise"),
        (len(answer.dominated), "beaten"),
        (len(answer.too_close), "too close to call"),
    )
    texts = [f"{count} {word}" for count, word in kept if count]
    if not answer.query.ranked:
        return f"{len(answer.unmeasured)} work on it; {len(answer.dropped)} left out"
    text = ", ".join(texts) or "0 best"
    others = [f"{len(answer.dropped)} left out"] if answer.dropped else []
    if answer.unmeasured:
        others.append(f"{len(answer.unmeasured)} never measured here")
    return f"{text}; {', '.join(others)}" if others else text

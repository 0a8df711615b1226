"""An answer as text: the first screen, with sections below it, or everything."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from peft_shop.errors import UnknownNameError
from peft_shop.show.answers import answer_document
from peft_shop.show.naming import briefly
from peft_shop.show.next_steps import next_command
from peft_shop.show.screen import Screen, first_screen
from peft_shop.show.sections import SECTIONS, sections_document
from peft_shop.show.terminal import document_lines, lines_text, text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from peft_shop.ask.recommendation import Recommendation
    from peft_shop.show.terminal import Line

__all__ = ["answer_text", "screen_lines"]

_ALL: Final = "all"


def answer_text(recommendation: Recommendation, sections: Sequence[str], width: int = 80) -> str:
    """See `Recommendation.text`."""
    for name in sections:
        if name not in {*SECTIONS, _ALL}:
            raise UnknownNameError("section", name, [*SECTIONS, _ALL])
    if _ALL in sections:
        document = answer_document(recommendation, everything=True)
        return text(briefly(recommendation.catalog, document), width)
    return lines_text(screen_lines(recommendation, width, sections=sections))


def screen_lines(
    recommendation: Recommendation,
    width: int = 80,
    *,
    sections: Sequence[str] = (),
    screen: Screen | None = None,
) -> list[Line]:
    """Lines of the first screen and of the sections below it.

    Args:
        recommendation: the answer.
        width: of the terminal [characters].
        sections: names of `SECTIONS`.
        screen: what else to show of the answer; its width goes before.
    """
    made = screen or Screen(width=width, next=next_command(recommendation))
    lines = first_screen(recommendation, made)
    if sections:
        lines = [*lines, [], *document_lines(sections_document(recommendation, sections), width)]
    return lines

"""`peft-shop recommend`: the best measured configurations that meet the constraints."""

from dataclasses import replace
from typing import Annotated, Any, Final

import typer

from peft_shop.ask.recommend import recommend as ask
from peft_shop.ask.watching import watched
from peft_shop.cli.opening import Open, check_shown, serve_page
from peft_shop.cli.options import Force, Plot, Several, option, takes
from peft_shop.cli.output import (
    NOTHING_FOUND,
    OK,
    TOO_CLOSE,
    Format,
    Output,
    output,
    terminal_width,
    write_out,
    write_picture,
)
from peft_shop.cli.question import question
from peft_shop.cli.values import split
from peft_shop.errors import MissingExtraError, QueryError
from peft_shop.show.answer_records import answer_records
from peft_shop.show.answers import answer_document
from peft_shop.show.brief import brief_json
from peft_shop.show.documents import Document
from peft_shop.show.naming import briefly
from peft_shop.show.next_steps import next_command, next_commands
from peft_shop.show.overview import entries
from peft_shop.show.printing import screen_lines
from peft_shop.show.progress import progress_bar, waiting
from peft_shop.show.screen import Screen

__all__ = ["recommend"]

_CODES: Final = {True: OK, None: TOO_CLOSE, False: NOTHING_FOUND}
_SHOWN: Final = "What is shown"


def _section(flag: str, text: str) -> Any:
    return typer.Option(flag, help=text, rich_help_panel=_SHOWN)


def shown(
    *,
    why: Annotated[bool, _section("--why", "Also why each is among the best, in a line.")] = False,
    ties: Annotated[
        bool, _section("--ties", "Also what is as good as far as noise lets anyone tell.")
    ] = False,
    left_out: Annotated[
        bool, _section("--left-out", "Also what is left out, by constraint.")
    ] = False,
    sure: Annotated[
        bool, _section("--sure", "Also how sure it is: cautions, seeds, tries, snapshot.")
    ] = False,
    everything: Annotated[
        bool, _section("--all", "All that the answer holds, in place of the first screen.")
    ] = False,
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit",
            min=1,
            help="Most rows. Default: five, or fewer so that 25 lines suffice.",
            rich_help_panel=_SHOWN,
            metavar="N",
        ),
    ] = None,
    columns: Annotated[
        Several,
        option(
            "--columns",
            text="Only these columns: score, memory, file, serving, again or any metric.",
            panel=_SHOWN,
            metavar="NAMES",
        ),
    ] = None,
    quiet: Annotated[
        bool,
        _section("--quiet", "Only the names of the best, one a line; nothing on the error stream."),
    ] = False,
    brief: Annotated[
        bool, _section("--brief", "With --json: at most 4 kB, for programs that read it whole.")
    ] = False,
) -> dict[str, Any]:
    """What of an answer is shown."""
    flags = {"why": why, "ties": ties, "left-out": left_out, "sure": sure}
    return {
        "sections": [name for name, wanted in flags.items() if wanted],
        "everything": everything,
        "limit": limit,
        "columns": split(columns),
        "quiet": quiet,
        "brief": brief,
    }


@takes(question, shown, output)
def recommend(
    asked: dict[str, Any],
    how: dict[str, Any],
    out: Output,
    *,
    plot: Plot = None,
    force: Force = False,
    open_page: Open = False,
) -> None:
    """Find the best measured configurations that meet your constraints.

    Best: no other one is better in one objective without being worse in another.

    The first screen has at most 25 lines; flags such as --why tell the rest.

    With a device every candidate gets a setup that fits: see --fit.

    Example: peft-shop recommend -b metamathqa --max peak_memory=20GiB --merging
    """
    if how["brief"] and out.format is not Format.JSON:
        raise QueryError("--brief is a form of JSON: add --json")
    talks = not how["quiet"]
    with progress_bar("Dry runs", shown=talks) as tell, watched(tell):
        answer = ask(**asked)
    untried = ""
    if asked["model"] is not None:
        try:
            with waiting("Trying the best on the model without its weights", shown=talks):
                answer = answer.preflighted()
        except MissingExtraError as error:
            untried = f"the configurations were not tried on the model: {error}"
            answer = answer.model_copy(update={"warnings": (*answer.warnings, untried)})
    if plot is not None:
        write_picture(answer.plot(), plot, force=force)
    if how["quiet"] and out.format is Format.TABLE:
        write_out("".join(f"{entry.short}\n" for entry in entries(answer)[: how["limit"]]))
        raise typer.Exit(_CODES[answer.surely])
    width = terminal_width()
    lines = None
    if not how["everything"]:
        screen = Screen(
            width=width,
            limit=how["limit"],
            columns=tuple(how["columns"]),
            next=next_command(answer),
            cautions=(untried,) if untried else (),
        )
        lines = screen_lines(answer, width, sections=how["sections"], screen=screen)

    def document() -> Document:
        made = briefly(answer.catalog, answer_document(answer, everything=how["everything"]))
        if not answer.front or out.format is not Format.TABLE:
            return made
        further = f"Next: {' | '.join(next_commands(answer, answer.short(answer.best)))}"
        return replace(made, footnotes=(*made.footnotes, further))

    def whole() -> str:
        if how["brief"]:
            return brief_json(answer, lambda name: next_commands(answer, name))
        return answer.to_json(indent=2) + "\n"

    out.show(document, lines=lines, rows=lambda: answer_records(answer), json=whole)
    if open_page:
        check_shown(answer.catalog, answer.query.benchmark)
        serve_page(answer.catalog, answer.query.to_url(catalog=answer.catalog))
    raise typer.Exit(_CODES[answer.surely])

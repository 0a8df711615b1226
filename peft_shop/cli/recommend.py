"""`peft-shop recommend`: the best measured configurations that meet the constraints."""

from dataclasses import replace
from shlex import quote
from typing import Annotated, Any, Final

import typer

from peft_shop.ask.recommendation import recommend as ask
from peft_shop.ask.watching import watched
from peft_shop.cli.options import takes
from peft_shop.cli.output import NOTHING_FOUND, OK, TOO_CLOSE, Format, Output, output
from peft_shop.cli.question import question
from peft_shop.errors import MissingExtraError
from peft_shop.show.answers import answer_document, answer_records
from peft_shop.show.progress import progress_bar, waiting

__all__ = ["recommend"]

_CODES: Final = {True: OK, None: TOO_CLOSE, False: NOTHING_FOUND}


@takes(question, output)
def recommend(
    asked: dict[str, Any],
    out: Output,
    *,
    everything: Annotated[
        bool,
        typer.Option(
            "--all",
            help="Also list what is dominated and what was dropped.",
            rich_help_panel="Output",
        ),
    ] = False,
) -> None:
    """Find the best measured configurations that meet your constraints.

    Best: no other one is better in one objective without being worse in another.

    Each has its reason, what it gives up, and the probability that it really belongs there.

    With a device every candidate gets a setup that fits: see --fit.

    Example: peft-shop recommend -b metamathqa --max peak_memory=20GiB --merging
    """
    with progress_bar("Dry runs") as tell, watched(tell):
        answer = ask(**asked)
    untried = ""
    if asked["model"] is not None:
        try:
            with waiting("Trying the best on the model without its weights"):
                answer = answer.preflighted()
        except MissingExtraError as error:
            untried = f"the configurations were not tried on the model: {error}"
    document = answer_document(answer, everything=everything)
    if untried:
        document = replace(document, warnings=(*document.warnings, untried))
    if answer.front and out.format is Format.TABLE:
        name = answer.best.name
        model = answer.query.model
        about = "" if model is None else f" -m {quote(model.name)}"
        limit = answer.query.memory
        script = f"snippet {name}{about}"
        if limit is not None and limit.device is not None and answer.query.fit == "auto":
            script += f" --device {quote(limit.text)}"
        further = f"Next: peft-shop why {name}{about} | {script} | config {name}{about}"
        document = replace(document, footnotes=(*document.footnotes, further))
    out.show(
        document,
        rows=answer_records(answer),
        json=lambda: answer.to_json(indent=2) + "\n",
    )
    raise typer.Exit(_CODES[answer.surely])

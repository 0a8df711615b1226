"""`peft-shop why`: where a run or method stands in an answer, and why."""

from typing import Annotated, Any

import typer

from peft_shop.ask.lookup import benchmark_of
from peft_shop.ask.recommendation import recommend as ask
from peft_shop.cli.options import question, takes
from peft_shop.cli.output import Output, output
from peft_shop.show.verdicts import why_document

__all__ = ["why"]


@takes(question, output)
def why(
    asked: dict[str, Any],
    out: Output,
    name: Annotated[
        str, typer.Argument(help="A run, or a method for all its runs.", metavar="NAME")
    ],
) -> None:
    """Tell why a run or method is, or is not, among the best: all constraints that it fails.

    Takes the options of recommend: the answer is about that question.
    """
    asked["benchmark"] = asked["benchmark"] or benchmark_of(asked["catalog"], [name])
    out.show(why_document(ask(**asked), name))

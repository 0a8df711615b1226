"""`peft-shop why`: where a run or method stands in an answer, and why."""

from dataclasses import replace
from typing import Annotated, Any

import typer

from peft_shop.ask.lookup import benchmark_of
from peft_shop.ask.meanings import meaning_of
from peft_shop.ask.reading import resolve_benchmark
from peft_shop.ask.recommend import recommend as ask
from peft_shop.ask.watching import watched
from peft_shop.cli.completion import run_or_method_names
from peft_shop.cli.options import takes
from peft_shop.cli.output import Output, output
from peft_shop.cli.question import question
from peft_shop.errors import QueryError
from peft_shop.show.naming import briefly
from peft_shop.show.progress import progress_bar
from peft_shop.show.verdicts import why_document

__all__ = ["why"]


@takes(question, output)
def why(
    asked: dict[str, Any],
    out: Output,
    name: Annotated[
        str,
        typer.Argument(
            help="A run, a method for all its runs, or a place among the best such as 2.",
            metavar="NAME",
            autocompletion=run_or_method_names,
        ),
    ],
) -> None:
    """Tell why a run or method is, or is not, among the best: all constraints that it fails.

    Takes the options of recommend: the answer is about that question.
    """
    if name.isdigit():
        _by_rank(asked, out, int(name))
        return
    catalog = asked["catalog"]
    asked["benchmark"] = asked["benchmark"] or benchmark_of(catalog, [name])
    place = resolve_benchmark(catalog, asked["benchmark"]) if asked["benchmark"] else None
    meaning = meaning_of(catalog, name, benchmarks=None if place is None else [place.id])
    if meaning.quantization is not None and asked["quantization"] is None:
        asked["quantization"] = meaning.quantization
    with progress_bar("Dry runs") as tell, watched(tell):
        answer = ask(**asked)
    here = catalog.runs_by_benchmark[answer.benchmark.id]
    if meaning.variant is not None and not any(map(meaning.covers, here)):
        raise QueryError(f"no run of {meaning.title} is on file for {answer.benchmark.id}")
    document = why_document(answer, meaning.canonical)
    if meaning.remark:
        document = replace(document, paragraphs=(f"{meaning.remark}.", *document.paragraphs))
    out.show(briefly(catalog, document))


def _by_rank(asked: dict[str, Any], out: Output, rank: int) -> None:
    """The candidate at a place of the front.

    Raises:
        QueryError: there is no such place.
    """
    with progress_bar("Dry runs") as tell, watched(tell):
        answer = ask(**asked)
    if not 1 <= rank <= len(answer.front):
        places = f"1 to {len(answer.front)}" if answer.front else "none"
        raise QueryError(f"there is no place {rank} among the best: {places}")
    member = answer.front[rank - 1]
    out.show(briefly(answer.catalog, why_document(answer, member.name)))

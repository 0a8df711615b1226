"""What to do with an answer next, as command lines."""

from __future__ import annotations

from shlex import quote
from typing import TYPE_CHECKING, Final

from peft_shop.ask.demanding import TRAINER
from peft_shop.ask.meanings import runs_called
from peft_shop.catalog.store import READ_FROM
from peft_shop.errors import ConfigError
from peft_shop.serve.trainers import demanded_trainer
from peft_shop.show.cautions import cautions
from peft_shop.show.overview import advised, entries, objectives_of

if TYPE_CHECKING:
    from peft_shop.ask.recommendation import Recommendation
    from peft_shop.catalog.trainers import Trainer

__all__ = ["next_command", "next_commands"]

_ENDINGS: Final = {"script": "py", "yaml": "yaml", "shell": "sh"}
"""Ends of names of files, by `Trainer.file`."""


def next_command(recommendation: Recommendation) -> str | None:
    """The command that writes the script of the member to go on with; `None` without one.

    Its configuration where no script is written for the question's model.
    """
    shown = entries(recommendation) if recommendation.query.ranked else ()
    warnings = cautions(recommendation, shown, objectives_of(recommendation))
    best = advised(shown, [name for caution in warnings for name in caution.about])
    return None if best is None else next_commands(recommendation, best.short)[0]


def _tool(recommendation: Recommendation) -> tuple[Trainer, str] | None:
    """The trainer that the question names, where it is one alone, and as it names it."""
    named = [
        demanded_trainer(value)[:2]
        for requirement in recommendation.query.requirements
        if requirement.name == TRAINER
        for value in requirement.values
    ]
    if len(named) != 1:
        return None
    name, version = named[0]
    tool = recommendation.catalog.trainer_by_id[name]
    return tool, name if version is None else f"{name}=={version}"


def _writes(recommendation: Recommendation, short: str, trainer: str | None) -> bool:
    """Whether there is a script of a candidate for the question's model, or a trainer's file."""
    chosen = next(
        (one for one in recommendation.candidates if recommendation.short(one) == short), None
    )
    if chosen is None:
        return True  # one of another question, of which nothing is known here
    try:
        chosen.snippet(trainer=trainer)
    except ConfigError:
        return False
    return True


def next_commands(recommendation: Recommendation, short: str) -> tuple[str, ...]:
    """Commands about one candidate of the answer: for its script, its place, its configuration."""
    query = recommendation.query
    if not query.ranked:
        return ()
    about = "" if query.model is None else f" -m {quote(query.model.name)}"
    where = ""
    if len(runs_called(recommendation.catalog, short)) > 1:
        where = f" -b {query.benchmark}"
    file = recommendation.catalog.derived.get(READ_FROM)
    if file is not None:
        where += f" --catalog {quote(file)}"
    script = f"{where}{about}"
    limit = query.memory
    if limit is not None and limit.device is not None and query.fit == "auto":
        script += f" --device {quote(limit.text)}"
    ending = "py"
    written = True
    tool = _tool(recommendation)
    if tool is not None and tool[0].file is not None and _writes(recommendation, short, tool[1]):
        script += f" --trainer {quote(tool[1])}"
        ending = _ENDINGS[tool[0].file]
    elif query.model is not None:
        written = _writes(recommendation, short, None)
    why = f"peft-shop why {short}{where}{about}"
    config = f"peft-shop config {short}{where}{about}"
    if not written:
        return config, why
    return f"peft-shop snippet {short}{script} -o train.{ending}", why, config

"""Reference pages made from the catalog's trainers."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from code_pages import GENERATED, table

from peft_shop.catalog.methods import PLAIN
from peft_shop.catalog.store import load
from peft_shop.catalog.trainers import (
    CONDITIONS,
    HOW,
    RECIPE_FIELDS,
    TRAINER_OPTIONS,
    TRAINER_TOPICS,
)
from peft_shop.serve.trainers import methods_taken, variants_taken
from peft_shop.show.trainers import circumstances, where

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from peft_shop.catalog.trainers import Trainer
    from peft_shop.serve.trainers import Acceptance

VALUES = {
    "yes": "it takes it",
    "own": "it takes it, by code of its own instead of peft's",
    "no": "there is no way to ask for it",
    "reject": "it is refused, with an error",
    "silent": "something else is trained without a word",
    "unknown": "nobody knows; the note says what is known",
}
VERDICTS = {
    "accepts": "all of it is trained, once what is needed is done",
    "partly": "it is trained, but something is lost",
    "no": "it is refused, or there is no way to ask for it",
    "unknown": "nobody tried; it satisfies no demand",
}
_COLUMNS = 7
"""Trainers a table has room for."""


def trainers() -> str:
    """`reference/trainers.md`: what each trainer takes, side by side."""
    catalog = load()
    taken = {
        one.id: {
            found.recipe: found
            for found in (*methods_taken(catalog, one), *variants_taken(catalog, one))
        }
        for one in catalog.trainers
    }
    parts = [
        "# Trainers",
        GENERATED,
        (
            "What the tools that people train with take of peft's methods, read from their code or "
            "tried, at the version given. `peft-shop trainers NAME` shows one, `trainer=` "
            "(`--trainer`) demands one, and `peft-shop snippet RUN --trainer NAME` writes the file "
            "that it reads."
        ),
        table(
            ("trainer", "title", "models", "version", "read on", "peft", "saves", "file"),
            (
                (
                    f"[`{one.id}`](trainers/{one.id}.md)",
                    one.title,
                    ", ".join(one.models),
                    one.version,
                    one.checked,
                    one.peft or "none of its own",
                    one.saves,
                    one.file or "",
                )
                for one in catalog.trainers
            ),
        ),
        table(("verdict", "meaning"), ((f"`{name}`", text) for name, text in VERDICTS.items())),
        table(("fact", "meaning"), ((f"`{name}`", text) for name, text in VALUES.items())),
        table(("known", "meaning"), ((f"`{name}`", text) for name, text in HOW.items())),
        "`*`: there is something to do, or to know, or it depends on the setup.",
        "## Circumstances",
        table(("circumstance", "where"), ((f"`{n}`", text) for n, text in CONDITIONS.items())),
    ]
    groups = {
        "Methods": [method.id for method in catalog.methods],
        "Variants of LoRA": [one.id for one in catalog.method_by_id["lora"].variants],
    }
    for title, names in groups.items():
        parts.append(f"## {title}")
        for start in range(0, len(catalog.trainers), _COLUMNS):
            some = catalog.trainers[start : start + _COLUMNS]
            parts.append(
                table(
                    ("name", *(f"`{one.id}`" for one in some)),
                    (
                        (f"`{name}`", *(_verdict(taken[one.id][name]) for one in some))
                        for name in names
                    ),
                )
            )
    topics = {**TRAINER_OPTIONS, **TRAINER_TOPICS}
    parts += [
        "## Options, data and losses",
        table(("topic", "question"), ((f"`{name}`", text) for name, text in topics.items())),
    ]
    for start in range(0, len(catalog.trainers), _COLUMNS):
        some = catalog.trainers[start : start + _COLUMNS]
        parts.append(
            table(
                ("topic", *(f"`{one.id}`" for one in some)),
                ((f"`{name}`", *(_fact(one, name) for one in some)) for name in topics),
            )
        )
    parts += [
        "## Fields of a recipe",
        (
            "What a recipe says, by the names under which trainers have keys and defaults of their "
            "own."
        ),
        table(("field", "what"), ((f"`{name}`", text) for name, text in RECIPE_FIELDS.items())),
    ]
    return "\n\n".join(parts) + "\n"


def _verdict(found: Acceptance) -> str:
    return f"{found.verdict}{' *' if found.needs or found.cautions or found.own else ''}"


def _fact(trainer: Trainer, topic: str) -> str:
    fact = trainer.facts.get(topic)
    if fact is None:
        return ""
    return f"{fact.value}{' *' if fact.note or fact.needs else ''}"


def trainer_pages() -> dict[str, Callable[[], str]]:
    """What makes `reference/trainers/<trainer>.md`, by the page's name."""
    return {f"trainers/{one.id}.md": partial(_page, one) for one in load().trainers}


def _page(trainer: Trainer) -> str:
    """One trainer: what is known about it, and what it takes of each method."""
    catalog = load()
    order = ("silent", "reject", "no", "unknown", "own", "yes")
    facts = (
        (f"`{name}`", one.value, one.how, one.key or "", one.note or "", one.needs or "")
        for name, one in sorted(trainer.facts.items(), key=lambda item: order.index(item[1].value))
    )
    asks = [
        f"{name} {text}"
        for name, text in (("peft", trainer.peft), ("Python", trainer.python))
        if text
    ]
    asked = f"It asks for {' and '.join(asks)}. " if asks else ""
    written = (
        f"`peft-shop snippet RUN --trainer {trainer.id}` writes what it reads."
        if trainer.file
        else "No file is written for it."
    )
    parts = [
        f"# {trainer.title}",
        GENERATED,
        (
            f"{trainer.title} {trainer.version} (for {' and '.join(trainer.models)} models), as "
            f"read on {trainer.checked}. {asked}It saves {trainer.saves}. {written} "
            f'`recommend(trainer="{trainer.id}")` keeps what it takes. '
            "[All trainers](../trainers.md) stand side by side."
        ),
        *([f"Not recommended: {trainer.retired}"] if trainer.retired else []),
        "## What goes wrong",
        _traps(trainer),
        "## What it takes",
        table(("topic", "value", "known", "key", "note", "needed"), facts),
        "## Each method and variant of LoRA",
        (
            "For the method as such. Where the answer depends on the setup, what goes wrong is "
            "told above; a plan goes around it, or the file sees to it."
        ),
        table(
            ("name", "verdict", "to do or to know"),
            (
                (f"`{one.recipe}`", one.verdict, " ".join(_remarks(trainer, one, names)))
                for one, names in (
                    *((one, (one.recipe,)) for one in methods_taken(catalog, trainer)),
                    *((one, (one.recipe, PLAIN)) for one in variants_taken(catalog, trainer)),
                )
            ),
        ),
    ]
    if trainer.keys or trainer.defaults:
        parts += ["## Its words", _words(trainer)]
    parts += [
        "## Sources",
        table(
            ("source", "what", "version", "date", "steps", "learning rate"),
            (
                (
                    f"`{name}`",
                    one.place,
                    one.version or trainer.version,
                    one.date or "",
                    one.steps or "",
                    one.learning_rate or "",
                )
                for name, one in trainer.sources.items()
            ),
        ),
    ]
    return "\n\n".join(parts) + "\n"


def _remarks(trainer: Trainer, one: Acceptance, names: Iterable[str]) -> Iterable[str]:
    yield from one.needs
    if one.obstacles:
        yield f"{one.obstacles}."
    other = circumstances(trainer, names)
    if other and one.verdict != "no":
        yield f"Another answer where {', or where '.join(other)}."


def _traps(trainer: Trainer) -> str:
    rows = [(where(rule), rule.value, rule.note, rule.needs or "") for rule in trainer.rules]
    rows += [("", "", one.text, "") for one in trainer.hazards]
    if not rows:
        return "Nothing beyond the table below is known."
    return table(("where", "value", "what happens", "needed"), rows)


def _words(trainer: Trainer) -> str:
    names = [name for name in RECIPE_FIELDS if name in trainer.keys or name in trainer.defaults]
    return table(
        ("recipe", "key", "unless written"),
        (
            (
                RECIPE_FIELDS[name],
                f"`{trainer.keys[name]}`" if name in trainer.keys else "",
                trainer.defaults.get(name, ""),
            )
            for name in names
        ),
    )

"""What trainers take: a table of all, the page of one, one sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from peft_shop.catalog.methods import PLAIN
from peft_shop.catalog.trainers import (
    CONDITIONS,
    HOW,
    OTHER_METHODS,
    OTHER_VARIANTS,
    RECIPE_FIELDS,
    TRAINER_OPTIONS,
    TRAINER_TOPICS,
)
from peft_shop.show.documents import Cell, Column, Document, Item, Listing, Row, Table, label

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from peft_shop.catalog.catalog import Catalog
    from peft_shop.catalog.trainers import Trainer, TrainerRule
    from peft_shop.serve.trainers import Acceptance
    from peft_shop.show.documents import Value

__all__ = [
    "acceptance_records",
    "acceptance_sentence",
    "circumstances",
    "trainer_document",
    "trainers_document",
    "where",
]

_ORDER: Final = ("accepts", "partly", "unknown", "no")
_MEANINGS: Final = (
    "accepts: it trains all of the method as such, once what stands beside is done; partly: "
    "something is lost; no: it refuses or has no way to ask for it; unknown: nobody tried."
)
_FURTHER: Final = (
    "`peft-shop trainers NAME` shows one; `recommend --trainer NAME` keeps what it takes; "
    "`snippet RUN --trainer NAME` writes its file."
)


_OTHERS: Final = {OTHER_METHODS, OTHER_VARIANTS}
"""Topics that answer for methods and variants, which have rows of their own."""


def acceptance_sentence(found: Acceptance) -> str:
    """What a trainer takes of a recipe and what it needs, in one paragraph."""
    text = f"{found.trainer} {found.version}: "
    if found.verdict == "accepts":
        text += "takes it" + (", by code of its own." if found.own else ".")
    elif found.verdict == "partly":
        text += f"takes it in part: {found.obstacles}."
    else:
        text += f"{'does not take it' if found.verdict == 'no' else 'unknown'}: {found.obstacles}."
    for need in found.needs:
        done = " (the file of `snippet --trainer` does it)" if need in found.written else ""
        text += f" To do{done}: {need}"
    if found.cautions:
        text += f" Careful: {' '.join(found.cautions)}"
    return text


def acceptance_records(found: Iterable[Acceptance]) -> list[dict[str, Value]]:
    """One dictionary for each recipe and trainer; several texts are joined by spaces."""
    return [
        {
            "recipe": one.recipe,
            "trainer": one.trainer,
            "version": one.version,
            "verdict": one.verdict,
            "own": one.own,
            "lost": "; ".join(f"{lost.option}: {lost.change}" for lost in one.lost) or None,
            "reasons": " ".join(one.reasons) or None,
            "needs": " ".join(one.needs) or None,
            "cautions": " ".join(one.cautions) or None,
        }
        for one in found
    ]


def trainers_document(
    catalog: Catalog, found: Sequence[tuple[Trainer, Sequence[Acceptance]]]
) -> Document:
    """Every trainer with how many methods it takes, one a row."""

    def row(trainer: Trainer, taken: Sequence[Acceptance]) -> Row:
        counts = {verdict: sum(one.verdict == verdict for one in taken) for verdict in _ORDER}
        return Row(
            (
                label(trainer.id),
                label(" and ".join(trainer.models)),
                *(Cell(str(counts[verdict]), counts[verdict]) for verdict in _ORDER),
                Cell(trainer.file or "-", trainer.file),
                label(trainer.saves),
                label(trainer.version),
                Cell(trainer.retired or "-", trainer.retired),
            )
        )

    return Document(
        title=f"Trainers: what {len(found)} tools take of {len(catalog.methods)} methods",
        parts=(
            Table(
                key="trainers",
                title="",
                columns=(
                    Column("trainer", "Trainer", least=14),
                    Column("models", "Models", least=5, priority=1),
                    *(Column(verdict, verdict.capitalize(), least=7) for verdict in _ORDER),
                    Column("file", "Snippet", least=7),
                    Column("saves", "Saves", least=6, priority=2),
                    Column("version", "Facts about", least=12, priority=1),
                    Column("retired", "Not recommended", least=10, priority=3),
                ),
                rows=tuple(row(*one) for one in found),
            ),
        ),
        footnotes=(
            _MEANINGS,
            _FURTHER,
        ),
    )


def trainer_document(
    catalog: Catalog,
    trainer: Trainer,
    methods: Sequence[Acceptance],
    variants: Sequence[Acceptance],
) -> Document:
    """One trainer: methods and variants, what goes wrong in silence, its words and defaults."""
    about = f"{trainer.title} {trainer.version}, read on {trainer.checked}; "
    paragraphs = [f"{about}for {' and '.join(trainer.models)} models; saves {trainer.saves}."]
    asks = [
        f"{name} {text}"
        for name, text in (("peft", trainer.peft), ("Python", trainer.python))
        if text
    ]
    if asks:
        paragraphs.append(f"It asks for {' and '.join(asks)}.")
    if trainer.retired is not None:
        paragraphs.append(f"Not recommended: {trainer.retired}")
    titles = {method.id: method.title for method in catalog.methods}
    parts: list[Table | Listing] = [
        _verdicts("methods", "Methods", methods, titles, trainer),
        _verdicts("variants", "Variants of LoRA", variants, {}, trainer),
        _topics(trainer),
    ]
    traps = [Item(f"{where(rule)}:", tuple(_texts(rule))) for rule in trainer.rules]
    traps += [Item("", (hazard.text,)) for hazard in trainer.hazards]
    if traps:
        parts.append(Listing("What goes wrong", tuple(traps)))
    if trainer.keys or trainer.defaults:
        parts.append(_words(trainer))
    known = ", ".join(f"{name}: {text}" for name, text in HOW.items())
    return Document(
        title=f"{trainer.title}: which methods it takes",
        paragraphs=tuple(paragraphs),
        parts=tuple(parts),
        footnotes=(_MEANINGS, f"How it is known: {known}."),
    )


def where(rule: TrainerRule) -> str:
    """The circumstance of a rule, and what it is about, in words."""
    about = f" ({', '.join(rule.topics)})" if rule.topics else ""
    return f"Where {CONDITIONS[rule.when]}{about}"


def _texts(rule: TrainerRule) -> Iterable[str]:
    yield f"{rule.value}: {rule.note}"
    if rule.needs is not None:
        done = " (the file of `snippet --trainer` does it)" if rule.written else ""
        yield f"To do{done}: {rule.needs}"


def circumstances(trainer: Trainer, names: Iterable[str]) -> list[str]:
    """Where a method or variant has another answer, in words; rules about every method left out."""
    asked = set(names)
    told = (CONDITIONS[rule.when] for rule in trainer.rules if asked.intersection(rule.topics))
    return list(dict.fromkeys(told))


def _verdicts(
    key: str,
    title: str,
    found: Sequence[Acceptance],
    titles: dict[str, str],
    trainer: Trainer,
) -> Table:
    def row(acceptance: Acceptance) -> Row:
        known = acceptance.basis[-1].value.partition(", ")[2] if acceptance.basis else ""
        texts = [*acceptance.needs, *([f"{acceptance.obstacles}."] if acceptance.obstacles else [])]
        names = (acceptance.recipe,) if titles else (acceptance.recipe, PLAIN)
        other = circumstances(trainer, names)
        if other and acceptance.verdict != "no":
            texts.append(f"Below: where {', or where '.join(other)}.")
        todo = " ".join(texts) or "-"
        return Row(
            (
                label(acceptance.recipe),
                Cell(
                    titles.get(acceptance.recipe, acceptance.recipe), titles.get(acceptance.recipe)
                ),
                label(acceptance.verdict),
                label(known),
                Cell(todo, None if todo == "-" else todo),
            )
        )

    return Table(
        key=key,
        title=title,
        columns=(
            Column("name", "Name", least=12),
            Column("title", hidden=True),
            Column("verdict", "Verdict", least=8),
            Column("known", "Known by", least=9, priority=1),
            Column("conditions", "What to do, or what stands in the way", least=24),
        ),
        rows=tuple(row(one) for one in sorted(found, key=lambda one: _ORDER.index(one.verdict))),
    )


def _topics(trainer: Trainer) -> Table:
    """What is asked of a trainer besides methods and variants, and its answers."""
    topics = {**TRAINER_TOPICS, **TRAINER_OPTIONS}
    topics = {name: text for name, text in topics.items() if name not in _OTHERS}

    def row(name: str, question: str) -> Row:
        fact = trainer.facts.get(name)
        texts = [] if fact is None else [fact.key, fact.note, fact.needs]
        told = "; ".join(text.rstrip(".") for text in texts if text) or "-"
        return Row(
            (
                label(question),
                label("unknown" if fact is None else fact.value),
                label("-" if fact is None else fact.how),
                Cell(told, None if told == "-" else told),
            )
        )

    return Table(
        key="topics",
        title="Data, losses and options",
        columns=(
            Column("question", "Question", least=24),
            Column("answer", "Answer", least=7),
            Column("known", "Known by", least=9, priority=1),
            Column("told", "How, and what to know", least=24),
        ),
        rows=tuple(row(*topic) for topic in topics.items()),
    )


def _words(trainer: Trainer) -> Table:
    names = [name for name in RECIPE_FIELDS if name in trainer.keys or name in trainer.defaults]
    return Table(
        key="words",
        title="Its words, and what applies where nothing is written",
        columns=(
            Column("field", "Recipe", least=16),
            Column("key", "Key", least=16),
            Column("default", "Unless written", least=12),
        ),
        rows=tuple(
            Row(
                (
                    label(RECIPE_FIELDS[name]),
                    Cell(trainer.keys.get(name, "-"), trainer.keys.get(name)),
                    Cell(trainer.defaults.get(name, "-"), trainer.defaults.get(name)),
                )
            )
            for name in names
        ),
    )

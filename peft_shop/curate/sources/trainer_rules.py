"""Rules about trainers, and which of their answers nobody knows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from peft_shop.catalog.trainers import (
    CONDITIONS,
    OTHER_METHODS,
    OTHER_OPTIONS,
    OTHER_VARIANTS,
    RECIPE_FIELDS,
    TRAINER_OPTIONS,
    TRAINER_TOPICS,
)
from peft_shop.curate.sources.violations import Finding, Rule, nearest, rule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from peft_shop.catalog.trainers import Trainer, TrainerFact, TrainerRule
    from peft_shop.curate.sources.sources import Sources

__all__ = ["RULES", "unknown"]


def _fold(name: str) -> str:
    """What is compared when people type the name of a trainer."""
    return "".join(letter for letter in name.lower() if letter.isalnum())


def _topics(sources: Sources) -> dict[str, str | None]:
    """Every topic of facts about trainers, with the one that answers for it where it has none."""
    methods = {name: entry.record for name, entry in sources.curated.items()}
    variants = {variant.id for method in methods.values() for variant in method.variants}
    return {
        **dict.fromkeys(methods, OTHER_METHODS),
        **dict.fromkeys(sorted(variants), OTHER_VARIANTS),
        **dict.fromkeys(TRAINER_OPTIONS, OTHER_OPTIONS),
        **dict.fromkeys(TRAINER_TOPICS),
    }


@rule("trainer-file", integrity=True)
def trainer_file(sources: Sources) -> Iterator[Finding]:
    """A trainer's file has its name."""
    for name, entry in sources.trainers.items():
        if entry.record.id != name:
            yield name, entry.problem("id", f"is {entry.record.id!r}, the file is {name!r}")


@rule("trainer-names", integrity=True)
def trainer_names(sources: Sources) -> Iterator[Finding]:
    """A trainer's name and aliases mean no other trainer, whatever their case and punctuation."""
    owners = {_fold(name): name for name in sources.trainers}
    for name, entry in sources.trainers.items():
        for index, alias in enumerate(entry.record.aliases):
            owner = owners.setdefault(_fold(alias), f"{name} (alias {index})")
            if owner != f"{name} (alias {index})":
                yield name, entry.problem(f"aliases[{index}]", f"{alias!r} names {owner} already")


@rule("trainer-facts", integrity=True)
def trainer_facts(sources: Sources) -> Iterator[Finding]:
    """A fact is about a topic that there is, a rule about a circumstance; both name a source."""
    topics = _topics(sources)
    for name, entry in sources.trainers.items():
        for topic in entry.record.facts:
            if topic not in topics:
                problem = entry.problem(
                    f"facts.{topic}", f"unknown topic {topic!r}", nearest(topic, topics)
                )
                yield f"{name}.{topic}", problem
        for index, one in enumerate(entry.record.rules):
            if one.when not in CONDITIONS:
                hint = nearest(one.when, CONDITIONS)
                message = f"unknown circumstance {one.when!r}"
                yield name, entry.problem(f"rules[{index}].when", message, hint)
            for topic in one.topics:
                if topic not in topics:
                    problem = entry.problem(
                        f"rules[{index}].topics", f"unknown topic {topic!r}", nearest(topic, topics)
                    )
                    yield name, problem
        for place, key in entry.record.cited():
            if key not in entry.record.sources:
                hint = nearest(key, entry.record.sources)
                yield name, entry.problem(f"{place}.source", f"there is no source {key!r}", hint)


@rule("trainer-keys", integrity=True)
def trainer_keys(sources: Sources) -> Iterator[Finding]:
    """A trainer's keys and defaults are about fields that a recipe has."""
    for name, entry in sources.trainers.items():
        for place, fields in (("keys", entry.record.keys), ("defaults", entry.record.defaults)):
            for field in fields:
                if field not in RECIPE_FIELDS:
                    hint = nearest(field, RECIPE_FIELDS)
                    message = f"a recipe has no {field!r}"
                    yield name, entry.problem(f"{place}.{field}", message, hint)


@rule("trainer-sources")
def trainer_sources(sources: Sources) -> Iterator[Finding]:
    """Every source of a trainer is one that something it says names."""
    for name, entry in sources.trainers.items():
        cited = {key for _, key in entry.record.cited()}
        for key in entry.record.sources:
            if key not in cited:
                problem = entry.problem(f"sources.{key}", "nothing names it", "remove it")
                yield f"{name}.{key}", problem


@rule("trainer-trial")
def trainer_trial(sources: Sources) -> Iterator[Finding]:
    """What was seen in training names the steps and the learning rate of the trial."""
    # a trial that only looks at whether training ran also passes where nothing moved
    for name, entry in sources.trainers.items():
        for place, one in _answers(entry.record):
            source = entry.record.sources.get(one.source)
            if one.how not in {"trained", "verified"} or source is None:
                continue
            for field in ("steps", "learning_rate"):
                if getattr(source, field) is None:
                    problem = entry.problem(f"sources.{one.source}.{field}", f"missing for {place}")
                    yield f"{name}.{place.partition('.')[2] or place}", problem


@rule("trainer-note")
def trainer_note(sources: Sources) -> Iterator[Finding]:
    """An unknown answer says what is known; every text about a trainer ends as a sentence."""
    for name, entry in sources.trainers.items():
        trainer = entry.record
        texts = [("retired", trainer.retired)]
        texts += [(f"hazards[{i}].text", hazard.text) for i, hazard in enumerate(trainer.hazards)]
        for place, one in _answers(trainer):
            if one.value == "unknown" and one.note is None:
                problem = entry.problem(f"{place}.note", "is missing for `unknown`")
                yield f"{name}.{place.partition('.')[2] or place}", problem
            texts += [(f"{place}.note", one.note), (f"{place}.needs", one.needs)]
        for place, text in texts:
            if text is not None and not text.endswith("."):
                yield name, entry.problem(place, "does not end as a sentence")


@rule("trainer-written")
def trainer_written(sources: Sources) -> Iterator[Finding]:
    """A cure is written only by a trainer's file, and only where one is needed."""
    for name, entry in sources.trainers.items():
        for place, one in _answers(entry.record):
            if one.written and (one.needs is None or entry.record.file is None):
                what = "needs" if one.needs is None else "the trainer's file"
                yield name, entry.problem(f"{place}.written", f"is set without {what}")


def _answers(trainer: Trainer) -> Iterator[tuple[str, TrainerFact | TrainerRule]]:
    """Facts and rules of a trainer with their places."""
    yield from ((f"facts.{topic}", fact) for topic, fact in trainer.facts.items())
    yield from ((f"rules[{i}]", one) for i, one in enumerate(trainer.rules))


def unknown(sources: Sources) -> dict[str, tuple[str, ...]]:
    """Trainers without an answer by topic (`trainers.<topic>`); answered topics are left out.

    A variant is asked about only where the trainer takes the method.
    """
    owners: dict[str, list[str]] = {}
    for method, entry in sources.curated.items():
        for variant in entry.record.variants:
            owners.setdefault(variant.id, []).append(method)

    def value(trainer: Trainer, topic: str, fallback: str | None) -> str:
        fact = trainer.facts.get(topic)
        if fact is None and fallback is not None:
            fact = trainer.facts.get(fallback)
        return "unknown" if fact is None else fact.value

    def is_open(trainer: Trainer, topic: str, fallback: str | None) -> bool:
        taken = [value(trainer, method, OTHER_METHODS) for method in owners.get(topic, ())]
        if taken and not set(taken) - {"no", "reject"}:
            return False
        return value(trainer, topic, fallback) == "unknown"

    found = {
        f"trainers.{topic}": tuple(
            name
            for name, entry in sources.trainers.items()
            if is_open(entry.record, topic, fallback)
        )
        for topic, fallback in _topics(sources).items()
    }
    return {topic: names for topic, names in found.items() if names}


RULES: Final[tuple[Rule, ...]] = (
    trainer_file,
    trainer_names,
    trainer_facts,
    trainer_keys,
    trainer_sources,
    trainer_trial,
    trainer_note,
    trainer_written,
)

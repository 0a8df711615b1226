"""Rules about serving engines, and about what becomes of adapters on the way to them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from peft_shop.catalog.engines import CIRCUMSTANCES, TOPIC_IDS, TRAIT_IDS
from peft_shop.curate.sources.violations import Finding, Rule, fields_of, nearest, rule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from peft_shop.catalog.engines import Architectures, Conversion, Fact, LoadRule
    from peft_shop.curate.sources.sources import Entry, Sources

__all__ = ["RULES"]


def _fold(name: str) -> str:
    """What is compared when people type the name of an engine."""
    return "".join(letter for letter in name.lower() if letter.isalnum())


@rule("engine-file", integrity=True)
def engine_file(sources: Sources) -> Iterator[Finding]:
    """An engine's file has its name."""
    for name, entry in sources.engines.items():
        if entry.record.id != name:
            yield name, entry.problem("id", f"is {entry.record.id!r}, the file is {name!r}")


@rule("engine-names", integrity=True)
def engine_names(sources: Sources) -> Iterator[Finding]:
    """An engine's name and aliases mean no other engine, whatever their case and punctuation."""
    owners = {_fold(name): name for name in sources.engines}
    for name, entry in sources.engines.items():
        for index, alias in enumerate(entry.record.aliases):
            owner = owners.setdefault(_fold(alias), f"{name} (alias {index})")
            if owner != f"{name} (alias {index})":
                yield name, entry.problem(f"aliases[{index}]", f"{alias!r} names {owner} already")


@rule("engine-facts", integrity=True)
def engine_facts(sources: Sources) -> Iterator[Finding]:
    """A fact is about a topic that there is, and names one of its engine's sources."""
    for name, entry in sources.engines.items():
        for topic in entry.record.facts:
            if topic not in TOPIC_IDS:
                hint = nearest(topic, TOPIC_IDS)
                problem = entry.problem(f"facts.{topic}", f"unknown topic {topic!r}", hint)
                yield f"{name}.{topic}", problem
        for place, key in entry.record.cited():
            if key not in entry.record.sources:
                hint = nearest(key, entry.record.sources)
                yield name, entry.problem(f"{place}.source", f"there is no source {key!r}", hint)


@rule("engine-sources")
def engine_sources(sources: Sources) -> Iterator[Finding]:
    """Every source of an engine is one that something it says names."""
    for name, entry in sources.engines.items():
        cited = {key for _, key in entry.record.cited()}
        for key in entry.record.sources:
            if key not in cited:
                problem = entry.problem(f"sources.{key}", "nothing names it", "remove it")
                yield f"{name}.{key}", problem


@rule("engine-rules", integrity=True)
def engine_load_rules(sources: Sources) -> Iterator[Finding]:
    """A rule is about a circumstance that there is; no two lists of an engine name one class."""
    for name, entry in sources.engines.items():
        for index, load in enumerate(entry.record.rules):
            if load.when not in CIRCUMSTANCES:
                hint = nearest(load.when, CIRCUMSTANCES)
                message = f"unknown circumstance {load.when!r}"
                yield name, entry.problem(f"rules[{index}].when", message, hint)
            if (load.when in _NAMED) != bool(load.names):
                yield name, entry.problem(f"rules[{index}].names", f"do not go with {load.when}")
        owners: dict[str, int] = {}
        for index, group in enumerate(entry.record.architectures):
            for architecture in group.names:
                owner = owners.setdefault(architecture, index)
                if owner != index:
                    message = f"{architecture!r} stands in list {owner} already"
                    yield name, entry.problem(f"architectures[{index}].names", message)


_NAMED: Final = frozenset(("adapts", "adapts_other", "adapts_without"))
"""Circumstances that are about names of modules."""


@rule("engine-command")
def engine_command(sources: Sources) -> Iterator[Finding]:
    """An engine's command uses only options that its own list of arguments has."""
    for name, entry in sources.engines.items():
        command = entry.record.command
        if command is None:
            continue
        # `-m` of `python -m MODULE` is an option of Python's
        for word in command.line.removeprefix("python -m ").split():
            option = word.partition("=")[0]
            if option.startswith("-") and option not in command.flags:
                hint = nearest(option, command.flags)
                yield name, entry.problem("command.line", f"{option} is none of its flags", hint)


@rule("engine-note")
def engine_note(sources: Sources) -> Iterator[Finding]:
    """An unknown answer says what is known; every text about an engine ends as a sentence."""
    for name, entry in sources.engines.items():
        engine = entry.record
        texts = [("layers", engine.layers), ("ranks.note", engine.ranks.note)]
        texts += [(f"hazards[{i}].text", hazard.text) for i, hazard in enumerate(engine.hazards)]
        answers: dict[str, Fact | Architectures | LoadRule] = {
            **{f"facts.{topic}": fact for topic, fact in engine.facts.items()},
            **{f"kinds.{kind}": fact for kind, fact in engine.kinds.items()},
            **{
                f"architectures[{i}]": architecture
                for i, architecture in enumerate(engine.architectures)
            },
            **{f"rules[{i}]": one for i, one in enumerate(engine.rules)},
        }
        for place, answer in answers.items():
            if answer.value == "unknown" and answer.note is None:
                problem = entry.problem(f"{place}.note", "is missing for `unknown`")
                yield f"{name}.{place.partition('.')[2] or place}", problem
            texts += [(f"{place}.note", answer.note), (f"{place}.needs", answer.needs)]
        for place, text in texts:
            if text is not None and not text.endswith("."):
                yield name, entry.problem(place, "does not end as a sentence")


@rule("engine-ranks", integrity=True)
def engine_ranks(sources: Sources) -> Iterator[Finding]:
    """A rank flag's values grow and hold its default; a least rank is not above the most."""
    for name, entry in sources.engines.items():
        ranks = entry.record.ranks
        if list(ranks.choices) != sorted(set(ranks.choices)) or min(ranks.choices, default=1) < 1:
            yield name, entry.problem("ranks.choices", "must grow, from 1 at least")
        if ranks.choices and ranks.default is not None and ranks.default not in ranks.choices:
            yield name, entry.problem("ranks.default", f"{ranks.default} is not among the choices")
        if ranks.flag is None and (ranks.choices or ranks.default is not None):
            yield name, entry.problem("ranks.flag", "is missing, though it has values")
        if ranks.least is not None and ranks.most is not None and ranks.least > ranks.most:
            yield name, entry.problem("ranks.least", f"is above the most, {ranks.most}")


@rule("conversion-known", integrity=True)
def conversion_known(sources: Sources) -> Iterator[Finding]:
    """A conversion is of a method and traits that there are; its rank's fields have defaults."""
    for entry in sources.conversions:
        one = entry.record
        if one.method is not None and one.method not in sources.curated:
            hint = nearest(one.method, sources.curated)
            problem = entry.problem("method", f"unknown method {one.method!r}", hint)
            yield _name(entry), problem
        for index, trait in enumerate(one.traits):
            if trait not in TRAIT_IDS:
                hint = nearest(trait, TRAIT_IDS)
                problem = entry.problem(f"traits[{index}]", f"unknown trait {trait!r}", hint)
                yield _name(entry), problem
        known = fields_of(sources, one.method) if one.method else None
        named = {field for term in one.rank for field in term if not field.isdecimal()}
        for field in sorted(named):
            if field not in one.defaults:
                yield _name(entry), entry.problem(f"defaults.{field}", "is missing")
            if known is not None and field not in known:
                message = f"the configuration of {one.method} has no {field!r}"
                yield _name(entry), entry.problem("rank", message, nearest(field, known))


@rule("conversion-reason")
def conversion_reason(sources: Sources) -> Iterator[Finding]:
    """An exact conversion has a rank; any other has none and says why, in a sentence."""
    for entry in sources.conversions:
        one = entry.record
        if (one.verdict == "exact") != bool(one.rank):
            yield _name(entry), entry.problem("rank", "is for exact conversions, and needed there")
        if one.verdict != "exact" and (one.because is None or not one.because.endswith(".")):
            yield _name(entry), entry.problem("because", "a sentence that says why is missing")


def _name(entry: Entry[Conversion]) -> str:
    one = entry.record
    return ":".join([one.way, one.method or "any", *one.traits])


RULES: Final[tuple[Rule, ...]] = (
    engine_file,
    engine_names,
    engine_facts,
    engine_sources,
    engine_note,
    engine_ranks,
    engine_load_rules,
    engine_command,
    conversion_known,
    conversion_reason,
)

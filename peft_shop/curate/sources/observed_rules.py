"""Rules about what the probe saw of a method, and what the wheels of peft say."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from peft_shop.catalog.features import FEATURE_IDS
from peft_shop.curate.sources.violations import Finding, Rule, fields_of, nearest, rule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from peft_shop.catalog.methods import Capability, Observation
    from peft_shop.curate.sources.sources import Entry, Sources

__all__ = ["RULES"]

_LOCAL: Final = re.compile(r"(?<![\w./:)-])/[\w.-]+/[\w.-]+|0x[0-9a-f]{6,}")
"""An absolute path or a memory address."""


def _capabilities(
    sources: Sources,
) -> Iterator[tuple[str, Entry[Observation], str, str, Capability]]:
    """Every observed capability: record name, file, place, feature, capability."""
    for method, entry in sources.observed.items():
        for feature, capability in entry.record.capabilities.items():
            yield f"{method}.{feature}", entry, f"capabilities.{feature}", feature, capability
        for variant, observation in entry.record.variants.items():
            for feature, capability in observation.capabilities.items():
                place = f"variants.{variant}.capabilities.{feature}"
                yield f"{method}/{variant}.{feature}", entry, place, feature, capability


# --- two files a method ---


@rule("two-files", integrity=True)
def two_files(sources: Sources) -> Iterator[Finding]:
    """A method has a curated and an observed file, both of its name."""
    for method, curated in sources.curated.items():
        if method not in sources.observed:
            hint = f"run: peft-shop catalog probe {method}"
            yield method, curated.problem("", "was never probed: no observed file", hint)
        if curated.record.peft_type.lower() != method:
            message = f"is {curated.record.peft_type!r} in a file called {method!r}"
            yield method, curated.problem("peft_type", message, "name the file after it")
    for method, observed in sources.observed.items():
        if method not in sources.curated:
            hint = f"write catalog/curated/{method}.toml; " + nearest(method, set(sources.curated))
            yield method, observed.problem("", "no curated file", hint.rstrip("; "))
        if observed.record.method != method:
            message = f"is {observed.record.method!r} in a file called {method!r}"
            yield method, observed.problem("method", message, "probe it again")


@rule("config-class")
def config_class(sources: Sources) -> Iterator[Finding]:
    """The curated configuration class is the one that peft registers, as the probe saw it."""
    for method, curated in sources.curated.items():
        observed = sources.observed.get(method)
        if observed and observed.record.config_class != curated.record.config_class:
            message = (
                f"is {curated.record.config_class!r}, peft registers "
                f"{observed.record.config_class!r}"
            )
            yield method, curated.problem("config_class", message)


# --- what the probe saw ---


@rule("features-filled", integrity=True)
def features_filled(sources: Sources) -> Iterator[Finding]:
    """Every feature of a method is filled, `unknown` if need be; no other name is there."""
    for method, entry in sources.observed.items():
        absent = [feature for feature in FEATURE_IDS if feature not in entry.record.capabilities]
        if absent:
            hint = f"run: peft-shop catalog probe {method}"
            yield method, entry.problem("capabilities", f"lacks {', '.join(absent)}", hint)
    for record, entry, place, feature, _ in _capabilities(sources):
        if feature not in FEATURE_IDS:
            yield record, entry.problem(place, "unknown feature", nearest(feature, FEATURE_IDS))


@rule("note-required")
def note_required(sources: Sources) -> Iterator[Finding]:
    """`partial` says which part, `unknown` says what would settle it."""
    for record, entry, place, _, capability in _capabilities(sources):
        if capability.support in {"partial", "unknown"} and capability.note is None:
            hint = (
                "say which part works"
                if capability.support == "partial"
                else "say what would settle it"
            )
            yield record, entry.problem(place, f"{capability.support!r} without a note", hint)


@rule("conditions-partial")
def conditions_partial(sources: Sources) -> Iterator[Finding]:
    """Only `partial` has conditions, and each of them states something."""
    for record, entry, place, _, capability in _capabilities(sources):
        if capability.conditions and capability.support != "partial":
            message = f"{capability.support!r} with conditions"
            yield record, entry.problem(f"{place}.conditions", message, "probe it again")
        for index, condition in enumerate(capability.conditions):
            if not condition.model_dump(exclude_none=True):
                where = f"{place}.conditions[{index}]"
                yield record, entry.problem(where, "states nothing", "probe it again")


@rule("portable-note")
def portable_note(sources: Sources) -> Iterator[Finding]:
    """A note reads the same on every machine: no local path, no memory address."""
    for record, entry, place, _, capability in _capabilities(sources):
        match = _LOCAL.search(capability.note or "")
        if match:
            message = f"holds {match[0]!r}, which belongs to one machine"
            yield record, entry.problem(f"{place}.note", message, "probe it again")


@rule("verified-measured")
def verified_measured(sources: Sources) -> Iterator[Finding]:
    """`verified` means that numbers were compared, so it comes with a number."""
    for record, entry, place, _, capability in _capabilities(sources):
        if capability.level == "verified" and not capability.measured:
            yield record, entry.problem(f"{place}.measured", "'verified' without a number")


@rule("observed-source")
def observed_source(sources: Sources) -> Iterator[Finding]:
    """An observed file holds observations only; a decision is an override with its reason."""
    for record, entry, place, _, capability in _capabilities(sources):
        if capability.source != "observed":
            hint = "write an override in the curated file"
            yield record, entry.problem(f"{place}.source", "is not an observation", hint)


@rule("environment-known", integrity=True)
def environment_known(sources: Sources) -> Iterator[Finding]:
    """A capability names one of its file's environments."""
    for record, entry, place, _, capability in _capabilities(sources):
        if capability.environment not in entry.record.environments:
            valid = set(entry.record.environments)
            message = f"unknown environment {capability.environment!r}"
            hint = nearest(capability.environment, valid)
            yield record, entry.problem(f"{place}.environment", message, hint)


@rule("one-peft", integrity=True)
def one_peft(sources: Sources) -> Iterator[Finding]:
    """All observations are of one peft version: the catalog's."""
    found = sorted(
        {
            env.peft
            for entry in sources.observed.values()
            for env in entry.record.environments.values()
        }
    )
    if len(found) < 2:
        return
    counts = {
        version: sum(
            env.peft == version
            for entry in sources.observed.values()
            for env in entry.record.environments.values()
        )
        for version in found
    }
    most = max(found, key=lambda version: (counts[version], version))
    for method, entry in sources.observed.items():
        for key, environment in entry.record.environments.items():
            if environment.peft != most:
                message = f"peft {environment.peft}, the others are of {most}"
                hint = f"run: peft-shop catalog probe {method}"
                yield method, entry.problem(f"environments.{key}.peft", message, hint)


@rule("variant-known", integrity=True)
def variant_known(sources: Sources) -> Iterator[Finding]:
    """An observed variant is a curated one."""
    for method, entry in sources.observed.items():
        curated = sources.curated.get(method)
        valid = {variant.id for variant in curated.record.variants} if curated else set()
        for variant in entry.record.variants:
            if variant not in valid:
                hint = nearest(variant, valid)
                problem = entry.problem(f"variants.{variant}", "no such variant", hint)
                yield f"{method}/{variant}", problem


@rule("variant-differs")
def variant_differs(sources: Sources) -> Iterator[Finding]:
    """A variant's capability is written down only where it differs from its method's."""
    for method, entry in sources.observed.items():
        for variant, observation in entry.record.variants.items():
            for feature, capability in observation.capabilities.items():
                of_method = entry.record.capabilities.get(feature)
                if of_method and (capability.support, capability.level, capability.note) == (
                    of_method.support,
                    of_method.level,
                    of_method.note,
                ):
                    place = f"variants.{variant}.capabilities.{feature}"
                    problem = entry.problem(place, "is as the method's", "leave it out")
                    yield f"{method}/{variant}.{feature}", problem


@rule("options-known")
def options_known(sources: Sources) -> Iterator[Finding]:
    """A notable option is a field of the configuration class."""
    for method, entry in sources.observed.items():
        fields = fields_of(sources, method)
        for index, option in enumerate(entry.record.options):
            if fields and option not in fields:
                message = f"{entry.record.config_class} has no field {option!r}"
                hint = nearest(option, fields)
                yield method, entry.problem(f"options[{index}]", message, hint)


# --- what the wheels say ---


@rule("history-complete")
def history_complete(sources: Sources) -> Iterator[Finding]:
    """History says since when peft has every method, variant and field, in releases it read."""
    hint = "run: peft-shop catalog history WHEELS..."
    if sources.history is None:
        for method, entry in sources.curated.items():
            yield method, entry.problem("", "has no history: history.json is absent", hint)
        return
    history, record = sources.history, sources.history.record
    for method, entry in sources.curated.items():
        known = record.methods.get(method)
        if known is None or not known.fields:
            yield method, history.problem(f"methods.{method}", "is missing or has no fields", hint)
            continue
        for variant in entry.record.variants:
            if variant.id not in known.variants:
                place = f"methods.{method}.variants.{variant.id}"
                yield f"{method}/{variant.id}", history.problem(place, "is missing", hint)
    for method, known in record.methods.items():
        dated = {"since": known.since, **known.fields, **known.variants}
        for name, release in dated.items():
            if release not in record.releases:
                message = f"{release!r} is not among the releases that were read"
                yield method, history.problem(f"methods.{method}.{name}", message, hint)
        if method not in sources.curated:
            yield method, history.problem(f"methods.{method}", "is not in the catalog", hint)


RULES: Final[tuple[Rule, ...]] = (
    two_files,
    config_class,
    features_filled,
    note_required,
    conditions_partial,
    portable_note,
    verified_measured,
    observed_source,
    environment_known,
    one_peft,
    variant_known,
    variant_differs,
    options_known,
    history_complete,
)

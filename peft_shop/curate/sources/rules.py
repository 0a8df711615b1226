"""Every rule of the catalog by name, and what breaks them: `validate`.

The schema says what shape a record has; a rule says what makes sense. A record may break a rule
of sense where `catalog/exceptions.toml` says why; an exception that nothing needs is itself a
violation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from peft_shop.catalog.engines import FORMATS, OTHER_FORMAT, TOPIC_IDS
from peft_shop.catalog.features import FEATURE_IDS
from peft_shop.curate.sources import (
    curated_rules,
    definition_rules,
    engine_rules,
    fidelity_rules,
    observed_rules,
    run_rules,
    trainer_rules,
)
from peft_shop.curate.sources.sources import EXCEPTIONS, read_sources
from peft_shop.curate.sources.violations import Finding, Rule, Violation, nearest, rule
from peft_shop.errors import CatalogError, Problem
from peft_shop.upstream.source import installed_peft

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from peft_shop.catalog.engines import Engine
    from peft_shop.curate.sources.sources import Sources

__all__ = ["RULES", "Report", "broken", "installed_methods", "validate"]

FORMAT: Final = "format"
"""Stands for a rule where a file breaks the schema."""


@dataclass(frozen=True, slots=True)
class Report:
    """What `validate` found.

    Attributes:
        violations: every record that breaks a rule and is not excused, by rule and file.
        excused: those that an exception covers.
        unknown: methods of unknown support, by feature, and engines without an answer, by topic
            (`engines.<topic>`), and trainers likewise (`trainers.<topic>`); those without any are
            left out.
        counts: how many records of each kind were looked at.
        skipped: what could not be looked at, and why.
    """

    violations: tuple[Violation, ...]
    excused: tuple[Violation, ...] = ()
    unknown: dict[str, tuple[str, ...]] | None = None
    counts: dict[str, int] | None = None
    skipped: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether no rule is broken."""
        return not self.violations

    @property
    def unknowns(self) -> int:
        """How many capabilities and facts are unknown: the debt that is to be driven to zero."""
        return sum(len(methods) for methods in (self.unknown or {}).values())


def installed_methods() -> frozenset[str] | None:
    """Identifiers of the methods of the installed peft, which is read and not imported."""
    installed = installed_peft()
    return None if installed is None else frozenset(name.lower() for name in installed.methods)


@rule("methods-of-peft")
def methods_of_peft(sources: Sources) -> Iterator[Finding]:
    """The methods are those of the installed peft, where one is installed."""
    installed = installed_methods()
    if installed is None:
        return
    for method in sorted(installed - set(sources.curated)):
        path = f"catalog/curated/{method}.toml"
        hint = f"write it, then run: peft-shop catalog probe {method}"
        yield method, Problem(path, "", f"is missing: peft has {method.upper()}", hint)
    for method, entry in sources.curated.items():
        if method not in installed:
            message = f"the installed peft has no {method.upper()}"
            yield method, entry.problem("peft_type", message, nearest(method, installed))


RULES: Final[dict[str, Rule]] = {
    found.id: found
    for found in (
        methods_of_peft,
        *curated_rules.RULES,
        *observed_rules.RULES,
        *definition_rules.RULES,
        *run_rules.RULES,
        *engine_rules.RULES,
        *fidelity_rules.RULES,
        *trainer_rules.RULES,
    )
}
"""Every rule, by identifier."""


def broken(sources: Sources, *, integrity: bool | None = None) -> list[Violation]:
    """Violations of all rules, or of those that readers of the catalog rely on (or not)."""
    return [
        violation
        for found in RULES.values()
        if integrity is None or found.integrity == integrity
        for violation in found.violations(sources)
    ]


def validate(catalog: Path, data: Path) -> Report:
    """What is wrong with the sources of the catalog in the folders `catalog` and `data`."""
    try:
        sources = read_sources(catalog, data)
    except CatalogError as error:
        return Report(
            violations=tuple(Violation(FORMAT, problem.path, problem) for problem in error.problems)
        )
    violations = broken(sources)
    excused = [violation for violation in violations if _excused(violation, sources)]
    left = [violation for violation in violations if violation not in excused]
    left += [
        Violation("exceptions", record, problem)
        for record, problem in _exceptions(sources, violations)
    ]
    skipped = []
    if installed_methods() is None:
        skipped.append("methods-of-peft: peft is not installed; pip install 'peft-shop[peft]'")
    return Report(
        violations=tuple(left),
        excused=tuple(excused),
        unknown=_unknown(sources),
        counts={
            "methods": len(sources.curated),
            "variants": sum(len(e.record.variants) for e in sources.curated.values()),
            "benchmarks": len(sources.benchmarks),
            "snapshots": len(sources.snapshots),
            "runs": len(sources.runs),
            "engines": len(sources.engines),
            "trainers": len(sources.trainers),
            "exceptions": len(sources.excuses),
        },
        skipped=tuple(skipped),
    )


def _excused(violation: Violation, sources: Sources) -> bool:
    return not RULES[violation.rule].integrity and any(
        (excuse.record.rule, excuse.record.record) == (violation.rule, violation.record)
        for excuse in sources.excuses
    )


def _exceptions(sources: Sources, violations: list[Violation]) -> Iterator[Finding]:
    """An exception is of a rule of sense, is needed, and stands once."""
    needed = {(violation.rule, violation.record) for violation in violations}
    seen: set[tuple[str, str]] = set()
    for entry in sources.excuses:
        key = (entry.record.rule, entry.record.record)
        name = f"{EXCEPTIONS}:{key[0]}:{key[1]}"
        if key[0] not in RULES:
            hint = nearest(key[0], RULES)
            yield name, entry.problem("rule", f"unknown rule {key[0]!r}", hint)
        elif RULES[key[0]].integrity:
            message = f"{key[0]!r} allows no exception: readers of the catalog rely on it"
            yield name, entry.problem("rule", message, "mend the record")
        elif key not in needed:
            message = f"{key[1]!r} keeps the rule {key[0]!r}"
            yield name, entry.problem("record", message, "remove the exception")
        elif key in seen:
            yield name, entry.problem("record", "stands here twice", "remove one")
        seen.add(key)


def _is_open(engine: Engine, topic: str) -> bool:
    """Whether nobody knows an engine's answer to a topic."""
    fact = engine.facts.get(topic)
    if fact is None and topic in FORMATS:
        fact = engine.facts.get(OTHER_FORMAT)
    return fact is None or fact.value == "unknown"


def _unknown(sources: Sources) -> dict[str, tuple[str, ...]]:
    """Methods of unknown support by feature, after overrides; engines without answer by topic."""
    found: dict[str, tuple[str, ...]] = {}
    for feature in FEATURE_IDS:
        methods = []
        for method, entry in sources.observed.items():
            capability = entry.record.capabilities.get(feature)
            support = capability.support if capability else "unknown"
            curated = sources.curated.get(method)
            if curated and feature in curated.record.overrides:
                support = curated.record.overrides[feature].support
            if support == "unknown":
                methods.append(method)
        if methods:
            found[feature] = tuple(methods)
    for topic in TOPIC_IDS:
        engines = [name for name, entry in sources.engines.items() if _is_open(entry.record, topic)]
        if engines:
            found[f"engines.{topic}"] = tuple(engines)
    return found | trainer_rules.unknown(sources)

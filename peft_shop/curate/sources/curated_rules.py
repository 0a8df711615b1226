"""Rules about what people wrote of a method."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from peft_shop.catalog.features import FEATURE_IDS
from peft_shop.catalog.runs import Training
from peft_shop.curate.sources.violations import Finding, Rule, fields_of, nearest, rule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from peft_shop.catalog.methods import Curated, Variant
    from peft_shop.curate.sources.sources import Entry, Sources

__all__ = ["RULES"]

_SUMMARY: Final = (60, 400)
"""Shortest and longest summary [characters]: one or two sentences that say something."""
_ARXIV: Final = re.compile(r"https://arxiv\.org/abs/(?P<year>\d\d)\d\d\.\d{4,5}")
_UNFINISHED: Final = re.compile(r"\b(?:TODO|FIXME|XXX|TBD)\b")


def _variants(sources: Sources) -> Iterator[tuple[str, Entry[Curated], str, Variant]]:
    """Every variant with its method, file and place."""
    for method, entry in sources.curated.items():
        for index, variant in enumerate(entry.record.variants):
            yield method, entry, f"variants[{index}]", variant


# --- what people wrote ---


@rule("paper-or-reason")
def paper_or_reason(sources: Sources) -> Iterator[Finding]:
    """A method has a paper, or says why it has none; not both."""
    for method, entry in sources.curated.items():
        if (entry.record.paper is None) == (entry.record.no_paper_because is None):
            message = "give either `paper` or `no_paper_because`"
            yield method, entry.problem("paper", message)


@rule("paper-link")
def paper_link(sources: Sources) -> Iterator[Finding]:
    """A link to arXiv is the abstract's, without version, and the year is that of its number."""
    papers = [(m, e, "paper", e.record.paper) for m, e in sources.curated.items()]
    papers += [
        (f"{method}/{variant.id}", entry, f"{place}.paper", variant.paper)
        for method, entry, place, variant in _variants(sources)
    ]
    for record, entry, place, paper in papers:
        if paper is None or "arxiv.org" not in paper.url:
            continue
        match = _ARXIV.fullmatch(paper.url)
        if match is None:
            hint = "write https://arxiv.org/abs/NUMBER without version"
            yield record, entry.problem(f"{place}.url", f"{paper.url} is no abstract", hint)
        elif 2000 + int(match["year"]) != paper.year:
            message = f"is {paper.year}, the link is of {2000 + int(match['year'])}"
            yield record, entry.problem(f"{place}.year", message, "give the first version's year")


@rule("summary")
def summary(sources: Sources) -> Iterator[Finding]:
    """A method's summary is one or two whole sentences of 60 to 400 characters."""
    least, most = _SUMMARY
    for method, entry in sources.curated.items():
        text = entry.record.summary
        if not least <= len(text) <= most:
            message = f"has {len(text)} characters; {least} to {most} are wanted"
            yield method, entry.problem("summary", message)
        if not text.endswith("."):
            yield method, entry.problem("summary", "does not end as a sentence")


@rule("finished-text")
def finished_text(sources: Sources) -> Iterator[Finding]:
    """No text is a reminder to write one, and every line of prose ends as a sentence."""
    texts = [
        (method, entry, f"notes[{index}]", note)
        for method, entry in sources.curated.items()
        for index, note in enumerate(entry.record.notes)
    ]
    texts += [
        (f"{method}/{variant.id}", entry, f"{place}.summary", variant.summary)
        for method, entry, place, variant in _variants(sources)
    ]
    for record, entry, place, text in texts:
        if _UNFINISHED.search(text):
            yield record, entry.problem(place, f"is unfinished: {text[:60]!r}")
        elif not text.endswith((".", "!", "?")):
            yield record, entry.problem(place, "does not end as a sentence")


@rule("names-unique", integrity=True)
def names_unique(sources: Sources) -> Iterator[Finding]:
    """An alias means one method only and is no method's identifier; variants differ in name."""
    owners: dict[str, str] = {method: method for method in sources.curated}
    for method, entry in sources.curated.items():
        for index, alias in enumerate(entry.record.aliases):
            key = alias.lower().replace("-", "_")
            owner = owners.setdefault(key, f"{method} (alias)")
            if owner != f"{method} (alias)" or entry.record.aliases.index(alias) != index:
                yield method, entry.problem(f"aliases[{index}]", f"{alias!r} names {owner} already")
        seen: set[str] = set()
        for index, variant in enumerate(entry.record.variants):
            if variant.id in seen:
                message = f"{variant.id!r} stands here twice"
                yield f"{method}/{variant.id}", entry.problem(f"variants[{index}].id", message)
            seen.add(variant.id)


@rule("tasks")
def tasks(sources: Sources) -> Iterator[Finding]:
    """Task types are given once each, and cover the benchmarks on which the method has runs."""
    needs = {
        entry.record.id: "IMAGE" if entry.record.modality == "image" else "CAUSAL_LM"
        for entry in sources.benchmarks
    }
    measured: dict[str, set[str]] = {}
    for run in sources.runs:
        measured.setdefault(run.record.method, set()).add(run.record.benchmark)
    for method, entry in sources.curated.items():
        types = entry.record.task_types
        if not types or len(set(types)) < len(types):
            yield method, entry.problem("task_types", "give each type once, and at least one")
        for benchmark in sorted(measured.get(method, set()) & set(needs)):
            if needs[benchmark] not in types:
                message = f"lacks {needs[benchmark]}, though there are runs on {benchmark}"
                yield method, entry.problem("task_types", message)


@rule("family-category")
def family_category(sources: Sources) -> Iterator[Finding]:
    """A method that peft treats as prompt learning is of the family `prompt`, trains no image."""
    for method, entry in sources.curated.items():
        observed = sources.observed.get(method)
        if observed is None or observed.record.category != "prompt_learning":
            continue
        if entry.record.family != "prompt":
            message = f"is {entry.record.family!r}, though peft treats it as prompt learning"
            yield method, entry.problem("family", message, 'write family = "prompt"')
        if "IMAGE" in entry.record.task_types:
            yield method, entry.problem("task_types", "IMAGE, though it needs input tokens")


@rule("filled-by-compiler")
def filled_by_compiler(sources: Sources) -> Iterator[Finding]:
    """A curated variant leaves `capabilities` and `since` to the probe and the wheels."""
    for method, entry, place, variant in _variants(sources):
        for name in ("capabilities", "since"):
            if getattr(variant, name):
                message = "is filled in when the catalog is compiled"
                hint = "remove it; the probe and the history say it"
                yield f"{method}/{variant.id}", entry.problem(f"{place}.{name}", message, hint)


@rule("variant-conditions")
def variant_conditions(sources: Sources) -> Iterator[Finding]:
    """A variant has conditions; each tests one existing setting in one way."""
    options = {name for run in sources.runs for name in run.record.recipe.training.options}
    settings = {*Training.model_fields, *options}
    for method, entry, place, variant in _variants(sources):
        record = f"{method}/{variant.id}"
        if not variant.when:
            message = "nothing tells it from its method"
            yield record, entry.problem(f"{place}.when", message, "give at least one condition")
        for index, condition in enumerate(variant.when):
            where = f"{place}.when[{index}]"
            if (condition.config is None) == (condition.training is None):
                yield record, entry.problem(where, "name either `config` or `training`")
            given = [
                name
                for name in ("equals", "one_of", "prefix", "is_set")
                if getattr(condition, name) is not None
            ]
            if len(given) != 1:
                message = f"give one of equals, one_of, prefix, is_set; found {len(given)}"
                yield record, entry.problem(where, message)
            fields = fields_of(sources, method)
            if condition.config is not None and fields and condition.config not in fields:
                message = f"{entry.record.config_class} has no field {condition.config!r}"
                hint = nearest(condition.config, fields)
                yield record, entry.problem(f"{where}.config", message, hint)
            setting = (condition.training or "").removeprefix("options.")
            if condition.training is not None and setting not in settings:
                message = f"no run has a training setting {setting!r}"
                hint = nearest(setting, settings)
                yield record, entry.problem(f"{where}.training", message, hint)


@rule("override-known", integrity=True)
def override_known(sources: Sources) -> Iterator[Finding]:
    """An override replaces the observation of an existing feature."""
    for method, entry in sources.curated.items():
        for feature in entry.record.overrides:
            if feature not in FEATURE_IDS:
                hint = nearest(feature, FEATURE_IDS)
                problem = entry.problem(f"overrides.{feature}", "unknown feature", hint)
                yield f"{method}.{feature}", problem


@rule("override-needed")
def override_needed(sources: Sources) -> Iterator[Finding]:
    """An override says something else than the observation."""
    for method, entry in sources.curated.items():
        observed = sources.observed.get(method)
        for feature, override in entry.record.overrides.items():
            seen = observed.record.capabilities.get(feature) if observed else None
            if seen and seen.support == override.support:
                message = f"the probe says {seen.support!r} as well"
                problem = entry.problem(f"overrides.{feature}", message, "remove the override")
                yield f"{method}.{feature}", problem


RULES: Final[tuple[Rule, ...]] = (
    paper_or_reason,
    paper_link,
    summary,
    finished_text,
    names_unique,
    tasks,
    family_category,
    filled_by_compiler,
    variant_conditions,
    override_known,
    override_needed,
)

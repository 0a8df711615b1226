"""Rules that hold exact ranks, which people wrote, against the ranks that the probe measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from peft_shop.catalog.methods import FIDELITY_RANKS
from peft_shop.curate.sources.violations import Finding, Rule, rule
from peft_shop.serve.adapter import Adapter
from peft_shop.serve.ranks import exact_rule, formula, rank_by

if TYPE_CHECKING:
    from collections.abc import Iterator

    from peft_shop.catalog.engines import Conversion
    from peft_shop.catalog.methods import Fidelity, Observation
    from peft_shop.curate.sources.sources import Entry, Sources

__all__ = ["RULES"]

_EXTRACTABLE: Final = "extractable_to_lora"


def _name(conversion: Conversion) -> str:
    return ":".join([conversion.way, conversion.method or "any", *conversion.traits])


def _points(sources: Sources, method: str) -> Iterator[tuple[Adapter, str, str, int]]:
    """Every measured rank of a method: adapter, place in its file, shape, rank."""
    entry, curated = sources.observed[method], sources.curated.get(method)
    fidelity = entry.record.fidelity
    usual = curated.record.probe.get("args", {}) if curated else {}
    for index, point in enumerate(fidelity.grid if fidelity else ()):
        adapter = Adapter(method, method, (), {**usual, **point.config})
        for shape, rank in point.ranks.items():
            yield adapter, f"fidelity.grid[{index}].ranks.{shape}", shape, rank


@rule("rank-measured")
def rank_measured(sources: Sources) -> Iterator[Finding]:
    """No measured rank is above the one that an exact rule tells, and one is equal to it."""
    rules = [entry.record for entry in sources.conversions]
    reached: dict[int, bool] = {}
    for method, entry in sources.observed.items():
        for adapter, place, shape, rank in _points(sources, method):
            found = exact_rule(rules, adapter)
            if found is None:
                continue
            told = rank_by(found, adapter)
            index = next(i for i, one in enumerate(rules) if one is found)
            reached[index] = reached.get(index, False) or rank == told
            if rank > told:
                message = f"rank {rank} on {shape}, and {formula(found)} tells {told}"
                hint = "mend the rule in catalog/conversions.toml"
                yield method, entry.problem(place, message, hint)
    for index, written in enumerate(sources.conversions):
        one = written.record
        measured = sources.observed.get(one.method or "")
        if one.verdict != "exact" or measured is None or measured.record.fidelity is None:
            continue
        if index not in reached:
            hint = f"add settings to probe.grid in catalog/curated/{one.method}.toml and probe"
            yield _name(one), written.problem("rank", "was never measured", hint)
        elif not reached[index]:
            message = f"{formula(one)} is above every measured rank"
            yield _name(one), written.problem("rank", message, "is it too high?")


@rule("rank-told")
def rank_told(sources: Sources) -> Iterator[Finding]:
    """A method that was written as an exact LoRA has a rule that tells at which rank."""
    rules = [entry.record for entry in sources.conversions]
    for method, entry in sources.observed.items():
        capability = entry.record.capabilities.get(_EXTRACTABLE)
        if capability is None or capability.support != "yes" or not rules:
            continue
        if exact_rule(rules, Adapter(method, method, (), {})) is None:
            hint = "write it in catalog/conversions.toml"
            yield method, entry.problem(f"capabilities.{_EXTRACTABLE}", "at no known rank", hint)


@rule("fidelity-measured")
def fidelity_measured(sources: Sources) -> Iterator[Finding]:
    """A verified extraction has numbers: a rank of the layer, errors that fall within 0 and 1."""
    for method, entry in sources.observed.items():
        capability = entry.record.capabilities.get(_EXTRACTABLE)
        if capability and capability.level == "verified" and entry.record.fidelity is None:
            yield method, entry.problem("fidelity", "is missing", f"probe {method} again")
        places = [("fidelity", method, entry.record.fidelity)]
        places += [
            (f"variants.{name}.fidelity", f"{method}/{name}", variant.fidelity)
            for name, variant in entry.record.variants.items()
        ]
        for place, record, fidelity in places:
            if fidelity is not None:
                yield from _numbers(entry, place, record, fidelity)


def _numbers(
    entry: Entry[Observation], place: str, record: str, fidelity: Fidelity
) -> Iterator[Finding]:
    errors = fidelity.errors
    if errors and len(errors) != len(FIDELITY_RANKS):
        yield record, entry.problem(f"{place}.errors", f"must be {len(FIDELITY_RANKS)}")
    elif list(errors) != sorted(errors, reverse=True) or any(not 0 <= e <= 1 for e in errors):
        yield record, entry.problem(f"{place}.errors", "must fall, within 0 and 1")
    if fidelity.rank is not None and not 0 < fidelity.rank <= min(fidelity.shape):
        yield record, entry.problem(f"{place}.rank", "must be from 1 to the layer's smaller side")


RULES: Final[tuple[Rule, ...]] = (rank_measured, rank_told, fidelity_measured)

"""What speaks for and against one way to an engine: the records, and the engine's answers.

An unknown fact stays unknown: a way that rests on one is shown, and satisfies nobody.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, get_args

from peft_shop.catalog.engines import FORMATS, OTHER_FORMAT
from peft_shop.records import Record

if TYPE_CHECKING:
    from collections.abc import Iterable

    from peft_shop.catalog.catalog import Catalog
    from peft_shop.catalog.engines import Conversion, Engine, Fact, RankRule
    from peft_shop.catalog.methods import Capability
    from peft_shop.serve.adapter import Adapter

__all__ = ["KINDS", "PEFT", "Basis", "Case", "Way", "ask_capability", "judge_rules", "load"]

WayKind: TypeAlias = Literal["native", "convert", "merge"]
KINDS: Final[tuple[WayKind, ...]] = get_args(WayKind)
Converter: TypeAlias = Literal["peft", "peft-shop"]
PEFT: Final = "peft"


class Basis(Record):
    """One fact that a way rests on.

    Attributes:
        about: the engine's identifier, or `peft`.
        version: that the fact is about.
        topic: what it is about.
        value: what was found.
        place: the source; of a capability, how it is known.
        date: of the source; `None` where it is not on record.
    """

    about: str
    version: str
    topic: str
    value: str
    place: str
    date: str | None = None


class Way(Record):
    """One kind of way to an engine.

    Attributes:
        kind: `native`, `convert` (to LoRA) or `merge`.
        by: who converts; `None` for the other kinds.
        works: yes, no or unknown.
        exact: whether the engine computes what was trained, up to rounding.
        rank: rank of the LoRA that a conversion makes; `None` where it is open.
        reasons: why it does not work, or why nobody knows.
        conditions: what to do for it to work.
        warnings: what it costs, and what goes wrong otherwise.
        basis: the facts it rests on.
    """

    kind: WayKind
    by: Converter | None = None
    works: Literal["yes", "no", "unknown"]
    exact: bool = True
    rank: int | None = None
    reasons: tuple[str, ...] = ()
    conditions: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    basis: tuple[Basis, ...] = ()

    @property
    def name(self) -> str:
        """Its kind, and who converts."""
        return f"{self.kind} by {self.by}" if self.by else self.kind


@dataclass(slots=True)
class Case:
    """What speaks for and against one way."""

    refusals: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)
    conditions: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    basis: list[Basis] = field(default_factory=list)
    excess: str | None = None
    """Why the rank is more than the engine takes."""

    def way(
        self,
        kind: WayKind,
        *,
        by: Converter | None = None,
        exact: bool = True,
        rank: int | None = None,
    ) -> Way:
        """The way, as far as it is known."""
        refusals = [*self.refusals, *([self.excess] if self.excess else [])]
        works: Literal["yes", "no", "unknown"] = "yes"
        if refusals or self.doubts:
            works = "no" if refusals else "unknown"
        return Way(
            kind=kind,
            by=by,
            works=works,
            exact=exact,
            rank=rank,
            reasons=tuple(dict.fromkeys(refusals or self.doubts)),
            conditions=tuple(dict.fromkeys(self.conditions)) if works != "no" else (),
            warnings=tuple(dict.fromkeys(self.warnings)) if works != "no" else (),
            basis=tuple(dict.fromkeys(self.basis)),
        )


# --- what the engine says ---


def load(case: Case, engine: Engine, adapter: Adapter) -> None:
    """Asks the engine about everything that the adapter has."""
    _ask(case, engine, adapter, adapter.format)
    if case.refusals:
        return  # what its adapters may have does not matter any more
    for trait in adapter.traits:
        if trait not in _NOT_ASKED:
            _ask(case, engine, adapter, trait)
    if adapter.method == "lora":
        _ask_ranks(case, engine, adapter)
        if engine.whole_alpha:
            _ask_whole(case, adapter)


_NOT_ASKED: Final = frozenset(("kasa", "miss_bat", "sampling"))
"""Traits that matter to conversions only; KaSA's tensors are asked about as `extra_tensors`."""


def _ask(case: Case, engine: Engine, adapter: Adapter, topic: str) -> None:
    fact = engine.facts.get(topic)
    if fact is None and topic in FORMATS:
        fact = engine.facts.get(OTHER_FORMAT)
    name = adapter.method if topic in FORMATS else topic.replace("_", " ")
    if fact is None:
        case.doubts.append(f"{name}: nobody looked it up")
        return
    case.basis.append(_basis(engine, topic, fact.value, fact.source))
    note = f" ({fact.note})" if fact.note else ""
    if fact.value in {"no", "reject"}:
        how = "refused with an error" if fact.value == "reject" else "not supported"
        case.refusals.append(f"{name}: {how}{note}")
    elif fact.value == "unknown":
        case.doubts.append(f"{name}: unknown{note}")
    elif fact.layout == "own":
        case.refusals.append(f"{name}: loads only in a format of its own{note}")
    elif fact.layout != PEFT:
        case.doubts.append(
            f"{name}: loads under {fact.layout}'s names of keys; renaming those of peft was not "
            f"tried{note}"
        )
    elif fact.value == "silent" and fact.needs is None:
        case.refusals.append(f"{name}: computed wrongly without a word{note}")
    else:
        _arrange(case, adapter, topic, fact)


def _arrange(case: Case, adapter: Adapter, topic: str, fact: Fact) -> None:
    """Notes what to do about something that works, or works once that was done."""
    if fact.needs:
        case.conditions.append(f"{fact.needs.rstrip('.')}{_figures(adapter, topic)}.")
        if fact.note:
            case.warnings.append(f"{topic.replace('_', ' ')}: {fact.note}")
    if topic == "rslora" and fact.value == "silent" and len(set(adapter.ranks)) > 1:
        case.refusals.append("rslora: no single alpha is right for layers of different ranks")


def _ask_whole(case: Case, adapter: Adapter) -> None:
    """An engine that reads lora_alpha as a whole number; no source says what becomes of others."""
    by_root = "rslora" in adapter.traits
    alpha = _rescaled(adapter) if by_root else adapter.alpha
    if alpha is not None and not alpha.is_integer():
        case.doubts.append(f"lora_alpha is read as a whole number, and {alpha:g} is none")
    elif alpha is None and by_root:
        case.conditions.append("lora_alpha is read as a whole number: choose a square rank.")


def _rescaled(adapter: Adapter) -> float | None:
    """`lora_alpha` that gives under alpha / r the scale of rsLoRA; `None` where it is open."""
    if adapter.alpha is None or not adapter.ranks:
        return None
    return adapter.alpha * math.sqrt(adapter.ranks[0])


def _figures(adapter: Adapter, topic: str) -> str:
    """The numbers behind what is to be done about a scale, where they are known."""
    alpha, rescaled = adapter.alpha, _rescaled(adapter)
    if alpha is None or rescaled is None or topic not in {"rslora", "scale"}:
        return ""
    rank = adapter.ranks[0]
    if topic == "scale":
        return f" (here {alpha:g} / {rank} = {alpha / rank:g})"
    return (
        f" (here r = {rank}, lora_alpha = {alpha:g}: lora_alpha * sqrt(r) = {rescaled:g}, "
        f"lora_alpha / sqrt(r) = {alpha / math.sqrt(rank):g})"
    )


def _ask_ranks(case: Case, engine: Engine, adapter: Adapter) -> None:
    rule = engine.ranks
    if rule.flag is None and rule.least is None and rule.most is None:
        return
    shown = rule.flag or f"ranks from {rule.least or 1} to {rule.most or 'any'}"
    case.basis.append(_basis(engine, "ranks", shown, rule.source))
    low, high = min(adapter.ranks, default=None), max(adapter.ranks, default=None)
    if rule.flag is not None:
        _ask_flag(case, rule, rule.flag, high)
    if rule.least is None and rule.most is None:
        return
    span = f"{rule.least or 1} to {rule.most}" if rule.most else f"{rule.least} up"
    if low is None or high is None:
        case.conditions.append(f"Choose ranks from {span}.")
    elif low < (rule.least or 1) or high > (rule.most or high):
        odd = low if low < (rule.least or 1) else high
        case.doubts.append(f"rank {odd}: the engine's kernels are made for {span}")


def _ask_flag(case: Case, rule: RankRule, flag: str, highest: int | None) -> None:
    note = f": {rule.note[0].lower()}{rule.note[1:].rstrip('.')}" if rule.note else ""
    if highest is None:
        parts = [f"one of {', '.join(map(str, rule.choices))}"] if rule.choices else []
        parts += [f"{rule.default} by default"] if rule.default else []
        known = f" ({'; '.join(parts)})" if parts else note
        case.conditions.append(f"Every rank must be at most {flag}{known}.")
        return
    fitting = [choice for choice in rule.choices if choice >= highest]
    if rule.choices and not fitting:
        case.excess = f"rank {highest}: {flag} takes at most {max(rule.choices)}"
    elif rule.default is None or highest > rule.default:
        value = min(fitting, default=highest)
        why = f": the default is {rule.default}" if rule.default else note
        case.conditions.append(f"Pass {flag} {value}{why}.")


def _basis(engine: Engine, topic: str, value: str, key: str) -> Basis:
    source = engine.sources[key]
    return Basis(
        about=engine.id,
        version=source.version or engine.version,
        topic=topic,
        value=value,
        place=source.place,
        date=source.date,
    )


# --- what is known of the adapter ---


def judge_rules(case: Case, catalog: Catalog, rules: Iterable[Conversion]) -> None:
    """Counts rules about what goes wrong against the way."""
    for rule in rules:
        if rule.verdict not in {"wrong", "refused", "unknown"}:
            continue
        because = rule.because or ""
        if rule.verdict == "unknown":
            case.doubts.append(because)
        else:
            case.refusals.append(
                f"peft does it wrongly without a word: {because}"
                if rule.verdict == "wrong"
                else because
            )
        case.basis.append(
            Basis(
                about=PEFT,
                version=catalog.peft_version,
                topic=f"{rule.way} {' + '.join(rule.traits) or rule.method or ''}".strip(),
                value=rule.verdict,
                place=rule.level,
            )
        )


def ask_capability(
    case: Case,
    catalog: Catalog,
    adapter: Adapter,
    feature: str,
    refusal: str,
    *,
    partly: bool = False,
) -> None:
    """A capability counts only as a plain yes, as it does for a question, or `partly` as well."""
    method = catalog.method_by_id[adapter.method]
    capability: Capability = method.capability(feature, adapter.variants)
    note = f" ({capability.note})" if capability.note else ""
    if capability.support == "no":
        case.refusals.append(f"{refusal}{note}")
    elif capability.support != "yes" and not (partly and capability.support == "partial"):
        case.doubts.append(f"{feature.replace('_', ' ')}: {capability.support}{note}")
    case.basis.append(
        Basis(
            about=PEFT,
            version=catalog.peft_version,
            topic=feature,
            value=capability.support,
            place=capability.level,
        )
    )

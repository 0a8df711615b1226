"""The ways from an adapter to an engine, each with what speaks for and against it.

Facts about engines and conversions are data of the catalog; here is the one evaluator. An unknown
fact stays unknown: a way that rests on one is shown, and satisfies nobody.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, get_args

from peft_shop.engines import FORMATS, OTHER_FORMAT
from peft_shop.records import Record

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from peft_shop.adapters import Adapter
    from peft_shop.engines import Conversion, Engine, Fact, RankRule
    from peft_shop.schema import Capability, Catalog

__all__ = ["KINDS", "Basis", "Way", "conversions", "merged", "native", "whole_model"]

WayKind: TypeAlias = Literal["native", "convert", "merge"]
KINDS: Final[tuple[WayKind, ...]] = get_args(WayKind)
_PEFT: Final = "peft"


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
        kind: `native`, `convert` (to LoRA, by peft) or `merge`.
        works: yes, no or unknown.
        exact: whether the engine computes what was trained, up to rounding.
        rank: rank of the LoRA that a conversion makes; `None` where it is open.
        reasons: why it does not work, or why nobody knows.
        conditions: what to do for it to work.
        warnings: what it costs, and what goes wrong otherwise.
        basis: the facts it rests on.
    """

    kind: WayKind
    works: Literal["yes", "no", "unknown"]
    exact: bool = True
    rank: int | None = None
    reasons: tuple[str, ...] = ()
    conditions: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    basis: tuple[Basis, ...] = ()


@dataclass(slots=True)
class _Case:
    """What speaks for and against one way."""

    refusals: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)
    conditions: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    basis: list[Basis] = field(default_factory=list)
    excess: str | None = None
    """Why the rank is more than the engine takes."""

    def way(self, kind: WayKind, *, exact: bool = True, rank: int | None = None) -> Way:
        """The way, as far as it is known."""
        refusals = [*self.refusals, *([self.excess] if self.excess else [])]
        works: Literal["yes", "no", "unknown"] = "yes"
        if refusals or self.doubts:
            works = "no" if refusals else "unknown"
        return Way(
            kind=kind,
            works=works,
            exact=exact,
            rank=rank,
            reasons=tuple(dict.fromkeys(refusals or self.doubts)),
            conditions=tuple(dict.fromkeys(self.conditions)) if works != "no" else (),
            warnings=tuple(dict.fromkeys(self.warnings)) if works != "no" else (),
            basis=tuple(dict.fromkeys(self.basis)),
        )


# --- as it is ---


def native(engine: Engine, adapter: Adapter) -> Way:
    """Loading the adapter as peft saved it."""
    case = _Case()
    _load(case, engine, adapter)
    return case.way("native")


def _load(case: _Case, engine: Engine, adapter: Adapter) -> None:
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


_NOT_ASKED: Final = frozenset(("kasa", "miss_bat"))
"""Traits that matter to conversions only; KaSA's tensors are asked about as `extra_tensors`."""


def _ask(case: _Case, engine: Engine, adapter: Adapter, topic: str) -> None:
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
    elif fact.layout != _PEFT:
        case.doubts.append(
            f"{name}: loads under {fact.layout}'s names of keys; renaming those of peft was not "
            f"tried{note}"
        )
    elif fact.value == "silent" and fact.needs is None:
        case.refusals.append(f"{name}: computed wrongly without a word{note}")
    else:
        _arrange(case, adapter, topic, fact)


def _arrange(case: _Case, adapter: Adapter, topic: str, fact: Fact) -> None:
    """Notes what to do about something that works, or works once that was done."""
    if fact.needs:
        case.conditions.append(f"{fact.needs.rstrip('.')}{_figures(adapter, topic)}.")
        if fact.note:
            case.warnings.append(f"{topic.replace('_', ' ')}: {fact.note}")
    if topic == "rslora" and fact.value == "silent" and len(set(adapter.ranks)) > 1:
        case.refusals.append("rslora: no single alpha is right for layers of different ranks")


def _ask_whole(case: _Case, adapter: Adapter) -> None:
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


def _ask_ranks(case: _Case, engine: Engine, adapter: Adapter) -> None:
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


def _ask_flag(case: _Case, rule: RankRule, flag: str, highest: int | None) -> None:
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


# --- by peft's conversion ---


def conversions(catalog: Catalog, engine: Engine, adapter: Adapter) -> Iterable[Way]:
    """Loading the LoRA that peft makes of the adapter."""
    rules = _rules(catalog, adapter, "convert")
    if any(rule.initial_model for rule in rules):
        yield _against_start(catalog, engine, adapter, rules)
        return
    case = _Case()
    _ask_capability(case, catalog, adapter, "convertible_to_lora", "peft does not convert it")
    _judge_rules(case, catalog, rules)
    if case.refusals:
        yield case.way("convert", exact=False)
        return
    exact = next((rule for rule in rules if rule.verdict == "exact"), None)
    if any(rule.verdict == "approximate" for rule in rules):
        exact = None
    rank = _exact_rank(exact, adapter) if exact is not None and adapter.stated else None
    outcome = adapter.converted(rank)
    _load(case, engine, outcome)
    if exact is None:
        because = [f" ({rule.because})" for rule in rules if rule.verdict == "approximate"]
        case.doubts.append(
            f"peft converts it approximately; the error was not measured yet{''.join(because)}"
        )
    elif case.excess is not None:
        case.excess = None
        case.doubts.append(
            f"exact at rank {rank}, which is more than the engine takes; the error at a lower "
            "rank was not measured yet"
        )
    if exact is None:
        case.conditions.insert(0, "Convert with peft: save_as_lora(folder, model, rank=...).")
    else:
        case.basis.append(
            Basis(
                about=_PEFT,
                version=catalog.peft_version,
                topic="exact rank",
                value=_formula(exact),
                place=exact.level,
            )
        )
        shown = _formula(exact) if rank is None else rank
        case.conditions.insert(0, f"Convert with peft: save_as_lora(folder, model, rank={shown}).")
        if _formula(exact) != "r":
            case.warnings.append("peft refuses a rank above the smaller side of any adapted layer.")
    yield case.way("convert", exact=exact is not None and not case.doubts, rank=rank)


def _against_start(
    catalog: Catalog, engine: Engine, adapter: Adapter, rules: Sequence[Conversion]
) -> Way:
    """Saving against the untrained adapter, where the start changed the base."""
    case = _Case()
    _judge_rules(case, catalog, [rule for rule in rules if not rule.initial_model])
    patterned = {"rank_pattern", "alpha_pattern"} & set(adapter.traits)
    if patterned and "rslora" in adapter.traits:
        case.refusals.append("rslora: peft refuses it together with patterns")
    outcome = adapter.saved_against_start()
    if not case.refusals:
        _load(case, engine, outcome)
    case.basis += [
        Basis(
            about=_PEFT,
            version=catalog.peft_version,
            topic="convertible_to_lora",
            value=rule.verdict,
            place=rule.level,
        )
        for rule in rules
        if rule.initial_model
    ]
    case.conditions.insert(
        0,
        "Save the adapter once before training, with init_lora_weights set to true, and give that "
        "folder to save_pretrained as path_initial_model_for_weight_conversion: a LoRA of twice "
        "the rank results.",
    )
    case.warnings += [
        f"Do not use peft's save_as_lora on it: {rule.because}"
        for rule in rules
        if rule.initial_model
    ]
    return case.way("convert", rank=max(outcome.ranks, default=None))


def _rules(catalog: Catalog, adapter: Adapter, way: str) -> list[Conversion]:
    traits = set(adapter.traits)
    return [
        rule
        for rule in catalog.conversions
        if rule.way == way
        and rule.method in {None, adapter.method}
        and traits.issuperset(rule.traits)
    ]


def _judge_rules(case: _Case, catalog: Catalog, rules: Iterable[Conversion]) -> None:
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
                about=_PEFT,
                version=catalog.peft_version,
                topic=f"{rule.way} {' + '.join(rule.traits) or rule.method or ''}".strip(),
                value=rule.verdict,
                place=rule.level,
            )
        )


def _exact_rank(rule: Conversion, adapter: Adapter) -> int:
    """The rule's sum of products; for LoRA the highest of the ranks that the layers have."""
    if adapter.method == "lora":
        return max(adapter.ranks)

    def value(name: str) -> int:
        found = adapter.config.get(name)
        whole = isinstance(found, int) and not isinstance(found, bool)
        return int(found) if whole and found is not None else rule.defaults[name]

    return sum(math.prod(value(name) for name in term) for term in rule.rank)


def _formula(rule: Conversion) -> str:
    return " + ".join(" * ".join(term) for term in rule.rank)


def _ask_capability(
    case: _Case, catalog: Catalog, adapter: Adapter, feature: str, refusal: str
) -> None:
    """A capability counts only as a plain yes, as it does for a question."""
    method = catalog.method_by_id[adapter.method]
    capability: Capability = method.capability(feature, adapter.variants)
    note = f" ({capability.note})" if capability.note else ""
    if capability.support == "no":
        case.refusals.append(f"{refusal}{note}")
    elif capability.support != "yes":
        case.doubts.append(f"{feature.replace('_', ' ')}: {capability.support}{note}")
    case.basis.append(
        Basis(
            about=_PEFT,
            version=catalog.peft_version,
            topic=feature,
            value=capability.support,
            place=capability.level,
        )
    )


# --- merged ---


def merged(catalog: Catalog, engine: Engine, adapter: Adapter) -> Way:
    """Serving the whole model with the adapter merged into it."""
    case = _Case()
    _ask_capability(case, catalog, adapter, "merging", "it does not merge into the base")
    _judge_rules(case, catalog, _rules(catalog, adapter, "merge"))
    case.conditions += [
        "Merge it into the base in fp32 or bf16 (merge_and_unload) and save the whole model.",
        f"{engine.title} must serve the base model itself.",
    ]
    case.warnings += [
        "Costs a full copy of the model for every task.",
        "Lossy on a 4-bit base: load the base in bf16 or fp32, merge, and quantize again.",
    ]
    return case.way("merge")


def whole_model(engine: Engine) -> Way:
    """Serving what full fine-tuning leaves: a whole model."""
    case = _Case()
    case.conditions.append(f"{engine.title} must serve the base model itself.")
    case.warnings.append("Costs a full copy of the model for every task.")
    return case.way("merge")

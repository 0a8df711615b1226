"""What an engine says of an adapter: of its base, of what it is and has, of its ranks."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from peft_shop.catalog.engines import FORMATS, OTHER_FORMAT
from peft_shop.catalog.methods import PLAIN
from peft_shop.serve.cases import PEFT, fact_basis
from peft_shop.serve.matching import ask_base, ask_rules

if TYPE_CHECKING:
    from peft_shop.catalog.engines import Engine, Fact, RankRule
    from peft_shop.serve.adapter import Adapter
    from peft_shop.serve.cases import Case

__all__ = ["least_flag", "load"]


def load(case: Case, engine: Engine, adapter: Adapter) -> None:
    """Asks the engine about the adapter, its base and everything that the adapter has."""
    ask_base(case, engine, adapter)
    if case.refusals:
        return  # what it does with adapters of other bases does not matter
    _ask(case, engine, adapter, adapter.format)
    if case.refusals or case.silents:
        return  # what its adapters may have does not matter any more
    ask_rules(case, engine, adapter)
    for trait in adapter.traits:
        if trait not in _NOT_ASKED:
            _ask(case, engine, adapter, trait)
    if adapter.method == PLAIN:
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
    case.basis.append(fact_basis(engine, topic, fact.value, fact.source))
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
        case.silents.append(f"{name}: computed wrongly without a word{note}")
    else:
        _arrange(case, adapter, topic, fact)


def _arrange(case: Case, adapter: Adapter, topic: str, fact: Fact) -> None:
    """Notes what to do about something that works, or works once that was done."""
    if fact.needs:
        case.conditions.append(f"{fact.needs.rstrip('.')}{_figures(adapter, topic)}.")
        if fact.note:
            case.warnings.append(f"{topic.replace('_', ' ')}: {fact.note}")
    if topic == "rslora" and fact.value == "silent" and len(set(adapter.ranks)) > 1:
        case.silents.append("rslora: no single alpha is right for layers of different ranks")


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
    case.basis.append(fact_basis(engine, "ranks", shown, rule.source))
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


def least_flag(rule: RankRule, highest: int) -> int:
    """The least value of a rank flag that `highest` fits; `highest` itself where none does."""
    return min((choice for choice in rule.choices if choice >= highest), default=highest)


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

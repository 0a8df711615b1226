"""What an engine says of a base, and of circumstances that no single setting of an adapter shows.

What contradicts an engine's facts ends a way; what is not known is a doubt where something hints at
trouble, and a condition where nothing does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from peft_shop.catalog.engines import ANY_OTHER, BASE_KINDS, CIRCUMSTANCES
from peft_shop.serve.cases import fact_basis
from peft_shop.serve.circumstances import applies
from peft_shop.serve.fields import plain

if TYPE_CHECKING:
    from peft_shop.catalog.engines import Architectures, BaseKind, Engine, Fact, LoadRule
    from peft_shop.serve.adapter import Adapter
    from peft_shop.serve.bases import Base
    from peft_shop.serve.cases import Case

__all__ = ["ask_base", "ask_origin", "ask_rules", "ask_serving"]

_OF_CLASSES = ("decoder", "encoder", "speech", "multimodal", "hybrid", "experts")
"""Kinds that a list of classes can answer for, where it has the base's."""


_BY_MODEL = ("grown_vocabulary", "tied_head")
"""Circumstances that a model tells and a folder cannot, and that are rare."""


def ask_base(case: Case, engine: Engine, adapter: Adapter) -> None:
    """Asks the engine whether it serves adapters on the base."""
    base = adapter.base
    if base is None:
        return
    if not base.kinds:
        _ask_among(case, engine, base)
        return
    group = None if base.architecture is None else engine.of_class(base.architecture)
    named = group is not None and ANY_OTHER not in group.names
    for kind in _kinds(base):
        if named and kind in _OF_CLASSES:
            continue  # its own class is known better than its kind
        fact = engine.kinds.get(kind)
        about = f"{_called(base)} is {BASE_KINDS[kind]} ({base.how})"
        if fact is None:
            case.doubts.append(f"{about}: nobody looked up whether it serves adapters on such")
            continue
        topic = f"base: {kind.replace('_', ' ')}"
        case.basis.append(fact_basis(engine, topic, fact.value, fact.source))
        _weigh(case, fact, about)
        if case.refusals or case.silents:
            return
    if group is not None:
        topic = f"class: {base.architecture}"
        case.basis.append(fact_basis(engine, topic, group.value, group.source))
        _weigh(case, group, f"{base.architecture} ({base.how})")
    elif engine.architectures and base.architecture is None:
        case.conditions.append(
            f"The base's class must be one that {engine.title} adapts: nothing in the folder tells "
            "it; name the base with --model."
        )


def _ask_among(case: Case, engine: Engine, base: Base) -> None:
    """Asks about a base of which nothing tells more than that it is one of some kinds."""
    facts = {kind: engine.kinds.get(kind) for kind in BASE_KINDS if kind in base.among}
    if facts and all(
        fact is not None and fact.value in {"no", "reject"} for fact in facts.values()
    ):
        kinds = " or ".join(BASE_KINDS[kind] for kind in facts)
        case.refusals.append(f"by its modules or task the base is {kinds}: none of them is served")
        return
    case.conditions.append(
        f"The base must be one on which {engine.title} serves adapters: nothing in the folder "
        "tells what it is; name it with --model."
    )


def _kinds(base: Base) -> list[BaseKind]:
    return [kind for kind in BASE_KINDS if kind in base.kinds]


def _called(base: Base) -> str:
    return base.architecture or base.name or "the base"


def _weigh(case: Case, answer: Fact | Architectures, about: str) -> None:
    note = f": {answer.note.rstrip('.')}" if answer.note else ""
    if answer.value == "no":
        case.refusals.append(f"{about}, which it does not serve{note}")
    elif answer.value == "reject":
        case.refusals.append(f"{about}: adapters are refused{note}")
    elif answer.value == "silent" and answer.needs is None:
        case.silents.append(f"{about}: adapters are ignored without a word{note}")
    elif answer.value == "unknown":
        case.doubts.append(f"{about}: unknown{note}")
    elif answer.needs:
        case.conditions.append(answer.needs)


def ask_serving(case: Case, engine: Engine, base: Base | None) -> None:
    """Asks whether the engine serves the base at all, without adapters."""
    if base is None:
        return
    for kind in _kinds(base):
        fact = engine.kinds.get(kind)
        if fact is not None and fact.value == "no":
            _weigh(case, fact, f"{_called(base)} is {BASE_KINDS[kind]} ({base.how})")
            return
    group = None if base.architecture is None else engine.of_class(base.architecture)
    if group is not None and group.value == "no":
        _weigh(case, group, f"{base.architecture} ({base.how})")


def ask_rules(case: Case, engine: Engine, adapter: Adapter) -> None:
    """Asks the engine's rules about the adapter on its base."""
    if not any(rule.when == "other_base" for rule in engine.rules):
        ask_origin(case, adapter)
    for rule in engine.rules:
        holds = applies(rule, adapter)
        if holds is None:
            _suspect(case, engine, adapter, rule)
        elif holds:
            case.basis.append(
                fact_basis(engine, rule.when.replace("_", " "), rule.value, rule.source)
            )
            _apply(case, rule, _about(adapter, rule))


def ask_origin(case: Case, adapter: Adapter) -> None:
    """Doubts an adapter that was trained on another model than its base."""
    if adapter.strangers:
        case.doubts.append(f"{_stranger(adapter)}; name the model that it was trained on")


def _about(adapter: Adapter, rule: LoadRule) -> str:
    """What of the adapter the rule is about, in words."""
    names = adapter.targets.names or frozenset()
    if rule.when == "adapts":
        return f"it adapts {_listed(names & set(rule.names))}"
    if rule.when == "adapts_without":
        return (
            f"it adapts {_listed(names & set(rule.names))} without "
            f"{_listed(set(rule.lacking) - names)}"
        )
    if rule.when == "adapts_other":
        return f"it adapts {_listed(names - set(rule.names))}"
    if rule.when == "other_base":
        return _stranger(adapter)
    if rule.when == "foreign_names":
        return (
            f"its modules have names of {adapter.targets.trainer}, as no model of transformers has"
        )
    return CIRCUMSTANCES[rule.when]


def _stranger(adapter: Adapter) -> str:
    """That the adapter was trained on something else, in words."""
    base = adapter.base.architecture if adapter.base is not None else None
    others = adapter.strangers
    inner = adapter.base is not None and any(
        name.endswith(f".{others[0].partition('*')[2].lstrip('.')}") for name in adapter.base.names
    )
    text = (
        f"it was trained on another model: {plain(others[0])} is no layer of {base or 'the base'}"
    )
    return f"{text}, whose layers of that kind have other names" if inner else text


def _listed(names: frozenset[str] | set[str], most: int = 6) -> str:
    some = sorted(names)
    more = f" and {len(some) - most} more" if len(some) > most else ""
    return ", ".join(plain(name, 60) for name in some[:most]) + more


def _apply(case: Case, rule: LoadRule, about: str) -> None:
    text = f"{about}: {rule.note}"
    if rule.value == "unknown":
        case.doubts.append(text)
    elif rule.needs is not None:
        case.conditions.append(rule.needs)
        case.warnings.append(_sentence(text))
    elif rule.value == "silent":
        case.silents.append(text)
    else:
        case.refusals.append(text)


def _suspect(case: Case, engine: Engine, adapter: Adapter, rule: LoadRule) -> None:
    """A rule of which nobody can tell whether it holds."""
    value = adapter.config.get("target_modules")
    if not adapter.stated or (value is None and not adapter.tensors):
        return  # which modules it adapts is still open
    text = f"{CIRCUMSTANCES[rule.when]}, perhaps: {rule.note}"
    if rule.when in _BY_MODEL:
        case.conditions.append(
            f"Name the base with --model: it does not do where {CIRCUMSTANCES[rule.when]}."
        )
    elif rule.needs is not None:
        case.conditions.append(f"If {CIRCUMSTANCES[rule.when]}: {rule.needs}")
    elif value == "all-linear" and not adapter.tensors:
        if rule.names and adapter.base is not None:
            case.conditions.append(
                f"Name the base with --model: {engine.title} does not serve every layer that "
                "all-linear stands for."
            )
    else:
        case.doubts.append(text)


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}"

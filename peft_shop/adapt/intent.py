"""What a recipe meant to adapt: the roles behind the names in it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from peft_shop.adapt.measured import MEASURED, MeasuredModel
from peft_shop.model.structure import ROLES
from peft_shop.upstream.targets import ALL_LINEAR, named_by, wildcard

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from peft_shop.adapt.drafts import RetargetCase
    from peft_shop.model.structure import Role

__all__ = ["DEFAULT_ROLES", "Intent", "intent_of", "measured_model"]

_ATTENTION: Final[tuple[Role, ...]] = ("attention_query", "attention_value")
DEFAULT_ROLES: Final[dict[str, tuple[Role, ...]]] = {
    "BEFT": ("attention_value",),
    "IA3": ("attention_key", "attention_value", "mlp_down"),
    "LN_TUNING": ("norm",),
    "TRAINABLE_TOKENS": ("embedding",),
}
"""Roles that peft adapts by itself on Llama, by method; query and value for all others."""
_NOT_LINEAR: Final = {"norm", "embedding", "head"}


@dataclass(frozen=True)
class Intent:
    """What a recipe adapts.

    Attributes:
        roles: in the order of `ROLES`.
        parts: last parts of the names, for roles of which the recipe adapted some modules only.
        feedforward: roles among them that IA3 scales at their input.
        own: full names, where the recipe's names are those of this very model.
        own_feedforward: full names among them that IA3 scales at their input.
    """

    roles: tuple[Role, ...]
    parts: Mapping[Role, frozenset[str]] = field(default_factory=dict)
    feedforward: tuple[Role, ...] = ()
    own: frozenset[str] | None = None
    own_feedforward: frozenset[str] = frozenset()


def measured_model(case: RetargetCase) -> MeasuredModel | None:
    """The model on record that the recipe was measured on; `None` where it is another one."""
    return None if case.recipe is None else MEASURED.get(case.recipe.training.model_id)


def intent_of(case: RetargetCase) -> Intent:
    """Roles that the recipe adapted, or those that its method adapts by default.

    A recipe of a model that is not on record is read as one for this very model where its names
    exist here, else by the names of the models on record.
    """
    default = DEFAULT_ROLES.get(case.peft_type, _ATTENTION)
    forward: tuple[Role, ...] = ("mlp_down",) if case.peft_type == "IA3" else ()
    if case.options.roles is not None:
        return Intent(roles=_sorted(case.options.roles), feedforward=forward)
    expression = _stated(case, "target_modules")
    if not expression or case.recipe is None:
        # a recipe for experts alone
        parameters = named_by(_stated(case, "target_parameters"), case.names.parameters)
        nothing_else: frozenset[str] | None = frozenset() if parameters else None
        return Intent(roles=default, feedforward=forward, own=nothing_else)
    forward_names = _stated(case, "feedforward_modules") or []
    model = measured_model(case)
    candidates: Iterable[MeasuredModel] = [model] if model else MEASURED.values()
    try:
        if (model is None or _same_layers(model, case)) and expression != ALL_LINEAR:
            own = _own(case, expression, forward_names)
            if own.own:
                return own
        for candidate in candidates:
            intent = _read(expression, forward_names, candidate)
            if intent.roles:
                return intent
    except re.error as error:
        case.draft.problem(f"target_modules {expression!r} is no regular expression: {error}")
        return Intent(roles=default, feedforward=forward)
    case.because(
        f"the recipe's names ({expression}) belong to another model; taken: what the method "
        "adapts by default"
    )
    return Intent(roles=default, feedforward=forward)


def _own(case: RetargetCase, expression: str | list[str], forward: str | list[str]) -> Intent:
    default = DEFAULT_ROLES.get(case.peft_type, _ATTENTION)
    own = case.names.named_by(expression) & case.names.layers
    scaled = (
        named_by(forward, own)
        if isinstance(forward, str)
        # peft compares without the dot here
        else frozenset(name for name in own if name.endswith(tuple(forward)))
    )
    return Intent(roles=default, own=own, own_feedforward=scaled)


def _same_layers(model: MeasuredModel, case: RetargetCase) -> bool:
    """Whether this model has the same linear layers, however many and wide."""
    here = {group.pattern for group in case.structure.groups if group.kind == "linear"}
    there = {pattern for pattern, role, _ in model.modules if role not in {"norm", "embedding"}}
    return here == {re.sub(r"\.\d+(?=\.|$)", ".*", pattern) for pattern in there}


def _stated(case: RetargetCase, name: str) -> str | list[str]:
    recipe = case.recipe
    if recipe is None:
        return []
    value = recipe.config.get(name, recipe.resolved.get(name))
    return value if isinstance(value, str | list) else []


def _read(expression: str | Sequence[str], forward: Sequence[str], model: MeasuredModel) -> Intent:
    if expression == ALL_LINEAR:
        hit = frozenset(name for name, role in model.roles.items() if role not in _NOT_LINEAR)
    else:
        hit = model.named_by(expression)
    roles = {model.roles[name] for name in hit}
    parts: dict[Role, frozenset[str]] = {}
    for role in roles:
        every = {wildcard(name) for name, one in model.roles.items() if one == role}
        some = {wildcard(name) for name in hit if model.roles[name] == role}
        if some != every:
            parts[role] = frozenset(one.rpartition(".")[2] for one in some)
    scaled = {model.roles[name] for name in named_by(forward, hit)}
    return Intent(roles=_sorted(roles), parts=parts, feedforward=_sorted(scaled))


def _sorted(roles: Iterable[Role]) -> tuple[Role, ...]:
    wanted = set(roles)
    return tuple(role for role in ROLES if role in wanted)

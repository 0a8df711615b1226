"""Roles -> the modules of this model that are adapted, and why not others."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from peft_shop.adapt.blocks import blocks_of, other_mixers, share_of_blocks
from peft_shop.adapt.circumstances import group_circumstances
from peft_shop.adapt.exceptions import refused_module
from peft_shop.adapt.intent import Intent
from peft_shop.adapt.towers import main_towers, told
from peft_shop.catalog.conditions import in_words
from peft_shop.model.structure import ROLES
from peft_shop.upstream.targets import endings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from peft_shop.adapt.drafts import RetargetCase
    from peft_shop.model.structure import ModuleGroup, Role

__all__ = ["choose_modules"]

_NORMS: Final = {"layer_norm", "rms_norm", "batch_norm", "group_norm"}
_QKV: Final[tuple[Role, ...]] = ("attention_query", "attention_key", "attention_value")
_STAND_INS: Final[dict[Role, tuple[tuple[Role, ...], ...]]] = {
    "attention_query": (("attention_qkv",), ("attention_mlp_in",), ("attention_latent",)),
    "attention_key": (
        ("attention_qkv",),
        ("attention_key_value",),
        ("attention_mlp_in",),
        ("attention_latent",),
    ),
    "attention_value": (
        ("attention_qkv",),
        ("attention_key_value",),
        ("attention_mlp_in",),
        ("attention_latent",),
    ),
    "attention_output": (("attention_mlp_out",),),
    "attention_qkv": (_QKV, ("attention_mlp_in",)),
    "attention_key_value": (("attention_key", "attention_value"), ("attention_qkv",)),
    "mlp_gate": (("mlp_gate_up",), ("attention_mlp_in",)),
    "mlp_up": (("mlp_gate_up",), ("attention_mlp_in",)),
    "mlp_down": (("attention_mlp_out",),),
    "mlp_gate_up": (("mlp_gate", "mlp_up"), ("attention_mlp_in",)),
    "attention_mlp_in": ((*_QKV, "mlp_gate", "mlp_up", "mlp_gate_up"),),
    "attention_mlp_out": (("attention_output", "mlp_down"),),
}
"""What does the work of a role where no module has it, best first."""
_EXPERTS: Final[dict[Role, tuple[Role, ...]]] = {
    "mlp_gate": ("expert_gate", "expert_gate_up"),
    "mlp_up": ("expert_up", "expert_gate_up"),
    "mlp_gate_up": ("expert_gate_up", "expert_gate", "expert_up"),
    "mlp_down": ("expert_down",),
}
"""The same work done by experts, beside dense layers or in their place."""
_NEAREST: Final[tuple[tuple[str, frozenset[Role]], ...]] = (
    (
        "the attention",
        frozenset({*_QKV, "attention_qkv", "attention_key_value", "attention_mlp_in"}),
    ),
    ("the attention", frozenset({"attention_output", "attention_latent", "attention_mlp_out"})),
    ("the mixers", frozenset({"mixer_in", "mixer_state", "mixer_out"})),
    (
        "the MLP",
        frozenset(
            {
                "mlp_gate",
                "mlp_up",
                "mlp_down",
                "mlp_gate_up",
                "expert_gate_up",
                "expert_gate",
                "expert_up",
                "expert_down",
            }
        ),
    ),
    ("the convolutions", frozenset({"convolution"})),
    ("other layers", frozenset({"other"})),
)
"""What is adapted where a model has none of the roles that were asked for."""


def choose_modules(case: RetargetCase, intent: Intent) -> None:
    """Fill in `case.groups` and `case.parameters`; a problem where nothing is left.

    Groups come in the model's order. Everything that is not simply the role that was asked for is
    told in `case.reasons`.
    """
    if intent.own is None:
        wanted = _wanted(case, intent)
    else:
        asked = _wanted(case, Intent(roles=()))  # heads and the like
        own = _own(case, intent.own)
        names = {name for group in own for name in group.names}
        wanted = [*own, *(one for one in asked if not names.issuperset(one.names))]
    taken = list(_adaptable(case, wanted))
    if not taken:
        taken = _nearest(case, intent)
    if not taken:
        case.draft.problem(f"{case.method.title} has nothing to adapt here: {_why_none(case)}")
        return
    case.groups = [group for group in taken if group.kind != "parameter"]
    case.parameters = [group for group in taken if group.kind == "parameter"]
    if intent.own is None and not case.draft.value("layers_to_transform"):
        _tell_share(case)
    forward = {
        role
        for one in intent.feedforward
        for role in (one, *_EXPERTS.get(one, ()), *(r for s in _STAND_INS.get(one, ()) for r in s))
    }
    case.feedforward = {
        name
        for group in case.groups
        for name in group.names
        if (group.role in forward if intent.own is None else name in intent.own_feedforward)
    }


def _tell_share(case: RetargetCase) -> None:
    """Say in how many blocks an adapter sits, where it is not in all of them."""
    names = [name for group in (*case.groups, *case.parameters) for name in group.names]
    towers = main_towers(case.structure, include_towers=case.options.include_towers)
    hit, every = share_of_blocks(case.structure, towers, names)
    if 0 < hit < every:
        case.draft.note(f"adapters sit in {hit} of {every} blocks; the others have none")


def _own(case: RetargetCase, own: frozenset[str]) -> list[ModuleGroup]:
    """Groups of exactly these names, and the parameters that the recipe states."""
    stated = set(case.draft.value("target_parameters") or ())
    module_groups = []
    for group in case.structure.groups:
        if group.kind == "parameter":
            names = tuple(name for name in group.names if stated.intersection(endings(name)))
        else:
            names = tuple(name for name in group.names if name in own)
        if names:
            module_groups.append(group.model_copy(update={"names": names}))
    return module_groups


def _wanted(case: RetargetCase, intent: Intent) -> list[ModuleGroup]:
    """Groups that do what the recipe's did, whether the method can adapt them or not."""
    options, structure = case.options, case.structure
    towers = main_towers(structure, include_towers=options.include_towers)
    groups = [group for group in structure.groups if group.tower in towers]
    present = {group.role for group in groups}
    roles = set(intent.roles)
    roles.update(("router",) if options.include_routers else ())
    roles.update(("head",) if options.include_heads else ())
    roles.update(("projector",) if options.include_towers else ())
    found: dict[Role, tuple[Role, ...]] = {}
    for role in (one for one in ROLES if one in roles):
        experts = tuple(one for one in _EXPERTS.get(role, ()) if one in present)
        if role in present:
            found[role] = (role, *experts)
        elif experts:
            # a dense MLP beside the experts can have the same work in another form
            dense = next((s for s in _STAND_INS.get(role, ()) if set(s) <= present), ())
            found[role] = (*dense, *experts)
            case.because(f"{told([role])} is the work of experts here")
        else:
            found[role] = _stand_in(case, role, present)
    chosen = {one for several in found.values() for one in several}
    picked = []
    for group in groups:
        if group.role not in chosen:
            continue
        parts = intent.parts.get(group.role)
        same = [one for one in groups if one.role == group.role]
        if parts and any(one.suffix in parts for one in same) and group.suffix not in parts:
            continue
        picked.append(group)
    mixers = other_mixers(groups, picked, [one for one in intent.roles if one in roles])
    if mixers:
        case.because(
            f"{len(blocks_of(mixers))} blocks mix tokens without this attention: taken there: "
            f"{', '.join(dict.fromkeys(mixer.suffix for mixer in mixers))}"
        )
    return [group for group in groups if group in picked or group in mixers]


def _stand_in(case: RetargetCase, role: Role, present: set[Role]) -> tuple[Role, ...]:
    for several in _STAND_INS.get(role, ()):
        there = tuple(one for one in several if one in present)
        if there:
            case.because(f"{told([role])} is part of {told(there)} here")
            return there
    if role not in {"head", "router", "projector"}:
        case.because(f"this model has no {told([role])}: left out")
    return ()


def _nearest(case: RetargetCase, intent: Intent) -> list[ModuleGroup]:
    if case.options.roles is not None or set(intent.roles) <= {"norm", "embedding"}:
        return []
    towers = main_towers(case.structure, include_towers=case.options.include_towers)
    groups = [group for group in case.structure.groups if group.tower in towers]
    for words, roles in _NEAREST:
        near = list(_adaptable(case, [group for group in groups if group.role in roles]))
        if near:
            case.because(
                f"nothing that the recipe adapted can be adapted here; taken: {words} "
                f"({told(role for role in ROLES if role in {group.role for group in near})})"
            )
            return near
    return []


def _adaptable(case: RetargetCase, groups: list[ModuleGroup]) -> Iterator[ModuleGroup]:
    """Those of `groups` that the method can adapt; the others are told."""
    fit = []
    left: dict[str, list[Role]] = {}
    for group in groups:
        why = _unfit(case, group)
        if why is None:
            fit.append(group)
        else:
            left.setdefault(why, []).append(group.role)
    kept = _one_width(case, fit) if case.peft_type == "FROD" else fit
    if kept:
        for why, roles in left.items():
            case.because(f"{told(dict.fromkeys(roles))} left out: {why}")
    yield from kept


def _why_none(case: RetargetCase) -> str:
    """Why none of the layers that could be meant can be adapted."""
    asked = case.options.roles
    if asked is not None and not set(asked) & set(case.structure.roles):
        return f"it has no {told(asked)}, but {told(case.structure.roles)}"
    towers = main_towers(case.structure, include_towers=case.options.include_towers)
    possible = {role for _, roles in _NEAREST for role in roles}
    if case.peft_type == "LN_TUNING":
        possible = {"norm"}
    reasons = dict.fromkeys(
        why
        for group in case.structure.groups
        if group.tower in towers and group.role in possible
        if (why := _unfit(case, group))
    )
    return "; ".join(reasons) or "this model has no such layer besides its head"


def _unfit(case: RetargetCase, group: ModuleGroup) -> str | None:
    """Why the method cannot adapt the modules of a group."""
    title = case.method.title
    if case.peft_type == "LN_TUNING" and (group.kind in _NORMS or group.role == "norm"):
        return None if group.parameters else f"{group.class_name} has no parameters"
    if group.kind in _NORMS or group.kind == "other":
        return f"{title} does not adapt {group.class_name}"
    unable = _unable(case, group)
    if unable is not None:
        return unable
    if case.peft_type == "GLORA" and not group.exact:
        return f"{title} refuses {group.class_name}, a subclass of torch.nn.Linear"
    if group.groups > 1:
        return f"{title} is not known to adapt convolutions with groups"
    return refused_module(case.peft_type, case.structure, group) or _too_small(case, group)


def _unable(case: RetargetCase, group: ModuleGroup) -> str | None:
    """Why a type of layer is not adapted; what depends on this model counts where it is met.

    Of inputs whose dimensions only a forward pass shows nothing is said here: preflight makes one.
    """
    title = case.method.title
    if group.kind == "parameter" and len(group.shape) < 2:
        return f"{title} adapts parameters of two or three dimensions"
    capability = case.method.capability(f"layer_types.{group.kind}", case.variants)
    support = capability.under(group_circumstances(case.structure, [group]))
    if support == "yes" or (support == "partial" and capability.conditions):
        return None
    if capability.support == "partial":
        if capability.conditions:
            return f"{title} adapts {group.kind} layers only {in_words(capability.conditions)}"
        return f"{title} adapts {group.kind} layers in part only: {capability.note}"
    verb = "is not known to adapt" if capability.support == "unknown" else "does not adapt"
    return f"{title} {verb} {group.kind} layers"


def _too_small(case: RetargetCase, group: ModuleGroup) -> str | None:
    inputs = group.in_features * math.prod(group.kernel)
    least = min(inputs, group.out_features)
    size = inputs * group.out_features
    if case.peft_type == "SHIRA" and size < inputs + group.out_features:
        return f"{inputs} x {group.out_features} is too small for any rank"
    if case.peft_type == "ROAD" and group.out_features % 2:
        return f"{group.out_features} outputs cannot be rotated in pairs"
    if case.peft_type == "OSF" and least < 2:
        return f"{inputs} x {group.out_features} leaves nothing to train"
    return None


def _one_width(case: RetargetCase, groups: list[ModuleGroup]) -> list[ModuleGroup]:
    """FRoD shares one basis among layers whose names end alike: all need the same width."""
    by_end: dict[str, dict[int, int]] = {}
    for group in groups:
        counts = by_end.setdefault(_category(group), {})
        counts[group.in_features] = counts.get(group.in_features, 0) + group.count
    kept = []
    for group in groups:
        counts = by_end[_category(group)]
        # the width of most modules stays, the wider one where they are even
        width = max(counts, key=lambda one: (counts[one], one))
        if group.in_features == width:
            kept.append(group)
        else:
            case.because(
                f"{group.pattern} left out: FRoD takes layers named alike in one width only, and "
                f"most have {width} inputs"
            )
    return kept


def _category(group: ModuleGroup) -> str:
    """How FRoD names what a group shares (peft 0.21.2, `frod/model.py`)."""
    parts = group.names[0].split(".")
    if len(parts) == 1 or parts[-2].isdigit():
        return parts[-1]
    if parts[-3:] == ["attention", "output", "dense"]:
        return "attention_output"
    return f"{parts[-2]}_{parts[-1]}"

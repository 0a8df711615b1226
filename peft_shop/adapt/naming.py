"""Chosen modules -> `target_modules` and what goes with it, in the shortest exact words."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from peft_shop.adapt.exceptions import LISTED_EXPERTS
from peft_shop.adapt.intent import measured_model
from peft_shop.catalog.methods import PLAIN_TYPE
from peft_shop.upstream.targets import endings, named_by, wildcard

if TYPE_CHECKING:
    from collections.abc import Collection

    from peft_shop.adapt.drafts import RetargetCase
    from peft_shop.upstream.targets import Expression

__all__ = ["name_targets"]


def name_targets(case: RetargetCase) -> None:
    """State the chosen modules: as the recipe does if that is exact, else as short as it goes."""
    draft, recipe = case.draft, case.recipe
    wanted = {name for group in case.groups for name in group.names}
    stated = draft.value("target_modules")
    resolved = recipe.resolved.get("target_modules") if recipe else None
    model = measured_model(case)
    because = "; ".join(case.reasons) or "names of this model"
    if stated and wanted and _exact(stated, case, wanted):
        pass
    elif not stated and resolved and _exact(resolved, case, wanted):
        if model is not None and model.model_type != case.structure.model_type:
            chosen = "peft would choose by the model's type; stated are the measured ones"
            draft.set("target_modules", resolved, chosen)
    elif wanted or not case.parameters:
        draft.set("target_modules", _shortest(case, wanted), because)
    else:
        draft.set("target_modules", [], because)
    if draft.unchanged("target_modules"):
        # the names are the recipe's own, yet not all that it adapted is here
        for reason in case.reasons:
            draft.note(reason)
    if case.has_field("feedforward_modules"):
        _name_feedforward(case, wanted, because)
    if recipe and draft.value("target_modules") is None:
        for name in ("target_modules", "feedforward_modules"):
            if name in recipe.resolved and name not in draft.config:
                case.resolved[name] = recipe.resolved[name]
    if case.parameters:
        _name_parameters(case, because)


def _exact(expression: str | list[str], case: RetargetCase, wanted: set[str]) -> bool:
    try:
        return case.names.named_by(expression) == wanted
    except re.error:  # told already where the recipe was read
        return False


def _shortest(case: RetargetCase, wanted: set[str]) -> Expression:
    regular = case.peft_type != PLAIN_TYPE or case.structure.model_type not in LISTED_EXPERTS
    if case.peft_type == "IA3" and case.feedforward:
        # in a list, the feed-forward modules must be entries of their own
        parts = [
            case.names.shortest(part, regular=False)
            for part in (wanted - case.feedforward, case.feedforward)
            if part
        ]
        entries = sorted({entry for part in parts for entry in part})
        if len(entries) <= len({wildcard(name) for name in wanted}):
            return entries
        pattern = case.names.regular(wanted)
        return entries if pattern is None else pattern
    return case.names.shortest(wanted, regular=regular)


def _name_feedforward(case: RetargetCase, wanted: set[str], because: str) -> None:
    recipe, draft = case.recipe, case.draft
    if recipe and "target_modules" not in draft.config and "feedforward_modules" in recipe.resolved:
        return
    scaled = case.feedforward
    stated = draft.value("feedforward_modules")
    targets = draft.value("target_modules")
    if isinstance(stated, list):
        inside = not isinstance(targets, list) or set(stated) <= set(targets)
        if inside and _scaled_by(stated, wanted) == scaled:
            return
    if isinstance(targets, list):
        entries = [target for target in targets if _scaled_by([target], wanted) <= scaled]
    else:
        entries = _endings_of(scaled, wanted - scaled)
    draft.set("feedforward_modules", sorted(entries), because)


def _scaled_by(entries: Collection[str], targets: set[str]) -> set[str]:
    """Peft compares ends of names here, without a dot before them, and only among targets."""
    return {name for name in targets if name.endswith(tuple(entries))}


def _endings_of(names: set[str], others: set[str]) -> list[str]:
    """Shortest ends of `names` that none of `others` has."""
    found: dict[str, None] = {}
    for name in sorted(names):
        if not name.endswith(tuple(found)):
            found[next(ending for ending in endings(name) if not _scaled_by([ending], others))] = (
                None
            )
    return list(found)


def _name_parameters(case: RetargetCase, because: str) -> None:
    # peft compares the ends of the names of all parameters: those of layers are in the way
    every = (
        *case.names.parameters,
        *(f"{name}.{leaf}" for name in case.names.all for leaf in ("weight", "bias")),
    )
    count = max(group.experts for group in case.parameters)
    case.draft.note(f"each of {count} experts gets an adapter of its own, of the full rank")
    wanted = {name for group in case.parameters for name in group.names}
    stated = case.draft.value("target_parameters")
    if stated and named_by(stated, every) == wanted:
        return
    entries: list[str] = []
    for name in (name for group in case.parameters for name in group.names):
        if not named_by(entries, [name]):
            entries.append(
                next(ending for ending in endings(name) if named_by([ending], every) <= wanted)
            )
    case.draft.set("target_parameters", sorted(entries), because)

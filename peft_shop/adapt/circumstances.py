"""What a verdict of the catalog may depend on, as a model and a configuration have it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from peft_shop.adapt.exceptions import FOUR_DIMENSIONS
from peft_shop.adapt.measured import MEASURED
from peft_shop.upstream.targets import ALL_LINEAR, names_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peft_shop.catalog.conditions import Given
    from peft_shop.model.structure import ModuleGroup, Structure
    from peft_shop.records import Json

__all__ = [
    "group_circumstances",
    "measured_circumstances",
    "model_circumstances",
    "shared_circumstances",
]

_LINEAR: Final = frozenset({"linear", "transformers_conv1d"})
_TOKENS: Final = frozenset({3})
"""Dimensions of the hidden states of a text: sample, token, channel."""
_ON_TOKENS: Final = frozenset(
    {
        "attention_query",
        "attention_key",
        "attention_value",
        "attention_output",
        "attention_qkv",
        "mlp_gate",
        "mlp_up",
        "mlp_down",
        "mlp_gate_up",
    }
)
"""Roles whose inputs are such hidden states in every model; of the others nothing is said."""


def measured_circumstances(model_id: str) -> Given:
    """Of a model that runs on record were measured on; empty where it is another."""
    model = MEASURED.get(model_id)
    if model is None:
        return {}
    return {
        "bias": frozenset({model.biased}),
        "tied": frozenset({model.tied}),
        "inputs": _TOKENS,
    }


def shared_circumstances() -> Given:
    """What all models have in common that runs on record were measured on."""
    first, *others = (measured_circumstances(name) for name in MEASURED)
    return {
        member: values
        for member, values in first.items()
        if all(other.get(member) == values for other in others)
    }


def model_circumstances(structure: Structure, config: Mapping[str, Json] | None) -> Given:
    """Of a user's model under a configuration; what nothing tells is left out.

    Args:
        structure: the model.
        config: peft configuration whose targets count; `None` for every layer of a block.
    """
    return group_circumstances(structure, _adapted(structure, config or {}))


def group_circumstances(structure: Structure, groups: Sequence[ModuleGroup]) -> Given:
    """Of some layers of a model; the dimensions of their inputs only where no model differs."""
    given: dict[str, frozenset[object]] = {
        "bias": frozenset(group.bias for group in groups),
        "square": frozenset(group.in_features == group.out_features for group in groups),
        "tied": frozenset({bool(structure.tied)}),
    }
    inputs = {_dimensions(structure, group) for group in groups}
    if groups and None not in inputs:
        given["inputs"] = frozenset(inputs)
    return given


def _dimensions(structure: Structure, group: ModuleGroup) -> int | None:
    """Of a layer's inputs; `None` where only a forward pass shows them."""
    for types, modules in FOUR_DIMENSIONS:
        if group.suffix in modules and (not types or structure.model_type in types):
            return 4
    return 3 if structure.modality == "text" and group.role in _ON_TOKENS else None


def _adapted(structure: Structure, config: Mapping[str, Json]) -> list[ModuleGroup]:
    """Linear layers that the configuration names, or that lie in a module that it names."""
    layers = [group for group in structure.groups if group.kind in _LINEAR]
    targets = config.get("target_modules")
    if not isinstance(targets, (str, list)) or targets == ALL_LINEAR:
        targets = []
    inside = names_of(structure).inside(targets)
    chosen = [group for group in layers if not inside.isdisjoint(group.names)]
    # all where none is named, or by a method's own rules, as LLaMA-Adapter does
    return chosen or [group for group in layers if group.role != "head"]

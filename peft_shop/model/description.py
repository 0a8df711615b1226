"""An instance on the meta device -> the record of its structure."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from peft_shop.errors import ModelError
from peft_shop.model.dimensions import (
    counts,
    dimensions,
    names_embeddings,
    task_type_of,
    text_config,
    value_of,
)
from peft_shop.model.evidence import evidence_for
from peft_shop.model.layers import find_layers
from peft_shop.model.quantized import backend_of, remarks
from peft_shop.model.roles import Roles
from peft_shop.model.storage import storage_of, storage_of_types
from peft_shop.model.stored_weights import cautions, stored
from peft_shop.model.structure import ModuleGroup, Structure
from peft_shop.model.towers import Towers, modalities_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import torch
    from torch import nn

    from peft_shop.catalog.features import TaskType
    from peft_shop.model.layers import Layer
    from peft_shop.model.loading import Loaded
    from peft_shop.model.structure import Role, Tower

__all__ = ["describe"]

_FIELDS: Final = (
    "kind", "class_name", "exact", "in_features", "out_features", "experts", "kernel", "groups",
    "bias", "parameters", "shape",
)  # fmt: skip
"""What a group has in common with its layers."""


def describe(loaded: Loaded, task_type: TaskType | None) -> Structure:
    """The structure of a model.

    Raises:
        ModelError: it has no layer that any method adapts.
    """
    instance, config = loaded.instance, loaded.config
    architecture = type(instance).__name__
    layers = list(find_layers(instance))
    groups = _groups(instance, config, loaded.library, layers)
    if not groups:
        raise ModelError(
            f"{architecture} has no layer that a method of peft adapts: no linear layer, "
            "convolution, embedding, norm or expert weight"
        )
    modality = _modality(loaded, groups)
    task = task_type or task_type_of(instance, config, loaded.library)
    evidence = evidence_for(architecture, modality, task)
    tied, parameters, dtype = _parameters(instance, layers)
    backend = backend_of(instance, config)
    others = sum(group.count for group in groups if group.role == "other")
    checkpoint = loaded.checkpoint
    storage = (
        storage_of(config)
        if checkpoint is None
        else storage_of(checkpoint.content, checkpoint.storage_files)
        or storage_of_types(checkpoint.stored_types)
    )
    notes = [*evidence.note, *loaded.remarks, *remarks(instance, config, backend)]
    if others:
        notes.append(f"What {others} linear layers do is not understood: their role is other.")
    structure = Structure(
        name=loaded.name,
        architecture=architecture,
        model_type=getattr(config, "model_type", None) or None,
        library=loaded.library,
        modality=modality,
        task_type=task,
        benchmark=evidence.benchmark,
        benchmark_because=evidence.because,
        groups=groups,
        quantization=backend,
        stored_quantization=None if storage is None else stored(storage, groups),
        tied=tied,
        dtype=loaded.dtype or dtype,
        dtype_stated=not loaded.assumed,
        parameters=parameters,
        dimensions=dimensions(config, groups, unet="UNet" in architecture),
        takes_embeddings=loaded.library != "transformers" or names_embeddings(instance),
    )
    notes += [f"{text[0].upper()}{text[1:]}." for text in cautions(structure)]
    return structure.model_copy(update={"notes": tuple(notes)})


def _groups(
    instance: nn.Module, config: Any, library: str, layers: Sequence[Layer]
) -> tuple[ModuleGroup, ...]:
    roles = Roles(
        {name: type(module).__name__ for name, module in instance.named_modules()},
        layers,
        experts=counts(config, "experts"),
        vocabularies=counts(config, "vocabularies"),
    )
    known = [(layer, role) for layer in layers if (role := roles.of(layer)) is not None]
    towers = Towers(instance, config, library)
    widths = {layer.in_features for layer, role in known if role == "router"}
    hidden = value_of(text_config(config), "hidden_size")
    widths |= {hidden} if isinstance(hidden, int) else set()
    grouped: dict[tuple[str, Role, Tower, Layer], list[str]] = {}
    for layer, role in known:
        pattern = ".".join("*" if one.isdigit() else one for one in layer.name.split("."))
        alike = replace(_turned(layer, role, widths), name=pattern)
        key = (pattern, role, towers.of(layer.name, role), alike)
        grouped.setdefault(key, []).append(layer.name)
    return tuple(
        ModuleGroup(
            pattern=pattern,
            names=tuple(names),
            role=role,
            tower=tower,
            **{field: getattr(layer, field) for field in _FIELDS},
        )
        for (pattern, role, tower, layer), names in grouped.items()
    )


def _turned(layer: Layer, role: Role, widths: set[int]) -> Layer:
    """An expert weight with its inputs and outputs the right way round.

    Some models hold it as (experts, outputs, inputs), others as (experts, inputs, outputs); the
    side that faces the residual stream is as wide as the router's input.
    """
    if not layer.experts:
        return layer
    inputs, outputs = layer.in_features, layer.out_features
    wrong = (
        inputs in widths and outputs not in widths
        if role == "expert_down"
        else outputs in widths and inputs not in widths
    )
    return replace(layer, in_features=outputs, out_features=inputs) if wrong else layer


def _parameters(
    instance: nn.Module, layers: Iterable[Layer]
) -> tuple[tuple[tuple[str, ...], ...], int, str | None]:
    """Names of tied parameters, the number of all, and the type of most."""
    same: dict[int, list[str]] = {}
    unique: dict[int, torch.Tensor] = {}
    for name, one in instance.named_parameters(remove_duplicate=False):
        same.setdefault(id(one), []).append(name)
        unique[id(one)] = one
    packed = {layer.name: layer for layer in layers if layer.packed}
    total = sum(layer.parameters for layer in packed.values())
    types: Counter[str] = Counter()
    for key, one in unique.items():
        if one.dtype.is_floating_point:
            types[str(one.dtype).removeprefix("torch.")] += one.numel()
        if same[key][0].rpartition(".")[0] not in packed:
            total += one.numel()
    tied = tuple(tuple(names) for names in same.values() if len(names) > 1)
    dtype = types.most_common(1)[0][0] if types else None
    return tied, total, dtype


def _modality(loaded: Loaded, groups: Sequence[ModuleGroup]) -> Any:
    if loaded.library == "diffusers":
        return "image"
    given = modalities_of(loaded.instance)
    if loaded.library != "transformers" or not given:
        return "unknown"
    if {group.tower for group in groups} == {"text"}:
        given = frozenset({"text"})  # the class can take more, but this instance has no part for it
    if len(given) > 1:
        return "multimodal"
    names = {"text": "text", "image": "vision", "audio": "audio"}
    return names.get(next(iter(given)), "unknown")

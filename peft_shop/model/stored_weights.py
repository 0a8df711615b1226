"""Which weights of a model its files store in few bits, and what to tell of it; no torch."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from peft_shop.model.structure import StoredQuantization
from peft_shop.units import format_quantity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from peft_shop.model.storage import Storage
    from peft_shop.model.structure import ModuleGroup, Structure

__all__ = ["cautions", "stored"]

_SIZES: Final = {"float32": 4, "float64": 8}
"""Bytes of a weight; of the others two."""


def stored(storage: Storage, groups: Sequence[ModuleGroup]) -> StoredQuantization:
    """What the files say, about the modules of one model."""
    covers, weights = [], 0
    rules = [_rule(one) for one in storage.kept]
    for group in groups:
        if not _can_be(group, storage):
            continue
        count = sum(not any(rule(name) for rule in rules) for name in group.names)
        weights += count * max(group.experts, 1) * group.in_features * group.out_features
        if 2 * count > group.count:
            covers.append(group.pattern)
    return StoredQuantization(
        name=storage.name,
        bits=storage.bits,
        group_size=storage.group_size,
        bytes_per_weight=storage.bytes_per_weight,
        weights=weights,
        covers=tuple(covers),
    )


def _can_be(group: ModuleGroup, storage: Storage) -> bool:
    if storage.name == "mlx" and group.role in {"embedding", "head"}:
        return True
    if group.role in {"head", "router"}:
        return False
    expert = group.role.startswith("expert_")
    if storage.experts_only:
        return expert
    return group.kind in {"linear", "transformers_conv1d"} or (group.kind == "parameter" and expert)


def _rule(pattern: str) -> Callable[[str], object]:
    """Whether a name is meant: a regular expression, a pattern with stars, or a part of it."""
    if pattern.startswith("re:"):
        # one that repeats a group or repeats much may take forever: files are not trusted
        text = pattern[3:]
        if (
            len(text) > 200
            or re.search(r"\)[*+{?]|\{", text)
            or len(re.findall(r"[*+?]", text)) > 3
        ):
            return lambda _: False
        try:
            return re.compile(text).match
        except re.error:
            return lambda _: False
    parts = pattern.split("*")

    def holds(name: str) -> bool:
        place = 0
        for part in parts:
            place = name.find(part, place)
            if place < 0:
                return False
            place += len(part)
        return True

    return holds


def cautions(structure: Structure, *, dtype: str | None = None) -> Iterator[str]:
    """What a reader must know of how the weights are stored, without a full stop.

    Args:
        structure: the model.
        dtype: in which it will be trained, where that is chosen; then nothing is assumed.
    """
    quantization = structure.stored_quantization
    if quantization is not None and structure.quantization is None:
        plain = format_quantity(
            structure.parameters * _SIZES.get(structure.dtype or "", 2), "bytes"
        )
        yield (
            f"its weights are stored as {quantization.name}{_width(quantization)}; training on "
            "them is not known to work: there is no record of it "
            f"(dequantized, all weights take {plain})"
        )
    if not structure.dtype_stated and dtype in {None, structure.dtype}:
        yield (
            f"its data type is not stated: {structure.dtype} is assumed; set dtype among the "
            "training settings for another (float16, float32)"
        )


def _width(found: StoredQuantization) -> str:
    if found.bits is None:
        return ", in a width that its files do not state and counted as if they were not"
    size = found.bytes_per_weight
    scales = "" if size is None or size * 8 == found.bits else f", {size:.2f} bytes with scales"
    return f" ({found.bits:g} bits a weight{scales}) and counted so"

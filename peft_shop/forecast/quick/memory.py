"""Peak memory of one training step as a sum of named terms, from shapes alone."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from peft_shop.forecast.quick.base_memory import DTYPE_SIZE, base_bytes
from peft_shop.forecast.quick.frozen import (
    Block,
    Load,
    block_load,
    blocks_of,
    head_bytes,
    residual_width,
    tokens_of,
)
from peft_shop.forecast.quick.methods.parts import DTYPE_BYTES, Adapter, Tensor

if TYPE_CHECKING:
    from peft_shop.forecast.records import Settings, TermName
    from peft_shop.model.structure import Structure

__all__ = [
    "STATES",
    "Parts",
    "adapter_size",
    "kept_bytes",
    "parts_of",
    "tensor_bytes",
    "whole_step",
]

STATES: Final[dict[str, float]] = {
    "adamw": 2.0,
    "adamw_8bit": 0.5078125,
    "sgd": 0.0,
    "adafactor": 0.0,
    "lora_fa": 2.0,
    "riemannian": 2.0,
}
"""Optimizer state per byte of trained float32 parameters: two moments; in 8 bits with scales."""


def adapter_size(settings: Settings) -> int:
    """Size of one adapter element [B]: float32 beside a half-precision base, as peft casts it."""
    return 4 if settings.autocast_adapter_dtype else DTYPE_SIZE[settings.dtype]


def tensor_bytes(tensor: Tensor, settings: Settings) -> int:
    """Bytes of a tensor in memory or in the checkpoint."""
    size = {"adapter": adapter_size(settings), "base": DTYPE_SIZE[settings.dtype]}
    return tensor.elements * (size.get(tensor.dtype) or DTYPE_BYTES[tensor.dtype])


@dataclass
class Parts:
    """Bytes at the moment of the peak, before what the allocator adds.

    Attributes:
        static: weights that are there all the time, by term.
        dynamic: what the step allocates, by term.
        trained: bytes of trained parameters.
        block: what the largest checkpointed block keeps of its own, adapters apart.
    """

    static: dict[TermName, float]
    dynamic: dict[TermName, float]
    trained: float
    block: float = 0.0


def is_trained(tensor: Tensor, settings: Settings) -> bool:
    """Whether the optimizer trains the tensor: LoRA-FA's freezes A."""
    frozen = settings.optimizer == "lora_fa" and ".lora_A." in tensor.name
    return tensor.trained and not frozen


def _is_held(tensor: Tensor, settings: Settings) -> bool:
    """Whether the tensor is on the accelerator."""
    return tensor.held and tensor.moved in {None, settings.moved_after_injection}


def parts_of(structure: Structure, adapter: Adapter, settings: Settings) -> Parts:
    """Parts of the peak of a training step with `adapter` on a frozen model.

    Raises:
        ConfigError: there is no closed form for the model.
    """
    base = base_bytes(structure, settings) - adapter.offloaded * DTYPE_SIZE[settings.dtype]
    held = sum(tensor_bytes(one, settings) for one in adapter.tensors if _is_held(one, settings))
    trained = sum(
        tensor_bytes(one, settings)
        for one in adapter.tensors
        if one.held and is_trained(one, settings)
    )
    static: dict[TermName, float] = {
        "base": base,
        "adapter": held,
        "optimizer": trained * STATES[settings.optimizer],
    }
    tokens = tokens_of(structure, settings, adapter.prompt_tokens)
    kept = kept_bytes(adapter, settings, tokens)
    if settings.gradient_checkpointing:
        dynamic, block = _checkpointed(structure, adapter, settings, tokens, kept)
        return Parts(static, dynamic, trained, block)
    dynamic = whole_step(structure, adapter, settings, tokens, kept=kept)
    return Parts(static, dynamic, trained)


class _Flow:
    """How far back the gradient goes: nothing is kept before the first trained module."""

    def __init__(self, structure: Structure, adapter: Adapter) -> None:
        names = {kept.site.name for kept in adapter.kept}
        self.everywhere = bool(adapter.prompt_tokens or adapter.prefix_tokens)
        self.sites: dict[tuple[str, int], set[str]] = defaultdict(set)
        roles = {name: group.role for group in structure.groups for name in group.names}
        for name in names:
            match = re.match(r"^(?P<stack>.*?)\.(?P<index>\d+)\.", name)
            if match is None:
                self.everywhere |= roles.get(name) == "embedding"
                continue
            self.sites[match["stack"], int(match["index"])].add(roles.get(name, "other"))

    def shares(self, block: Block) -> list[tuple[float, float, float]]:
        """Per block of the stack, the shares of norms, attention and MLP that are kept."""
        found = []
        reached = self.everywhere
        for index in range(block.count):
            roles = self.sites.get((block.stack, index), set())
            if reached:
                found.append((1.0, 1.0, 1.0))
            elif not roles:
                found.append((0.0, 0.0, 0.0))
            else:
                found.append(_first_block(roles))
                reached = True
        self.everywhere = reached
        return found


def _first_block(roles: set[str]) -> tuple[float, float, float]:
    """Shares in the block that holds the first trained module, whose input needs no gradient."""
    if "norm" in roles or "other" in roles:
        return 1.0, 1.0, 1.0
    if any(role.startswith("attention") and role != "attention_output" for role in roles):
        return 0.5, 1.0, 1.0
    if "attention_output" in roles:
        return 0.5, 0.0, 1.0
    if roles & {"mlp_gate", "mlp_up", "mlp_gate_up"}:
        return 0.0, 0.0, 1.0
    return 0.0, 0.0, 0.0


@dataclass
class _Site:
    """What the adapter keeps in one block [B]."""

    activations: float = 0.0
    weights: float = 0.0
    sequences: float = 0.0


def kept_bytes(
    adapter: Adapter, settings: Settings, tokens: int
) -> dict[tuple[str, int], list[float]]:
    """Kept activations and kept weights per block, (stack, index); outside blocks ('', 0)."""
    small, large = DTYPE_SIZE[settings.dtype], adapter_size(settings)
    batch = settings.batch_size * tokens
    found: dict[tuple[str, int], list[float]] = defaultdict(lambda: [0.0, 0.0])
    shared: set[tuple[str, int]] = set()
    for one in adapter.kept:
        match = re.match(r"^(?P<stack>.*?)\.(?P<index>\d+)\.", one.site.name)
        place = found[(match["stack"], int(match["index"])) if match else ("", 0)]
        casts = one.casts and not (settings.optimizer == "lora_fa" and _has_lora_a(adapter))
        copied = casts and large != small
        if one.input or (casts and not copied):
            key = (one.site.name.rpartition(".")[0], one.site.inputs)
            if key not in shared:
                shared.add(key)
                place[0] += small * one.site.inputs * batch
        token = large * (one.token + (one.site.inputs if copied else 0)) + small * one.base_token
        place[0] += token * batch + small * one.sequence * settings.batch_size
        place[1] += large * one.weight + small * one.base_weight + one.fixed
        if not settings.moved_after_injection:
            place[1] += small * one.copied_weight
    return found


def _has_lora_a(adapter: Adapter) -> bool:
    return any(".lora_A." in tensor.name for tensor in adapter.tensors)


def whole_step(
    structure: Structure,
    adapter: Adapter,
    settings: Settings,
    tokens: int,
    *,
    kept: dict[tuple[str, int], list[float]] | None = None,
    reach: bool = False,
) -> dict[TermName, float]:
    """Everything is kept until the loss, where logits and their gradients come on top [B].

    Args:
        structure: of the base model.
        adapter: what is added to it.
        settings: the training step.
        tokens: of one sequence.
        kept: by the adapter, per block.
        reach: whether the gradient reaches the first block's input whatever the adapter.
    """
    kept = kept or {}
    blocks = blocks_of(structure)
    flow = _Flow(structure, adapter)
    flow.everywhere |= reach
    norm = attention = mlp = 0.0
    for block in blocks:
        load = block_load(structure, block, settings, tokens, adapter.prefix_tokens)
        for shares in flow.shares(block):
            norm += load.norm * shares[0]
            attention += load.attention * shares[1]
            mlp += load.mlp * shares[2]
    norm += _last_norm(structure, settings, tokens)
    logits, loss = head_bytes(structure, settings, tokens)
    return {
        "activations_norm": norm,
        "activations_attention": attention,
        "activations_mlp": mlp,
        "activations_adapter": sum(one[0] for one in kept.values()),
        "weights_materialized": sum(one[1] for one in kept.values()),
        "logits": logits,
        "loss": loss,
    }


def _last_norm(structure: Structure, settings: Settings, tokens: int) -> float:
    """Float32 input of a norm outside the blocks."""
    hidden = structure.dimensions.hidden_size
    total = 0.0
    for group in structure.of(["norm"]):
        if "*" not in group.pattern and group.kind == "rms_norm" and group.out_features == hidden:
            total += 4.0 * group.out_features * settings.batch_size * tokens
    return total


def _checkpointed(
    structure: Structure,
    adapter: Adapter,
    settings: Settings,
    tokens: int,
    kept: dict[tuple[str, int], list[float]],
) -> tuple[dict[TermName, float], float]:
    """Inputs of all blocks, and what the largest block keeps while it is run again."""
    size = DTYPE_SIZE[settings.dtype]
    batch = settings.batch_size * tokens
    inputs = 0.0
    largest: tuple[float, Load, list[float]] | None = None
    for block in blocks_of(structure):
        inputs += block.count * size * _hidden(structure, block) * batch
        load = block_load(structure, block, settings, tokens, adapter.prefix_tokens)
        for index in range(block.count):
            own = kept.get((block.stack, index), [0.0, 0.0])
            total = load.total + sum(own)
            if largest is None or total > largest[0]:
                largest = (total, load, own)
    logits, loss = head_bytes(structure, settings, tokens)
    found: dict[TermName, float] = {"activations_checkpoint": inputs}
    if largest is None or logits + loss > largest[0]:
        return {**found, "logits": logits, "loss": loss}, 0.0
    _, load, own = largest
    found |= {
        "activations_norm": load.norm,
        "activations_attention": load.attention,
        "activations_mlp": load.mlp,
        "activations_adapter": own[0],
        "weights_materialized": own[1],
    }
    return found, load.total


def _hidden(structure: Structure, block: Block) -> int:
    """Width of the residual stream of a stack."""
    if structure.dimensions.hidden_size:
        return structure.dimensions.hidden_size
    return residual_width(block)

"""Peak memory of one training step as a sum of named terms, from shapes alone."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Final

from peft_shop.forecast.quick.base_memory import DTYPE_SIZE, base_bytes, stream_dtype
from peft_shop.forecast.quick.flow import Flow
from peft_shop.forecast.quick.frozen import (
    block_load,
    blocks_of,
    head_bytes,
    tokens_of,
)
from peft_shop.forecast.quick.kept import element_sizes, kept_bytes
from peft_shop.forecast.quick.recomputed import (
    RESERVE,
    at_end,
    hidden_width,
    recomputed,
    score_bytes,
    temporary_bytes,
)

if TYPE_CHECKING:
    from peft_shop.forecast.quick.frozen import Load
    from peft_shop.forecast.quick.methods.parts import Additions, Tensor
    from peft_shop.forecast.records import Settings, TermName
    from peft_shop.model.structure import Structure

__all__ = [
    "STATES",
    "Parts",
    "held_bytes",
    "is_trained",
    "last_norm_rate",
    "parts_of",
    "trained_bytes",
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


@dataclass
class Parts:
    """Bytes at the moment of the peak, before what the allocator adds.

    Attributes:
        static: weights that are there all the time, by term.
        dynamic: what the step allocates, by term.
        trained: bytes of trained parameters.
        block: what the largest checkpointed block of an image model keeps of its own, adapters
            apart.
        reserve: factor of what is reserved over what the step allocates; `None` for the fitted
            one of a step without checkpointing.
        stranded: what the step released and could not use again.
    """

    static: dict[TermName, float]
    dynamic: dict[TermName, float]
    trained: float
    block: float = 0.0
    reserve: float | None = None
    stranded: float = 0.0


def is_trained(tensor: Tensor, settings: Settings) -> bool:
    """Whether the optimizer trains the tensor: LoRA-FA's freezes A."""
    frozen = settings.optimizer == "lora_fa" and ".lora_A." in tensor.name
    return tensor.trained and not frozen


def held_bytes(adapter: Additions, settings: Settings) -> int:
    """Parameters and buffers of the adapter that are on the accelerator [B]."""
    size, moved = element_sizes(settings), (None, settings.moved_after_injection)
    return sum(
        prod(tensor.shape) * size[tensor.dtype]
        for tensor in adapter.tensors
        if tensor.held and tensor.moved in moved
    )


def trained_bytes(adapter: Additions, settings: Settings) -> int:
    """Parameters that the optimizer trains [B]."""
    size = element_sizes(settings)
    return sum(
        prod(tensor.shape) * size[tensor.dtype]
        for tensor in adapter.tensors
        if tensor.held and is_trained(tensor, settings)
    )


def parts_of(structure: Structure, adapter: Additions, settings: Settings) -> Parts:
    """Parts of the peak of a training step with `adapter` on a frozen model.

    Raises:
        ConfigError: there is no closed form for the model.
    """
    base = base_bytes(structure, settings) - adapter.offloaded * DTYPE_SIZE[settings.dtype]
    trained = trained_bytes(adapter, settings)
    static: dict[TermName, float] = {
        "base": base,
        "adapter": held_bytes(adapter, settings),
        "optimizer": trained * STATES[settings.optimizer],
    }
    tokens = tokens_of(structure, settings, adapter.prompt_tokens)
    flowing = settings.model_copy(update={"dtype": stream_dtype(structure, settings)})
    kept = kept_bytes(adapter, flowing, tokens)
    if settings.gradient_checkpointing and structure.modality == "image":
        dynamic, block = _checkpointed(structure, adapter, flowing, tokens, kept)
        return Parts(static, dynamic, trained, block)
    scratch = temporary_bytes(structure, settings, tokens)
    if settings.gradient_checkpointing:
        dynamic, stranded = recomputed(
            structure, adapter, flowing, tokens, kept=kept, scratch=scratch
        )
        return Parts(static, dynamic, trained, reserve=RESERVE, stranded=stranded)
    dynamic = whole_step(structure, adapter, flowing, tokens, kept=kept)
    scratch += score_bytes(structure, flowing, tokens)
    return Parts(static, at_end(dynamic, scratch), trained)


def whole_step(
    structure: Structure,
    adapter: Additions,
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
    flow = Flow(structure, adapter)
    flow.everywhere |= reach
    norm = attention = mlp = 0.0
    for block in blocks:
        load = block_load(structure, block, settings, tokens, adapter.prefix_tokens)
        for shares in flow.shares(block):
            norm += load.norm * shares[0]
            attention += load.attention * shares[1]
            mlp += load.mlp * shares[2]
    norm += last_norm_rate(structure) * settings.batch_size * tokens
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


def last_norm_rate(structure: Structure) -> float:
    """Per token: float32 input of a norm outside the blocks [B]."""
    hidden = structure.dimensions.hidden_size
    total = 0.0
    for group in structure.of(["norm"]):
        if "*" not in group.pattern and group.kind == "rms_norm" and group.out_features == hidden:
            total += 4.0 * group.out_features
    return total


def _checkpointed(
    structure: Structure,
    adapter: Additions,
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
        inputs += block.count * size * hidden_width(structure, block) * batch
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

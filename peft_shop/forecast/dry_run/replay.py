"""A trace -> the memory that it takes, by what it is for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from peft_shop.forecast.dry_run.allocator import CachingAllocator
from peft_shop.forecast.dry_run.trace import EMPTY_CACHE

if TYPE_CHECKING:
    from peft_shop.forecast.dry_run.trace import Kind, Trace
    from peft_shop.forecast.records import TermName

__all__ = ["WORKSPACE_BYTES", "Replay", "replay"]

WORKSPACE_BYTES: Final = 4096 * 1024 * 2 + 16 * 1024 * 8
"""What cuBLAS asks for at the first matrix product [B]: the default `:4096:2:16:8` of
`CUBLAS_WORKSPACE_CONFIG` before Hopper (cuBLAS documentation, "Results Reproducibility")."""

_TERMS: Final[dict[Kind, TermName]] = {
    "base": "base",
    "adapter": "adapter",
    "gradients": "gradients",
    "optimizer": "optimizer",
    "norm": "activations_norm",
    "attention": "activations_attention",
    "mlp": "activations_mlp",
    "adapter_activation": "activations_adapter",
    "checkpoint": "activations_checkpoint",
    "other": "activations_other",
    "materialized": "weights_materialized",
    "logits": "logits",
    "loss": "loss",
    "temporary": "temporary",
}
_ACTIVATIONS: Final = frozenset({"norm", "attention", "mlp", "adapter_activation", "other"})
_WORKSPACE: Final = -1
_ARENA: Final = -2


@dataclass(frozen=True, slots=True)
class Replay:
    """Memory of a trace.

    Attributes:
        peak_reserved: most that the allocator held [B].
        peak_allocated: most that was in use [B].
        terms: what was in use at the moment when most was, and what the allocator held beyond that
            at its peak (`allocator`); they add up to `peak_reserved` [B].
    """

    peak_reserved: int
    peak_allocated: int
    terms: dict[TermName, int]


def replay(
    trace: Trace,
    *,
    arena: bool = True,
    workspace: int = WORKSPACE_BYTES,
    checkpointing: bool = False,
) -> Replay:
    """Serve the requests of a trace as the caching allocator would.

    Args:
        trace: what was recorded.
        arena: whether the base weights come out of one segment, as where transformers loads them:
            it reserves their sum first. A model that is moved as a whole takes one after another,
            and what it takes while it is moved is no peak of a step.
        workspace: bytes that the library for matrix products asks for.
        checkpointing: whether what the forward pass keeps is there to run blocks again.
    """
    memory = CachingAllocator()
    first = trace.steps[0] if trace.steps else len(trace.events)
    weights = sum(
        trace.blocks[event].size
        for event in trace.events[:first]
        if event >= 0 and trace.blocks[event].kind == "base"
    )
    if arena:
        memory.allocate(_ARENA, weights)
        memory.release(_ARENA)
    # where most is in use; the allocator may hold most a little later, when hardly anything is
    fullest = 0
    for place, event in enumerate(trace.events):
        if place == first:
            if not arena:
                memory.empty_cache()
                memory.peak_reserved, memory.peak_allocated = memory.reserved, memory.allocated
                fullest = place
            memory.allocate(_WORKSPACE, workspace)
        if event == EMPTY_CACHE:
            memory.empty_cache()
        elif event >= 0:
            before = memory.peak_allocated
            memory.allocate(event, trace.blocks[event].size)
            if memory.peak_allocated > before:
                fullest = place
        else:
            memory.release(~event)
    terms = _terms(trace, trace.events[: fullest + 1], checkpointing=checkpointing)
    if fullest >= first:
        terms["temporary"] += workspace
    terms["allocator"] = memory.peak_reserved - sum(terms.values())
    return Replay(memory.peak_reserved, memory.peak_allocated, terms)


def _terms(trace: Trace, events: list[int], *, checkpointing: bool) -> dict[TermName, int]:
    """What is in use after `events`, by what it is for [B]."""
    live: set[int] = set()
    for event in events:
        if event == EMPTY_CACHE:
            continue
        if event >= 0:
            live.add(event)
        else:
            live.discard(~event)
    terms: dict[TermName, int] = dict.fromkeys((*_TERMS.values(), "allocator"), 0)
    for number in live:
        block = trace.blocks[number]
        kind = block.kind
        if checkpointing and block.phase == "forward" and kind in _ACTIVATIONS:
            kind = "checkpoint"
        terms[_TERMS[kind]] += block.size
    return terms

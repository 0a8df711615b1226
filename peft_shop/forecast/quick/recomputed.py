"""What a step needs beside what is kept: blocks that are run again, and temporaries of a block.

Under gradient checkpointing the inputs of all blocks are there; on top comes either the loss or
one block that is run again, whichever takes more. Held against the measured steps of
`data/measured_memory.csv`, whose first rows the two factors of `RESERVE` were fitted to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from peft_shop.forecast.quick.base_memory import DTYPE_SIZE, is_quantized, stream_dtype
from peft_shop.forecast.quick.frozen import (
    PROBABILITY_BYTES,
    block_load,
    blocks_of,
    head_bytes,
    residual_width,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from peft_shop.forecast.quick.frozen import Block, Load
    from peft_shop.forecast.quick.methods.parts import Additions
    from peft_shop.forecast.records import Settings, TermName
    from peft_shop.model.structure import Structure

__all__ = [
    "RESERVE",
    "STRANDED",
    "at_end",
    "hidden_width",
    "recomputed",
    "score_bytes",
    "score_rate",
    "temporary_bytes",
    "temporary_width",
    "unpacked_bytes",
]

RESERVE: Final = 1.16
"""Reserved over allocated by a step with checkpointing: what is released between two blocks has
holes that the next one does not fill."""
STRANDED: Final = 0.25
"""Eager attention: share of the smaller of loss and block that the larger one cannot reuse, since
single logits and single score matrices are of unlike sizes."""
_SCORE_BYTES: Final = {2: 16, 4: 18}
"""Eager attention: bytes per score at the fullest moment of its backward pass, by size of one
element of the stream: probabilities, their gradient, the product of both, the scores' gradient."""
_COMPUTE_BYTES: Final = 2
"""One element of a weight that is expanded for a product [B]."""


def hidden_width(structure: Structure, block: Block) -> int:
    """Width of the residual stream of a stack."""
    return structure.dimensions.hidden_size or residual_width(block)


def temporary_width(structure: Structure) -> int:
    """Elements per token that the backward pass of one block holds for a moment: 3 i + 3 h."""
    widest = 0
    for block in blocks_of(structure):
        inner = max((g.in_features for g in block.groups if g.role == "mlp_down"), default=0)
        widest = max(widest, 3 * inner + 3 * hidden_width(structure, block))
    return widest


def unpacked_bytes(structure: Structure, settings: Settings) -> int:
    """Of the largest quantized weight, expanded for a product; none for an unquantized base [B]."""
    if (settings.quantization or structure.quantization) is None:
        return 0
    sizes = (g.in_features * g.out_features for g in structure.groups if is_quantized(g))
    return _COMPUTE_BYTES * max(sizes, default=0)


def temporary_bytes(structure: Structure, settings: Settings, tokens: int) -> float:
    """What the backward pass of one block allocates and releases again [B].

    Args:
        structure: of the base model.
        settings: the training step.
        tokens: of one sequence.
    """
    if structure.modality == "image":
        return 0.0
    size = DTYPE_SIZE[stream_dtype(structure, settings)]
    width = temporary_width(structure)
    return float(size * width * settings.batch_size * tokens + unpacked_bytes(structure, settings))


def at_end(dynamic: Mapping[TermName, float], scratch: float) -> dict[TermName, float]:
    """A step that keeps everything: its end is the loss or the first block back, if that is more.

    Args:
        dynamic: what is kept, with `logits` and `loss`.
        scratch: temporaries of one block [B].
    """
    if dynamic.get("logits", 0.0) + dynamic.get("loss", 0.0) >= scratch:
        return dict(dynamic)
    kept = {name: size for name, size in dynamic.items() if name not in {"logits", "loss"}}
    return {**kept, "temporary": scratch}


def recomputed(
    structure: Structure,
    adapter: Additions,
    settings: Settings,
    tokens: int,
    *,
    kept: Mapping[tuple[str, int], list[float]],
    scratch: float,
) -> tuple[dict[TermName, float], float]:
    """What a step allocates whose blocks are run again, and what it cannot reuse of it [B].

    Args:
        structure: of the base model.
        adapter: what is added to it.
        settings: the training step, with the dtype of the residual stream.
        tokens: of one sequence.
        kept: by the adapter, per block.
        scratch: temporaries of one block.

    Raises:
        ConfigError: there is no closed form for the model.
    """
    size = DTYPE_SIZE[settings.dtype]
    batch = settings.batch_size * tokens
    boundary = 0.0
    fullest: tuple[float, Load, list[float]] | None = None
    blocks = blocks_of(structure)
    for block in blocks:
        boundary += block.count * size * hidden_width(structure, block) * batch
        load = block_load(structure, block, settings, tokens, adapter.prefix_tokens)
        for index in range(block.count):
            own = kept.get((block.stack, index), [0.0, 0.0])
            total = load.total + sum(own)
            if fullest is None or total > fullest[0]:
                fullest = (total, load, own)
    # the stream after the last block
    last = size * hidden_width(structure, blocks[-1]) * batch if blocks else 0.0
    logits, loss = head_bytes(structure, settings, tokens)
    if logits:
        # the hidden states that the head reads, and their gradient
        loss += 2.0 * last
    scratch += score_bytes(structure, settings, tokens)
    terms: dict[TermName, float] = {"activations_checkpoint": boundary + last}
    at_loss, at_block = logits + loss, scratch + (fullest[0] if fullest else 0.0)
    stranded = STRANDED * min(at_loss, at_block) if settings.attention == "eager" else 0.0
    if fullest is None or at_loss >= at_block:
        return {**terms, "logits": logits, "loss": loss}, stranded
    _, load, own = fullest
    return terms | {
        "activations_norm": load.norm,
        "activations_attention": load.attention,
        "activations_mlp": load.mlp,
        "activations_adapter": own[0],
        "weights_materialized": own[1],
        "temporary": scratch,
    }, stranded


def score_rate(structure: Structure, settings: Settings) -> float:
    """Per pair of tokens: what eager attention takes in its backward pass beside what it kept [B].

    Args:
        structure: of the base model.
        settings: the training step, with the dtype of the residual stream.
    """
    heads = structure.dimensions.attention_heads
    if settings.attention != "eager" or not heads:
        return 0.0
    size = DTYPE_SIZE[settings.dtype]
    return float((_SCORE_BYTES[size] - PROBABILITY_BYTES[size]) * heads)


def score_bytes(structure: Structure, settings: Settings, tokens: int) -> float:
    """As `score_rate`, of one batch of sequences of so many tokens [B]."""
    return score_rate(structure, settings) * settings.batch_size * tokens * tokens

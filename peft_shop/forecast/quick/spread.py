"""Peaks of many adapters under one training step at once, as arrays.

The sums are those of `quick.memory`, split by what they grow with: tokens, pairs of tokens,
sequences, nothing. A test holds that both give the same bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

import numpy as np

from peft_shop.forecast.constants import constants
from peft_shop.forecast.quick.base_memory import DTYPE_SIZE, base_bytes, stream_dtype
from peft_shop.forecast.quick.flow import Flow
from peft_shop.forecast.quick.frozen import (
    LOSS_CHUNK,
    block_load,
    blocks_of,
    head_rates,
    tokens_of,
)
from peft_shop.forecast.quick.kept import kept_rates
from peft_shop.forecast.quick.memory import STATES, held_bytes, last_norm_rate, trained_bytes
from peft_shop.forecast.quick.recomputed import (
    RESERVE,
    STRANDED,
    hidden_width,
    score_rate,
    temporary_width,
    unpacked_bytes,
)
from peft_shop.forecast.quick.remembered import remembered

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from peft_shop.forecast.quick.frozen import Block
    from peft_shop.forecast.quick.methods.parts import Additions
    from peft_shop.forecast.records import Dtype, Settings
    from peft_shop.model.structure import Structure

    Array: TypeAlias = NDArray[np.float64]

__all__ = ["Shape", "ShapeSpread", "shape_of"]

_STREAMS: Final[tuple[Dtype, ...]] = ("bfloat16", "float32")
"""Dtypes of the residual stream that differ in what is kept; float16 keeps as bfloat16 does."""


@dataclass(frozen=True)
class Shape:
    """What an adapter adds, by what it grows with.

    Attributes:
        prompt: tokens that are put before each sequence.
        prefix: tokens for which only keys and values are put before each sequence.
        offloaded: base weights that leave the accelerator [elements].
        held: parameters and buffers on the accelerator [B].
        trained: of those, what the optimizer trains [B].
        states: of the recipe's own optimizer, per trained byte.
        shares: (stacks, 3) blocks of each stack that keep their norms, attention and MLP.
        total: per size of the stream's element, (3,) what is kept in all: per token, sequence,
            step.
        blocks: per size of the stream's element and stack, (d, 3) what single blocks keep.
    """

    prompt: int
    prefix: int
    offloaded: int
    held: int
    trained: int
    states: float
    shares: Array
    total: dict[int, Array]
    blocks: dict[int, list[Array]]


def shape_of(structure: Structure, adapter: Additions, settings: Settings) -> Shape:
    """The shape of `adapter` under the dtypes and the optimizer of `settings`."""
    stacks = blocks_of(structure)
    flow = Flow(structure, adapter)
    total: dict[int, Array] = {}
    blocks: dict[int, list[Array]] = {}
    for dtype in _STREAMS:
        flowing = settings.model_copy(update={"dtype": dtype})
        rates = kept_rates(adapter, flowing)
        size = DTYPE_SIZE[dtype]
        total[size] = np.sum([*rates.values(), (0.0, 0.0, 0.0)], axis=0)
        blocks[size] = []
        for block in stacks:
            own = {rates.get((block.stack, index), (0.0, 0.0, 0.0)) for index in range(block.count)}
            blocks[size].append(np.array(sorted(own)))
    return Shape(
        prompt=adapter.prompt_tokens,
        prefix=adapter.prefix_tokens,
        offloaded=adapter.offloaded,
        held=held_bytes(adapter, settings),
        trained=trained_bytes(adapter, settings),
        states=STATES[settings.optimizer],
        shares=np.array([np.sum(flow.shares(block), axis=0) for block in stacks]),
        total=total,
        blocks=blocks,
    )


class _Load(NamedTuple):
    """What one block of a stack keeps [B].

    Attributes:
        norm: per token.
        mlp: per token.
        query: attention, per token.
        key: attention, per token and prefix token.
        pair: attention, per token times token and prefix token.
    """

    norm: float
    mlp: float
    query: float
    key: float
    pair: float


def _load(structure: Structure, block: Block, settings: Settings, *, prefix: bool) -> _Load:
    """Rates of `block_load`, which is linear in the batch and quadratic in the tokens.

    Raises:
        ConfigError: there is no closed form for the block.
    """
    single = settings.model_copy(update={"batch_size": 1})
    first = block_load(structure, block, single, 1, int(prefix))
    second = block_load(structure, block, single, 2, int(prefix))
    if not prefix:
        pair = (second.attention - 2 * first.attention) / 2
        return _Load(first.norm, first.mlp, first.attention - pair, 0.0, pair)
    # f(tokens, prefix) = query t + key (t + p) + pair t (t + p), at (1, 1), (2, 1) and (1, 2)
    longer = block_load(structure, block, single, 1, 2)
    both = longer.attention - first.attention
    query = first.attention - 2 * both
    pair = (second.attention - 2 * query - 3 * both) / 3
    return _Load(first.norm, first.mlp, query, both - pair, pair)


class ShapeSpread:
    """Shapes on one model.

    Args:
        structure: of the base model.
        shapes: what each adapter adds.

    Raises:
        ConfigError: there is no closed form for the model.
    """

    def __init__(self, structure: Structure, shapes: Sequence[Shape]) -> None:
        self.structure = structure
        self._stacks = blocks_of(structure)
        image = structure.modality == "image"
        self._prompt = np.array([0 if image else shape.prompt for shape in shapes], dtype=float)
        self._prefix = np.array([shape.prefix for shape in shapes], dtype=float)
        self._offloaded = np.array([shape.offloaded for shape in shapes], dtype=float)
        self._held = np.array([shape.held for shape in shapes], dtype=float)
        self._trained = np.array([shape.trained for shape in shapes], dtype=float)
        self._states = np.array([shape.states for shape in shapes])
        stacks = len(self._stacks)
        self._shares = np.zeros((stacks, 3, len(shapes)))
        for place, one in enumerate(shapes):
            self._shares[:, :, place] = one.shares.reshape(stacks, 3)
        sizes = shapes[0].total if shapes else ()
        self._total = {size: np.array([shape.total[size] for shape in shapes]).T for size in sizes}
        self._blocks = {
            size: [
                _padded([shape.blocks[size][stack] for shape in shapes]) for stack in range(stacks)
            ]
            for size in sizes
        }

    def peaks(self, settings: Settings, length: Array | int | None = None) -> Array:
        """Peak of each adapter [B], (n,).

        Args:
            settings: the training step; its optimizer stands for each one's own, but in 8 bit.
            length: tokens of each one's sequence, in place of the settings'.
        """
        structure = self.structure
        static = self._base(settings) + self._static(settings)
        flowing, tokens = self._flowing(settings, length)
        found: Array = static
        if not settings.gradient_checkpointing:
            reserve = constants().whole.activations
            found = static + reserve * self._whole(flowing, settings, tokens)
        elif structure.modality == "image":
            found = static + self._image(flowing, tokens)
        else:
            found = static + self._recomputed(flowing, settings, tokens)
        return found

    def _base(self, settings: Settings) -> int:
        """Weights of the base [B]."""
        structure = self.structure
        return remembered(
            structure, ("base", _of_base(settings)), lambda: base_bytes(structure, settings)
        )

    def _static(self, settings: Settings) -> Array:
        """What each adapter adds whatever the batch [B]."""
        fitted = constants()
        regime = fitted.checkpointed if settings.gradient_checkpointing else fitted.whole
        states = self._states
        if settings.optimizer == "adamw_8bit":
            states = np.full_like(states, STATES["adamw_8bit"])
        static: Array = (
            self._held
            + self._trained * (states + regime.trained)
            - self._offloaded * DTYPE_SIZE[settings.dtype]
        )
        return static

    def _flowing(
        self, settings: Settings, length: Array | int | None = None
    ) -> tuple[Settings, Array]:
        """The step with the dtype of the residual stream, and tokens of each one's sequence."""
        tokens = tokens_of(self.structure, settings) + self._prompt
        if length is not None:
            tokens = tokens + (length - settings.sequence_length)
        stream = stream_dtype(self.structure, settings)
        alike = stream == settings.dtype
        return settings if alike else settings.model_copy(update={"dtype": stream}), tokens

    def added(self, settings: Settings) -> Array:
        """What each adapter adds to the peak, whatever the blocks keep of their own [B], (n,).

        Args:
            settings: the training step; its optimizer stands for each one's own, but in 8 bit.
        """
        static = self._static(settings)
        size = DTYPE_SIZE[stream_dtype(self.structure, settings)]
        tokens, batch = tokens_of(self.structure, settings), settings.batch_size
        if settings.gradient_checkpointing:
            kept = [
                (batch * (tokens * token + sequence) + fixed).max(axis=0)
                for token, sequence, fixed in self._blocks[size]
            ]
            return np.asarray(static + RESERVE * np.max(kept, axis=0), dtype=float)
        token, sequence, fixed = self._total[size]
        whole = batch * (tokens * token + sequence) + fixed
        return np.asarray(static + constants().whole.activations * whole, dtype=float)

    def _loads(self, settings: Settings, stack: int) -> tuple[_Load, _Load]:
        """Of one block, without and with a prefix."""
        block = self._stacks[stack]
        key = ("load", block.stack, settings.dtype, settings.attention, settings.padding)
        return remembered(
            self.structure,
            (*key, settings.gradient_checkpointing),
            lambda: (
                _load(self.structure, block, settings, prefix=False),
                _load(self.structure, block, settings, prefix=True),
            ),
        )

    def _attention(self, loads: tuple[_Load, _Load], batch: int, tokens: Array) -> Array:
        length = tokens + self._prefix
        found = [
            batch * (load.query * tokens + load.key * length + load.pair * tokens * length)
            for load in loads
        ]
        chosen: Array = np.where(self._prefix > 0, found[1], found[0])
        return chosen

    def _scratch(self, flowing: Settings, settings: Settings, tokens: Array) -> Array:
        """Temporaries of one block's backward pass."""
        structure = self.structure
        batch = settings.batch_size
        scores: Array = score_rate(structure, flowing) * batch * tokens * tokens
        if structure.modality == "image":
            return scores
        width = remembered(structure, "temporary width", lambda: temporary_width(structure))
        backend = settings.quantization or structure.quantization
        unpacked = remembered(
            structure, ("unpacked", backend), lambda: unpacked_bytes(structure, settings)
        )
        scratch: Array = DTYPE_SIZE[flowing.dtype] * width * batch * tokens + unpacked + scores
        return scratch

    def _at_loss(self, flowing: Settings, tokens: Array) -> tuple[Array, bool]:
        """Logits and loss, and whether there are whole logits."""
        rates = remembered(
            self.structure,
            ("head", flowing.dtype, flowing.fused_loss),
            lambda: head_rates(self.structure, flowing),
        )
        batch = flowing.batch_size * tokens
        chunk = rates.chunk * np.minimum(batch, LOSS_CHUNK)
        return (rates.logits + rates.loss) * batch + chunk, rates.logits > 0

    def _whole(self, flowing: Settings, settings: Settings, tokens: Array) -> Array:
        """As `whole_step` and `at_end`."""
        at_loss, _ = self._at_loss(flowing, tokens)
        end = np.maximum(at_loss, self._scratch(flowing, settings, tokens))
        found: Array = self._kept(flowing, tokens) + end
        return found

    def _kept(self, flowing: Settings, tokens: Array) -> Array:
        """What a step keeps that runs no block again."""
        batch = flowing.batch_size
        total = last_norm_rate(self.structure) * batch * tokens
        for stack in range(len(self._stacks)):
            loads = self._loads(flowing, stack)
            norm, attention, mlp = self._shares[stack]
            total = total + batch * tokens * (loads[0].norm * norm + loads[0].mlp * mlp)
            total = total + self._attention(loads, batch, tokens) * attention
        token, sequence, fixed = self._total[DTYPE_SIZE[flowing.dtype]]
        found: Array = total + batch * (tokens * token + sequence) + fixed
        return found

    def _fullest(self, flowing: Settings, tokens: Array) -> tuple[Array, Array]:
        """The block that keeps most, and what of it is the base model's own."""
        fullest = np.full_like(tokens, -1.0)
        own = np.zeros_like(tokens)
        for stack in range(len(self._stacks)):
            frozen, adapters = self._of_stack(flowing, tokens, stack)
            kept = adapters.max(axis=0)
            more = frozen + kept > fullest
            own = np.where(more, frozen, own)
            fullest = np.where(more, frozen + kept, fullest)
        return np.maximum(fullest, 0.0), own

    def _of_stack(self, flowing: Settings, tokens: Array, stack: int) -> tuple[Array, Array]:
        """What one block keeps: of the base, (n,), and of the adapter by kind of block, (d, n)."""
        batch = flowing.batch_size
        loads = self._loads(flowing, stack)
        frozen = batch * tokens * (loads[0].norm + loads[0].mlp)
        frozen = frozen + self._attention(loads, batch, tokens)
        token, sequence, fixed = self._blocks[DTYPE_SIZE[flowing.dtype]][stack]
        return frozen, batch * (tokens * token + sequence) + fixed

    def _boundary(self, flowing: Settings, tokens: Array) -> tuple[Array, Array]:
        """Inputs of all blocks, and the stream after the last."""
        structure, size = self.structure, DTYPE_SIZE[flowing.dtype]
        widths = [hidden_width(structure, block) for block in self._stacks]
        batch = size * flowing.batch_size * tokens
        inputs = sum(width * block.count for width, block in zip(widths, self._stacks, strict=True))
        return inputs * batch, (widths[-1] if widths else 0) * batch

    def _recomputed(self, flowing: Settings, settings: Settings, tokens: Array) -> Array:
        """As `recomputed`, with what is reserved on top."""
        boundary, last = self._boundary(flowing, tokens)
        at_loss, logits = self._at_loss(flowing, tokens)
        at_block = self._fullest(flowing, tokens)[0] + self._scratch(flowing, settings, tokens)
        if logits:
            at_loss = at_loss + 2 * last
        found = RESERVE * (boundary + last + np.maximum(at_loss, at_block))
        if settings.attention == "eager":
            found = found + STRANDED * np.minimum(at_loss, at_block)
        return found

    def _image(self, flowing: Settings, tokens: Array) -> Array:
        """Boundary and fullest block, with the constant that was fitted to image models."""
        boundary, _ = self._boundary(flowing, tokens)
        fullest, own = self._fullest(flowing, tokens)
        found: Array = boundary + fullest + constants().checkpointed.activations * own
        return found


def _padded(blocks: Sequence[Array]) -> Array:
    """(3, d, n) of single blocks; those with fewer kinds of blocks repeat their last."""
    depth = max((len(block) for block in blocks), default=1)
    rows = [
        np.concatenate([block, np.repeat(block[-1:], depth - len(block), axis=0)])
        for block in blocks
    ]
    return np.array(rows).transpose(2, 1, 0)


def _of_base(settings: Settings) -> tuple[object, ...]:
    return (
        settings.dtype,
        settings.quantization,
        settings.quantization_bits,
        settings.double_quantization,
        settings.prepare_kbit,
        settings.group_size,
    )

"""What a frozen model keeps from its forward pass for the backward pass, from its structure.

Per token and block, in a model whose base is frozen but through which a gradient flows: a float32
copy of the input of each RMS norm, or the input of each layer norm; query, key, value and output
of attention (grouped keys and values repeated per head where a padding mask is in use) and the
cached keys and values; what the activation function and the gate of the MLP need. A frozen linear
layer keeps nothing. Source: autograd's saved tensors of transformers 5.23's Llama and diffusers
0.42's Flux2, counted by a test.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from peft_shop.errors import ConfigError
from peft_shop.forecast.quick.remembered import remembered

if TYPE_CHECKING:
    from peft_shop.forecast.records import Settings
    from peft_shop.model.structure import ModuleGroup, Structure

__all__ = [
    "LOSS_CHUNK",
    "PROBABILITY_BYTES",
    "Block",
    "HeadRates",
    "Load",
    "block_load",
    "blocks_of",
    "head_bytes",
    "head_rates",
    "residual_width",
    "tokens_of",
]

_INDEX: Final = re.compile(r"^(?P<stack>.*?)\.\*\.(?P<rest>.*)$")
_IMAGE_PATCH: Final = 16
"""Pixels per side of one token: the autoencoder's factor of 8 and patches of 2."""
_PYTHON_GELU: Final = frozenset({"gpt2", "gpt_neo", "gptj", "codegen", "openai-gpt", "ctrl"})
"""Model types whose activation is written out in Python, which keeps four tensors for one."""
_BIASED_ATTENTION: Final = frozenset({"t5", "mt5", "umt5", "longt5", "switch_transformers"})
"""Model types whose attention keeps its scores whatever the kernel, for their position bias."""
_LOGIT_BYTES: Final = {2: 14, 4: 16}
"""Per token and vocabulary entry: logits, float32 log-probabilities and both gradients."""

PROBABILITY_BYTES: Final = {2: 6, 4: 4}
"""Per score of eager attention: the probabilities in float32 and in the dtype of the stream, which
are one where that is float32."""
LOSS_CHUNK: Final = 128
"""Tokens whose logits a chunked cross-entropy makes at a time."""


@dataclass
class Block:
    """One stack of equal blocks, such as all decoder layers.

    Attributes:
        stack: name of the list, such as `model.layers`.
        count: number of blocks.
        groups: the groups inside one block, in the model's order.
    """

    stack: str
    count: int
    groups: list[ModuleGroup] = field(default_factory=list)


@dataclass(frozen=True)
class Load:
    """Bytes that one block keeps.

    Attributes:
        norm: inputs of norms.
        attention: query, key, value, output, statistics, masks and cache.
        mlp: what activation and gate need.
    """

    norm: float
    attention: float
    mlp: float

    @property
    def total(self) -> float:
        """Sum of the parts."""
        return self.norm + self.attention + self.mlp


def blocks_of(structure: Structure) -> list[Block]:
    """Stacks of blocks, in the model's order; groups outside any stack are left out."""
    return remembered(structure, "blocks", lambda: _blocks_of(structure))


def _blocks_of(structure: Structure) -> list[Block]:
    blocks: dict[str, Block] = {}
    for group in structure.groups:
        match = _INDEX.match(group.pattern)
        if match is None:
            continue
        name = match["stack"]
        block = blocks.setdefault(name, Block(name, 0))
        block.groups.append(group)
        indices = {one[len(name) + 1 :].partition(".")[0] for one in group.names}
        block.count = max(block.count, len(indices))
    return [block for block in blocks.values() if _is_block(block)]


def _is_block(block: Block) -> bool:
    return any(
        group.role.startswith(("attention", "mlp", "expert", "mixer")) for group in block.groups
    )


def residual_width(block: Block) -> int:
    """Width of the residual stream that a stack of blocks works on."""
    roles = {"attention_output", "attention_mlp_out"}
    return max((g.out_features for g in block.groups if g.role in roles), default=0)


def tokens_of(structure: Structure, settings: Settings, prompt_tokens: int = 0) -> int:
    """Tokens of one sequence, or of one image with its text prompt."""
    if structure.modality == "image":
        side = -(-settings.image_size // _IMAGE_PATCH)
        return side * side + settings.sequence_length
    return settings.sequence_length + prompt_tokens


def block_load(
    structure: Structure, block: Block, settings: Settings, tokens: int, prefix: int = 0
) -> Load:
    """What one block of a frozen model keeps for one batch [B].

    Args:
        structure: of the whole model.
        block: the stack.
        settings: the training step.
        tokens: of one sequence.
        prefix: keys and values that stand before each sequence.

    Raises:
        ConfigError: the block has experts or is no transformer block, for which there is no
            closed form.
    """
    kinds = {group.role for group in block.groups}
    if any(role.startswith("expert") for role in kinds):
        msg = f"{structure.name}: no closed form for experts; make a dry run, which needs torch"
        raise ConfigError(msg)
    if any(role.startswith("mixer") for role in kinds) or "convolution" in kinds:
        msg = (
            f"{structure.name}: {block.stack} is no plain transformer block: no closed form; "
            "make a dry run, which needs torch"
        )
        raise ConfigError(msg)
    size = 4 if settings.dtype == "float32" else 2
    batch = settings.batch_size * tokens
    norm = batch * sum(_norm(structure, group, size) for group in block.groups)
    attention = _attention(structure, block, settings, tokens, prefix)
    mlp = batch * _mlp(block, size)
    if structure.model_type in _PYTHON_GELU:
        mlp *= 4
    return Load(norm, attention, mlp)


def _norm(structure: Structure, group: ModuleGroup, size: int) -> float:
    """Per token: input of one norm, as float32 where the norm is written in Python."""
    if group.role != "norm":
        return 0.0
    width = group.out_features
    head = structure.dimensions.head_dim
    hidden = structure.dimensions.hidden_size
    narrow = hidden is None or width < hidden
    if (
        narrow
        and (head is None or width == head)
        and re.search(r"norm.*[qk]|[qk].*norm", group.suffix)
    ):
        # one norm per head, over queries or keys
        width = _query_width(structure, group)
        kv = structure.dimensions.key_value_heads
        if re.search(r"k", group.suffix.replace("norm", "")) and kv and head:
            width = kv * head
        if group.suffix.startswith("norm_added"):
            # the text stream's share of the tokens is counted with the image stream's norm
            return 0.0
    if group.suffix.endswith("_context"):
        return 0.0
    if group.kind == "rms_norm":
        return 4.0 * width + 4
    return size * width + 8.0


def _query_width(structure: Structure, near: ModuleGroup) -> int:
    """Width of all query heads in the block of `near`."""
    dims = structure.dimensions
    if dims.attention_heads and dims.head_dim:
        return dims.attention_heads * dims.head_dim
    match = _INDEX.match(near.pattern)
    stack = match["stack"] if match else ""
    for group in structure.groups:
        if group.pattern.startswith(f"{stack}.*.") and group.role == "attention_query":
            return group.out_features
    outputs = [g for g in structure.groups if g.pattern.startswith(f"{stack}.*.")]
    return residual_width(Block(stack, 0, outputs))


def _attention(
    structure: Structure, block: Block, settings: Settings, tokens: int, prefix: int
) -> float:
    """Of one block and batch: what scaled dot-product attention and the cache keep."""
    size = 4 if settings.dtype == "float32" else 2
    roles = {group.role: group for group in block.groups}
    if not any(role.startswith("attention") for role in roles):
        return 0.0
    fused = _fused(block)
    query = fused.out_features if fused is not None else 0
    if fused is None:
        query = _query_width(structure, block.groups[0])
    dims = structure.dimensions
    heads = dims.attention_heads or max(1, query // (dims.head_dim or 128))
    kv = query
    if dims.key_value_heads and dims.head_dim:
        kv = dims.key_value_heads * dims.head_dim
    image = structure.modality == "image"
    cached = structure.task_type == "CAUSAL_LM" and not settings.gradient_checkpointing
    length = tokens + prefix
    per_query = 2 * size * query + 4 * heads
    eager = settings.attention == "eager" or structure.model_type in _BIASED_ATTENTION
    repeated = kv < query and settings.attention != "flash" and settings.padding and not image
    per_key = 2 * size * (query if repeated else kv)
    if cached and (repeated or prefix):
        per_key += 2 * size * kv
    if cached and "attention_qkv" in roles and _learns_positions(structure):
        # without a rotation the query is a view that keeps the joint projection beside the cache
        per_query += 2 * size * kv
    if fused is not None:
        # value is a view of the joint projection, which is kept whole below
        per_key -= size * kv
    total = settings.batch_size * (tokens * per_query + length * per_key)
    if settings.padding and settings.attention != "flash" and not image:
        total += size * settings.batch_size * tokens * length
    if eager:
        total += PROBABILITY_BYTES[size] * settings.batch_size * heads * tokens * length
    return total


def _learns_positions(structure: Structure) -> bool:
    return any(True for _ in structure.of(["position_embedding"]))


def _fused(block: Block) -> ModuleGroup | None:
    """The output projection of a block whose attention and MLP are one (Flux single blocks)."""
    widest = max((g for g in block.groups if g.kind == "linear"), key=_width, default=None)
    if widest is None or any(group.role == "mlp_down" for group in block.groups):
        # heads may be wider than the residual stream in any block (Qwen3, Gemma)
        return None
    for group in block.groups:
        joins = group.role in {"attention_mlp_out", "attention_output"}
        if (
            joins
            and group.in_features > group.out_features
            and widest.out_features
            >= (3 * group.out_features + group.in_features - group.out_features)
        ):
            return group
    return None


def _width(group: ModuleGroup) -> int:
    return group.out_features


def _mlp(block: Block, size: int) -> float:
    """Per token: gate, activation and product, or the input of an activation without a gate."""
    fused = _fused(block)
    if fused is not None:
        inner = fused.in_features - fused.out_features
        widest = max((g for g in block.groups if g.kind == "linear"), key=_width)
        return size * (widest.out_features + inner)
    total = 0.0
    gated = any(group.role == "mlp_gate" for group in block.groups)
    ups = [g for g in block.groups if g.role in {"mlp_up", "mlp_gate_up"}]
    for group in block.groups:
        if group.role != "mlp_down" or _is_text_stream(group):
            continue
        inner = group.in_features
        joint = gated or any(up.out_features == 2 * inner for up in ups)
        total += size * inner * (3 if joint else 1)
    return total


def _is_text_stream(group: ModuleGroup) -> bool:
    """Whether the group serves the text tokens of an image block, which its twin counts."""
    return "_context" in group.pattern


class HeadRates(NamedTuple):
    """What the loss takes.

    Attributes:
        logits: per token [B].
        loss: per token [B].
        chunk: per token of a chunk, of a chunked loss [B].
    """

    logits: float
    loss: float
    chunk: float


def head_rates(structure: Structure, settings: Settings) -> HeadRates:
    """Bytes of logits and of the loss on them; no vocabulary, no bytes."""
    vocabulary = structure.dimensions.vocabulary
    head = any(g.out_features == vocabulary for g in structure.of(["head"]))
    if not vocabulary or not head:
        return HeadRates(0.0, 0.0, 0.0)
    size = 4 if settings.dtype == "float32" else 2
    if settings.fused_loss:
        # one chunk's logits at a time, the hidden states and their gradient
        hidden = structure.dimensions.hidden_size or 0
        return HeadRates(0.0, 2.0 * size * hidden, float(_LOGIT_BYTES[size] * vocabulary))
    logits = float(size * vocabulary)
    return HeadRates(logits, _LOGIT_BYTES[size] * vocabulary - logits, 0.0)


def head_bytes(structure: Structure, settings: Settings, tokens: int) -> tuple[float, float]:
    """Bytes of logits and of the loss on them, of one batch; no vocabulary, no bytes."""
    rates = head_rates(structure, settings)
    batch = settings.batch_size * tokens
    return rates.logits * batch, rates.loss * batch + rates.chunk * min(batch, LOSS_CHUNK)

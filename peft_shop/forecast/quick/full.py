"""Full fine-tuning: every weight is trained in the base's dtype."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from peft_shop.errors import ConfigError
from peft_shop.forecast.quick.base_memory import DTYPE_SIZE
from peft_shop.forecast.quick.frozen import blocks_of, residual_width, tokens_of
from peft_shop.forecast.quick.memory import STATES, Parts, whole_step
from peft_shop.forecast.quick.methods.parts import Additions

if TYPE_CHECKING:
    from peft_shop.forecast.quick.frozen import Block
    from peft_shop.forecast.records import Settings, TermName
    from peft_shop.model.structure import Structure

__all__ = ["full_parts"]

_OUTPUTS: Final = frozenset({"attention_output", "attention_mlp_out"})
"""Layers whose input attention keeps anyway."""


def full_parts(structure: Structure, settings: Settings) -> Parts:
    """Parts of the peak: at the loss, or in the optimizer's step if that needs more.

    In the step, weights, gradients, states and one temporary copy are there at once (PyTorch's
    `_multi_tensor_adamw`); at the loss, weights, states and all activations.

    Raises:
        ConfigError: the base is quantized, or there is no closed form for the model.
    """
    if settings.quantization is not None:
        msg = "full fine-tuning of a quantized base is not possible: choose an adapter"
        raise ConfigError(msg)
    size = DTYPE_SIZE[settings.dtype]
    weights = float(structure.parameters * size)
    states = weights * STATES[settings.optimizer]
    static: dict[TermName, float] = {"base": weights, "optimizer": states}
    tokens = tokens_of(structure, settings)
    blocks = blocks_of(structure)
    dynamic = whole_step(structure, Additions(), settings, tokens, reach=True)
    inputs = sum(_inputs(block, size) * block.count for block in blocks)
    dynamic["activations_other"] = float(inputs * settings.batch_size * tokens)
    if settings.gradient_checkpointing:
        # one block at a time: never more than the optimizer's step
        hidden = max((residual_width(block) for block in blocks), default=0)
        count = sum(block.count for block in blocks)
        boundary = float(count * size * hidden * settings.batch_size * tokens)
        dynamic = {"activations_checkpoint": boundary}
    at_loss = sum(dynamic.values())
    in_step = 2 * weights
    if in_step > at_loss:
        # what the backward pass had reserved is reused by the temporary copy
        return Parts({**static, "gradients": weights, "temporary": weights}, {}, 0.0, 0.0)
    return Parts(static, dynamic, 0.0, 0.0)


def _inputs(block: Block, size: int) -> int:
    """Per token: what trained linear layers and norms keep beyond a frozen block's share."""
    seen: set[tuple[str, int]] = set()
    total = 0
    for group in block.groups:
        if group.role == "norm" and group.shape:
            total += size * group.out_features
        elif group.kind in {"linear", "transformers_conv1d"} and group.role not in _OUTPUTS:
            key = (group.pattern.rpartition(".")[0], group.in_features)
            if key not in seen:
                seen.add(key)
                total += size * group.in_features
    return total

"""The chunked cross-entropy that a script of such a setup has, as the dry run runs it.

The head is given one position to work on; the loss makes the logits of a chunk of tokens at a time
from the hidden states before the head, and makes them again in the backward pass.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from peft_shop.errors import ForecastError
from peft_shop.forecast.dry_run.kinds import head_of
from peft_shop.forecast.quick.frozen import LOSS_CHUNK

if TYPE_CHECKING:
    from torch import nn

    from peft_shop.preflight.batches import Batch

__all__ = ["ChunkedLoss"]


class ChunkedLoss:
    """A loss for `model` that never holds all of its logits.

    Args:
        model: a causal language model with a linear head, changed in place.

    Raises:
        ForecastError: no head is known.
    """

    def __init__(self, model: nn.Module) -> None:
        self._head = head_of(model)
        if self._head is None:
            msg = f"{type(model).__name__} tells of no head: its loss cannot be chunked"
            raise ForecastError(msg)
        self._states: Any = None
        self._head.register_forward_pre_hook(self._keep)

    def _keep(self, _module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        self._states = inputs[0]
        return (inputs[0][:, :1], *inputs[1:])

    def without_labels(self, batch: Batch) -> Batch:
        """The batch for the model, which makes no loss of its own."""
        return {name: value for name, value in batch.items() if name != "labels"}

    def __call__(self, _outputs: Any, _batch: Batch) -> torch.Tensor:
        """Sum over chunks of the loss of the last forward pass."""
        states = self._states.flatten(0, 1)
        self._states = None
        labels = torch.zeros(states.shape[0], dtype=torch.long, device=states.device)
        total: Any = 0.0
        for start in range(0, states.shape[0], LOSS_CHUNK):
            stop = start + LOSS_CHUNK
            total = total + checkpoint(
                self._chunk,
                states[start:stop],
                labels[start:stop],
                use_reentrant=False,
                preserve_rng_state=False,
            )
        return total / states.shape[0]

    def _chunk(self, states: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        # past the hook, which is for the model's own call
        logits = self._head.forward(states)
        return functional.cross_entropy(logits.float(), labels, reduction="sum")

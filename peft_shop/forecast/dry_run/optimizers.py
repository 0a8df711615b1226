"""The end of a training step: clipping and the optimizer, as they run on an accelerator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import torch

from peft_shop.errors import ForecastError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from peft_shop.forecast.records import Settings

__all__ = ["clip", "make_optimizer"]

_BLOCK: Final = 256
"""Elements that share a scale in bitsandbytes' 8-bit states."""
_SMALLEST: Final = 4096
"""Parameters with fewer elements keep 32-bit states in bitsandbytes."""


def make_optimizer(model: nn.Module, settings: Settings) -> Any:
    """Optimizer of what is trainable, in the implementation that accelerators default to.

    torch chooses its multi-tensor implementation on accelerators only, so it is asked for here.

    Raises:
        ForecastError: there is nothing to train.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    if not parameters:
        msg = "nothing is trainable, so there is no step to forecast; look at the target modules"
        raise ForecastError(msg)
    if settings.optimizer == "lora_fa":
        from peft.optimizers import create_lorafa_optimizer  # noqa: PLC0415 - loads much, rarely used

        return create_lorafa_optimizer(model, r=1, lora_alpha=1, lr=1e-3)
    if settings.optimizer == "riemannian":
        from peft.optimizers import create_riemannian_optimizer  # noqa: PLC0415 - as above

        return create_riemannian_optimizer(
            model, optimizer_cls=torch.optim.AdamW, lr=1e-3, foreach=True
        )
    if settings.optimizer == "sgd":
        return torch.optim.SGD(parameters, lr=1e-3, foreach=True)
    if settings.optimizer == "adafactor":
        return torch.optim.Adafactor(parameters, lr=1e-3, foreach=True)
    if settings.optimizer == "adamw_8bit":
        return _EightBit(parameters)
    return torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.1, foreach=True)


def clip(parameters: Sequence[torch.nn.Parameter]) -> None:
    """Scale gradients to a norm of at most one, as `clip_grad_norm_` does on accelerators."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    kinds = dict.fromkeys(gradient.dtype for gradient in gradients)
    norms = []
    for kind in kinds:
        norms += torch._foreach_norm([gradient for gradient in gradients if gradient.dtype == kind])  # noqa: SLF001 - torch has no public name for it
    total = torch.linalg.vector_norm(torch.stack(norms))
    factor = torch.clamp(1.0 / (total + 1e-6), max=1.0)
    for kind in kinds:
        torch._foreach_mul_([gradient for gradient in gradients if gradient.dtype == kind], factor)


class _EightBit:
    """AdamW with 8-bit states: two bytes a parameter and two scales a block; updates in place.

    Attributes:
        state: tensors of the optimizer, by parameter.
    """

    def __init__(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        self.parameters = tuple(parameters)
        self.state: dict[Any, dict[str, torch.Tensor]] = {}

    def zero_grad(self) -> None:
        """Let go of the gradients."""
        for parameter in self.parameters:
            parameter.grad = None

    @torch.no_grad()  # type: ignore[untyped-decorator] # torch is not followed by mypy
    def step(self) -> None:
        """Make states where there are none, and update."""
        for parameter in self.parameters:
            if parameter.grad is None:
                continue
            state = self.state.get(parameter)
            if state is None:
                state = self.state[parameter] = _eight_bit_state(parameter)
            parameter.add_(parameter.grad)


def _eight_bit_state(parameter: torch.Tensor) -> dict[str, torch.Tensor]:
    if parameter.numel() < _SMALLEST:
        return {
            name: torch.zeros_like(parameter, dtype=torch.float32) for name in ("first", "second")
        }
    blocks = -(-parameter.numel() // _BLOCK)
    state = {}
    for name in ("first", "second"):
        state[name] = torch.zeros_like(parameter, dtype=torch.uint8)
        state[f"{name}_scale"] = torch.zeros(blocks, device=parameter.device)
    return state

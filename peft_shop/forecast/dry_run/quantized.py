"""Linear layers whose weights are stored in few bits: what their passes allocate.

No backend computes on the meta device, so each frozen linear layer of a plain model is given the
behaviour that they share: the weight is expanded for a product, in the forward pass and once more
in the backward pass, and is not kept.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from peft_shop.forecast.quick.base_memory import linear_bytes

if TYPE_CHECKING:
    from peft_shop.forecast.records import Settings
    from peft_shop.model.structure import Structure

__all__ = ["quantize", "stored_sizes"]

_CAST: frozenset[str] = frozenset({"bnb_4bit", "bnb_8bit"})
"""Backends whose other parameters `prepare_model_for_kbit_training` turns into float32."""


class _Product(torch.autograd.Function):  # type: ignore[misc] # torch is not followed by mypy
    """`x @ weight.T` with a weight that is expanded each time."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(weight)
        return x @ torch.empty_like(weight, dtype=x.dtype).t()

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None]:
        (weight,) = ctx.saved_tensors
        return grads[0] @ torch.empty_like(weight, dtype=grads[0].dtype), None


def quantize(model: nn.Module, structure: Structure, settings: Settings) -> dict[int, int]:
    """Give the layers of a plain `model` on meta the behaviour of `settings.quantization`.

    Returns:
        Bytes of what is stored in another form than the model's tensors, by `id` of the tensor.
    """
    sizes: dict[int, int] = {}
    for group in structure.groups:
        if group.kind != "linear" or group.role in ("head", "router"):
            continue
        stored = linear_bytes(group, settings)
        for name in group.names:
            module = _module(model, name)
            if isinstance(module, nn.Linear):
                sizes[id(module.weight)] = stored
                module.forward = partial(_forward, module, getattr(torch, settings.dtype))
    if settings.prepare_kbit and settings.quantization in _CAST:
        for parameter in model.parameters():
            if id(parameter) not in sizes and parameter.is_floating_point():
                parameter.data = torch.empty_like(parameter, dtype=torch.float32)
    for parameter in model.parameters():
        parameter.requires_grad = False
    return sizes


def _module(model: nn.Module, name: str) -> nn.Module | None:
    """The module of that name; `None` where a shortened model lacks it."""
    try:
        return model.get_submodule(name)
    except AttributeError:
        return None


def stored_sizes(model: nn.Module, structure: Structure) -> dict[int, int]:
    """Bytes of the weights that the checkpoint stores in few bits, by `id` of the tensor."""
    sizes: dict[int, int] = {}
    for group in structure.groups:
        width = structure.stored_width(group)
        for name in () if width is None else group.names:
            owner, _, own = name.rpartition(".")
            try:
                if group.kind == "parameter":
                    weight = getattr(model.get_submodule(owner), own)
                else:
                    weight = model.get_submodule(name).weight
            except AttributeError:  # a shortened model lacks it
                continue
            sizes[id(weight)] = math.ceil(weight.numel() * width)
    return sizes


def _forward(module: nn.Module, dtype: torch.dtype, x: torch.Tensor) -> torch.Tensor:
    """As the backends: compute in `dtype`, give back the input's."""
    out = _Product.apply(x.to(dtype), module.weight)
    if module.bias is not None:
        out = out + module.bias.to(dtype)
    return out.to(x.dtype)

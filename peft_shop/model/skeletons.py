"""Copies of a model on the meta device: its structure without its weights."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, Final

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

__all__ = ["meta_copy"]

_META: Final = torch.device("meta")


class _NoData(TorchFunctionMode):  # type: ignore[misc] # torch is not followed by mypy
    """Answers every deep copy of a tensor with one on the meta device."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.Tensor.__deepcopy__:
            return _on_meta(args[0], args[1])
        return func(*args, **(kwargs or {}))


def meta_copy(model: nn.Module) -> nn.Module:
    """New instance of `model` on the meta device; no weight is read, copied or changed.

    Parameters that are one and the same stay one. Classes of parameters (such as those of
    quantized layers) and what is written on them are kept, with the tensors therein on meta too.
    """
    memo: dict[int, Any] = {}
    for tensor in _tensors(model):
        _on_meta(tensor, memo)
    for module in model.modules():
        # random number generators cannot be copied
        memo.update(
            (id(state), state)
            for state in vars(module).values()
            if isinstance(state, torch.Generator)
        )
    with _NoData():
        return copy.deepcopy(model, memo)


def _tensors(model: nn.Module) -> Iterator[torch.Tensor]:
    for module in model.modules():
        yield from (parameter for parameter in module._parameters.values() if parameter is not None)  # noqa: SLF001 - with the tied ones
        yield from (buffer for buffer in module._buffers.values() if buffer is not None)  # noqa: SLF001 - as above


def _on_meta(tensor: torch.Tensor, memo: dict[int, Any]) -> torch.Tensor:
    """The meta counterpart of `tensor`, the same one whenever it is asked for."""
    found = memo.get(id(tensor))
    if found is not None:
        return found
    if is_traceable_wrapper_subclass(tensor):
        names, context = tensor.__tensor_flatten__()
        inner = {name: _on_meta(getattr(tensor, name), memo) for name in names}
        plain = type(tensor).__tensor_unflatten__(inner, context, tensor.size(), tensor.stride())
    else:
        plain = (
            torch.empty_strided(tensor.size(), tensor.stride(), dtype=tensor.dtype, device=_META)
            if tensor.layout is torch.strided
            else torch.empty(tensor.size(), dtype=tensor.dtype, device=_META)
        )
    if isinstance(tensor, torch.nn.Parameter):
        made = (
            torch.nn.Parameter(plain, requires_grad=tensor.requires_grad)
            if type(tensor) is torch.nn.Parameter or is_traceable_wrapper_subclass(tensor)
            else torch.Tensor._make_subclass(type(tensor), plain, tensor.requires_grad)  # noqa: SLF001 - as Parameter itself does
        )
    elif type(tensor) is torch.Tensor or is_traceable_wrapper_subclass(tensor):
        made = plain.requires_grad_(tensor.requires_grad) if tensor.is_leaf else plain
    else:
        made = torch.Tensor._make_subclass(type(tensor), plain, tensor.requires_grad)  # noqa: SLF001 - as above
    memo[id(tensor)] = made
    # what quantized layers and transformers write on a tensor; objects that hold tensors are
    # copied without them, the rest is shared
    for key, value in vars(tensor).items():
        if key.startswith("_backward") or key == "grad":
            continue
        with _NoData():
            setattr(made, key, copy.deepcopy(value, memo))
    return made

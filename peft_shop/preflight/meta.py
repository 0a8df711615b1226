"""A torch function mode that keeps every tensor on the meta device and tells nobody."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._device import _device_constructors

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["META", "StayOnMeta"]

META: Final = torch.device("meta")
_PRETENDED: Final = torch.device("cpu")


class StayOnMeta(TorchFunctionMode):  # type: ignore[misc] # torch is not followed by mypy
    """Inside it, tensors are made on meta wherever they are asked for, and never leave it.

    Code that asks where a tensor is gets the CPU for an answer: it then does what it does with
    real weights (peft skips steps for weights on meta), while torch works out shapes alone.

    Args:
        answers: what torch functions give instead of their own result, by function.
        select_all: whether a mask on meta is taken to select everything. Which entries of a mask
            are set is not known on meta; without this, asking for them is an error of torch's.
    """

    def __init__(
        self,
        answers: Mapping[Callable[..., Any], Callable[..., Any]] | None = None,
        *,
        select_all: bool = False,
    ) -> None:
        super().__init__()
        self._answers = {**_ANSWERS, **(_SELECTIONS if select_all else {}), **(answers or {})}

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Result of `func` on meta."""
        del types
        named = dict(kwargs or {})
        if func in _FACTORIES or "device" in named:
            named["device"] = META
        # a generator belongs to a device, and on meta nothing is drawn
        named.pop("generator", None)
        answer = self._answers.get(func)
        if answer is not None:
            return answer(*args, **named)
        for arg in args:
            if type(arg) in _PLACES:
                args = [_kept(other) for other in args if type(other) is not torch.Generator]
                break
        return func(*args, **named)


def _kept(argument: Any) -> Any:
    return META if type(argument) is torch.device else argument


def _same(tensor: Any, *_: Any, **__: Any) -> Any:
    return tensor


def _moved(tensor: Any, *args: Any, **named: Any) -> Any:
    """`Tensor.to`, whose first argument is a device, a dtype or another tensor."""
    where = [META if isinstance(arg, str | torch.device) else arg for arg in args]
    return torch.Tensor.to(tensor, *where, **named)


def _normal(*args: Any, **named: Any) -> Any:
    """`normal`, which makes a tensor only where neither mean nor deviation is one."""
    if not any(isinstance(arg, torch.Tensor) for arg in (*args, *named.values())):
        named["device"] = META
    return torch.normal(*args, **named)


def _bins(indices: Any, weights: Any = None, minlength: int = 0) -> Any:
    """`bincount`: which indices there are is unknown, so no more bins than were asked for."""
    dtype = torch.int64 if weights is None else torch.float64
    del indices
    return torch.empty(minlength, dtype=dtype, device=META)


def _places(condition: Any, *args: Any, **named: Any) -> Any:
    """`where`: with a condition alone, all its places."""
    if args or named:
        return torch.where(condition, *args, **named)
    count = condition.numel()
    return tuple(torch.empty(count, dtype=torch.int64, device=META) for _ in range(condition.dim()))


def _item(tensor: Any, index: Any) -> Any:
    """`tensor[index]`, in which a mask selects everything along its dimensions."""
    parts = index if isinstance(index, tuple) else (index,)
    if not any(_is_mask(part) for part in parts):
        return torch.Tensor.__getitem__(tensor, index)
    if len(parts) == 1 and index.dim() > 1:
        return tensor.flatten(0, index.dim() - 1)
    return tensor[tuple(slice(None) if _is_mask(part) else part for part in parts)]


def _is_mask(part: Any) -> bool:
    return isinstance(part, torch.Tensor) and part.dtype is torch.bool


def _stored(tensor: Any, index: Any, value: Any) -> None:
    """`tensor[index] = value`: nothing is stored on meta."""
    del tensor, index, value


_PLACES: Final = frozenset({torch.device, torch.Generator})
_FACTORIES: Final = frozenset(_device_constructors())
_ANSWERS: Final[Mapping[Callable[..., Any], Callable[..., Any]]] = {
    torch.Tensor.device.__get__: lambda *_: _PRETENDED,
    torch.Tensor.is_meta.__get__: lambda *_: False,
    torch.Tensor.is_cpu.__get__: lambda *_: True,
    torch.Tensor.cpu: _same,
    torch.Tensor.cuda: _same,
    torch.Tensor.xpu: _same,
    torch.Tensor.to: _moved,
    torch.Tensor.__setitem__: _stored,
    torch.normal: _normal,
}
_SELECTIONS: Final[Mapping[Callable[..., Any], Callable[..., Any]]] = {
    torch.Tensor.__getitem__: _item,
    torch.bincount: _bins,
    torch.where: _places,
}

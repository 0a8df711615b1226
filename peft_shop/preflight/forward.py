"""One forward pass without weights: which adapters are called, which get a gradient, what fails.

Everything runs on the meta device, where shapes are worked out and no number is. Code that reads
a number gets one that stands in; what it decides by that is no verdict.
"""

from __future__ import annotations

import contextlib
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from torch.distributions import Distribution
from torch.fx.experimental import _config as meta_config
from torch.utils._python_dispatch import TorchDispatchMode

from peft_shop.preflight.sparse import SPARSE
from peft_shop.preflight.wrapping import REFUSALS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping


__all__ = ["Pass", "forward_pass"]

_HALF: Final = frozenset({torch.bfloat16, torch.float16})
_READS: Final = torch.ops.aten._local_scalar_dense.default  # noqa: SLF001 - it has no other name
_ADD: Final = torch.ops.aten.add_.Tensor
_NOT_OUTPUTS: Final = frozenset(
    {"attentions", "cache_params", "cross_attentions", "decoder_attentions",
     "decoder_hidden_states", "encoder_attentions", "encoder_hidden_states", "hidden_states",
     "past_key_values", "router_logits"}
)  # fmt: skip
"""Members of a model's output that no loss is made of."""


def _unique(values: Any, *_: Any, **__: Any) -> Any:
    """Which values there are is not known: one."""
    places = torch.empty_like(values, dtype=torch.long)
    return values.new_empty(1), places, places.new_empty(1)


def _grouped(left: Any, right: Any, *args: Any, **named: Any) -> Any:
    """Experts' products, which torch has on meta for the accelerator's precision only."""
    halves = (left.to(torch.bfloat16), right.to(torch.bfloat16))
    return torch.ops.aten._grouped_mm.default(*halves, *args, **named).to(left.dtype)  # noqa: SLF001 - as above


def _product(added: Any, sparse: Any, dense: Any, **_: Any) -> Any:
    return added.new_empty(sparse.shape[0], dense.shape[-1])


_SHAPES: Final[Mapping[Any, Callable[..., Any]]] = {
    **SPARSE,
    torch.ops.aten._unique2.default: _unique,  # noqa: SLF001 - as above
    torch.ops.aten._grouped_mm.default: _grouped,  # noqa: SLF001 - as above
    torch.ops.aten._sparse_addmm.default: _product,  # noqa: SLF001 - as above
}
"""Operations that meta does not have, or not for what is asked of them here."""


@dataclass(frozen=True, slots=True)
class Pass:
    """What one forward pass showed.

    Attributes:
        called: names of the adapters whose forward ran, as they are in the wrapped model.
        reached: `id` of the parameters that get a gradient from the outputs.
        reads: how often code read a number, which is not known here [count].
        error: what was raised; `None` where the pass went through.
    """

    called: frozenset[str] = frozenset()
    reached: frozenset[int] = frozenset()
    reads: int = 0
    error: Exception | None = None


class _Numbers(TorchDispatchMode):  # type: ignore[misc] # torch is not followed by mypy
    """Answers code that reads a number, and runs sparse operations in sizes alone."""

    def __init__(self, *, answer: bool) -> None:
        super().__init__()
        self.reads = 0
        self._answer = answer

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is _READS and args[0].device.type == "meta":
            self.reads += 1
            if args[0].dtype is torch.bool:
                return self._answer
            return 1.0 if args[0].is_floating_point() else 1
        if func is _ADD and _is_sparse(args[1]):
            return args[0]
        return _SHAPES.get(func, func)(*args, **(kwargs or {}))


class _Autocast(torch.autocast):  # type: ignore[misc] # torch is not followed by mypy
    """`torch.autocast` that takes the meta device, for which there is none, for the CPU."""

    def __init__(self, device_type: str, *args: Any, **kwargs: Any) -> None:
        super().__init__("cpu" if device_type == "meta" else device_type, *args, **kwargs)


def _is_sparse(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.layout is not torch.strided


def forward_pass(model: nn.Module, batch: Mapping[str, Any], *, answer: bool = False) -> Pass:
    """Run `model`, on the meta device, once in training mode.

    Args:
        model: with or without an adapter; in training mode and single precision afterwards.
        batch: keyword arguments of its forward pass.
        answer: what code is told that asks whether something about numbers is so.
    """
    called: set[str] = set()
    hooks = [
        module.register_forward_pre_hook(lambda *_, name=name: called.add(name))
        for name, module in model.named_modules()
        if isinstance(module, BaseTunerLayer)
    ]
    model.train()
    _steady(model)
    numbers = _Numbers(answer=answer)
    try:
        with _without_numbers(), numbers:
            outputs = model(**batch)
    except REFUSALS as error:
        return Pass(frozenset(called), frozenset(), numbers.reads, error)
    finally:
        for hook in hooks:
            hook.remove()
    return Pass(frozenset(called), _reached(outputs), numbers.reads)


def _steady(model: nn.Module) -> None:
    """Single precision, in which nothing fails for precision alone; no block left to chance."""
    for module in model.modules():
        for holder in (module, vars(module).get("config")):
            for name in [
                key for key in getattr(holder, "__dict__", ()) if key.endswith("layerdrop")
            ]:
                setattr(holder, name, 0.0)
    for value in (*model.parameters(), *model.buffers()):
        if value.dtype in _HALF and type(value) in {nn.Parameter, torch.Tensor}:
            value.data = value.data.to(torch.float32)


@contextlib.contextmanager
def _without_numbers() -> Iterator[None]:
    """Masks select everything, distributions do not look at values, libraries keep still."""
    checks = Distribution._validate_args  # noqa: SLF001 - it can only be set
    Distribution.set_default_validate_args(False)
    autocast, torch.autocast = torch.autocast, _Autocast
    try:
        with (
            meta_config.patch(meta_nonzero_assume_all_nonzero=True),
            warnings.catch_warnings(),
            torch.random.fork_rng(devices=[]),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.autocast = autocast
        Distribution.set_default_validate_args(checks)


def _reached(outputs: Any) -> frozenset[int]:
    """`id` of the leaves behind the loss, or behind all outputs where the model gives none."""
    loss = getattr(outputs, "loss", None)
    roots = [loss] if isinstance(loss, torch.Tensor) else list(_tensors(outputs))
    todo = [root.grad_fn for root in roots if root.grad_fn is not None]
    seen = set(todo)
    leaves = set()
    while todo:
        node = todo.pop()
        variable = getattr(node, "variable", None)
        if variable is not None:
            leaves.add(id(variable))
        for following, _ in node.next_functions:
            if following is not None and following not in seen:
                seen.add(following)
                todo.append(following)
    return frozenset(leaves)


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif hasattr(value, "items"):
        for name, part in value.items():
            if name not in _NOT_OUTPUTS:
                yield from _tensors(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _tensors(part)

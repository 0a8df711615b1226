"""Records a training step on the meta device: allocations, releases and kernels.

Storages are watched by weak references, so a release is seen where Python or autograd really lets
go of one. Nothing is computed: the sizes are those that an accelerator would see.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from peft_shop.forecast.deadline import check_time
from peft_shop.forecast.dry_run.operations import (
    Op,
    again,
    cost_of,
    has_sparse,
    key_of,
    parts_of,
    result_of,
)
from peft_shop.forecast.dry_run.trace import EMPTY_CACHE, Kernel, StorageBlock, Trace
from peft_shop.preflight.sparse import SPARSE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from peft_shop.forecast.dry_run.operations import Cost, OperationResult
    from peft_shop.forecast.dry_run.trace import Kind, Phase

__all__ = ["Recorder"]


class Recorder(TorchDispatchMode):  # type: ignore[misc] # torch is not followed by mypy
    """Watches what runs inside it; `trace` is what was seen.

    Args:
        vocabulary: width of the logits; `None` for a model without.
    """

    def __init__(self, vocabulary: int | None = None) -> None:
        super().__init__()
        self.trace = Trace()
        self.phase: Phase = "static"
        self.kind: Kind = "other"
        self.site = ""
        self.vocabulary = vocabulary
        self.weights: frozenset[int] = frozenset()
        self.measuring = False
        self._finished = False
        self._live: dict[int, Any] = {}
        self._number: dict[int, int] = {}
        self._results: dict[Any, OperationResult | None] = {}
        self._costs: dict[Any, Cost] = {}
        self._ops: dict[Any, Op] = {}

    def hold(self, tensors: Iterable[torch.Tensor], kind: Kind, sizes: Mapping[int, int]) -> None:
        """Count tensors that are there before the first step.

        Args:
            tensors: those that were counted before are left out.
            kind: what they are.
            sizes: bytes, by `id` of the tensor, where they are not those of the tensor itself.
        """
        for tensor in tensors:
            storage = tensor.untyped_storage()
            if storage._cdata not in self._live:  # noqa: SLF001 - torch's own trackers use it
                size = sizes.get(id(tensor), storage.nbytes())
                self._note(storage, kind, "static", "", size)

    def send_away(self, tensors: Iterable[torch.Tensor]) -> None:
        """Release tensors that were counted and are not on the accelerator any more."""
        for tensor in tensors:
            number = self._number.pop(tensor.untyped_storage()._cdata, None)  # noqa: SLF001 - as above
            if number is not None:
                self.trace.events.append(~number)

    def begin(self, *, empty_cache: bool = False, measuring: bool = True) -> None:
        """Mark the beginning of a step."""
        if empty_cache:
            self.trace.events.append(EMPTY_CACHE)
        self.trace.steps.append(len(self.trace.events))
        self.measuring = measuring

    def finish(self) -> None:
        """See nothing more: what is released from here on is no part of a step."""
        self._finished = True

    def relabel(self, tensors: Iterable[torch.Tensor], kind: Kind) -> None:
        """Say what tensors turned out to be, such as gradients."""
        for tensor in tensors:
            number = self._number.get(tensor.untyped_storage()._cdata)  # noqa: SLF001 - torch's own trackers use it
            if number is not None:
                blocks = self.trace.blocks
                if blocks[number].phase != "static":
                    blocks[number] = blocks[number]._replace(kind=kind)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        check_time()
        op = self._ops.get(func)
        if op is None:
            op = self._ops[func] = Op(func)
        self.trace.calls += self.measuring
        if op.view:
            return func(*args, **kwargs)
        if op.reads and args[0].device.type == "meta":
            self.trace.synchronizations += self.measuring
            return _stand_in(args[0])
        key = key_of(func, args, kwargs)
        if op.in_place and (key is not None or has_sparse(args)):
            out = args[0] if op.returns else None
            cost = self._costs.get(key)
            if cost is None:
                cost = cost_of(func, op, args, kwargs, out)
                if key is not None:
                    self._costs[key] = cost
            self._count(cost)
            return out
        out, cost = self._run(func, op, key, args, kwargs)
        for one in out if isinstance(out, (tuple, list)) else (out,):
            for inner in one if isinstance(one, (tuple, list)) else (one,):
                if isinstance(inner, torch.Tensor):
                    self._see(inner, op.name)
        if cost is not None:
            self._count(cost)
        return out

    def _run(
        self, func: Any, op: Op, key: Any, args: Any, kwargs: dict[str, Any]
    ) -> tuple[Any, Cost | None]:
        """Result and cost, from an earlier call with the same sizes where there was one."""
        known = None if key is None or not op.fresh else self._results.get(key)
        if known is not None:
            return again(known), known.kernel
        out = SPARSE.get(func, func)(*args, **kwargs)
        cost = cost_of(func, op, args, kwargs, out) if op.kernel else None
        if op.fresh and key is not None:
            self._results[key] = result_of(out, cost, self._live)
        return out, cost

    def _count(self, cost: Cost) -> None:
        if cost.scratch:
            number = len(self.trace.blocks)
            self.trace.blocks.append(
                StorageBlock(cost.scratch, "temporary", self.phase, cost.op, self.site)
            )
            self.trace.events += [number, ~number]
        if self.measuring:
            self.trace.kernels.append(Kernel(*cost[:5], self.phase))

    def _see(self, tensor: torch.Tensor, op: str) -> None:
        if tensor.device.type != "meta":
            return
        if tensor.layout is not torch.strided:
            for part in parts_of(tensor):
                self._see(part, op)
            return
        storage = tensor.untyped_storage()
        if storage._cdata in self._live:  # noqa: SLF001 - as above
            return
        kind = self.kind
        shape = tensor.shape
        if len(shape) > 1 and shape[-1] == self.vocabulary:
            kind = "logits" if kind == "logits" else "loss"
        elif kind == "adapter_activation" and tensor.numel() in self.weights:
            kind = "materialized"
        self._note(storage, kind, self.phase, op)

    def _note(
        self, storage: Any, kind: Kind, phase: Phase, op: str, size: int | None = None
    ) -> None:
        key = storage._cdata  # noqa: SLF001 - as above
        trace = self.trace
        number = len(trace.blocks)
        size = storage.nbytes() if size is None else size
        trace.blocks.append(StorageBlock(size, kind, phase, op, self.site))
        trace.events.append(number)

        def released(_: Any) -> None:
            if self._finished:
                return
            del self._live[key]
            if self._number.pop(key, None) is not None:
                trace.events.append(~number)

        self._live[key] = weakref.ref(storage, released)
        self._number[key] = number


def _stand_in(tensor: torch.Tensor) -> bool | int | float:
    """A value for code that reads one: masks are not full, counts are one."""
    if tensor.dtype is torch.bool:
        return False
    return 1.0 if tensor.is_floating_point() else 1

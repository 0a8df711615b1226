"""What torch's operations are, and what a call of one returns and costs, in sizes alone."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import torch

from peft_shop.forecast.dry_run.kernels import flops_of, launches_of, scratch_of

if TYPE_CHECKING:
    from collections.abc import Container

__all__ = [
    "Cost",
    "Op",
    "OperationResult",
    "again",
    "cost_of",
    "has_sparse",
    "key_of",
    "parts_of",
    "result_of",
]

_aten: Final = torch.ops.aten
_HALF: Final = frozenset({torch.bfloat16, torch.float16, torch.float8_e4m3fn, torch.float8_e5m2})
_NO_KERNEL: Final = re.compile(
    r"aten\.(empty|new_empty|empty_like|empty_strided|new_empty_strided|detach|lift_fresh|alias"
    r"|_local_scalar_dense|_unsafe_view|set_|resize_|sym_|is_|prim)"
)
_RESIZES: Final = re.compile(r"aten\.(set_|resize_|_resize|.*\.out$|.*_out)")


class Op:
    """What is the same for every call of one operation.

    Attributes:
        fresh: results are new tensors and nothing is written, so that equal inputs have equal
            results, as far as sizes go.
        in_place: the first argument is written and is the result, or there is none.
    """

    __slots__ = ("fresh", "in_place", "kernel", "name", "reads", "returns", "view")

    def __init__(self, func: Any) -> None:
        self.name = str(func)
        # marks for profilers are nothing that an accelerator runs
        self.view = bool(func.is_view) or func.namespace == "profiler"
        self.kernel = not (self.view or _NO_KERNEL.match(self.name))
        self.reads = func is _aten._local_scalar_dense.default  # noqa: SLF001 - it has no other name
        schema = func._schema  # noqa: SLF001 - torch's own trackers read it
        written = [a for a in schema.arguments if a.alias_info and a.alias_info.is_write]
        aliased = any(a.alias_info for a in (*schema.arguments, *schema.returns))
        tensors = all("Tensor" in str(one.type) for one in schema.returns)
        self.returns = bool(schema.returns)
        self.fresh = not aliased and bool(schema.returns) and tensors
        self.in_place = (
            len(written) == 1
            and written[0].name == schema.arguments[0].name
            and len(schema.returns) <= 1
            and torch.Tag.inplace_view not in func.tags
            and not _RESIZES.match(self.name)
        )


class Cost(NamedTuple):
    """Cost of an operation, but for the phase as `Kernel` has it, and its scratch memory."""

    op: str
    flops: int
    traffic: int
    half: bool
    launches: int
    scratch: int


class OperationResult(NamedTuple):
    """Sizes of what an operation returns, and its cost."""

    shapes: tuple[tuple[Any, Any, torch.dtype] | None, ...]
    single: bool
    kernel: Cost | None


def key_of(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """What the sizes of the results depend on; `None` where that cannot be said."""
    try:
        parts = [func, *map(_part, args)]
        if kwargs:
            parts += [(name, _part(value)) for name, value in kwargs.items()]
        key = tuple(parts)
        hash(key)
    except TypeError:
        return None
    return key


def _part(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        if value.device.type != "meta" or value.layout is not torch.strided:
            msg = "a result depends on values"
            raise TypeError(msg)
        dtype = value.dtype
        return (value.shape, value.stride(), dtype, dtype.is_complex and value.is_conj())
    if isinstance(value, (list, tuple)):
        return tuple(map(_part, value))
    # 1, 1.0 and True are equal, and promote differently
    return (type(value), value)


def result_of(out: Any, cost: Cost | None, live: Container[int]) -> OperationResult | None:
    """How to make `out` again; `None` where it is more than plain new tensors.

    Some operations declare a new tensor and return a view (`_unsafe_view`): what is `live` already
    is not new.
    """
    single = isinstance(out, torch.Tensor)
    shapes: list[tuple[Any, Any, torch.dtype] | None] = []
    seen = set()
    for one in (out,) if single else out:
        if one is None:
            shapes.append(None)
            continue
        if not isinstance(one, torch.Tensor) or one.device.type != "meta":
            return None
        if one.layout is not torch.strided:
            return None
        storage = one.untyped_storage()
        seen.add(storage._cdata)  # noqa: SLF001 - as above
        shape, stride = one.shape, one.stride()
        extent = 1 + sum((n - 1) * s for n, s in zip(shape, stride, strict=True))
        expected = extent * one.element_size() if one.numel() else 0
        if storage._cdata in live:  # noqa: SLF001 - as above
            return None
        if (
            storage.nbytes() != expected
            or one.is_conj()
            or len(seen) < len(shapes) + 1 - (shapes.count(None))
        ):
            return None
        shapes.append((shape, stride, one.dtype))
    return OperationResult(tuple(shapes), single, cost)


def again(known: OperationResult) -> Any:
    """New tensors of the sizes that an earlier call returned."""
    made = [
        None
        if shape is None
        else torch.empty_strided(shape[0], shape[1], dtype=shape[2], device="meta")
        for shape in known.shapes
    ]
    return made[0] if known.single else tuple(made)


def cost_of(func: Any, op: Op, args: Any, kwargs: dict[str, Any], out: Any) -> Cost:
    """Name, floating-point work, traffic, whether in half precision, launches."""
    traffic = 0
    tensors = 1
    types: list[torch.dtype] = []
    for value in (*args, *kwargs.values()):
        inner = value if isinstance(value, (tuple, list)) else (value,)
        found = [one for one in inner if isinstance(one, torch.Tensor)]
        traffic += sum(map(_bytes, found))
        tensors = max(tensors, len(found))
        types += [x.dtype for x in found if x.is_floating_point() or x.is_complex()]
    # the first two are multiplied; attention in half precision has sums in full precision besides
    half = all(kind in _HALF for kind in types[:2])
    if not op.in_place:
        results = out if isinstance(out, (tuple, list)) else (out,)
        traffic += sum(_bytes(result) for result in results if isinstance(result, torch.Tensor))
    if op.in_place:
        first = args[0]
        traffic += sum(map(_bytes, first if isinstance(first, (tuple, list)) else (first,)))
    return Cost(
        op.name,
        flops_of(func, args, kwargs, out),
        traffic,
        half,
        launches_of(op.name, tensors),
        scratch_of(op.name, args, out),
    )


def _bytes(tensor: torch.Tensor) -> int:
    """Bytes of what a tensor shows; an expanded one shows its storage once."""
    if tensor.device.type != "meta":
        return 0
    if tensor.layout is not torch.strided:
        return sum(map(_bytes, parts_of(tensor)))
    return min(  # type: ignore[no-any-return] # torch is not followed by mypy
        tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes()
    )


def has_sparse(args: Any) -> bool:
    """Whether a sparse tensor is among the arguments."""
    return any(isinstance(arg, torch.Tensor) and arg.layout is not torch.strided for arg in args)


def parts_of(tensor: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Dense tensors that a sparse one is made of."""
    if tensor.layout is torch.sparse_coo:
        return tensor._indices(), tensor._values()  # noqa: SLF001 - the public ones need sorted ones
    return tensor.crow_indices(), tensor.col_indices(), tensor.values()

"""What operations do on the accelerator where the meta device does something else.

On the meta device attention, dropout and RMS norm fall apart into elementary operations; on an
accelerator they are one kernel each, with other results kept for the backward pass. The function
mode here calls the accelerator's operations, whose meta versions and derivatives torch has.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import flop_registry

if TYPE_CHECKING:
    from collections.abc import Container

__all__ = ["AcceleratorKernels", "flops_of", "launches_of", "scratch_of"]

_aten: Final = torch.ops.aten
_HALF: Final = (torch.bfloat16, torch.float16)
_BIAS_ALIGNMENT: Final = 16
"""Elements to which the memory-efficient kernel aligns the last dimension of its mask."""
_ATTENTION_BACKWARD: Final = (
    "aten._scaled_dot_product_flash_attention_backward",
    "aten._scaled_dot_product_efficient_attention_backward",
)
_TENSORS_PER_LAUNCH: Final = 48
"""Tensors that one launch of a `_foreach` kernel takes (three lists, multi-tensor apply)."""


class AcceleratorKernels(TorchFunctionMode):  # type: ignore[misc] # torch is not followed by mypy
    """Calls the operations that an accelerator would run.

    Args:
        host: `id` of tensors that would be in the host's memory: each move makes a new tensor.
    """

    def __init__(self, host: Container[int] = ()) -> None:
        super().__init__()
        self.host = host

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        replacement: Any = _REPLACEMENTS.get(func)
        if replacement is not None:
            if "input" in kwargs:
                args = (kwargs.pop("input"), *args)
            return replacement(*args, **kwargs)
        if func is torch.Tensor.to and id(args[0]) in self.host:
            return torch.empty_like(args[0], dtype=func(*args, **kwargs).dtype)
        return func(*args, **kwargs)


def _attention(query: Any, key: Any, value: Any, *args: Any, **named: Any) -> Any:
    """Flash attention where it can be used, else the memory-efficient kernel, else the formula.

    The order of preference and the conditions are those of torch's `sdp_utils.cpp`: flash needs
    half precision, no mask and heads of at most 256; the other takes a mask, aligned to 16.
    """
    given = {**dict(zip(("attn_mask", "dropout_p", "is_causal"), args, strict=False)), **named}
    mask = given.get("attn_mask")
    options = (given.get("dropout_p", 0.0), given.get("is_causal", False))
    scale = given.get("scale")
    alike = query.dtype == key.dtype == value.dtype and query.dtype is not torch.float64
    if query.dim() != 4 or not alike:
        return functional.scaled_dot_product_attention(query, key, value, *args, **named)
    width = query.shape[-1]
    if mask is None and query.dtype in _HALF and width <= 256 and value.shape[-1] == width:
        padding = -width % 8
        if padding:
            query, key, value = (functional.pad(one, (0, padding)) for one in (query, key, value))
            scale = scale or 1 / math.sqrt(width)
        out = _aten._scaled_dot_product_flash_attention(  # noqa: SLF001 - torch has no other name for it
            query, key, value, *options, scale=scale
        )[0]
        return out[..., :width] if padding else out
    heads = query.shape[-3]
    if given.get("enable_gqa") and key.shape[-3] != heads:
        repeats = heads // key.shape[-3]
        key, value = (one.repeat_interleave(repeats, dim=-3) for one in (key, value))
    bias = None if mask is None else _bias(mask, query, key)
    keep = any(one.requires_grad for one in (query, key, value)) and torch.is_grad_enabled()
    return _aten._scaled_dot_product_efficient_attention(  # noqa: SLF001 - as above
        query, key, value, bias, keep, *options, scale=scale
    )[0]


def _bias(mask: Any, query: Any, key: Any) -> Any:
    """The mask as the memory-efficient kernel takes it: numbers, aligned, one view per head."""
    if mask.dtype is torch.bool:
        mask = torch.full_like(mask, -math.inf, dtype=query.dtype).masked_fill(mask, 0.0)
    length = mask.shape[-1]
    rest = -length % _BIAS_ALIGNMENT
    if rest:
        mask = functional.pad(mask, (0, rest))[..., :length]
    return mask.expand(query.shape[0], query.shape[-3], query.shape[-2], key.shape[-2])


def _dropout(given: Any, p: float = 0.5, training: Any = True, inplace: Any = False) -> Any:  # noqa: FBT002 - as torch's own signature
    """Dropout as one kernel that keeps its mask."""
    if inplace or not training or p in (0, 1) or not given.is_floating_point():
        return functional.dropout(given, p, training, inplace)
    return torch.native_dropout(given, p, True)[0]  # noqa: FBT003 - takes no keyword


def _softmax(given: Any, dim: Any = None, *more: Any, **named: Any) -> Any:
    """Softmax of float16 into float32 as the one kernel that an accelerator has for it."""
    into = named.get("dtype")
    if given.dtype is torch.float16 and into is torch.float32 and dim is not None:
        return _aten._softmax(given, dim, True)  # noqa: FBT003, SLF001 - takes no keyword; as above
    return functional.softmax(given, dim, *more, **named)


class _GroupedProduct(torch.autograd.Function):  # type: ignore[misc] # torch is not followed by mypy
    """Each row times the weight of its group, of which one stands for all: the work is the same."""

    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(rows, weight)
        return rows @ weight[0]

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        rows, weight = ctx.saved_tensors
        of_rows = grads[0] @ weight[0].t() if ctx.needs_input_grad[0] else None
        if not ctx.needs_input_grad[1]:
            return of_rows, None
        of_weight = torch.empty_like(weight)
        of_weight[0] = rows.t() @ grads[0]
        return of_rows, of_weight


def _grouped(rows: Any, weight: Any, **named: Any) -> Any:
    """Grouped product in the dtypes that torch knows on the meta device, else a stand-in."""
    if rows.dtype is torch.bfloat16 or rows.dim() != 2 or weight.dim() != 3:
        return torch._grouped_mm(rows, weight, **named)  # noqa: SLF001 - as below
    return _GroupedProduct.apply(rows, weight)


def _rms_norm(given: Any, normalized_shape: Any, weight: Any = None, eps: Any = None) -> Any:
    """RMS norm as one kernel that keeps one number a row."""
    if weight is not None and weight.dtype != given.dtype:
        return functional.rms_norm(given, normalized_shape, weight, eps)
    return _aten._fused_rms_norm(given, normalized_shape, weight, eps)[0]  # noqa: SLF001 - as above


_REPLACEMENTS: Final = {
    functional.scaled_dot_product_attention: _attention,
    functional.dropout: _dropout,
    functional.rms_norm: _rms_norm,
    functional.softmax: _softmax,
    torch._grouped_mm: _grouped,  # noqa: SLF001 - what `functional.grouped_mm` calls
    torch.rms_norm: _rms_norm,
}


def flops_of(func: Any, args: Any, kwargs: dict[str, Any], out: Any) -> int:
    """Floating-point operations of matrix products, convolutions and attention, else 0."""
    count = flop_registry.get(func.overloadpacket)
    return 0 if count is None else int(count(*args, **kwargs, out_val=out))


def scratch_of(name: str, args: Any, out: Any) -> int:
    """Bytes that a kernel takes while it runs and returns, beside its results.

    Fourier transforms: cuFFT's work area, which its documentation puts at the size of the data for
    most sizes. Backward of attention: the query's gradient summed in float32 and one number a row
    (`mha_bwd` of FlashAttention 2; the accumulators of the memory-efficient kernel). Backward of
    softmax: the product of gradient and result, which is summed up (`softmax_backward_cuda_out`).
    """
    if name.startswith("aten._fft_"):
        return int(out.numel() * out.element_size())
    if name.startswith("aten._softmax_backward_data"):
        return int(args[0].numel() * args[0].element_size())
    if name.startswith(_ATTENTION_BACKWARD):
        query = args[1]
        return int(query.numel() + query.numel() // query.shape[-1]) * 4
    return 0


def launches_of(name: str, tensors: int) -> int:
    """Kernels that the operation `name` starts for lists of `tensors` tensors."""
    return -(-tensors // _TENSORS_PER_LAUNCH) if "_foreach_" in name else 1

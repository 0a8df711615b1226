"""What an adapter does to one layer, measured from the layer itself, not from the method's formula.

The layer is merged in a copy and the base's weights, as they were before peft touched them, are
taken off. Whether that is all the adapter does is seen by feeding random inputs to both: what is
not a change of weights (routing, gates, tasks) shows there. Where a layer does not merge, or merges
into something else than it computes, its outputs for the identity are read instead.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import torch
from peft.tuners.lora.layer import ParamWrapper
from torch import nn

from peft_shop.conversion.layers import kind_of, release
from peft_shop.errors import ConversionError

if TYPE_CHECKING:
    from peft_shop.conversion.layers import Adapted

__all__ = ["LayerChange", "change_of", "matrix", "relative"]

SAME: Final = 1e-3
"""Largest deviation [1] between a layer and its merged self, relative to what the adapter changes.
Rounding stays far below as long as the change is not tiny, another function is far above."""
ROUNDING: Final = 3e-7
"""What fp32 loses in a layer [1], relative to its outputs: some units of 2^-24."""
_FP32: Final = 2.0**-22
"""Relative error [1] of a weight that peft decomposed and put together in fp32."""
_DOUBLE: Final = 2**24
"""Weights with at most so many numbers are merged in fp64: no digit of a small change is lost."""
_ROWS: Final = 1024
"""Rows of the identity, or of an embedding, in one pass."""
_REFUSALS: Final = (
    RuntimeError,
    ValueError,
    TypeError,
    NotImplementedError,
    AttributeError,
    KeyError,
)
"""What a layer that cannot merge, or not in fp64, raises."""


@dataclass
class LayerChange:
    """What one adapted layer is, in terms of the base's layer.

    Attributes:
        name: of the module.
        kind: of the module.
        new: parameters that differ from the base's, by their names within the module.
        delta: change of the weight as a matrix (out, in) for the kinds that LoRA knows, else
            `None`; of a convolution the kernel is flattened into `in`.
        kernel: shape of a convolution's kernel, in front of it the inputs per group.
        size: norm of the change relative to the base's [1].
        noise: part of the change that may be rounding [1].
        bias: norm of the change of its other parameters [1], such as a bias.
        groups: of a convolution.
    """

    name: str
    kind: Any
    new: dict[str, Any]
    delta: Any
    kernel: tuple[int, ...]
    size: float
    noise: float
    bias: float
    groups: int = 1


def change_of(adapted: Adapted) -> LayerChange:
    """The change that an adapted layer makes.

    Raises:
        ConversionError: the layer computes something that no weights can.
    """
    kind = kind_of(adapted.module)
    if kind == "embedding":
        return _rows(adapted)
    if isinstance(adapted.layer, ParamWrapper):
        return _parameters(adapted)
    inputs = _inputs(adapted.module, kind)
    with torch.no_grad():
        wanted = adapted.layer(*inputs)
        plain = _plain(adapted, adapted.base)
        effect = float((_first(wanted) - _first(plain(*inputs))).norm())
        limit = SAME * effect + ROUNDING * float(_first(wanted).norm()) * 10
        merged = _merged(adapted)
        if merged is not None and _fits(adapted, merged, inputs, wanted, limit):
            return _change(adapted, kind, merged)
        if kind in {"linear", "conv1d"}:
            read = _read_off(adapted, kind)
            if _fits(adapted, read, inputs, wanted, limit):
                return _change(adapted, kind, read)
    raise ConversionError(
        f"{adapted.name}: the adapter does more than change weights there (it depends on the "
        "input, on a task or on chance), so neither a LoRA nor a merged weight computes the same"
    )


def matrix(weight: Any, kind: str) -> Any:
    """A weight of the base as (out, in)."""
    if kind in {"conv1d", "embedding"}:
        return weight.T
    return weight.flatten(1) if kind == "convolution" else weight


def relative(part: Any, whole: Any) -> float:
    """Norm of `part` relative to that of `whole` [1]; 0 where both are 0."""
    small, large = _norm(part), _norm(whole)
    return small / large if large else (0.0 if small == 0 else 1.0)


def _norm(tensor: Any) -> float:
    """Frobenius norm, summed up in fp64 a strip at a time."""
    strips = tensor.split(_ROWS) if tensor.dim() else (tensor,)
    return math.sqrt(sum(float((strip.double() ** 2).sum()) for strip in strips))


def _first(output: Any) -> Any:
    return output[0] if isinstance(output, tuple) else output


def _inputs(module: Any, kind: str) -> tuple[Any, ...]:
    """Random inputs for a module, the same ones each time."""
    chance = torch.Generator().manual_seed(0)

    def noise(*shape: int) -> Any:
        return torch.randn(*shape, generator=chance)

    if kind == "linear":
        return (noise(1, 8, module.in_features),)
    if kind == "conv1d":
        return (noise(1, 8, module.weight.shape[0]),)
    if kind == "convolution":
        span = [
            (size - 1) * step + 3
            for size, step in zip(module.kernel_size, module.dilation, strict=True)
        ]
        return (noise(2, module.in_channels, *span),)
    if isinstance(module, nn.MultiheadAttention):
        return (noise(5, 2, module.embed_dim),) * 3
    width = next((p.shape[-1] for p in module.parameters() if p.dim() >= 1), None)
    if width is None:
        raise ConversionError(f"a {type(module).__name__} has no weights to convert")
    return (noise(1, 8, int(width)),)


def _plain(adapted: Adapted, weights: dict[str, Any]) -> Any:
    """The base's module with other weights."""
    module = copy.deepcopy(adapted.module)
    for name, weight in weights.items():
        path, _, last = name.rpartition(".")
        owner = module.get_submodule(path) if path else module
        table = owner._parameters if last in owner._parameters else owner._buffers  # noqa: SLF001 - types may change
        table[last] = (
            nn.Parameter(weight.float(), requires_grad=False)
            if table is owner._parameters  # noqa: SLF001 - as above
            else weight.float()
        )
    return module.eval()


def _fits(
    adapted: Adapted, weights: dict[str, Any], inputs: Any, wanted: Any, limit: float
) -> bool:
    found = _plain(adapted, weights)(*inputs)
    off = float((_first(found) - _first(wanted)).norm())
    return bool(off <= limit)


def _merged(adapted: Adapted) -> dict[str, Any] | None:
    """Weights of the merged layer; `None` where it does not merge."""
    numbers = sum(weight.numel() for weight in adapted.base.values())
    if numbers <= _DOUBLE:
        try:
            return _merge(copy.deepcopy(adapted.layer).double())
        except _REFUSALS:
            pass  # some layers make fp32 tensors on the way
    try:
        return _merge(copy.deepcopy(adapted.layer))
    except _REFUSALS:
        return None


def _merge(layer: Any) -> dict[str, Any] | None:
    if not hasattr(layer, "merge"):
        return None
    layer.merge()
    module = layer.get_base_layer()
    found = {
        name: parameter.detach()
        for name, parameter in module.named_parameters(remove_duplicate=False)
    }
    kept = module.state_dict()
    found |= {name: buffer for name, buffer in module.named_buffers() if name in kept}
    release(layer)
    return found


def _read_off(adapted: Adapted, kind: str) -> dict[str, Any]:
    """Weights that the outputs for the identity show."""
    inputs = int(_inputs(adapted.module, kind)[0].shape[-1])
    zero = adapted.layer(torch.zeros(1, 1, inputs))[0, 0]
    parts = []
    for start in range(0, inputs, _ROWS):
        rows = torch.zeros(1, min(_ROWS, inputs - start), inputs)
        rows[0].diagonal(start).fill_(1.0)
        parts.append(adapted.layer(rows)[0] - zero)
    weight = torch.cat(parts)  # (in, out)
    new = {"weight": weight if kind == "conv1d" else weight.T.contiguous()}
    if "bias" in adapted.base:
        new["bias"] = zero
    elif float(zero.norm()) > ROUNDING * float(weight.norm()):
        new["bias"] = zero  # not among the base's parameters: it will not fit, and is refused
    return adapted.base | new


def _rows(adapted: Adapted) -> LayerChange:
    """The change of an embedding, read off its outputs for every row."""
    weight = adapted.base["weight"]
    new = torch.empty_like(weight)
    with torch.no_grad():
        for start in range(0, weight.shape[0], _ROWS):
            ids = torch.arange(start, min(start + _ROWS, weight.shape[0])).unsqueeze(0)
            new[start : start + _ROWS] = adapted.layer(ids)[0]
    return _change(adapted, "embedding", {"weight": new})


def _parameters(adapted: Adapted) -> LayerChange:
    """The change of bare parameters, such as those of experts, as peft merges it.

    The module's inputs are its own affair (tokens, experts, weights), so that nothing can be fed to
    it here; the whole model's outputs show whether it is right.
    """
    layer = copy.deepcopy(adapted.layer)
    with torch.no_grad():
        module = layer.unload_and_optionally_merge_module(
            merge=True, safe_merge=False, adapter_names=None
        )
    found = {
        name: parameter.detach()
        for name, parameter in module.named_parameters(remove_duplicate=False)
    }
    return _change(adapted, "other", adapted.base | found)


def _change(adapted: Adapted, kind: str, found: dict[str, Any]) -> LayerChange:
    base = adapted.base
    new = {name: one for name, one in found.items() if not _equal(one, base.get(name))}
    weight = base.get("weight")
    delta, kernel, size, noise = None, (), 0.0, 0.0
    if kind != "other" and weight is not None:
        after = found["weight"]
        delta = matrix(after - weight.to(after.dtype), kind)
        size = relative(delta, weight)
        # peft changed the base in fp32: then the difference to it cannot be better than that
        held = dict(adapted.module.named_parameters()).get("weight")
        untouched = held is not None and torch.equal(held, weight)
        exact = (after.dtype == torch.float64 and untouched) or kind == "embedding"
        noise = (2.0**-52 if exact else _FP32) / size if size else 0.0
        kernel = tuple(weight.shape[1:]) if kind == "convolution" else ()
    others = [
        relative(one - base[name], base[name]) if name in base else 1.0
        for name, one in new.items()
        if name != "weight" or delta is None
    ]
    groups = int(getattr(adapted.module, "groups", 1)) if kind == "convolution" else 1
    return LayerChange(
        adapted.name, kind, new, delta, kernel, size, noise, max(others, default=0.0), groups
    )


def _equal(one: Any, other: Any) -> bool:
    return other is not None and torch.equal(one, other.to(one.dtype))

"""Layers of an instance: what kind each one is, its shape, and where it stands."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from torch import nn
from transformers.pytorch_utils import Conv1D

if TYPE_CHECKING:
    from collections.abc import Iterator

    from peft_shop.model.structure import LayerKind

__all__ = ["Layer", "find_layers"]

_PACKED: Final = ("qweight", "W_q", "codes", "weight", "weight_packed")
"""Where classes of quantized linear layers keep their weight."""
_CONVOLUTIONS: Final[tuple[tuple[type, LayerKind], ...]] = (
    (nn.Conv1d, "conv1d"),
    (nn.Conv2d, "conv2d"),
    (nn.Conv3d, "conv3d"),
)
_TRANSPOSED: Final = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_EXACT: Final = {
    nn.Linear, Conv1D, nn.Embedding, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.LayerNorm,
    nn.MultiheadAttention, *_TRANSPOSED, nn.GroupNorm, nn.BatchNorm1d, nn.BatchNorm2d,
    nn.BatchNorm3d, nn.RMSNorm,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer, or one parameter that is a layer's weight without a layer of its own.

    Attributes:
        name: of the module or parameter.
        kind: type of the layer.
        class_name: of the module, or `Parameter`.
        exact: whether it is torch's own class.
        in_features: inputs, as `ModuleGroup` has them.
        out_features: outputs, as `ModuleGroup` has them.
        parameters: of the module itself [count].
        shape: of the weight as torch holds it.
        experts: leading dimension of expert weights.
        kernel: of convolutions.
        groups: of convolutions.
        bias: whether it has one.
    """

    name: str
    kind: LayerKind
    class_name: str
    exact: bool
    in_features: int
    out_features: int
    parameters: int
    shape: tuple[int, ...] = ()
    experts: int = 0
    kernel: tuple[int, ...] = ()
    groups: int = 1
    bias: bool = False

    @property
    def packed(self) -> bool:
        """Whether quantization holds its weight in another shape than its sizes tell."""
        return self.kind == "linear" and self.shape != (self.out_features, self.in_features)

    @property
    def linear_like(self) -> bool:
        """Whether it multiplies with a matrix: linear, convolution, attention in one module."""
        return self.kind in {
            "linear", "transformers_conv1d", "conv1d", "conv2d", "conv3d", "multihead_attention",
        }  # fmt: skip


def find_layers(model: nn.Module) -> Iterator[Layer]:
    """Every layer and bare weight of `model`, in the order of its modules."""
    for name, module in model.named_modules():
        # a model that is one layer itself has no name by which peft could find it
        layer = _layer(name, module) if name else None
        if layer is not None:
            yield layer
        else:
            yield from _parameters(name, module)


def _layer(name: str, module: nn.Module) -> Layer | None:
    if isinstance(module, nn.Embedding | nn.EmbeddingBag):
        rows, width = module.num_embeddings, module.embedding_dim
        return _make(name, module, "embedding", rows, width)
    made = _convolution(name, module) or _linear(name, module) or _norm(name, module)
    if made is not None:
        return made
    if isinstance(module, nn.MultiheadAttention):
        width = module.embed_dim
        shape = (3 * width, width)
        bias = module.in_proj_bias is not None
        return _make(name, module, "multihead_attention", width, width, shape=shape, bias=bias)
    return None


def _make(
    name: str,
    module: nn.Module,
    kind: LayerKind,
    inputs: int,
    outputs: int,
    **more: Any,
) -> Layer:
    weight = getattr(module, "weight", None)
    shape = tuple(getattr(weight, "shape", ()))
    own = sum(parameter.numel() for parameter in module.parameters(recurse=False))
    facts = {
        "shape": shape,
        "parameters": own,
        "bias": getattr(module, "bias", None) is not None,
        **more,
    }
    return Layer(
        name=name,
        kind=kind,
        class_name=type(module).__name__,
        exact=type(module) in _EXACT,
        in_features=int(inputs),
        out_features=int(outputs),
        **facts,
    )


def _convolution(name: str, module: nn.Module) -> Layer | None:
    kind: LayerKind | None = next((k for cls, k in _CONVOLUTIONS if isinstance(module, cls)), None)
    if kind is None and isinstance(module, _TRANSPOSED):
        kind = "other"
    if kind is None:
        return None
    return _make(
        name,
        module,
        kind,
        module.in_channels,
        module.out_channels,
        kernel=tuple(module.kernel_size),
        groups=module.groups,
    )


def _linear(name: str, module: nn.Module) -> Layer | None:
    if isinstance(module, Conv1D):
        return _make(name, module, "transformers_conv1d", module.nx, module.nf)
    sizes = _sizes(module)
    if sizes is None:
        return None
    inputs, outputs = sizes
    weight = getattr(module, "weight", None)
    shape = tuple(getattr(weight, "shape", ()))
    if shape == (outputs, inputs):
        return _make(name, module, "linear", inputs, outputs)
    if isinstance(module, nn.Linear) or any(hasattr(module, one) for one in _PACKED):
        # packed by quantization: counted as what it stands for
        bias = getattr(module, "bias", None) is not None
        count = inputs * outputs + (outputs if bias else 0)
        return _make(name, module, "linear", inputs, outputs, parameters=count, shape=shape)
    return None


def _sizes(module: nn.Module) -> tuple[int, int] | None:
    """Inputs and outputs of a linear layer of any library; `None` for anything else."""
    if isinstance(module, nn.Linear):
        return int(module.in_features), int(module.out_features)
    if isinstance(module, nn.Bilinear) or any(True for _ in module.children()):
        return None
    for inputs, outputs in (("in_features", "out_features"), ("infeatures", "outfeatures")):
        coming, going = getattr(module, inputs, None), getattr(module, outputs, None)
        if isinstance(coming, int) and isinstance(going, int):
            return coming, going
    return None


def _norm(name: str, module: nn.Module) -> Layer | None:
    cls = type(module).__name__
    kind: LayerKind
    if isinstance(module, nn.LayerNorm):
        kind = "layer_norm"
    elif isinstance(module, nn.GroupNorm):
        kind = "group_norm"
    elif isinstance(module, nn.modules.batchnorm._BatchNorm) or "BatchNorm" in cls:  # noqa: SLF001 - the common base has no public name
        if any(True for _ in module.children()):
            return None
        kind = "batch_norm"
    elif "norm" in cls.lower() and not any(True for _ in module.children()):
        own = dict(module.named_parameters(recurse=False))
        if any(one.ndim > 1 and one.numel() != max(one.shape) for one in own.values()):
            return None
        kind = "other" if "bias" in own or not own else "rms_norm"
        if "RMS" in cls:
            kind = "rms_norm"
    else:
        return None
    width = _width(module)
    return _make(name, module, kind, width, width)


def _width(module: nn.Module) -> int:
    weight = getattr(module, "weight", None)
    if weight is not None:
        return int(weight.numel())
    for name in ("normalized_shape", "num_channels", "num_features"):
        size = getattr(module, name, None)
        if isinstance(size, int):
            return size
        if isinstance(size, tuple):
            return math.prod(size)
    return max((parameter.numel() for parameter in module.parameters(recurse=False)), default=0)


def _parameters(name: str, module: nn.Module) -> Iterator[Layer]:
    """Weights of two and more dimensions that a module holds itself."""
    for own, parameter in module.named_parameters(recurse=False):
        shape = tuple(parameter.shape)
        if len(shape) < 2:
            continue
        experts = shape[0] if len(shape) == 3 else 0
        # the order of the last two differs among models: roles decide
        yield Layer(
            name=f"{name}.{own}" if name else own,
            kind="parameter",
            class_name="Parameter",
            exact=True,
            in_features=shape[-1],
            out_features=shape[-2],
            parameters=parameter.numel(),
            shape=shape,
            experts=experts,
            bias=f"{own}_bias" in module._parameters,  # noqa: SLF001 - the module's own only
        )

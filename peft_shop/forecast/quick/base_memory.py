"""Base weights in memory: plain, or as each quantization backend stores them with its scales."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from peft_shop.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from peft_shop.catalog.features import QuantizationBackend
    from peft_shop.forecast.records import Dtype, Settings
    from peft_shop.model.structure import ModuleGroup, Structure

__all__ = [
    "DTYPE_SIZE",
    "QUANTIZED",
    "base_bytes",
    "is_quantized",
    "linear_bytes",
    "stream_dtype",
]

DTYPE_SIZE: Final[dict[Dtype, int]] = {"bfloat16": 2, "float16": 2, "float32": 4}
"""Size of one element [B]."""


def _blocks(size: int, block: int) -> int:
    return -(-size // block)


def _bnb_4bit(out: int, inputs: int, settings: Settings) -> int:
    """Two weights a byte; one float32 maximum per 64 of them, or those quantized once more.

    Source: bitsandbytes 0.50, `functional.quantize_4bit`: block 64; with `compress_statistics`
    the maxima as bytes with one float32 per 256 and one offset, and two code tables.
    """
    size = out * inputs
    maxima = _blocks(size, 64)
    code = 16 * 4
    if not settings.double_quantization:
        return _blocks(size, 2) + 4 * maxima + code
    return _blocks(size, 2) + maxima + 4 * _blocks(maxima, 256) + 4 + code + 256 * 4


def _bnb_8bit(out: int, inputs: int, settings: Settings) -> int:  # noqa: ARG001 - has no settings
    """A byte a weight and one float32 scale per row (bitsandbytes 0.50, `Int8Params`)."""
    return out * inputs + 4 * out


def _gptq(out: int, inputs: int, settings: Settings) -> int:
    """Packed int32 words, float16 scales, packed zeros, one int32 group index per input."""
    bits = settings.quantization_bits or 4
    groups = _blocks(inputs, settings.group_size or 128)
    words = _blocks(inputs * bits, 32) * out * 4
    return words + 2 * out * groups + _blocks(out * bits, 32) * groups * 4 + 4 * inputs


def _awq(out: int, inputs: int, settings: Settings) -> int:
    """Packed int32 words, float16 scales and packed zeros; no group index."""
    bits = settings.quantization_bits or 4
    groups = _blocks(inputs, settings.group_size or 128)
    return (inputs + groups) * _blocks(out * bits, 32) * 4 + 2 * out * groups


def _hqq(out: int, inputs: int, settings: Settings) -> int:
    """Packed bytes, and a scale and a zero per group in the compute dtype (hqq 0.2.8)."""
    bits = settings.quantization_bits or 4
    group = settings.group_size or 64
    groups = _blocks(out * inputs, group)
    # three-bit weights are packed ten to an int32, across groups
    packed = _blocks(groups, 10) * group * 4 if bits == 3 else _blocks(out * inputs * bits, 8)
    return packed + 2 * groups * DTYPE_SIZE[settings.dtype]


def _torchao(out: int, inputs: int, settings: Settings) -> int:
    """Weight-only: int8 or float8 with a float32 scale per row; int4 with scale and zero per group.

    Source: torchao 0.18; int4 as its packed layouts on an accelerator hold it.
    """
    size = DTYPE_SIZE[settings.dtype]
    if (settings.quantization_bits or 8) == 8:
        return out * inputs + 4 * out
    groups = _blocks(inputs, settings.group_size or 128)
    return _blocks(out * inputs, 2) + 2 * size * out * groups


def _aqlm(out: int, inputs: int, settings: Settings) -> int:  # noqa: ARG001 - has no settings
    """1x16: one int16 code per eight weights, 65536 float16 codes of eight, a scale per row."""
    return 2 * out * _blocks(inputs, 8) + 65536 * 8 * 2 + 2 * out


def _eetq(out: int, inputs: int, settings: Settings) -> int:  # noqa: ARG001 - has no settings
    """A byte a weight and one float16 scale per row."""
    return out * inputs + 2 * out


def _inc(out: int, inputs: int, settings: Settings) -> int:  # noqa: ARG001 - has no settings
    """A float8 byte a weight and one float32 scale per layer."""
    return out * inputs + 4


QUANTIZED: Final[dict[QuantizationBackend, Callable[[int, int, Settings], int]]] = {
    "aqlm": _aqlm,
    "awq": _awq,
    "bnb_4bit": _bnb_4bit,
    "bnb_8bit": _bnb_8bit,
    "eetq": _eetq,
    "gptq": _gptq,
    "hqq": _hqq,
    "inc": _inc,
    "torchao": _torchao,
}
"""Bytes of one weight matrix of (out, in), per backend."""

_CAST_BY_PREPARE: Final = frozenset({"bnb_4bit", "bnb_8bit"})
"""Backends whose other parameters `prepare_model_for_kbit_training` turns into float32."""
_KEPT_ROLES: Final = frozenset({"head", "router"})
"""What the backends leave as it is."""


def stream_dtype(structure: Structure, settings: Settings) -> Dtype:
    """Dtype of the residual stream: float32 where embeddings and norms were turned into it."""
    backend = settings.quantization or structure.quantization
    return "float32" if settings.prepare_kbit and backend in _CAST_BY_PREPARE else settings.dtype


def is_quantized(group: ModuleGroup) -> bool:
    """Whether the backends pack the modules of `group`."""
    return group.kind == "linear" and group.role not in _KEPT_ROLES


def linear_bytes(group: ModuleGroup, settings: Settings) -> int:
    """Bytes of one module of `group` without its bias, as `settings.quantization` stores it."""
    backend = settings.quantization
    if backend is None or not is_quantized(group):
        return math.prod(group.shape) * DTYPE_SIZE[settings.dtype]
    return QUANTIZED[backend](group.out_features, group.in_features, settings)


def base_bytes(structure: Structure, settings: Settings) -> int:
    """Base weights in memory [B], tied ones once; quantized where settings or model say so.

    Raises:
        ConfigError: a float32 base is said to be quantized.
    """
    size = DTYPE_SIZE[settings.dtype]
    backend = settings.quantization or structure.quantization
    stored = structure.stored_quantization
    if backend is None and stored is not None and stored.bytes_per_weight is not None:
        plain = structure.parameters - stored.weights
        return plain * size + math.ceil(stored.weights * stored.bytes_per_weight)
    if backend is None:
        return structure.parameters * size
    settings = settings.model_copy(update={"quantization": backend})
    quantized = [group for group in structure.groups if is_quantized(group)]
    if not quantized:
        msg = f"{structure.name}: no layer that {backend} would quantize"
        raise ConfigError(msg)
    if structure.quantization is None:
        rest = structure.parameters - sum(
            group.out_features * group.in_features * group.count for group in quantized
        )
    else:
        # parameters of a loaded quantized model count packed words, not weights
        rest = _plain_parameters(structure, quantized)
    if settings.prepare_kbit and backend in _CAST_BY_PREPARE:
        size = 4
    return rest * size + sum(linear_bytes(group, settings) * group.count for group in quantized)


def _plain_parameters(structure: Structure, quantized: list[ModuleGroup]) -> int:
    """Parameters outside the quantized weights, tied ones once."""
    packed = {group.pattern for group in quantized}
    repeated = {name for names in structure.tied for name in names[1:]}
    total = sum(group.out_features * group.count for group in quantized if group.bias)
    for group in structure.groups:
        if group.pattern not in packed:
            total += group.parameters * sum(
                f"{name}.weight" not in repeated and name not in repeated for name in group.names
            )
    return total

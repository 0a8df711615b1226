"""Size of a safetensors file from the names, shapes and dtypes of its tensors; no torch.

Layout of the file: eight bytes with the length of the header, the header (JSON, padded with
spaces to a multiple of eight), the tensors. Source: the format's description in the safetensors
project; the order of entries was read off files written by safetensors 0.8.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from peft_shop.errors import ConfigError, nearest_names

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["PEFT_METADATA", "TensorShape", "checkpoint_bytes"]

TensorShape: TypeAlias = "tuple[Sequence[int], Any]"
"""Shape and dtype of a tensor; the dtype as torch's or by its name, such as `float32`."""

PEFT_METADATA: Final[Mapping[str, str]] = {"format": "pt"}
"""What peft writes beside the tensors."""

# names in the file, and sizes [bits], in the order in which the writer sorts dtypes (last first)
_DTYPES: Final[dict[str, tuple[str, int]]] = {
    "bool": ("BOOL", 8),
    "uint8": ("U8", 8),
    "int8": ("I8", 8),
    "float8_e5m2": ("F8_E5M2", 8),
    "float8_e4m3fn": ("F8_E4M3", 8),
    "int16": ("I16", 16),
    "float16": ("F16", 16),
    "bfloat16": ("BF16", 16),
    "int32": ("I32", 32),
    "float32": ("F32", 32),
    "float64": ("F64", 64),
    "int64": ("I64", 64),
}
_ORDER: Final = {name: place for place, name in enumerate(_DTYPES)}


def checkpoint_bytes(
    tensors: Mapping[str, TensorShape], *, metadata: Mapping[str, str] | None = PEFT_METADATA
) -> int:
    """Size of the file that holds `tensors` [B].

    Args:
        tensors: shape and dtype by name, such as `injection.saved_state` gives.
        metadata: written into the header; `None` for none.

    Raises:
        ConfigError: a dtype that the format does not have.

    >>> checkpoint_bytes({"a": ((2, 3), "float32")})
    120
    """
    header, entries = 2, len(tensors)
    if metadata is not None:
        text = json.dumps(dict(metadata), separators=(",", ":"), ensure_ascii=False)
        header += len(f'"__metadata__":{text}'.encode())
        entries += 1
    groups: dict[object, list[str]] = {}
    for name, (_, dtype) in tensors.items():
        groups.setdefault(dtype, []).append(name)
    named = sorted(
        (-_place(_name(dtype), names[0]), _name(dtype), names) for dtype, names in groups.items()
    )
    start = 0
    for place in dict.fromkeys(place for place, _, _ in named):
        code, bits = _DTYPES[next(dtype for one, dtype, _ in named if one == place)]
        for name in sorted(name for one, _, names in named if one == place for name in names):
            shape = tensors[name][0]
            end = start + math.prod(shape) * bits // 8
            sizes = ",".join(map(str, shape))
            header += _length(name) + len(f"{code}{sizes}{start}{end}") + _FRAME
            start = end
    header += max(entries - 1, 0)
    return 8 + -(-header // 8) * 8 + start


_FRAME: Final = len(':{"dtype":"","shape":[],"data_offsets":[,]}')
"""What stands around the values of an entry [B]."""


def _length(name: str) -> int:
    """Bytes of a name in the header [B]."""
    if name.isascii() and name.isprintable() and '"' not in name and "\\" not in name:
        return len(name) + 2
    return len(json.dumps(name, ensure_ascii=False).encode())


def _name(dtype: object) -> str:
    return str(dtype).removeprefix("torch.")


def _place(dtype: str, name: str) -> int:
    place = _ORDER.get(dtype)
    if place is None:
        near = nearest_names(dtype, _ORDER)
        hint = f"; nearest: {', '.join(near)}" if near else ""
        msg = f"{name}: safetensors files hold no {dtype!r}{hint}"
        raise ConfigError(msg)
    return place

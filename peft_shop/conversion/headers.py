"""The header of a safetensors file, read with bounds and checked before anything else opens it.

Layout (https://github.com/huggingface/safetensors, "Format"): 8 bytes with the header's length, the
header as a JSON object of tensors, the numbers.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from peft_shop.errors import ConversionError
from peft_shop.files import read_bounded, regular_size
from peft_shop.records import parse_json

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["FLOATS", "Stored", "json_object", "read_header"]

FLOATS: Final = frozenset(("F64", "F32", "F16", "BF16"))
"""Types of numbers that an adapter can change."""
_SIZES: Final = {
    "BOOL": 1,
    "U8": 1,
    "I8": 1,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
    "F8_E8M0": 1,
    "I16": 2,
    "U16": 2,
    "F16": 2,
    "BF16": 2,
    "I32": 4,
    "U32": 4,
    "F32": 4,
    "I64": 8,
    "U64": 8,
    "F64": 8,
    "C64": 8,
}
"""Bytes of one number."""
_MOST: Final = 32 * 2**20
"""Bytes of a header: those of 200,000 tensors."""
_DIMENSIONS: Final = 8
_DOCUMENT: Final = 8 * 2**20
"""Bytes of a configuration or of an index of shards."""


@dataclass(frozen=True, slots=True)
class Stored:
    """One tensor of a file.

    Attributes:
        dtype: type of its numbers, as the format names it.
        shape: its shape.
    """

    dtype: str
    shape: tuple[int, ...]


def json_object(path: Path, what: str) -> dict[str, Any]:
    """The JSON object in a file from outside.

    Args:
        path: the file.
        what: that it should be, such as `an index of shards`.

    Raises:
        OSError: there is no such file.
        ConversionError: it holds no such thing, or more than one ever has.
    """
    try:
        value = parse_json(read_bounded(path, _DOCUMENT, what))
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ConversionError(f"{path}: {error.strerror or error}") from error
    except ValueError as error:
        raise ConversionError(f"{path}: not JSON: {error}") from error
    if not isinstance(value, dict):
        raise ConversionError(f"{path}: expected a JSON object, got {type(value).__name__}")
    return value


def read_header(path: Path) -> dict[str, Stored]:
    """Every tensor of a safetensors file, by key.

    Raises:
        ConversionError: it is no such file, or one that contradicts itself.
    """
    try:
        size = regular_size(path)
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > size - 8:
                raise _broken(path, f"its header would have {length} bytes, and it has {size}")
            if length > _MOST:
                raise _broken(path, f"a header of more than {_MOST // 2**20} MiB")
            text = file.read(length)
    except OSError as error:
        raise ConversionError(f"{path}: {error.strerror or error}") from error
    tensors = _parsed(path, text)
    stored: dict[str, Stored] = {}
    spans: list[tuple[int, int, str]] = []
    for key, entry in tensors.items():
        stored[key], span = _entry(path, key, entry)
        spans.append((*span, key))
    end = 0
    for first, last, key in sorted(spans):
        if first != end:
            raise _broken(path, f"{key}: its numbers begin at {first} and not at {end}")
        end = last
    if end != size - 8 - length:
        raise _broken(
            path, f"{size - 8 - length} bytes of numbers, and its header tells of {end}: is it cut?"
        )
    return stored


def _parsed(path: Path, text: bytes) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) != len(pairs):
            counts = Counter(key for key, _ in pairs)
            twice = next(key for key, count in counts.items() if count > 1)
            msg = f"the key {_short(twice)} stands there twice"
            raise ValueError(msg)
        return made

    try:
        header = json.loads(text, object_pairs_hook=unique)
    except RecursionError:
        raise _broken(path, "a header nested too deeply") from None
    except ValueError as error:
        raise _broken(path, str(error)) from error
    if not isinstance(header, dict):
        raise _broken(path, "a header that is no JSON object")
    header.pop("__metadata__", None)
    return header


def _entry(path: Path, key: str, entry: Any) -> tuple[Stored, tuple[int, int]]:
    """One entry of a header, and where its numbers lie."""
    fields = entry if isinstance(entry, dict) else {}
    dtype = fields.get("dtype")
    size = _SIZES.get(dtype) if isinstance(dtype, str) else None
    if size is None:
        raise _broken(path, f"{_short(key)}: unknown type of numbers {_short(dtype)}")
    shape, span = (_counts(fields.get(name)) for name in ("shape", "data_offsets"))
    if shape is None or len(shape) > _DIMENSIONS or span is None or len(span) != 2:
        raise _broken(path, f"{_short(key)}: no shape or no place: {_short(entry)}")
    if span[1] - span[0] != size * math.prod(shape):
        raise _broken(path, f"{_short(key)}: its place does not fit its shape {shape}")
    return Stored(str(dtype), tuple(shape)), (span[0], span[1])


def _counts(value: Any) -> list[int] | None:
    """Whole numbers that a file can have; `None` for anything else."""
    right = isinstance(value, list) and all(
        isinstance(number, int) and not isinstance(number, bool) and 0 <= number < 2**62
        for number in value
    )
    return value if right else None


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _broken(path: Path, why: str) -> ConversionError:
    return ConversionError(f"{path}: not a safetensors file: {why}")

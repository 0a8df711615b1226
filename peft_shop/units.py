"""Quantities as people write them: "24GiB", "45%", "20min", "10M" -> numbers in base units.

Base units: bytes [B], seconds [s], fractions [1] and plain counts or scores. `GB` is 10^9 bytes
and `GiB` is 2^30 bytes, always.
"""

from __future__ import annotations

import math
import re
from typing import Final, Literal, TypeAlias

from peft_shop.errors import Keyword, QuantityError, shown

__all__ = [
    "SMALLEST_BYTES",
    "Quantity",
    "Unit",
    "format_quantity",
    "parse_quantity",
    "read_quantity",
]

Unit: TypeAlias = Literal["bytes", "seconds", "fraction", "count", "score"]
Quantity: TypeAlias = str | int | float
"""A number in base units, or text with a unit."""

SMALLEST_BYTES: Final = 10**6
"""Text of a smaller number without a unit is a slip: it may be meant as GiB or as MiB."""
_KIBIBYTE: Final = 2**10
"""A smaller number of bytes, of which a program may well know the unit, is a slip all the same."""
_SHOWN: Final = 40
"""Characters of a stated quantity that a message shows."""
_BYTES: Final = {
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    "tib": 2**40,
}
_SECONDS: Final = {
    "ms": 1e-3,
    "s": 1.0,
    "sec": 1.0,
    "min": 60.0,
    "h": 3600.0,
    "hour": 3600.0,
    "hours": 3600.0,
    "d": 86400.0,
}
_COUNTS: Final = {"k": 10**3, "m": 10**6, "b": 10**9}
_SCALES: Final[dict[str, dict[str, float]]] = {
    "bytes": dict(_BYTES),
    "seconds": dict(_SECONDS),
    "fraction": {"%": 0.01},
    "count": dict(_COUNTS),
    "score": {},
}
_EXAMPLE: Final = {
    "bytes": "'24GiB', '24GB' or a number of bytes",
    "seconds": "'20min', '1.5h' or a number of seconds",
    "fraction": "'45%' or 0.45",
    "count": "'10M' or 10000000",
    "score": "a plain number such as 0.25",
}
_STEPS: Final[dict[str, tuple[tuple[str, float, int], ...]]] = {
    "bytes": (("GiB", 2**30, 2), ("MiB", 2**20, 1), ("KiB", 2**10, 1)),
    "seconds": (("h", 3600, 2), ("min", 60, 1), ("s", 1, 1), ("ms", 1e-3, 1)),
    "count": (("B", 10**9, 2), ("M", 10**6, 2), ("k", 10**3, 2)),
}
_BASE: Final = {"bytes": "B", "seconds": "s", "count": ""}
"""What stands behind a number that is smaller than every step."""
_PATTERN: Final = re.compile(
    r"\s*(?P<number>[+-]?(?:\d[\d_]*(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?)\s*(?P<unit>[A-Za-z%]*)\s*",
    re.ASCII,
)


def parse_quantity(value: Quantity, unit: Unit, *, name: str = "value") -> float:
    """Number in base units of `unit` that `value` stands for.

    Args:
        value: a number in base units, or text with an optional suffix.
        unit: what is measured.
        name: the option's name, for the error message.

    Raises:
        QuantityError: the text is not a number, is not finite, or has a unit of another kind.

    >>> parse_quantity("24GiB", "bytes")
    25769803776.0
    >>> parse_quantity("45%", "fraction")
    0.45
    """
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise QuantityError(f"expected {_EXAMPLE[unit]}, got {shown(value)}", keyword=name)
    if not isinstance(value, str):
        number, factor = _float(value), 1.0
    else:
        match = _PATTERN.fullmatch(value)
        if match is None:
            message = f"cannot read {shown(value)}; expected {_EXAMPLE[unit]}"
            raise QuantityError(message, keyword=name)
        number = _float(match["number"].replace("_", ""))
        suffix = match["unit"]
        scales = _SCALES[unit]
        scale = 1.0 if not suffix else scales.get(suffix.lower())
        if scale is None:
            known = ", ".join(sorted(scales)) or "none"
            raise QuantityError(
                f"{shown(suffix)} in {shown(value)} is not a unit of {unit}; "
                f"known units: {known}; expected {_EXAMPLE[unit]}",
                keyword=name,
            )
        factor = scale
    result = number / 100 if factor == 0.01 else number * factor
    if not math.isfinite(result):
        raise QuantityError(f"{shown(value)} is not a finite number", keyword=name)
    return result


def _float(value: str | float) -> float:
    try:
        return float(value)
    except OverflowError:  # of a whole number
        return math.inf


def read_quantity(value: Quantity, unit: Unit, *, name: str = "value") -> float:
    """Number in base units that a person states: as `parse_quantity`, but no slip of the pen.

    A size or time that is written has a unit; numbers are in base units, but nobody means 24
    bytes. Sizes, times, counts and shares are not negative, and a share is not above 1.

    Raises:
        QuantityError: the value cannot be read, or can hardly be meant so; says what may be meant.

    >>> read_quantity("24GiB", "bytes"), read_quantity("50%", "fraction")
    (25769803776.0, 0.5)
    """
    number = parse_quantity(value, unit, name=name)
    text = value.strip()[:_SHOWN] if isinstance(value, str) else f"{value:g}"
    if number < 0 and unit != "score":
        raise QuantityError(f"{text} is negative; expected {_EXAMPLE[unit]}", keyword=name)
    bare = not isinstance(value, str) or text[-1].isdigit() or text[-1] == "."
    least = SMALLEST_BYTES if isinstance(value, str) else _KIBIBYTE
    if unit == "bytes" and bare and 0 < number < least:
        large, small = (Keyword(name, f"{text}{suffix}") for suffix in ("GiB", "MiB"))
        raise QuantityError(f"{text} has no unit: ", large, " or ", small, "?", keyword=name)
    if unit == "seconds" and bare and number > 0 and isinstance(value, str):
        seconds, minutes = (Keyword(name, f"{text}{suffix}") for suffix in ("s", "min"))
        raise QuantityError(f"{text} has no unit: ", seconds, " or ", minutes, "?", keyword=name)
    if unit == "fraction" and number > 1:
        if number > 100 or not bare:
            raise QuantityError(f"{text} is above 100 %; expected {_EXAMPLE[unit]}", keyword=name)
        percent = Keyword(name, f"{text}%")
        raise QuantityError(
            f"{text} is above 1: ", percent, f", or {number / 100:g}?", keyword=name
        )
    return number


def format_quantity(value: float, unit: Unit, *, digits: int | None = None) -> str:
    """Short text for a number in base units, with a truthful unit.

    >>> format_quantity(22_561_161_216, "bytes")
    '21.01 GiB'
    >>> format_quantity(0.513, "fraction")
    '51.3 %'
    """
    if unit == "fraction":
        return f"{value * 100:.{1 if digits is None else digits}f} %"
    if unit == "score":
        return f"{value:.{3 if digits is None else digits}f}"
    for name, size, default in _STEPS[unit]:
        if abs(value) >= size:
            return f"{value / size:.{default if digits is None else digits}f} {name}".rstrip()
    return f"{value:.{1 if unit == 'seconds' else 0}f} {_BASE[unit]}".rstrip()

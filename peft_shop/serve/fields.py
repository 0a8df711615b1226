"""Values in a peft configuration, read leniently: whatever has another type counts as not set."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from peft_shop.records import Json

__all__ = ["RANK", "is_number", "last_names", "pattern", "plain", "whole"]

RANK: Final = 8
"""Default of both `r` and `lora_alpha` in peft's `LoraConfig`."""


def is_number(value: object) -> bool:
    """Whether it is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def whole(config: Mapping[str, Json], name: str, default: int) -> int:
    """A whole number, or the default."""
    value = config.get(name, default)
    return value if isinstance(value, int) and not isinstance(value, bool) else default


def pattern(config: Mapping[str, Json], name: str) -> dict[str, Any]:
    """The numbers in a table such as `rank_pattern`."""
    value = config.get(name)
    return {k: v for k, v in value.items() if is_number(v)} if isinstance(value, dict) else {}


def last_names(value: object) -> tuple[str, ...]:
    """Last parts of module names; of a pattern, the text itself."""
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, list | tuple | set | frozenset):
        return ()
    return tuple(str(item).rpartition(".")[2] for item in items)


def plain(text: str, most: int = 100) -> str:
    """Text from a stranger's file as a message may show it: short, and nothing but print."""
    shown = "".join(letter for letter in text[: most + 1] if letter.isprintable())
    return shown if len(shown) <= most else f"{shown[: most - 3]}..."

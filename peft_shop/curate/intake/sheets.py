"""A parsed JSON file as a sheet: values by their dotted place, every mistake noted.

Files come from anywhere: cut off, endless, nested without end, with text where a number belongs.
Nothing here recurses over them, and nothing stops at the first mistake.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, Final

from peft_shop.catalog.diagnosis import dotted
from peft_shop.errors import Problem

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["MAX_BYTES", "MAX_DEPTH", "Sheet", "is_finite", "kind_of", "parse", "walk"]

MAX_BYTES: Final = 64 * 2**20
"""Largest file that is read [bytes]; the largest known result has 0.2 MB."""
MAX_DEPTH: Final = 32
"""Deepest nesting that is read; the deepest known result has 6 levels."""


class _DuplicateKeyError(ValueError):
    """An object of a JSON file states one key twice."""


def parse(content: bytes, path: str) -> tuple[Any, Problem | None]:
    """JSON value of a file's bytes, or what is wrong with them."""
    deep = f"is nested deeper than {MAX_DEPTH} levels"
    hint = "a result file ends with `}`; was it cut off, or is it something else?"
    try:
        document = json.loads(content, object_pairs_hook=_unique)
    except RecursionError:
        return None, Problem(path, "", deep)
    except _DuplicateKeyError as error:
        return None, Problem(path, "", str(error))
    except json.JSONDecodeError as error:
        place = f"line {error.lineno} column {error.colno}"
        return None, Problem(path, place, f"not JSON: {error.msg}", hint)
    except ValueError as error:  # not UTF-8, or an integer of thousands of digits
        return None, Problem(path, "", f"not JSON: {error}", hint)
    depth = _too_deep(document)
    return document, None if depth is None else Problem(path, depth, deep)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        msg = f"key {twice!r} stands twice in one object"
        raise _DuplicateKeyError(msg)
    return members


def walk(document: Any) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """Every value with its place, without recursion: files may be hostile."""
    stack: list[tuple[tuple[str | int, ...], Any]] = [((), document)]
    while stack:
        place, value = stack.pop()
        yield place, value
        if len(place) > MAX_DEPTH:
            continue
        if isinstance(value, dict):
            stack += [((*place, key), member) for key, member in value.items()]
        elif isinstance(value, list):
            stack += [((*place, index), member) for index, member in enumerate(value)]


def is_finite(document: Any) -> bool:
    """Whether every number in a JSON value is finite."""
    return not any(isinstance(v, float) and not math.isfinite(v) for _, v in walk(document))


def _too_deep(document: Any) -> str | None:
    for place, _ in walk(document):
        if len(place) > MAX_DEPTH:
            return dotted(place[:4]) + "..."
    return None


class Sheet:
    """Looks values up by their place, and notes every mistake instead of stopping at one."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.problems: list[Problem] = []

    def complain(self, where: str, message: str, hint: str = "") -> None:
        """Note one mistake."""
        self.problems.append(Problem(self.path, where, message, hint))

    def table(self, parent: Any, where: str, *, key: str, required: bool = True) -> dict[str, Any]:
        """Object at `key`; empty where it is missing or something else."""
        value = self._member(parent, where, key, required=required)
        if value is None:
            return {}
        if isinstance(value, dict):
            return value
        self.complain(f"{where}.{key}".lstrip("."), f"expected an object, got {kind_of(value)}")
        return {}

    def text(self, parent: Any, where: str, *, key: str, required: bool = True) -> str | None:
        """Non-empty text at `key`."""
        value = self._member(parent, where, key, required=required)
        if value is None or (isinstance(value, str) and value.strip()):
            return value
        self.complain(f"{where}.{key}", f"expected text, got {kind_of(value)}")
        return None

    def number(
        self,
        parent: Any,
        where: str,
        *,
        key: str,
        required: bool = True,
        integer: bool = False,
        signed: bool = False,
        nan_is_absent: bool = False,
    ) -> int | float | None:
        """Finite number at `key`, as it was written; `True` is not a number."""
        value = self._member(parent, where, key, required=required)
        if value is None:
            return None
        place = f"{where}.{key}"
        wanted = "an integer" if integer else "a number"
        endless = type(value) is int and value.bit_length() > 63
        if isinstance(value, bool) or not isinstance(value, int if integer else int | float):
            self.complain(place, f"expected {wanted}, got {kind_of(value)}")
        elif endless:
            self.complain(place, f"expected {wanted}, got one of {len(str(value))} digits")
        elif not math.isfinite(value):
            if nan_is_absent and math.isnan(value):
                return None
            self.complain(
                place, f"expected {wanted}, got {value}", "leave out what was not measured"
            )
        elif value < 0 and not signed:
            self.complain(place, f"expected {wanted} of at least 0, got {value}")
        else:
            return value
        return None

    def _member(self, parent: Any, where: str, key: str, *, required: bool) -> Any:
        value = parent.get(key) if isinstance(parent, dict) else None
        if value is None and required:
            place = f"{where}.{key}".lstrip(".")
            present = isinstance(parent, dict) and key in parent
            self.complain(place, "is null" if present else "required key is missing")
        return value


def kind_of(value: Any) -> str:
    """A JSON value in words, with an excerpt, for messages."""
    names = {dict: "an object", list: "a list", str: "text", bool: "a boolean", type(None): "null"}
    kind = names.get(type(value), "a number")
    return kind if isinstance(value, dict | list) else f"{kind} ({str(value)[:40]!r})"

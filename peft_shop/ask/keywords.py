"""What every keyword of `recommend` takes, checked in one place before anything is read."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Final, NamedTuple

from peft_shop.adapt.records import TargetOptions
from peft_shop.ask.requirements import AnyOf
from peft_shop.catalog.catalog import Catalog
from peft_shop.catalog.features import SINGLES
from peft_shop.errors import QuantityError, QueryError, UnknownNameError, nearest_names, shown
from peft_shop.forecast.records import Settings
from peft_shop.names import Bounds

__all__ = ["KEYWORDS", "check_keywords"]


_BOUND: Final = re.compile("(?:max|min)_.")


class _Kind(NamedTuple):
    """Values that a keyword takes: the test, and the same in words."""

    holds: Callable[[object], bool]
    words: str


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _are_names(value: object) -> bool:
    named = isinstance(value, str | AnyOf | Iterable)
    return named and not isinstance(value, bytes | bytearray | Mapping)


def _optional(test: Callable[[object], bool], words: str) -> _Kind:
    return _Kind(lambda value: value is None or test(value), words)


_TEXT: Final = _optional(_is_text, "a name")
_NAMES: Final = _optional(_are_names, "a name, a list of names or any_of(...)")
_QUANTITY: Final = _optional(
    lambda value: _is_text(value) or _is_number(value), "a number, or text with a unit"
)
_DEMAND: Final = _optional(
    lambda value: isinstance(value, bool | str), "True (yes), 'partial' (yes or partial) or False"
)


def _record(record: type, words: str) -> _Kind:
    return _optional(lambda value: isinstance(value, record) or _is_named(value), words)


def _is_named(value: object) -> bool:
    return isinstance(value, Mapping) and all(map(_is_text, value))


def _is_order(value: object) -> bool:
    return _is_text(value) or _is_named(value)


KEYWORDS: Final[Mapping[str, _Kind]] = {
    "benchmark": _TEXT,
    "objectives": _NAMES,
    "model": _Kind(lambda _: True, "a model, its configuration, a folder or a hub id"),
    "adapt": _record(TargetOptions, "options by name"),
    "training": _record(Settings, "settings by name"),
    "device": _QUANTITY,
    "max_memory": _QUANTITY,
    "fit": _optional(
        lambda value: isinstance(value, str) and value in {"auto", "off"}, "'auto' or 'off'"
    ),
    "within": _QUANTITY,
    "snapshot": _TEXT,
    "era": _TEXT,
    "evidence": _Kind(_is_text, "'snapshot' or 'pooled'"),
    "quantization": _NAMES,
    "layer_types": _NAMES,
    **{single.id: _DEMAND for single in SINGLES},
    "category": _NAMES,
    "family": _NAMES,
    "task_types": _NAMES,
    "options": _NAMES,
    "serve": _NAMES,
    "trainer": _NAMES,
    "methods": _NAMES,
    "exclude": _NAMES,
    "min_evidence": _TEXT,
    "floor": _QUANTITY,
    "rank_by": _optional(_is_order, "the name of an order, or weights by metric"),
    "accelerator": _TEXT,
    "include_flagged": _Kind(lambda value: isinstance(value, bool), "True or False"),
    "confidence": _Kind(_is_number, "a number from 0.5 to below 1"),
    "certainty": _optional(_is_text, "'rerun' or 'questions'"),
    "peft_version": _optional(_is_text, "a version such as '0.21.2', or 'any'"),
    "catalog": _optional(
        lambda value: isinstance(value, Catalog) or _is_path(value),
        "a catalog or the path of a catalog file",
    ),
}
"""Keywords of `recommend`, but for the bounds."""


def check_keywords(stated: Mapping[str, object]) -> None:
    """Refuses what no keyword takes: values of another kind, and names that are no keyword.

    Args:
        stated: arguments of `recommend` by name, those of `**bounds` among them.

    Raises:
        UnknownNameError: a name that is no keyword; names the nearest.
        QueryError: a value that its keyword never takes.
    """
    for name, value in stated.items():
        kind = KEYWORDS.get(name)
        if kind is None:
            if not _BOUND.match(name):
                raise _unknown(name)
            kind = _QUANTITY
        if not kind.holds(value):
            error = QuantityError if kind is _QUANTITY else QueryError
            raise error(f"expected {kind.words}, got {shown(value)}", keyword=name)


def _unknown(name: str) -> UnknownNameError:
    nearest = nearest_names(name, [*KEYWORDS, *Bounds.__annotations__])
    kind = "bound" if nearest and nearest[0] in Bounds.__annotations__ else "keyword"
    return UnknownNameError(kind, name, [*KEYWORDS, *Bounds.__annotations__])


def _is_path(value: object) -> bool:
    """Whether a file can be called so."""
    try:
        return isinstance(value, str | os.PathLike) and b"\0" not in os.fsencode(value)
    except (TypeError, UnicodeEncodeError):
        return False

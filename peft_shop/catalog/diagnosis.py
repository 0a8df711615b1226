"""What pydantic says of a broken file, as problems that a person can act on.

A problem has the dotted place in the file, what was expected, what was found and, where a name
was mistyped, the nearest valid ones. All mistakes of a file come back at once.
"""

from __future__ import annotations

import re
import types
import typing
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from peft_shop.errors import Problem, nearest_names

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

__all__ = ["dotted", "problems_of"]

_SHOWN = 60
_MOST = 100
"""Places whose mistakes are told: nobody reads more, and looking for near names takes time."""
"""Longest excerpt of a wrong value in a message [characters]."""


def dotted(parts: Iterable[str | int]) -> str:
    """Dotted place for keys and indices.

    >>> dotted(["metrics", 3, "step"])
    'metrics[3].step'
    """
    text = ""
    for part in parts:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += f".{part}" if text else part
    return text


def problems_of(
    error: ValidationError, model: type[BaseModel], data: Any, path: str, *, within: str = ""
) -> list[Problem]:
    """Problems of one file, in the order of their places; the first hundred places.

    Args:
        error: what pydantic raised for `data`.
        model: the record that `data` should have been.
        data: the parsed JSON or TOML value.
        path: the file, as the user named it.
        within: place of `data` in the file, such as `line 3` or `metrics[2]`.
    """
    errors_by_place: dict[str, list[ErrorDetails]] = {}
    for details in error.errors(include_url=False):
        place = dotted(_place(details["loc"], data, missing=details["type"] == "missing"))
        if place not in errors_by_place and len(errors_by_place) >= _MOST:
            continue
        errors_by_place.setdefault(place, []).append(details)
    problems = []
    for place, several in errors_by_place.items():
        first = several[0]
        message, hint = _explain(first, model)
        if len(several) > 1:  # branches of a union: one value, several ways to be right
            message = " or ".join(dict.fromkeys(_expectation(details) for details in several))
            message += f", got {_shown(_at(data, _place(first['loc'], data, missing=False)))}"
        where = _joined(within, place)
        problems.append(Problem(path=path, where=where, message=message, hint=hint))
    return problems


def _joined(within: str, place: str) -> str:
    if not within or not place:
        return within or place
    return f"{within}: {place}" if " " in within else f"{within}.{place}"


def _place(location: Sequence[str | int], data: object, *, missing: bool) -> tuple[str | int, ...]:
    """Part of `location` that exists in `data`: pydantic also names branches of unions."""
    parts: list[str | int] = []
    here: Any = data
    for index, key in enumerate(location):
        last = index == len(location) - 1
        if _has(here, key):
            here = here[key]
        elif not (last and missing):
            continue
        parts.append(key)
    return tuple(parts)


def _has(data: object, key: str | int) -> bool:
    if isinstance(data, dict):
        return key in data
    return isinstance(data, list) and isinstance(key, int) and key < len(data)


def _at(data: Any, place: Iterable[str | int]) -> Any:
    for key in place:
        data = data[key]
    return data


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


def _expectation(details: ErrorDetails) -> str:
    message = details["msg"]
    return message[:1].lower() + message[1:]


def _explain(details: ErrorDetails, model: type[BaseModel]) -> tuple[str, str]:
    """Message and hint for one error."""
    location = details["loc"]
    kind = details["type"]
    if kind == "missing":
        return "required key is missing", ""
    if kind == "extra_forbidden":
        valid = _keys_at(model, location[:-1])
        return f"unknown key {location[-1]!r}", _nearest(str(location[-1]), valid)
    if kind == "value_error" and isinstance(details["input"], dict):
        # of a whole record: it says what of it is wrong
        return str(details.get("ctx", {}).get("error", details["msg"])), ""
    message = f"{_expectation(details)}, got {_shown(details['input'])}"
    if kind == "literal_error":
        allowed = re.findall(r"'([^']*)'", str(details.get("ctx", {}).get("expected", "")))
        return message, _nearest(str(details["input"]), allowed, listed=True)
    return message, ""


def _nearest(name: str, valid: Iterable[str], *, listed: bool = False) -> str:
    options = sorted(valid)
    nearest = nearest_names(name, options)
    if nearest:
        return "did you mean " + " or ".join(repr(option) for option in nearest) + "?"
    if listed or not options:  # the message already has them
        return ""
    return "valid keys are " + ", ".join(options)


def _keys_at(model: type[BaseModel], location: Sequence[str | int]) -> tuple[str, ...]:
    """Keys that the record at `location` may have."""
    annotation: Any = model
    for key in location:
        annotation = _step(annotation, key)
    return tuple(
        name
        for option in _options(annotation)
        if isinstance(option, type) and issubclass(option, BaseModel)
        for name in option.model_fields
    )


def _step(annotation: Any, key: str | int) -> Any:
    for option in _options(annotation):
        if isinstance(option, type) and issubclass(option, BaseModel):
            if key in option.model_fields:
                return option.model_fields[str(key)].annotation
            continue
        origin, arguments = typing.get_origin(option), typing.get_args(option)
        if origin is tuple and isinstance(key, int):
            return arguments[0]
        if origin is dict:
            return arguments[1]
    return None


def _options(annotation: Any) -> tuple[Any, ...]:
    """Members of a union, without `Annotated`; the annotation itself where it is no union."""
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return _options(typing.get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        return tuple(o for member in typing.get_args(annotation) for o in _options(member))
    return (annotation,)

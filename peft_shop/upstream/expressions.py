"""Regular expressions from configurations, refused where matching one may never end.

Python's engine goes back over everything that could have matched otherwise and cannot be
interrupted. An expression that repeats what repeats by itself, or has a choice in it, can take
exponential time; one with many repeats in a row takes a high power of the length of a name.
"""

from __future__ import annotations

import re
from re import _parser  # type: ignore[attr-defined] # no stubs; there from Python 3.11 on
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["compiled", "endless_in"]

_LONGEST: Final = 20_000
"""Characters; lists of names that are written as a choice can be long."""
_MOST: Final = 5
"""Repeats without an end that one way through an expression may have."""
_FEW: Final = 8
"""Repetitions up to which a bounded repeat counts as none."""


def compiled(expression: str) -> re.Pattern[str]:
    """The expression, ready to match names.

    >>> compiled(r".*[.](q|v)_proj").fullmatch("layers.0.q_proj") is not None
    True

    Raises:
        re.error: it is no expression, or matching it may never end.
    """
    if len(expression) > _LONGEST:
        msg = f"longer than {_LONGEST} characters"
        raise re.error(msg, expression[:60])
    pattern = re.compile(expression)
    parsed = _parser.parse(expression)
    if _in_a_row(parsed) > _MOST or any(_may_vary(inside) for inside in _repeated(parsed)):
        msg = (
            "it repeats what repeats or has a choice, or repeats often, so that matching it "
            "may never end; list the names of modules instead"
        )
        raise re.error(msg, expression[:60])
    return pattern


def endless_in(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Fields of a peft configuration whose expressions may never end, each with the reason."""
    for field, value in config.items():
        if field in {"target_modules", "exclude_modules", "feedforward_modules"}:
            texts = [value] if isinstance(value, str) else []
        elif field.endswith("_pattern") and isinstance(value, dict):
            texts = [key for key in value if isinstance(key, str)]
        else:
            continue
        for text in texts:
            try:
                compiled(text)
            except re.error as error:
                if error.pattern != text or "may never end" in error.msg:
                    yield field, error.msg
            except (RecursionError, OverflowError):
                yield field, "too deep or too large for an expression"


def _repeated(parsed: Any) -> Iterator[Any]:
    """What is repeated without an end, at any depth."""
    for operation, argument in parsed:
        name = str(operation)
        if name in {"MAX_REPEAT", "MIN_REPEAT"}:
            _, most, inside = argument
            if int(most) > _FEW:
                yield inside
            yield from _repeated(inside)
        else:
            for inside in _parts(argument):
                yield from _repeated(inside)


def _in_a_row(parsed: Any) -> int:
    """Repeats without an end that one way through an expression has, the most of all ways.

    Alternatives are tried one after the other, so that theirs do not add up.
    """
    count = 0
    for operation, argument in parsed:
        name = str(operation)
        if name in {"MAX_REPEAT", "MIN_REPEAT"}:
            _, most, inside = argument
            count += int(int(most) > _FEW) + _in_a_row(inside)
        elif name == "BRANCH":
            count += max((_in_a_row(way) for way in argument[1]), default=0)
        else:
            count += sum(_in_a_row(inside) for inside in _parts(argument))
    return count


def _may_vary(parsed: Any) -> bool:
    """Whether something may match in several ways or lengths."""
    for operation, argument in parsed:
        if str(operation) in {"MAX_REPEAT", "MIN_REPEAT", "BRANCH", "GROUPREF"}:
            return True
        if any(_may_vary(inside) for inside in _parts(argument)):
            return True
    return False


def _parts(argument: Any) -> Iterator[Any]:
    """Expressions within the argument of an operation."""
    if isinstance(argument, _parser.SubPattern):
        yield argument
    elif isinstance(argument, list | tuple):
        for inner in argument:
            yield from _parts(inner)

"""What every record of the vocabulary is made of: the base class, the common types, and JSON.

Frozen means frozen: mappings and lists inside a record are read-only all the way down, since
answers and catalogs are shared by everything in the process. A copy of one (`dict(...)`,
`copy.deepcopy`) is a plain one that may be changed.
"""

from __future__ import annotations

import gc
import json
import math
import re
from contextlib import contextmanager
from copy import deepcopy
from typing import TYPE_CHECKING, Annotated, Any, Final, NoReturn, Self, TypeAlias, TypeVar, cast

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "Date",
    "Finite",
    "Frozen",
    "FrozenDict",
    "FrozenList",
    "Json",
    "Name",
    "Number",
    "Record",
    "Text",
    "Url",
    "compact_json",
    "frozen",
    "own_names",
    "parse_json",
    "uncollected",
]

_T = TypeVar("_T")


class FrozenDict(dict[Any, Any]):
    """A read-only dictionary; equal to, and written like, a plain one of the same items."""

    __slots__ = ()

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        """Refuses a change.

        Raises:
            TypeError: always.
        """
        raise TypeError("this mapping belongs to a record and cannot change: copy it with dict()")

    __setitem__ = __delitem__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse

    def __copy__(self) -> dict[Any, Any]:
        return dict(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> dict[Any, Any]:
        return {deepcopy(key, memo): deepcopy(value, memo) for key, value in self.items()}

    def __reduce__(self) -> tuple[type, tuple[dict[Any, Any]]]:
        return FrozenDict, (dict(self),)


class FrozenList(list[Any]):
    """A read-only list; equal to, and written like, a plain one of the same items."""

    __slots__ = ()

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        """Refuses a change.

        Raises:
            TypeError: always.
        """
        raise TypeError("this list belongs to a record and cannot change: copy it with list()")

    __setitem__ = __delitem__ = __iadd__ = __imul__ = _refuse
    append = clear = extend = insert = pop = remove = reverse = sort = _refuse

    def __copy__(self) -> list[Any]:
        return list(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> list[Any]:
        return [deepcopy(value, memo) for value in self]

    def __reduce__(self) -> tuple[type, tuple[list[Any]]]:
        return FrozenList, (list(self),)


_AT_REST: Final = frozenset({bool, float, int, str, type(None), FrozenDict, FrozenList})
"""Types of values that hold nothing which could change."""


def frozen(value: Any) -> Any:
    """`value` with every dictionary, list and set in it read-only; what is so already stays."""
    if type(value) in _AT_REST:
        return value
    if isinstance(value, dict):
        if _AT_REST.issuperset(map(type, value.values())):
            return FrozenDict(value)
        return FrozenDict({key: frozen(inner) for key, inner in value.items()})
    if isinstance(value, list):
        return FrozenList(map(frozen, value))
    if isinstance(value, set):
        return frozenset(value)
    return value


Frozen: TypeAlias = Annotated[_T, AfterValidator(frozen), Field(validate_default=True)]
"""A field whose containers are read-only, such as `Frozen[dict[str, int]]`."""
Name: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$", max_length=60)]
"""Identifier of a method, variant, benchmark, metric or feature."""
Date: TypeAlias = Annotated[str, StringConstraints(pattern=r"^\d{4}-\d\d-\d\d$")]
Url: TypeAlias = Annotated[str, StringConstraints(pattern=r"^https://[^\s]*[A-Za-z0-9/_-]$")]
Text: TypeAlias = Annotated[str, StringConstraints(min_length=1, strip_whitespace=True)]
Finite: TypeAlias = Annotated[float, Field(allow_inf_nan=False)]
Number: TypeAlias = int | Finite
Json: TypeAlias = Annotated[Any, AfterValidator(frozen)]
"""A JSON value of a peft configuration or of a trainer's settings."""


class Record(BaseModel):
    """Base of every record: frozen, unknown keys forbidden, finite numbers only."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        protected_namespaces=(),
        defer_build=True,
    )

    @classmethod
    def trusted(cls, **values: Any) -> Self:
        """A record of `values` that come from checked records and are not checked again.

        Takes half the time and makes half the objects: a question over 10,000 runs makes as many
        records. Containers among `values` must be read-only, and fields with a container as
        default must be given: `frozen` makes either so.
        """
        record = cls.model_construct(**values)
        return cast("Self", record)  # the plugin of mypy forgets it


@contextmanager
def uncollected() -> Iterator[None]:
    """Leaves cyclic garbage alone while many records or modules are made, which make none.

    The collector would walk over a catalog of 10,000 runs again and again, a quarter of a second
    each time, as the number of records grows.
    """
    running = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if running:
            gc.enable()


def own_names(record: Record) -> list[str]:
    """Public names of a record that are ours: its fields, properties and methods, sorted."""
    kind = type(record)
    mine = {
        name
        for base in kind.__mro__
        if issubclass(base, Record) and base is not Record
        for name in vars(base)
        if not name.startswith(("_", "model_"))
    }
    return sorted(mine | set(kind.model_fields))


# --- JSON ---

_DEPTH: Final = 100
_DIGITS: Final = 400
_MAYBE_HALF: Final = re.compile(rb"\\u[dD]|\xed[\xa0-\xbf]|\x00")
"""Escaped, as bytes of UTF-8, or in a text whose characters take more than one byte."""


def compact_json(value: Any) -> str:
    """One line of ASCII JSON that depends on the value alone: sorted keys, no spaces, no NaN.

    >>> compact_json({"b": [1, 2.5], "a": None})
    '{"a":null,"b":[1,2.5]}'
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def parse_json(content: bytes | str, *, infinite: bool = False) -> Any:
    """The JSON value of a text from outside, with bounds that no honest file reaches.

    Args:
        content: the text.
        infinite: whether Infinity and NaN may be there, as Python writes them; configurations of
            models have them.

    Raises:
        ValueError: it is not JSON, is nested deeper than 100, has a number of more than 400
            digits or one that is not finite, or half a character (a surrogate without its pair).
    """
    constant = float if infinite else _no_number
    try:
        value = json.loads(
            content, parse_constant=constant, parse_int=_whole_number, parse_float=_fraction
        )
    except RecursionError:
        msg = f"nested deeper than {_DEPTH}"
        raise ValueError(msg) from None
    level, depth = [value], 0
    while level := [inner for inner in level if isinstance(inner, dict | list)]:
        depth += 1
        if depth > _DEPTH:
            msg = f"nested deeper than {_DEPTH}"
            raise ValueError(msg)
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
    _refuse_half_characters(content, value)
    return value


def _refuse_half_characters(content: bytes | str, value: Any) -> None:
    """Texts that no file and no screen can take; few honest files have such an escape at all."""
    text = content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass")
    if not _MAYBE_HALF.search(text):
        return
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        msg = f"half a character, {error.object[error.start]!a}: a surrogate without its pair"
        raise ValueError(msg) from None


def _no_number(constant: str) -> float:
    msg = f"{constant} is not a number"
    raise ValueError(msg)


def _whole_number(text: str) -> int:
    if len(text) > _DIGITS:
        msg = f"a number of more than {_DIGITS} digits"
        raise ValueError(msg)
    return int(text)


def _fraction(text: str) -> float:
    if len(text) > _DIGITS:
        msg = f"a number of more than {_DIGITS} digits"
        raise ValueError(msg)
    value = float(text)
    return value if math.isfinite(value) else _no_number(text)

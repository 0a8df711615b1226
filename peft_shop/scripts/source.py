"""JSON values and names -> Python source that cannot be anything else.

What comes from a catalog reaches a script only through here: values as their `repr`, names only
when they are plain identifiers, and free text only in comments, cut down to harmless characters.
"""

from __future__ import annotations

import keyword
import math
import re
import textwrap
from typing import TYPE_CHECKING, Final

from peft_shop.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from peft_shop.records import Json

__all__ = ["INDENT", "WIDTH", "Raw", "call", "comment", "imports", "literal", "wrapped"]

WIDTH: Final = 100
INDENT: Final = 4
_IDENTIFIER: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9 .,:;+=/@()\[\]{}%<>_*'?!&|~-]+")


class Raw(str):
    """Source written by this package, to be put in as it is; never made from catalog data."""

    __slots__ = ()


def comment(text: str) -> str:
    """One line of `text` that is harmless in a comment or docstring.

    >>> comment('lora/"rank32"')
    'lora/?rank32?'
    """
    return _UNSAFE.sub("?", text)


def wrapped(line: str, width: int = WIDTH) -> str:
    """A line of text folded at spaces to at most `width` characters, the rest indented."""
    return "\n".join(
        textwrap.wrap(
            line, width, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False
        )
    )


def literal(value: Json, *, indent: int = 0, used: int = 0) -> str:
    """Source of a JSON value, spread over lines where one would be too long.

    Args:
        value: None, bool, int, finite float, str, or lists, tuples and dicts of them.
        indent: column where following lines start.
        used: characters that stand before the value in its line.

    Raises:
        ConfigError: the value is none of these.

    >>> literal({"r": 8, "target_modules": ["q_proj"], "bias": None})
    '{"r": 8, "target_modules": ["q_proj"], "bias": None}'
    """
    flat = _flat(value)
    if max(used, indent) + len(flat) + 1 <= WIDTH or isinstance(value, Raw):
        return flat
    inner = indent + INDENT
    pad = " " * inner
    if isinstance(value, str):
        parts = [f"{pad}{_flat(part)}" for part in _wrapped(value, WIDTH - inner - 4)]
        return flat if len(parts) <= 1 else "\n".join(["(", *parts, " " * indent + ")"])
    if isinstance(value, dict):
        entries = [
            f"{pad}{_flat(key)}: "
            + literal(entry, indent=inner, used=inner + len(_flat(key)) + 2)
            + ","
            for key, entry in value.items()
        ]
        return "\n".join(["{", *entries, " " * indent + "}"])
    if isinstance(value, list | tuple):
        first, last = ("(", ")") if isinstance(value, tuple) else ("[", "]")
        entries = [f"{pad}{literal(entry, indent=inner, used=inner)}," for entry in value]
        return "\n".join([first, *entries, " " * indent + last])
    return flat


def call(
    name: str, arguments: Mapping[str, Json], *first: str, indent: int = 0, used: int = 0
) -> str:
    """Source of a call: positional source `first`, then `arguments` by keyword.

    One argument a line where one line is too long.

    Args:
        name: source of the function, written by this package.
        arguments: values by keyword.
        first: source of positional arguments, written by this package.
        indent: column of the statement.
        used: characters that stand before the call in its line, indent included.

    Raises:
        ConfigError: a keyword is no identifier, or a value is no JSON value.

    >>> call("LoraConfig", {"r": 8, "use_dora": True})
    'LoraConfig(r=8, use_dora=True)'
    """
    for key in arguments:
        if not _IDENTIFIER.fullmatch(key) or keyword.iskeyword(key):
            raise ConfigError(f"{key!r} cannot be the name of an argument; correct the recipe")
    flat = [*first, *(f"{key}={_flat(value)}" for key, value in arguments.items())]
    line = f"{name}({', '.join(flat)})"
    if max(used, indent) + len(line) <= WIDTH:
        return line
    inner = indent + INDENT
    pad = " " * inner
    lines = [f"{pad}{source}," for source in first]
    lines += [
        f"{pad}{key}={literal(value, indent=inner, used=inner + len(key) + 1)},"
        for key, value in arguments.items()
    ]
    return "\n".join([f"{name}(", *lines, " " * indent + ")"])


def imports(modules: Mapping[str, Iterable[str]]) -> str:
    """Source of `from module import names` for every module, as import sorters have it.

    Args:
        modules: names by module, all of them written by this package.

    >>> print(imports({"torch": ["save"], "peft": ["get_peft_model", "LoraConfig"]}))
    from peft import LoraConfig, get_peft_model
    from torch import save
    """
    return "\n".join(_import(module, modules[module]) for module in sorted(modules, key=str.lower))


def _import(module: str, names: Iterable[str]) -> str:
    # classes first
    ordered = sorted(set(names), key=lambda name: (name[0].islower(), name.lower()))
    line = f"from {module} import {', '.join(ordered)}"
    if len(line) <= WIDTH:
        return line
    return "\n".join([f"from {module} import (", *(f"    {name}," for name in ordered), ")"])


def _flat(value: Json) -> str:
    """Source of a value in one line."""
    if isinstance(value, list):
        return "[" + ", ".join(map(_flat, value)) + "]"
    if isinstance(value, tuple):
        return "(" + ", ".join(map(_flat, value)) + (",)" if len(value) == 1 else ")")
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return "{" + ", ".join(f"{_flat(key)}: {_flat(value[key])}" for key in value) + "}"
    return _scalar(value)


def _scalar(value: Json) -> str:
    if isinstance(value, Raw):
        return str(value)
    if isinstance(value, str):
        text = repr(value)
        plain = text.startswith("'") and '"' not in text
        return f'"{text[1:-1]}"' if plain else text
    finite = isinstance(value, float) and math.isfinite(value)
    if value is None or finite or isinstance(value, bool | int):
        return repr(value)
    raise ConfigError(f"{type(value).__name__} {value!r} is no JSON value; correct the recipe")


def _wrapped(text: str, width: int) -> list[str]:
    """Pieces of `text` of at most `width` characters where spaces allow; their sum is `text`."""
    pieces = [""]
    for word in re.findall(r"\S*\s*", text):
        if pieces[-1] and len(_flat(pieces[-1] + word)) - 2 > width:
            pieces.append("")
        pieces[-1] += word
    return [piece for piece in pieces if piece]

"""Values -> YAML and shell source that cannot be anything else."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from peft_shop.records import Json

__all__ = ["flags", "scalar", "yaml_lines"]


def scalar(value: Json) -> str:
    """One value in YAML, text in quotes as JSON has it.

    >>> [scalar(one) for one in (1e-05, "a: b", True, ["q"])]
    ['1.0e-05', '"a: b"', 'true', '["q"]']
    """
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, default=list)
    if isinstance(value, float) and "e" in text and "." not in text:
        # without a point readers of YAML 1.1 take it for text
        return text.replace("e", ".0e")
    return text


def yaml_lines(entries: Mapping[str, Json]) -> str:
    """One entry a line; a mapping inside is indented, a list of mappings with dashes.

    >>> print(yaml_lines({"r": 8, "data": [{"path": "a", "type": "b"}]}), end="")
    r: 8
    data:
      - path: "a"
        type: "b"
    """
    return "\n".join(_lines(entries)) + "\n"


def _lines(entries: Mapping[str, Json]) -> list[str]:
    found = []
    for key, value in entries.items():
        if isinstance(value, dict) and value:
            found += [f"{key}:", *(f"  {line}" for line in _lines(value))]
        elif isinstance(value, list) and value and all(isinstance(one, dict) for one in value):
            found.append(f"{key}:")
            for one in value:
                first, *rest = _lines(one) if isinstance(one, dict) else [scalar(one)]
                found += [f"  - {first}", *(f"    {line}" for line in rest)]
        else:
            found.append(f"{key}: {scalar(value)}")
    return found


def flags(program: str, entries: Mapping[str, Json]) -> str:
    r"""A shell command with one option a line; `None` leaves an option out, `True` has no value.

    >>> print(flags("tune", {"rank": 8, "names": ["a", "b"], "fast": True, "slow": None}), end="")
    tune \
        --rank 8 \
        --names a b \
        --fast
    """
    lines = [program]
    for key, value in entries.items():
        if value is None:
            continue
        if value is True:
            lines.append(f"--{key}")
        elif isinstance(value, list | tuple):
            lines.append(f"--{key} {' '.join(shlex.quote(str(one)) for one in value)}")
        else:
            lines.append(f"--{key} {shlex.quote(str(value))}")
    return " \\\n    ".join(lines) + "\n"

"""What preflights refused in this process: a later answer about the same model knows it.

Needs neither torch nor peft.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from peft_shop.model.structure import Structure
    from peft_shop.records import Json

__all__ = ["known_refusal", "remember_refusal"]

_STRUCTURES: Final = 16
"""Structures whose refusals are kept; beyond them the oldest go."""
_refused: Final[dict[int, tuple[Structure, dict[str, str]]]] = {}
"""By the identity of a structure, which is kept so that its identity stays its own."""


def remember_refusal(structure: Structure, config: Mapping[str, Json], because: str) -> None:
    """Keep why a configuration cannot work on a model."""
    if id(structure) not in _refused and len(_refused) >= _STRUCTURES:
        _refused.pop(next(iter(_refused)))
    _, reasons = _refused.setdefault(id(structure), (structure, {}))
    reasons[_key(config)] = because


def known_refusal(structure: Structure, config: Mapping[str, Json]) -> str | None:
    """Why an earlier preflight refused; `None` where it did not, or there was none."""
    known = _refused.get(id(structure))
    return None if known is None else known[1].get(_key(config))


def _key(config: Mapping[str, Json]) -> str:
    return json.dumps(config, sort_keys=True)

"""What was worked out of a structure, kept while that structure is in use.

A question asks about one model for dozens of configurations and setups. Structures are told apart
by identity, since comparing them takes longer than what is kept here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from peft_shop.model.structure import Structure

__all__ = ["recalled", "remembered"]

T = TypeVar("T")
_MODELS: Final = 4
"""Structures that are remembered at a time."""
_FACTS: Final = 4096
"""Facts of one structure, above which all of them are forgotten."""
# the structure is kept, so that its identity stays its own
_memory: dict[int, tuple[Structure, dict[Hashable, object]]] = {}


def remembered(structure: Structure, key: Hashable, make: Callable[[], T]) -> T:
    """What `make` gives, made once per structure and key; nobody may change it afterwards."""
    entry = _memory.get(id(structure))
    if entry is None or entry[0] is not structure:
        while len(_memory) >= _MODELS:
            _memory.pop(next(iter(_memory)))
        entry = _memory[id(structure)] = (structure, {})
    facts = entry[1]
    if key not in facts:
        if len(facts) >= _FACTS:
            facts.clear()
        facts[key] = make()
    return facts[key]  # type: ignore[return-value] # the key says which type it has


def recalled(structure: Structure, key: Hashable) -> object | None:
    """What was remembered under `key`; `None` where nothing was."""
    entry = _memory.get(id(structure))
    return None if entry is None or entry[0] is not structure else entry[1].get(key)

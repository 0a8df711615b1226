"""Deep models cut to a few blocks of each kind: what one block does, all of its kind do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from torch import nn

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["KEPT", "cut", "everywhere"]

KEPT: Final = 2
"""Blocks of each kind that are kept: a first one and one that has another before it [count]."""
_TRAITS: Final = (bool, str, type(None))
"""Types of attributes by which blocks of the same layers can differ in what they do."""


def cut(model: nn.Module) -> dict[str, tuple[str, ...]]:
    """Leave the shortest start of each stack that holds two blocks of every kind in it.

    A start and not a choice: models tell their blocks apart by number. Kinds are told apart by the
    classes, the names and the switches of everything in a block.

    Returns:
        For each block that is left, all blocks of its kind that there were, by name.
    """
    kinds: dict[str, tuple[str, ...]] = {}
    for path, stack in list(_stacks(model)):
        names: dict[Any, list[str]] = {}
        for index, block in enumerate(stack):
            names.setdefault(_kind(block), []).append(f"{path}.{index}")
        several = {kind: tuple(blocks) for kind, blocks in names.items()}
        depth = 1 + max(_index(blocks[:KEPT][-1]) for blocks in several.values())
        kinds |= {
            block: blocks
            for blocks in several.values()
            for block in blocks
            if _index(block) < depth
        }
        del stack[depth:]
    return kinds


def everywhere(name: str, kinds: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """The module `name` of a block, in all blocks of its kind; itself where it is in none.

    Args:
        name: name of a module of a model that was cut.
        kinds: what `cut` returned.
    """
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        blocks = kinds.get(".".join(parts[:length]))
        if blocks is not None:
            return tuple(".".join([block, *parts[length:]]) for block in blocks)
    return (name,)


def _index(name: str) -> int:
    return int(name.rpartition(".")[2])


def _stacks(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """Lists of more than two modules that are in no other list, by name."""
    outer: list[str] = []
    for name, module in model.named_modules():
        if any(name.startswith(f"{path}.") for path in outer):
            continue
        if isinstance(module, nn.ModuleList) and len(module) > KEPT:
            outer.append(name)
            yield name, module


def _kind(block: nn.Module) -> Any:
    """What two blocks have in common that do the same, whatever their number."""
    return tuple(
        (
            name,
            type(module),
            tuple(
                (key, value)
                for key, value in sorted(vars(module).items())
                if not key.startswith("_") and isinstance(value, _TRAITS)
            ),
        )
        for name, module in block.named_modules()
    )

"""peft's rules of which modules a `target_modules` names, and the shortest form that names some.

A list entry names every module whose full name it is or whose name ends with a dot and it; a
string is a regular expression that must match the whole name (peft 0.21.2,
`tuners_utils.check_target_module_exists`).
"""

from __future__ import annotations

import re
from functools import cached_property
from typing import TYPE_CHECKING, Final, TypeAlias

from peft_shop.upstream.expressions import compiled

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from peft_shop.model.structure import Structure

__all__ = ["ALL_LINEAR", "Expression", "Names", "endings", "named_by", "names_of", "wildcard"]

Expression: TypeAlias = str | list[str]
"""A `target_modules`: regular expression or list of endings."""
ALL_LINEAR: Final = "all-linear"
_INDEX: Final = re.compile(r"(?<=\.)\d+(?=\.|$)|^\d+(?=\.|$)")


def wildcard(name: str) -> str:
    """`name` with every index as `*`."""
    return _INDEX.sub("*", name)


def endings(name: str) -> list[str]:
    """Last part of a dotted name, last two parts, ..., the whole name."""
    parts = name.split(".")
    return [".".join(parts[-length:]) for length in range(1, len(parts) + 1)]


def named_by(expression: str | Sequence[str], names: Iterable[str]) -> frozenset[str]:
    """Those of `names` that peft would adapt.

    Raises:
        re.error: the expression is a string but no regular expression, or may never end.
    """
    if isinstance(expression, str):
        pattern = compiled(expression)
        return frozenset(name for name in names if pattern.fullmatch(name))
    wanted = set(expression)
    return frozenset(name for name in names if not wanted.isdisjoint(endings(name)))


def _parents(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:length]) for length in range(1, len(parts))]


_KEPT: Final[list[tuple[Structure, Names]]] = []
"""The last model asked about: one model gets many recipes."""


def names_of(structure: Structure) -> Names:
    """Index of a model's names, made once for the questions about one model."""
    if not _KEPT or _KEPT[0][0] is not structure:
        _KEPT[:] = [(structure, Names(structure))]
    return _KEPT[0][1]


class Names:
    """All module names of a model, indexed by their endings.

    Attributes:
        all: layers, the modules that hold them, and norms that a block may have as an identity.
        layers: names of layers alone.
        parameters: names of expert weights that are no layer's.
    """

    def __init__(self, structure: Structure) -> None:
        layers = [
            name for group in structure.groups if group.kind != "parameter" for name in group.names
        ]
        parameters = [
            name for group in structure.groups if group.kind == "parameter" for name in group.names
        ]
        parents = [parent for name in [*layers, *parameters] for parent in _parents(name)]
        self.all: tuple[str, ...] = tuple(dict.fromkeys([*layers, *parents, *_gaps(structure)]))
        self.layers = frozenset(layers)
        self.parameters: tuple[str, ...] = tuple(parameters)
        self._known: dict[str | tuple[str, ...], frozenset[str]] = {}
        self._inside: dict[str | tuple[str, ...], frozenset[str]] = {}

    @cached_property
    def by_ending(self) -> dict[str, set[str]]:
        """Names that end with each ending."""
        found: dict[str, set[str]] = {}
        for name in self.all:
            for ending in endings(name):
                found.setdefault(ending, set()).add(name)
        return found

    def named_by(self, expression: str | Sequence[str]) -> frozenset[str]:
        """Every module that peft would adapt, groups of the structure and their parents.

        Raises:
            re.error: the expression is a string but no regular expression.
        """
        key = expression if isinstance(expression, str) else tuple(expression)
        if key not in self._known:
            self._known[key] = (
                named_by(key, self.all)
                if isinstance(key, str)
                else frozenset().union(*(self.by_ending.get(one, ()) for one in key))
            )
        return self._known[key]

    def inside(self, expression: str | Sequence[str]) -> frozenset[str]:
        """Layers that the expression names, or that lie in a module that it names.

        Raises:
            re.error: the expression is a string but no regular expression.
        """
        key = expression if isinstance(expression, str) else tuple(expression)
        if key not in self._inside:
            named = self.named_by(key)
            self._inside[key] = frozenset(
                name
                for name in self.layers
                if name in named or any(parent in named for parent in _parents(name))
            )
        return self._inside[key]

    def shortest(self, wanted: Collection[str], *, regular: bool = True) -> Expression:
        """Shortest expression that names `wanted` and nothing else.

        Args:
            wanted: full names of modules.
            regular: whether a regular expression may stand in for a long list.
        """
        entries = self._entries(wanted)
        if not regular or len(entries) <= len({wildcard(name) for name in wanted}):
            return sorted(entries)
        pattern = self.regular(wanted)
        return sorted(entries) if pattern is None else pattern

    def regular(self, wanted: Collection[str]) -> str | None:
        """Regular expression for `wanted` in all their blocks; `None` where it names others too."""
        # the number of a part of a block (`ffn.0`) is its own, that of a block stands for all
        pattern = _joined(sorted({_but_last(name) for name in wanted}))
        return pattern if self.named_by(pattern) == set(wanted) else None

    def _entries(self, wanted: Collection[str]) -> list[str]:
        rest = dict.fromkeys(wanted)
        allowed = set(wanted)
        entries = []
        while rest:
            name = next(iter(rest))
            for ending in endings(name):
                # a bare index says nothing to a reader, and another model has other ones
                if ending != name and ending.partition(".")[0].isdigit():
                    continue
                if self.by_ending[ending] <= allowed:
                    break
            entries.append(ending)
            for one in self.by_ending[ending]:
                rest.pop(one, None)
            rest.pop(name, None)
        return entries


def _but_last(name: str) -> str:
    """`name` with every index as `*` but one that is its last part."""
    parent, dot, last = name.rpartition(".")
    return f"{wildcard(parent)}{dot}{last}"


def _gaps(structure: Structure) -> list[str]:
    """Norms that some blocks lack: where they would be, an identity can stand, which has a name.

    ModernBERT's first block is one; peft would take the identity for a target.
    """
    indices: dict[str, set[str]] = {}
    for group in structure.groups:
        for name in group.names:
            for match in _INDEX.finditer(name):
                indices.setdefault(name[: match.start()], set()).add(match[0])
    gaps = []
    for group in structure.groups:
        start, star, end = group.pattern.partition("*")
        if group.role == "norm" and star and "*" not in end:
            every = {f"{start}{index}{end}" for index in indices.get(start, ())}
            gaps += sorted(every - set(group.names))
    return gaps


def _joined(patterns: list[str]) -> str:
    """Regular expression for names whose indices are `*`; what they begin with stands once."""
    parents: dict[str, list[str]] = {}
    for pattern in patterns:
        parent, _, last = pattern.rpartition(".")
        parents.setdefault(parent, []).append(last)
    branches = []
    for parent, lasts in parents.items():
        tail = _escaped(lasts[0]) if len(lasts) == 1 else f"({'|'.join(map(_escaped, lasts))})"
        branches.append(f"{_escaped(parent)}\\.{tail}" if parent else tail)
    return "|".join(branches)


def _escaped(pattern: str) -> str:
    return r"\d+".join(re.escape(part) for part in pattern.split("*"))

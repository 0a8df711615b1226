"""What a rule is: a named law about the catalog's sources, and what it says when it is broken."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from peft_shop.errors import nearest_names

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from peft_shop.curate.sources.sources import Sources
    from peft_shop.errors import Problem

__all__ = ["Check", "Finding", "Rule", "Violation", "fields_of", "nearest", "rule"]

Finding: TypeAlias = "tuple[str, Problem]"
"""The record that breaks a rule, and how."""
Check: TypeAlias = "Callable[[Sources], Iterable[Finding]]"


@dataclass(frozen=True, slots=True, order=True)
class Violation:
    """One record that breaks one rule.

    Attributes:
        rule: identifier of the rule.
        record: the record, as `catalog/exceptions.toml` names it: `lora`, `lora/dora`,
            `lora.merging`, `metamathqa:lora/rank32@2025-06-24T10:00:00+00:00`, ...
        problem: the place, what is wrong, and the next step.
    """

    rule: str
    record: str
    problem: Problem

    def __str__(self) -> str:
        return f"{self.problem} [{self.rule}: {self.record}]"


@dataclass(frozen=True, slots=True)
class Rule:
    """A named law.

    Attributes:
        id: identifier, such as `note-required`.
        check: yields what breaks it; its docstring is the law in words.
        integrity: whether readers of the catalog rely on it: then nothing is compiled while it is
            broken, and no exception can be made.
    """

    id: str
    check: Check
    integrity: bool = False

    @property
    def law(self) -> str:
        """The law in words."""
        return inspect.getdoc(self.check) or ""

    def violations(self, sources: Sources) -> list[Violation]:
        """What breaks this rule in `sources`, in the order of the files."""
        return [Violation(self.id, record, problem) for record, problem in self.check(sources)]


def rule(name: str, *, integrity: bool = False) -> Callable[[Check], Rule]:
    """Decorator that makes a named rule of a check."""

    def make(check: Check) -> Rule:
        return Rule(name, check, integrity)

    return make


def fields_of(sources: Sources, method: str) -> frozenset[str] | None:
    """Fields of a method's configuration class; `None` where they are not on file."""
    history = sources.history.record.methods.get(method) if sources.history else None
    return frozenset(history.fields) if history else None


def nearest(name: str, valid: Iterable[str]) -> str:
    """Hint that names the valid names nearest to `name`; empty where none is near."""
    names = nearest_names(name, valid)
    return f"did you mean {' or '.join(repr(option) for option in names)}?" if names else ""

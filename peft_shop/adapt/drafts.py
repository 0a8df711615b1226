"""A configuration in the making that remembers how it differs from the recipe, and why."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from peft_shop.adapt.records import Change

if TYPE_CHECKING:
    from collections.abc import Mapping

    from peft_shop.adapt.records import TargetOptions
    from peft_shop.catalog.methods import Method
    from peft_shop.catalog.runs import Recipe
    from peft_shop.model.structure import ModuleGroup, Structure
    from peft_shop.records import Json
    from peft_shop.upstream.targets import Names

__all__ = ["Draft", "RetargetCase"]


class Draft:
    """Fields of one configuration and how they differ from where they started.

    Args:
        config: fields that the recipe states.
        defaults: what fields are when nothing is stated, as far as it is known.
        resolved: what peft filled in for fields that the recipe does not state.
    """

    def __init__(
        self,
        config: Mapping[str, Json],
        defaults: Mapping[str, Json],
        resolved: Mapping[str, Json] | None = None,
    ) -> None:
        self.config: dict[str, Json] = copy.deepcopy(dict(config))
        self._start = copy.deepcopy(dict(config))
        self._defaults = defaults
        self._resolved = resolved or {}
        self._because: dict[str, list[str]] = {}
        self.problems: list[str] = []
        self.notes: list[str] = []

    def value(self, name: str) -> Json:
        """Value of a field, its class default where nothing is stated."""
        return self.config.get(name, self._defaults.get(name))

    def set(self, name: str, value: Json, because: str) -> None:
        """Give a field a value; no change where it has that value already."""
        if name in self.config:
            if self.config[name] == value:
                return
        elif name in self._defaults and self._defaults[name] == value:
            return
        self.config[name] = value
        self._reason(name, because)

    def drop(self, name: str, because: str) -> None:
        """Leave a field at its class default."""
        if name in self.config:
            del self.config[name]
            self._reason(name, because)

    def unchanged(self, name: str) -> bool:
        """Whether a field is as the recipe has it."""
        return name not in self._because

    def problem(self, text: str) -> None:
        """Say why it cannot work."""
        if text not in self.problems:
            self.problems.append(text)

    def note(self, text: str) -> None:
        """Say what the user should know."""
        if text not in self.notes:
            self.notes.append(text)

    def changes(self) -> tuple[Change, ...]:
        """Every field that differs from the start, sorted by name."""
        fields = sorted(set(self.config) | set(self._start))
        return tuple(
            Change(
                field=name,
                before=self._start.get(name, self._resolved.get(name, self._defaults.get(name))),
                after=self.config.get(name),
                because="; ".join(self._because.get(name, ["as stated"])),
            )
            for name in fields
            if (name in self.config) != (name in self._start)
            or self.config.get(name) != self._start.get(name)
        )

    def _reason(self, name: str, because: str) -> None:
        reasons = self._because.setdefault(name, [])
        if because not in reasons:
            reasons.append(because)


@dataclass
class RetargetCase:
    """Everything that one retargeting looks at.

    Attributes:
        recipe: what is adapted to the model; `None` for a method without a run.
        variants: of the run.
        reasons: why `target_modules` is not what it was.
        groups: modules that are adapted, filled in on the way.
        parameters: expert weights that are adapted, filled in on the way.
        feedforward: names of the modules that IA3 scales at their input.
        resolved: what peft fills in for fields that the draft leaves to it.
    """

    method: Method
    recipe: Recipe | None
    variants: tuple[str, ...]
    structure: Structure
    options: TargetOptions
    names: Names
    draft: Draft
    reasons: list[str] = field(default_factory=list)
    groups: list[ModuleGroup] = field(default_factory=list)
    parameters: list[ModuleGroup] = field(default_factory=list)
    feedforward: set[str] = field(default_factory=set)
    resolved: dict[str, Json] = field(default_factory=dict)

    @property
    def peft_type(self) -> str:
        """Member of `PeftType`."""
        return self.method.peft_type

    def has_field(self, name: str) -> bool:
        """Whether the method's configuration has a field."""
        return name in self.method.fields

    def because(self, text: str) -> None:
        """Give one reason why the targets differ."""
        if text not in self.reasons:
            self.reasons.append(text)

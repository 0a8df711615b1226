"""Which part of the base every tensor of an adapter is about."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING
from peft.tuners.tuners_utils import check_target_module_exists

from peft_shop.conversion.bases import tied
from peft_shop.conversion.reading import PREFIX
from peft_shop.errors import ConversionError, nearest_names

if TYPE_CHECKING:
    from collections.abc import Mapping

    from peft_shop.conversion.bases import Base
    from peft_shop.conversion.reading import AdapterFolder

__all__ = ["SHARED", "TOKENS", "Plan", "plan"]

SHARED: Final = frozenset(
    ("frod", "lily", "pvera", "randlora", "tinylora", "unilora", "vblora", "vera")
)
"""Methods whose layers have tensors in common or are numbered across the model."""
TOKENS: Final = "token_adapter."
"""In keys of rows that LoRA trains beside its matrices."""
_ROWS: Final = "trainable_tokens_delta"
_HEADS: Final = {
    "SEQ_CLS": ("classifier", "score"),
    "TOKEN_CLS": ("classifier", "score"),
    "QUESTION_ANS": ("qa_outputs",),
}
"""Heads that peft saves for a task without being told."""


@dataclass(frozen=True)
class Plan:
    """What an adapter does to which part of a base.

    Attributes:
        targets: names of the modules that it adapts, in the model's order.
        tokens: names of embeddings of which LoRA trained single rows.
        saved: keys of whole modules, and the modules' names.
        replaced: keys of parameters outside the targets that were trained (biases), and their
            names.
        shared: keys that belong to no single module.
    """

    targets: tuple[str, ...]
    tokens: tuple[str, ...]
    saved: Mapping[str, str]
    replaced: Mapping[str, str]
    shared: tuple[str, ...]


@dataclass
class _Sorter:
    """What is known while keys are sorted."""

    source: AdapterFolder
    base: Base
    targets: tuple[str, ...]

    @cached_property
    def modules(self) -> frozenset[str]:
        return frozenset(name for name, _ in self.base.skeleton().named_modules() if name)

    @cached_property
    def parameters(self) -> frozenset[str]:
        skeleton = self.base.skeleton()
        return frozenset(name for name, _ in skeleton.named_parameters(remove_duplicate=False))

    @cached_property
    def whole(self) -> tuple[str, ...]:
        """Names of modules that were trained whole."""
        config = self.source.config
        named = tuple(config.get("modules_to_save") or ())
        return named + _HEADS.get(str(config.get("task_type")), ())

    @cached_property
    def twins(self) -> frozenset[str]:
        """Modules whose weight is that of an earlier one: their tokens are saved once more."""
        return frozenset(
            name.rpartition(".")[0] for names in tied(self.base.skeleton()) for name in names[1:]
        )

    def part(self, key: str) -> tuple[str, str]:  # noqa: PLR0911 - a ladder of cases
        """Kind of part that a key is about, and its name."""
        inner = key.removeprefix(PREFIX)
        owner = _owner(inner, self.modules)
        if key == inner or owner is None:
            if self.source.adapter.method in SHARED and not _looks_like_a_layer(inner):
                return "shared", inner
            return ("replaced", inner) if inner in self.parameters else ("lost", inner)
        if any(f".{name}." in f".{owner}." for name in self.whole):
            return "saved", owner
        if any(f"{owner}.".startswith(f"{name}.") for name in self.targets):
            return "target", owner
        if _ROWS in inner and owner in self.twins:
            return "again", owner
        if TOKENS in inner:
            return "tokens", inner.partition(f".{TOKENS}")[0]
        return ("replaced", inner) if inner in self.parameters else ("lost", inner)


def plan(source: AdapterFolder, base: Base) -> Plan:
    """Sorts the adapter's tensors by the part of the base that they change.

    Raises:
        ConversionError: a tensor belongs to no module of the base, or a target has no tensors.
    """
    targets = _targets(source.peft_config(), base.skeleton())
    sorter = _Sorter(source, base, targets)
    parts: dict[str, dict[str, str]] = {}
    for key in source.shapes:
        kind, name = sorter.part(key)
        parts.setdefault(kind, {})[key] = name
    lost = list(parts.get("lost", {}).values())
    if lost:
        near = nearest_names(lost[0].rpartition(".")[0], sorter.modules)
        hint = f"; nearest of its modules: {', '.join(near)}" if near else ""
        raise ConversionError(
            f"{source.weights}: {lost[0]} (and {len(lost) - 1} more) belong to no module of "
            f"{base.name}{hint}; is this the base that the adapter was trained on?"
        )
    if source.adapter.method not in SHARED:
        empty = [name for name in targets if not source.under(name)]
        if empty:
            raise ConversionError(
                f"{source.weights}: no tensors for {empty[0]} (and {len(empty) - 1} more), which "
                f"its configuration targets in {base.name}; is this the base that the adapter was "
                "trained on, and is the file whole?"
            )
    tokens = tuple(dict.fromkeys(parts.get("tokens", {}).values()))
    saved, replaced = parts.get("saved", {}), parts.get("replaced", {})
    if not targets and not tokens and not replaced and not saved:
        raise ConversionError(
            f"{source.folder}: target_modules matches no module of {base.name}; is this the base "
            "that the adapter was trained on?"
        )
    return Plan(targets, tokens, saved, replaced, tuple(parts.get("shared", {})))


def _targets(config: Any, skeleton: Any) -> tuple[str, ...]:
    """Names of the modules that peft adapts, by peft's own test."""
    tuner = PEFT_TYPE_TO_TUNER_MAPPING[config.peft_type]
    check = getattr(tuner, "_check_target_module_exists", check_target_module_exists)
    if not hasattr(config, "target_modules"):
        return ()
    names = [name for name, _ in skeleton.named_modules() if name]
    # what peft excludes is an object, which is false
    return tuple(name for name in names if bool(check(config, name)))


def _owner(inner: str, modules: frozenset[str]) -> str | None:
    """The deepest module of the base that a key lies under."""
    parts = inner.split(".")
    for end in range(len(parts) - 1, 0, -1):
        name = ".".join(parts[:end])
        if name in modules:
            return name
    return None


def _looks_like_a_layer(inner: str) -> bool:
    return any(part.isdigit() for part in inner.split(".")[:-2])

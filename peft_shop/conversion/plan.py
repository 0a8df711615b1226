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
    from collections.abc import Iterator, Mapping

    from peft_shop.conversion.bases import BaseWeights
    from peft_shop.conversion.reading import AdapterFolder

__all__ = ["SHARED", "TOKENS", "Plan", "adapted_modules", "fitted", "plan", "refuse_other_sizes"]

SHARED: Final = frozenset(
    ("frod", "lily", "pvera", "randlora", "tinylora", "unilora", "vblora", "vera")
)
"""Methods whose layers have tensors in common or are numbered across the model."""
TOKENS: Final = "token_adapter."
"""In keys of rows that LoRA trains beside its matrices."""
_MARKS: Final = (
    ".lora_",
    ".hada_",
    ".lokr_",
    ".oft_",
    ".boft_",
    ".ia3_",
    ".miss_",
    ".hra_",
    ".vera_",
    ".token_adapter.",
)
"""What follows a module's name in keys."""
_VOCABULARIES: Final = ("embed", "lm_head", "wte", "shared")
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
    base: BaseWeights
    targets: tuple[str, ...]

    @cached_property
    def modules(self) -> frozenset[str]:
        return frozenset(name for name, _ in self.base.skeleton().named_modules() if name)

    @cached_property
    def parameters(self) -> frozenset[str]:
        skeleton = self.base.skeleton()
        return frozenset(name for name, _ in skeleton.named_parameters(remove_duplicate=False))

    @cached_property
    def named(self) -> frozenset[str]:
        return frozenset(self.targets)

    @cached_property
    def whole(self) -> tuple[str, ...]:
        """Names of modules that were trained whole."""
        return _whole(self.source)

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
        if owner in self.twins and self.source.config.get("ensure_weight_tying"):
            return "saved", owner  # the same numbers once more
        if any(name in self.named for name in _lineage(owner)):
            return "target", owner
        if _ROWS in inner and owner in self.twins:
            return "again", owner
        if TOKENS in inner:
            return "tokens", inner.partition(f".{TOKENS}")[0]
        return ("replaced", inner) if inner in self.parameters else ("lost", inner)


def adapted_modules(source: AdapterFolder) -> frozenset[str]:
    """Names of modules that the adapter's keys are about, whatever the base is."""
    inner = [key.removeprefix(PREFIX) for key in source.shapes if key.startswith(PREFIX)]
    return frozenset(name.partition(mark)[0] for name in inner for mark in _MARKS if mark in name)


def fitted(source: AdapterFolder, base: BaseWeights) -> AdapterFolder:
    """The adapter under the base's names, where it was trained on a part of the base alone.

    A text model that is loaded alone calls its layers `model.layers`; inside a model that sees and
    reads they are `model.language_model.layers`. Only insertions are taken for such: other names
    are those of another model.
    """
    modules = frozenset(name for name, _ in base.skeleton().named_modules() if name)
    inner = {key: key.removeprefix(PREFIX) for key in source.shapes}
    lost = [name for name in inner.values() if _parent(name, modules) is None]
    if not lost or source.adapter.method in SHARED:
        return source
    for old, new in _beginnings(lost[0], modules):
        names = {name: new + name.removeprefix(old) for name in inner.values()}
        owners = {_parent(name, modules) for name in names.values()}
        if all(name.startswith(old) for name in inner.values()) and None not in owners:
            whole = _whole(source)
            targets = [
                name
                for name in modules
                if name in owners and not any(f".{part}." in f".{name}." for part in whole)
            ]
            note = (
                f"It was trained on a part of {base.name} alone: its modules begin with "
                f"{old or 'nothing'!r}, those of {base.name} with {new!r}. It was converted under "
                f"the names of {base.name}, which is right if that part has the same weights there."
            )
            return source.moved(old, new, sorted(targets), note)
    return source


def _beginnings(name: str, modules: frozenset[str]) -> Iterator[tuple[str, str]]:
    """Pairs of beginnings, old and new, that would give a key's module a place in the base."""
    parts = name.split(".")
    numbered = next((at for at, part in enumerate(parts) if part.isdigit()), None)
    if numbered is None:
        return
    # from the number of the layer to the module: that much is the same wherever it stands
    for end in range(len(parts) - 1, numbered, -1):
        for begin in range(numbered):
            rest = ".".join(parts[begin:end])
            old = "".join(f"{part}." for part in parts[:begin])
            for module in sorted(modules):
                if module.endswith(f".{rest}"):
                    new = module.removesuffix(rest)
                    if set(old.split(".")) <= set(new.split(".")) and len(new) > len(old):
                        yield old, new


def _parent(inner: str, modules: frozenset[str]) -> str | None:
    """The module that a key's tensor would belong to; `None` where the base has none."""
    for mark in _MARKS:
        before, found, _ = inner.partition(mark)
        if found:
            return before if before in modules else None
    return _owner(inner, modules)


def refuse_other_sizes(source: AdapterFolder, base: BaseWeights, made: Plan) -> None:
    """Refuses whole modules that have other sizes than the base's, such as a longer vocabulary.

    Raises:
        ConversionError: there is one.
    """
    state = base.skeleton().state_dict()
    whole = {**_saved_names(made), **made.replaced}
    for key, here in source.shapes.items():
        name, axis = _rows_of(key, whole)
        there = tuple(state[name].shape) if name in state else None
        if there is None or axis is None or not here or not there:
            continue
        if (here != there) if key in whole else (here[axis] != there[0]):
            count = here[axis]
            hint = "give the base that was trained on, resized as it was"
            if any(word in name for word in _VOCABULARIES):
                hint = (
                    f"the vocabulary was resized to {count} for the training: give the base "
                    f"resized like that (model.resize_token_embeddings({count}), then "
                    "save_pretrained)"
                )
            raise ConversionError(
                f"{source.weights}: {key} has the shape {list(here)}, and {name} of {base.name} "
                f"has {list(there)}; {hint}"
            )


def _rows_of(key: str, whole: Mapping[str, str]) -> tuple[str, int | None]:
    """The base's parameter that a key is about, and the axis that counts its rows."""
    if key in whole:
        return whole[key], 0
    inner = key.removeprefix(PREFIX)
    for end, axis in ((".lora_embedding_A", 1), (".lora_B.weight", 0)):
        module = inner.removesuffix(end)
        if module != inner and any(word in module for word in _VOCABULARIES):
            return f"{module}.weight", axis
    return "", None


def _saved_names(made: Plan) -> dict[str, str]:
    """The base's parameter of every tensor of a whole module."""
    return {key: key.removeprefix(PREFIX) for key in made.saved}


def _whole(source: AdapterFolder) -> tuple[str, ...]:
    """Names of modules that were trained whole."""
    named = tuple(source.config.get("modules_to_save") or ())
    return named + _HEADS.get(str(source.config.get("task_type")), ())


def plan(source: AdapterFolder, base: BaseWeights) -> Plan:
    """Sorts the adapter's tensors by the part of the base that they change.

    Raises:
        ConversionError: a tensor belongs to no module of the base, or a target has no tensors.
    """
    targets = source.targets or _targets(source.peft_config(), base.skeleton())
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
    """Names of the modules that peft adapts, by peft's own test, and of those with parameters."""
    tuner = PEFT_TYPE_TO_TUNER_MAPPING[config.peft_type]
    check = getattr(tuner, "_check_target_module_exists", check_target_module_exists)
    if not hasattr(config, "target_modules"):
        return ()
    named = tuple(getattr(config, "target_parameters", None) or ())
    parameters = [name for name, _ in skeleton.named_parameters()] if named else []
    holders = {
        name.rpartition(".")[0]
        for name in parameters
        if any(name == one or name.endswith(f".{one}") for one in named)
    }
    names = [name for name, _ in skeleton.named_modules() if name]
    # what peft excludes is an object, which is false
    return tuple(name for name in names if name in holders or bool(check(config, name)))


def _lineage(module: str) -> Iterator[str]:
    """A module's name and those of the modules around it."""
    while module:
        yield module
        module = module.rpartition(".")[0]


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

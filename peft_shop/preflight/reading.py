"""A wrapped model -> which modules of the base it touches, and with how much."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from peft.tuners.ln_tuning.layer import LNTuningLayer
from peft.tuners.lora.layer import ParamWrapper
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import AuxiliaryTrainingWrapper, ModulesToSaveWrapper

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

__all__ = ["Seen", "base_name", "pattern_of", "read_wrapped", "target_of"]

_INSERTED: Final = {"base_layer", "original_module"}
"""Parts of a name that peft puts in where it wraps."""


@dataclass
class Seen:
    """What was found on a wrapped model, by names of the base.

    Attributes:
        adapted: modules (or parameters) that an adapter wraps, with the trainable parameters that
            belong to each alone [count].
        idle: those of them in which nothing trains, shared parameters included.
        whole: modules and parameters of the base that are trained whole, with their size [count].
    """

    adapted: dict[str, int] = field(default_factory=dict)
    idle: set[str] = field(default_factory=set)
    whole: dict[str, int] = field(default_factory=dict)


def pattern_of(name: str) -> str:
    """`name` with every index as `*`."""
    return ".".join("*" if part.isdigit() else part for part in name.split("."))


def base_name(name: str) -> str:
    """`name` as it was before peft wrapped anything."""
    return ".".join(part for part in name.split(".") if part not in _INSERTED)


def read_wrapped(model: Any, before: Collection[str]) -> Seen:
    """What `model` (a `PeftModel`) wraps and trains.

    Args:
        model: the wrapped model.
        before: names of the parameters that the base had.
    """
    root = model.get_base_model()
    wrappers: dict[str, Any] = {
        name: module
        for name, module in root.named_modules()
        if isinstance(module, BaseTunerLayer | AuxiliaryTrainingWrapper)
    }
    named = list(root.named_parameters(remove_duplicate=False))
    owners = {name: owner for name, _ in named if (owner := _owner(name, wrappers)) is not None}
    places: dict[int, set[str]] = {}
    for name, parameter in named:
        if name in owners:
            places.setdefault(id(parameter), set()).add(owners[name])
    own: Counter[str] = Counter()
    awake: set[str] = set()
    seen = Seen()
    counted: set[int] = set()
    for name, parameter in named:
        if not parameter.requires_grad or not parameter.numel():
            continue
        original = base_name(name)
        if original in before and not _in_copy(name):
            seen.whole[original] = parameter.numel()
            continue
        owner = owners.get(name)
        if owner is None:
            continue
        awake.add(owner)
        if len(places[id(parameter)]) == 1 and id(parameter) not in counted:
            counted.add(id(parameter))
            own[owner] += parameter.numel()
    for name, module in wrappers.items():
        original = target_of(name, module)
        if isinstance(module, ModulesToSaveWrapper | LNTuningLayer):
            if name in awake:
                seen.whole[original] = own[name]
            continue
        seen.adapted[original] = own[name]
        if name not in awake:
            seen.idle.add(original)
    return seen


def _in_copy(name: str) -> bool:
    """Whether a parameter belongs to the copy that is trained in place of a module."""
    return "modules_to_save" in name.split(".")


def target_of(name: str, module: Any) -> str:
    """Name that the structure has for what `module` wraps."""
    original = base_name(name)
    if isinstance(module, ParamWrapper):
        return f"{original}.{module.parameter_name}"
    return original


def _owner(name: str, wrappers: Collection[str]) -> str | None:
    """The innermost wrapper that holds the parameter `name`."""
    return next((parent for parent in _parents(name) if parent in wrappers), None)


def _parents(name: str) -> Iterator[str]:
    """Names of the modules around `name`, the nearest first."""
    while name:
        name = name.rpartition(".")[0]
        yield name

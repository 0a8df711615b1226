"""Demands on methods: a list means all of these, `any_of(...)` one of these, for every option."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

from peft_shop.ask.backends import backend_of
from peft_shop.ask.demanding import ATTRIBUTES, GROUPS, SERVE, TRAINER
from peft_shop.ask.query import Requirement
from peft_shop.catalog.features import Category, Family, TaskType
from peft_shop.errors import InputError, QueryError, UnknownNameError, shown
from peft_shop.serve.routes import resolve_demand
from peft_shop.serve.trainers import resolve_trainer_demand

if TYPE_CHECKING:
    from peft_shop.catalog.catalog import Catalog

__all__ = ["AnyOf", "any_of", "names_stated", "requirements"]


@dataclass(frozen=True, slots=True)
class AnyOf:
    """Alternatives of which one is enough; made by `any_of`."""

    values: tuple[str, ...]


def any_of(*values: str) -> AnyOf:
    """Requirement that one of `values` is supported, where a list would demand all.

    >>> any_of("gptq", "awq")
    AnyOf(values=('gptq', 'awq'))
    """
    if not values:
        raise InputError("any_of() needs at least one value")
    return AnyOf(values)


def names_stated(value: object, option: str) -> Requirement:
    """The names an option was given, and whether all or one of them must hold.

    Raises:
        QueryError: anything but names.
    """
    if value is None:
        return Requirement(name=option, values=())
    several = isinstance(value, AnyOf)
    items = value.values if isinstance(value, AnyOf) else value
    items = [items] if isinstance(items, str) else items
    if not isinstance(items, Iterable) or isinstance(items, Mapping):
        message = f"expected a name, a list of names or any_of(...), got {shown(value)}"
        raise QueryError(message, keyword=option)
    names = tuple(items)
    wrong = [item for item in names if not isinstance(item, str)]
    if wrong:
        raise QueryError(f"expected names, got {shown(wrong[0])}", keyword=option)
    return Requirement(
        name=option, values=tuple(dict.fromkeys(names)), mode="any" if several else "all"
    )


def requirements(
    catalog: Catalog, demands: Mapping[str, object], *, implied: Iterable[str] = ()
) -> Iterable[Requirement]:
    """What methods must be and be able to do.

    Args:
        catalog: what the names refer to.
        demands: values by option; `None` is no demand.
        implied: backends of the quantized base that the name of a method implies.

    Raises:
        UnknownNameError: no such option or value; names the nearest.
        QueryError: a value that the option never takes.
    """
    demands = _with_implied(demands, implied)
    singles = {feature.id for feature in catalog.features if feature.group is None}
    for name, value in demands.items():
        if value is None:
            continue
        if name in singles:
            yield Requirement(name=name, values=(_support(name, value),))
            continue
        if name not in {*GROUPS, *ATTRIBUTES, SERVE, TRAINER}:
            raise UnknownNameError(
                "capability", name, [*GROUPS, *ATTRIBUTES, SERVE, TRAINER, *singles]
            )
        found = names_stated(value, name)
        chosen = [_value(catalog, name, item) for item in found.values]
        if chosen:
            values = tuple(dict.fromkeys(chosen))
            yield Requirement(name=name, values=values, mode=found.mode)


def _with_implied(demands: Mapping[str, object], backends: Iterable[str]) -> Mapping[str, object]:
    """The demands, with the quantized base that the name of a method implies."""
    if not backends or demands.get("quantization") is not None:
        return demands
    return {**demands, "quantization": list(backends)}


def _value(catalog: Catalog, name: str, item: str) -> str:
    """The value that `item` means for the option `name`."""
    if name == SERVE:
        return resolve_demand(catalog, item)
    if name == TRAINER:
        return resolve_trainer_demand(catalog, item)
    if name in GROUPS and ":" in item:
        value, _, least = item.partition(":")
        if _spelling(least) not in {"yes", "partial"}:
            raise UnknownNameError(f"support of {value}", least, ("yes", "partial"))
        found = _value(catalog, name, value)
        return f"{found}:partial" if _spelling(least) == "partial" else found
    item = backend_of(item) if name == "quantization" else item
    valid = _valid_values(catalog, name)
    folded = {_spelling(option): option for option in valid}
    if _spelling(item) not in folded:
        raise UnknownNameError(name.removesuffix("s").replace("_", " "), item, valid)
    return folded[_spelling(item)]


def _support(name: str, value: object) -> str:
    if value is True or value == "yes":
        return "yes"
    if value is False or value == "no":
        return "no"
    if value == "partial":
        return "partial"
    raise QueryError(
        f"expected True (yes), 'partial' (yes or partial) or False (no), got {shown(value)}",
        keyword=name,
    )


def _valid_values(catalog: Catalog, name: str) -> tuple[str, ...]:
    if name in GROUPS:
        prefix = f"{name}."
        return tuple(
            feature.id.removeprefix(prefix) for feature in catalog.features if feature.group == name
        )
    if name == "options":
        return tuple(sorted({option for method in catalog.methods for option in method.options}))
    return get_args({"category": Category, "family": Family, "task_types": TaskType}[name])


def _spelling(name: str) -> str:
    return name.strip().lower().replace("-", "_").replace(" ", "_")

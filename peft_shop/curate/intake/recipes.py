"""What a run was started with: configuration, training settings, variants.

A recorded configuration is a dump made after the run: peft has filled in target modules and
shapes, and AdaLoRA even what it learned. `data/rules.toml` names those fields; the rest is what
ran, reduced to the fields that differ from the installed peft's defaults.
"""

from __future__ import annotations

import dataclasses
import enum
import hashlib
import math
from functools import cache
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from peft_shop.catalog.diagnosis import problems_of
from peft_shop.catalog.runs import Recipe, Training
from peft_shop.errors import MissingExtraError, Problem, nearest_names
from peft_shop.records import compact_json

if TYPE_CHECKING:
    from collections.abc import Iterable

    from peft_shop.catalog.methods import Condition, Variant
    from peft_shop.curate.intake.conventions import BenchmarkRules, ConfigRules, Conventions
    from peft_shop.curate.intake.results import Result

__all__ = [
    "class_defaults",
    "deviations",
    "holds",
    "peft_types",
    "read_recipe",
    "recognised",
]

_CONFIG = "run_info.peft_config"
_TRAINING = "run_info.train_config"
_OPTIMIZER = "optimizer_kwargs"


@cache
def _classes() -> dict[str, type]:
    try:
        from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "peft", "peft", "reading result files") from error
    return {str(kind.value): cls for kind, cls in PEFT_TYPE_TO_CONFIG_MAPPING.items()}


def peft_types() -> tuple[str, ...]:
    """Members of the installed peft's `PeftType`, sorted.

    Raises:
        MissingExtraError: peft is not installed.
    """
    return tuple(sorted(_classes()))


@cache
def class_defaults(peft_type: str) -> dict[str, Any]:
    """Default of every field of the configuration class, as JSON values.

    A field that must be given has the default `None`, as in peft.
    """
    defaults: dict[str, Any] = {}
    for field in dataclasses.fields(_classes()[peft_type]):
        value = field.default
        if field.default_factory is not dataclasses.MISSING:
            value = field.default_factory()
        defaults[field.name] = None if value is dataclasses.MISSING else _plain(value)
    return defaults


def _plain(value: Any) -> Any:
    """JSON form of a default value."""
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, set | frozenset):
        return sorted(value)
    if isinstance(value, tuple):
        return list(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)
        }
    return value


# --- configuration ---


def read_recipe(
    result: Result, experiment: dict[str, Any] | None, conventions: Conventions
) -> tuple[Recipe | None, list[Problem], list[Problem]]:
    """Recipe of a run, the mistakes in it, and the notes on it.

    Args:
        result: what the run recorded.
        experiment: the `adapter_config.json` that the run was started from, where it is on
            record.
        conventions: which recorded fields nobody chose.

    Returns:
        The recipe (`None` when there are mistakes), mistakes, notes.
    """
    path = str(result.origin.path)
    training, problems = _training(result, conventions)
    if result.peft_config is None:
        recipe = None if training is None else Recipe(peft_type=None, training=training)
        return recipe, problems, []
    recorded = str(result.peft_config.get("peft_type"))
    retired = conventions.rules.retired_methods
    peft_type = retired[recorded].peft_type if recorded in retired else recorded
    if peft_type not in _classes():
        near = nearest_names(recorded, peft_types())
        hint = f"did you mean {' or '.join(near)}?" if near else "peft must know it first"
        message = f"unknown method {recorded!r}"
        return None, [*problems, Problem(path, f"{_CONFIG}.peft_type", message, hint)], []
    if experiment is not None and experiment.get("peft_type") != recorded:
        message = f"{recorded!r} ran, the experiment's file says {experiment.get('peft_type')!r}"
        return None, [*problems, Problem(path, f"{_CONFIG}.peft_type", message)], []
    if training is None:
        return None, problems, []
    rules = conventions.rules.config
    chosen, resolved = chosen_fields(peft_type, result.peft_config, experiment, rules)
    defaults = class_defaults(peft_type)
    notes = [
        Problem(path, f"{_CONFIG}.{name}", "the installed peft has no such field; it is kept")
        for name in sorted(chosen)
        if name not in defaults
    ]
    written_by = result.peft_config.get("peft_version")
    recipe = Recipe(
        peft_type=peft_type,
        config={
            name: value
            for name, value in sorted(chosen.items())
            if name not in defaults or value != _canonical(name, defaults[name], rules)
        },
        resolved=resolved,
        config_source="result" if experiment is None else "experiment",
        # "0.19.2.dev0@UNKNOWN": what follows the @ would be a commit
        written_by=written_by.partition("@")[0] if isinstance(written_by, str) else None,
        training=training,
    )
    return recipe, problems, notes


def chosen_fields(
    peft_type: str, recorded: dict[str, Any], experiment: dict[str, Any] | None, rules: ConfigRules
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Recorded fields that the author chose, and those that peft filled in."""
    unread = {name for rule in rules.unread if peft_type in rule.peft_types for name in rule.fields}
    chosen = {
        name: _canonical(name, value, rules)
        for name, value in recorded.items()
        if name not in rules.dropped and name not in unread
    }
    resolved: dict[str, Any] = {}
    if experiment is not None:
        for name in rules.resolved:
            if chosen.get(name) is not None and experiment.get(name) is None:
                resolved[name] = chosen.pop(name)
    for rule in rules.learned:
        if peft_type in rule.peft_types:
            for name in rule.fields:
                chosen.pop(name, None)
                if experiment is not None and experiment.get(name) is not None:
                    chosen[name] = _canonical(name, experiment[name], rules)
    for rule in rules.derived:
        if peft_type in rule.peft_types:
            for name in rule.fields:
                value = chosen.get(name)
                if value is not None and rule.equals in (None, value):
                    resolved[name] = chosen.pop(name)
    return chosen, dict(sorted(resolved.items()))


def _canonical(name: str, value: Any, rules: ConfigRules) -> Any:
    """The value, with one order for lists that are sets."""
    if name in rules.sets and isinstance(value, list) and all(isinstance(v, str) for v in value):
        return sorted(set(value))
    return value


# --- training ---


def _training(result: Result, conventions: Conventions) -> tuple[Training | None, list[Problem]]:
    path = str(result.origin.path)
    config = result.train_config
    rules = conventions.rules.benchmarks[result.benchmark.id]
    fields = conventions.rules.training.fields if rules.fields is None else rules.fields
    optimizer = config.get(_OPTIMIZER, {} if "optimizer" in rules.defaults else None)
    if not isinstance(optimizer, dict):
        message = "expected an object" if _OPTIMIZER in config else "required key is missing"
        return None, [Problem(path, f"{_TRAINING}.{_OPTIMIZER}", message)]
    values: dict[str, Any] = dict(rules.defaults)
    values |= {
        field: config[key]
        for key, field in fields.items()
        # null means "as the class has it" except for a schedule, where it means none
        if key in config and (config[key] is not None or key in ("lr_scheduler", "grad_norm_clip"))
    }
    for field, keys in rules.products.items():
        factors = [config.get(key, rules.reference.get(key)) for key in keys]
        for key, factor in zip(keys, factors, strict=True):
            if type(factor) is not int or factor < 1:
                message = "expected an integer above 0"
                return None, [Problem(path, f"{_TRAINING}.{key}", message)]
        values[field] = math.prod(factors)
    if "lr" in optimizer:
        values["learning_rate"] = optimizer["lr"]
    options = {k: v for k, v in sorted(optimizer.items()) if k != "lr"}
    values["optimizer_options"] = values.get("optimizer_options") or options
    values["options"] = {
        key: value
        for key, value in sorted(config.items())
        if key not in fields
        and key != _OPTIMIZER
        and key not in rules.texts
        and key not in rules.beside
        and value != rules.reference.get(key)
    }
    try:
        return Training.model_validate(values, strict=True), []
    except ValidationError as error:
        names = {"learning_rate": f"{_OPTIMIZER}.lr"}
        names |= {field: key for key, field in fields.items() if key in config}
        return None, [
            dataclasses.replace(
                problem, where=f"{_TRAINING}.{names.get(problem.where, problem.where)}"
            )
            for problem in problems_of(error, Training, values, path)
        ]


def deviations(
    result: Result, rules: BenchmarkRules, names: Iterable[str]
) -> list[tuple[str, Any, Any]]:
    """Training settings among `names` that differ from the reference: name, found, reference.

    A setting that the run does not record had the reference's value: the suite added settings
    with defaults that change nothing.
    """
    config = result.train_config
    return [
        (name, config[name], rules.reference.get(name))
        for name in names
        if name in config and config[name] != rules.reference.get(name)
    ]


def changed_texts(result: Result, rules: BenchmarkRules) -> list[str]:
    """Names of the text settings whose text is not the reference's."""
    return [
        name
        for name, digest in rules.texts.items()
        if name in result.train_config and text_digest(result.train_config[name]) != digest
    ]


def text_digest(value: Any) -> str:
    """SHA-256 of the canonical JSON of a setting."""
    return hashlib.sha256(compact_json(value).encode("ascii")).hexdigest()


# --- variants ---


def recognised(recipe: Recipe, variants: Iterable[Variant]) -> tuple[str, ...]:
    """Identifiers of the variants whose conditions all hold, in the catalog's order.

    A variant without conditions is never recognised: it cannot be told from a recipe.
    """
    return tuple(
        variant.id
        for variant in variants
        if variant.when and all(holds(condition, recipe) for condition in variant.when)
    )


def holds(condition: Condition, recipe: Recipe) -> bool:
    """Whether a recipe meets one condition; what it does not state is `None`."""
    return condition.met_by(_stated(condition, recipe))


def _stated(condition: Condition, recipe: Recipe) -> Any:
    """Value of the field that a condition tests."""
    if condition.config is not None:
        return recipe.config.get(condition.config)
    name = condition.training or ""
    if name in Training.model_fields:
        return getattr(recipe.training, name)
    return recipe.training.options.get(name.removeprefix("options."))

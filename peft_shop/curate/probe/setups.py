"""What each method needs to work on the probe's tiny models: the `[probe]` tables."""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING, Any, Final

from pydantic import Field, ValidationError

from peft_shop.errors import ProbeError, UnknownNameError
from peft_shop.records import Record

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

__all__ = ["Setup", "load_setups"]

LANGUAGE_TARGETS: Final = ("q_proj", "v_proj", "down_proj")
"""A square and two non-square layers of the tiny Llama."""


class Setup(Record):
    """How to use one method on the probe's models.

    Attributes:
        args: configuration arguments for every model.
        layer_args: further arguments by layer type.
        language_args: further arguments on the language model.
        variant_args: arguments by variant, beyond those that its conditions fix.
        grid: settings, beyond `args`, under which the rank of the update is measured.
        untried: variants that the probe cannot set up, with the reason.
        blocks: what it wraps instead of single layers, for methods that cannot target layers.
        targets: what to target on the language model; empty when it has no targets.
        task_ids: whether every forward needs task identifiers.
        experts: whether it mixes LoRA adapters, which the probe trains first.
        requires: packages it needs besides those of peft.
        variants: configuration arguments by variant that the probe tries; made from the curated
            variants and `variant_args` when the file is read.
    """

    args: dict[str, Any] = Field(default_factory=dict)
    layer_args: dict[str, dict[str, Any]] = Field(default_factory=dict)
    language_args: dict[str, Any] = Field(default_factory=dict)
    variant_args: dict[str, dict[str, Any]] = Field(default_factory=dict)
    grid: tuple[dict[str, Any], ...] = ()
    untried: dict[str, str] = Field(default_factory=dict)
    blocks: str | None = None
    targets: tuple[str, ...] = LANGUAGE_TARGETS
    task_ids: bool = False
    experts: bool = False
    requires: tuple[str, ...] = ()
    variants: dict[str, dict[str, Any]] = Field(default_factory=dict)


def load_setups(catalog: Path, methods: Iterable[str] | None = None) -> dict[str, Setup]:
    """Set-ups by method, from the `[probe]` tables of `catalog/curated/*.toml`.

    Raises:
        ProbeError: a set-up does not keep the format, or a method has none.
        UnknownNameError: a method that the catalog does not have.
    """
    files = {file.stem: file for file in sorted((catalog / "curated").glob("*.toml"))}
    wanted = sorted(files) if methods is None else list(dict.fromkeys(methods))
    setups: dict[str, Setup] = {}
    for method in wanted:
        if method not in files:
            raise UnknownNameError("method", method, files)
        setups[method] = _setup(files[method])
    return setups


def _setup(file: Path) -> Setup:
    content = tomllib.loads(file.read_text(encoding="utf-8"))
    if "probe" not in content:
        msg = f"{file.name}: there is no [probe] table; say there which arguments it needs"
        raise ProbeError(msg)
    try:
        setup = Setup.model_validate(content["probe"])
    except ValidationError as error:
        where = "; ".join(
            f"probe.{'.'.join(str(part) for part in item['loc'])}: {item['msg']}"
            for item in error.errors()
        )
        msg = f"{file.name}: {where}"
        raise ProbeError(msg) from error
    variants = {}
    for variant in content.get("variants", []):
        name = variant["id"]
        conditions = [item for item in variant.get("when", []) if "config" in item]
        if not conditions or name in setup.untried:
            continue  # an optimizer's variant: the same adapter as the method's
        args: dict[str, Any] = dict(setup.variant_args.get(name, {}))
        for item in conditions:
            _fix(item, args, f"{file.name}: variants.{name}")
        if args:
            variants[name] = args  # without any, it is what the method does by default
    return setup.model_copy(update={"variants": variants})


def _fix(condition: dict[str, Any], args: dict[str, Any], place: str) -> None:
    """Fill `args` with what the condition demands of a configuration field."""
    field = condition["config"]
    if field in args or condition.get("is_set") is False:
        return
    if "equals" in condition:
        args[field] = condition["equals"]
    elif "prefix" in condition:
        args[field] = condition["prefix"]
    else:
        msg = f"{place}: give probe.variant_args a {field}, or say in probe.untried why not"
        raise ProbeError(msg)

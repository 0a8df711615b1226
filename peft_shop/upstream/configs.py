"""Recipe -> configuration of the installed peft; the only room of a query that imports peft."""

from __future__ import annotations

import copy
import dataclasses
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from peft_shop.errors import ConfigError, MissingExtraError, UnknownConfigKeyError, nearest_names
from peft_shop.files import write_all
from peft_shop.upstream.source import (
    UPGRADE,
    InstalledPeft,
    find_peft,
    installed_peft,
    unknown_method,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from peft import PeftConfig

    from peft_shop.catalog.runs import Recipe
    from peft_shop.records import Json

__all__ = [
    "InstalledPeft",
    "build_config",
    "config_dict",
    "config_from_dict",
    "installed_peft",
    "save_config",
]

_CONFIG_FILE: Final = "adapter_config.json"


def config_dict(recipe: Recipe) -> dict[str, Json]:
    """What `adapter_config.json` has to state for `recipe`: `peft_type` and its own fields.

    The fields left out have the defaults of the class. Needs no peft; the result is a new object.

    Raises:
        ConfigError: the recipe is one of full fine-tuning.
    """
    return {"peft_type": _peft_type(recipe), **copy.deepcopy(recipe.config)}


def build_config(recipe: Recipe) -> PeftConfig:
    """New configuration object of the installed peft for `recipe`.

    Each call makes another one, because `get_peft_model` changes the object it is given.

    Raises:
        MissingExtraError: peft is not installed.
        UnknownConfigKeyError: the installed peft does not know a key of the recipe.
        ConfigError: full fine-tuning, a method that the installed peft does not have, a value that
            it refuses, or a peft that cannot be imported.
    """
    return _build(_peft_type(recipe), recipe.config)


def config_from_dict(stated: Mapping[str, Json]) -> PeftConfig:
    """New configuration object of the installed peft for what `config_dict` gives.

    Raises:
        ConfigError: there is no `peft_type`; and as for `build_config`.
    """
    fields = dict(stated)
    peft_type = fields.pop("peft_type", None)
    if not isinstance(peft_type, str):
        msg = f"peft_type: expected the name of a method such as 'LORA', found {peft_type!r}"
        raise ConfigError(msg)
    return _build(str(getattr(peft_type, "value", peft_type)), fields)


def _build(peft_type: str, fields: Mapping[str, Json]) -> PeftConfig:
    classes, version = _import_peft()
    cls = classes.get(peft_type)
    if cls is None:
        raise unknown_method(peft_type, version, classes)
    arguments = [field.name for field in dataclasses.fields(cls) if field.init]
    _check_keys(fields, arguments, cls.__name__, version)
    try:
        config = cls(**copy.deepcopy(dict(fields)))
    except (TypeError, ValueError, ImportError) as error:
        msg = f"peft {version} refuses the recipe for {cls.__name__}: {error}"
        raise ConfigError(msg) from error
    # peft turns nested tables into objects and drops what those do not know.
    for key, value in fields.items():
        built = getattr(config, key)
        if isinstance(value, dict) and dataclasses.is_dataclass(built):
            known = [field.name for field in dataclasses.fields(built)]
            _check_keys(value, known, f"{cls.__name__}.{key}", version, prefix=f"{key}.")
    return config


def save_config(recipe: Recipe, directory: str | Path, *, overwrite: bool = False) -> Path:
    """Write `adapter_config.json` as peft writes it; returns the file's path.

    The file appears whole or not at all. `directory` and its parents are made when absent.

    Raises:
        ConfigError: the file exists and `overwrite` is false, or it cannot be written; and as for
            `build_config`.
    """
    directory = Path(directory)
    target = directory / _CONFIG_FILE
    config = build_config(recipe)
    try:
        with tempfile.TemporaryDirectory() as folder:
            config.save_pretrained(folder)
            content = (Path(folder) / _CONFIG_FILE).read_bytes()
        write_all({target: content}, replace=overwrite)
    except FileExistsError as error:
        msg = (
            f"{target} exists already; choose another folder or pass overwrite=True"
            if target.exists()
            else f"cannot write {target}: {directory} is no folder"
        )
        raise ConfigError(msg) from error
    except OSError as error:
        msg = f"cannot write {target}: {error.strerror or error}"
        raise ConfigError(msg) from error
    return target


def _peft_type(recipe: Recipe) -> str:
    if recipe.peft_type is None:
        msg = (
            "full fine-tuning has no peft configuration; it is a baseline: choose a run of a PEFT "
            "method"
        )
        raise ConfigError(msg)
    if "peft_type" in recipe.config:
        msg = "config.peft_type: the method is stated by the recipe's own peft_type; remove the key"
        raise ConfigError(msg)
    return recipe.peft_type


def _import_peft() -> tuple[Mapping[str, Any], str]:
    """Classes of configurations by method, from peft's own table, and the version of peft."""
    if find_peft() is None:
        raise MissingExtraError("peft", "peft", "building a configuration")
    try:
        import peft
    except (ImportError, AttributeError, OSError, RuntimeError) as error:
        msg = (
            f"peft is installed but cannot be imported: {type(error).__name__}: {error}; "
            "run: pip install -U 'peft-shop[peft]'"
        )
        raise ConfigError(msg) from error
    table = {str(key.value): cls for key, cls in peft.PEFT_TYPE_TO_CONFIG_MAPPING.items()}
    return table, str(peft.__version__)


def _check_keys(
    given: Iterable[str], known: Sequence[str], owner: str, version: str, *, prefix: str = ""
) -> None:
    problems = []
    for key in sorted(set(given) - set(known)):
        near = nearest_names(key, known)
        hint = "; nearest: " + ", ".join(f"{prefix}{name}" for name in near) if near else ""
        problems.append(f"{prefix}{key}{hint}")
    if problems:
        msg = (
            f"{owner} of the installed peft {version} does not know: {' | '.join(problems)}. "
            f"A newer peft may: {UPGRADE}; or ask again with peft_version={version!r} to get "
            "only what this one can do"
        )
        raise UnknownConfigKeyError(msg)

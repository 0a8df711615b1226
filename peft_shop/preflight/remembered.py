"""A preflight that was made before is not made again; no torch where the verdict is known."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

from pydantic import ValidationError

from peft_shop.adapt.records import Preflight
from peft_shop.errors import ConfigError, MissingExtraError
from peft_shop.model.cache import Drawer

if TYPE_CHECKING:
    from peft import PeftConfig

    from peft_shop.model.inspection import Target
    from peft_shop.records import Json

__all__ = ["preflight"]

_VERDICTS: Final = Drawer("preflights", ("preflight", "model", "upstream"), 2000)


def preflight(target: Target, config: PeftConfig | Mapping[str, Json]) -> Preflight:
    """As `checking.preflight`; the verdict is kept per structure and fields of the configuration.

    Only for models that were read from files: an instance may differ in what no structure tells.

    Raises:
        ConfigError: the configuration cannot work on this model.
    """
    if not target.from_files or not isinstance(config, Mapping):
        return _made(target, config)
    parts = (
        target.structure.model_dump(mode="json", exclude={"name"}, exclude_defaults=True),
        {name: _plain(value) for name, value in config.items()},
    )
    known = _read(_VERDICTS.get(*parts))
    if isinstance(known, str):
        raise ConfigError(known)
    if known is not None:
        return known
    try:
        found = _made(target, config)
    except ConfigError as error:
        if type(error) is ConfigError:
            _VERDICTS.put(json.dumps({"refused": str(error)}).encode(), *parts)
        raise
    content = {"preflight": found.model_dump(mode="json")}
    _VERDICTS.put(json.dumps(content).encode(), *parts)
    return found


def _made(target: Target, config: PeftConfig | Mapping[str, Json]) -> Preflight:
    for package in ("torch", "transformers", "peft"):
        if find_spec(package) is None:
            raise MissingExtraError(package, "peft", "trying a configuration on a model")
    from peft_shop.preflight import checking  # noqa: PLC0415 - torch and peft only where needed

    return checking.preflight(target, config)


def _plain(value: Any) -> Any:
    """The value as JSON: sets of modules come in any order, enumerations as themselves."""
    if isinstance(value, set | frozenset):
        return sorted(map(str, value))
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value if value is None or isinstance(value, bool | int | float | str) else repr(value)


def _read(content: bytes | None) -> Preflight | str | None:
    """The verdict in a file: what was found, why it was refused, or `None` where it is broken."""
    try:
        kept = json.loads(content or b"null")
        if isinstance(kept, dict) and isinstance(kept.get("refused"), str):
            return str(kept["refused"])
        return Preflight.model_validate(kept["preflight"]) if isinstance(kept, dict) else None
    except (KeyError, ValueError, ValidationError, RecursionError):
        return None

"""A dry run that was made before is not made again; no torch where its result is known.

Kept per structure, configuration and step, and only of models that were read from files: an
instance may differ in what no structure tells.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from pydantic import ValidationError

from peft_shop.errors import ConfigError, ForecastError
from peft_shop.forecast.records import Forecast
from peft_shop.forecast.traced import TracedBase, stays
from peft_shop.model.cache import Drawer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from peft_shop.forecast.records import Settings
    from peft_shop.model.inspection import Target
    from peft_shop.records import Json

__all__ = ["keep_base", "keep_run", "recorded_base", "recorded_run"]

_RUNS: Final = Drawer("dry-runs", ("forecast", "preflight", "model", "upstream"), 4000)


def recorded_run(
    target: Target, config: Mapping[str, Json] | None, settings: Settings, *, brief: bool
) -> Forecast | None:
    """The forecast that such a dry run gave; `None` where none is on file.

    Raises:
        ForecastError: the step cannot be run without an accelerator.
        ConfigError: peft refuses the configuration.
    """
    kept = _read(target, *_parts(config, settings, brief=brief))
    try:
        forecast = Forecast.model_validate(kept["forecast"]) if "forecast" in kept else None
    except (ValidationError, RecursionError):
        return None
    if forecast is not None:
        return forecast.model_copy(update={"settings": settings})
    refused = kept.get("refused")
    if isinstance(refused, str):
        raise (ForecastError if kept.get("step") else ConfigError)(refused)
    return None


def keep_run(
    target: Target,
    config: Mapping[str, Json] | None,
    settings: Settings,
    result: Forecast | ConfigError | ForecastError,
    *,
    brief: bool,
) -> None:
    """Keeps what a dry run gave, or why there is none."""
    content: dict[str, Any]
    if isinstance(result, Forecast):
        content = {"forecast": result.model_dump(mode="json")}
    else:
        content = {"refused": str(result), "step": isinstance(result, ForecastError)}
    _write(target, content, *_parts(config, settings, brief=brief))


def recorded_base(target: Target, settings: Settings) -> TracedBase | None:
    """What was traced of plain LoRA with such sequences; `None` where nothing is on file."""
    kept = _read(target, "base", *stays(settings))
    try:
        peaks = {
            tuple(branch): None if pair is None else (float(pair[0]), float(pair[1]))
            for branch, pair in kept["peaks"]
        }
        return TracedBase(peaks, bool(kept["complete"]))
    except (KeyError, TypeError, ValueError, IndexError):
        return None


def keep_base(target: Target, settings: Settings, base: TracedBase) -> None:
    """Keeps what was traced of plain LoRA."""
    content = {"peaks": [list(one) for one in base.peaks.items()], "complete": base.complete}
    _write(target, content, "base", *stays(settings))


def _parts(
    config: Mapping[str, Json] | None, settings: Settings, *, brief: bool
) -> tuple[object, ...]:
    fields = None if config is None else json.dumps(config, sort_keys=True, default=sorted)
    return (fields, settings.model_dump(mode="json"), brief)


def _model(target: Target) -> Any:
    return target.structure.model_dump(mode="json", exclude={"name"}, exclude_defaults=True)


def _read(target: Target, *parts: object) -> dict[str, Any]:
    if not target.from_files:
        return {}
    try:
        kept = json.loads(_RUNS.get(_model(target), *parts) or b"null")
    except (ValueError, RecursionError):
        return {}
    return kept if isinstance(kept, dict) else {}


def _write(target: Target, content: Mapping[str, object], *parts: object) -> None:
    if target.from_files:
        _RUNS.put(json.dumps(content).encode(), _model(target), *parts)

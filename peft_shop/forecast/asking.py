"""Model, configuration and training step -> forecast, by the best way that can be taken."""

from __future__ import annotations

import re
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

from peft_shop.errors import ConfigError, ForecastError
from peft_shop.forecast.deadline import OutOfTimeError
from peft_shop.forecast.quick.closed_forms import closed_form
from peft_shop.forecast.recorded import keep_run, recorded_run
from peft_shop.model.quiet import quiet
from peft_shop.model.stored_weights import cautions
from peft_shop.model.structure import Structure

if TYPE_CHECKING:
    from collections.abc import Mapping

    from peft_shop.catalog.methods import Method
    from peft_shop.catalog.runs import Run
    from peft_shop.forecast.records import Forecast, Settings
    from peft_shop.model.inspection import Target
    from peft_shop.records import Json

__all__ = ["forecast", "settings_of"]

_ADVICE: Final = re.compile(r";? ?\(?make a dry run[^;]*|, for which only a dry run[^;]*")
_OWN: Final = {"lora-fa": "lora_fa", "riemannian": "riemannian"}
"""Optimizers of peft that belong to a recipe, by their name there."""


def forecast(
    model: Target | Structure,
    config: Mapping[str, Json] | None,
    settings: Settings,
    *,
    brief: bool = False,
) -> Forecast:
    """What training `config` on `model` costs: by a dry run where one can be made.

    A dry run needs the model itself, torch and peft. Where it is not possible the closed forms
    answer, and a warning tells why.

    Args:
        model: an inspected model, or its structure alone.
        config: fields of a peft configuration with `peft_type`; `None` for full fine-tuning.
        settings: the training step.
        brief: whether it is one of many, which few of the model's layers are enough for.

    Raises:
        ConfigError: the configuration does not fit the model.
        ForecastError: neither way knows such a model or method; says why for both.
    """
    found = _forecast(model, config, settings, brief=brief)
    structure = model if isinstance(model, Structure) else model.structure
    told = tuple(cautions(structure, dtype=settings.dtype))
    return found.model_copy(update={"warnings": (*told, *found.warnings)}) if told else found


def _forecast(
    model: Target | Structure,
    config: Mapping[str, Json] | None,
    settings: Settings,
    *,
    brief: bool,
) -> Forecast:
    if isinstance(model, Structure):
        return closed_form(model, config, settings)
    if find_spec("torch") is None or find_spec("peft") is None:
        return closed_form(model.structure, config, settings)
    try:
        return _dry_run(model, config, settings, brief=brief)
    except OutOfTimeError:
        raise
    except ForecastError as error:
        try:
            found = closed_form(model.structure, config, settings)
        except ConfigError as other:
            # the dry run that the closed forms advise is the one that failed
            reason = _ADVICE.sub("", str(other))
            raise ForecastError(f"{error}; nor do the closed forms know: {reason}") from error
        because = f"reckoned from shapes alone, since {error}"
        return found.model_copy(update={"warnings": (*found.warnings, because)})


def _dry_run(
    model: Target, config: Mapping[str, Json] | None, settings: Settings, *, brief: bool
) -> Forecast:
    """The dry run, or what an earlier one gave."""
    known = recorded_run(model, config, settings, brief=brief)
    if known is not None:
        return known
    from peft_shop.forecast.dry_run.forecasting import dry_run  # noqa: PLC0415 - torch only for a model

    try:
        # what they say about layers and kernels is for a preflight to tell
        with quiet():
            made = dry_run(model, config, settings, brief=brief)
    except (ConfigError, ForecastError) as error:
        if type(error) in (ConfigError, ForecastError):
            keep_run(model, config, settings, error, brief=brief)
        raise
    keep_run(model, config, settings, made, brief=brief)
    return made


def settings_of(subject: Run | Method, settings: Settings) -> Settings:
    """The settings with what a run's recipe cannot do without: its optimizer, its adapter's dtype.

    LoRA-FA freezes a factor by its optimizer, and OSF's copies of whole weights are in the base's
    dtype; what was chosen otherwise stays.
    """
    recipe = getattr(subject, "recipe", None)
    if recipe is None:
        return settings
    changes: dict[str, object] = {}
    own = _OWN.get(recipe.training.optimizer)
    if own is not None and settings.optimizer == "adamw":
        changes["optimizer"] = own
    if "autocast_adapter_dtype" not in settings.model_fields_set:
        stated = recipe.training.autocast_adapter_dtype
        if stated != settings.autocast_adapter_dtype:
            changes["autocast_adapter_dtype"] = stated
    return settings.model_copy(update=changes) if changes else settings

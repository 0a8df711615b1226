"""Contenders with what they would cost on the question's model, in place of what others measured.

Reckoned by closed forms, which take milliseconds a contender; `Candidate.forecast` makes the dry
run, which is nearer.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from peft_shop.ask.adapted import retargeted
from peft_shop.ask.bases import circumstances, condition, feature_of
from peft_shop.ask.judging import FORECAST_METRICS
from peft_shop.catalog.features import FULL_FINETUNING
from peft_shop.errors import ConfigError, PeftShopError
from peft_shop.forecast.asking import settings_of
from peft_shop.forecast.quick.closed_forms import closed_form
from peft_shop.forecast.traced import traced_base
from peft_shop.units import format_quantity

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from peft_shop.ask.contenders import Contender
    from peft_shop.ask.query import Query
    from peft_shop.catalog.catalog import Catalog
    from peft_shop.forecast.records import Forecast, Settings, Setup
    from peft_shop.model.structure import Structure
    from peft_shop.records import Json

__all__ = [
    "REPLACED",
    "Traced",
    "appraised",
    "fitting_advice",
    "forecast_of",
    "own_settings",
    "with_figures",
]

REPLACED: Final = (*FORECAST_METRICS, "total_parameters")
"""Metrics that are never shown as measured where a forecast is asked for."""


@dataclass(frozen=True, slots=True)
class Traced:
    """What dry runs told of a contender of which no closed form knows.

    Attributes:
        forecast: at the setup, or at the settings asked for; `None` where there is none.
        setup: under which it fits; `None` where none was looked for, or found.
        reason: why there is no forecast.
        misfit: why no setup fits; `None` where one does, or that is not known.
    """

    forecast: Forecast | None
    setup: Setup | None = None
    reason: str = ""
    misfit: str | None = None


def appraised(
    catalog: Catalog,
    query: Query,
    contenders: Sequence[Contender],
    traced: Mapping[str, Traced],
) -> tuple[Contender, ...]:
    """The contenders with forecasts for their figures; as they are where none is asked for.

    A contender that cannot be forecast has no usable figure, and the reason.

    Args:
        catalog: holds the facts.
        query: the question.
        contenders: who.
        traced: what dry runs told, by name.
    """
    settings = query.training
    if settings is None or query.model is None:
        return tuple(contenders)
    found = []
    for contender in contenders:
        forecast, reason = forecast_of(catalog, query, contender, settings)
        if forecast is None and contender.name in traced:
            forecast, reason = traced[contender.name].forecast, traced[contender.name].reason
        costed = with_figures(contender, forecast, reason)
        if forecast is not None:
            notes = (*contender.notes, *_closeness(query, forecast), *forecast.warnings)
            costed = replace(costed, notes=notes)
        found.append(costed)
    return tuple(found)


def with_figures(
    contender: Contender, forecast: Forecast | None, reason: str, *, peak: float | None = None
) -> Contender:
    """The contender with a forecast's figures in place of the measured ones.

    Args:
        contender: the contender.
        forecast: of its training; `None` where there is none.
        reason: why there is none.
        peak: memory to compare it by [B]; by default the forecast's own.
    """
    values = {key: value for key, value in contender.values.items() if key not in REPLACED}
    sds = {key: value for key, value in contender.sds.items() if key not in REPLACED}
    unusable = {key: value for key, value in contender.unusable.items() if key not in REPLACED}
    if peak is None and forecast is not None:
        peak = forecast.peak_memory.value
    if peak is not None:
        values["peak_memory"] = round(peak)
    if forecast is None:
        missing = [name for name in REPLACED if name not in values]
        unusable |= dict.fromkeys(missing, reason)
        return replace(contender, values=values, sds=sds, unusable=unusable)
    values["trainable_parameters"] = forecast.trainable_parameters
    values["total_parameters"] = forecast.total_parameters
    if forecast.checkpoint_bytes is not None:
        values["checkpoint_size"] = forecast.checkpoint_bytes
    else:
        unusable["checkpoint_size"] = "its size cannot be told beforehand"
    return replace(contender, values=values, sds=sds, unusable=unusable, forecast=forecast)


def _closeness(query: Query, found: Forecast) -> Iterable[str]:
    limit = query.memory
    if limit is not None and found.peak_memory.low <= limit.bytes < found.peak_memory.high:
        high = format_quantity(found.peak_memory.high, "bytes")
        yield f"too close to call: the forecast reaches {high}, the limit is {limit.text}"


def forecast_of(
    catalog: Catalog, query: Query, contender: Contender, settings: Settings
) -> tuple[Forecast | None, str]:
    """The forecast, or why there is none; once per catalog, model and training step."""
    if query.model is None:
        return None, "no model"
    adapted = retargeted(catalog, query, contender)
    if adapted is not None and adapted.problems:
        return None, "it cannot work on this model"
    settings = own_settings(catalog, query, contender, settings)
    config = (
        None if contender.method == FULL_FINETUNING or adapted is None else adapted.whole_config
    )
    subject = contender.run.id if contender.run is not None else contender.method
    key = ("forecast", query.benchmark, subject, settings, query.adapt, query.model)
    if key not in catalog.derived:
        try:
            catalog.derived[key] = closed_form(query.model, config, settings), ""
        except ConfigError as error:
            made = None if config is None else _beside(query.model, config, settings)
            if made is not None:
                return made, ""  # what was traced may be forgotten
            catalog.derived[key] = None, f"no forecast: {error}"
    found: tuple[Forecast | None, str] = catalog.derived[key]
    if found[0] is None and config is not None:
        made = _beside(query.model, config, settings)
        return found if made is None else (made, "")
    return found


def _beside(
    structure: Structure, config: Mapping[str, Json], settings: Settings
) -> Forecast | None:
    """The forecast beside a base that was traced; `None` where it was not, or tells nothing."""
    if traced_base(structure, settings) is None:
        return None
    from peft_shop.forecast.quick.beside import beside  # noqa: PLC0415 - seldom needed

    try:
        return beside(structure, config, settings)
    except PeftShopError:
        return None


def own_settings(
    catalog: Catalog, query: Query, contender: Contender, settings: Settings
) -> Settings:
    """The settings with what the contender cannot do without: its optimizer, its way of loading."""
    if contender.run is not None:
        settings = settings_of(contender.run, settings)
    backend = settings.quantization
    if backend is None or contender.method == FULL_FINETUNING or "prepare_kbit" in query.fixed:
        return settings
    capability = catalog.method_by_id[contender.method].capability(
        feature_of(backend), contender.variants
    )
    if condition(capability, circumstances(catalog, query, contender)) == "loaded":
        return settings.model_copy(update={"prepare_kbit": False})
    return settings


# --- when nothing fits ---


def fitting_advice(catalog: Catalog, query: Query, contenders: Sequence[Contender]) -> str | None:
    """What to change for something to fit, each change tried on all contenders; one sentence.

    Args:
        catalog: holds the facts.
        query: the question, with a model, a training step and a limit.
        contenders: those that fail nothing but the limit.

    Returns:
        `None` where no limit is set or no contender is left.
    """
    settings, limit = query.training, query.memory
    if settings is None or limit is None or not contenders:
        return None
    known = [contender for contender in contenders if contender.forecast is not None]
    if not known:
        reason = contenders[0].unusable["peak_memory"]
        return (
            f"whether anything fits into {limit.text} is not known: {reason} (Candidate.forecast, "
            "peft-shop forecast)"
        )
    changes = list(_changes(settings))
    tried: dict[str, int] = {}
    for words, changed in changes:
        tried[words] = _admitted(catalog, query, contenders, changed, limit.bytes)
    every = settings.model_copy(
        update={
            name: value
            for _, changed in changes
            for name, value in changed
            if getattr(settings, name) != value
        }
    )
    useful = {words: count for words, count in tried.items() if count}
    total = len(known)
    if useful:
        best = sorted(useful.items(), key=lambda item: -item[1])
        listed = ", ".join(f"{words} would let {count} of {total} fit" for words, count in best)
        return f"nothing fits into {limit.text}: {listed}"
    together = " and ".join(words for words, _ in changes)
    count = _admitted(catalog, query, contenders, every, limit.bytes)
    if count and changes:
        return f"nothing fits into {limit.text}: only {together} together would let {count} fit"
    least = min(
        (contender.forecast.peak_memory.low for contender in contenders if contender.forecast),
        default=None,
    )
    need = "" if least is None else f"; the least needs {format_quantity(least, 'bytes')}"
    return (
        f"nothing fits into {limit.text}, and no setting tried here changes that{need}: take a "
        "smaller model or a larger device"
    )


def _changes(settings: Settings) -> Iterable[tuple[str, Settings]]:
    if settings.quantization is None:
        yield "a 4-bit base (bnb_4bit)", settings.model_copy(update={"quantization": "bnb_4bit"})
    if not settings.gradient_checkpointing:
        yield (
            "gradient checkpointing",
            settings.model_copy(update={"gradient_checkpointing": True}),
        )
    if settings.batch_size > 1:
        yield "batch_size 1", settings.model_copy(update={"batch_size": 1})
    if settings.sequence_length > 1:
        half = settings.sequence_length // 2
        yield f"sequence_length {half}", settings.model_copy(update={"sequence_length": half})


def _admitted(
    catalog: Catalog,
    query: Query,
    contenders: Sequence[Contender],
    settings: Settings,
    limit: int,
) -> int:
    """How many would not be known to exceed the limit, and can train under these settings."""
    wanted = query.training
    needs = []
    if wanted is not None and settings.quantization != wanted.quantization:
        needs.append(f"quantization.{settings.quantization}")
    if wanted is not None and settings.gradient_checkpointing != wanted.gradient_checkpointing:
        needs.append("gradient_checkpointing")
    count = 0
    for contender in contenders:
        method = catalog.method_by_id[contender.method]
        if any(method.capability(name, contender.variants).support != "yes" for name in needs):
            continue
        found, _ = forecast_of(catalog, query, contender, settings)
        count += found is not None and found.peak_memory.low <= limit
    return count

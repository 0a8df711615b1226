"""Contenders -> contenders with the setup under which each fits the question's device."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from peft_shop.ask.adapted import retargeted, trained_by
from peft_shop.ask.appraisal import forecast_of, own_settings, with_figures
from peft_shop.ask.bases import circumstances, loadings, weakest
from peft_shop.ask.demanding import TRAINER
from peft_shop.catalog.features import FULL_FINETUNING
from peft_shop.errors import ConfigError, QueryError
from peft_shop.forecast.choice import denials
from peft_shop.forecast.devices import device_of
from peft_shop.forecast.fitting import Fittable, Fitting, fitted
from peft_shop.forecast.ladder import ladder
from peft_shop.forecast.quick.base_memory import base_bytes
from peft_shop.forecast.traced import traced_base
from peft_shop.serve.trainers import demanded_trainer
from peft_shop.units import format_quantity

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from peft_shop.ask.appraisal import Traced
    from peft_shop.ask.contenders import Contender
    from peft_shop.ask.query import Query, Requirement
    from peft_shop.catalog.catalog import Catalog
    from peft_shop.catalog.conditions import Given
    from peft_shop.catalog.methods import Method
    from peft_shop.forecast.devices import Device
    from peft_shop.forecast.ladder import QuantizedTraining, Rung
    from peft_shop.forecast.records import NothingFits, Settings, Setup

__all__ = ["Plans", "device_in", "fittable_of", "planned", "rungs_of"]

_NEEDS: Final = {
    "quantization.bnb_4bit": "a 4-bit base, in which",
    "quantization.bnb_8bit": "an 8-bit base, in which",
    "gradient_checkpointing": "gradient checkpointing, under which",
}


@dataclass(frozen=True, slots=True)
class Plans:
    """What fits, of a whole question.

    Attributes:
        contenders: with setups, figures at the answer's setup, and why others do not fit.
        baselines: likewise.
        setup: the answer's one setup; `None` where nothing fits or nothing is known.
        nothing_fits: what to do where nothing fits.
    """

    contenders: tuple[Contender, ...]
    baselines: tuple[Contender, ...]
    setup: Setup | None
    nothing_fits: NothingFits | None


def planned(
    catalog: Catalog,
    query: Query,
    contenders: Sequence[Contender],
    baselines: Sequence[Contender],
    traced: Mapping[str, Traced],
) -> Plans:
    """The contenders of a question with `fit="auto"`, each with its setup.

    Without dry runs worked out once per catalog and question about memory, whatever else it asks.

    Args:
        catalog: holds the facts.
        query: the question, with a model, a training step and a limit.
        contenders: candidates.
        baselines: likewise, for orientation.
        traced: what dry runs told, by name.
    """
    key = (
        *("plans", query.benchmark, query.snapshot, query.era, query.evidence, query.accelerator),
        *(query.ranked, query.peft_version, query.training, query.fixed, query.effective_batch),
        *(query.memory, query.adapt, query.model, _trainers(query), _looked_at(query)),
    )
    if traced:
        return _plans(catalog, query, contenders, baselines, traced)
    if key not in catalog.derived:
        catalog.derived[key] = _plans(catalog, query, contenders, baselines, traced)
    plans: Plans = catalog.derived[key]
    return plans


def _plans(
    catalog: Catalog,
    query: Query,
    contenders: Sequence[Contender],
    baselines: Sequence[Contender],
    traced: Mapping[str, Traced],
) -> Plans:
    fitting = _fitting(catalog, query, (*contenders, *baselines))

    def plan(contender: Contender) -> Contender:
        return _planned(catalog, query, contender, fitting, traced.get(contender.name))

    setups = [traced[contender.name].setup for contender in contenders if contender.name in traced]
    return Plans(
        tuple(map(plan, contenders)),
        tuple(map(plan, baselines)),
        fitting.setup or _usual(setups),
        fitting.nothing_fits,
    )


def _usual(setups: Iterable[Setup | None]) -> Setup | None:
    """The setup that most share of those that fit; the first of equals."""
    known = [setup for setup in setups if setup is not None]
    counts = Counter(setup.settings for setup in known)
    return max(known, key=lambda setup: counts[setup.settings], default=None)


def _fitting(catalog: Catalog, query: Query, everyone: Sequence[Contender]) -> Fitting:
    """The search, once per catalog and question about memory, whatever else it asks."""
    settings, limit, model = query.training, query.memory, query.model
    if settings is None or limit is None or model is None:
        raise QueryError("a setup is for a model, a training step and a device")
    key = (
        *("fitting", query.benchmark, query.snapshot, query.ranked, query.peft_version),
        *(settings, query.fixed, query.effective_batch, limit, query.adapt, model),
        *(_trainers(query), _looked_at(query)),
    )
    if key not in catalog.derived:
        asked = [fittable_of(catalog, query, contender) for contender in everyone]
        fittables = [fittable for fittable in asked if fittable is not None]
        try:
            made = fitted(
                model,
                fittables,
                settings,
                fixed=query.fixed,
                device=device_in(query),
                effective_batch=query.effective_batch or settings.batch_size,
            )
        except ConfigError as error:  # no closed form for anything of this model
            made = Fitting(
                None, {}, {}, unknown={fittable.key: str(error) for fittable in fittables}
            )
        catalog.derived[key] = made
    fitting: Fitting = catalog.derived[key]
    return fitting


def _looked_at(query: Query) -> int:
    """Branches of setups in which the model was traced [count]: with them the answer changes."""
    if query.model is None or query.training is None:
        return 0
    base = traced_base(query.model, query.training)
    return 0 if base is None else len(base.peaks)


def device_in(query: Query) -> Device | int:
    """The device of the question, or what its allocator may take [B]."""
    limit = query.memory
    if limit is None:
        raise QueryError("the question names neither a device nor a limit")
    return limit.bytes if limit.device is None else device_of(limit.text)


def _planned(
    catalog: Catalog, query: Query, contender: Contender, found: Fitting, traced: Traced | None
) -> Contender:
    """The contender with its setup and the figures under it."""
    setup, name = found.setups.get(contender.name), contender.name
    if name not in found.setups or name in found.unknown:
        reason = found.unknown.get(name, "it cannot work on this model")
        if (
            name in found.unknown
            and (too_much := _base_alone(catalog, query, contender)) is not None
        ):
            return replace(with_figures(contender, None, too_much), misfit=too_much)
        if traced is None:
            return with_figures(contender, None, f"no forecast: {reason}")
        planned = with_figures(contender, traced.forecast, traced.reason)
        return replace(planned, setup=traced.setup, misfit=traced.misfit)
    peak = found.compared.get(name)
    if setup is None:
        misfit = _misfit(catalog, query, contender, found.lacking.get(name, ()))
        return replace(with_figures(contender, None, misfit, peak=peak), misfit=misfit)
    forecast, reason = forecast_of(catalog, query, contender, setup.settings)
    planned = with_figures(contender, forecast, reason, peak=peak)
    notes = () if forecast is None else forecast.warnings
    return replace(planned, setup=setup, notes=(*contender.notes, *notes))


def _base_alone(catalog: Catalog, query: Query, contender: Contender) -> str | None:
    """Why a contender whose memory is not known does not fit all the same: the base is too large.

    `None` where the base alone would fit in some setup that it can take.
    """
    model, limit = query.model, query.memory
    asked = fittable_of(catalog, query, contender)
    if asked is None or model is None or limit is None:
        return None
    try:
        sizes = [base_bytes(model, rung.settings) for rung in rungs_of(query, asked)]
    except ConfigError:
        return None
    least = min(sizes, default=0)
    if least <= limit.bytes:
        return None
    size = format_quantity(least, "bytes")
    return f"needs more than {limit.text}: the base alone takes {size}"


def rungs_of(query: Query, asked: Fittable) -> list[Rung]:
    """The setups that a candidate can take, the cheapest first."""
    settings, model = query.training, query.model
    if settings is None or model is None:
        return []
    device = device_in(query)
    count = 1 if isinstance(device, int) else device.count
    bfloat16 = _bfloat16(query)
    rungs = ladder(
        model,
        settings,
        query.fixed,
        effective=max(1, (query.effective_batch or 1) // count),
        bfloat16=bfloat16,
    )

    def lacks(rung: Rung) -> bool:
        return any(
            True
            for _ in denials(
                asked, rung, stored=model.quantization, fixed=query.fixed, prepared=not bfloat16
            )
        )

    return [rung for rung in rungs if not lacks(rung)]


def _misfit(catalog: Catalog, query: Query, contender: Contender, lacking: Iterable[str]) -> str:
    """Why no setup fits: what it would need and cannot do, or that it needs too much."""
    limit = "the limit" if query.memory is None else query.memory.text
    needs = []
    for name in lacking:
        method = catalog.method_by_id[contender.method]
        group, _, backend = name.partition(".")
        capability = (
            weakest(method, contender.variants, backend)
            if group == "quantization"
            else method.capability(name, contender.variants)
        )
        if capability.support == "yes":
            takers = " and ".join(_names(query))
            needs.append(f"{_NEEDS.get(name, name)} {takers} does not take it")
            continue
        known = "observed" if capability.source == "observed" else "curated"
        needs.append(f"{_NEEDS.get(name, name)} it does not train ({known}: {capability.support})")
    if needs:
        return f"would need {' and '.join(needs)}"
    traced = " that was traced" if _looked_at(query) else ""
    return f"needs more than {limit} under every setup{traced}"


def _bfloat16(query: Query) -> bool:
    """Whether the device computes in bfloat16, as a size alone, or none, is taken to do."""
    if query.memory is None:
        return True
    device = device_in(query)
    return isinstance(device, int) or device.bfloat16


def fittable_of(catalog: Catalog, query: Query, contender: Contender) -> Fittable | None:
    """What the search needs to know of a contender; `None` for one that cannot work at all."""
    adapted = retargeted(catalog, query, contender)
    settings = query.training
    if settings is None or (adapted is not None and adapted.problems):
        return None
    if contender.method == FULL_FINETUNING:
        return Fittable(contender.name, None, optimizer=settings.optimizer)
    if adapted is None:
        return None
    recipe = None if contender.run is None else contender.run.recipe.training
    settings = own_settings(catalog, query, contender, settings)
    method = catalog.method_by_id[contender.method]
    checkpointed, quantized = _taken(catalog, query, contender, settings)
    given = dict(circumstances(catalog, query, contender))
    if "dtype" not in query.fixed and not _bfloat16(query):
        given.pop("dtype", None)  # float16, of which no verdict speaks
    return Fittable(
        contender.name,
        adapted.whole_config,
        optimizer=settings.optimizer,
        plain_adamw=settings.optimizer == "adamw"
        and (recipe is None or recipe.optimizer.lower() == "adamw"),
        bnb_4bit=_trains(method, contender.variants, "bnb_4bit", given) if quantized else "no",
        bnb_8bit=_trains(method, contender.variants, "bnb_8bit", given) if quantized else "no",
        checkpointing=checkpointed
        and method.capability("gradient_checkpointing", contender.variants).under(given) == "yes",
        chunked=method.own_loss != "outputs",
        autocast_adapter_dtype=None if recipe is None else recipe.autocast_adapter_dtype,
    )


def _trainers(query: Query) -> tuple[Requirement, ...]:
    """What the question demands of trainers."""
    return tuple(requirement for requirement in query.requirements if requirement.name == TRAINER)


def _names(query: Query) -> Iterable[str]:
    return (demanded_trainer(text)[0] for trainer in _trainers(query) for text in trainer.values)


def _taken(
    catalog: Catalog, query: Query, contender: Contender, settings: Settings
) -> tuple[bool, bool]:
    """Whether the demanded trainers take it with gradient checkpointing, and on a quantized base.

    So a plan goes around what only some setups meet. One that they take in no setup is not held
    up here: the demand itself drops it, with the reason.
    """
    demands = _trainers(query)
    if not demands:
        return True, True

    def takes(**changes: object) -> bool:
        step = settings.model_copy(update={"gradient_checkpointing": False, **changes})

        def met(text: str) -> bool:
            acceptance = trained_by(catalog, query, contender, text, settings=step)
            return acceptance.satisfies(partly=demanded_trainer(text)[2])

        return all(
            (any if demand.mode == "any" else all)(map(met, demand.values)) for demand in demands
        )

    plain = {"quantization": None}
    if not takes(**plain):
        return True, True
    return takes(gradient_checkpointing=True, **plain), takes(quantization="bnb_4bit")


def _trains(
    method: Method, variants: tuple[str, ...], backend: str, given: Given
) -> QuantizedTraining:
    """How the method trains on a base of bitsandbytes, as the search wants to know it."""
    ways = loadings(weakest(method, variants, backend), given)
    if len(ways) != 1:
        return "yes" if ways else "no"
    return "prepared" if ways[0] == "prepared" else "as_loaded"

"""`peft-shop forecast`: what training costs on a user's model, before it starts."""

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from peft_shop.adapt.installed import for_installed
from peft_shop.adapt.retarget import retarget
from peft_shop.ask.lookup import Choice, best_run, choose_subject
from peft_shop.ask.model import read_options, read_training
from peft_shop.ask.settling import plans_of
from peft_shop.ask.watching import watched
from peft_shop.catalog.features import FULL_FINETUNING
from peft_shop.catalog.store import load
from peft_shop.cli.completion import run_or_method_names
from peft_shop.cli.model import Adapt, Device, Fit, Training, TrustRemoteCode, inspected
from peft_shop.cli.options import Benchmark, CatalogFile, Force, Plot, takes
from peft_shop.cli.output import NOTHING_FOUND, OK, TOO_CLOSE, Output, output, write_picture
from peft_shop.cli.values import settings
from peft_shop.errors import ConfigError, ForecastError, Keyword, QueryError
from peft_shop.forecast.asking import forecast as ask
from peft_shop.forecast.asking import settings_of
from peft_shop.forecast.devices import device_of, fits
from peft_shop.show.forecasts import (
    Appraised,
    forecast_document,
    forecast_records,
    forecasts_document,
)
from peft_shop.show.naming import briefly
from peft_shop.show.progress import progress_bar, waiting

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from peft_shop.adapt.records import TargetOptions
    from peft_shop.ask.contenders import Contender
    from peft_shop.catalog.catalog import Catalog
    from peft_shop.catalog.methods import Method
    from peft_shop.catalog.runs import Run
    from peft_shop.forecast.devices import Device as Accelerator
    from peft_shop.forecast.records import Settings
    from peft_shop.model.inspection import Target

__all__ = ["forecast"]


@takes(output)
def forecast(
    out: Output,
    candidate: Annotated[
        str | None,
        typer.Argument(
            help="A run, or a method.", metavar="CANDIDATE", autocompletion=run_or_method_names
        ),
    ] = None,
    *,
    model: Annotated[
        str,
        typer.Option(
            "--model",
            "-m",
            help="The model to train: a local folder or a hub id, of which only configuration "
            "files are read.",
            metavar="MODEL",
        ),
    ],
    everything: Annotated[
        bool, typer.Option("--all", help="All methods, each with its best run or its defaults.")
    ] = False,
    training: Training = None,
    device: Device = None,
    quick: Annotated[
        bool,
        typer.Option("--quick", help="Reckon from shapes alone; milliseconds, and less exact."),
    ] = False,
    fit: Fit = None,
    adapt: Adapt = None,
    trust_remote_code: TrustRemoteCode = False,
    benchmark: Benchmark = None,
    plot: Plot = None,
    force: Force = False,
    catalog: CatalogFile = None,
) -> None:
    """Forecast parameters, checkpoint, peak memory and step time of training on your model.

    A training step runs on a copy of the model without weights, and its allocations are replayed.
    With --fit auto it is in the cheapest setup that fits the device; what --training states stays.

    Exit code with --device: 0 it fits (with --all: one does), 1 it does not, 3 too close to call.
    """
    if (candidate is None) != everything:
        raise QueryError("name a candidate (a run or a method), or give --all")
    source = load(catalog)
    limit = None if device is None else device_of(device)
    target = inspected(model, trust_remote_code=trust_remote_code)
    if target is None:  # the option is required
        raise QueryError("--model names nothing")
    where = benchmark or target.structure.benchmark
    choices = (
        _choices(source, where) if candidate is None else [choose_subject(source, candidate, where)]
    )
    stated = settings("training", training)
    step = read_training(stated, target.structure, choices[0].quantization).settings
    options = for_installed(read_options(settings("adapt", adapt)))
    plans: dict[str, Contender] = {}
    if fit not in {None, "auto", "off"}:
        raise QueryError(f"expected 'auto' or 'off', got {fit!r}", keyword="fit")
    if fit == "auto":
        if device is None:
            raise QueryError(
                "there is nothing to fit into: give ", Keyword("device"), keyword="fit"
            )
        plans = _plans(
            source,
            target,
            choices,
            device=device,
            stated=stated,
            options=options,
            quick=quick,
        )
    work = _Work(source, target, step, options, limit, plans=plans, quick=quick)
    subjects = [(_name(choice), choice.subject) for choice in choices]
    if everything:
        found = _progressing(subjects, work.appraise)
    else:
        with waiting("Running a training step without weights"):
            found = [work.appraise(*subjects[0])]
    document = (
        forecasts_document(found, target.structure, step, device)
        if everything
        else forecast_document(found[0], target.structure, device)
    )
    if choices[0].remark:
        document = replace(document, paragraphs=(*document.paragraphs, choices[0].remark + "."))
    if fit is None and any(appraised.fit in {"no", "maybe"} for appraised in found):
        further = (
            "--fit auto looks for the cheapest setup that fits (checkpointing, smaller batches)"
        )
        document = replace(document, footnotes=(*document.footnotes, further))
    if limit is not None:
        cautions = [f"{device}: {caution}" for caution in limit.cautions_in(step.dtype)]
        document = replace(document, warnings=(*cautions, *document.warnings))
    if plot is not None:
        if found[0].forecast is None or everything:
            raise QueryError("--plot draws the forecast of one candidate, where there is one")
        write_picture(found[0].forecast.plot(device), plot, force=force)
    out.show(
        briefly(source, document),
        rows=lambda: forecast_records(found),
        json=lambda: _json(found, whole=not everything),
    )
    raise typer.Exit(_code(found))


class _Work:
    """Forecasts of many subjects on one model."""

    def __init__(
        self,
        catalog: "Catalog",
        target: "Target",
        step: "Settings",
        options: "TargetOptions",
        device: "Accelerator | None",
        *,
        plans: "Mapping[str, Contender]",
        quick: bool,
    ) -> None:
        self.plans = plans
        self.catalog = catalog
        self.target = target
        self.step = step
        self.options = options
        self.device = device
        self.quick = quick

    def appraise(self, name: str, subject: "Run | Method") -> Appraised:
        """The subject's forecast, or why there is none."""
        structure = self.target.structure
        whole = getattr(subject, "method", None) == FULL_FINETUNING
        adapted = None if whole else retarget(self.catalog, subject, structure, self.options)
        method = FULL_FINETUNING if adapted is None else adapted.method
        if adapted is not None and adapted.problems:
            reason = f"cannot work on this model: {'; '.join(adapted.problems)}"
            return Appraised(name, method, None, reason=reason)
        model = structure if self.quick else self.target
        plan = self.plans.get(name)
        if plan is not None and plan.misfit is not None:
            return Appraised(name, method, None, "no", reason=plan.misfit)
        step = settings_of(subject, self.step)
        if plan is not None and plan.setup is not None:
            step = plan.setup.settings
        try:
            found = ask(model, None if adapted is None else adapted.whole_config, step)
        except (ConfigError, ForecastError) as error:
            return Appraised(name, method, None, reason=f"no forecast: {error}")
        fit = None if self.device is None else fits(found.peak_memory, self.device)
        return Appraised(name, method, found, fit, setup=None if plan is None else plan.setup)


def _plans(
    catalog: "Catalog",
    target: "Target",
    choices: "Sequence[Choice[Run] | Choice[Method]]",
    *,
    device: str,
    stated: dict[str, str],
    options: "TargetOptions",
    quick: bool,
) -> "dict[str, Contender]":
    """A setup that fits for each choice, by its name."""
    with progress_bar("Dry runs") as tell, watched(tell):
        plans = plans_of(
            catalog,
            target.structure if quick else target,
            [choice.subject for choice in choices],
            device=device,
            training=stated,
            quantization=choices[0].quantization,
            adapt=options,
        )
    return {_name(choice): plan for choice, plan in zip(choices, plans, strict=True)}


def _choices(catalog: "Catalog", benchmark: str | None) -> "list[Choice[Run] | Choice[Method]]":
    """Every method, by its best run where it has one."""
    best = ((method, best_run(catalog, method.id, benchmark)) for method in catalog.methods)
    return [Choice(method) if run is None else Choice(run) for method, run in best]


def _name(choice: "Choice[Run] | Choice[Method]") -> str:
    return getattr(choice.subject, "experiment", choice.subject.id)


def _progressing(
    subjects: "list[tuple[str, Run | Method]]", work: "Callable[..., Appraised]"
) -> list[Appraised]:

    found = []
    with progress_bar("Forecasting") as tell:
        for done, (name, subject) in enumerate(subjects):
            tell(done, len(subjects), name)
            found.append(work(name, subject))
    return found


def _code(found: list[Appraised]) -> int:
    fits = {one.fit for one in found if one.fit is not None}
    if not fits:
        return OK if any(one.forecast for one in found) else NOTHING_FOUND
    if "yes" in fits:
        return OK
    return TOO_CLOSE if "maybe" in fits else NOTHING_FOUND


def _json(found: list[Appraised], *, whole: bool) -> str:
    plain: list[dict[str, Any]] = [
        {
            "name": one.name,
            "method": one.method,
            "fit": one.fit,
            "reason": one.reason,
            "setup": None if one.setup is None else one.setup.model_dump(mode="json"),
            "forecast": None if one.forecast is None else one.forecast.model_dump(mode="json"),
        }
        for one in found
    ]
    content = plain[0] if whole else plain
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"

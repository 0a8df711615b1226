"""How well dry runs forecast the runs on file: memory and step time, one method left out at a time.

`measure` traces every current run with the installed packages (minutes); `figures_of` fits and
judges (a second), from what was measured; `write_figures` keeps both in
`data/forecast_dry_run.json`, and the constants beside `peft_shop/forecast/dry_run/constants.py`.
To do all of it:

    python -m peft_shop.curate.calibration.dry_run_accuracy data
"""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from peft_shop.catalog.features import FULL_FINETUNING
from peft_shop.catalog.store import load
from peft_shop.curate.calibration.accuracy import figures_bytes
from peft_shop.curate.calibration.fitting import coverage, least_absolute, quantile_pair
from peft_shop.curate.calibration.structures import build_models, load_structures
from peft_shop.curate.calibration.suites import FITTED, cases_of
from peft_shop.errors import PeftShopError
from peft_shop.files import write_all
from peft_shop.forecast.constants import Regime, Residuals
from peft_shop.forecast.dry_run.constants import DryRunConstants, StepConstants

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from peft_shop.curate.calibration.suites import Case
    from peft_shop.model.inspection import Target

__all__ = [
    "COSTS",
    "FILE",
    "constants_of",
    "costs_of",
    "entries_in",
    "figures_of",
    "measure",
    "measure_one",
    "write_figures",
]

COSTS: Final = ("half_flop", "full_flop", "byte", "launch", "synchronization")
"""Constants in the order of the numbers in `forecast.dry_run.timing.Work`."""
FILE: Final = "forecast_dry_run.json"
"""In the data folder."""
MEAN_TOKENS: Final = 210
"""Tokens of a mean sample of MetaMathQA: 4,198,051 in the 20,000 of each run (its own record)."""
_SHORT_TOKENS: Final = 100
"""Tokens of the batch before the longest one, which the suite's buckets sort from long to short."""
_FIRST_SEGMENT: Final = 2 * 2**20
"""Bytes that the text suite had reserved before it began to count."""
# what the image suite keeps beside the model: DINOv2-base in float32, the embeddings of 14 prompts
_BESIDE_IMAGES: Final = 86_580_480 * 4 + 14 * 512 * 7680 * 2
_MEMORY: Final = "peak_memory_bytes"


def measure(data: Path, *, tell: Callable[[str], None] = lambda _: None) -> list[dict[str, Any]]:
    """One entry per current run: forecast and record, without any fitted constant."""
    catalog = load()
    structures = load_structures(data)
    entries = []
    targets = _targets()
    for case in cases_of(catalog, structures):
        entry = measure_one(case, targets[case.run.benchmark])
        tell(f"{entry['experiment']}: {entry.get('error', entry.get('refused'))}")
        entries.append(entry)
    return entries


def _targets() -> dict[str, Target]:
    from peft_shop.model.inspection import inspect_model

    return {name: inspect_model(model) for name, model in build_models().items()}


def measure_one(case: Case, target: Target) -> dict[str, Any]:
    """Trace the steps of one run."""
    run = case.run
    entry: dict[str, Any] = {
        "benchmark": run.benchmark,
        "experiment": run.experiment,
        "method": run.method,
        "recorded": case.recorded,
        "held_out": case.held_out,
        "excluded": case.excluded or None,
        "step_seconds": round(run.metrics["step_seconds"] / run.recipe.training.max_steps, 6),
    }
    try:
        traced = _trace(case, target)
    except PeftShopError as error:
        return {**entry, "refused": str(error).splitlines()[0]}
    forecast = traced["reserved"] + (
        _BESIDE_IMAGES if run.benchmark == "image_gen" else -_FIRST_SEGMENT
    )
    return {
        **entry,
        "forecast": forecast,
        "error": round(forecast / case.recorded - 1, 5),
        "work": traced["work"],
    }


def _trace(case: Case, target: Target) -> dict[str, Any]:
    from peft_shop.forecast.dry_run.forecasting import after_step, batch_of
    from peft_shop.forecast.dry_run.preparing import prepare
    from peft_shop.forecast.dry_run.replay import replay
    from peft_shop.forecast.dry_run.steps import TracedStep, trace
    from peft_shop.forecast.dry_run.timing import work_of

    settings = case.settings
    image = case.run.benchmark == "image_gen"
    prepared = prepare(target, case.config, settings)

    def step(length: int | None, *, empty_cache: bool = False) -> TracedStep:
        return TracedStep(
            lambda: batch_of(target, prepared.plain, settings, length), empty_cache=empty_cache
        )

    steps = (
        [step(None), step(None, empty_cache=True)]
        if image
        else [step(_SHORT_TOKENS), step(None, empty_cache=True), step(MEAN_TOKENS)]
    )
    traced = trace(
        prepared.model,
        steps,
        settings,
        base=prepared.base,
        sizes=prepared.sizes,
        away=prepared.away,
        after=after_step,
        loss=_squared_difference if image else None,
    )
    memory = replay(
        traced,
        arena=not settings.moved_after_injection,
        checkpointing=settings.gradient_checkpointing,
    )
    return {"reserved": memory.peak_reserved, "work": list(work_of(traced))}


def _squared_difference(outputs: Any, _: Any) -> Any:
    """The image suite's loss: mean square of a difference, per image and then over images."""
    import torch

    output = outputs[0]
    wanted = torch.empty_like(output)
    return ((output.float() - wanted.float()) ** 2).reshape(output.shape[0], -1).mean(1).mean()


def figures_of(entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Fits and figures per suite, from what `measure` gave."""
    suites = {}
    # in an order of their own, so that fits from the committed figures come out the same
    for suite in sorted({entry["benchmark"] for entry in entries}):
        own = sorted(
            (entry for entry in entries if entry["benchmark"] == suite),
            key=lambda entry: entry["experiment"],
        )
        suites[suite] = {"memory": _memory(own), "time": _time(own)}
    return {
        "fitted_to": FITTED,
        "peft_version": version("peft"),
        "torch_version": version("torch").partition("+")[0],
        "suites": suites,
    }


def _memory(entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Errors of memory; nothing is fitted to a method, so leaving one out moves intervals alone."""
    traced = [entry for entry in entries if "error" in entry]
    usable = [entry for entry in traced if not entry["excluded"] and not entry["held_out"]]
    runs = []
    for one in traced:
        others = [other["error"] for other in usable if other["method"] != one["method"]]
        low, high = quantile_pair(others)
        ratio = one["recorded"] / one["forecast"] - 1
        runs.append(
            {
                "experiment": one["experiment"],
                "method": one["method"],
                "recorded": one["recorded"],
                "forecast": one["forecast"],
                "error": one["error"],
                "low": round(one["forecast"] * (1 + low)),
                "high": round(one["forecast"] * (1 + high)),
                "inside": low <= ratio <= high,
                "held_out": one["held_out"],
                "excluded": one["excluded"],
            }
        )
    low, high = quantile_pair([entry["error"] for entry in usable])
    kept = [run for run in runs if not run["excluded"] and not run["held_out"]]
    new = [run for run in runs if run["held_out"] and not run["excluded"]]
    return {
        "residuals": {"low": round(low, 5), "high": round(high, 5), "runs": len(usable)},
        "method_left_out": coverage(kept),
        "hold_out": coverage(new),
        "excluded": [run for run in runs if run["excluded"]],
        "refused": {
            entry["experiment"]: entry["refused"] for entry in entries if "refused" in entry
        },
        "runs": runs,
    }


def costs_of(entries: Sequence[Mapping[str, Any]]) -> tuple[float, ...]:
    """Constants of step time that fit those of the entries that constants are fitted to."""
    chosen = sorted(
        (entry for entry in entries if _is_timed(entry)), key=lambda entry: entry["experiment"]
    )
    costs = least_absolute(
        [entry["work"] for entry in chosen], [entry["step_seconds"] for entry in chosen]
    )
    return tuple(float(f"{cost:.6g}") for cost in costs)


def _is_timed(entry: Mapping[str, Any]) -> bool:
    return "work" in entry and not entry["held_out"] and entry["method"] != FULL_FINETUNING


def _time(entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Constants of step time, fitted with one method left out at a time."""
    traced = [entry for entry in entries if "work" in entry]
    fitted = [entry for entry in traced if _is_timed(entry)]
    whole = costs_of(fitted)
    errors: dict[str, float] = {}
    for method in dict.fromkeys(entry["method"] for entry in traced):
        costs = costs_of([entry for entry in fitted if entry["method"] != method])
        for one in traced:
            if one["method"] == method:
                use = whole if one["held_out"] else costs
                forecast = float(np.array(one["work"], dtype=float) @ np.array(use))
                errors[one["experiment"]] = forecast / one["step_seconds"] - 1
    runs = []
    for one in traced:
        others = [
            errors[other["experiment"]] for other in fitted if other["method"] != one["method"]
        ]
        low, high = quantile_pair(others)
        error = errors[one["experiment"]]
        runs.append(
            {
                "experiment": one["experiment"],
                "method": one["method"],
                "recorded": one["step_seconds"],
                "forecast": round(one["step_seconds"] * (1 + error), 6),
                "error": round(error, 5),
                "inside": low <= 1 / (1 + error) - 1 <= high,
                "held_out": one["held_out"],
                "work": one["work"],
            }
        )
    low, high = quantile_pair([errors[entry["experiment"]] for entry in fitted])
    methods = {entry["method"] for entry in fitted}
    return {
        "costs": dict(zip(COSTS, whole, strict=True)),
        "residuals": {"low": round(low, 4), "high": round(high, 4), "runs": len(fitted)},
        "method_left_out": coverage(
            [run for run in runs if not run["held_out"] and run["method"] in methods]
        ),
        "hold_out": coverage([run for run in runs if run["held_out"]]),
        "runs": runs,
    }


def constants_of(figures: Mapping[str, Any]) -> DryRunConstants:
    """What the package ships, from the figures."""

    def regime(suite: str) -> Regime:
        own = figures["suites"][suite]["memory"]
        methods = {run["method"] for run in own["runs"]} - {FULL_FINETUNING}
        # nothing is fitted: what is traced is what it takes
        return Regime(
            activations=1.0,
            trained=0.0,
            residuals=Residuals(**own["residuals"]),
            benchmark=suite,
            methods=tuple(sorted(methods)),
        )

    def step(suite: str) -> StepConstants:
        own = figures["suites"][suite]["time"]
        return StepConstants(
            benchmark=suite,
            accelerator="NVIDIA L40S",
            **own["costs"],
            residuals=Residuals(**own["residuals"]),
            methods=tuple(sorted({run["method"] for run in own["runs"]} - {FULL_FINETUNING})),
        )

    return DryRunConstants(
        peft_version=figures["peft_version"],
        torch_version=figures["torch_version"],
        whole=regime("metamathqa"),
        checkpointed=regime("image_gen"),
        steps=tuple(step(suite) for suite in sorted(figures["suites"])),
    )


def write_figures(data: Path, package: Path, entries: Sequence[Mapping[str, Any]]) -> None:
    """Writes the figures and the constants, both or neither."""
    figures = figures_of(entries)
    refused = [entry for entry in entries if "refused" in entry]
    made = {
        data / FILE: {**figures, "untraced": refused},
        package / "forecast" / "dry_run" / "constants.json": constants_of(figures).model_dump(
            mode="json"
        ),
    }
    write_all({path: figures_bytes(document) for path, document in made.items()})


def entries_in(figures: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What was measured, from the committed figures, so that fits can be done again."""
    entries = list(figures["untraced"])
    for suite, own in figures["suites"].items():
        times = {run["experiment"]: run for run in own["time"]["runs"]}
        entries += [
            {
                "benchmark": suite,
                **{
                    key: run[key]
                    for key in (
                        "experiment", "method", "recorded", "held_out", "excluded", "forecast",
                        "error",
                    )
                },
                "step_seconds": times[run["experiment"]]["recorded"],
                "work": times[run["experiment"]]["work"],
            }
            for run in own["memory"]["runs"]
        ]  # fmt: skip
    return entries


def main(arguments: Sequence[str]) -> int:
    """Measure, fit and write; the data folder is the only argument."""
    data = Path(arguments[0])
    package = Path(__file__).parents[2]
    write_figures(data, package, measure(data, tell=lambda line: print(line, flush=True)))  # noqa: T201 - minutes pass
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

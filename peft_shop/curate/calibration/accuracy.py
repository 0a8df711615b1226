"""Forecasts beside every run on file: exact counts, memory with and without a method, naive rules.

Writes `data/forecast_accuracy.json` (what documentation and tests read), and the constants that
the package ships.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from peft_shop.catalog.features import FULL_FINETUNING
from peft_shop.curate.calibration.fitting import coverage, quantile_pair, summary
from peft_shop.curate.calibration.naive import naive_rules
from peft_shop.curate.calibration.samples import Fit, Sample, fit, left_out, samples_of
from peft_shop.curate.calibration.suites import FITTED, HOLD_OUT, LONGEST_BATCH, Case, cases_of
from peft_shop.errors import ConfigError
from peft_shop.forecast.constants import Constants, Regime, Residuals
from peft_shop.forecast.quick.closed_forms import saved_bytes
from peft_shop.forecast.quick.full import full_parts
from peft_shop.forecast.quick.methods.registry import adapter_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peft_shop.catalog.catalog import Catalog
    from peft_shop.model.structure import Structure

__all__ = ["SUITES", "constants_of", "measure"]

SUITES: Final = ("metamathqa", "image_gen")
_MISSES: Final[dict[str, str]] = {
    "adalora": "peft 0.21.2 trains the rank counters, the run's peft did not; which ranks are "
    "kept is learned (told those of the run, the closed form has every byte right)",
    "adamss": "the sizes of its clusters depend on the weights",
    "shadow": "no closed form: its network is built from the model's own code",
}
"""Why an exact figure is missed, by method."""
_LORA_FA: Final = "the suite counted after LoRA-FA's optimizer had frozen A; peft counts A too"


def measure(catalog: Catalog, structures: Mapping[str, Structure]) -> dict[str, Any]:
    """All accuracy figures as JSON; errors are forecast over record, less one."""
    cases = cases_of(catalog, structures)
    return {
        "snapshots": {"fitted": FITTED, "hold_out": HOLD_OUT},
        "longest_batch_tokens": LONGEST_BATCH,
        "peft_version": catalog.peft_version,
        "exact": _exact(cases),
        "memory": {suite: _memory(suite, cases) for suite in SUITES},
    }


def _suite(suite: str, cases: Sequence[Case]) -> list[Case]:
    return [case for case in cases if case.run.benchmark == suite]


def _exact(cases: Sequence[Case]) -> dict[str, Any]:
    """Counts and checkpoints beside the records, per field."""
    fields = ("trainable_parameters", "total_parameters", "checkpoint_bytes")
    found: dict[str, Any] = {field: {"runs": 0, "exact": 0, "misses": []} for field in fields}
    for case in cases:
        if case.config is None:
            continue
        try:
            ours = _counts(case)
        except ConfigError:
            ours = None
        for field in fields:
            recorded = case.run.metrics.get(field)
            if recorded is None:
                continue
            entry = found[field]
            entry["runs"] += 1
            if ours is not None and ours[field] == recorded:
                entry["exact"] += 1
                continue
            method = case.run.method
            reason = _MISSES.get(method, "")
            if case.settings.optimizer == "lora_fa" and field == "trainable_parameters":
                reason = _LORA_FA
            entry["misses"].append(
                {
                    "benchmark": case.run.benchmark,
                    "experiment": case.run.experiment,
                    "recorded": recorded,
                    "forecast": None if ours is None else ours[field],
                    "because": reason,
                }
            )
    return found


def _counts(case: Case) -> dict[str, int]:
    assert case.config is not None  # noqa: S101 - the caller leaves full fine-tuning out
    adapter = adapter_of(case.structure, case.config)
    return {
        "trainable_parameters": sum(
            tensor.elements for tensor in adapter.tensors if tensor.trained
        ),
        "total_parameters": case.structure.parameters
        + sum(tensor.elements for tensor in adapter.tensors if tensor.parameter),
        "checkpoint_bytes": saved_bytes(adapter, case.settings),
    }


def _memory(suite: str, cases: Sequence[Case]) -> dict[str, Any]:
    """Peaks of one suite: fit, left-out errors, intervals, hold-out and naive rules."""
    own = _suite(suite, cases)
    samples, refused = samples_of(own)
    fitted = [one for one in samples if _is_fitted(one.case)]
    constants = fit(fitted)
    errors = left_out(samples, fitted)
    usable = {one.case.run.id: errors[one.case.run.id] for one in fitted}
    methods = {one.case.run.id: one.case.run.method for one in samples}
    runs: list[dict[str, Any]] = []
    for sample in samples:
        case = sample.case
        run = case.run
        others = [usable[name] for name in usable if methods[name] != run.method]
        low, high = quantile_pair(others)
        held = case.held_out
        error = sample.error(constants) if held else errors[run.id]
        forecast = (1 + error) * case.recorded
        runs.append(
            {
                "experiment": run.experiment,
                "method": run.method,
                "recorded": case.recorded,
                "forecast": round(forecast),
                "error": round(error, 5),
                "low": round(forecast * (1 + low)),
                "high": round(forecast * (1 + high)),
                "inside": forecast * (1 + low) <= case.recorded <= forecast * (1 + high),
                "held_out": held,
                "excluded": case.excluded or None,
            }
        )
    runs += [_full(case, constants) for case in own if case.config is None]
    kept = [one for one in runs if not one["excluded"] and not one["held_out"]]
    held_out = [one for one in runs if one["held_out"]]
    low, high = quantile_pair(list(usable.values()))
    return {
        "constants": {"activations": constants.activations, "trained": constants.trained},
        "residuals": {"low": round(low, 4), "high": round(high, 4), "runs": len(usable)},
        "fitted_runs": len(fitted),
        "parameters": own[0].structure.parameters,
        "in_sample": summary([one.error(constants) for one in fitted]),
        "method_left_out": coverage(kept),
        "hold_out": coverage(held_out),
        "excluded": [
            {key: one[key] for key in ("experiment", "error", "excluded")}
            for one in runs
            if one["excluded"]
        ],
        "no_closed_form": [
            {"run": name, "because": reason} for name, reason in sorted(refused.items())
        ],
        "naive": naive_rules(own, errors),
        "runs": sorted(runs, key=lambda one: str(one["experiment"])),
    }


def _is_fitted(case: Case) -> bool:
    return FITTED in case.run.snapshots and not case.held_out and not case.excluded


def _full(case: Case, constants: Fit) -> dict[str, Any]:
    """The baseline's entry; its constants are those of the adapters."""
    parts = full_parts(case.structure, case.settings)
    dynamic = sum(parts.dynamic.values())
    factor = 1.0 if case.settings.gradient_checkpointing else constants.activations
    forecast = sum(parts.static.values()) + factor * dynamic
    return {
        "experiment": case.run.experiment,
        "method": FULL_FINETUNING,
        "recorded": case.recorded,
        "forecast": round(forecast),
        "error": round(forecast / case.recorded - 1, 5),
        "low": None,
        "high": None,
        "inside": None,
        "held_out": case.held_out,
        "excluded": case.excluded,
    }


def constants_of(figures: Mapping[str, Any], catalog: Catalog) -> Constants:
    """What the package ships, from the figures."""

    def regime(suite: str) -> Regime:
        own = figures["memory"][suite]
        methods = {run["method"] for run in own["runs"]} - {FULL_FINETUNING}
        return Regime(
            activations=own["constants"]["activations"],
            trained=own["constants"]["trained"],
            residuals=Residuals(**own["residuals"]),
            benchmark=suite,
            methods=tuple(sorted(methods)),
            parameters=own["parameters"],
        )

    return Constants(
        snapshot=FITTED,
        peft_version=catalog.peft_version,
        whole=regime("metamathqa"),
        checkpointed=regime("image_gen"),
    )


def figures_bytes(figures: Mapping[str, Any]) -> bytes:
    """The file of the figures."""
    return (json.dumps(figures, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()


def constants_bytes(constants: Constants) -> bytes:
    """The file of the constants."""
    return (json.dumps(constants.model_dump(mode="json"), indent=1) + "\n").encode()


def samples_in(cases: Sequence[Case]) -> list[Sample]:
    """Samples of all cases with a closed form."""
    return samples_of(cases)[0]

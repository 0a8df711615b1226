"""Exact figures by injection beside every run on file; needs torch, peft and diffusers."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, Final

from peft_shop.curate.calibration.structures import build_models
from peft_shop.curate.calibration.suites import cases_of
from peft_shop.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from peft_shop.catalog.catalog import Catalog
    from peft_shop.catalog.runs import Run
    from peft_shop.model.structure import Structure

__all__ = ["measure_injection"]

_REASONS: Final[dict[str, str]] = {
    "adalora": "peft 0.21.2 trains the rank counters, the run's peft did not; which ranks are "
    "kept is learned (told those of the run, the closed form has every byte right)",
    "adamss": "the sizes of its clusters depend on the weights",
    "shadow": "its explicit shadow model has to be fetched",
}
_FIELDS: Final = ("trainable_parameters", "total_parameters", "checkpoint_bytes")


def measure_injection(catalog: Catalog, structures: Mapping[str, Structure]) -> dict[str, Any]:
    """Per field: runs, exact ones and misses with their reason, under the installed peft."""
    from peft_shop.forecast.exact import exact_counts
    from peft_shop.model.inspection import inspect_model

    targets = {name: inspect_model(model) for name, model in build_models().items()}
    found: dict[str, Any] = {field: {"runs": 0, "exact": 0, "misses": []} for field in _FIELDS}
    for case in cases_of(catalog, structures):
        if case.config is None:
            continue
        try:
            with warnings.catch_warnings():
                # peft's advice to whoever trains: nothing is trained here
                warnings.simplefilter("ignore")
                ours = exact_counts(
                    targets[case.run.benchmark],
                    case.config,
                    autocast_adapter_dtype=case.settings.autocast_adapter_dtype,
                ).model_dump()
        except ConfigError:
            ours = dict.fromkeys(_FIELDS)
        for field in _FIELDS:
            recorded = case.run.metrics.get(field)
            if recorded is None:
                continue
            entry = found[field]
            entry["runs"] += 1
            if ours[field] == recorded:
                entry["exact"] += 1
                continue
            entry["misses"].append(
                {
                    "benchmark": case.run.benchmark,
                    "experiment": case.run.experiment,
                    "recorded": recorded,
                    "forecast": ours[field],
                    "because": _reason(case.run),
                }
            )
    return found


def _reason(run: Run) -> str:
    if run.recipe.training.optimizer == "lora-fa":
        return "the suite counted after LoRA-FA's optimizer had frozen A; peft counts A too"
    return _REASONS.get(run.method, "")

"""The accuracy of forecasts, from the files that hold it run by run -> records of the catalog."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from peft_shop.catalog.noise import ForecastAccuracy

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["CLOSED_FORMS", "DRY_RUNS", "MEASURED_STEPS", "accuracies"]

CLOSED_FORMS: Final = "data/forecast_accuracy.json"
DRY_RUNS: Final = "data/forecast_dry_run.json"
MEASURED_STEPS: Final = "data/forecast_measured.json"
_STEPS_ON: Final = "Tesla T4"
_METRICS: Final = {
    "checkpoint_bytes": "checkpoint_size",
    "total_parameters": "total_parameters",
    "trainable_parameters": "trainable_parameters",
}
_ERRORS: Final = ("mean", "median", "maximum", "coverage")


def accuracies(
    closed_forms: Mapping[str, Any] | None,
    dry_runs: Mapping[str, Any] | None,
    measured: Mapping[str, Any] | None = None,
) -> Iterable[ForecastAccuracy]:
    """Records of what the files hold; a file that is absent adds none.

    Args:
        closed_forms: content of `CLOSED_FORMS`.
        dry_runs: content of `DRY_RUNS`.
        measured: content of `MEASURED_STEPS`.
    """
    if closed_forms is not None:
        for way, key in (("injection", "injection"), ("closed_form", "exact")):
            for field, found in closed_forms[key].items():
                yield ForecastAccuracy.model_validate(
                    {
                        "metric": _METRICS[field],
                        "way": way,
                        "runs": found["runs"],
                        "exact": found["exact"],
                    }
                )
        for suite, found in closed_forms["memory"].items():
            yield _estimate("peak_memory", "closed_form", suite, found)
    if dry_runs is not None:
        for suite, found in dry_runs["suites"].items():
            yield _estimate("peak_memory", "dry_run", suite, found["memory"])
            yield _estimate("step_time", "dry_run", suite, found["time"])
    for way, found in (measured or {}).items():
        whole = found["all"]
        yield ForecastAccuracy(
            metric="peak_memory",
            way=way,
            steps_on=_STEPS_ON,
            runs=whole["runs"],
            mean=round(whole["mean"], 4),
            maximum=round(whole["maximum"], 4),
            coverage=round(whole["coverage"], 4),
            bias=round(whole["bias"], 4),
        )


def _estimate(metric: str, way: str, suite: str, found: Mapping[str, Any]) -> ForecastAccuracy:
    left_out = found["method_left_out"]
    errors = {name: round(left_out[name], 4) for name in _ERRORS}
    return ForecastAccuracy.model_validate(
        {"metric": metric, "way": way, "benchmark": suite, "runs": left_out["runs"], **errors}
    )

"""The accuracy of forecasts, from the files that hold it run by run -> records of the catalog."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from peft_shop.catalog.runs import ForecastAccuracy

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["CLOSED_FORMS", "DRY_RUNS", "accuracies"]

CLOSED_FORMS: Final = "data/forecast_accuracy.json"
DRY_RUNS: Final = "data/forecast_dry_run.json"
_METRICS: Final = {
    "checkpoint_bytes": "checkpoint_size",
    "total_parameters": "total_parameters",
    "trainable_parameters": "trainable_parameters",
}
_ERRORS: Final = ("mean", "median", "maximum", "coverage")


def accuracies(
    closed_forms: Mapping[str, Any] | None, dry_runs: Mapping[str, Any] | None
) -> Iterable[ForecastAccuracy]:
    """Records of what the two files hold; a file that is absent adds none.

    Args:
        closed_forms: content of `CLOSED_FORMS`.
        dry_runs: content of `DRY_RUNS`.
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


def _estimate(metric: str, way: str, suite: str, found: Mapping[str, Any]) -> ForecastAccuracy:
    left_out = found["method_left_out"]
    errors = {name: round(left_out[name], 4) for name in _ERRORS}
    return ForecastAccuracy.model_validate(
        {"metric": metric, "way": way, "benchmark": suite, "runs": left_out["runs"], **errors}
    )

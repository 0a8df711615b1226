"""What users would otherwise reckon with, on the same runs."""

from __future__ import annotations

from statistics import mean, median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from peft_shop.curate.calibration.suites import Case

__all__ = ["naive_rules"]


def naive_rules(cases: Sequence[Case], ours: Mapping[str, float]) -> list[dict[str, Any]]:
    """Errors of rules of thumb on the runs of one suite that the constants are fitted to.

    `nearer` are the runs on which a rule comes closer than the forecast made without the run's
    method, whose errors are `ours` by run.

    - `constant`: the median peak of the other methods' runs on this very model;
    - `four_times_model`: four times the model in its dtype, the rule for full fine-tuning;
    - `weights_and_16`: weights and 16 bytes per trained parameter, activations forgotten;
    - `accelerate`: what `accelerate estimate-memory` says of training with Adam in bfloat16: the
      float32 size of the model, twice, whatever the adapter; compared with full fine-tuning.
    """
    adapters = [
        case
        for case in cases
        if case.config is not None and not case.excluded and not case.held_out
    ]
    full = [case for case in cases if case.config is None]
    size: Callable[[Case], int] = lambda case: case.structure.parameters * 2  # noqa: E731 - one place
    rules: list[tuple[str, Sequence[Case], Callable[[Case], float]]] = [
        ("constant", adapters, lambda case: _others(case, adapters)),
        ("four_times_model", adapters, lambda case: 4 * size(case)),
        (
            "weights_and_16",
            adapters,
            lambda case: size(case) + 16 * case.run.metrics["trainable_parameters"],
        ),
        ("four_times_model_full", full, lambda case: 4 * size(case)),
        ("accelerate_full", full, lambda case: 4 * size(case)),
    ]
    return [
        {"rule": name, **_errors(runs, rule), "nearer": _nearer(runs, rule, ours)}
        for name, runs, rule in rules
    ]


def _others(case: Case, cases: Sequence[Case]) -> float:
    return median(one.recorded for one in cases if one.run.method != case.run.method)


def _nearer(
    cases: Sequence[Case], rule: Callable[[Case], float], ours: Mapping[str, float]
) -> list[str]:
    return sorted(
        case.run.experiment
        for case in cases
        if case.run.id in ours and abs(rule(case) / case.recorded - 1) < abs(ours[case.run.id])
    )


def _errors(cases: Sequence[Case], rule: Callable[[Case], float]) -> dict[str, Any]:
    errors = [abs(rule(case) / case.recorded - 1) for case in cases]
    if not errors:
        return {"runs": 0, "mean": None, "median": None, "maximum": None}
    return {
        "runs": len(errors),
        "mean": round(mean(errors), 4),
        "median": round(median(errors), 4),
        "maximum": round(max(errors), 4),
    }

"""Both ways of forecasting against measured steps with gradient checkpointing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("transformers")

from peft_shop.curate.calibration.measured import (
    errors_of,
    read_steps,
    summary,
    target_of,
)
from peft_shop.forecast.dry_run.forecasting import dry_run
from peft_shop.forecast.intervals import MEASURED_STEPS
from peft_shop.forecast.quick.closed_forms import closed_form

if TYPE_CHECKING:
    from peft_shop.curate.calibration.measured import MeasuredStep
    from peft_shop.forecast.records import Interval
    from peft_shop.model.inspection import Target

DATA = Path(__file__).resolve().parents[2] / "data"


@pytest.fixture(scope="module")
def targets() -> dict[str, Target]:
    return {}


def test_the_closed_form_is_near_measured_steps(targets: dict[str, Target]) -> None:
    def quick(step: MeasuredStep) -> Interval:
        return closed_form(
            target_of(step, targets).structure, step.config, step.settings
        ).peak_memory

    steps = read_steps(DATA)
    assert len(steps) == MEASURED_STEPS
    rows = errors_of(steps, quick)
    every = summary(rows)
    assert every["mean"] <= 0.045
    assert abs(every["bias"]) <= 0.015
    assert every["coverage"] >= 0.85
    sdpa = summary([row for row in rows if row["attention"] == "sdpa"])
    assert sdpa["mean"] <= 0.04
    assert sdpa["above"] == 0
    stored = json.loads((DATA / "forecast_measured.json").read_text(encoding="utf-8"))
    assert stored["closed_form"]["rows"] == rows


def test_the_stored_dry_runs_are_nearer_than_the_closed_form() -> None:
    stored = json.loads((DATA / "forecast_measured.json").read_text(encoding="utf-8"))
    assert stored["dry_run"]["all"]["mean"] <= 0.03
    assert stored["dry_run"]["all"]["mean"] < stored["closed_form"]["all"]["mean"]
    assert abs(stored["dry_run"]["all"]["bias"]) <= 0.015
    assert stored["dry_run"]["sdpa"]["above"] == 0


@pytest.mark.slow
def test_dry_runs_are_near_measured_steps(targets: dict[str, Target]) -> None:
    def traced(step: MeasuredStep) -> Interval:
        return dry_run(target_of(step, targets), step.config, step.settings).peak_memory

    # every model, both kernels and both precisions at least once
    rows = errors_of(read_steps(DATA)[::3], traced)
    assert {(row["attention"], row["quantization"]) for row in rows} == {
        (kernel, base) for kernel in ("sdpa", "eager") for base in (None, "bnb_4bit")
    }
    assert summary(rows)["mean"] <= 0.03
    assert all(row["inside"] for row in rows)

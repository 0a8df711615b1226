"""Both ways of forecasting against measured steps with gradient checkpointing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("transformers")

from peft_shop.curate.calibration.measured import (
    ends_of,
    errors_of,
    inside_without_own_model,
    read_steps,
    summary,
    target_of,
)
from peft_shop.forecast.dry_run.forecasting import dry_run
from peft_shop.forecast.intervals import MEASURED_STEPS, ON_MEASURED_CARD
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
    assert 0.85 <= every["coverage"] <= 0.95
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
    assert 0.85 <= stored["dry_run"]["all"]["coverage"] <= 0.95


def test_intervals_on_the_measured_card_hold_for_models_that_had_no_part_in_them() -> None:
    stored = json.loads((DATA / "forecast_measured.json").read_text(encoding="utf-8"))
    for way, ends in ON_MEASURED_CARD.items():
        rows = stored[way]["rows"]
        assert ends_of(rows) == pytest.approx(ends, abs=1e-4)
        assert stored[way]["ends"] == [round(end, 5) for end in ends_of(rows)]
        assert inside_without_own_model(rows) == stored[way]["inside_without_own_model"]
        assert 0.85 <= inside_without_own_model(rows) / len(rows) <= 0.95
        # with less confidence they are narrower, and hold less
        assert ends[0] < ends_of(rows, 0.5)[0] < ends_of(rows, 0.5)[1] < ends[1]


def test_other_cards_get_wider_intervals_than_the_measured_one(targets: dict[str, Target]) -> None:
    step = read_steps(DATA)[1]
    structure = target_of(step, targets).structure
    elsewhere = step.settings.model_copy(update={"accelerator": "NVIDIA A100"})
    here, there = (
        closed_form(structure, step.config, settings).peak_memory
        for settings in (step.settings, elsewhere)
    )
    assert there.high - there.low > here.high - here.low
    assert "on this card" in here.basis
    assert "another card" in there.basis


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
    assert summary(rows)["coverage"] >= 0.85

"""The accuracy of forecasts in the catalog is that of the files that hold it run by run."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import mean, median

import pytest

from peft_shop.catalog.store import load
from peft_shop.curate.publish.accuracies import accuracies

DATA = Path(__file__).parents[2] / "data"


def content(name: str) -> dict[str, object]:
    found: dict[str, object] = json.loads((DATA / name).read_text(encoding="utf-8"))
    return found


def test_the_catalog_holds_what_the_files_say() -> None:
    names = ("forecast_accuracy.json", "forecast_dry_run.json", "forecast_measured.json")
    assert load().forecasts == tuple(accuracies(*map(content, names)))


@pytest.mark.parametrize("one", load().forecasts, ids=lambda one: f"{one.way}-{one.metric}")
def test_counts_and_shares_are_possible(one: object) -> None:
    known = {metric.id for metric in load().metrics}
    assert one.metric in known  # type: ignore[attr-defined]  # parametrised over records
    assert one.runs > 0  # type: ignore[attr-defined]  # as above
    exact = one.exact  # type: ignore[attr-defined]  # as above
    assert exact is None or 0 < exact <= one.runs  # type: ignore[attr-defined]  # as above


def test_figures_follow_from_the_runs() -> None:
    runs = json.loads((DATA / "forecast_dry_run.json").read_text())["suites"]["metamathqa"]
    kept = [
        abs(run["error"])
        for run in runs["memory"]["runs"]
        if not run["excluded"] and not run["held_out"]
    ]
    (found,) = [
        one
        for one in load().forecasts
        if (one.way, one.metric, one.benchmark) == ("dry_run", "peak_memory", "metamathqa")
    ]
    assert found.runs == len(kept)
    assert found.mean == pytest.approx(mean(kept), abs=1e-4)
    assert found.median == pytest.approx(median(kept), abs=1e-4)


def test_the_catalog_states_how_near_measured_steps_are() -> None:
    stated = {one.way: one for one in load().forecasts if one.steps_on is not None}
    for way, most in (("closed_form", 0.06), ("dry_run", 0.03)):
        rows = content("forecast_measured.json")[way]["rows"]  # type: ignore[index] # as written
        errors = [row["error"] for row in rows]
        assert stated[way].runs == len(errors) == 40
        assert stated[way].mean == pytest.approx(mean(map(abs, errors)), abs=1e-4)
        assert stated[way].bias == pytest.approx(mean(errors), abs=1e-4)
        assert stated[way].mean < most
        assert abs(mean(errors)) < 0.015


def test_absent_files_add_nothing() -> None:
    assert not tuple(accuracies(None, None))

"""A trial is a catalog like any other: its runs, its noise, and nothing of its texts."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from peft_shop import recommend
from peft_shop.catalog.export import dump
from peft_shop.catalog.store import parse
from peft_shop.trial.evidence import catalog_of, residual, without_paths

if TYPE_CHECKING:
    from types import SimpleNamespace

    from peft_shop.trial.records import Job

FIGURES = st.floats(-100, 100)


@given(st.integers(2, 6), st.integers(2, 6), st.data())
def test_the_noise_is_that_of_a_least_squares_fit(
    rows: int, columns: int, data: st.DataObject
) -> None:
    figures = [
        data.draw(st.lists(FIGURES, min_size=columns, max_size=columns)) for _ in range(rows)
    ]
    design = np.zeros((rows * columns, rows + columns))
    for row in range(rows):
        for column in range(columns):
            design[row * columns + column, row] = 1
            design[row * columns + column, rows + column] = 1
    values = np.array(figures).ravel()
    solution, _, rank, _ = np.linalg.lstsq(design, values, rcond=None)
    rest = values - design @ solution
    sd, degrees = residual(figures)
    assert degrees == rows * columns - rank
    assert sd == pytest.approx(np.sqrt(rest @ rest / degrees), abs=1e-6)


@pytest.mark.parametrize("figures", [[], [[1.0, 2.0]], [[1.0], [2.0]]])
def test_without_degrees_there_is_no_noise(figures: list[list[float]]) -> None:
    assert residual(figures) is None


def losses(job: Job) -> float:
    """One best candidate, one best rate, and a little chance."""
    if job.stage == "base":
        return 6.0
    chance = random.Random(f"{job.contestant}{job.seed}").gauss(0, 0.01)
    method = {"lora/a": 2.0, "miss/b": 2.5, "vera/c": 3.0}[job.contestant]
    return method + (0.3 if job.learning_rate != 0.0003 else 0) + chance


def test_the_catalog_is_whole_and_does_not_depend_on_the_order(made: SimpleNamespace) -> None:
    protocol = made.protocol()
    results = made.carried_out(protocol, losses)
    catalog = catalog_of(protocol, results)
    assert parse(dump(catalog)) == catalog
    shuffled = list(results.items())
    random.Random(0).shuffle(shuffled)
    assert dump(catalog_of(protocol, dict(shuffled))) == dump(catalog)
    own = catalog.runs_by_benchmark["trial_made"]
    assert len(own) == 3 * 3 + 3 * 3
    assert {run.experiment for run in own if run.provenance.seed} == {"lora/a", "miss/b", "vera/c"}
    noise = next(each for each in catalog.noise if each.benchmark == "trial_made")
    assert (noise.metric, noise.degrees) == ("test_loss", 4)
    assert 0.003 < noise.sd < 0.03
    assert catalog.benchmarks[0].floor == 6.0


def test_an_answer_from_a_trial_is_about_the_trial(made: SimpleNamespace) -> None:
    protocol = made.protocol()
    answer = recommend(
        catalog=catalog_of(protocol, made.carried_out(protocol, losses)), peft_version="any"
    )
    assert answer.benchmark.id == "trial_made"
    assert answer.query.objectives == ("test_loss", "forgetting")
    assert answer.best.method == "lora"


def test_what_is_missing_is_told(made: SimpleNamespace) -> None:
    protocol = made.protocol()
    results = made.carried_out(
        protocol, lambda job: None if job.contestant == "vera/c" else losses(job)
    )
    told = " ".join(catalog_of(protocol, results).benchmarks[0].caveats)
    assert "diverged: runs of vera/c" in told
    assert "not complete" not in told
    part = dict(list(results.items())[:5])
    assert "not complete" in " ".join(catalog_of(protocol, part).benchmarks[0].caveats)


def test_what_is_given_away_has_no_paths(made: SimpleNamespace) -> None:
    protocol = made.protocol()
    catalog = catalog_of(protocol, made.carried_out(protocol, losses))
    given_away = without_paths(catalog)
    own = [run for run in given_away.runs if run.benchmark == "trial_made"]
    assert own
    for run in own:
        assert "/" not in run.recipe.training.model_id
        assert "/" not in run.recipe.training.options["train_file"]
    assert "/" not in given_away.benchmarks[0].model_id

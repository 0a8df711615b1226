"""A proposal fits, gives up no more than it must, and in the order that was promised."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peft_shop.trial import costing
from peft_shop.trial.asking import read_asked, write_asked
from peft_shop.trial.costing import RunTime, calibration_of, estimate, patience, run_time
from peft_shop.trial.proposing import Proposal, planned, proposed
from peft_shop.trial.trial import Trial

if TYPE_CHECKING:
    from pathlib import Path
    from types import SimpleNamespace

    from peft_shop.trial.records import Protocol

ORDER = ("rates", "seeds", "steps", "candidates")
LEAST = {"rates": 2, "seeds": 2, "steps": 50, "candidates": 2}


def asking(
    made: SimpleNamespace, *, rates: int = 5, seeds: int = 4, steps: int = 1000, many: int = 6
) -> Protocol:
    names = [f"lora/{number}" for number in range(many)]
    grid = [0.0001 * 3**power for power in range(rates)]
    protocol: Protocol = made.protocol(names, rates=grid, seeds=seeds)
    asked = protocol.asked.model_copy(update={"steps": steps})
    return protocol.model_copy(update={"asked": asked})


def took(size: Proposal, run: RunTime) -> float:
    runs = 1 + size.candidates * (size.rates + size.seeds)
    return runs * (run.overhead + size.steps * run.high)


@given(
    st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 5000), st.integers(1, 12)),
    st.floats(1, 10**6),
    st.floats(0, 100),
)
def test_a_proposal_fits_or_is_the_least(
    made: SimpleNamespace, sizes: tuple[int, int, int, int], limit: float, overhead: float
) -> None:
    rates, seeds, steps, many = sizes
    protocol = asking(made, rates=rates, seeds=seeds, steps=steps, many=many)
    run = RunTime(low=0.1, high=0.2, overhead=overhead, because="made")
    size = proposed(protocol, run, limit)
    asked = {"rates": rates, "seeds": seeds, "steps": steps, "candidates": many}
    least = {name: min(LEAST[name], asked[name]) for name in ORDER}
    assert size.seconds == took(size, run)
    assert size.fits == (took(size, run) <= limit)
    assert set(size.changed) == {name for name in ORDER if getattr(size, name) < asked[name]}
    for name in ORDER:
        assert least[name] <= getattr(size, name) <= asked[name]
    # whatever comes before the last change in the order was given up as far as it goes
    for name in ORDER[: max((ORDER.index(each) for each in size.changed), default=0)]:
        assert getattr(size, name) == least[name]
    if not size.fits:
        assert all(getattr(size, name) == least[name] for name in ORDER)
    elif size.changed:
        # a little more of what was given up last would not fit
        last = [name for name in ORDER if name in size.changed][-1]
        step = 1 if last != "steps" else max(1, size.steps // 10)
        more = size.model_copy(update={last: getattr(size, last) + step})
        assert took(more, run) > limit


def test_a_plan_says_whether_it_fits(made: SimpleNamespace) -> None:
    protocol = asking(made)
    run = RunTime(low=0.1, high=0.2, overhead=1.0, because="made")
    left = costing.Estimate(runs=55, low=100.0, high=200.0, because="made")
    assert planned(protocol, left, run, None).fits is None
    assert planned(protocol, left, run, 150.0).fits is None
    assert planned(protocol, left, run, 200.0).fits is True
    tight = planned(protocol, left, run, 99.0)
    assert tight.fits is False
    assert tight.proposal is not None
    assert f"it would with {tight.proposal.text}" in tight.advice("99s")
    least = asking(made, rates=2, seeds=2, steps=50, many=2)
    assert "less would compare nothing" in planned(least, left, run, 9.0).advice("9s")
    # what came later than the question is none of its numbers
    assert planned(least, left, run, 99.0).advice("99s") == "this does not fit into 99s"
    assert planned(protocol, left, run, 150.0).advice("150s") == "this may or may not fit into 150s"
    unknown = estimate(protocol, {}, None)
    assert "nobody can tell" in planned(protocol, unknown, None, 1.0).advice("1s")
    assert planned(protocol, unknown, None, 1.0).fits is None


def test_a_calibration_holds_for_other_rates_seeds_steps_and_candidates(
    made: SimpleNamespace, tmp_path: Path
) -> None:
    protocol = asking(made)
    calibration = costing.Calibration(
        conditions=costing._conditions(protocol),
        contestant="lora/0",
        step_seconds=0.5,
        overhead_seconds=3.0,
    )
    (tmp_path / costing.CALIBRATION).write_text(calibration.model_dump_json(), encoding="utf-8")
    smaller = asking(made, rates=2, seeds=2, steps=50, many=2)
    assert calibration_of(tmp_path, smaller) == calibration
    other = protocol.model_copy(update={"device": "NVIDIA A100"})
    assert calibration_of(tmp_path, other) is None
    left = estimate(smaller, {}, calibration)
    assert (left.runs, left.low) == (1 + 2 * 4, 9 * (3 + 50 * 0.5))
    assert run_time(smaller, {}, None) is None
    # a run hangs where it takes three times as long as the slowest should, and ten minutes
    assert patience(smaller, None) is None
    assert patience(smaller, calibration) == 600
    assert patience(protocol, calibration) == 3 * (3 + 1000 * 0.5)


@pytest.mark.slow
def test_a_calibration_freezes_nothing(tiny: Path, tmp_path: Path) -> None:
    trial = Trial.create(
        tmp_path / "t",
        model=tiny / "model",
        train=tiny / "train.jsonl",
        candidates=("lora", "miss"),
        max_length=32,
        steps=500,
        rates=3,
    )
    assert trial.plan(within="1h").fits is None
    trial.calibrate()
    assert not (trial.folder / "protocol.json").exists()
    plan = trial.plan(within="30s")
    assert plan.fits is False
    assert plan.proposal is not None
    assert plan.proposal.changed[0] == "rates"
    asked = read_asked(trial.folder).model_copy(update={"rates": 2, "seeds": 2, "steps": 50})
    write_asked(trial.folder, asked)
    smaller = Trial(trial.folder).plan(within="30s")
    assert smaller.estimate.high is not None
    assert plan.estimate.high is not None
    assert smaller.estimate.high < plan.estimate.high

"""The time that is left is that of the forecast, less what has passed, of each run and of all."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from peft_shop.trial.costing import Calibration, estimate, span
from peft_shop.trial.records import Job
from peft_shop.trial.remaining import Remaining
from peft_shop.trial.running import Running
from peft_shop.trial.stages import expected_jobs, next_jobs

if TYPE_CHECKING:
    from types import SimpleNamespace

    from peft_shop.trial.records import Protocol

CALIBRATION = Calibration(
    conditions="c", contestant="lora/a", step_seconds=0.5, overhead_seconds=100.0
)


def words(protocol: Protocol, *parts: Any, begun: list[Any], slots: int | None = 1) -> str:
    results = parts[0]
    told = Remaining(protocol, *parts, slots)
    return told.text(begun, expected_jobs(protocol, results))


def begun(protocol: Protocol, job: Job, monkeypatch: pytest.MonkeyPatch) -> Running:
    """A run of this machine that began 60 s ago."""
    monkeypatch.setattr(Running, "__init__", lambda *_: None)
    monkeypatch.setattr(Running, "progress", lambda _: "loading")
    monkeypatch.setattr(time, "monotonic", lambda: 1060.0)
    run = Running(None, protocol, job)  # type: ignore[arg-type]
    run.job, run.id, run.started = job, job.id(protocol), 1000.0
    return run


def test_where_nothing_was_measured_no_time_is_told(
    made: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    protocol = made.protocol()
    (base,) = next_jobs(protocol, {})
    run = begun(protocol, base, monkeypatch)
    assert words(protocol, {}, None, begun=[run]) == f"{run.id}: loading"


def test_a_calibration_tells_of_each_run_and_of_all(
    made: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    protocol = made.protocol()
    results = made.carried_out(protocol, lambda _: 2.0, most=1)
    job = next_jobs(protocol, results)[0]
    run = begun(protocol, job, monkeypatch)
    # 100 s and 500 steps of 0.5 s, 60 s of which are over
    assert Remaining(protocol, results, CALIBRATION, 1).of_run(job, 60) == (290, 290)
    whole = (expected_jobs(protocol, results) - 1) * 350 - 60
    run_text = f"{run.id}: loading ({span(290, 290)} left)"
    for slots in (1, 2):
        told = words(protocol, results, CALIBRATION, begun=[run], slots=slots)
        assert told == f"in all {span(whole / slots, whole / slots)} left; {run_text}"
    # who does not know how many run at the same time tells of each alone
    assert words(protocol, results, CALIBRATION, begun=[run], slots=None) == run_text
    monkeypatch.setattr(time, "monotonic", lambda: 2000.0)
    assert "(longer than forecast)" in words(protocol, results, CALIBRATION, begun=[run])
    # once it trains its own pace tells too: 400 steps in 800 s, and 100 that are left
    monkeypatch.setattr(Running, "progress", lambda _: "step 400 loss 2.0")
    monkeypatch.setattr(time, "monotonic", lambda: 1800.0)
    told = words(protocol, results, CALIBRATION, begun=[run], slots=None)
    assert told == f"{run.id}: step 400 loss 2.0 ({span(100 * 0.5, 100 * 2 + 100)} left)"


def test_finished_runs_tell_better_and_those_of_the_candidate_best(made: SimpleNamespace) -> None:
    protocol = made.protocol()
    results = made.carried_out(protocol, lambda _: 2.0, most=8)
    seconds = {"lora/a": 50.0, "miss/b": 1000.0}
    for name, result in results.items():
        took = seconds.get(result.job.contestant)
        if took is not None:
            measured = result.measured.model_copy(update={"step_seconds": took})
            results[name] = result.model_copy(update={"measured": measured})
    known = Remaining(protocol, results, None, 1)

    def left(contestant: str, elapsed: float = 0.0) -> tuple[float, float] | None:
        job = Job(stage="seeds", contestant=contestant, learning_rate=0.0001, seed=1)
        return known.of_run(job, elapsed)

    assert left("lora/a") == pytest.approx((50, 50))
    assert left("lora/a", 20) == pytest.approx((30, 30))
    assert left("miss/b") == pytest.approx((1000, 1000))
    assert left("vera/c") == pytest.approx((50, 1000))
    # with nothing begun, the whole is what a plan says of what is left
    plan = estimate(protocol, results, None)
    assert plan.low is not None
    assert plan.high is not None
    text = known.text([], expected_jobs(protocol, results))
    assert text == f"in all {span(plan.low, plan.high)} left"


def test_of_a_current_run_its_step_its_loss_and_its_time_are_told(
    made: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    protocol = made.protocol()
    results = made.carried_out(protocol, lambda _: 2.0, most=1)
    run = begun(protocol, next_jobs(protocol, results)[0], monkeypatch)
    known = Remaining(protocol, results, CALIBRATION, 1)
    steps = protocol.asked.steps
    assert known.step([run]) == (0, steps, f"{run.id}: loading ({span(290, 290)} left)")
    monkeypatch.setattr(Running, "progress", lambda _: "step 400 loss 2.0")
    monkeypatch.setattr(time, "monotonic", lambda: 1800.0)
    left = f"{span(100 * 0.5, 100 * 2 + 100)} left"
    assert known.step([run]) == (400, steps, f"{run.id}: loss 2.0 ({left})")
    assert known.step([run, run])[2].endswith("), and 1 more at the same time")
    # both parts together are what a log has
    count = expected_jobs(protocol, results)
    assert known.text([run], count) == (
        f"{known.whole([run], count)}; {run.id}: step 400 loss 2.0 ({left})"
    )
    assert known.whole([run], count).startswith("in all ")

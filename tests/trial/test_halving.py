"""Who stops at half the steps depends on the runs alone, and is told."""

from __future__ import annotations

import json
import math
import random
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peft_shop import recommend
from peft_shop.catalog.export import dump
from peft_shop.catalog.store import parse
from peft_shop.errors import InputError
from peft_shop.trial.evidence import catalog_of
from peft_shop.trial.halving import briefing_of, half_of, hopeless, may_begin
from peft_shop.trial.measure import HALF, HALVED, Meter
from peft_shop.trial.records import Job, Protocol
from peft_shop.trial.results import Measured, Result
from peft_shop.trial.single import do_one
from peft_shop.trial.stages import every_job, next_jobs, sweep_of
from peft_shop.trial.status import status_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from types import SimpleNamespace

NAMES = ("miss/b", "lora/a", "vera/c")
EXAMPLES = 40


def halving(made: SimpleNamespace, names: Sequence[str] = NAMES) -> Protocol:
    protocol: Protocol = made.protocol(names, seeds=1)
    asked = protocol.asked.model_copy(update={"halving": True, "steps": 10})
    return protocol.model_copy(update={"asked": asked})


def items(job: Job, mean: float) -> tuple[tuple[float, int], ...]:
    """Validation losses that scatter a little from example to example."""
    draw = random.Random(job.model_dump_json())
    return tuple((5 * (mean + draw.gauss(0, 0.1)), 5) for _ in range(EXAMPLES))


def mean_of(job: Job, best: Mapping[str, float], centre: float) -> float:
    if job.stage == "base":
        return 9.0
    return best[job.contestant] + 0.3 * math.log(job.learning_rate / centre) ** 2


def carried_out(
    made: SimpleNamespace,
    protocol: Protocol,
    best: Mapping[str, float],
    centre: float,
    *,
    done: Mapping[str, Result] | None = None,
    order: random.Random | None = None,
    most: int = 10_000,
) -> dict[str, Result]:
    """What engine and meter do with the briefing, without a training."""
    results = dict(done or {})
    while len(results) < most and (jobs := next_jobs(protocol, results)):
        job = jobs[0] if order is None else order.choice(jobs)
        briefing = briefing_of(protocol, results, job)
        loss = mean_of(job, best, centre)
        half = items(job, loss + 0.5)
        if briefing.bar is not None and hopeless(half, briefing.bar)[0]:
            result = Result(
                id=job.id(protocol),
                protocol=protocol.digest,
                job=job,
                outcome="halved",
                detail="halved: so and so",
                half_valid_loss=sum(loss for loss, _ in half) / (5 * EXAMPLES),
                created_at="2026-01-02T03:04:05Z",
            )
        else:
            measured: Measured = made.measured(loss)
            kept = half if briefing.half is not None else ()
            measured = measured.model_copy(update={"half_items": kept})
            result = made.result(protocol, job, measured)
        results[job.id(protocol)] = result
    return results


means = st.floats(2, 5)


@settings(max_examples=12)
@given(st.tuples(means, means, means), st.floats(1e-5, 1e-2), st.integers(0, 10_000))
def test_any_order_and_any_interruption_come_to_the_same(
    made: SimpleNamespace, best: tuple[float, float, float], centre: float, seed: int
) -> None:
    protocol = halving(made)
    losses = dict(zip(NAMES, best, strict=True))
    straight = carried_out(made, protocol, losses, centre)
    order = random.Random(seed)
    most = order.randrange(len(straight))
    begun = carried_out(made, protocol, losses, centre, order=order, most=most)
    resumed = carried_out(made, protocol, losses, centre, done=begun, order=order)
    assert resumed == straight
    assert {job.id(protocol) for job in every_job(protocol, straight)} == set(straight)
    # the yardstick is never stopped, and nobody as good as it is
    halved = {each.job.contestant for each in straight.values() if each.outcome == "halved"}
    assert "lora/a" not in halved
    # a candidate that is out had as many rates as any other one
    for contestant in protocol.contestants[1:]:
        sweep = sweep_of(protocol, contestant, straight)
        assert 3 <= len(sweep.tried) <= 5
        if sweep.chosen is None:
            assert contestant.name in halved


@settings(max_examples=15)
@given(st.permutations(NAMES), st.tuples(means, means, means))
def test_the_order_of_candidates_changes_nothing(
    made: SimpleNamespace, names: list[str], best: tuple[float, float, float]
) -> None:
    losses = dict(zip(NAMES, best, strict=True))

    def ended(names: Sequence[str]) -> dict[str, str]:
        results = carried_out(made, halving(made, names), losses, 0.0003)
        return {each.job.model_dump_json(): each.outcome for each in results.values()}

    assert ended(names) == ended(NAMES)


def test_what_is_out_stays_with_the_reason(made: SimpleNamespace) -> None:
    protocol = halving(made)
    losses = {"lora/a": 2.0, "miss/b": 2.01, "vera/c": 4.0}
    results = carried_out(made, protocol, losses, 0.0003)
    assert not any(each.job.stage == "seeds" for each in results.values() if "vera" in each.id)
    catalog = catalog_of(protocol, results)
    assert parse(dump(catalog)) == catalog
    told = " ".join(catalog.benchmarks[0].caveats)
    assert "halved at step 5" in told
    assert "vera/c (out)" in told
    assert "diverged" not in told
    status = status_of(protocol, results)
    assert status.complete
    assert not status.failed
    assert any("vera/c (out)" in note for note in status.notes)
    answer = recommend(catalog=catalog, peft_version="any")
    dropped = {each.name: each for each in answer.dropped}
    reasons = [dropped[name].failures for name in dropped if name.startswith("vera/c")]
    assert reasons
    assert all("halved: so and so" in failures[0].reason for failures in reasons)
    assert {each.method for each in (*answer.front, *answer.ties)} == {"lora", "miss"}


def test_without_halving_nothing_is_held_against_anything(made: SimpleNamespace) -> None:
    protocol = made.protocol()
    job = Job(stage="rates", contestant="miss/b", learning_rate=0.0001, seed=0)
    assert half_of(protocol) is None
    assert may_begin(protocol, {}, job)
    briefing = briefing_of(protocol, {}, job)
    assert (briefing.half, briefing.bar) == (None, None)


def test_an_array_job_waits_for_the_yardstick(made: SimpleNamespace, tmp_path: Path) -> None:
    protocol = halving(made)
    job = Job(stage="rates", contestant="miss/b", learning_rate=0.0001, seed=0)
    with pytest.raises(InputError, match="lora/a"):
        do_one(tmp_path, protocol, {}, job)


@pytest.mark.parametrize(
    ("shift", "stops"), [(-1.0, False), (0.0, False), (0.05, False), (1, True)]
)
def test_a_meter_stops_what_is_significantly_worse(
    tmp_path: Path, shift: float, stops: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = Job(stage="rates", contestant="miss/b", learning_rate=0.0001, seed=0)
    bar = items(job, 2.0)
    ours = items(job.model_copy(update={"seed": 1}), 2.0 + shift)
    briefing = {"half": 2, "bar": bar}
    order = {"steps": 4, "briefing": briefing, "test": "", "valid": "", "batch_size": 1}
    (tmp_path / "order.json").write_text(json.dumps(order), encoding="utf-8")
    meter = Meter(str(tmp_path / "order.json"), None, lambda _: None, "cpu", None)
    valid = sum(loss for loss, _ in ours) / (5 * EXAMPLES)

    def scored(*_: Any) -> tuple[float, list[tuple[float, int]]]:
        return valid, list(ours)

    monkeypatch.setattr(meter, "_score", scored)
    meter.begin()
    meter.end(1, 2.0, 5)
    meter.begin()
    if not stops:
        meter.end(2, 2.0, 5)
        return
    with pytest.raises(SystemExit) as ended:
        meter.end(2, 2.0, 5)
    assert ended.value.code == HALVED
    assert json.loads((tmp_path / HALF).read_text(encoding="utf-8")) == valid

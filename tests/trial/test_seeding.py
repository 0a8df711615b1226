"""Seeds go on where candidates are tied, whatever the order of runs and whoever interrupts."""

from __future__ import annotations

import random
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peft_shop.trial.seeding import ROUNDS
from peft_shop.trial.stages import every_job, expected_jobs, next_jobs, seed_notes
from peft_shop.trial.status import status_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import SimpleNamespace

    from peft_shop.trial.records import Job, Protocol
    from peft_shop.trial.results import Result

NAMES = ("lora/a", "miss/b", "vera/c")


def auto(made: SimpleNamespace) -> Protocol:
    protocol: Protocol = made.protocol(NAMES, seeds=3)
    asked = protocol.asked.model_copy(update={"seeds": "auto"})
    return protocol.model_copy(update={"asked": asked})


def losses(means: Mapping[str, float], sd: float, salt: int = 0) -> Callable[[Job], float]:
    """Seeds scatter around a candidate's mean; all candidates are best at one rate."""

    def loss(job: Job) -> float:
        if job.stage == "base":
            return 9.0
        chance = random.Random(f"{job.contestant} {job.seed} {salt}").gauss(0, sd)
        return means[job.contestant] + 0.5 * (job.learning_rate != 0.0003) + chance

    return loss


def seeds(results: Mapping[str, Result]) -> Counter[str]:
    return Counter(each.job.contestant for each in results.values() if each.job.stage == "seeds")


def test_what_is_clear_after_three_seeds_gets_no_more(made: SimpleNamespace) -> None:
    protocol = auto(made)
    clear = dict(zip(NAMES, (2.0, 3.0, 4.0), strict=True))
    results = made.carried_out(protocol, losses(clear, 0.001))
    assert seeds(results) == dict.fromkeys(NAMES, 3)
    assert seed_notes(protocol, results) == ()


def test_those_that_stay_tied_go_on_until_a_round_changes_nothing(made: SimpleNamespace) -> None:
    protocol = auto(made)
    tied = dict(zip(NAMES, (2.0, 2.0, 4.0), strict=True))
    results = made.carried_out(protocol, losses(tied, 0.01))
    assert seeds(results) == {"lora/a": ROUNDS[1], "miss/b": ROUNDS[1], "vera/c": 3}
    (note,) = seed_notes(protocol, results)
    assert "lora/a (5), miss/b (5)" in note
    assert note in status_of(protocol, results).notes


@pytest.mark.parametrize("means", [(2.0, 2.0, 4.0), (2.0, 3.0, 4.0), (2.0, 2.004, 2.01)])
def test_a_score_decides_as_a_loss_does(
    made: SimpleNamespace, means: tuple[float, float, float]
) -> None:
    protocol = auto(made)
    loss = losses(dict(zip(NAMES, means, strict=True)), 0.01)
    scored: dict[str, Result] = {}
    while jobs := next_jobs(protocol, scored):
        measured = made.measured(loss(jobs[0]))
        items = (-measured.test_loss,) * len(measured.test_items)
        turned = {"score": -measured.test_loss, "score_items": items, "test_loss": 7.0}
        measured = measured.model_copy(update=turned)
        scored[jobs[0].id(protocol)] = made.result(protocol, jobs[0], measured)
    assert seeds(scored) == seeds(made.carried_out(protocol, loss))


@settings(max_examples=12)
@given(
    st.lists(st.floats(2, 2.05), min_size=3, max_size=3),
    st.integers(0, 10_000),
    st.booleans(),
)
def test_any_order_and_any_interruption_come_to_the_same(
    made: SimpleNamespace, means: list[float], seed: int, fails: bool
) -> None:
    protocol = auto(made)
    usual = losses(dict(zip(NAMES, means, strict=True)), 0.02, seed)

    def loss(job: Job) -> float | None:
        lost = fails and job.stage == "seeds" and (job.contestant, job.seed) == (NAMES[0], 2)
        return None if lost else usual(job)

    straight = made.carried_out(protocol, loss)
    order = random.Random(seed)
    begun = made.carried_out(protocol, loss, order=order, most=order.randrange(len(straight)))
    resumed = made.carried_out(protocol, loss, begun, order=order)
    assert resumed == straight
    assert set(seeds(straight).values()) <= set(ROUNDS)
    assert len(straight) == expected_jobs(protocol, straight)
    assert {job.id(protocol) for job in every_job(protocol, straight)} == set(straight)
    assert next_jobs(protocol, straight) == []


@pytest.mark.parametrize("most", range(1, 30, 4))
def test_numbers_of_runs_keep_their_meaning(made: SimpleNamespace, most: int) -> None:
    protocol = auto(made)
    tied = losses(dict.fromkeys(NAMES, 2.0), 0.01)
    part = made.carried_out(protocol, tied, most=most)
    whole = made.carried_out(protocol, tied)
    known = [job for job in every_job(protocol, part) if job.stage == "seeds"]
    assert (
        known == [job for job in every_job(protocol, whole) if job.stage == "seeds"][: len(known)]
    )

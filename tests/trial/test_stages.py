"""What a trial does next is a function of what is on file alone."""

from __future__ import annotations

import math
import random
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peft_shop.trial.records import Job
from peft_shop.trial.stages import SPACING, every_job, expected_jobs, next_jobs, sweep_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import SimpleNamespace


def bowl(best: float, *, jitter: float = 0.0) -> Callable[[Job], float]:
    """Losses that are least at a rate, with a seed's own part."""

    def loss(job: Job) -> float:
        if job.stage == "base":
            return 9.0
        return 1 + math.log(job.learning_rate / best) ** 2 + jitter * job.seed

    return loss


@settings(max_examples=30)
@given(
    st.floats(1e-6, 1e-1), st.integers(0, 10_000), st.integers(1, 4), st.sampled_from([1, 2, 3, 5])
)
def test_any_order_and_any_interruption_come_to_the_same(
    made: SimpleNamespace, best: float, seed: int, seeds: int, rates: int
) -> None:
    grid = [0.0001 * SPACING**power for power in range(rates)]
    protocol = made.protocol(rates=grid, seeds=seeds)
    straight = made.carried_out(protocol, bowl(best))
    order = random.Random(seed)
    begun = made.carried_out(protocol, bowl(best), order=order, most=order.randrange(len(straight)))
    resumed = made.carried_out(protocol, bowl(best), begun, order=order)
    assert resumed == straight
    assert len(straight) == expected_jobs(protocol, straight)
    assert {job.id(protocol) for job in every_job(protocol, straight)} == set(straight)


@settings(max_examples=30)
@given(st.floats(1e-6, 1e-1), st.permutations(["lora/a", "miss/b", "vera/c"]))
def test_the_order_of_candidates_changes_nothing(
    made: SimpleNamespace, best: float, names: list[str]
) -> None:
    def jobs(names: list[str]) -> Counter[tuple[str, str, float, int]]:
        protocol = made.protocol(names)
        return Counter(
            (job.stage, job.contestant, job.learning_rate, job.seed)
            for job in every_job(protocol, made.carried_out(protocol, bowl(best)))
        )

    assert jobs(names) == jobs(sorted(names))


@settings(max_examples=30)
@given(st.floats(1e-7, 1))
def test_every_candidate_has_the_same_allowance_beyond_its_edge(
    made: SimpleNamespace, best: float
) -> None:
    protocol = made.protocol()
    results = made.carried_out(protocol, bowl(best))
    for contestant in protocol.contestants[1:]:
        sweep = sweep_of(protocol, contestant, results)
        assert sweep.extended <= 2
        assert len(sweep.tried) == 3 + sweep.extended
        inside = sweep.tried[0] < sweep.chosen < sweep.tried[-1]
        assert sweep.at_edge is (not inside)
        # no rate that was tried is better
        assert sweep.chosen == min(sweep.tried, key=lambda rate: math.log(rate / best) ** 2)


def test_seeds_are_fresh(made: SimpleNamespace) -> None:
    protocol = made.protocol(seeds=4)
    results = made.carried_out(protocol, bowl(0.0003))
    seeds = {each.job.seed for each in results.values() if each.job.stage == "seeds"}
    assert seeds == {1, 2, 3, 4}
    assert {each.job.seed for each in results.values() if each.job.stage == "rates"} == {0}


def test_a_smaller_rate_wins_within_one_standard_error(made: SimpleNamespace) -> None:
    protocol = made.protocol(["lora/a"])
    contestant = protocol.contestants[1]
    base = Job(stage="base", contestant="base", learning_rate=0, seed=0)

    def chosen(gaps: list[float]) -> float | None:
        results = {base.id(protocol): made.result(protocol, base, made.measured(9))}
        for rate, gap in zip(contestant.rates, (1.0, None, 0.5), strict=True):
            job = Job(stage="rates", contestant="lora/a", learning_rate=rate, seed=0)
            measured = made.measured(2 + (gap or 0), items=len(gaps))
            if gap is None:  # the best one
                measured = made.measured(2, items=len(gaps))
            elif gap == 1.0:  # the smallest rate: worse by these amounts, example by example
                mean = sum(gaps) / len(gaps)
                measured = measured.model_copy(
                    update={
                        "valid_loss": 2 + mean,
                        "valid_items": tuple((5 * (2 + each), 5) for each in gaps),
                    }
                )
            results[job.id(protocol)] = made.result(protocol, job, measured)
        return sweep_of(protocol, contestant, results).chosen

    # mean 0.1 with standard error sqrt(0.04 / 3) = 0.115, then 0.1 with 0
    assert chosen([0.3, -0.1, 0.3, -0.1]) is None, "the smallest rate is at the edge: go on"
    assert chosen([0.1] * 4) == contestant.rates[1]


@pytest.mark.parametrize("lost", [{"lora/a"}, {"lora/a", "miss/b", "vera/c"}])
def test_a_candidate_that_never_trains_gets_no_seeds(made: SimpleNamespace, lost: set[str]) -> None:
    protocol = made.protocol()
    results = made.carried_out(
        protocol, lambda job: None if job.contestant in lost else bowl(0.0003)(job)
    )
    assert next_jobs(protocol, results) == []
    seeds = Counter(each.job.contestant for each in results.values() if each.job.stage == "seeds")
    assert seeds == {name: 3 for name in ("lora/a", "miss/b", "vera/c") if name not in lost}


def test_nothing_is_done_where_the_base_cannot_be_scored(made: SimpleNamespace) -> None:
    protocol = made.protocol()
    results = made.carried_out(protocol, lambda _: None)
    assert len(results) == 1
    assert next_jobs(protocol, results) == []

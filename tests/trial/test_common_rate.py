"""One learning rate for all can give another order than each one's own: the answer says so."""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peft_shop import recommend
from peft_shop.trial.evidence import catalog_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import SimpleNamespace

    from peft_shop.catalog.catalog import Catalog
    from peft_shop.trial.records import Job

SAYS = "one learning rate m"


def bowls(
    rates: dict[str, float], floors: dict[str, float], *, sd: float = 0.001
) -> Callable[[Job], float]:
    """Losses that are least at a rate of each candidate's own."""

    def loss(job: Job) -> float:
        if job.stage == "base":
            return 9.0
        away = math.log(job.learning_rate / rates[job.contestant])
        chance = random.Random(f"{job.contestant}{job.learning_rate}{job.seed}").gauss(0, sd)
        return floors[job.contestant] + away * away / 4 + chance

    return loss


def caveats(made: SimpleNamespace, loss: Callable[[Job], float], seeds: int = 3) -> list[str]:
    return [text for text in catalog(made, loss, seeds).benchmarks[0].caveats if SAYS in text]


def catalog(made: SimpleNamespace, loss: Callable[[Job], float], seeds: int = 3) -> Catalog:
    protocol = made.protocol(seeds=seeds)
    return catalog_of(protocol, made.carried_out(protocol, loss))


TRAP = (
    {"lora/a": 0.003, "miss/b": 0.0003, "vera/c": 0.003},
    {"lora/a": 2.0, "miss/b": 2.1, "vera/c": 4.0},
)
"""At 0.0003 the second one is far ahead, at rates of their own the first one is."""


def test_a_swap_names_the_pair_the_rate_and_both_orders(made: SimpleNamespace) -> None:
    (text,) = caveats(made, bowls(*TRAP))
    assert text.startswith("one learning rate misleads: at ")
    assert "miss/b leads lora/a" in text
    assert "each tuned it trails (2.1" in text
    rate = float(text.partition(" at ")[2].split()[0])
    behind = 2.0 + math.log(rate / 0.003) ** 2 / 4
    ahead = 2.1 + math.log(rate / 0.0003) ** 2 / 4
    shown = text.partition("(test loss ")[2].partition(")")[0]
    assert [float(each) for each in shown.split(" to ")] == pytest.approx([ahead, behind], abs=0.01)


def test_the_answer_says_it(made: SimpleNamespace) -> None:
    answer = recommend(catalog=catalog(made, bowls(*TRAP)), peft_version="any")
    assert SAYS in " ".join(str(answer).split())


@settings(max_examples=8)
@given(st.floats(1e-5, 1e-2), st.floats(0.2, 3))
def test_where_the_order_is_the_same_everywhere_nothing_is_said(
    made: SimpleNamespace, rate: float, gap: float
) -> None:
    floors = {"lora/a": 2.0, "miss/b": 2.0 + gap, "vera/c": 2.0 + 2 * gap}
    same = dict.fromkeys(floors, rate), floors
    assert caveats(made, bowls(*same)) == []


def test_a_swap_within_noise_is_not_told(made: SimpleNamespace) -> None:
    assert caveats(made, bowls(*TRAP, sd=1.0)) == []


def test_without_an_estimate_of_the_noise_the_doubt_is_told(made: SimpleNamespace) -> None:
    (text,) = caveats(made, bowls(*TRAP), seeds=1)
    assert text.startswith("one learning rate may mislead (too few seeds to be sure): at ")

"""What is called 95 % sure is right in 95 % of simulated cases; few by default, many when slow."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest

from peft_shop.ask.noise import front_probabilities
from peft_shop.ask.spread import factor, lead_spread
from peft_shop.ask.ties import tie_set
from peft_shop.pareto import front

slow = pytest.mark.slow


def sizes(small: int, large: int) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("rounds", [small, pytest.param(large, marks=slow)])


def allowed(share: float, rounds: int) -> float:
    """Three standard deviations of a simulated share."""
    return 3 * math.sqrt(share * (1 - share) / rounds)


def estimated(rng: np.random.Generator, degrees: float) -> float:
    """Standard deviation that so many degrees of freedom give where the true one is 1."""
    return math.sqrt(rng.chisquare(degrees) / degrees)


# --- pairs ---


@pytest.mark.parametrize("degrees", [3, 5, 11, 20, 40])
@sizes(1000, 20_000)
def test_one_of_two_equal_recipes_is_dropped_in_one_of_twenty(degrees: int, rounds: int) -> None:
    rng = np.random.default_rng(degrees)
    dropped = 0
    for _ in range(rounds):
        sd = estimated(rng, degrees)
        rows = [(float(y),) for y in rng.standard_normal(2)]
        tied = tie_set(rows, [(sd,)] * 2, degrees=[(float(degrees),)] * 2)
        dropped += 0 not in tied
    assert abs(dropped / rounds - 0.05) < max(0.01, allowed(0.05, rounds))


# --- ties ---


@pytest.mark.parametrize("count", [4, 9, 40])
@pytest.mark.parametrize("degrees", [3, 11, 40])
@sizes(60, 2000)
def test_each_of_equal_recipes_is_among_the_ties(count: int, degrees: int, rounds: int) -> None:
    rng = np.random.default_rng(100 * count + degrees)
    kept = 0
    for _ in range(rounds):
        sd = estimated(rng, degrees)
        rows = [(float(y),) for y in rng.standard_normal(count)]
        kept += len(tie_set(rows, [(sd,)] * count, degrees=[(float(degrees),)] * count))
    share = kept / (rounds * count)
    # rows of one round are tied together, so a round counts for little more than one row
    assert share > 0.94 - (allowed(0.05, rounds) if rounds < 1000 else 0.0)
    assert share < 1


@sizes(150, 2000)
def test_the_mean_of_more_seeds_is_held_against_the_others_fairly(rounds: int) -> None:
    rng = np.random.default_rng(8)
    counts = [5, 1, 1, 3, 1, 2]
    kept = np.zeros(len(counts))
    for _ in range(rounds):
        sd = estimated(rng, 11)
        rows = [(float(rng.normal(0, 1 / math.sqrt(n))),) for n in counts]
        sds = [(sd / math.sqrt(n),) for n in counts]
        kept[tie_set(rows, sds, degrees=[(11.0,)] * len(counts))] += 1
    assert (kept / rounds > 0.94 - allowed(0.05, rounds)).all()


# --- P(front) ---


def calibration(
    rounds: int, sds: tuple[float, float], reruns: tuple[float, float], degrees: tuple[float, float]
) -> None:
    """Draws what may be true given what was measured: called 70 %, true in 70 % of the cases."""
    rng = np.random.default_rng(rounds)
    bins: dict[int, list[float]] = {}
    for _ in range(rounds):
        measured = rng.uniform(-1.5, 1.5, (6, 2))
        noise = np.array(
            [
                math.sqrt(
                    sd**2
                    - part**2
                    + (part**2 * (freedom / rng.chisquare(freedom)) if part else 0.0)
                )
                for sd, part, freedom in zip(sds, reruns, degrees, strict=True)
            ]
        )
        truth = measured + rng.standard_normal(measured.shape) * noise
        real = set(front([tuple(row) for row in truth.tolist()]))
        chances = front_probabilities(
            [tuple(row) for row in measured.tolist()],
            [sds] * 6,
            reruns=[reruns] * 6,
            degrees=degrees,
        )
        for place, chance in enumerate(chances):
            bins.setdefault(min(int(chance * 10), 9), []).append(chance - (place in real))
    assert len(bins) >= 9
    for gaps in bins.values():
        # the rows of a round depend on each other: twice the error of independent ones
        assert abs(sum(gaps)) < 2 * 3 * 0.5 * math.sqrt(len(gaps)) + 0.01 * len(gaps)


@sizes(150, 2500)
@pytest.mark.parametrize("degrees", [5, 11])
def test_chances_are_calibrated_in_bins(rounds: int, degrees: int) -> None:
    calibration(rounds, (0.0, 0.7), (0.0, 0.7), (math.inf, degrees))


@sizes(60, 2500)
def test_chances_are_calibrated_where_questions_are_chosen_too(rounds: int) -> None:
    calibration(rounds, (0.0, 0.8), (0.0, 0.4), (math.inf, 4))


@sizes(60, 1500)
def test_chances_of_two_noisy_objectives_are_calibrated(rounds: int) -> None:
    calibration(rounds, (0.5, 0.7), (0.5, 0.7), (7, 11))


# --- questions ---


def answered(
    rng: np.random.Generator, questions: int, skill: float, alike: float
) -> tuple[np.ndarray, np.ndarray]:
    """Whether two equally able candidates answer each question; 1 share their chances wholly."""
    difficulty = rng.standard_normal(questions)
    found = []
    for _ in range(2):
        own = rng.standard_normal(questions)
        latent = math.sqrt(alike) * difficulty + math.sqrt(1 - alike) * own
        found.append((latent < skill).astype(float))
    return found[0], found[1]


@pytest.mark.parametrize("alike", [0.0, 0.5, 0.9])
@sizes(600, 8000)
def test_other_questions_overturn_a_lead_that_counts_as_rarely_as_said(
    alike: float, rounds: int
) -> None:
    """Equal candidates on a sample of questions: the bound is never wrong too often.

    With the results of single questions the error is as stated, however alike they are.
    """
    rng = np.random.default_rng(int(10 * alike))
    questions, share = 400, 0.6
    skill = NormalDist().inv_cdf(share)
    bounded = paired = 0
    for _ in range(rounds):
        one, other = answered(rng, questions, skill, alike)
        lead = float(one.mean() - other.mean())
        sds = [math.sqrt(p * (1 - p) / questions) for p in (one.mean(), other.mean())]
        wide = lead_spread(*((sd, 0.0, math.inf) for sd in sds))
        known = float((one - other).std(ddof=1)) / math.sqrt(questions)
        narrow = lead_spread(*((sd, 0.0, math.inf) for sd in sds), known)
        bounded += lead > factor(0.95, wide.degrees) * wide.sd
        paired += lead > factor(0.95, narrow.degrees) * narrow.sd
    slack = allowed(0.05, rounds)
    assert bounded / rounds < 0.05 + slack
    # shares come in steps of one question, which moves the error by up to a tenth of itself
    assert abs(paired / rounds - 0.05) < 0.01 + slack
    if alike == 0:
        assert abs(bounded / rounds - 0.05) < 0.01 + slack

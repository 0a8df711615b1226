"""What the seeds of a trial say of chance holds in simulated trials whose chance is known."""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING

import pytest

from peft_shop.ask.quantiles import chi_square_quantile
from peft_shop.ask.repeats import two_way
from peft_shop.trial.seeding import _tied

if TYPE_CHECKING:
    from types import SimpleNamespace

ROUNDS = 2000
SD = 0.02


@pytest.mark.parametrize(
    ("recipes", "seeds", "lost"), [(6, 3, 0), pytest.param(4, 5, 3, marks=pytest.mark.slow)]
)
def test_an_estimate_is_within_its_interval(recipes: int, seeds: int, lost: int) -> None:
    """Recipes and seeds have effects of their own, and some runs failed."""
    draw = random.Random(recipes)
    degrees = (recipes - 1) * (seeds - 1) - lost
    ends = [math.sqrt(degrees / chi_square_quantile(end, degrees)) for end in (0.975, 0.025)]
    inside = 0
    for _ in range(ROUNDS):
        of_recipe = [draw.gauss(5, 0.3) for _ in range(recipes)]
        of_seed = [draw.gauss(0, 0.1) for _ in range(seeds)]
        runs = [
            (recipe, seed, of_recipe[recipe] + of_seed[seed] + draw.gauss(0, SD))
            for recipe in range(recipes)
            for seed in range(seeds)
        ]
        fit = two_way(runs[lost:])
        assert fit is not None
        assert fit.degrees == degrees
        inside += fit.sd * ends[0] <= SD <= fit.sd * ends[1]
    assert abs(inside / ROUNDS - 0.95) <= 0.02


@pytest.mark.parametrize(("recipes", "seeds"), [(4, 3), (9, 3), (6, 5)])
@pytest.mark.parametrize("rounds", [300, pytest.param(4000, marks=pytest.mark.slow)])
def test_equal_recipes_go_on_to_more_seeds(
    made: SimpleNamespace, recipes: int, seeds: int, rounds: int
) -> None:
    """Each is among those that stay tied in at least 94 % of the trials."""
    draw = random.Random(recipes * seeds)
    kept = 0
    measured = made.measured(5.0, items=1)
    names = [f"r{number}" for number in range(recipes)]
    for _ in range(rounds):
        scores = {
            name: {
                seed: measured.model_copy(update={"test_loss": draw.gauss(5, SD)})
                for seed in range(1, seeds + 1)
            }
            for name in names
        }
        kept += len(_tied(scores, names))  # type: ignore[arg-type]
    # recipes of one round depend on each other, so a round counts for little more than one of them
    chance = 3 * math.sqrt(0.05 * 0.95 / rounds) if rounds < 1000 else 0.0
    assert 0.94 - chance <= kept / (rounds * recipes) < 1

"""How many seeds each candidate gets: a number, or more for those that stay tied.

A pure function of what is on file, in rounds: a round begins when all runs of the one before it
have an outcome, and looks at their seeds alone. So neither the order of runs nor an interruption
changes who gets more.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from peft_shop.ask.quantiles import dunnett_factor
from peft_shop.ask.repeats import two_way
from peft_shop.catalog.features import FULL_FINETUNING
from peft_shop.trial.records import Job
from peft_shop.trial.sampling import cost_items, cost_of, error_of_gap

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from peft_shop.trial.records import Protocol
    from peft_shop.trial.results import Measured, Result

__all__ = ["ROUNDS", "first_seeds", "round_of", "seeds_due"]

ROUNDS: Final = (3, 5, 8, 12)
"""Seeds after each round of `seeds = "auto"`; the last is the most that any candidate gets."""
_CONFIDENCE: Final = 0.95
_LEAST_DEGREES: Final = 3


def first_seeds(protocol: Protocol) -> int:
    """Seeds that every candidate gets at its chosen rate."""
    asked = protocol.asked.seeds
    return ROUNDS[0] if asked == "auto" else asked


def round_of(protocol: Protocol, seed: int) -> int:
    """In which round a seed is trained, from 0 on."""
    return bisect_left(ROUNDS, seed) if protocol.asked.seeds == "auto" else 0


def seeds_due(
    protocol: Protocol, results: Mapping[str, Result], chosen: Mapping[str, float], *, final: bool
) -> dict[str, int]:
    """Seeds that each candidate is to have, as far as can be told now [count].

    With `auto`, after each round only those that cannot be told from the best go on, until a round
    changes nothing, one is left, or the last round is over.

    Args:
        protocol: what is equal for all.
        results: by identifier of the run.
        chosen: rate of every candidate that has one.
        final: whether no other candidate will have one.
    """
    due = dict.fromkeys(chosen, first_seeds(protocol))
    if protocol.asked.seeds != "auto" or not final:
        return due
    standing = sorted(name for name in chosen if name != FULL_FINETUNING)
    everyone = standing
    tied_before: list[str] | None = None
    for seeds, more in pairwise(ROUNDS):
        jobs = [_job(chosen, name, seed) for name in standing for seed in range(1, seeds + 1)]
        if not all(job.id(protocol) in results for job in jobs):
            break
        scores = {
            name: _scores(protocol, results, chosen, name, min(seeds, due[name]))
            for name in everyone
        }
        tied = _tied(scores, standing)
        if len(tied) < 2 or tied == tied_before:
            break
        due |= dict.fromkeys(tied, more)
        standing = tied_before = tied
    return due


def _job(chosen: Mapping[str, float], name: str, seed: int) -> Job:
    return Job(stage="seeds", contestant=name, learning_rate=chosen[name], seed=seed)


def _scores(
    protocol: Protocol,
    results: Mapping[str, Result],
    chosen: Mapping[str, float],
    name: str,
    seeds: int,
) -> dict[int, Measured]:
    """What a candidate measured by seed, without runs that failed."""
    ended = {
        seed: results.get(_job(chosen, name, seed).id(protocol)) for seed in range(1, seeds + 1)
    }
    return {
        seed: result.measured
        for seed, result in ended.items()
        if result is not None and result.measured is not None
    }


def _tied(scores: Mapping[str, Mapping[int, Measured]], names: Collection[str]) -> list[str]:
    """Those of `names` whose mean test loss, or score, is not significantly worse than the best.

    The noise is that of all candidates' seeds in the two-way model, the bar Dunnett's factor; what
    the choice of test examples leaves open counts too. Without an estimate of noise all are tied.
    """
    means = {
        name: math.fsum(cost_of(each) for each in scores[name].values()) / len(scores[name])
        for name in names
        if scores[name]
    }
    fit = two_way(
        [
            (name, seed, cost_of(measured))
            for name, by_seed in scores.items()
            for seed, measured in by_seed.items()
        ]
    )
    if fit is None or fit.degrees < _LEAST_DEGREES or len(means) < 2:
        return sorted(means)
    factor = dunnett_factor(_CONFIDENCE, len(means) - 1, fit.degrees)
    best = min(means, key=lambda name: (means[name], name))
    return sorted(
        name
        for name in means
        if means[name] - means[best]
        <= factor
        * math.hypot(
            fit.sd * math.sqrt(1 / len(scores[name]) + 1 / len(scores[best])),
            error_of_gap(_mean_items(scores[name].values()), _mean_items(scores[best].values())),
        )
    )


def _mean_items(runs: Iterable[Measured]) -> list[tuple[float, int]]:
    """Mean over some runs of what every test example gave, and its weight."""
    columns = zip(*(cost_items(run) for run in runs), strict=True)
    return [
        (math.fsum(value for value, _ in column) / len(column), column[0][1]) for column in columns
    ]

"""Protocol and results -> what is to be done next: the base, the sweep of rates, the seeds.

A pure function of what is on file: a trial that was interrupted goes on where it was.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, get_args

from peft_shop.errors import UnknownNameError
from peft_shop.trial.halving import may_begin
from peft_shop.trial.records import BASE, Job, Stage
from peft_shop.trial.sampling import error_of_gap
from peft_shop.trial.seeding import first_seeds, round_of, seeds_due

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peft_shop.trial.records import Contestant, Protocol
    from peft_shop.trial.results import Result

__all__ = [
    "SPACING",
    "Sweep",
    "at_two_digits",
    "every_job",
    "every_rate_job",
    "expected_jobs",
    "next_jobs",
    "seed_notes",
    "stages_until",
    "sweep_of",
]

SPACING: Final = 3.0
"""Between neighbouring rates. At ten, most methods had their best rate at an edge of the grid."""
_FURTHER: Final = 2
"""Rates that every candidate may be given beyond the edge of its sweep."""


def at_two_digits(rate: float) -> float:
    """A rate as people write it."""
    return float(f"{rate:.2g}")


@dataclass(frozen=True, slots=True)
class Sweep:
    """What the rates of one candidate have shown.

    Attributes:
        tried: rates with an outcome, ascending.
        waiting: rates that are still to be tried.
        chosen: the rate for the seeds; `None` while rates are waiting, or where none trained.
        at_edge: whether the chosen rate is the outermost that was tried, all allowance used.
        extended: rates beyond the first ones [count].
    """

    tried: tuple[float, ...]
    waiting: tuple[float, ...]
    chosen: float | None
    at_edge: bool = False
    extended: int = 0


def next_jobs(protocol: Protocol, results: Mapping[str, Result]) -> list[Job]:
    """Jobs that can be done now, in order; none where the trial is complete.

    Args:
        protocol: what is equal for all.
        results: by identifier of the run.
    """
    base = Job(stage="base", contestant=BASE, learning_rate=0.0, seed=0)
    if base.id(protocol) not in results:
        return [base]
    if results[base.id(protocol)].outcome != "finished":
        return []
    sweeps = {each.name: sweep_of(protocol, each, results) for each in protocol.contestants[1:]}
    rates = [
        Job(stage="rates", contestant=name, learning_rate=rate, seed=0)
        for name, sweep in sweeps.items()
        for rate in sweep.waiting
    ]
    jobs = [job for job in rates if may_begin(protocol, results, job)]
    seeds = sorted(_seed_jobs(protocol, results, sweeps), key=lambda job: job.seed)
    return jobs + [job for job in seeds if job.id(protocol) not in results]


def stages_until(stage: str) -> tuple[Stage, ...]:
    """A stage and those before it.

    Raises:
        UnknownNameError: there is no such stage.
    """
    known: tuple[Stage, ...] = get_args(Stage)
    if stage not in known:
        raise UnknownNameError("stage", stage, known)
    return known[: known.index(stage) + 1]


def every_job(protocol: Protocol, results: Mapping[str, Result]) -> list[Job]:
    """Jobs that are known now, done or not, in a fixed order."""
    jobs = [Job(stage="base", contestant=BASE, learning_rate=0.0, seed=0)]
    sweeps = {each.name: sweep_of(protocol, each, results) for each in protocol.contestants[1:]}
    for contestant in protocol.contestants[1:]:
        # what was added later stands behind, so that no number changes its meaning
        jobs += [_job(contestant, rate) for rate in contestant.rates]
    for contestant in protocol.contestants[1:]:
        sweep = sweeps[contestant.name]
        added = sorted({*sweep.tried, *sweep.waiting} - set(contestant.rates))
        jobs += [_job(contestant, rate) for rate in added]
    seeds = _seed_jobs(protocol, results, sweeps)
    return jobs + sorted(seeds, key=lambda job: round_of(protocol, job.seed))


def seed_notes(protocol: Protocol, results: Mapping[str, Result]) -> tuple[str, ...]:
    """Who got more seeds than the rest, and why."""
    sweeps = {each.name: sweep_of(protocol, each, results) for each in protocol.contestants[1:]}
    more: dict[int, list[str]] = {}
    for job in _seed_jobs(protocol, results, sweeps):
        number = job.seed
        if number > first_seeds(protocol) and job.id(protocol) in results:
            more.setdefault(number, []).append(job.contestant)
    most = {name: seeds for seeds, names in sorted(more.items()) for name in names}
    if not most:
        return ()
    listed = ", ".join(f"{name} ({seeds})" for name, seeds in sorted(most.items()))
    first = first_seeds(protocol)
    return (f"seeds: {first} for all, more for those that could not be told apart: {listed}",)


def _seed_jobs(
    protocol: Protocol, results: Mapping[str, Result], sweeps: Mapping[str, Sweep]
) -> list[Job]:
    """Jobs of the seeds, done or not, candidate by candidate."""
    chosen = {name: sweep.chosen for name, sweep in sweeps.items() if sweep.chosen is not None}
    final = not any(sweep.waiting for sweep in sweeps.values())
    due = seeds_due(protocol, results, chosen, final=final)
    return [
        Job(stage="seeds", contestant=name, learning_rate=rate, seed=seed)
        for name, rate in chosen.items()
        for seed in range(1, due[name] + 1)
    ]


def every_rate_job(contestant: Contestant) -> list[Job]:
    """Jobs that the sweep of one candidate may come to, by rate."""
    return [_job(contestant, rate) for rate in _rates(contestant)]


def expected_jobs(protocol: Protocol, results: Mapping[str, Result]) -> int:
    """Runs of the whole trial, as far as can be told now [count]."""
    sweeps = {each.name: sweep_of(protocol, each, results) for each in protocol.contestants[1:]}
    rates = sum(len(sweep.tried) + len(sweep.waiting) for sweep in sweeps.values())
    undecided = sum(1 for sweep in sweeps.values() if sweep.waiting)
    seeds = undecided * first_seeds(protocol) + len(_seed_jobs(protocol, results, sweeps))
    return 1 + rates + seeds


def sweep_of(protocol: Protocol, contestant: Contestant, results: Mapping[str, Result]) -> Sweep:
    """Where the sweep of one candidate stands.

    The rate is chosen by validation loss; of those within one standard error of the best (of the
    mean difference by example) the smallest, since a higher rate forgets more. Where the chosen
    one is the outermost, the sweep goes on beyond it, at most `_FURTHER` rates in all. Where all
    rates were halved, none is chosen, but the best at half decides whether the sweep goes on.
    """
    found = {
        rate: result
        for rate in _rates(contestant)
        if (result := results.get(_job(contestant, rate).id(protocol))) is not None
    }
    rates = list(contestant.rates)
    extended = 0
    while all(rate in found for rate in rates):
        chosen = _choice(rates, found)
        hopeful = _best_half(rates, found) if chosen is None else chosen
        if hopeful is None:
            return Sweep(tuple(rates), (), None, extended=extended)
        beyond = _beyond(rates, hopeful)
        if beyond is None:
            return Sweep(tuple(rates), (), chosen, extended=extended)
        if extended == _FURTHER or len(contestant.rates) == 1:
            return Sweep(tuple(rates), (), chosen, chosen is not None, extended)
        rates = sorted([*rates, beyond])
        extended += 1
    waiting = tuple(rate for rate in rates if rate not in found)
    return Sweep(tuple(rate for rate in rates if rate in found), waiting, None, extended=extended)


def _job(contestant: Contestant, rate: float) -> Job:
    return Job(stage="rates", contestant=contestant.name, learning_rate=rate, seed=0)


def _rates(contestant: Contestant) -> list[float]:
    """Every rate that the sweep may come to."""
    rates = list(contestant.rates)
    low, high = rates[0], rates[-1]
    for _ in range(_FURTHER):
        low, high = at_two_digits(low / SPACING), at_two_digits(high * SPACING)
        rates += [low, high]
    return sorted(set(rates))


def _beyond(rates: Sequence[float], chosen: float) -> float | None:
    """The next rate on the side where `chosen` is the outermost; `None` where it is not."""
    if chosen == rates[-1]:
        return at_two_digits(chosen * SPACING)
    if chosen == rates[0]:
        return at_two_digits(chosen / SPACING)
    return None


def _best_half(rates: Sequence[float], found: Mapping[float, Result]) -> float | None:
    """The rate with the best validation loss at half the steps, of those that stopped there."""
    halved = {rate: loss for rate in rates if (loss := found[rate].half_valid_loss) is not None}
    return min(halved, key=lambda rate: (halved[rate], rate), default=None)


def _choice(rates: Sequence[float], found: Mapping[float, Result]) -> float | None:
    """The rate with the best validation loss, or the smallest that is as good."""
    trained = {rate: measured for rate in rates if (measured := found[rate].measured) is not None}
    if not trained:
        return None
    best = min(trained, key=lambda rate: (trained[rate].valid_loss, rate))
    for rate in sorted(trained):
        if rate >= best:
            break
        gap = trained[rate].valid_loss - trained[best].valid_loss
        if gap <= error_of_gap(trained[rate].valid_items, trained[best].valid_items):
            return rate
    return best

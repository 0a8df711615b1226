"""A trial that fits into a time: fewer rates, then seeds, then steps, then candidates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from peft_shop.records import Finite, Record
from peft_shop.trial.costing import Estimate
from peft_shop.trial.records import Protocol
from peft_shop.trial.seeding import first_seeds
from peft_shop.units import format_quantity

if TYPE_CHECKING:
    from peft_shop.trial.costing import RunTime

__all__ = ["Proposal", "TrialPlan", "planned", "proposed"]

_LEAST_RATES: Final = 2
"""With one rate it is the rate that is compared."""
_LEAST_SEEDS: Final = 2
"""With one seed there is no noise to hold a difference against."""
_LEAST_STEPS: Final = 50
_LEAST_CANDIDATES: Final = 2


class Proposal(Record):
    """What a trial would have to ask to fit.

    Attributes:
        rates: learning rates for each candidate [count].
        seeds: at the chosen rate [count].
        steps: of each run [count].
        candidates: that take part [count].
        seconds: time of all its runs, one after another, for the slowest candidate [s].
        fits: whether that is within the limit; else it is the least that is still a comparison.
        changed: which of the four differ from what is asked.
    """

    rates: int
    seeds: int
    steps: int
    candidates: int
    seconds: Finite
    fits: bool
    changed: tuple[str, ...]

    @property
    def text(self) -> str:
        """The changes as options of `peft-shop trial new`."""
        return " ".join(f"--{name} {getattr(self, name)}" for name in self.changed)


class TrialPlan(Record):
    """What a trial will do, before it is started.

    Attributes:
        protocol: what is equal for all, and who takes part.
        estimate: what is left, and how long it takes.
        proposal: what would fit into the time that was given; `None` where it fits, or nobody
            knows.
        fits: whether it fits into that time; `None` where nobody knows or none was given.
    """

    protocol: Protocol
    estimate: Estimate
    proposal: Proposal | None = None
    fits: bool | None = None

    def advice(self, within: object) -> str:
        """Whether it fits into a time that was given, and what would."""
        proposal = self.proposal
        if self.estimate.low is None:
            return (
                f"nothing was measured yet, so nobody can tell whether this fits into {within} "
                "(`trial plan --calibrate` tells)"
            )
        if proposal is None:
            fits = "fits" if self.fits else "may or may not fit"
            return f"this {fits} into {within}"
        problem = f"this does not fit into {within}"
        if not proposal.changed:
            # of a trial that gave more seeds or rates than it began with, nothing can be taken back
            return problem if proposal.fits else f"{problem}, and less would compare nothing"
        took = f"{format_quantity(proposal.seconds, 'seconds')}, one run after another"
        if proposal.fits:
            return f"{problem}; it would with {proposal.text}: at most {took}"
        return (
            f"{problem}, and the least that compares anything ({proposal.text}) takes up to {took}"
        )


def planned(
    protocol: Protocol, estimate: Estimate, run: RunTime | None, limit: float | None
) -> TrialPlan:
    """What a trial will do.

    Args:
        protocol: of the trial.
        estimate: of what is left.
        run: what one run takes; `None` where nothing was measured.
        limit: time that it may take [s].
    """
    low, high = estimate.low, estimate.high
    if limit is None or low is None or high is None or run is None or low <= limit < high:
        return TrialPlan(protocol=protocol, estimate=estimate)
    fits = high <= limit
    proposal = None if fits else proposed(protocol, run, limit)
    return TrialPlan(protocol=protocol, estimate=estimate, proposal=proposal, fits=fits)


def proposed(protocol: Protocol, run: RunTime, limit: float) -> Proposal:
    """The largest trial that fits into a time, by what may be given up first.

    Args:
        protocol: of the trial as it is asked.
        run: what one run takes.
        limit: time for all of it [s].
    """
    asked = protocol.asked
    most = {
        "rates": asked.rates,
        "seeds": first_seeds(protocol),
        "steps": asked.steps,
        "candidates": len(protocol.contestants) - 1,
    }
    least = {
        "rates": _LEAST_RATES,
        "seeds": _LEAST_SEEDS,
        "steps": _LEAST_STEPS,
        "candidates": _LEAST_CANDIDATES,
    }
    sizes = dict(most)
    for name in sizes:
        if _seconds(sizes, run) <= limit:
            break
        bottom = min(least[name], most[name])
        # time rises with every size, so the largest that fits is found by halving
        low, high = bottom, most[name]
        while low < high:
            middle = (low + high + 1) // 2
            if _seconds({**sizes, name: middle}, run) <= limit:
                low = middle
            else:
                high = middle - 1
        sizes[name] = max(bottom, _round(low) if name == "steps" else low)
    seconds = _seconds(sizes, run)
    return Proposal(
        **sizes,
        seconds=seconds,
        fits=seconds <= limit,
        changed=tuple(name for name in sizes if sizes[name] != most[name]),
    )


def _seconds(sizes: dict[str, int], run: RunTime) -> float:
    runs = 1 + sizes["candidates"] * (sizes["rates"] + sizes["seeds"])
    return runs * (run.overhead + sizes["steps"] * run.high)


def _round(steps: int) -> int:
    """At two digits, downwards.

    >>> _round(1234)
    1200
    """
    unit = int(10 ** max(0, len(str(steps)) - 2))
    return steps // unit * unit

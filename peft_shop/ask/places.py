"""The places that an answer has: on the front, as good, beaten, too close, unmeasured, left out."""

from __future__ import annotations

from typing import Literal, TypeAlias

from peft_shop.adapt.records import Retargeted
from peft_shop.ask.candidates import Candidate
from peft_shop.ask.query import Failure
from peft_shop.catalog.methods import PLAIN, Capability
from peft_shop.catalog.runs import Run
from peft_shop.forecast.records import Forecast, Setup
from peft_shop.records import Frozen, Name, Number, Record, Text

__all__ = [
    "Baseline",
    "BaselineKind",
    "Difference",
    "Dominated",
    "Dropped",
    "FrontMember",
    "Relaxation",
    "Tied",
    "TooClose",
    "Unmeasured",
]


class Difference(Record):
    """Front member minus baseline, by metric id, in base units; missing where either is."""

    baseline: str
    values: Frozen[dict[str, Number]]


class FrontMember(Candidate):
    """A Pareto-optimal candidate.

    Attributes:
        why: what it beats and by how much, with the certainty.
        gives_up: what a neighbour on the front has that this one has not.
        versus: differences to the baselines.
        warning: why its lead may be luck, or `None`.
    """

    why: Text
    gives_up: Text
    versus: tuple[Difference, ...] = ()
    warning: Text | None = None


class Tied(Candidate):
    """A candidate that no other significantly dominates, though it is not on the front."""

    dominated_by: str
    because: Text


class TooClose(Candidate):
    """A candidate of which nobody can tell whether it fits; it dominates nobody.

    Attributes:
        because: what its forecast reaches, and what there is.
    """

    because: Text


class Dominated(Candidate):
    """A kept candidate that a front member dominates."""

    dominated_by: str


class Unmeasured(Record):
    """A method that meets every capability constraint but has no run here.

    `retargeted` is its smallest sensible configuration for the question's model, `forecasted` what
    training that costs, `setup` the settings under which it fits, `notes` what to know of it.
    """

    method: Name
    title: Text
    summary: Text
    capabilities: Frozen[dict[str, Capability]]
    retargeted: Retargeted | None = None
    forecasted: Forecast | None = None
    setup: Setup | None = None
    notes: tuple[str, ...] = ()


class Dropped(Record):
    """A candidate that fails constraints; all of them are listed."""

    name: str
    title: Text
    method: Name
    variants: tuple[Name, ...] = ()
    run: Run | None = None
    failures: tuple[Failure, ...]


BaselineKind: TypeAlias = Literal["lora", "full_finetuning"]


class Baseline(Candidate):
    """Something well known on the same benchmark, for orientation; never a candidate itself."""

    kind: BaselineKind

    @property
    def is_yardstick(self) -> bool:
        """Whether it is plain LoRA, with which everything is compared."""
        return self.kind == PLAIN


class Relaxation(Record):
    """What giving up one constraint would admit.

    Attributes:
        constraint: the option to relax.
        admits: how many candidates fail nothing else.
        example: the best of them.
        suggestion: what to write instead, in words.
    """

    constraint: str
    admits: int
    example: str
    suggestion: Text

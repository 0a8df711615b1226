"""A question with every default filled in, and what it says of one candidate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from peft_shop.adapt.records import TargetOptions
from peft_shop.catalog.features import EvidenceLevel
from peft_shop.forecast.records import Settings
from peft_shop.model.structure import Structure
from peft_shop.records import Finite, Frozen, Name, Record, Text

if TYPE_CHECKING:
    from peft_shop.catalog.catalog import Catalog

__all__ = [
    "Bound",
    "Failure",
    "MemoryLimit",
    "Query",
    "Requirement",
    "Verdict",
]


class Requirement(Record):
    """A demand on the capabilities or attributes of a method.

    Attributes:
        name: the option it came from, such as `quantization`.
        values: what is demanded.
        mode: whether all of `values` or one of them must hold.
    """

    name: str
    values: tuple[str, ...]
    mode: Literal["all", "any"] = "all"


class Bound(Record):
    """A limit on a measured metric, in base units; `text` is what the user wrote."""

    metric: Name
    kind: Literal["min", "max"]
    value: Finite
    text: str


class MemoryLimit(Record):
    """The memory that a training step may take.

    Attributes:
        bytes: that the allocator may reserve [B].
        text: what the user wrote.
        device: name of the device whose memory it is, less what a process needs beside; `None`
            where the user stated a limit.
        cautions: what must be known before that memory is trusted.
        count: how many such devices there are; each holds the whole model.
    """

    bytes: int
    text: str
    device: str | None = None
    cautions: tuple[str, ...] = ()
    count: int = 1


class Query(Record):
    """The question, with every default filled in.

    Attributes:
        snapshot: snapshot whose runs are candidates; `None` when the benchmark has none, then
            all its runs are.
        era: `any`, or the era that candidates must belong to; `None` without eras.
        objectives: identifiers of metrics to be optimised together.
        weights: weights of the objectives when `rank_by` is `weights`.
        variants: `method:variant` where only these variants of a method are wanted.
        excluded_variants: `method:variant` of those that are not.
        floor: least headline score of a candidate.
        accelerator: hardware on which memory and time were measured.
        confidence: one-sided confidence at which a candidate counts as dominated.
        certainty: what is uncertain: `rerun` is whether it would happen again on these questions,
            `questions` whether it would hold on others like them.
        peft_version: version the configurations must work with; `None` when peft is absent.
        model: the model that the configurations are for; `None` for that of the benchmark.
        adapt: what to do on that model otherwise than measured.
        training: the training step whose cost is forecast; `None` for figures as measured.
        memory: what that step may take.
        fit: `auto` chooses a setup that fits for every candidate, `off` takes `training` as it is.
        fixed: fields of `training` that the question states, which no setup changes.
        effective_batch: sequences or images behind one step of the optimizer; `None` where no
            setup is chosen.
        ranked: whether a benchmark is evidence for the model at all; if not nothing is ranked.
    """

    benchmark: Name
    snapshot: str | None = None
    era: str | None = None
    evidence: Literal["snapshot", "pooled"] = "snapshot"
    objectives: tuple[Name, ...]
    requirements: tuple[Requirement, ...] = ()
    bounds: tuple[Bound, ...] = ()
    methods: tuple[Name, ...] = ()
    variants: tuple[str, ...] = ()
    exclude: tuple[Name, ...] = ()
    excluded_variants: tuple[str, ...] = ()
    min_evidence: EvidenceLevel | None = None
    floor: Finite
    rank_by: str = "headline"
    weights: Frozen[dict[str, Finite]] = Field(default_factory=dict)
    accelerator: str | None = None
    include_flagged: bool = False
    confidence: Finite = 0.95
    certainty: Literal["rerun", "questions"] = "rerun"
    peft_version: str | None = None
    model: Structure | None = None
    adapt: TargetOptions = Field(default_factory=TargetOptions)
    training: Settings | None = None
    memory: MemoryLimit | None = None
    fit: Literal["auto", "off"] = "off"
    fixed: tuple[Name, ...] = ()
    effective_batch: int | None = None
    ranked: bool = True

    def to_url(self, page: str = "", *, catalog: Catalog | None = None) -> str:
        """The link to this question: `page`, a `#` and what differs from the defaults.

        Args:
            page: address of the web page; only what follows it when empty.
            catalog: whose defaults are left out; the embedded one when `None`.
        """
        from peft_shop.ask.links import to_url  # noqa: PLC0415 - not needed for an answer

        return to_url(self, page, catalog)

    @classmethod
    def from_url(cls, url: str, *, catalog: Catalog | None = None) -> Query:
        """The question that a link stands for, read as `recommend` reads its keywords.

        Args:
            url: the link, or what follows its `#` or `?`.
            catalog: what its names refer to; the embedded one when `None`.

        Raises:
            UnknownNameError: a parameter or a name that does not exist; names the nearest.
            QueryError: a value that cannot be read, or parameters that contradict each other.
        """
        from peft_shop.ask.links import read_url  # noqa: PLC0415 - as above
        from peft_shop.ask.recommend import read_question  # noqa: PLC0415 - as above

        return read_question(**{**read_url(url), "catalog": catalog})


class Failure(Record):
    """One constraint that a candidate does not meet.

    Attributes:
        constraint: the option, such as `max_peak_memory` or `quantization`.
        reason: what was demanded and what was found, in words.
        demanded: what the question asked for; `None` where that is one thing for all.
        found: what there is instead; `None` where there is nothing.
    """

    constraint: str
    reason: Text
    demanded: Text | None = None
    found: Text | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a query says of one candidate: kept when nothing failed."""

    candidate: str
    failures: tuple[Failure, ...] = ()

    @property
    def kept(self) -> bool:
        """Whether every constraint is met."""
        return not self.failures

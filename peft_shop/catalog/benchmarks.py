"""Benchmarks as frozen records: what is measured, in which unit, and what runs are comparable."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from peft_shop.catalog.features import Better
from peft_shop.catalog.samples import Samples
from peft_shop.records import Finite, Frozen, Json, Name, Record, Text
from peft_shop.units import Unit

__all__ = [
    "Benchmark",
    "Era",
    "Metric",
]


class Metric(Record):
    """A measured quantity.

    Attributes:
        id: what people type, such as `peak_memory`.
        field: key in `Run.metrics`, with the unit, such as `peak_memory_bytes`.
        unit: kind of quantity.
        better: direction; the only place where it is recorded.
        scope: what it depends on: `score` (quality), `memory`, `time`, `size`, `count`.
            Memory and time are comparable only on the same hardware and settings.
        retired: why values under an old definition must not be ranked, or `None`.
    """

    id: Name
    field: Name
    title: Text
    unit: Unit
    better: Better
    scope: Literal["score", "memory", "time", "size", "count"]
    description: Text
    tie: Finite | None = None
    tie_relative: Finite | None = None
    retired: Text | None = None

    @property
    def label(self) -> str:
        """The title as it reads inside a sentence: acronyms stay as they are."""
        acronym = self.title[:2].isupper()
        return self.title if acronym else self.title[0].lower() + self.title[1:]


class Era(Record):
    """Runs whose scores are comparable because they were evaluated the same way.

    Attributes:
        id: such as `greedy`.
        title: for people.
        transformers_below: the era holds runs of transformers versions below this; the last
            era of a benchmark has none.
    """

    id: Name
    title: Text
    transformers_below: str | None = None


class Benchmark(Record):
    """One task on which runs are measured and compared.

    Attributes:
        description: what is trained and tested, on which hardware.
        headline: the metric of quality.
        score: what a headline figure is a share or a measure of, as it reads behind the figure.
        sample_size: questions behind a headline that is the share of them answered right, the same
            ones for every run; `None` where it is no such share.
        metrics: every metric that its runs can carry.
        definitions: what a metric means in these runs beyond its general description, by id.
        objectives: metrics that a question optimises by default; empty for the headline and
            `peak_memory`.
        floor: headline score below which a run learned nothing.
        floor_because: where the floor comes from.
        eras: oldest first; empty when all runs are comparable.
        aliases: other names that people type.
        caveats: what every answer from its runs must say.
        on_request: whether only a question that names it is answered from it.
        told_by: parts of a recipe that a candidate's title has, since runs vary in them.
        dataset: identifier of the training data on the hub; `None` where there is none.
        procedure: how its runs were trained.
        settings: of that procedure, where a run states no other in its options.
        protocol: digest of the protocol of the user's own trial; `None` for a published benchmark.
        task: what models of a trial learn: `causal_lm`, to go on with a text, or `seq_cls`, to name
            its class; `None` for a published benchmark.
        private: whether its runs have paths and names of the user's own; `trial export` leaves them
            out.
        samples: where images that its runs generated are kept; `None` where that is not known.
    """

    id: Name
    title: Text
    aliases: tuple[str, ...] = ()
    model_id: str
    dataset: str | None = None
    modality: Literal["text", "image"]
    description: Text
    headline: Name
    score: Text | None = None
    sample_size: Annotated[int, Field(gt=0)] | None = None
    metrics: tuple[Name, ...]
    definitions: Frozen[dict[Name, Text]] = Field(default_factory=dict)
    objectives: tuple[Name, ...] = ()
    floor: Finite
    floor_because: Text
    eras: tuple[Era, ...] = ()
    caveats: tuple[Text, ...] = ()
    on_request: bool = False
    told_by: tuple[Literal["rank", "learning_rate"], ...] = ()
    procedure: Literal["supervised", "grpo"] = "supervised"
    settings: Frozen[dict[str, Json]] = Field(default_factory=dict)
    protocol: str | None = None
    task: Literal["causal_lm", "seq_cls"] | None = None
    private: bool = False
    samples: Samples | None = None

    @property
    def default_objectives(self) -> tuple[Name, ...]:
        """Metrics that a question optimises unless it says which."""
        usual = (self.headline, "peak_memory")
        return self.objectives or tuple(name for name in usual if name in self.metrics)

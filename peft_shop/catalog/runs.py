"""Evidence as frozen records: metrics, benchmarks, runs with their recipes, snapshots and noise."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from peft_shop.catalog.features import Better, ExperimentName, Timestamp
from peft_shop.records import Date, Finite, Frozen, Json, Name, Number, Record, Text, Url
from peft_shop.units import Unit

__all__ = [
    "Benchmark",
    "Curve",
    "Era",
    "EraShift",
    "Flag",
    "ForecastAccuracy",
    "Metric",
    "Noise",
    "Pairing",
    "Provenance",
    "Recipe",
    "Run",
    "Snapshot",
    "Source",
    "Training",
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

    @property
    def default_objectives(self) -> tuple[Name, ...]:
        """Metrics that a question optimises unless it says which."""
        usual = (self.headline, "peak_memory")
        return self.objectives or tuple(name for name in usual if name in self.metrics)


class Training(Record):
    """How a run was trained.

    Attributes:
        optimizer: such as `AdamW` or `lora-fa`.
        optimizer_options: arguments of the optimizer, without the learning rate.
        max_length: tokens for text, pixels for images.
        options: settings that only some benchmarks have and that differ from the suite's default.
    """

    model_id: str
    optimizer: str
    learning_rate: Finite
    optimizer_options: Frozen[dict[str, Json]] = Field(default_factory=dict)
    lr_scheduler: str | None = None
    max_steps: int
    batch_size: int
    max_length: int
    grad_norm_clip: Finite | None = None
    dtype: str
    autocast_adapter_dtype: bool = True
    gradient_checkpointing: bool = False
    mixed_precision: bool = False
    compile: bool = False
    seed: int = 0
    options: Frozen[dict[str, Json]] = Field(default_factory=dict)


class Recipe(Record):
    """What a run was started with.

    Attributes:
        peft_type: member of peft's `PeftType`; `None` for full fine-tuning.
        config: fields of the peft configuration that differ from the class's defaults.
        resolved: values that peft filled in while running (`target_modules` from its mapping).
        config_source: `experiment` (the file the run was started from) or `result` (the run's
            own dump, where no such file is on record).
        written_by: peft version that wrote the configuration.
        training: the training settings.
    """

    peft_type: str | None
    config: Frozen[dict[str, Json]] = Field(default_factory=dict)
    resolved: Frozen[dict[str, Json]] = Field(default_factory=dict)
    config_source: Literal["experiment", "result"] = "result"
    written_by: str | None = None
    training: Training


class Provenance(Record):
    """Where a run's figures come from.

    Attributes:
        source: key in `data/sources.toml`.
        commit: commit of the source that holds the file; `None` for a plain folder.
        file: path inside the source.
        sha256: of the file's bytes; left out of the compiled catalog where `commit` pins them.
        packages: versions that ran (`peft`, `torch`, `transformers`, `diffusers`, ...).
        peft_commit: commit of peft that ran.
        worktree_dirty: whether peft had uncommitted changes; `None` when not recorded.
        published: identifier of the published run whose configuration a run of the user's own trial
            repeats, at the rate that was chosen for it; `None` for any other run.
    """

    source: str
    commit: str | None = None
    file: str
    sha256: str | None = None
    packages: Frozen[dict[str, str]]
    peft_commit: str | None = None
    peft_branch: str | None = None
    worktree_dirty: bool | None = None
    accelerator: str
    platform: str | None = None
    seed: int
    model_revision: str | None = None
    forgetting_definition: str | None = None
    published: str | None = None


class Curve(Record):
    """Validation score during training: `scores[i]` after `steps[i]` optimizer steps."""

    steps: tuple[int, ...]
    scores: tuple[Finite, ...]


class Flag(Record):
    """A reason not to rank a run, or not on some metrics.

    Attributes:
        code: `broken_config` (the run does not show what its method can do), `artefact` (the
            suite mismeasured `metrics`), `sentinel` (a stand-in value was removed from
            `metrics`), `environment` (other hardware or settings: `metrics` are not comparable
            with the other runs).
        metrics: fields concerned; empty means the whole run.
        reason: for people.
    """

    code: Literal["broken_config", "artefact", "sentinel", "environment"]
    metrics: tuple[Name, ...] = ()
    reason: Text


class Run(Record):
    """One measured experiment: key is (benchmark, experiment, created_at).

    Attributes:
        method: identifier of the method, or `full_finetuning`.
        variants: recognised variants, in the catalog's order.
        metrics: by `Metric.field`; absent or finite, never a stand-in.
        computed: fields of `metrics` that were not measured, with what computed them.
        era: key in `Benchmark.eras`.
        snapshots: snapshots in which this run was current.
        curve: validation scores while training; left out of the compiled catalog.
    """

    benchmark: Name
    experiment: ExperimentName
    created_at: Timestamp
    method: Name
    variants: tuple[Name, ...] = ()
    era: Name | None = None
    snapshots: tuple[str, ...] = ()
    metrics: Frozen[dict[str, Number]]
    computed: Frozen[dict[str, Text]] = Field(default_factory=dict)
    curve: Curve | None = None
    recipe: Recipe
    flags: tuple[Flag, ...] = ()
    provenance: Provenance

    @property
    def id(self) -> str:
        """Unique name within the benchmark: `experiment@created_at`."""
        return f"{self.experiment}@{self.created_at}"


class Snapshot(Record):
    """The runs that were current on a date; runs name the snapshots they belong to."""

    id: str
    date: Date
    source: str
    commit: str | None = None
    note: Text | None = None


class Noise(Record):
    """Run-to-run standard deviation of one metric.

    Attributes:
        metric: identifier of the metric.
        era: era it holds for; `None` for all.
        sd: standard deviation of one run, in the metric's base unit (relative: see `relative`).
        low: lower end of the 95 % confidence interval.
        high: upper end.
        degrees: degrees of freedom behind it.
        relative: whether `sd` is a fraction of the value.
        methods: methods that it holds for, whose own variance is significantly larger; empty for
            all that no other entry names.
        experiments: likewise, where it holds for single recipes.
        covers: what differed between the repeats: nothing but the run, or the seed too.
        method: how it was estimated.
        runs: the runs it rests on; left out of the compiled catalog.
    """

    benchmark: Name
    metric: Name
    era: Name | None = None
    sd: Annotated[float, Field(ge=0)]
    low: Finite | None = None
    high: Finite | None = None
    degrees: Finite | None = None
    relative: bool = False
    methods: tuple[Name, ...] = ()
    experiments: tuple[ExperimentName, ...] = ()
    covers: tuple[Literal["rerun", "seed"], ...] = ("rerun",)
    method: Text
    runs: tuple[str, ...] = ()


class Pairing(Record):
    """What the choice of test items adds to the difference of two experiments.

    Attributes:
        a: one experiment.
        b: the other.
        metric: identifier of the metric.
        sd: standard deviation of the difference of their means over the items, from the results of
            both on each item.
        items: how many there were.
    """

    benchmark: Name
    a: ExperimentName
    b: ExperimentName
    metric: Name
    sd: Annotated[float, Field(ge=0)]
    items: Annotated[int, Field(gt=1)]


class EraShift(Record):
    """Mean change of a score from one era to the next, from experiments run in both."""

    benchmark: Name
    metric: Name
    older: Name
    newer: Name
    shift: Finite
    standard_error: Finite
    pairs: int


class ForecastAccuracy(Record):
    """How near the forecasts of one metric came to the runs on file.

    Errors are forecast over record, less one, without their sign, of runs whose method took no
    part in any fit.

    Attributes:
        metric: what is forecast.
        way: `injection` and `closed_form` count; `closed_form` and `dry_run` estimate.
        benchmark: whose runs; `None` for those of all.
        steps_on: accelerator of single training steps that others measured, which stand in place
            of runs; no constant of ours was fitted to their memory but one factor a kernel.
        runs: compared ones [count].
        exact: forecasts that are equal to the record [count]; `None` for estimates.
        mean: of the errors [fraction].
        median: likewise.
        maximum: likewise.
        coverage: share of the runs that lay inside the 90 % interval.
        bias: mean of the errors with their sign [fraction].
    """

    metric: Name
    way: Literal["injection", "closed_form", "dry_run"]
    benchmark: Name | None = None
    steps_on: Text | None = None
    runs: int
    exact: int | None = None
    mean: Finite | None = None
    median: Finite | None = None
    maximum: Finite | None = None
    coverage: Finite | None = None
    bias: Finite | None = None


class Source(Record):
    """Where evidence was taken from: one entry of `data/sources.toml`.

    Attributes:
        review: whether its project took it in: `unmerged` results were reviewed by nobody.
    """

    id: str
    project: Text
    review: Literal["merged", "unmerged"] = "merged"
    url: Url | None = None
    licence: Text
    commit: str | None = None
    date: Date
    taken: Text

"""Evidence as frozen records: runs with their recipes, snapshots and sources."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from peft_shop.catalog.features import ExperimentName, Timestamp
from peft_shop.records import Date, Finite, Frozen, Json, Name, Number, Record, Text, Url

__all__ = [
    "Curve",
    "Flag",
    "Provenance",
    "Recipe",
    "Run",
    "Snapshot",
    "Source",
    "Training",
]


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

"""The vocabulary of peft-shop as frozen records: catalog, evidence, query.

No I/O and no arithmetic. The JSON Schema of the catalog comes from here. Unknown keys are
forbidden, numbers are finite or absent, units are in the field names: `_bytes` [B], `_seconds`
[s]; fractions are in [0, 1].
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping  # noqa: TC003 - pydantic reads them
from functools import cached_property
from typing import Annotated, Any, Final, Literal, Self, TypeAlias

from pydantic import Field, StringConstraints

from peft_shop.engines import Conversion, Engine
from peft_shop.records import Date, Finite, Json, Name, Number, Record, Text, Url
from peft_shop.units import Unit

__all__ = [
    "EVIDENCE_LEVELS",
    "FEATURES",
    "FEATURE_IDS",
    "FULL_FINETUNING",
    "SCHEMA_VERSION",
    "Benchmark",
    "Better",
    "Bound",
    "Capability",
    "Catalog",
    "Category",
    "Condition",
    "Conversion",
    "Curated",
    "Curve",
    "Date",
    "Engine",
    "Environment",
    "Era",
    "EraShift",
    "EvidenceLevel",
    "ExperimentName",
    "Failure",
    "Family",
    "Feature",
    "Finite",
    "Flag",
    "Json",
    "LayerType",
    "Method",
    "Metric",
    "Name",
    "Noise",
    "Number",
    "Observation",
    "Override",
    "Paper",
    "Provenance",
    "QuantizationBackend",
    "Query",
    "Recipe",
    "Record",
    "Requirement",
    "Run",
    "Snapshot",
    "Source",
    "Support",
    "TaskType",
    "Text",
    "Timestamp",
    "Training",
    "Url",
    "Variant",
    "VariantObservation",
    "Verdict",
]

SCHEMA_VERSION: Final = "1.0"
"""Version of the catalog file: the major part changes when old readers would misread it."""

# --- names ---

Support: TypeAlias = Literal["yes", "partial", "no", "unknown"]
EvidenceLevel: TypeAlias = Literal["declared", "injected", "trained", "verified"]
EVIDENCE_LEVELS: Final[tuple[EvidenceLevel, ...]] = ("declared", "injected", "trained", "verified")
"""Weakest first."""

LayerType: TypeAlias = Literal[
    "linear",
    "embedding",
    "conv1d",
    "conv2d",
    "conv3d",
    "layer_norm",
    "multihead_attention",
    "transformers_conv1d",
    "parameter",
]
QuantizationBackend: TypeAlias = Literal[
    "aqlm", "awq", "bnb_4bit", "bnb_8bit", "eetq", "gptq", "hqq", "inc", "torchao"
]
Category: TypeAlias = Literal["adapter", "prompt_learning", "other"]
TaskType: TypeAlias = Literal[
    "CAUSAL_LM",
    "SEQ_2_SEQ_LM",
    "SEQ_CLS",
    "TOKEN_CLS",
    "QUESTION_ANS",
    "FEATURE_EXTRACTION",
    "IMAGE",
]
Family: TypeAlias = Literal[
    "low_rank",
    "kronecker_hadamard",
    "orthogonal",
    "shared_projection",
    "spectral",
    "sparse",
    "scaling",
    "prompt",
    "mixture",
    "full_rank",
    "side_network",
    "selective",
]
Better: TypeAlias = Literal["lower", "higher"]

ExperimentName: TypeAlias = Annotated[
    str,
    StringConstraints(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+=-]*(/[A-Za-z0-9_.+=-]+)*$", max_length=200
    ),
]
Timestamp: TypeAlias = Annotated[
    str,
    StringConstraints(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$"),
]

FULL_FINETUNING: Final = "full_finetuning"
"""Stands in `Run.method` for the baseline that is not a PEFT method."""


# --- what can be asked about a method ---


class Feature(Record):
    """One capability that a method can have.

    Attributes:
        id: identifier, such as `quantization.bnb_4bit` or `merging`.
        group: `layer_types`, `quantization` or `None` for a feature of its own.
        title: short label.
        question: the question that support answers.
    """

    id: str
    group: Literal["layer_types", "quantization"] | None = None
    title: Text
    question: Text


def _features() -> tuple[Feature, ...]:
    layers: dict[LayerType, str] = {
        "linear": "torch.nn.Linear",
        "embedding": "torch.nn.Embedding",
        "conv1d": "torch.nn.Conv1d",
        "conv2d": "torch.nn.Conv2d",
        "conv3d": "torch.nn.Conv3d",
        "layer_norm": "torch.nn.LayerNorm",
        "multihead_attention": "torch.nn.MultiheadAttention",
        "transformers_conv1d": "transformers.pytorch_utils.Conv1D (GPT-2)",
        "parameter": "torch.nn.Parameter without a layer of its own (mixture-of-experts weights)",
    }
    backends: dict[QuantizationBackend, str] = {
        "aqlm": "AQLM",
        "awq": "AWQ",
        "bnb_4bit": "bitsandbytes 4-bit",
        "bnb_8bit": "bitsandbytes 8-bit",
        "eetq": "EETQ",
        "gptq": "GPTQ",
        "hqq": "HQQ",
        "inc": "Intel Neural Compressor",
        "torchao": "torchao",
    }
    found = [
        Feature(
            id=f"layer_types.{layer}",
            group="layer_types",
            title=layer,
            question=f"Can it adapt a {cls}?",
        )
        for layer, cls in layers.items()
    ]
    found += [
        Feature(
            id=f"quantization.{backend}",
            group="quantization",
            title=backend,
            question=f"Does it train on a base whose layers are quantized with {title}?",
        )
        for backend, title in backends.items()
    ]
    single = {
        "merging": "Can the trained adapter be merged into the weights of a language model?",
        "convertible_to_lora": "Does peft convert the trained adapter into a LoRA adapter?",
        "multiple_adapters": "Can one model hold several adapters of it and switch among them?",
        "mixed_batches": "Can one batch use different adapters per sample (`adapter_names`)?",
        "weighted_combination": "Can adapters be combined with weights (`add_weighted_adapter`)?",
        "hot_swapping": "Can a loaded adapter be replaced in place (`hotswap_adapter`)?",
        "mixed_methods": "Can it be active beside other methods (`PeftMixedModel`)?",
        "modules_to_save": "Can whole modules be trained and saved beside it (`modules_to_save`)?",
        "trainable_token_indices": "Can single token embeddings be trained beside it?",
        "save_and_reload": "Does a saved adapter give the same outputs once it is loaded?",
        "disable_adapter": "Does `disable_adapter()` give back the base model's outputs?",
        "identity_at_start": "Does a fresh adapter leave the base model's outputs as they are?",
        "gradient_checkpointing": "Does it train the same under gradient checkpointing?",
        "torch_compile": "Does `torch.compile` trace it, with equal outputs and gradients?",
        "deterministic": "Do two trainings under one seed give the same weights?",
    }
    found += [
        Feature(id=name, title=name.replace("_", " "), question=question)
        for name, question in single.items()
    ]
    return tuple(found)


FEATURES: Final[tuple[Feature, ...]] = _features()
FEATURE_IDS: Final[tuple[str, ...]] = tuple(feature.id for feature in FEATURES)


class Capability(Record):
    """What is known about one feature of one method.

    Attributes:
        support: yes, partial, no or unknown.
        level: how it is known.
        note: required for `partial` and `unknown`.
        source: observed by the probe, or decided by a curator (then `note` says why).
        environment: key into the method's `environments`: the versions it was observed with.
        measured: numbers behind a `verified` value, such as the largest deviation.
    """

    support: Support
    level: EvidenceLevel
    note: Text | None = None
    source: Literal["observed", "curated"] = "observed"
    environment: str = "cpu"
    measured: dict[str, Number] = Field(default_factory=dict)


class Environment(Record):
    """Versions and hardware under which capabilities were observed."""

    peft: str
    python: str
    torch: str | None = None
    transformers: str | None = None
    device: str = "cpu"
    packages: dict[str, str] = Field(default_factory=dict)


class VariantObservation(Record):
    """Where a variant differs from its method: only the differing features."""

    capabilities: dict[str, Capability] = Field(default_factory=dict)


class Observation(Record):
    """One file `catalog/observed/<method>.json`: what the probe saw.

    Attributes:
        method: the method's identifier.
        config_class: name of its class in peft.
        category: adapter, prompt learning or other.
        environments: versions, by the key that capabilities refer to.
        capabilities: one entry for every feature.
        options: configuration fields worth knowing when choosing (`rank_pattern`, `bias`, ...).
        requires: packages besides peft's own that the method needs.
        variants: differences, by variant.
        initialisation: how long wrapping takes at full width, in words, when it matters.
    """

    method: Name
    config_class: str
    category: Category
    environments: dict[str, Environment]
    capabilities: dict[str, Capability]
    options: tuple[str, ...] = ()
    requires: tuple[str, ...] = ()
    variants: dict[str, VariantObservation] = Field(default_factory=dict)
    initialisation: Text | None = None


# --- what people write about a method ---


class Paper(Record):
    """The publication that introduced a method or variant."""

    title: Text
    year: Annotated[int, Field(ge=1990, le=2100)]
    url: Url


class Condition(Record):
    """One test on a recipe; a variant is recognised when all its conditions hold.

    Exactly one of `config` and `training` names the field; exactly one of the other members says
    what it must be. A field that the recipe does not state has its class default, `None` here.
    """

    config: str | None = None
    training: str | None = None
    equals: Json = None
    one_of: tuple[Json, ...] | None = None
    prefix: str | None = None
    is_set: bool | None = None

    def met_by(self, value: Json) -> bool:
        """Whether a field with this value meets the condition; `None` stands for not stated."""
        if self.one_of is not None:
            return any(_same(value, option) for option in self.one_of)
        if self.prefix is not None:
            return isinstance(value, str) and value.startswith(self.prefix)
        if self.is_set is not None:
            return (value is not None) == self.is_set
        return _same(value, self.equals)


def _same(value: Json, wanted: Json) -> bool:
    # 1 == True in Python, yet `init_weights = 1` is not `init_weights = true`
    return bool(value == wanted) and isinstance(value, bool) == isinstance(wanted, bool)


class Variant(Record):
    """A named setting of a method.

    Attributes:
        id: identifier, such as `rslora`.
        title: name as its authors write it.
        summary: one or two sentences.
        paper: `None` only where there is no paper.
        when: conditions that recognise it in a recipe.
        capabilities: only those that differ from the method's (filled by the compiler).
        since: first peft release that has it.
    """

    id: Name
    title: Text
    summary: Text
    paper: Paper | None = None
    when: tuple[Condition, ...] = ()
    capabilities: dict[str, Capability] = Field(default_factory=dict)
    since: str | None = None


class Override(Record):
    """A curator's decision that replaces an observation, with the reason."""

    support: Support
    because: Text


class Curated(Record):
    """One file `catalog/curated/<method>.toml`: what people wrote.

    `peft_type` is the member of peft's `PeftType`; `probe` is the set-up of the probe and opaque
    here; `no_paper_because` is required when `paper` is absent.
    """

    title: Text
    peft_type: str
    config_class: str
    summary: Text
    family: Family
    task_types: tuple[TaskType, ...]
    paper: Paper | None = None
    no_paper_because: Text | None = None
    aliases: tuple[str, ...] = ()
    notes: tuple[Text, ...] = ()
    variants: tuple[Variant, ...] = ()
    overrides: dict[str, Override] = Field(default_factory=dict)
    probe: dict[str, Json] = Field(default_factory=dict)


class Method(Record):
    """One parameter-efficient fine-tuning method as the catalog knows it.

    Attributes:
        id: lower-case `PeftType`, such as `lora`.
        capabilities: one entry for every feature in `FEATURES`.
        fields: configuration fields and the first peft release that has each.
        since: first peft release that has the method.
    """

    id: Name
    peft_type: str
    config_class: str
    title: Text
    summary: Text
    family: Family
    category: Category
    task_types: tuple[TaskType, ...]
    paper: Paper | None = None
    aliases: tuple[str, ...] = ()
    notes: tuple[Text, ...] = ()
    capabilities: dict[str, Capability]
    environments: dict[str, Environment]
    options: tuple[str, ...] = ()
    requires: tuple[str, ...] = ()
    initialisation: Text | None = None
    variants: tuple[Variant, ...] = ()
    since: str | None = None
    fields: dict[str, str] = Field(default_factory=dict)

    def capability(self, feature: str, variants: tuple[str, ...] = ()) -> Capability:
        """Capability of this method under `variants`; the weakest one where they differ."""
        found = [
            variant.capabilities[feature]
            for variant in self.variants
            if variant.id in variants and feature in variant.capabilities
        ]
        if not found:
            return self.capabilities[feature]
        order: tuple[Support, ...] = ("no", "unknown", "partial", "yes")
        return min(found, key=lambda capability: order.index(capability.support))


# --- evidence ---


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
        headline: the metric of quality.
        metrics: every metric that its runs can carry.
        floor: headline score below which a run learned nothing.
        floor_because: where the floor comes from.
        eras: oldest first; empty when all runs are comparable.
        aliases: other spellings, such as the name of the upstream folder.
    """

    id: Name
    title: Text
    aliases: tuple[str, ...] = ()
    model_id: str
    modality: Literal["text", "image"]
    description: Text
    headline: Name
    metrics: tuple[Name, ...]
    floor: Finite
    floor_because: Text
    eras: tuple[Era, ...] = ()


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
    optimizer_options: dict[str, Json] = Field(default_factory=dict)
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
    options: dict[str, Json] = Field(default_factory=dict)


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
    config: dict[str, Json] = Field(default_factory=dict)
    resolved: dict[str, Json] = Field(default_factory=dict)
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
    """

    source: str
    commit: str | None = None
    file: str
    sha256: str | None = None
    packages: dict[str, str]
    peft_commit: str | None = None
    peft_branch: str | None = None
    worktree_dirty: bool | None = None
    accelerator: str
    platform: str | None = None
    seed: int
    model_revision: str | None = None
    forgetting_definition: str | None = None


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
    metrics: dict[str, Number]
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
    method: Text
    runs: tuple[str, ...] = ()


class EraShift(Record):
    """Mean change of a score from one era to the next, from experiments run in both."""

    benchmark: Name
    metric: Name
    older: Name
    newer: Name
    shift: Finite
    standard_error: Finite
    pairs: int


class Source(Record):
    """Where evidence was taken from: one entry of `data/sources.toml`."""

    id: str
    project: Text
    url: Url | None = None
    licence: Text
    commit: str | None = None
    date: Date
    taken: Text


class Catalog(Record):
    """The whole catalog: the one file that other tools vendor."""

    schema_version: str
    catalog_version: str
    peft_version: str
    licence: str = "Apache-2.0"
    files: dict[str, str] = Field(default_factory=dict)
    features: tuple[Feature, ...]
    metrics: tuple[Metric, ...]
    benchmarks: tuple[Benchmark, ...]
    sources: tuple[Source, ...] = ()
    snapshots: tuple[Snapshot, ...] = ()
    methods: tuple[Method, ...]
    runs: tuple[Run, ...] = ()
    noise: tuple[Noise, ...] = ()
    era_shifts: tuple[EraShift, ...] = ()
    engines: tuple[Engine, ...] = ()
    conversions: tuple[Conversion, ...] = ()

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Copy with `update`; what was worked out from this catalog is worked out anew."""
        copied = super().model_copy(update=update, deep=deep)
        for name in set(vars(copied)) - set(type(self).model_fields):
            del vars(copied)[name]
        return copied

    @cached_property
    def derived(self) -> dict[Hashable, Any]:
        """Room for what others work out from this catalog and want to keep."""
        return {}

    @cached_property
    def method_by_id(self) -> dict[str, Method]:
        """Methods by identifier."""
        return {method.id: method for method in self.methods}

    @cached_property
    def metric_by_id(self) -> dict[str, Metric]:
        """Metrics by identifier."""
        return {metric.id: metric for metric in self.metrics}

    @cached_property
    def metric_by_field(self) -> dict[str, Metric]:
        """Metrics by field."""
        return {metric.field: metric for metric in self.metrics}

    @cached_property
    def benchmark_by_id(self) -> dict[str, Benchmark]:
        """Benchmarks by identifier."""
        return {benchmark.id: benchmark for benchmark in self.benchmarks}

    @cached_property
    def engine_by_id(self) -> dict[str, Engine]:
        """Serving engines by identifier."""
        return {engine.id: engine for engine in self.engines}

    @cached_property
    def runs_by_benchmark(self) -> dict[str, tuple[Run, ...]]:
        """Runs by benchmark, in the file's order."""
        grouped: dict[str, list[Run]] = {benchmark.id: [] for benchmark in self.benchmarks}
        for run in self.runs:
            grouped[run.benchmark].append(run)
        return {benchmark: tuple(runs) for benchmark, runs in grouped.items()}


# --- the question ---


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


class Query(Record):
    """The question, with every default filled in.

    Attributes:
        snapshot: snapshot whose runs are candidates; `None` when the benchmark has none, then
            all its runs are.
        era: `any`, or the era that candidates must belong to; `None` without eras.
        objectives: identifiers of metrics to be optimised together.
        weights: weights of the objectives when `rank_by` is `weights`.
        floor: least headline score of a candidate.
        accelerator: hardware on which memory and time were measured.
        confidence: one-sided confidence at which a candidate counts as dominated.
        peft_version: version the configurations must work with; `None` when peft is absent.
    """

    benchmark: Name
    snapshot: str | None = None
    era: str | None = None
    evidence: Literal["snapshot", "pooled"] = "snapshot"
    objectives: tuple[Name, ...]
    requirements: tuple[Requirement, ...] = ()
    bounds: tuple[Bound, ...] = ()
    methods: tuple[Name, ...] = ()
    exclude: tuple[Name, ...] = ()
    min_evidence: EvidenceLevel | None = None
    floor: Finite
    rank_by: str = "headline"
    weights: dict[str, Finite] = Field(default_factory=dict)
    accelerator: str | None = None
    include_flagged: bool = False
    confidence: Finite = 0.95
    peft_version: str | None = None


class Failure(Record):
    """One constraint that a candidate does not meet.

    Attributes:
        constraint: the option, such as `max_peak_memory` or `quantization`.
        reason: what was demanded and what was found.
    """

    constraint: str
    reason: Text


class Verdict(Record):
    """What a query says of one candidate: kept when nothing failed."""

    candidate: str
    failures: tuple[Failure, ...] = ()

    @property
    def kept(self) -> bool:
        """Whether every constraint is met."""
        return not self.failures

"""`data/rules.toml` and `data/benchmarks.toml` as records: how raw results become runs."""

from __future__ import annotations

import tomllib
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

from pydantic import Field, ValidationError

from peft_shop.catalog.benchmarks import Benchmark, Metric
from peft_shop.catalog.diagnosis import problems_of
from peft_shop.catalog.runs import Flag, Source
from peft_shop.curate.calibration.structures import FILES, FOLDER
from peft_shop.errors import CatalogError, Problem
from peft_shop.model.structure import Structure
from peft_shop.records import Date, Json, Name, Record, Text

if TYPE_CHECKING:
    from pathlib import Path

__all__ = [
    "UNRECORDED",
    "BenchmarkRules",
    "ConfigRules",
    "Conventions",
    "FigureRule",
    "FlagRule",
    "load_conventions",
]

BENCHMARKS_FILE: Final = "benchmarks.toml"
SOURCES_FILE: Final = "sources.toml"
RULES_FILE: Final = "rules.toml"
UNRECORDED: Final = "not recorded"
"""Accelerator of runs whose files do not name it."""
_PLACES: Final = {"last": "train_info.metrics[-1]", "steps": "train_info.metrics[*]"}
R = TypeVar("R", bound=Record)


class _Window(Record):
    """Runs of these benchmarks that were created in `[created_from, created_before)`."""

    created_from: Date | None = None
    created_before: Date | None = None

    def _covers(self, created_at: str) -> bool:
        # dates and timestamps are ISO 8601, so that the order of the text is the order in time
        day = created_at[:10]
        after = self.created_from is None or day >= self.created_from
        return after and (self.created_before is None or day < self.created_before)


class FigureRule(_Window):
    """Where one metric stands in a result file.

    Attributes:
        section: `run_info`, `train_info`, `rl_eval_info`, `last` (the entry of `train_info.metrics`
            that has the test score) or `steps` (summed over the entries).
        aliases: older spellings of `key`.
        field: field of the metric.
        benchmarks: benchmarks that have it; empty means all.
        without: benchmarks whose files never state it.
        signed: whether it may be negative.
    """

    section: Literal["run_info", "train_info", "rl_eval_info", "last", "steps"]
    key: str
    aliases: tuple[str, ...] = ()
    field: Name
    benchmarks: tuple[Name, ...] = ()
    without: tuple[Name, ...] = ()
    required: bool = False
    integer: bool = False
    signed: bool = False
    nan_is_absent: bool = False

    def applies(self, benchmark: str, created_at: str) -> bool:
        """Whether a run of `benchmark` made at `created_at` states this metric here."""
        stated = not self.benchmarks or benchmark in self.benchmarks
        return stated and benchmark not in self.without and self._covers(created_at)


class RetiredMethod(Record):
    """A method that peft no longer has, and the one that carries on."""

    peft_type: str
    because: Text


class FieldRule(Record):
    """Configuration fields that were learned or derived, not chosen."""

    peft_types: tuple[str, ...]
    fields: tuple[str, ...]
    equals: Json = None
    because: Text


class ConfigRules(Record):
    """Which recorded configuration fields are not the author's choice.

    Attributes:
        dropped: fields that say nothing about the method.
        sets: lists whose order and repetitions mean nothing.
        resolved: fields that peft fills in where the experiment's file leaves them open.
        learned: fields that training changed: never part of a recipe unless chosen.
        derived: fields that follow from the base model, where they have the value `equals`.
        unread: fields that were written into a configuration and that peft does not read.
    """

    dropped: tuple[str, ...] = ()
    sets: tuple[str, ...] = ()
    resolved: tuple[str, ...] = ()
    learned: tuple[FieldRule, ...] = ()
    derived: tuple[FieldRule, ...] = ()
    unread: tuple[FieldRule, ...] = ()


class TrainingRules(Record):
    """Names of training settings: the suite's key -> field of `schema.Training`."""

    fields: dict[str, str]


class BenchmarkRules(Record):
    """The reference under which a benchmark is measured.

    Attributes:
        folder: name of its folder in the suite; the identifier where it is that.
        source: key in `data/sources.toml` where its files are not those of the suite.
        headline: key of the test score, in the last metrics entry or in `rl_eval_info`.
        curve: key of the validation score in the other entries; `None` where there is none.
        accelerator: the hardware of reference; `UNRECORDED` where its files do not tell it.
        cost: training settings under which memory and time are measured.
        score: training settings that decide what the score means.
        words: settings of these two in words, where their names say little.
        texts: SHA-256 of the canonical JSON of settings that are not stored.
        reference: default of every other training setting; absent means null.
        fields: names of training settings, in place of those that the suite has elsewhere.
        products: fields of `schema.Training` that are the product of several settings.
        defaults: fields of `schema.Training` that no file states and its trainer decides.
        beside: settings that say nothing of the training, such as what is saved.
        ignored: keys that are known and not taken, by section.
    """

    folder: str | None = None
    source: str | None = None
    headline: str
    curve: str | None = None
    accelerator: str
    cost: tuple[str, ...]
    score: tuple[str, ...]
    words: dict[str, Text] = Field(default_factory=dict)
    texts: dict[str, str] = Field(default_factory=dict)
    reference: dict[str, Json]
    fields: dict[str, str] | None = None
    products: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    defaults: dict[str, Json] = Field(default_factory=dict)
    beside: tuple[str, ...] = ()
    ignored: dict[str, tuple[str, ...]] = Field(default_factory=dict)


class FlagRule(_Window):
    """A flag that a person puts on runs of one experiment, or of all that match `lora/*-r1`."""

    benchmark: Name
    experiment: str
    code: Literal["broken_config", "artefact", "sentinel", "environment"]
    metrics: tuple[Name, ...] = ()
    reason: Text

    def applies(self, benchmark: str, experiment: str, created_at: str) -> bool:
        """Whether the run is meant."""
        meant = self.benchmark == benchmark and fnmatchcase(experiment, self.experiment)
        return meant and self._covers(created_at)

    def flag(self, metrics: dict[str, Any]) -> Flag:
        """The flag, on those of its metrics that the run has."""
        return Flag(
            code=self.code,
            metrics=tuple(field for field in self.metrics if field in metrics),
            reason=self.reason.strip(),
        )


class Rules(Record):
    """The whole of `data/rules.toml`."""

    sentinels: dict[str, int] = Field(default_factory=dict)
    retired_methods: dict[str, RetiredMethod] = Field(default_factory=dict)
    metrics: tuple[FigureRule, ...]
    ignored_keys: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    config: ConfigRules
    training: TrainingRules
    benchmarks: dict[str, BenchmarkRules]
    flags: tuple[FlagRule, ...] = ()
    snapshot_notes: dict[str, Text] = Field(default_factory=dict)


class Conventions(Record):
    """Everything hand-written that the importer needs, checked against each other.

    Attributes:
        metrics: by field.
        benchmarks: by identifier.
        sources: by identifier.
        layers: inputs plus outputs of every linear layer of a benchmark's model, by its name;
            empty where the data folder does not tell them.
    """

    rules: Rules
    metrics: dict[str, Metric]
    benchmarks: dict[str, Benchmark]
    sources: dict[str, Source]
    layers: dict[str, dict[str, int]] = Field(default_factory=dict)

    def benchmark_named(self, name: str) -> Benchmark | None:
        """Benchmark with this identifier or folder, in any spelling of case."""
        folded = name.lower()
        for benchmark in self.benchmarks.values():
            if folded in {benchmark.id, self.folder_of(benchmark.id).lower()}:
                return benchmark
        return None

    def folder_of(self, benchmark: str) -> str:
        """Name of the benchmark's folder in the suite."""
        return self.rules.benchmarks[benchmark].folder or benchmark

    def place_of(self, field: str, benchmark: str, created_at: str) -> str:
        """Where a file of a benchmark states a metric, such as `train_info.train_time`."""
        rule = next(
            rule
            for rule in self.rules.metrics
            if rule.field == field and rule.applies(benchmark, created_at)
        )
        return f"{_PLACES.get(rule.section, rule.section)}.{rule.key}"

    def fields_of(self, benchmark: str, *scopes: str) -> tuple[str, ...]:
        """Fields of the benchmark's metrics that have one of `scopes`, in the file's order."""
        named = self.benchmarks[benchmark].metrics
        return tuple(
            metric.field
            for metric in self.metrics.values()
            if metric.id in named and metric.scope in scopes
        )


class _Definitions(Record):
    """The whole of `data/benchmarks.toml`."""

    metrics: tuple[Metric, ...]
    benchmarks: tuple[Benchmark, ...]


class _Sources(Record):
    """The whole of `data/sources.toml`."""

    sources: tuple[Source, ...]


def load_conventions(data: Path) -> Conventions:
    """Read and cross-check `rules.toml`, `benchmarks.toml` and `sources.toml` of a data folder.

    Raises:
        CatalogError: a file is missing, is not TOML, or breaks its format; all mistakes.
    """
    problems: list[Problem] = []
    rules = _read(data / RULES_FILE, Rules, problems)
    definitions = _read(data / BENCHMARKS_FILE, _Definitions, problems)
    sources = _read(data / SOURCES_FILE, _Sources, problems)
    if rules is None or definitions is None or sources is None:
        raise CatalogError("the definitions of the evidence cannot be read:", problems)
    conventions = Conventions(
        rules=rules,
        metrics={metric.field: metric for metric in definitions.metrics},
        benchmarks={benchmark.id: benchmark for benchmark in definitions.benchmarks},
        sources={source.id: source for source in sources.sources},
        layers=_layers(data),
    )
    problems = _contradictions(conventions, data)
    if problems:
        raise CatalogError("the definitions of the evidence contradict each other:", problems)
    return conventions


def _layers(data: Path) -> dict[str, dict[str, int]]:
    """Sides of the linear layers of the measured models, of those that are on file."""
    layers: dict[str, dict[str, int]] = {}
    for benchmark, name in FILES.items():
        path = data / FOLDER / name
        if path.is_file():
            structure = Structure.model_validate_json(path.read_bytes())
            layers[benchmark] = {
                layer: group.in_features + group.out_features
                for group in structure.groups
                if group.kind == "linear" and group.in_features and group.out_features
                for layer in group.names
            }
    return layers


def _read(path: Path, model: type[R], problems: list[Problem]) -> R | None:
    """Record that a TOML file holds; `None` where it cannot be read, with the reasons noted."""
    table: dict[str, Any] = {}
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
        return model.model_validate(table)
    except OSError as error:
        hint = f"start a folder of your own with a copy of this project's data/{path.name}"
        problems.append(Problem(str(path), "", (error.strerror or "cannot be read").lower(), hint))
    except ValidationError as error:
        problems += problems_of(error, model, table, str(path))
    except ValueError as error:  # TOMLDecodeError and UnicodeDecodeError are both ValueErrors
        problems.append(Problem(str(path), "", f"not TOML: {error}"))
    return None


def _contradictions(conventions: Conventions, data: Path) -> list[Problem]:
    """References of the rules to metrics and benchmarks that do not exist."""
    path = str(data / RULES_FILE)
    rules, known = conventions.rules, conventions.benchmarks
    problems = [
        Problem(path, f"benchmarks.{name}", "no such benchmark in benchmarks.toml")
        for name in rules.benchmarks
        if name not in known
    ]
    problems += [
        Problem(path, "benchmarks", f"no rules for the benchmark {name!r}")
        for name in known
        if name not in rules.benchmarks
    ]
    fields = [(f"metrics[{i}].field", rule.field) for i, rule in enumerate(rules.metrics)]
    fields += [(f"sentinels.{field}", field) for field in rules.sentinels]
    fields += [
        (f"flags[{i}].metrics", field)
        for i, flag in enumerate(rules.flags)
        for field in flag.metrics
    ]
    problems += [
        Problem(path, where, f"{field!r} is not the field of a metric of benchmarks.toml")
        for where, field in fields
        if field not in conventions.metrics
    ]
    names = [
        (f"metrics[{i}].benchmarks", name)
        for i, rule in enumerate(rules.metrics)
        for name in rule.benchmarks
    ]
    names += [
        (f"metrics[{i}].without", name)
        for i, rule in enumerate(rules.metrics)
        for name in rule.without
    ]
    names += [(f"flags[{i}].benchmark", flag.benchmark) for i, flag in enumerate(rules.flags)]
    problems += [
        Problem(path, where, f"no benchmark {name!r} in benchmarks.toml")
        for where, name in names
        if name not in known
    ]
    problems += [
        Problem(path, f"benchmarks.{name}.source", f"no source {entry.source!r} in sources.toml")
        for name, entry in rules.benchmarks.items()
        if entry.source is not None and entry.source not in conventions.sources
    ]
    return problems

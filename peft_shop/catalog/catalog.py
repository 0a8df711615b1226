"""The whole catalog as one frozen record; its JSON Schema comes from here.

No I/O and no arithmetic. Unknown keys are forbidden, numbers are finite or absent, units are in
the field names: `_bytes` [B], `_seconds` [s]; fractions are in [0, 1].
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping  # noqa: TC003 - pydantic reads them
from functools import cached_property
from types import MappingProxyType
from typing import Any, Final, Self

from pydantic import Field

from peft_shop.catalog.benchmarks import Benchmark, Metric
from peft_shop.catalog.engines import Conversion, Engine
from peft_shop.catalog.features import Feature
from peft_shop.catalog.methods import Method
from peft_shop.catalog.noise import EraShift, ForecastAccuracy, Noise, Pairing
from peft_shop.catalog.runs import Run, Snapshot, Source
from peft_shop.catalog.trainers import Trainer
from peft_shop.catalog.tried import TriedModel
from peft_shop.records import Frozen, Record

__all__ = ["SCHEMA_VERSION", "Catalog"]

SCHEMA_VERSION: Final = "1.1"
"""Version of the catalog file: the major part changes when old readers would misread it."""


class Catalog(Record):
    """The whole catalog: the one file that other tools vendor."""

    schema_version: str
    catalog_version: str
    peft_version: str
    licence: str = "Apache-2.0"
    files: Frozen[dict[str, str]] = Field(default_factory=dict)
    features: tuple[Feature, ...]
    metrics: tuple[Metric, ...]
    benchmarks: tuple[Benchmark, ...]
    sources: tuple[Source, ...] = ()
    snapshots: tuple[Snapshot, ...] = ()
    methods: tuple[Method, ...]
    runs: tuple[Run, ...] = ()
    noise: tuple[Noise, ...] = ()
    era_shifts: tuple[EraShift, ...] = ()
    pairings: tuple[Pairing, ...] = ()
    engines: tuple[Engine, ...] = ()
    conversions: tuple[Conversion, ...] = ()
    trainers: tuple[Trainer, ...] = ()
    forecasts: tuple[ForecastAccuracy, ...] = ()
    tried: tuple[TriedModel, ...] = ()

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
    def method_by_id(self) -> Mapping[str, Method]:
        """Methods by identifier."""
        return MappingProxyType({method.id: method for method in self.methods})

    @cached_property
    def metric_by_id(self) -> Mapping[str, Metric]:
        """Metrics by identifier."""
        return MappingProxyType({metric.id: metric for metric in self.metrics})

    @cached_property
    def metric_by_field(self) -> Mapping[str, Metric]:
        """Metrics by field."""
        return MappingProxyType({metric.field: metric for metric in self.metrics})

    @cached_property
    def benchmark_by_id(self) -> Mapping[str, Benchmark]:
        """Benchmarks by identifier."""
        return MappingProxyType({benchmark.id: benchmark for benchmark in self.benchmarks})

    @cached_property
    def engine_by_id(self) -> Mapping[str, Engine]:
        """Serving engines by identifier."""
        return MappingProxyType({engine.id: engine for engine in self.engines})

    @cached_property
    def trainer_by_id(self) -> Mapping[str, Trainer]:
        """Trainers by identifier."""
        return MappingProxyType({trainer.id: trainer for trainer in self.trainers})

    @cached_property
    def tried_by_architecture(self) -> Mapping[str, TriedModel]:
        """Models that every method was tried on, by their class."""
        return MappingProxyType({model.architecture: model for model in self.tried})

    @cached_property
    def runs_by_benchmark(self) -> Mapping[str, tuple[Run, ...]]:
        """Runs by benchmark, in the file's order."""
        grouped: dict[str, list[Run]] = {benchmark.id: [] for benchmark in self.benchmarks}
        for run in self.runs:
            grouped[run.benchmark].append(run)
        return MappingProxyType({name: tuple(runs) for name, runs in grouped.items()})

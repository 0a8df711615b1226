"""Rules about metrics, benchmarks, sources, snapshots and noise: what runs refer to."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from peft_shop.ask.meanings import fold
from peft_shop.curate.sources.violations import Finding, Rule, nearest, rule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from peft_shop.catalog.noise import EraShift, Noise
    from peft_shop.curate.sources.sources import Entry, Sources
    from peft_shop.records import Record

__all__ = ["RULES"]

_SUFFIXES: Final = {"bytes": "_bytes", "seconds": "_seconds"}
"""Ending of a metric's field by its unit; other units have none."""


@rule("definitions-unique", integrity=True)
def definitions_unique(sources: Sources) -> Iterator[Finding]:
    """Identifiers of metrics, their fields, benchmarks, sources and snapshots are unique."""
    named: list[tuple[str, str, Entry[Record], str]] = [
        *(("metric", "id", entry, entry.record.id) for entry in sources.metrics),
        *(("metric field", "field", entry, entry.record.field) for entry in sources.metrics),
        *(("benchmark", "id", entry, entry.record.id) for entry in sources.benchmarks),
        *(("source", "id", entry, entry.record.id) for entry in sources.sources),
        *(("snapshot", "id", entry, entry.record.id) for entry in sources.snapshots),
    ]
    seen: set[tuple[str, str]] = set()
    for kind, where, entry, name in named:
        if (kind, name) in seen:
            yield name, entry.problem(where, f"{kind} {name!r} stands here twice")
        seen.add((kind, name))


@rule("benchmark-names", integrity=True)
def benchmark_names(sources: Sources) -> Iterator[Finding]:
    """A benchmark's title and aliases mean no other one, whatever their case and punctuation."""
    owners = {fold(entry.record.id): entry.record.id for entry in sources.benchmarks}
    for entry in sources.benchmarks:
        named = [(f"aliases[{i}]", alias) for i, alias in enumerate(entry.record.aliases)]
        for place, alias in [("title", entry.record.title), *named]:
            owner = owners.setdefault(fold(alias), entry.record.id)
            if owner != entry.record.id:
                message = f"{alias!r} names {owner!r} already"
                yield entry.record.id, entry.problem(place, message)


@rule("benchmark-metrics", integrity=True)
def benchmark_metrics(sources: Sources) -> Iterator[Finding]:
    """A benchmark's metrics are defined, each once, and its headline is one of them."""
    defined = {entry.record.id for entry in sources.metrics}
    for entry in sources.benchmarks:
        benchmark = entry.record
        for index, metric in enumerate(benchmark.metrics):
            if metric not in defined:
                hint = nearest(metric, defined)
                problem = entry.problem(f"metrics[{index}]", f"unknown metric {metric!r}", hint)
                yield benchmark.id, problem
            if benchmark.metrics.index(metric) != index:
                yield benchmark.id, entry.problem(f"metrics[{index}]", f"{metric!r} stands twice")
        if benchmark.headline not in benchmark.metrics:
            hint = nearest(benchmark.headline, benchmark.metrics)
            message = f"{benchmark.headline!r} is not among its metrics"
            yield benchmark.id, entry.problem("headline", message, hint)


@rule("benchmark-defaults", integrity=True)
def benchmark_defaults(sources: Sources) -> Iterator[Finding]:
    """Default objectives and definitions are of a benchmark's own metrics."""
    for entry in sources.benchmarks:
        benchmark = entry.record
        named = [(f"objectives[{i}]", name) for i, name in enumerate(benchmark.objectives)]
        named += [(f"definitions.{name}", name) for name in benchmark.definitions]
        for place, metric in named:
            if metric not in benchmark.metrics:
                hint = nearest(metric, benchmark.metrics)
                message = f"{metric!r} is not among its metrics"
                yield benchmark.id, entry.problem(place, message, hint)


@rule("sample-size")
def sample_size(sources: Sources) -> Iterator[Finding]:
    """A number of questions belongs to a headline that is a share of them, and only there."""
    metrics = {entry.record.id: entry.record for entry in sources.metrics}
    for entry in sources.benchmarks:
        metric = metrics.get(entry.record.headline)
        if metric and (metric.unit == "fraction") != (entry.record.sample_size is not None):
            message = f"is {entry.record.sample_size}, and the headline {metric.id} a {metric.unit}"
            yield entry.record.id, entry.problem("sample_size", message)


@rule("headline")
def headline(sources: Sources) -> Iterator[Finding]:
    """A headline is a score in force of which more is better: the floor is a minimum of it."""
    metrics = {entry.record.id: entry.record for entry in sources.metrics}
    for entry in sources.benchmarks:
        metric = metrics.get(entry.record.headline)
        if metric and (metric.scope != "score" or metric.better != "higher" or metric.retired):
            message = f"{metric.id!r} must be a score in force of which more is better"
            yield entry.record.id, entry.problem("headline", message)


@rule("samples", integrity=True)
def samples(sources: Sources) -> Iterator[Finding]:
    """Images are of runs of a source that is known."""
    valid = {entry.record.id for entry in sources.sources}
    for entry in sources.benchmarks:
        kept = entry.record.samples
        if kept is not None and kept.source not in valid:
            hint = nearest(kept.source, valid)
            problem = entry.problem("samples.source", f"unknown source {kept.source!r}", hint)
            yield entry.record.id, problem


@rule("eras", integrity=True)
def eras(sources: Sources) -> Iterator[Finding]:
    """Eras are unique; all but the newest say below which transformers version they hold."""
    for entry in sources.benchmarks:
        benchmark = entry.record
        ids = [era.id for era in benchmark.eras]
        if len(set(ids)) < len(ids) or len(ids) == 1:
            message = "name each era once, and at least two where there are any"
            yield benchmark.id, entry.problem("eras", message)
        for index, era in enumerate(benchmark.eras):
            newest = index == len(ids) - 1
            if (era.transformers_below is None) != newest:
                message = "is for the newest era to leave out, and for the others to give"
                place = f"eras[{index}].transformers_below"
                yield benchmark.id, entry.problem(place, message)


@rule("unit-in-field")
def unit_in_field(sources: Sources) -> Iterator[Finding]:
    """A field ends in its unit, `_bytes` or `_seconds`; other fields do not."""
    for entry in sources.metrics:
        metric = entry.record
        expected = _SUFFIXES.get(metric.unit, "")
        others = [ending for ending in _SUFFIXES.values() if ending != expected]
        if not metric.field.endswith(expected) or metric.field.endswith(tuple(others)):
            message = f"{metric.field!r} does not fit the unit {metric.unit!r}"
            yield metric.id, entry.problem("field", message)


@rule("tie-width")
def tie_width(sources: Sources) -> Iterator[Finding]:
    """A tie width is positive, and given in one way."""
    for entry in sources.metrics:
        widths = [w for w in (entry.record.tie, entry.record.tie_relative) if w is not None]
        if len(widths) > 1 or any(width <= 0 for width in widths):
            message = "give `tie` or `tie_relative`, above 0"
            yield entry.record.id, entry.problem("tie", message)


@rule("metric-used")
def metric_used(sources: Sources) -> Iterator[Finding]:
    """Every metric is one of a benchmark's."""
    used = {metric for entry in sources.benchmarks for metric in entry.record.metrics}
    for entry in sources.metrics:
        if entry.record.id not in used:
            hint = "name it in a benchmark's `metrics`, or remove it"
            yield entry.record.id, entry.problem("", "no benchmark measures it", hint)


@rule("snapshot-source", integrity=True)
def snapshot_source(sources: Sources) -> Iterator[Finding]:
    """A snapshot names a source on record."""
    valid = {entry.record.id for entry in sources.sources}
    for entry in sources.snapshots:
        if entry.record.source not in valid:
            message = f"unknown source {entry.record.source!r}"
            hint = nearest(entry.record.source, valid)
            yield entry.record.id, entry.problem("source", message, hint)


@rule("snapshot-used")
def snapshot_used(sources: Sources) -> Iterator[Finding]:
    """A snapshot has runs."""
    counts = Counter(name for entry in sources.runs for name in entry.record.snapshots)
    for entry in sources.snapshots:
        if not counts[entry.record.id]:
            yield entry.record.id, entry.problem("", "no run belongs to it", "ingest its runs")


@rule("noise-references", integrity=True)
def noise_references(sources: Sources) -> Iterator[Finding]:
    """Noise and era shifts are of benchmarks, metrics, eras and runs on record."""
    benchmarks = {entry.record.id: entry.record for entry in sources.benchmarks}
    runs = {(entry.record.benchmark, entry.record.id) for entry in sources.runs}
    named: list[tuple[Entry[Noise | EraShift], str, tuple[str | None, ...], tuple[str, ...]]] = [
        *((e, "era", (e.record.era,), e.record.runs) for e in sources.noise),
        *((e, "older", (e.record.older, e.record.newer), ()) for e in sources.era_shifts),
    ]
    for entry, where, era_names, run_names in named:
        record = f"{entry.record.benchmark}:{entry.record.metric}"
        benchmark = benchmarks.get(entry.record.benchmark)
        if benchmark is None:
            message = f"unknown benchmark {entry.record.benchmark!r}"
            hint = nearest(entry.record.benchmark, benchmarks)
            yield record, entry.problem("benchmark", message, hint)
            continue
        if entry.record.metric not in benchmark.metrics:
            message = f"unknown metric {entry.record.metric!r} of {benchmark.id}"
            hint = nearest(entry.record.metric, benchmark.metrics)
            yield record, entry.problem("metric", message, hint)
        for era in era_names:
            if era is not None and era not in {own.id for own in benchmark.eras}:
                yield record, entry.problem(where, f"unknown era {era!r} of {benchmark.id}")
        for index, run in enumerate(run_names):
            if (benchmark.id, run) not in runs:
                yield record, entry.problem(f"runs[{index}]", f"unknown run {run!r}")
    methods = set(sources.curated)
    for noise in sources.noise:
        for index, method in enumerate(noise.record.methods):
            if method not in methods:
                record = f"{noise.record.benchmark}:{noise.record.metric}"
                hint = nearest(method, methods)
                yield record, noise.problem(f"methods[{index}]", f"unknown method {method!r}", hint)


@rule("noise-interval")
def noise_interval(sources: Sources) -> Iterator[Finding]:
    """A confidence interval holds its standard deviation."""
    for entry in sources.noise:
        noise = entry.record
        low = noise.sd if noise.low is None else noise.low
        high = noise.sd if noise.high is None else noise.high
        if not low <= noise.sd <= high:
            record = f"{noise.benchmark}:{noise.metric}"
            message = f"{noise.sd} is not between {low} and {high}"
            yield record, entry.problem("sd", message)


RULES: Final[tuple[Rule, ...]] = (
    definitions_unique,
    benchmark_names,
    benchmark_metrics,
    benchmark_defaults,
    sample_size,
    samples,
    headline,
    eras,
    unit_in_field,
    tie_width,
    metric_used,
    snapshot_source,
    snapshot_used,
    noise_references,
    noise_interval,
)

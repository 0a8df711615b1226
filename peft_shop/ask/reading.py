"""What people write -> Query, with names resolved, quantities read and defaults filled in.

The semantics are the same for every filter: a list means all of these, `any_of(...)` one of
these, an unknown name is an error that names the nearest valid ones.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final, Literal

from peft_shop.adapt.records import TargetOptions
from peft_shop.ask.contenders import (
    ALL_SNAPSHOTS,
    ANY_ERA,
    SHIFTED_ERAS,
    in_snapshot,
    newest_snapshot,
)
from peft_shop.ask.meanings import fold
from peft_shop.ask.model import default_benchmark, read_options
from peft_shop.ask.picks import resolve_picks
from peft_shop.ask.query import Bound, Query
from peft_shop.ask.requirements import AnyOf, names_stated, requirements
from peft_shop.ask.uncertainty import knows_questions
from peft_shop.catalog.features import EVIDENCE_LEVELS
from peft_shop.errors import Keyword, QueryError, UnknownNameError, shown
from peft_shop.units import format_quantity, parse_quantity, read_quantity

if TYPE_CHECKING:
    from peft_shop.ask.query import MemoryLimit
    from peft_shop.catalog.benchmarks import Benchmark, Metric
    from peft_shop.catalog.catalog import Catalog
    from peft_shop.forecast.records import Settings
    from peft_shop.model.structure import Structure
    from peft_shop.units import Quantity

__all__ = [
    "build_query",
    "resolve_benchmark",
    "resolve_metric",
]

CERTAINTIES: Final = ("rerun", "questions")
"""What an answer may be sure of: the same questions again, or others like them."""
RANKINGS: Final = ("headline", "knee", "weights", "cheapest-tie")
"""Orders of the front besides the name of a metric."""


def resolve_benchmark(catalog: Catalog, name: str) -> Benchmark:
    """Benchmark with the id, title or alias `name`, hyphens and case ignored.

    Raises:
        UnknownNameError: there is none; names the nearest.
        QueryError: `name` is no text.
    """
    if not isinstance(name, str):
        raise QueryError(f"expected a name, got {shown(name)}", keyword="benchmark")
    key = fold(name)
    for benchmark in catalog.benchmarks:
        if key in {fold(option) for option in _names_of(benchmark)}:
            return benchmark
    every: dict[str, str] = {}
    for benchmark in catalog.benchmarks:
        for option in _names_of(benchmark):
            every.setdefault(fold(option), option)
    usual = catalog.benchmark_by_id
    raise UnknownNameError("benchmark", name, every.values(), usual=usual)


def _names_of(benchmark: Benchmark) -> tuple[str, ...]:
    return (benchmark.id, benchmark.title, *benchmark.aliases)


def resolve_metric(
    catalog: Catalog, benchmark: Benchmark, name: str, *, keyword: str | None = None
) -> Metric:
    """Metric of `benchmark` called `name`: its id, field or title, or `headline`.

    Raises:
        UnknownNameError: the benchmark has no such metric.
        QueryError: its values follow an older definition and must not be ranked.
    """
    key = fold(benchmark.headline if name == "headline" else name)
    for candidate in benchmark.metrics:
        metric = catalog.metric_by_id[candidate]
        if key in {fold(metric.id), fold(metric.field), fold(metric.title)}:
            if metric.retired:
                raise QueryError(f"{metric.id} cannot be ranked or bounded: {metric.retired}")
            return metric
    hint = None
    meant = next((metric.id for metric in catalog.metrics if key == fold(metric.id)), None)
    if meant is not None:
        others = [one.id for one in catalog.benchmarks if meant in one.metrics]
        hint = f"{meant} belongs to {', '.join(others)}"
    kind, valid = f"metric of {benchmark.id}", _rankable(catalog, benchmark)
    raise UnknownNameError(kind, name, valid, hint=hint, keyword=keyword)


def _rankable(catalog: Catalog, benchmark: Benchmark) -> list[str]:
    return [name for name in benchmark.metrics if not catalog.metric_by_id[name].retired]


def build_query(
    catalog: Catalog,
    *,
    benchmark: str | None = None,
    objectives: str | Iterable[str] | None = None,
    snapshot: str | None = None,
    era: str | None = None,
    evidence: str = "snapshot",
    demands: Mapping[str, object] | None = None,
    bounds: Mapping[str, Quantity | None] | None = None,
    methods: object = None,
    exclude: object = None,
    min_evidence: str | None = None,
    floor: Quantity | None = None,
    rank_by: str | Mapping[str, float] | None = None,
    accelerator: str | None = None,
    include_flagged: bool = False,
    confidence: float = 0.95,
    certainty: str | None = None,
    peft_version: str | None = None,
    model: Structure | None = None,
    adapt: TargetOptions | Mapping[str, object] | None = None,
    training: Settings | None = None,
    memory: MemoryLimit | None = None,
    fit: Literal["auto", "off"] = "off",
    fixed: tuple[str, ...] = (),
    effective_batch: int | None = None,
) -> Query:
    """Query with names resolved, quantities read and defaults filled in.

    Args:
        catalog: what the names refer to.
        benchmark: name; when `None` the one that is evidence for the model, or the first.
        objectives: metrics; the benchmark's own when `None`.
        snapshot: identifier, `"all"`, or `None` for the newest.
        era: identifier, `"any"`, `"shifted"`, or `None` for the newest in the snapshot.
        evidence: `"snapshot"` or `"pooled"`.
        demands: capabilities and attributes by option name; `None` values are no demand.
        bounds: quantities by `max_<metric>` or `min_<metric>`; `None` values are no bound.
        methods: only these methods.
        exclude: none of these methods.
        min_evidence: weakest evidence that counts for a demanded capability.
        floor: least headline score; the benchmark's own when `None`.
        rank_by: a metric, one of `RANKINGS`, or weights by metric.
        accelerator: hardware whose memory and time count; that of most runs when `None`.
        include_flagged: whether broken runs and artefacts may be ranked.
        confidence: one-sided confidence of ties.
        certainty: `"rerun"`, `"questions"`, or `None` for questions where it can be told.
        peft_version: version that configurations must work with.
        model: what is understood of the model that they are for.
        adapt: what to do on it otherwise than measured.
        training: the training step whose cost is forecast.
        memory: what that step may take.
        fit: whether a setup that fits is chosen for every candidate.
        fixed: fields of `training` that the question states.
        effective_batch: sequences or images behind one step of the optimizer.

    Raises:
        UnknownNameError: a name is not in the catalog.
        QuantityError: a number cannot be read.
        QueryError: options contradict each other.
    """
    evidence_of = (
        default_benchmark(catalog, model)
        if benchmark is None
        else resolve_benchmark(catalog, benchmark)
    )
    target = evidence_of or catalog.benchmarks[0]
    options = read_options(adapt)
    if model is None and options != TargetOptions():
        message = "options are about the model that you name: give "
        raise QueryError(message, Keyword("model"), " too", keyword="adapt")
    names = _objective_names(target, objectives)
    chosen = tuple(dict.fromkeys(resolve_metric(catalog, target, name).id for name in names))
    if not chosen:
        raise QueryError("at least one objective is needed")
    headline = catalog.metric_by_id[target.headline]
    order, weights = _ranking(catalog, target, rank_by)
    if min_evidence is not None and min_evidence not in EVIDENCE_LEVELS:
        kind = "evidence level"
        raise UnknownNameError(kind, min_evidence, EVIDENCE_LEVELS, keyword="min_evidence")
    if evidence not in {"snapshot", "pooled"}:
        kinds = ("snapshot", "pooled")
        raise UnknownNameError("kind of evidence", evidence, kinds, keyword="evidence")
    if not 0.5 <= confidence < 1:
        raise QueryError(f"confidence must be at least 0.5 and below 1, got {shown(confidence)}")
    when = _snapshot(catalog, target, snapshot)
    named = resolve_picks(catalog, methods, "methods")
    banned = resolve_picks(catalog, exclude, "exclude")
    if banned.quantization:
        message = "a method on a base of one kind cannot be left out; name the method itself"
        raise QueryError(message, keyword="exclude")
    return Query(
        benchmark=target.id,
        snapshot=when,
        era=_era(catalog, target, when, era),
        evidence="pooled" if evidence == "pooled" else "snapshot",
        objectives=chosen,
        requirements=tuple(requirements(catalog, demands or {}, implied=named.quantization)),
        bounds=tuple(_bounds(catalog, target, bounds or {})),
        methods=named.methods,
        variants=named.variants,
        exclude=banned.whole,
        excluded_variants=banned.variants,
        min_evidence=min_evidence,
        floor=target.floor if floor is None else read_quantity(floor, headline.unit, name="floor"),
        rank_by=order,
        weights=weights,
        accelerator=_accelerator(catalog, target, when, accelerator),
        include_flagged=include_flagged,
        confidence=confidence,
        certainty=_certainty(catalog, target, certainty),
        peft_version=peft_version,
        model=model,
        adapt=options,
        training=training,
        memory=memory,
        fit=fit,
        fixed=fixed,
        effective_batch=effective_batch,
        ranked=evidence_of is not None,
    )


def _objective_names(
    benchmark: Benchmark, objectives: str | Iterable[str] | None
) -> tuple[str, ...]:
    if objectives is None:
        return benchmark.default_objectives
    if isinstance(objectives, str):
        return tuple(part for part in re.split(r"[,\s]+", objectives) if part)
    if isinstance(objectives, AnyOf):
        message = "they are optimised together: give a list, not any_of(...)"
        raise QueryError(message, keyword="objectives")
    return names_stated(objectives, "objectives").values


def _snapshot(catalog: Catalog, benchmark: Benchmark, wanted: str | None) -> str | None:
    if wanted is None:
        return newest_snapshot(catalog, benchmark.id)
    used = {name for run in catalog.runs_by_benchmark[benchmark.id] for name in run.snapshots}
    if wanted != ALL_SNAPSHOTS and wanted not in used:
        raise UnknownNameError(f"snapshot of {benchmark.id}", wanted, [*used, ALL_SNAPSHOTS])
    return wanted


def _accelerator(
    catalog: Catalog, benchmark: Benchmark, snapshot: str | None, wanted: str | None
) -> str | None:
    if wanted is None:
        return None
    runs = catalog.runs_by_benchmark[benchmark.id]
    everywhere = {fold(run.provenance.accelerator): run.provenance.accelerator for run in runs}
    here = [run.provenance.accelerator for run in runs if in_snapshot(run, snapshot)]
    found = everywhere.get(fold(wanted))
    if found in here:
        return found
    hint = f"{found} has runs with snapshot={ALL_SNAPSHOTS!r} only" if found else None
    raise UnknownNameError(f"accelerator of {benchmark.id}", wanted, here, hint=hint)


def _era(
    catalog: Catalog, benchmark: Benchmark, snapshot: str | None, wanted: str | None
) -> str | None:
    names = [era.id for era in benchmark.eras]
    if wanted is not None:
        valid = [*names, ANY_ERA, *([SHIFTED_ERAS] if names else [])]
        if wanted not in valid:
            raise UnknownNameError(f"era of {benchmark.id}", wanted, valid)
        return wanted if names else None
    present = {
        run.era for run in catalog.runs_by_benchmark[benchmark.id] if in_snapshot(run, snapshot)
    }
    return next((name for name in reversed(names) if name in present), None)


def _certainty(
    catalog: Catalog, benchmark: Benchmark, wanted: str | None
) -> Literal["rerun", "questions"]:
    known = knows_questions(catalog, benchmark)
    if wanted is None:
        return "questions" if known else "rerun"
    if wanted not in CERTAINTIES:
        raise UnknownNameError("kind of certainty", wanted, CERTAINTIES, keyword="certainty")
    if wanted == "rerun":
        return "rerun"
    if not known:
        raise QueryError(
            f"how other test items would change the scores of {benchmark.id} is not on record: ask "
            "for ",
            Keyword("certainty", "rerun"),
            keyword="certainty",
        )
    return "questions"


def _ranking(
    catalog: Catalog, benchmark: Benchmark, rank_by: str | Mapping[str, float] | None
) -> tuple[str, dict[str, float]]:
    if rank_by is None:
        return "headline", {}
    if isinstance(rank_by, Mapping):
        weights = {}
        for name, weight in rank_by.items():
            metric = resolve_metric(catalog, benchmark, name)
            value = parse_quantity(weight, "score", name=f"weight of {name}")
            if value < 0:
                raise QueryError(f"the weight of {name} is negative: {value}")
            if metric.id in weights:
                raise QueryError(f"the weight of {metric.id} is given twice")
            weights[metric.id] = value
        if not any(weights.values()):
            raise QueryError("at least one weight must be above 0")
        return "weights", weights
    if rank_by == "weights":
        raise QueryError("give the weights themselves: rank_by={'test_accuracy': 2, ...}")
    if rank_by in RANKINGS:
        return rank_by, {}
    try:
        return resolve_metric(catalog, benchmark, rank_by).id, {}
    except UnknownNameError:
        named = [name for name in RANKINGS if name != "weights"]
        valid = [*named, *_rankable(catalog, benchmark)]
        raise UnknownNameError("ranking", rank_by, valid) from None


def _bounds(
    catalog: Catalog, benchmark: Benchmark, bounds: Mapping[str, Quantity | None]
) -> Iterable[Bound]:
    found: dict[tuple[str, str], Bound] = {}
    for name, value in bounds.items():
        if value is None:
            continue
        kind, _, metric_name = name.partition("_")
        metric = resolve_metric(catalog, benchmark, metric_name, keyword=name)
        number = read_quantity(value, metric.unit, name=name)
        key = (metric.id, kind)
        if key in found:
            raise QueryError(f"{kind}_{metric.id} is given twice: {found[key].text} and {value}")
        text = value if isinstance(value, str) else format_quantity(number, metric.unit)
        found[key] = Bound(
            metric=metric.id, kind="min" if kind == "min" else "max", value=number, text=text
        )
    for metric_id in dict.fromkeys(metric for metric, _ in found):
        low, high = found.get((metric_id, "min")), found.get((metric_id, "max"))
        if low and high and low.value > high.value:
            least = Keyword(f"min_{metric_id}", low.text)
            most = Keyword(f"max_{metric_id}", high.text)
            raise QueryError(least, " is above ", most, ": no run can meet both")
    return found.values()

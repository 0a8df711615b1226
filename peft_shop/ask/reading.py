"""What people write -> Query, with names resolved, quantities read and defaults filled in.

The semantics are the same for every filter: a list means all of these, `any_of(...)` one of
these, an unknown name is an error that names the nearest valid ones.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, get_args

from peft_shop.adapt.records import TargetOptions
from peft_shop.ask.contenders import (
    ALL_SNAPSHOTS,
    ANY_ERA,
    SHIFTED_ERAS,
    in_snapshot,
    newest_snapshot,
)
from peft_shop.ask.demanding import ATTRIBUTES, GROUPS, SERVE
from peft_shop.ask.meanings import method_meaning
from peft_shop.ask.model import default_benchmark, read_options
from peft_shop.ask.query import Bound, Query, Requirement
from peft_shop.catalog.features import EVIDENCE_LEVELS, Category, Family, TaskType
from peft_shop.errors import InputError, Keyword, QueryError, UnknownNameError, shown
from peft_shop.serve.routes import resolve_demand
from peft_shop.units import format_quantity, parse_quantity, read_quantity

if TYPE_CHECKING:
    from peft_shop.ask.query import MemoryLimit
    from peft_shop.catalog.catalog import Catalog
    from peft_shop.catalog.runs import Benchmark, Metric
    from peft_shop.forecast.records import Settings
    from peft_shop.model.structure import Structure
    from peft_shop.units import Quantity

__all__ = [
    "AnyOf",
    "Picks",
    "any_of",
    "build_query",
    "resolve_benchmark",
    "resolve_methods",
    "resolve_metric",
    "resolve_picks",
]

RANKINGS: Final = ("headline", "knee", "weights", "cheapest-tie")
"""Orders of the front besides the name of a metric."""


@dataclass(frozen=True, slots=True)
class AnyOf:
    """Alternatives of which one is enough; made by `any_of`."""

    values: tuple[str, ...]


def any_of(*values: str) -> AnyOf:
    """Requirement that one of `values` is supported, where a list would demand all.

    >>> any_of("gptq", "awq")
    AnyOf(values=('gptq', 'awq'))
    """
    if not values:
        raise InputError("any_of() needs at least one value")
    return AnyOf(values)


def resolve_benchmark(catalog: Catalog, name: str) -> Benchmark:
    """Benchmark called `name` or one of its aliases, hyphens and case ignored.

    Raises:
        UnknownNameError: there is none; names the nearest.
        QueryError: `name` is no text.
    """
    if not isinstance(name, str):
        raise QueryError(f"expected a name, got {shown(name)}", keyword="benchmark")
    key = _fold(name)
    for benchmark in catalog.benchmarks:
        if key in {_fold(option) for option in (benchmark.id, *benchmark.aliases)}:
            return benchmark
    raise UnknownNameError("benchmark", name, catalog.benchmark_by_id)


def resolve_metric(catalog: Catalog, benchmark: Benchmark, name: str) -> Metric:
    """Metric of `benchmark` called `name`: its id, its field, or `headline`.

    Raises:
        UnknownNameError: the benchmark has no such metric.
        QueryError: its values follow an older definition and must not be ranked.
    """
    key = benchmark.headline if name == "headline" else _fold(name)
    for candidate in benchmark.metrics:
        metric = catalog.metric_by_id[candidate]
        if key in {metric.id, metric.field}:
            if metric.retired:
                raise QueryError(f"{metric.id} cannot be ranked or bounded: {metric.retired}")
            return metric
    hint = None
    if key in catalog.metric_by_id:
        others = [one.id for one in catalog.benchmarks if key in one.metrics]
        hint = f"{key} belongs to {', '.join(others)}"
    raise UnknownNameError(
        f"metric of {benchmark.id}", name, _rankable(catalog, benchmark), hint=hint
    )


def _rankable(catalog: Catalog, benchmark: Benchmark) -> list[str]:
    return [name for name in benchmark.metrics if not catalog.metric_by_id[name].retired]


@dataclass(frozen=True, slots=True)
class Picks:
    """Methods that are named, whole or by their variants.

    Attributes:
        methods: identifiers of all that are named, whole or in part.
        whole: identifiers of those that are named as such.
        variants: `method:variant` of those of which only variants are named.
        quantization: backends of the base that the names imply.
    """

    methods: tuple[str, ...] = ()
    whole: tuple[str, ...] = ()
    variants: tuple[str, ...] = ()
    quantization: tuple[str, ...] = ()


def resolve_picks(catalog: Catalog, names: object, option: str) -> Picks:
    """What `names` (one or several, of methods, variants or combinations) stand for.

    Raises:
        UnknownNameError: nothing is called so, or several things are; names the nearest.
        QueryError: no names.
    """
    meanings = [
        method_meaning(catalog, name, keyword=option) for name in _strings(names, option).values
    ]
    whole = tuple(dict.fromkeys(one.method for one in meanings if one.variant is None))
    variants = [f"{one.method}:{one.variant}" for one in meanings if one.method not in whole]
    return Picks(
        methods=tuple(dict.fromkeys(one.method for one in meanings)),
        whole=whole,
        variants=tuple(dict.fromkeys(variants)),
        quantization=tuple(dict.fromkeys(q for one in meanings if (q := one.quantization))),
    )


def resolve_methods(catalog: Catalog, names: object, option: str) -> tuple[str, ...]:
    """Identifiers of the methods that `names` (one or several) stand for."""
    return resolve_picks(catalog, names, option).methods


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
        objectives: metrics; headline against peak memory when `None`.
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
        requirements=tuple(
            _requirements(catalog, _with_implied(demands or {}, named.quantization))
        ),
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
        usual = (benchmark.headline, "peak_memory")
        return tuple(name for name in usual if name in benchmark.metrics)
    if isinstance(objectives, str):
        return tuple(part for part in re.split(r"[,\s]+", objectives) if part)
    if isinstance(objectives, AnyOf):
        message = "they are optimised together: give a list, not any_of(...)"
        raise QueryError(message, keyword="objectives")
    return _strings(objectives, "objectives").values


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
    everywhere = {_fold(run.provenance.accelerator): run.provenance.accelerator for run in runs}
    here = [run.provenance.accelerator for run in runs if in_snapshot(run, snapshot)]
    found = everywhere.get(_fold(wanted))
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


def _fold(name: str) -> str:
    return name.strip().lower().replace("-", "_").replace(" ", "_")


def _strings(value: object, option: str) -> Requirement:
    """The names an option was given, and whether all or one of them must hold."""
    if value is None:
        return Requirement(name=option, values=())
    several = isinstance(value, AnyOf)
    items = value.values if isinstance(value, AnyOf) else value
    items = [items] if isinstance(items, str) else items
    if not isinstance(items, Iterable) or isinstance(items, Mapping):
        message = f"expected a name, a list of names or any_of(...), got {shown(value)}"
        raise QueryError(message, keyword=option)
    names = tuple(items)
    wrong = [item for item in names if not isinstance(item, str)]
    if wrong:
        raise QueryError(f"expected names, got {shown(wrong[0])}", keyword=option)
    return Requirement(
        name=option, values=tuple(dict.fromkeys(names)), mode="any" if several else "all"
    )


def _with_implied(demands: Mapping[str, object], backends: Iterable[str]) -> Mapping[str, object]:
    """The demands, with the quantized base that the name of a method implies."""
    if not backends or demands.get("quantization") is not None:
        return demands
    return {**demands, "quantization": list(backends)}


def _requirements(catalog: Catalog, demands: Mapping[str, object]) -> Iterable[Requirement]:
    singles = {feature.id for feature in catalog.features if feature.group is None}
    for name, value in demands.items():
        if value is None:
            continue
        if name in singles:
            yield Requirement(name=name, values=(_support(name, value),))
            continue
        if name not in {*GROUPS, *ATTRIBUTES, SERVE}:
            raise UnknownNameError("capability", name, [*GROUPS, *ATTRIBUTES, SERVE, *singles])
        found = _strings(value, name)
        chosen = [_value(catalog, name, item) for item in found.values]
        if chosen:
            values = tuple(dict.fromkeys(chosen))
            yield Requirement(name=name, values=values, mode=found.mode)


def _value(catalog: Catalog, name: str, item: str) -> str:
    """The value that `item` means for the option `name`."""
    if name == SERVE:
        return resolve_demand(catalog, item)
    if name in GROUPS and ":" in item:
        value, _, least = item.partition(":")
        if _fold(least) not in {"yes", "partial"}:
            raise UnknownNameError(f"support of {value}", least, ("yes", "partial"))
        found = _value(catalog, name, value)
        return f"{found}:partial" if _fold(least) == "partial" else found
    valid = _valid_values(catalog, name)
    folded = {_fold(option): option for option in valid}
    if _fold(item) not in folded:
        raise UnknownNameError(name.removesuffix("s").replace("_", " "), item, valid)
    return folded[_fold(item)]


def _support(name: str, value: object) -> str:
    if value is True or value == "yes":
        return "yes"
    if value is False or value == "no":
        return "no"
    if value == "partial":
        return "partial"
    raise QueryError(
        f"expected True (yes), 'partial' (yes or partial) or False (no), got {shown(value)}",
        keyword=name,
    )


def _valid_values(catalog: Catalog, name: str) -> tuple[str, ...]:
    if name in GROUPS:
        prefix = f"{name}."
        return tuple(
            feature.id.removeprefix(prefix) for feature in catalog.features if feature.group == name
        )
    if name == "options":
        return tuple(sorted({option for method in catalog.methods for option in method.options}))
    return get_args({"category": Category, "family": Family, "task_types": TaskType}[name])


def _bounds(
    catalog: Catalog, benchmark: Benchmark, bounds: Mapping[str, Quantity | None]
) -> Iterable[Bound]:
    found: dict[tuple[str, str], Bound] = {}
    for name, value in bounds.items():
        if value is None:
            continue
        kind, _, metric_name = name.partition("_")
        if kind not in {"min", "max"} or not metric_name:
            options = [f"{side}_{one}" for side in ("max", "min") for one in benchmark.metrics]
            raise UnknownNameError("bound", name, options)
        metric = resolve_metric(catalog, benchmark, metric_name)
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

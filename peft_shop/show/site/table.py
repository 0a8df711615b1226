"""Catalog -> the candidate table of the web page: facts alone, which the page compares.

What decides whether a figure counts, what a capability is under a run's variants, which routes work
and why not is worked out here, by the same rooms that answer a question. The page is left with
bounds, membership, fronts, ties and chances. It is about the newest snapshot and era of every
benchmark; everything else is a question for the command line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from peft_shop.adapt.circumstances import shared_circumstances
from peft_shop.ask.adapted import routed
from peft_shop.ask.answer import answer
from peft_shop.ask.bases import trains_on
from peft_shop.ask.contenders import field_of_play
from peft_shop.ask.links import VIEW
from peft_shop.ask.reading import RANKINGS, build_query
from peft_shop.ask.records import title
from peft_shop.ask.replicates import UNFIT
from peft_shop.catalog.features import EVIDENCE_LEVELS, FULL_FINETUNING
from peft_shop.catalog.short_names import shortened
from peft_shop.serve.routes import KINDS, candidate_route

if TYPE_CHECKING:
    from collections.abc import Iterable

    from peft_shop.ask.contenders import Contender
    from peft_shop.ask.query import Query
    from peft_shop.catalog.benchmarks import Benchmark
    from peft_shop.catalog.catalog import Catalog
    from peft_shop.catalog.conditions import Given
    from peft_shop.catalog.methods import Capability, Method
    from peft_shop.catalog.runs import Run
    from peft_shop.serve.routes import Route

__all__ = [
    "CONFIDENCES",
    "FORMAT",
    "Inline",
    "Texts",
    "candidate_table",
    "capability_in",
    "route_in",
    "shown_benchmarks",
]

FORMAT: Final = 1
CONFIDENCES: Final = (0.5, 0.8, 0.9, 0.95, 0.99)
"""Confidences that the page offers."""
CARDS: Final = (
    *("RTX 3060", "RTX 4070", "RTX 4080", "RTX 3090", "RTX 4090", "RTX 5090", "L4", "A10"),
    *("L40S", "A100-40GB", "A100-80GB", "H100"),
)
"""Devices that the page offers by name."""


class Texts:
    """Each text once, called by its place; the empty text is 0."""

    def __init__(self) -> None:
        self.places: dict[str, int] = {"": 0}

    def place(self, text: str | None) -> int:
        """Place of `text`, which is added when it is new."""
        return self.places.setdefault(text or "", len(self.places))

    @property
    def all(self) -> list[str]:
        """The texts in the order of their places."""
        return list(self.places)


class Inline:
    """Each text in its own place, for records that stand apart from the table."""

    def place(self, text: str | None) -> str:
        """The text itself."""
        return text or ""


def candidate_table(catalog: Catalog) -> dict[str, Any]:
    """Everything that the page needs to answer, as plain data; equal for equal catalogs."""
    texts = Texts()
    return {
        "format": FORMAT,
        "catalogVersion": catalog.catalog_version,
        "peftVersion": catalog.peft_version,
        "licence": catalog.licence,
        "view": sorted(VIEW),
        "levels": list(EVIDENCE_LEVELS),
        "rankings": [name for name in RANKINGS if name != "weights"],
        "confidences": list(CONFIDENCES),
        "features": [feature.model_dump(mode="json") for feature in catalog.features],
        "metrics": [
            {**metric.model_dump(mode="json", exclude_none=True), "label": metric.label}
            for metric in catalog.metrics
        ],
        "engines": [
            {
                "id": engine.id,
                "title": engine.title,
                "version": engine.version,
                "models": engine.models,
            }
            for engine in catalog.engines
        ],
        "kinds": list(KINDS),
        "cards": cards(),
        "methods": [_method(catalog, method, texts) for method in catalog.methods],
        "benchmarks": [
            _benchmark(catalog, shown_benchmark, texts)
            for shown_benchmark in shown_benchmarks(catalog)
        ],
        "sources": [
            {
                "id": source.id,
                "project": source.project,
                "licence": source.licence,
                "url": source.url,
            }
            for source in catalog.sources
        ],
        "texts": texts.all,
    }


def shown_benchmarks(catalog: Catalog) -> list[Benchmark]:
    """Those that the page answers from; who wants another one asks in the terminal."""
    return [benchmark for benchmark in catalog.benchmarks if not benchmark.on_request]


def cards() -> list[dict[str, Any]]:
    """Devices that leave the allocator the same memory [B], smallest first."""
    from peft_shop.forecast.devices import devices  # noqa: PLC0415 - a room that works on models

    known = {device.name: device for device in devices()}
    alike: dict[int, list[str]] = {}
    for name in CARDS:
        if name in known:
            alike.setdefault(known[name].usable_bytes, []).append(name)
    return [{"names": names, "usable": size} for size, names in sorted(alike.items())]


def _capability(capability: Capability, texts: Texts) -> list[Any]:
    """As on the models that were measured, which a question without a model is about."""
    return capability_in(
        capability, texts, {**shared_circumstances(), "dtype": frozenset({"bfloat16"})}
    )


def capability_in(capability: Capability, texts: Texts | Inline, given: Given) -> list[Any]:
    """Support as a demand sees it, its level, its note, and the support that is on file.

    Args:
        capability: the capability.
        texts: where the note goes.
        given: what is known of the base, which conditions are held against.
    """
    support = trains_on(capability, given)
    found: list[Any] = [
        support[0],
        EVIDENCE_LEVELS.index(capability.level),
        texts.place(capability.note),
    ]
    return found if support == capability.support else [*found, capability.support[0]]


def _method(catalog: Catalog, method: Method, texts: Texts) -> dict[str, Any]:
    return {
        "id": method.id,
        "title": method.title,
        "class": method.config_class,
        "summary": method.summary,
        "family": method.family,
        "category": method.category,
        "task_types": list(method.task_types),
        "options": list(method.options),
        "aliases": list(method.aliases),
        "paper": None if method.paper is None else method.paper.model_dump(mode="json"),
        "since": method.since,
        "notes": list(method.notes),
        "requires": list(method.requires),
        "capabilities": [
            _capability(method.capabilities[feature.id], texts) for feature in catalog.features
        ],
        "variants": [
            {
                "id": variant.id,
                "title": variant.title,
                "summary": variant.summary,
                "paper": None if variant.paper is None else variant.paper.model_dump(mode="json"),
                "since": variant.since,
            }
            for variant in method.variants
        ],
    }


def _benchmark(catalog: Catalog, benchmark: Benchmark, texts: Texts) -> dict[str, Any]:
    query = build_query(catalog, benchmark=benchmark.id)
    field = field_of_play(catalog, query)
    usual = answer(catalog, query)
    return {
        "id": benchmark.id,
        "aliases": [benchmark.title, *benchmark.aliases],
        "title": benchmark.title,
        "model": benchmark.model_id,
        "modality": benchmark.modality,
        "description": benchmark.description,
        "headline": benchmark.headline,
        "metrics": list(benchmark.metrics),
        "objectives": list(query.objectives),
        "floor": benchmark.floor,
        "floorBecause": benchmark.floor_because,
        "certainty": query.certainty,
        "snapshot": query.snapshot,
        "era": query.era,
        "eras": {era.id: era.title for era in benchmark.eras},
        "warnings": [*field.warnings, *benchmark.caveats],
        "engines": [
            place for place, one in enumerate(catalog.engines) if benchmark.modality in one.models
        ],
        "foreign": {
            str(place): _route(catalog, benchmark, place, catalog.methods[0].id, texts)
            for place, engine in enumerate(catalog.engines)
            if benchmark.modality not in engine.models
        },
        "baselines": {baseline.kind: baseline.name for baseline in usual.baselines},
        "rows": [_row(catalog, query, contender, texts) for contender in field.contenders],
        "whole": [_row(catalog, query, baseline, texts) for baseline in field.baselines],
    }


def _row(catalog: Catalog, query: Query, contender: Contender, texts: Texts) -> dict[str, Any]:
    benchmark = catalog.benchmark_by_id[query.benchmark]
    known = {method.id: place for place, method in enumerate(catalog.methods)}
    row: dict[str, Any] = {
        "name": contender.name,
        "title": title(catalog, contender.method, contender.variants),
        "method": known.get(contender.method, -1),
        "late": [] if contender.method == FULL_FINETUNING else _late(catalog, contender, texts),
    }
    if contender.method != FULL_FINETUNING:
        row["routes"] = _routes(catalog, benchmark, contender, texts)
    if contender.run is None:
        return row
    metrics = benchmark.metrics
    row |= {
        "short": shortened(catalog, contender.run, contender.name),
        "variants": list(contender.variants),
        "era": contender.run.era,
        "values": [contender.values.get(name) for name in metrics],
        "noise": {
            str(metrics.index(name)): [
                sd,
                contender.rerun_sds.get(name, sd),
                contender.degrees.get(name),
            ]
            for name, sd in contender.sds.items()
            if name in metrics
        },
        "unusable": [texts.place(contender.unusable.get(name)) for name in metrics],
        "flags": [
            [
                flag.code,
                [catalog.metric_by_field[name].id for name in flag.metrics],
                texts.place(flag.reason),
                flag.code in UNFIT,
            ]
            for flag in contender.run.flags
        ],
    }
    if contender.paired_sds:
        row["paired"] = {
            str(metrics.index(k)): dict(sds) for k, sds in contender.paired_sds.items()
        }
    if contender.method in catalog.method_by_id:
        row["capabilities"] = _own_capabilities(catalog, contender, texts)
    return row


def _own_capabilities(catalog: Catalog, contender: Contender, texts: Texts) -> dict[str, list[Any]]:
    """Capabilities that its variants change, by the place of the feature."""
    method = catalog.method_by_id[contender.method]
    found = {}
    for place, feature in enumerate(catalog.features):
        own = method.capability(feature.id, contender.variants)
        if own != method.capabilities[feature.id]:
            found[str(place)] = _capability(own, texts)
    return found


def _late(catalog: Catalog, contender: Contender, texts: Texts) -> list[list[Any]]:
    """What needs a peft, in the order in which a demand names it: release and reason.

    The first entry is the method's own, after which nothing else counts. A release of `None` is
    one that no peft is known to reach.
    """
    method = catalog.method_by_id[contender.method]
    since = method.since or catalog.peft_version
    found: list[list[Any]] = [[since, texts.place(f"needs peft {since} or newer")]]
    for variant in method.variants:
        if variant.id in contender.variants and variant.since:
            needed = f"{variant.title} needs peft {variant.since} or newer"
            found.append([variant.since, texts.place(needed)])
    keys: Iterable[str] = (
        contender.run.recipe.config if contender.run is not None and method.fields else ()
    )
    for key in keys:
        first = method.fields.get(key)
        needed = f"needs peft {first} or newer" if first else "is not known to any release"
        found.append([first, texts.place(f"the option {key!r} {needed}")])
    return found


def _routes(
    catalog: Catalog, benchmark: Benchmark, contender: Contender, texts: Texts
) -> dict[str, list[Any]]:
    """Routes by the place of the engine; engines for other models have one for all candidates."""
    return {
        str(place): _route(catalog, benchmark, place, contender.run or contender.method, texts)
        for place, engine in enumerate(catalog.engines)
        if benchmark.modality in engine.models
    }


def _route(
    catalog: Catalog, benchmark: Benchmark, place: int, subject: Run | str, texts: Texts
) -> list[Any]:
    engine = catalog.engines[place].id
    return _told(candidate_route(catalog, engine, benchmark.id, subject), texts)


def route_in(
    catalog: Catalog, query: Query, place: int, contender: Contender, texts: Texts | Inline
) -> list[Any]:
    """Route of a candidate to the engine at `place` on the question's model."""
    return _told(routed(catalog, query, contender, catalog.engines[place].id), texts)


def _told(route: Route, texts: Texts | Inline) -> list[Any]:
    """Best kind, kinds that work, obstacles of all kinds and of each, 1 where it fails silently."""
    return [
        route.kind,
        [place for place, kind in enumerate(KINDS) if route.reaches((kind,))],
        texts.place(route.obstacles() or None),
        *(texts.place(route.obstacles((kind,)) or None) for kind in KINDS),
        int(route.silent),
    ]

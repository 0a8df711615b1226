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
from peft_shop.ask.answering import answer, title
from peft_shop.ask.bases import trains_on
from peft_shop.ask.contenders import field_of_play
from peft_shop.ask.links import VIEW
from peft_shop.ask.reading import RANKINGS, build_query
from peft_shop.ask.replicates import UNFIT
from peft_shop.catalog.features import EVIDENCE_LEVELS, FULL_FINETUNING
from peft_shop.catalog.short_names import shortened
from peft_shop.serve.routes import KINDS, candidate_route

if TYPE_CHECKING:
    from collections.abc import Iterable

    from peft_shop.ask.contenders import Contender
    from peft_shop.ask.query import Query
    from peft_shop.catalog.catalog import Catalog
    from peft_shop.catalog.conditions import Given
    from peft_shop.catalog.methods import Capability, Method
    from peft_shop.catalog.runs import Benchmark, Run
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
        "features": [one.model_dump(mode="json") for one in catalog.features],
        "metrics": [
            {**one.model_dump(mode="json", exclude_none=True), "label": one.label}
            for one in catalog.metrics
        ],
        "engines": [
            {"id": one.id, "title": one.title, "version": one.version, "models": one.models}
            for one in catalog.engines
        ],
        "kinds": list(KINDS),
        "cards": cards(),
        "methods": [_method(catalog, one, texts) for one in catalog.methods],
        "benchmarks": [_benchmark(catalog, one, texts) for one in shown_benchmarks(catalog)],
        "sources": [
            {"id": one.id, "project": one.project, "licence": one.licence, "url": one.url}
            for one in catalog.sources
        ],
        "texts": texts.all,
    }


def shown_benchmarks(catalog: Catalog) -> list[Benchmark]:
    """Those that the page answers from; who wants another one asks in the terminal."""
    return [one for one in catalog.benchmarks if not one.on_request]


def cards() -> list[dict[str, Any]]:
    """Devices that leave the allocator the same memory [B], smallest first."""
    from peft_shop.forecast.devices import devices  # noqa: PLC0415 - a room that works on models

    known = {one.name: one for one in devices()}
    alike: dict[int, list[str]] = {}
    for name in CARDS:
        if name in known:
            alike.setdefault(known[name].usable_bytes, []).append(name)
    return [{"names": names, "usable": size} for size, names in sorted(alike.items())]


def _capability(one: Capability, texts: Texts) -> list[Any]:
    """As on the models that were measured, which a question without a model is about."""
    return capability_in(one, texts, {**shared_circumstances(), "dtype": frozenset({"bfloat16"})})


def capability_in(one: Capability, texts: Texts | Inline, given: Given) -> list[Any]:
    """Support as a demand sees it, its level, its note, and the support that is on file.

    Args:
        one: the capability.
        texts: where the note goes.
        given: what is known of the base, which conditions are held against.
    """
    support = trains_on(one, given)
    found: list[Any] = [support[0], EVIDENCE_LEVELS.index(one.level), texts.place(one.note)]
    return found if support == one.support else [*found, one.support[0]]


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
            _capability(method.capabilities[one.id], texts) for one in catalog.features
        ],
        "variants": [
            {
                "id": one.id,
                "title": one.title,
                "summary": one.summary,
                "paper": None if one.paper is None else one.paper.model_dump(mode="json"),
                "since": one.since,
            }
            for one in method.variants
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
        "eras": {one.id: one.title for one in benchmark.eras},
        "warnings": [*field.warnings, *benchmark.caveats],
        "engines": [
            place for place, one in enumerate(catalog.engines) if benchmark.modality in one.models
        ],
        "foreign": {
            str(place): _route(catalog, benchmark, place, catalog.methods[0].id, texts)
            for place, engine in enumerate(catalog.engines)
            if benchmark.modality not in engine.models
        },
        "baselines": {one.kind: one.name for one in usual.baselines},
        "rows": [_row(catalog, query, one, texts) for one in field.contenders],
        "whole": [_row(catalog, query, one, texts) for one in field.baselines],
    }


def _row(catalog: Catalog, query: Query, one: Contender, texts: Texts) -> dict[str, Any]:
    benchmark = catalog.benchmark_by_id[query.benchmark]
    known = {method.id: place for place, method in enumerate(catalog.methods)}
    row: dict[str, Any] = {
        "name": one.name,
        "title": title(catalog, one.method, one.variants),
        "method": known.get(one.method, -1),
        "late": [] if one.method == FULL_FINETUNING else _late(catalog, one, texts),
    }
    if one.method != FULL_FINETUNING:
        row["routes"] = _routes(catalog, benchmark, one, texts)
    if one.run is None:
        return row
    metrics = benchmark.metrics
    row |= {
        "short": shortened(catalog, one.run, one.name),
        "variants": list(one.variants),
        "era": one.run.era,
        "values": [one.values.get(name) for name in metrics],
        "noise": {
            str(metrics.index(name)): [sd, one.rerun_sds.get(name, sd), one.degrees.get(name)]
            for name, sd in one.sds.items()
            if name in metrics
        },
        "unusable": [texts.place(one.unusable.get(name)) for name in metrics],
        "flags": [
            [
                flag.code,
                [catalog.metric_by_field[name].id for name in flag.metrics],
                texts.place(flag.reason),
                flag.code in UNFIT,
            ]
            for flag in one.run.flags
        ],
    }
    if one.paired_sds:
        row["paired"] = {str(metrics.index(k)): dict(sds) for k, sds in one.paired_sds.items()}
    if one.method in catalog.method_by_id:
        row["capabilities"] = _own_capabilities(catalog, one, texts)
    return row


def _own_capabilities(catalog: Catalog, one: Contender, texts: Texts) -> dict[str, list[Any]]:
    """Capabilities that its variants change, by the place of the feature."""
    method = catalog.method_by_id[one.method]
    found = {}
    for place, feature in enumerate(catalog.features):
        own = method.capability(feature.id, one.variants)
        if own != method.capabilities[feature.id]:
            found[str(place)] = _capability(own, texts)
    return found


def _late(catalog: Catalog, one: Contender, texts: Texts) -> list[list[Any]]:
    """What needs a peft, in the order in which a demand names it: release and reason.

    The first entry is the method's own, after which nothing else counts. A release of `None` is
    one that no peft is known to reach.
    """
    method = catalog.method_by_id[one.method]
    since = method.since or catalog.peft_version
    found: list[list[Any]] = [[since, texts.place(f"needs peft {since} or newer")]]
    for variant in method.variants:
        if variant.id in one.variants and variant.since:
            needed = f"{variant.title} needs peft {variant.since} or newer"
            found.append([variant.since, texts.place(needed)])
    keys: Iterable[str] = one.run.recipe.config if one.run is not None and method.fields else ()
    for key in keys:
        first = method.fields.get(key)
        needed = f"needs peft {first} or newer" if first else "is not known to any release"
        found.append([first, texts.place(f"the option {key!r} {needed}")])
    return found


def _routes(
    catalog: Catalog, benchmark: Benchmark, one: Contender, texts: Texts
) -> dict[str, list[Any]]:
    """Routes by the place of the engine; engines for other models have one for all candidates."""
    return {
        str(place): _route(catalog, benchmark, place, one.run or one.method, texts)
        for place, engine in enumerate(catalog.engines)
        if benchmark.modality in engine.models
    }


def _route(
    catalog: Catalog, benchmark: Benchmark, place: int, subject: Run | str, texts: Texts
) -> list[Any]:
    engine = catalog.engines[place].id
    return _told(candidate_route(catalog, engine, benchmark.id, subject), texts)


def route_in(
    catalog: Catalog, query: Query, place: int, one: Contender, texts: Texts | Inline
) -> list[Any]:
    """Route of a candidate to the engine at `place` on the question's model."""
    return _told(routed(catalog, query, one, catalog.engines[place].id), texts)


def _told(route: Route, texts: Texts | Inline) -> list[Any]:
    """Best kind, kinds that work, obstacles of all kinds and of each, 1 where it fails silently."""
    return [
        route.kind,
        [place for place, kind in enumerate(KINDS) if route.reaches((kind,))],
        texts.place(route.obstacles() or None),
        *(texts.place(route.obstacles((kind,)) or None) for kind in KINDS),
        int(route.silent),
    ]

"""Adapter x base x engine -> Route: how what was trained reaches the server that is to serve it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Literal

from peft_shop.catalog.features import FULL_FINETUNING
from peft_shop.catalog.methods import PLAIN
from peft_shop.errors import QueryError, UnknownNameError
from peft_shop.records import Record
from peft_shop.serve import ways
from peft_shop.serve.adapter import adapter_of_method, adapter_of_run
from peft_shop.serve.bases import base_of_structure
from peft_shop.serve.cases import KINDS, Basis, Way

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from peft_shop.catalog.catalog import Catalog
    from peft_shop.catalog.engines import Engine
    from peft_shop.catalog.runs import Run
    from peft_shop.model.structure import Structure
    from peft_shop.records import Json
    from peft_shop.serve.adapter import Adapter

__all__ = [
    "KINDS",
    "Basis",
    "Route",
    "Way",
    "candidate_route",
    "demanded",
    "resolve_demand",
    "resolve_engine",
    "route",
    "routes",
]


class Route(Record):
    """How one adapter reaches one engine.

    Attributes:
        adapter: its name.
        engine: identifier of the engine.
        version: of the engine that the facts are about.
        kind: of the best way that works; `unknown` where none is known to work and one may,
            `none` where all are known not to.
        ways: what works first, best first: native, an exact conversion, merging.
        base: what the base is taken for, and by what evidence; `None` where nobody asked about
            one, or nothing tells.
    """

    adapter: str
    engine: str
    version: str
    base: str | None = None
    kind: Literal["native", "convert", "merge", "unknown", "none"]
    ways: tuple[Way, ...]

    @property
    def best(self) -> Way | None:
        """The best way that works; `None` where none is known to."""
        return self.ways[0] if self.ways and self.ways[0].works == "yes" else None

    def reaches(self, kinds: Iterable[str] = KINDS) -> bool:
        """Whether a way of one of `kinds` is known to work."""
        return any(way.works == "yes" and way.kind in set(kinds) for way in self.ways)

    @property
    def silent(self) -> bool:
        """Whether the engine loads the adapter as it is and computes something else."""
        return any(way.silent for way in self.ways if way.kind == "native")

    def obstacles(self, kinds: Iterable[str] = KINDS) -> str:
        """Why no way of `kinds` is known to work, in words; what goes wrong in silence first."""
        chosen = set(kinds)
        found: dict[tuple[str, ...], list[str]] = {}
        for way in sorted(self.ways, key=lambda way: not way.silent):
            if way.kind in chosen and way.works != "yes":
                state = "silently wrong" if way.silent else way.works
                found.setdefault(way.reasons, []).append(f"{way.name} ({state})")
        return "; ".join(
            f"{', '.join(states)}: {', '.join(text.rstrip('.') for text in reasons)}"
            for reasons, states in found.items()
        )


# --- names ---


def resolve_engine(catalog: Catalog, name: str) -> Engine:
    """Engine called `name` or one of its aliases; case, dots, hyphens and spaces are ignored.

    Raises:
        UnknownNameError: there is none; names the nearest.
    """
    if name in catalog.engine_by_id:
        return catalog.engine_by_id[name]
    for engine in catalog.engines:
        if _fold(name) in {_fold(option) for option in (engine.id, engine.title, *engine.aliases)}:
            return engine
    hint = None if catalog.engines else "this catalog knows no engines; compile it anew"
    raise UnknownNameError("engine", name, catalog.engine_by_id, hint=hint)


def _fold(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())


def resolve_demand(catalog: Catalog, text: str) -> str:
    """A demand such as `vllm` or `vLLM:native` in its usual spelling.

    Raises:
        UnknownNameError: there is no such engine or kind of way; names the nearest.
        QueryError: a part is missing.
    """
    name, colon, kind = text.partition(":")
    if not name.strip() or (colon and not kind.strip()):
        raise QueryError(f"serve: expected an engine such as 'vllm' or 'vllm:native', got {text!r}")
    engine = resolve_engine(catalog, name)
    if not colon:
        return engine.id
    wanted = kind.strip().lower()
    if wanted not in KINDS:
        raise UnknownNameError("kind of route", kind, KINDS)
    return f"{engine.id}:{wanted}"


def candidate_route(
    catalog: Catalog,
    engine: str,
    benchmark: str,
    subject: Run | str,
    *,
    model: Structure | None = None,
    config: Mapping[str, Json] | None = None,
) -> Route:
    """Route of a run, or of a method without one, to an engine; worked out once per catalog.

    Args:
        catalog: holds the facts.
        engine: identifier of the engine.
        benchmark: whose kind of model it is about where `model` names none.
        subject: the run, or the identifier of the method.
        model: the base, inspected.
        config: the configuration for that model; as measured where there is none.
    """
    base = None if model is None else base_of_structure(model)
    place = json.dumps(dict(config), sort_keys=True, default=list) if config is not None else None
    name = subject if isinstance(subject, str) else subject.id
    key = ("route", engine, benchmark, name, base, place)
    if key not in catalog.derived:
        models = catalog.benchmark_by_id[benchmark].modality
        adapter = (
            adapter_of_method(catalog.method_by_id[subject], models=models)
            if isinstance(subject, str)
            else adapter_of_run(subject, models)
        )
        if base is not None:
            adapter = adapter.on(base, config)
        catalog.derived[key] = route(catalog, adapter, engine)
    found: Route = catalog.derived[key]
    return found


def demanded(text: str) -> tuple[str, tuple[str, ...]]:
    """Engine and kinds of ways in a demand that `resolve_demand` gave."""
    engine, _, kind = text.partition(":")
    return engine, (kind,) if kind else KINDS


# --- the evaluator ---


def routes(catalog: Catalog, adapter: Adapter) -> tuple[Route, ...]:
    """Routes of an adapter to every engine, in the catalog's order."""
    return tuple(route(catalog, adapter, engine.id) for engine in catalog.engines)


def route(catalog: Catalog, adapter: Adapter, engine: str) -> Route:
    """How `adapter` reaches the engine called `engine`, on the base that is known of it.

    Depends on the adapter, on what is known of its base and on the catalog's facts alone.

    Raises:
        UnknownNameError: there is no such engine; names the nearest.
    """
    target = resolve_engine(catalog, engine)
    if adapter.models is not None and adapter.models not in target.models:
        served = " and ".join(target.models)
        reason = f"the facts are about {served} models, not about {adapter.models} models"
        found = [Way(kind=kind, works="unknown", reasons=(reason,)) for kind in KINDS]
    elif adapter.method == FULL_FINETUNING:
        found = [ways.whole_model(target, adapter.base)]
    else:
        native = ways.native(target, adapter)
        converted = ways.conversions(catalog, target, adapter)
        if adapter.method == PLAIN and native.works == "yes" and not native.warnings:
            converted = ()  # LoRA to LoRA gains nothing
        found = [native, *converted, ways.merged(catalog, target, adapter)]
    order = ("yes", "unknown", "no")
    found.sort(key=lambda way: order.index(way.works))  # stable: best first among equals
    best, base = found[0], adapter.base
    return Route(
        adapter=adapter.name,
        engine=target.id,
        version=target.version,
        base=None if base is None or not base.kinds else f"{base.title}, {base.how}",
        kind=best.kind if best.works == "yes" else "unknown" if best.works == "unknown" else "none",
        ways=tuple(found),
    )

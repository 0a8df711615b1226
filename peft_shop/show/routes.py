"""How adapters reach engines: a table of all, the page of one, one sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from peft_shop.serve.loading import least_flag
from peft_shop.show.documents import Cell, Column, Document, Item, Listing, Row, Table, label

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from peft_shop.catalog.catalog import Catalog
    from peft_shop.catalog.engines import Engine
    from peft_shop.serve.adapter import Adapter
    from peft_shop.serve.cases import Way
    from peft_shop.serve.routes import Route
    from peft_shop.show.documents import Value

__all__ = ["route_document", "route_records", "route_sentence", "routes_document"]

_FOOTNOTES: Final = (
    (
        "native: loads it as it is; convert: a LoRA is made of it first, by peft or by `peft-shop "
        "convert`; merge: a full copy of the model per task; unknown: nobody knows of a way that "
        "works; none: there is none."
    ),
    "`--engine NAME` tells the facts behind one route, with what goes wrong otherwise.",
)


_ITSELF: Final = " must serve the base model itself."
_SILENT: Final = "Not as it is: it loads, and something else answers without a word"


def route_sentence(route: Route) -> str:
    """The best way to an engine and what it takes, in one paragraph."""
    best = route.best
    if best is None:
        return f"{route.engine}: no way is known to work: {route.obstacles()}."
    text = f"{route.engine} {route.version}: {_kind(best)}. {' '.join(best.conditions)}"
    if best.warnings:
        text += f" Careful: {' '.join(best.warnings)}"
    return text.strip()


def _kind(way: Way) -> str:
    words = {
        "native": "loads it as it is",
        "convert": "after conversion to LoRA",
        "merge": "merged",
    }
    text = words[way.kind]
    if way.kind == "convert" and way.rank is not None:
        text += f" of rank {way.rank}"
    return text


def route_records(routes: Iterable[Route]) -> list[dict[str, Value]]:
    """Every way to every engine, one dictionary each; several texts are joined by spaces."""
    return [
        {
            "adapter": route.adapter,
            "engine": route.engine,
            "version": route.version,
            "route": route.kind,
            "way": way.kind,
            "by": way.by,
            "works": way.works,
            "silent": way.silent,
            "exact": way.exact if way.works == "yes" else None,
            "rank": way.rank,
            "reasons": "; ".join(way.reasons) or None,
            "conditions": " ".join(way.conditions) or None,
            "warnings": " ".join(way.warnings) or None,
        }
        for route in routes
        for way in route.ways
    ]


def routes_document(
    adapter: Adapter, routes: Sequence[Route], titles: Mapping[str, str] | None = None
) -> Document:
    """The best way to each engine; engines with the same verdict share a row.

    Args:
        adapter: what is served.
        routes: its routes.
        titles: how engines call themselves, by identifier: what is said of one reads alike.
    """
    groups: dict[tuple[str, str, str], list[Route]] = {}
    for route in routes:
        best = route.best
        todo = " ".join(best.conditions) if best else f"{route.obstacles()}."
        if best and route.silent:
            todo = f"{_silence(route)} {todo}"
        title = (titles or {}).get(route.engine)
        if title and todo.endswith(f" {title}{_ITSELF}"):
            todo = f"{todo.removesuffix(f'{title}{_ITSELF}')}The engine{_ITSELF}"
        kinds = {way.kind: None for way in route.ways[1:] if way.works == "yes"}
        others = " ".join(kind for kind in kinds if kind != route.kind)
        rank = best.rank if best else None
        kind = route.kind if rank is None else f"{route.kind}, rank {rank}"
        groups.setdefault((kind, others, todo), []).append(route)

    def row(verdict: tuple[str, str, str], same: Sequence[Route]) -> Row:
        kind, others, todo = verdict
        engines = ", ".join(route.engine for route in same)
        versions = ", ".join(route.version for route in same)
        return Row(
            (
                Cell(engines, ", ".join(route.engine for route in same)),
                Cell(kind, same[0].kind),
                Cell(others or "-", others or None),
                Cell(todo or "Nothing.", todo or None),
                Cell(versions, versions),
            )
        )

    return Document(
        title=f"Routes of {adapter.name} to {len(routes)} engines",
        paragraphs=(*_about(adapter), *_base(routes)),
        parts=(
            Table(
                key="routes",
                title="",
                columns=(
                    Column("engine", "Engine", least=18),
                    Column("route", "Route", least=8),
                    Column("also", "Also", least=7, priority=2),
                    Column("conditions", "What to do, or what stands in the way", least=24),
                    Column("version", "Facts about", least=10, priority=3),
                ),
                rows=tuple(row(verdict, same) for verdict, same in groups.items()),
            ),
        ),
        footnotes=_FOOTNOTES,
    )


def _silence(route: Route) -> str:
    """What goes wrong without a word if the adapter is loaded as it is."""
    reasons = [way.reasons[0] for way in route.ways if way.silent and way.kind == "native"]
    return f"{_SILENT}: {reasons[0].rstrip('.')}." if reasons else ""


def _base(routes: Iterable[Route]) -> Iterable[str]:
    known = next((route.base for route in routes if route.base), None)
    if known:
        yield f"Base: {known}."


def _about(adapter: Adapter) -> Iterable[str]:
    if not adapter.stated:
        yield "About the method as such: a run or a saved adapter also has ranks and a scale."
    elif adapter.ranks:
        low, high = min(adapter.ranks), max(adapter.ranks)
        alpha = f", lora_alpha {adapter.alpha:g}" if adapter.alpha is not None else ""
        yield f"Rank {low if low == high else f'{low} to {high}'}{alpha}."


def route_document(catalog: Catalog, adapter: Adapter, route: Route) -> Document:
    """Every way to one engine, the facts that they rest on, and the engine's hazards."""
    engine = catalog.engine_by_id[route.engine]
    parts: list[Table | Listing] = [
        Listing(
            "Ways",
            tuple(
                Item(f"{way.name} ({_verdict(way)}):", _texts(way))
                # what goes wrong without a word is read first
                for way in sorted(route.ways, key=lambda way: not way.silent)
            ),
        ),
        *_command(engine, adapter, route),
        Table(
            key="facts",
            title="Facts behind it",
            columns=(
                Column("about", "About", least=9),
                Column("topic", "Topic", least=12),
                Column("value", "Found", least=7),
                Column("place", "Source", least=20),
                Column("version", "Version", least=8, priority=1),
                Column("date", "Date", least=10, priority=2),
            ),
            rows=tuple(
                Row(
                    (
                        label(one.about),
                        label(one.topic),
                        label(one.value),
                        label(one.place),
                        label(one.version),
                        Cell(one.date or "-", one.date),
                    )
                )
                for one in dict.fromkeys(fact for way in route.ways for fact in way.basis)
            ),
        ),
    ]
    remarks = [hazard.text for hazard in engine.hazards]
    if engine.layers:
        remarks.append(f"Layers: {engine.layers}")
    if remarks:
        parts.append(
            Listing(f"Also know of {engine.title}", tuple(Item("", (text,)) for text in remarks))
        )
    return Document(
        title=f"{adapter.name} to {engine.title} {engine.version}: {route.kind}",
        paragraphs=(*_about(adapter), *_base([route])),
        parts=tuple(parts),
        footnotes=(f"Facts about {engine.title} were read on {engine.checked}.",),
    )


def _command(engine: Engine, adapter: Adapter, route: Route) -> Iterable[Listing]:
    """How the engine is started with the adapter, where it loads one."""
    best = route.best
    if engine.command is None or best is None or best.kind == "merge":
        return
    rank = best.rank if best.rank is not None else max(adapter.ranks, default=None)
    values = {
        "BASE": adapter.base.name if adapter.base is not None else None,
        "RANK": None if rank is None else str(least_flag(engine.ranks, rank)),
    }
    line = engine.command.line
    for name, value in values.items():
        line = line.replace(name, value or name)
    yield Listing("Start it", (Item("", (line,)),))


def _verdict(way: Way) -> str:
    if way.works == "yes":
        rank = f", rank {way.rank}" if way.rank is not None else ""
        return f"works, {'exact' if way.exact else 'approximate'}{rank}"
    if way.silent:
        return "loads, and something else answers without a word"
    return "does not work" if way.works == "no" else "unknown"


def _texts(way: Way) -> tuple[str, ...]:
    found = [f"{text.rstrip('.')}." for text in way.reasons]
    found += way.conditions
    found += [f"Careful: {text}" for text in way.warnings]
    return tuple(found) or ("Nothing to be done.",)

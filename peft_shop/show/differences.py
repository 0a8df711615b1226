"""What changed for a user between two catalogs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from peft_shop.show.documents import Column, Document, Row, Table, Value, plain

if TYPE_CHECKING:
    from collections.abc import Iterable

    from peft_shop.catalog.difference import CatalogDifference

__all__ = ["difference_document"]


def difference_document(difference: CatalogDifference) -> Document:
    """What changed for a user from one catalog to another."""
    changes = list(_changes(difference))
    return Document(
        title="What changed",
        paragraphs=() if changes else ("Nothing changed for a user.",),
        parts=(
            Table(
                key="changes",
                title="",
                columns=(
                    Column("kind", "Kind", least=10),
                    Column("what", "What", least=24),
                    Column("old", "Before", least=12),
                    Column("new", "Now", least=12),
                ),
                rows=tuple(Row(tuple(plain(value) for value in change)) for change in changes),
            ),
        )
        if changes
        else (),
    )


def _changes(difference: CatalogDifference) -> Iterable[tuple[Value, Value, Value, Value]]:
    for version in difference.versions:
        yield ("version", version.field, str(version.old), str(version.new))
    for front in difference.fronts:
        for state, names in (("entered", front.entered), ("left", front.left)):
            before, now = (state == "left", state == "entered")
            for name in names:
                yield ("front", f"{front.benchmark}: {name}", _on(before), _on(now))
    kinds = ("methods", "variants", "engines", "conversions", "trainers")
    for kind in (*kinds, "benchmarks", "metrics", "snapshots", "runs"):
        for state in ("added", "removed"):
            for name in getattr(difference, f"{kind}_{state}"):
                there = (None, "present") if state == "added" else ("present", None)
                yield (kind.removesuffix("s"), name, *there)
    for capability in difference.capabilities:
        name = (
            f"{capability.method}/{capability.variant}" if capability.variant else capability.method
        )
        yield (
            "capability",
            f"{name}: {capability.feature}",
            _judged(capability.old),
            _judged(capability.new),
        )
    yield from _record_changes(difference)
    for run in difference.runs_changed:
        for change in run.changes:
            what = f"{run.benchmark}:{run.run}: {change.field}"
            yield ("run", what, _short(change.old), _short(change.new))


def _record_changes(difference: CatalogDifference) -> Iterable[tuple[Value, Value, Value, Value]]:
    for title, records in (
        ("fidelity", difference.fidelities_changed),
        ("engine", difference.engines_changed),
        ("conversion", difference.conversions_changed),
        ("trainer", difference.trainers_changed),
    ):
        for record in records:
            for change in record.changes:
                what = f"{record.name}: {change.field}"
                yield (title, what, _short(change.old), _short(change.new))


def _on(there: bool) -> str | None:
    return "on the front" if there else None


def _judged(found: tuple[str, str] | None) -> str | None:
    return " ".join(found) if found else None


def _short(value: object) -> str | None:
    if value is None:
        return None
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."

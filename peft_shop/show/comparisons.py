"""Methods and runs side by side: figures with certainty, recipes, capabilities."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from peft_shop.ask.beside import orders_of
from peft_shop.ask.placing import places
from peft_shop.show.beside import beside_parts
from peft_shop.show.documents import Cell, Column, Document, Item, Listing, Row, Table, label
from peft_shop.show.doubts import again
from peft_shop.show.figures import comparison, figure, heading
from peft_shop.units import format_quantity

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from peft_shop.ask.lookup import Subject
    from peft_shop.ask.placing import Place
    from peft_shop.ask.query import Query
    from peft_shop.catalog.benchmarks import Benchmark, Metric
    from peft_shop.catalog.catalog import Catalog
    from peft_shop.catalog.methods import Method
    from peft_shop.catalog.runs import Run
    from peft_shop.show.documents import Value

__all__ = ["compare_document"]


def compare_document(
    catalog: Catalog, query: Query, subjects: Sequence[Subject], *, everything: bool = False
) -> Document:
    """Runs, or methods with their best runs, side by side.

    Args:
        catalog: for metrics and features.
        query: benchmark, snapshot and era of the figures, and the objectives.
        subjects: what to compare; differences are told against the first one with a run.
        everything: also show what is the same for all.
    """
    benchmark = catalog.benchmark_by_id[query.benchmark]
    every = (catalog.metric_by_id[name] for name in benchmark.metrics)
    metrics = [metric for metric in every if not metric.retired]
    metrics.sort(key=lambda metric: metric.id != benchmark.headline)
    parts: list[Table | Listing] = [
        Listing("Compared", tuple(_who(place, subject) for place, subject in enumerate(subjects))),
        _figures(subjects, metrics),
        _places(catalog, benchmark, subjects),
    ]
    differences = _differences(subjects, [m for m in metrics if m.id in query.objectives])
    if differences:
        parts.append(differences)
    orders = orders_of(catalog, benchmark)
    if orders is not None:
        runs = [subject.contender.run for subject in subjects if subject.contender]
        parts += beside_parts(orders, [run.experiment for run in runs if run is not None])
    parts += [
        _recipes(subjects, everything=everything),
        _capabilities(catalog, subjects, everything=everything),
    ]
    return Document(
        title=f"{len(subjects)} side by side on {benchmark.title}",
        paragraphs=benchmark.caveats,
        parts=tuple(parts),
        footnotes=(
            f"Snapshot {query.snapshot or 'none'}; ±: one standard deviation {again(query)}.",
        ),
    )


def _letter(place: int) -> str:
    """Short header: names are too long to stand beside each other."""
    return chr(ord("A") + place) if place < 26 else str(place + 1)


def _who(place: int, subject: Subject) -> Item:
    title = subject.method.title if subject.method else "Full fine-tuning"
    variants = subject.method.variants if subject.method else ()
    names = [variant.title for variant in variants if variant.id in subject.variants]
    text = f"{title} ({', '.join(names)})" if names else title
    if subject.contender is None:
        text += ", without a run here"
    elif subject.chosen:
        text += f", by its best run: {subject.name}"
    else:
        text += f": {subject.name}"
    return Item(f"{_letter(place)} =", (text,))


def _columns(
    subjects: Sequence[Subject], key: str, title: str, *, right: bool = False
) -> tuple[Column, ...]:
    return (
        Column(key, title, least=14),
        *(
            Column(subject.name, _letter(place), right=right, least=8)
            for place, subject in enumerate(subjects)
        ),
    )


def _figures(subjects: Sequence[Subject], metrics: Sequence[Metric]) -> Table:
    def row(metric: Metric) -> Row:
        cells = [
            figure(subject.contender, metric, below=True) if subject.contender else Cell("-")
            for subject in subjects
        ]
        reasons = {
            subject.contender.unusable[metric.id]
            for subject in subjects
            if subject.contender and metric.id in subject.contender.unusable
        }
        note = "; ".join(sorted(reasons - {"not measured"}))
        return Row((Cell(heading(metric), metric.field), *cells), note=note)

    shown = [
        metric
        for metric in metrics
        if any(subject.contender and metric.id in subject.contender.values for subject in subjects)
    ]
    return Table(
        key="figures",
        title="Figures",
        columns=_columns(subjects, "metric", "Metric", right=True),
        rows=tuple(row(metric) for metric in shown),
    )


def _places(catalog: Catalog, benchmark: Benchmark, subjects: Sequence[Subject]) -> Table:
    """Rank and score of each method on every benchmark: nothing is ordered over two of them."""

    def stands(subject: Subject) -> dict[str, Place]:
        if subject.method is None:
            return {}
        known = places(catalog, subject.method.id, *subject.variants)
        return {place.benchmark.id: place for place in known}

    found = [stands(subject) for subject in subjects]

    def cell(place: Place | None) -> Cell:
        if place is None:
            return Cell("-")
        unit = catalog.metric_by_id[place.benchmark.headline].unit
        score = format_quantity(place.score, unit)
        return Cell(f"{place.rank} of {place.methods}", place.rank, score)

    return Table(
        key="places",
        title="Benchmarks side by side: place and score by the best run there",
        columns=_columns(subjects, "benchmark", "Benchmark", right=True),
        rows=tuple(
            Row(
                (Cell(one.title, one.id), *(cell(standing.get(one.id)) for standing in found)),
                note="" if one is benchmark else " ".join(one.caveats),
            )
            for one in catalog.benchmarks
            if any(one.id in standing for standing in found)
        ),
    )


def _differences(subjects: Sequence[Subject], objectives: Sequence[Metric]) -> Listing | None:
    measured = [
        (_letter(place), subject.contender)
        for place, subject in enumerate(subjects)
        if subject.contender is not None
    ]
    if len(measured) < 2:
        return None
    (reference, first), *others = measured
    return Listing(
        f"Against {reference}",
        tuple(
            Item(f"{name}:", (comparison(one, first, objectives) or "nothing to compare",))
            for name, one in others
        ),
    )


# --- recipes ---


def _recipes(subjects: Sequence[Subject], *, everything: bool) -> Table:
    recipes = [_recipe(subject.contender.run) if subject.contender else {} for subject in subjects]
    keys = dict.fromkeys(key for recipe in recipes for key in recipe)
    rows = []
    for key in keys:
        values = [recipe.get(key) for recipe in recipes]
        present = [value for value, recipe in zip(values, recipes, strict=True) if recipe]
        if everything or any(value != present[0] for value in present):
            rows.append(Row((label(key), *(_setting(value) for value in values))))
    return Table(
        key="recipes",
        title="Recipes" if everything else "Recipes: what differs",
        columns=_columns(subjects, "setting", "Setting"),
        rows=tuple(rows),
    )


def _recipe(run: Run | None) -> dict[str, Any]:
    """Settings of a run, flat; defaults of the configuration class are absent."""
    if run is None:
        return {}
    training = run.recipe.training.model_dump(exclude={"optimizer_options", "options"})
    return {
        **run.recipe.config,
        **training,
        **{
            f"optimizer.{key}": value
            for key, value in run.recipe.training.optimizer_options.items()
        },
        **run.recipe.training.options,
    }


def _setting(value: Any) -> Cell:
    if value is None:
        return Cell("-")
    if isinstance(value, str | int | float):
        return Cell(str(value), value)
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        text = " ".join(value)
        return Cell(text, text)
    text = json.dumps(value)
    return Cell(text, text)


# --- capabilities ---


def _capabilities(catalog: Catalog, subjects: Sequence[Subject], *, everything: bool) -> Table:
    methods: list[tuple[Subject, Method]] = [
        (subject, subject.method) for subject in subjects if subject.method
    ]
    rows = []
    for feature in catalog.features:
        capabilities = [method.capability(feature.id, one.variants) for one, method in methods]
        if everything or len({one.support for one in capabilities}) > 1:
            cells: Iterable[Value] = (one.support for one in capabilities)
            rows.append(Row((label(feature.id), *(Cell(str(cell), cell) for cell in cells))))
    return Table(
        key="capabilities",
        title="Capabilities" if everything else "Capabilities that differ",
        columns=tuple(
            column
            for column, one in zip(
                _columns(subjects, "feature", "Feature"), (None, *subjects), strict=True
            )
            if one is None or one.method
        ),
        rows=tuple(rows),
    )

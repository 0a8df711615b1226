"""Methods: the list of them, and the card of one."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from peft_shop.ask.placing import places
from peft_shop.serve.adapter import Adapter
from peft_shop.serve.ranks import exact_rule, formula
from peft_shop.show.documents import Cell, Column, Document, Item, Listing, Row, Table, label
from peft_shop.show.runs import runs_table
from peft_shop.units import format_quantity

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from peft_shop.ask.placing import Place
    from peft_shop.catalog.catalog import Catalog
    from peft_shop.catalog.features import Feature
    from peft_shop.catalog.methods import Capability, Fidelity, Method, Variant

__all__ = ["card_document", "methods_document"]

_SHOWN: Final = (
    "quantization.bnb_4bit",
    "merging",
    "convertible_to_lora",
    "mixed_batches",
    "hot_swapping",
)
"""Capabilities worth a column when nothing is asked."""
_FIGURES: Final = ("peak_memory", "train_time")
_GROUPS: Final = {
    "layer_types": "Layers that it adapts",
    "quantization": "Quantized bases that it trains on",
    None: "What it can do",
}
_LEVELS: Final = (
    "Evidence, weakest first: declared (read from code or documents), injected (the layer was "
    "wrapped), trained (a training step changed the output), verified (numbers were compared; a "
    "deviation is the power of ten that it did not exceed, relative to the largest output)."
)
_FEW: Final = 2
_WORDS: Final = {"unknown": "?"}


def methods_document(
    catalog: Catalog, methods: Sequence[Method], features: Iterable[str] = ()
) -> Document:
    """Methods with their capabilities, one a row.

    Args:
        catalog: for the features and the numbers of runs.
        methods: which ones, in this order.
        features: capabilities that were asked for, whose columns stay; all are in the records.
    """
    asked = set(features)
    runs = Counter(run.method for run in catalog.runs)

    def column(feature: Feature) -> Column:
        wanted = feature.id in asked or feature.id in _SHOWN
        title = feature.title.replace("_", " ")
        priority = 0 if feature.id in asked else 2
        return Column(feature.id, title, least=7, priority=priority, hidden=not wanted)

    def row(method: Method) -> Row:
        supports = [method.capabilities[feature.id].support for feature in catalog.features]
        return Row(
            (
                Cell(method.id, method.id),
                label(method.title),
                Cell(method.family.replace("_", " "), method.family),
                label(method.category),
                Cell(method.since or "-", method.since),
                Cell(str(runs[method.id]), runs[method.id]),
                *(Cell(_WORDS.get(support, support), support) for support in supports),
                label(method.summary),
            )
        )

    columns = (
        Column("method", "Method", least=18),
        Column("title", hidden=True),
        Column("family", "Family", least=10, priority=1),
        Column("category", hidden=True),
        Column("since", "Since peft", priority=9),
        Column("runs", "Runs", right=True, priority=8),
        *(column(feature) for feature in catalog.features),
        Column("summary", hidden=True),
    )
    return Document(
        title=f"{len(methods)} of {len(catalog.methods)} methods of peft {catalog.peft_version}",
        parts=(Table("methods", "", columns, tuple(row(method) for method in methods)),),
        footnotes=("`?`: nobody has tried it. `peft-shop show METHOD` tells all of one method.",),
    )


# --- one method ---


def place_text(catalog: Catalog, place: Place) -> str:
    """Rank, score and runs on one benchmark, with what must be known of it."""
    headline = catalog.metric_by_id[place.benchmark.headline]
    text = (
        f"no. {place.rank} of {place.methods}, {headline.label} "
        f"{format_quantity(place.score, headline.unit)} by {place.best}, "
        f"{place.runs} comparable run{'s' if place.runs > 1 else ''}"
    )
    return " ".join([f"{text}.", *place.benchmark.caveats])


def card_document(
    catalog: Catalog, method: Method, variant: Variant | None = None, remark: str = ""
) -> Document:
    """Everything that the catalog knows of a method, on one page.

    Args:
        catalog: for features and runs.
        method: which one.
        variant: the one that is meant: it stands first, with its own capabilities and runs.
        remark: what the name that was asked for stands for.
    """
    own = () if variant is None else (variant.id,)
    tables: list[Table | Listing] = [_facts(catalog, method)]
    for group, title in _GROUPS.items():
        features = [feature for feature in catalog.features if feature.group == group]
        if features:
            key = group or "capabilities"
            tables.append(_capability_table(method, own, key, title, features))
    others = [other for other in method.variants if other is not variant]
    if others:
        title = "Variants" if variant is None else f"Other variants of {method.title}"
        tables.append(Listing(title, tuple(_variant_item(method, one) for one in others)))
    if method.notes:
        tables.append(Listing("Notes", tuple(Item("", (note,)) for note in method.notes)))
    stands = places(catalog, method.id, *own)
    if stands:
        tables.append(
            Listing(
                "Benchmarks side by side, by the best comparable run of each method",
                tuple(
                    Item(f"{place.benchmark.title}:", (place_text(catalog, place),))
                    for place in stands
                ),
            )
        )
    for benchmark in catalog.benchmarks:
        runs = [
            run
            for run in catalog.runs_by_benchmark[benchmark.id]
            if run.method == method.id and set(own) <= set(run.variants)
        ]
        if runs:
            names = [name for name in _FIGURES if name in benchmark.metrics]
            metrics = [catalog.metric_by_id[name] for name in (benchmark.headline, *names)]
            tables.append(runs_table(catalog, benchmark, runs, metrics))
    name, paragraphs = f"{method.title} ({method.id})", [method.summary]
    if variant is not None:
        measured = any(variant.id in run.variants for run in catalog.runs)
        item = _variant_item(method, variant)
        paragraphs = [*item.texts, f"{method.title}: {method.summary}"]
        paragraphs += [] if measured else [f"No run of {variant.title} is on file."]
        name = f"{variant.title} ({variant.id}), a variant of {name}"
    return Document(
        title=name,
        paragraphs=(*([f"{remark}."] if remark else []), *paragraphs),
        parts=tuple(tables),
        footnotes=(
            *_environments(method),
            _LEVELS,
        ),
    )


def _facts(catalog: Catalog, method: Method) -> Listing:
    found = [
        ("Family", f"{method.family.replace('_', ' ')} ({method.category.replace('_', ' ')})"),
        ("Tasks", ", ".join(method.task_types)),
        ("In peft", f"{method.config_class}, PeftType {method.peft_type}"),
    ]
    if method.since:
        found[-1] = (found[-1][0], f"{found[-1][1]}, since {method.since}")
    if method.paper:
        found.append(("Paper", f"{method.paper.title}, {method.paper.year}, {method.paper.url}"))
    if method.aliases:
        found.append(("Also called", ", ".join(method.aliases)))
    if method.options:
        found.append(("Options", ", ".join(method.options)))
    if method.requires:
        found.append(("Needs besides", ", ".join(method.requires)))
    if method.initialisation:
        found.append(("At full width", method.initialisation))
    if method.inference:
        found.append(("Inference", method.inference))
    if method.fidelity:
        found.append(("Changes", _change(catalog, method, method.fidelity)))
    return Listing("Facts", tuple(Item(f"{head}:", (text,)) for head, text in found))


def _change(catalog: Catalog, method: Method, fidelity: Fidelity) -> str:
    """What a trained adapter changes, and at which rank a LoRA holds all of it."""
    text = f"{' and '.join(kind.replace('_', ' ') for kind in fidelity.delta)}"
    if fidelity.base_changed:
        text += ", and the base's own weight at the start"
    rule = exact_rule(catalog.conversions, Adapter(method.id, method.id, (), {}))
    if fidelity.rank is None:
        return text
    if rule is not None:
        text += f"; a LoRA holds all of it at rank {formula(rule)}"
    layers = ", ".join(layer.replace("_", " ") for layer in fidelity.layers)
    return f"{text}; tried on {layers}" if layers else text


def _capability_table(
    method: Method, variants: tuple[str, ...], key: str, title: str, features: Sequence[Feature]
) -> Table:
    def row(feature: Feature) -> Row:
        one = method.capability(feature.id, variants)
        return Row(
            (
                label(feature.id),
                Cell(feature.title.replace("_", " "), feature.title),
                Cell(one.support, one.support),
                Cell(one.level, one.level),
                Cell(_remark(one), one.note),
                Cell(one.source, one.source),
            )
        )

    return Table(
        key=key,
        title=title,
        columns=(
            Column("feature", hidden=True),
            Column("title", "Feature", least=16),
            Column("support", "Support", least=7),
            Column("evidence", "Evidence", least=8),
            Column("note", "Note", least=20),
            Column("source", hidden=True),
        ),
        rows=tuple(row(feature) for feature in features),
    )


def _remark(capability: Capability) -> str:
    parts = [capability.note] if capability.note else []
    if len(capability.measured) <= _FEW:  # of many, people want the verdict; JSON has them all
        parts += [
            f"{name.replace('_', ' ')} {value:.3g}" for name, value in capability.measured.items()
        ]
    if capability.source == "curated":
        parts.append("decided by a curator")
    return "; ".join(parts)


def _variant_item(method: Method, variant: Variant) -> Item:
    texts = [variant.summary]
    differing = [
        f"{name} {capability.support} instead of {method.capabilities[name].support} "
        f"({capability.level})"
        for name, capability in variant.capabilities.items()
        if capability.support != method.capabilities[name].support
    ]
    if differing:
        texts.append(f"Differs: {', '.join(differing)}.")
    further = []
    if variant.since:
        further.append(f"since peft {variant.since}")
    if variant.paper:
        further.append(f"{variant.paper.title}, {variant.paper.year}, {variant.paper.url}")
    if further:
        texts.append("; ".join(further))
    return Item(f"{variant.title} ({variant.id}):", tuple(texts))


def _environments(method: Method) -> Iterable[str]:
    for name, environment in method.environments.items():
        parts = [f"peft {environment.peft}", f"Python {environment.python}"]
        parts += [f"torch {environment.torch}"] if environment.torch else []
        parts += [f"transformers {environment.transformers}"] if environment.transformers else []
        yield f"Observed on {environment.device}: {', '.join(parts)}" + (
            "." if name == environment.device else f" ({name})."
        )

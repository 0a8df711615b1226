"""One method on a screen of at most 30 lines; what stands behind it has a flag each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from peft_shop.ask.meanings import current_runs
from peft_shop.ask.placing import places
from peft_shop.show.documents import clean
from peft_shop.show.methods import card_document
from peft_shop.show.naming import briefly, in_short
from peft_shop.show.terminal import document_lines, fold
from peft_shop.units import format_quantity

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from peft_shop.ask.placing import Place
    from peft_shop.catalog.benchmarks import Benchmark
    from peft_shop.catalog.catalog import Catalog
    from peft_shop.catalog.methods import Method, Variant
    from peft_shop.catalog.runs import Run
    from peft_shop.show.documents import Document
    from peft_shop.show.terminal import Line

__all__ = ["LINES", "SECTIONS", "method_lines", "method_sections"]

LINES: Final = 30
SECTIONS: Final = {
    "layers": ("layer_types",),
    "quantization": ("quantization",),
    "capabilities": ("capabilities",),
    "variants": ("Variants", "Other variants"),
    "runs": ("runs_",),
}
"""What has a flag, and how the keys or titles of its parts begin."""
_GROUPS: Final = ((None, "It can"), ("quantization", "Trains on"), ("layer_types", "Adapts"))
_SUPPORT: Final = (("yes", ""), ("partial", "in part"), ("no", "not"), ("unknown", "unknown"))
_PLANS: Final = ((5, 6), (4, 5), (3, 4), (3, 3), (2, 2), (1, 1))
"""Lines of what it is and of each group of what it can do, as many as there is room for."""
_MORE: Final = "--layers --quantization --capabilities --variants --runs --all"


def method_lines(
    catalog: Catalog,
    method: Method,
    variant: Variant | None = None,
    remark: str = "",
    width: int = 80,
) -> list[Line]:
    """Lines of the screen of a method; of a variant, it stands first with how it differs.

    Args:
        catalog: for features and runs.
        method: which one.
        variant: the one that is meant.
        remark: what the name that was asked for stands for.
        width: of the terminal [characters].
    """
    for told, able in _PLANS:
        blocks = _blocks(catalog, method, variant, remark, width, told=told, able=able)
        if sum(map(len, blocks)) <= LINES:
            break
    return _joined(blocks, LINES)


def _blocks(
    catalog: Catalog,
    method: Method,
    variant: Variant | None,
    remark: str,
    width: int,
    *,
    told: int,
    able: int,
) -> list[list[Line]]:
    """Blocks of lines: `told` at most of what it is, `able` of each group of what it can do."""
    own = () if variant is None else (variant.id,)
    name = f"{method.title} ({method.id})"
    blocks: list[list[Line]] = []
    if variant is None:
        head = _folded(name, width, 1, style="title") + _folded(method.summary, width, told)
    else:
        title = f"{variant.title} ({variant.id}), a variant of {name}"
        head = _folded(title, width, 2, style="title") + _folded(variant.summary, width, told)
        head += _folded(_differs(method, variant), width, max(told - 1, 1))
    if remark:
        head += _folded(f"{remark}.", width, 2)
    blocks.append(head)
    facts = [*_facts(method, variant)]
    blocks.append([line for text in facts for line in _folded(text, width, 1)])
    blocks.append(
        [
            line
            for group, label in _GROUPS
            for line in _folded(_able(catalog, method, own, group, label), width, able)
        ]
    )
    further = []
    others = [other.title for other in method.variants if other is not variant]
    if others:
        label = "Variants" if variant is None else f"Other variants of {method.title}"
        further += _folded(f"{label} ({len(others)}): {', '.join(others)}", width, 3)
    stands = {one.benchmark.id: one for one in places(catalog, method.id, *own)}
    for benchmark in catalog.benchmarks:
        place = stands.get(benchmark.id)
        text = _runs(catalog, benchmark, method, own) if place is None else _place(catalog, place)
        further += _folded(text, width, 2)
    if not any(run.method == method.id and set(own) <= set(run.variants) for run in catalog.runs):
        what = method.title if variant is None else variant.title
        further += _folded(f"No run of {what} is on file.", width, 1)
    if method.notes:
        count = len(method.notes)
        further += _folded(f"{count} note{'s' if count > 1 else ''}: --all", width, 1)
    blocks.append(further)
    blocks.append(_folded(f"More\xa0\xa0{_MORE}", width, 2, style="faint"))
    return [block for block in blocks if block]


def _joined(blocks: Sequence[list[Line]], most: int) -> list[Line]:
    """Blocks with empty lines between them, as far as there is room."""
    free = most - sum(map(len, blocks))
    lines: list[Line] = []
    for block in blocks:
        if lines and free > 0:
            lines.append([])
            free -= 1
        lines += block
    return lines


def _folded(text: str, width: int, most: int, *, style: str = "") -> list[Line]:
    """Text on at most `most` lines; what is cut off is told by dots."""
    if not text:
        return []
    folded = fold(text, width)
    if len(folded) > most:
        folded = folded[:most]
        while len(folded[-1]) > width - 4 and " " in folded[-1]:
            folded[-1] = folded[-1].rpartition(" ")[0]
        folded[-1] = f"{folded[-1].rstrip(',')[: max(width - 4, 0)]} ..."
    return [[(line, style)] for line in folded]


def _differs(method: Method, variant: Variant) -> str:
    differing = [
        f"{name.rpartition('.')[2].replace('_', ' ')} {capability.support} instead of "
        f"{method.capabilities[name].support}"
        for name, capability in variant.capabilities.items()
        if capability.support != method.capabilities[name].support
    ]
    found = [f"Differs from {method.title}: {', '.join(differing)}."] if differing else []
    if variant.since:
        found.append(f"Since peft {variant.since}.")
    return " ".join(found)


def _facts(method: Method, variant: Variant | None) -> Iterable[str]:
    since = f", since peft {method.since}" if method.since else ""
    yield f"{method.config_class}{since}; {method.family.replace('_', ' ')} family"
    paper = (variant.paper if variant is not None else None) or method.paper
    if paper is not None:
        yield f"Paper: {paper.url} ({paper.year})"
    if method.aliases:
        yield f"Also called: {', '.join(method.aliases)}"
    if method.requires:
        yield f"Needs besides: {', '.join(method.requires)}"


def _able(
    catalog: Catalog, method: Method, own: tuple[str, ...], group: str | None, label: str
) -> str:
    """What it can do of one group, by how far: "Trains on: bnb_4bit, gptq; not: hqq"."""
    by_support: dict[str, list[str]] = {}
    for feature in catalog.features:
        if feature.group == group:
            name = feature.id.rpartition(".")[2] if group else feature.title.lower()
            support = method.capability(feature.id, own).support
            by_support.setdefault(support, []).append(name.replace(" ", "\xa0"))
    parts = [
        f"{word}: {', '.join(by_support[support])}" if word else ", ".join(by_support[support])
        for support, word in _SUPPORT
        if support in by_support
    ]
    return f"{label}: {'; '.join(parts)}" if parts else ""


def _place(catalog: Catalog, place: Place) -> str:
    """Rank, score and best run on one benchmark; what is answered on request says so."""
    benchmark = place.benchmark
    run = next(
        run for run in current_runs(catalog, benchmark.id) if place.best in {run.experiment, run.id}
    )
    shown = [format_quantity(place.score, catalog.metric_by_id[benchmark.headline].unit)]
    memory = catalog.metric_by_id.get("peak_memory")
    if memory is not None and memory.field in run.metrics:
        shown.append(format_quantity(run.metrics[memory.field], memory.unit))
    count = f"{place.runs} runs, the best" if place.runs > 1 else "1 run,"
    flagged = ", flagged" if run.flags else ""
    title = clean(benchmark.title) + (" (careful, --all)" if benchmark.caveats else "")
    return (
        f"{title}: no. {place.rank} of {place.methods}; {count} {in_short(catalog, place.best)}: "
        f"{', '.join(shown)}{flagged}"
    )


def _runs(catalog: Catalog, benchmark: Benchmark, method: Method, own: tuple[str, ...]) -> str:
    headline = catalog.metric_by_id[benchmark.headline]
    runs = [
        run
        for run in current_runs(catalog, benchmark.id)
        if run.method == method.id and set(own) <= set(run.variants)
    ]
    usable = [run for run in runs if headline.field in run.metrics]
    if not usable:
        return ""
    sign = 1 if headline.better == "higher" else -1

    def score(run: Run) -> float:
        return sign * run.metrics[headline.field]

    best = max(usable, key=lambda run: (score(run), run.experiment))
    shown = [f"{format_quantity(best.metrics[headline.field], headline.unit)}"]
    memory = catalog.metric_by_id.get("peak_memory")
    if memory is not None and memory.field in best.metrics:
        shown.append(format_quantity(best.metrics[memory.field], memory.unit))
    count = f"{len(runs)} runs, the best" if len(runs) > 1 else "1 run,"
    name = in_short(catalog, best.experiment)
    flagged = ", flagged" if best.flags else ""
    return f"{clean(benchmark.title)}: {count} {name}: {', '.join(shown)}{flagged}"


def method_sections(
    catalog: Catalog,
    method: Method,
    variant: Variant | None,
    names: Sequence[str],
    width: int = 80,
) -> list[Line]:
    """Lines of the parts of the whole card that the flags `names` stand for."""
    whole: Document = card_document(catalog, method, variant)
    wanted = tuple(start for name in names for start in SECTIONS[name])
    lines: list[Line] = []
    for part in whole.parts:
        if getattr(part, "key", part.title).startswith(wanted):
            alone = type(whole)(title="", parts=(part,))
            lines += [[], *document_lines(briefly(catalog, alone), width)]
    return lines

"""Reference pages made from the catalog and its rules: metrics, methods, rules."""

from __future__ import annotations

from typing import TYPE_CHECKING

from code_pages import GENERATED, table

from peft_shop.catalog.features import EVIDENCE_LEVELS
from peft_shop.catalog.store import load
from peft_shop.units import format_quantity

if TYPE_CHECKING:
    from collections.abc import Iterable

    from peft_shop.catalog.benchmarks import Benchmark, Metric
    from peft_shop.catalog.catalog import Catalog
    from peft_shop.catalog.methods import Capability, Method
    from peft_shop.catalog.noise import Noise

MARKS = {"yes": "yes", "partial": "part", "no": "no", "unknown": "?"}
GROUP_TITLES = {
    "layer_types": "Layer types",
    "quantization": "Quantized bases",
    None: "Everything else",
}
_COLUMNS = 9
"""Features a table has room for."""


# --- metrics ---


def metrics() -> str:
    """`reference/metrics.md`."""
    catalog = load()
    parts = [
        "# Metrics and benchmarks",
        GENERATED,
        (
            "Every metric is an objective (`objectives=`, `--objective`), a bound (`max_<metric>`, "
            "`--max <metric>=VALUE`) and an order of the front (`rank_by=`, `--rank-by`). Values "
            "are written with or without a unit: `24GB` is 24 x 10^9 bytes, `24GiB` is 24 x 2^30. "
            "`data/README.md` tells how each was measured and what it cannot tell."
        ),
        "## Benchmarks",
    ]
    for benchmark in catalog.benchmarks:
        eras = ", ".join(f"`{era.id}`: {era.title}" for era in benchmark.eras) or "one"
        aliases = ", ".join(f"`{alias}`" for alias in benchmark.aliases)
        runs = catalog.runs_by_benchmark[benchmark.id]
        parts += [
            f"### `{benchmark.id}`",
            benchmark.description,
            table(
                ("", ""),
                (
                    ("title", benchmark.title),
                    ("also called", aliases or "-"),
                    ("base model", f"`{benchmark.model_id}`"),
                    ("headline metric", f"`{benchmark.headline}`: {_score(benchmark)}"),
                    ("default objectives", _names(benchmark.default_objectives)),
                    ("default floor", f"{benchmark.floor:g}. {benchmark.floor_because}"),
                    ("eras", eras),
                    ("runs on file", len(runs)),
                    ("metrics", _names(benchmark.metrics)),
                    ("answered from it", _asked(benchmark)),
                ),
            ),
            *(f"- {caveat}" for caveat in benchmark.caveats),
        ]
    parts += ["## Metrics"]
    parts += [_metric(catalog, metric) for metric in catalog.metrics]
    return "\n\n".join(parts) + "\n"


def _metric(catalog: Catalog, metric: Metric) -> str:
    where = [one.id for one in catalog.benchmarks if metric.id in one.metrics]
    rows: list[tuple[str, str]] = [
        ("title", metric.title),
        ("field in a run", f"`{metric.field}`"),
        ("unit", metric.unit),
        ("better", metric.better),
        ("depends on", _scope(metric)),
        ("benchmarks", _names(where)),
    ]
    rows += [
        (f"in `{one.id}`", one.definitions[metric.id])
        for one in catalog.benchmarks
        if metric.id in one.definitions
    ]
    if metric.tie is not None:
        rows.append(("counts as equal below", format_quantity(metric.tie, metric.unit)))
    if metric.tie_relative is not None:
        rows.append(("counts as equal below", f"{100 * metric.tie_relative:g} %"))
    rows += [
        ("standard deviation of one run", _noise(item))
        for item in catalog.noise
        if item.metric == metric.id
    ]
    if metric.retired:
        rows.append(("never ranked", metric.retired))
    return f"### `{metric.id}`\n\n{metric.description}\n\n" + table(("", ""), rows)


def _score(benchmark: Benchmark) -> str:
    asked = "" if benchmark.sample_size is None else f" ({benchmark.sample_size} questions)"
    return f"{benchmark.score or '-'}{asked}"


def _asked(benchmark: Benchmark) -> str:
    return "only where it is named" if benchmark.on_request else "by default, where it is evidence"


def _names(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _scope(metric: Metric) -> str:
    if metric.scope in {"memory", "time"}:
        return f"{metric.scope}: comparable only on the same hardware and settings"
    return metric.scope


def _noise(item: Noise) -> str:
    scale, unit = (100, " %") if item.relative else (1, "")
    text = f"{scale * item.sd:.4g}{unit}"
    if item.low is not None and item.high is not None:
        text += f" (95 %: {scale * item.low:.4g} to {scale * item.high:.4g}{unit})"
    era = f" in the `{item.era}` era" if item.era else ""
    whose = f" of {_names(item.methods)} alone" if item.methods else ""
    return f"{text} on `{item.benchmark}`{era}{whose}; {item.method}"


# --- methods ---


def methods() -> str:
    """`reference/methods.md`: what every method can do, and how that is known."""
    catalog = load()
    counts = _counts(catalog)
    parts = [
        "# What each method can do",
        GENERATED,
        (
            f"{len(catalog.methods)} methods of peft {catalog.peft_version}, "
            f"{len(catalog.features)} features each (catalog {catalog.catalog_version})."
        ),
        "A cell is the support and, behind it, how it is known: "
        + ", ".join(f"`{level[0]}` {level}" for level in EVIDENCE_LEVELS)
        + ". `c` behind them marks a curator's decision. `part` is partial and `?` unknown; both "
        "carry a note, which `peft-shop show METHOD` prints. A method's variants have a line of "
        "their own in the last section where they differ.",
        table(
            ("support", *EVIDENCE_LEVELS, "all"),
            (
                (
                    support,
                    *(counts.get((support, level), 0) for level in EVIDENCE_LEVELS),
                    sum(n for (one, _), n in counts.items() if one == support),
                )
                for support in MARKS
            ),
        ),
        "## Methods",
        table(
            ("method", "title", "family", "tasks", "since peft", "variants"),
            (
                (
                    f"`{one.id}`",
                    one.title,
                    one.family,
                    ", ".join(one.task_types),
                    one.since or "",
                    ", ".join(f"`{v.id}`" for v in one.variants),
                )
                for one in catalog.methods
            ),
        ),
    ]
    for group, title in GROUP_TITLES.items():
        chosen = [feature for feature in catalog.features if feature.group == group]
        parts += [f"## {title}"]
        parts.append(
            table(("feature", "question"), ((f"`{one.id}`", one.question) for one in chosen))
        )
        for start in range(0, len(chosen), _COLUMNS):
            some = chosen[start : start + _COLUMNS]
            parts.append(
                table(
                    ("method", *(one.title for one in some)),
                    (
                        (f"`{one.id}`", *(_mark(one.capabilities[f.id]) for f in some))
                        for one in catalog.methods
                    ),
                )
            )
    parts += [
        "## Variants that differ from their method",
        table(("variant", "feature", "method", "variant's"), _differences(catalog.methods)),
    ]
    parts += ["## Unknown", _unknown(catalog)]
    return "\n\n".join(parts) + "\n"


def _mark(capability: Capability) -> str:
    curated = "c" if capability.source == "curated" else ""
    return f"{MARKS[capability.support]} `{capability.level[0]}{curated}`"


def _counts(catalog: Catalog) -> dict[tuple[str, str], int]:
    counts: dict[tuple[str, str], int] = {}
    for method in catalog.methods:
        for capability in method.capabilities.values():
            key = (capability.support, capability.level)
            counts[key] = counts.get(key, 0) + 1
    return counts


def _differences(found: Iterable[Method]) -> Iterable[tuple[str, ...]]:
    for method in found:
        for variant in method.variants:
            for feature, capability in variant.capabilities.items():
                yield (
                    f"`{method.id}` `{variant.id}`",
                    f"`{feature}`",
                    _mark(method.capabilities[feature]),
                    _mark(capability),
                )


def _unknown(catalog: Catalog) -> str:
    rows = []
    for feature in catalog.features:
        unknown = [
            one.id for one in catalog.methods if one.capabilities[feature.id].support == "unknown"
        ]
        if unknown:
            rows.append((f"`{feature.id}`", len(unknown), ", ".join(unknown)))
    if not rows:
        return "Nothing is unknown."
    return "Debts: each carries a note that says what would settle it.\n\n" + table(
        ("feature", "how many", "methods"), rows
    )


# --- rules ---


def rules() -> str:
    """`reference/rules.md`: every rule that `peft-shop catalog validate` checks."""
    from peft_shop.curate.sources.rules import RULES  # noqa: PLC0415 - maintainers' side

    parts = [
        "# Rules of the catalog",
        GENERATED,
        (
            "The schema says what shape a record has; these rules say what makes sense. `peft-shop "
            "catalog validate` lists all that breaks one. `catalog/exceptions.toml` may excuse "
            "a record, with the reason, except from the rules marked *integrity*: readers of the "
            "catalog rely on those, and nothing is compiled while one is broken. An exception that "
            "is no longer needed is itself an error."
        ),
        table(
            ("rule", "law", "kind"),
            (
                (f"`{rule.id}`", rule.law, "integrity" if rule.integrity else "sense")
                for rule in RULES.values()
            ),
        ),
    ]
    return "\n\n".join(parts) + "\n"

"""Reference page made from the catalog's serving engines and conversions."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from code_pages import GENERATED, table

from peft_shop.catalog.engines import ANY_OTHER, BASE_KINDS, CIRCUMSTANCES, TOPICS
from peft_shop.catalog.methods import FIDELITY_RANKS
from peft_shop.catalog.store import load
from peft_shop.serve.adapter import adapter_of_method
from peft_shop.serve.routes import route

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from peft_shop.catalog.catalog import Catalog
    from peft_shop.catalog.engines import Conversion, Engine, LoadRule
    from peft_shop.catalog.methods import Fidelity

VALUES = {
    "yes": "it loads and computes what was trained",
    "no": "it does not",
    "reject": "no, with an error",
    "silent": "it loads, and computes something else without a word",
    "unknown": "nobody knows; the note says what would settle it",
}
GROUPS = {
    "format": "Methods, as peft saves them",
    "trait": "What one adapter may have",
    "engine": "The engine",
}
_COLUMNS = 7
"""Engines a table has room for."""


def engines() -> str:
    """`reference/engines.md`: what each serving engine loads, and what peft converts."""
    catalog = load()
    parts = [
        "# Serving engines",
        GENERATED,
        (
            "What each engine loads of what peft saves, read from its code at the version given. "
            "`peft-shop route NAME` draws the conclusion for a method, a run or a saved adapter, "
            "and `serve=` (`--serve`) demands one."
        ),
        table(
            ("engine", "title", "kind", "models", "version", "read on"),
            (
                (f"`{e.id}`", e.title, e.kind, ", ".join(e.models), e.version, e.checked)
                for e in catalog.engines
            ),
        ),
        table(("value", "meaning"), ((f"`{value}`", text) for value, text in VALUES.items())),
        "An empty cell is something that nobody looked up. `*`: there is a note or a condition.",
    ]
    for group, title in GROUPS.items():
        topics = [topic for topic in TOPICS if topic.group == group]
        parts += [
            f"## {title}",
            table(("topic", "question"), ((f"`{one.id}`", one.question) for one in topics)),
        ]
        for start in range(0, len(catalog.engines), _COLUMNS):
            some = catalog.engines[start : start + _COLUMNS]
            parts.append(
                table(
                    ("topic", *(f"`{one.id}`" for one in some)),
                    ((f"`{one.id}`", *(_fact(e, one.id) for e in some)) for one in topics),
                )
            )
    parts += [
        "## Engine by engine",
        "\n".join(f"- [{one.title}](engines/{one.id}.md)" for one in catalog.engines),
    ]
    parts += ["## Conversion and merging", _conversions(catalog.conversions)]
    parts += ["## What a LoRA holds of each method", _fidelities(catalog)]
    return "\n\n".join(parts) + "\n"


def _fact(engine: Engine, topic: str) -> str:
    fact = engine.facts.get(topic)
    if fact is None:
        return ""
    more = fact.note or fact.needs or fact.layout != "peft"
    return f"{fact.value}{' *' if more else ''}"


def engine_pages() -> dict[str, Callable[[], str]]:
    """What makes `reference/engines/<engine>.md`, by the page's name."""
    return {f"engines/{one.id}.md": partial(_page, one) for one in load().engines}


def _page(engine: Engine) -> str:
    """One engine: what is known about it, and how each method reaches it."""
    catalog = load()
    models = " and ".join(engine.models)
    # what goes wrong without a word comes first, and what works last
    order = ("silent", "reject", "no", "unknown", "yes")
    facts = [
        (f"`{name}`", fact.value, fact.note or "", fact.needs or "")
        for name, fact in sorted(engine.facts.items(), key=lambda item: order.index(item[1].value))
    ]
    routes = [route(catalog, adapter_of_method(method), engine.id) for method in catalog.methods]
    return (
        "\n\n".join(
            (
                f"# {engine.title}",
                GENERATED,
                (
                    f"{engine.title} {engine.version} ({engine.kind.replace('_', ' ')}, for "
                    f"{models} models), as read on {engine.checked}. "
                    f"`peft-shop route NAME --engine {engine.id}` says what follows for a "
                    "method, a run or a saved adapter; "
                    f'`recommend(serve="{engine.id}")` keeps what reaches it. '
                    "[All engines](../engines.md) stand side by side."
                ),
                "## What it does in silence",
                _silences(engine),
                "## On which bases",
                table(("base", "adapters", "note"), _bases(engine)),
                "## Under which circumstances",
                table(
                    ("where", "value", "what happens", "needed"),
                    (
                        (_where(rule), rule.value, rule.note, rule.needs or "")
                        for rule in sorted(engine.rules, key=lambda rule: order.index(rule.value))
                    ),
                ),
                "## What it loads",
                table(("topic", "value", "note", "needed"), facts),
                "## Ranks, pitfalls, sources",
                table(("about", "what"), _about(engine)),
                "## How each method reaches it",
                (
                    "For the method as such, with its defaults: a variant or a run may have "
                    "another way. `unknown`: no way is known to work, and one may."
                ),
                table(
                    ("method", "route", "first"),
                    (
                        (
                            f"`{one.adapter}`",
                            one.kind if one.best is None else one.best.name,
                            next(iter(one.best.conditions), "") if one.best else "",
                        )
                        for one in routes
                    ),
                ),
            )
        )
        + "\n"
    )


def _silences(engine: Engine) -> str:
    """What loads and computes something else: facts and rules, those without a way out first."""
    questions = {topic.id: topic.question for topic in TOPICS}
    found = [
        (f"`{name}`: {questions[name]}", fact.note or "", fact.needs or "")
        for name, fact in engine.facts.items()
        if fact.value == "silent"
    ]
    found += [
        (_where(rule), rule.note, rule.needs or "")
        for rule in engine.rules
        if rule.value == "silent"
    ]
    if not found:
        return "Nothing that is known: what it does not load, it refuses or was not looked up."
    found.sort(key=lambda row: bool(row[2]))
    return (
        "Each of these loads without an error, and something else answers unless you do what the "
        "last column says.\n\n" + table(("what", "what happens", "what to do"), found)
    )


def _where(rule: LoadRule) -> str:
    text = CIRCUMSTANCES[rule.when]
    for field, names in (("`names`", rule.names), ("`lacking`", rule.lacking)):
        text = text.replace(field, ", ".join(f"`{name}`" for name in names))
    return text


def _bases(engine: Engine) -> list[tuple[str, str, str]]:
    rows = [
        (BASE_KINDS[kind], fact.value, fact.note or "")
        for kind, fact in engine.kinds.items()
        if kind in BASE_KINDS
    ]
    for group in engine.architectures:
        rest = ANY_OTHER in group.names
        what = "any other class" if rest else ", ".join(f"`{name}`" for name in group.names)
        rows.append((what, group.value, group.needs or group.note or ""))
    return rows


def _about(engine: Engine) -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    if engine.command is not None:
        rows.append(("start", f"`{engine.command.line}`"))
        rows.append(("options", ", ".join(f"`{flag}`" for flag in engine.command.flags)))
    if engine.layers:
        rows.append(("layers", engine.layers))
    rows += [("ranks", text) for text in _ranks(engine)]
    for topic, fact in engine.facts.items():
        if fact.layout != "peft":
            rows.append((f"`{topic}`: names of keys", f"those of {fact.layout}, not of peft"))
    rows += [("goes wrong", hazard.text) for hazard in engine.hazards]
    for source in engine.sources.values():
        about = " ".join(part for part in (source.version, source.date) if part)
        rows.append(("source", f"{source.place} ({about})" if about else source.place))
    return rows


def _ranks(engine: Engine) -> Iterable[str]:
    rule = engine.ranks
    if rule.flag:
        text = f"`{rule.flag}` must be at least every rank"
        if rule.default is not None:
            text += f"; default {rule.default}"
        if rule.choices:
            text += f"; one of {', '.join(map(str, rule.choices))}"
        yield text
    if rule.least is not None or rule.most is not None:
        yield f"known to work from {rule.least or 1} to {rule.most or 'any'}"
    if rule.note:
        yield rule.note


def _conversions(found: Iterable[Conversion]) -> str:
    return (
        "What becomes of an adapter when peft converts it to LoRA (`convert`), when `peft-shop "
        "convert` does (`extract`), or when it is merged. The rank is the one at which a "
        "conversion is exact, whoever converts.\n\n"
        + table(
            ("way", "method", "with", "verdict", "rank", "known", "because"),
            (
                (
                    one.way,
                    f"`{one.method}`" if one.method else "any",
                    ", ".join(f"`{trait}`" for trait in one.traits),
                    one.verdict,
                    " + ".join(" x ".join(f"`{factor}`" for factor in term) for term in one.rank),
                    one.level,
                    one.because or "",
                )
                for one in found
            ),
        )
    )


def _fidelities(catalog: Catalog) -> str:
    def row(name: str, one: Fidelity) -> tuple[str, ...]:
        errors = [f"{100 * error:.0f} %" for error in one.errors] or ["" for _ in FIDELITY_RANKS]
        kinds = " and ".join(f"`{kind}`" for kind in one.delta)
        base = "changed" if one.base_changed else ""
        rank = "" if one.rank is None else str(one.rank)
        layers = ", ".join(f"`{layer}`" for layer in one.layers)
        return (name, kinds, base, rank, *errors, layers)

    rows = []
    for method in catalog.methods:
        if method.fidelity is not None:
            rows.append(row(f"`{method.id}`", method.fidelity))
        rows += [
            row(f"`{method.id}` ({variant.title})", variant.fidelity)
            for variant in method.variants
            if variant.fidelity is not None
        ]
    return (
        "Measured from outside on a layer of 128 x 160, under the settings of the probe and with "
        "weights moved by noise: the rank of the update, and what the best LoRA of a lower rank "
        "loses of it. A variant that is not listed is as its method. Nothing is lost from the "
        "rank on; what loses over 5 % at rank 64 loses more on wider layers. The layer types are "
        "those on which a LoRA of full rank gave the adapter's outputs.\n\n"
        + table(
            (
                "method",
                "changes",
                "base",
                "rank",
                *(f"lost at {rank}" for rank in FIDELITY_RANKS),
                "layers",
            ),
            rows,
        )
    )

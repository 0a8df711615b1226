"""Question <-> URL: a parameter is spelt like the keyword of `recommend`, for every place alike.

`max_peak_memory=24GiB&serve=vllm&merging=1`: a comma means all of these, a bar one of these; `1`,
`partial` and `0` demand a capability. What has its default is left out; without `peft_version` a
link is about any version, so that it means the same on every machine. The web page reads and
writes the same parameters, besides those of `VIEW`, which say how it shows the answer.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, quote, urlencode

from peft_shop.adapt.records import TargetOptions
from peft_shop.ask.keywords import check_keywords
from peft_shop.ask.reading import build_query
from peft_shop.ask.requirements import any_of
from peft_shop.catalog.features import SINGLES
from peft_shop.catalog.store import load
from peft_shop.errors import QuantityError, QueryError, shown
from peft_shop.units import parse_quantity

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from peft_shop.ask.query import Bound, Query, Requirement
    from peft_shop.catalog.catalog import Catalog
    from peft_shop.units import Unit

__all__ = ["VIEW", "parameters", "read_url", "to_url"]

VIEW: Final = frozenset(
    {"columns", "compare", "embed", "find", "highlight", "name", "run", "show", "sort", "tab"}
    | {"view", "x", "y"}
)
"""Parameters that say how the page shows an answer; no question is about them."""
_MOST: Final = 100
"""Parameters that a link may have: there are not that many."""
_LONGEST: Final = 20_000
"""Characters of a link."""
_SINGLES: Final = frozenset(single.id for single in SINGLES)
_NAMES: Final = (
    *("objectives", "quantization", "layer_types", "category", "family", "task_types"),
    *("options", "serve", "trainer", "methods", "exclude"),
)
_DEMANDS: Final[Mapping[str, bool | str]] = {
    **dict.fromkeys(("1", "true", "yes"), True),
    **dict.fromkeys(("0", "false", "no"), False),
    "partial": "partial",
}


# --- URL -> keywords ---


def read_url(url: str) -> dict[str, Any]:
    """Keyword arguments of `recommend` that a link stands for.

    Args:
        url: the link, or what stands behind its `#` or `?`; the former wins where both are there.

    Raises:
        UnknownNameError: a parameter that is no keyword; names the nearest.
        QueryError: a value that cannot be read, or a parameter that stands twice.
    """
    found: dict[str, Any] = {}
    for name, text in _pairs(url):
        keyword = name.strip().lower().replace("-", "_")
        if keyword in VIEW:
            continue
        if keyword in found:
            raise QueryError("the link has it twice", keyword=keyword)
        if keyword == "catalog":
            raise QueryError("a link names no catalog file: give it beside", keyword=keyword)
        if not text.strip():
            raise QueryError("the link gives it no value", keyword=keyword)
        found[keyword] = _readers.get(keyword, _text)(keyword, text.strip())
    check_keywords(found)
    found.setdefault("peft_version", "any")
    return found


def _pairs(url: str) -> list[tuple[str, str]]:
    if len(url) > _LONGEST:
        raise QueryError(f"a link of {len(url)} characters is no question", keyword="url")
    page, _, fragment = url.strip().partition("#")
    head, mark, search = page.partition("?")
    bare = "" if mark or "://" in head or "=" not in head else head
    try:
        return parse_qsl(fragment or search or bare, keep_blank_values=True, max_num_fields=_MOST)
    except ValueError as error:
        raise QueryError(f"cannot read the link: {error}", keyword="url") from None


def _text(_: str, text: str) -> str:
    return text


def _demand(keyword: str, text: str) -> bool | str:
    if text.lower() not in _DEMANDS:
        message = f"expected 1 (yes), partial (yes or partial) or 0 (no), got {shown(text)}"
        raise QueryError(message, keyword=keyword)
    return _DEMANDS[text.lower()]


def _flag(keyword: str, text: str) -> bool:
    found = _demand(keyword, text)
    if isinstance(found, str):
        raise QueryError(f"expected 1 or 0, got {shown(text)}", keyword=keyword)
    return found


def _names(keyword: str, text: str) -> object:
    if "|" in text:
        if "," in text:
            message = "a comma means all of these and a bar one of these: use one of them"
            raise QueryError(message, keyword=keyword)
        return any_of(*filter(None, map(str.strip, text.split("|"))))
    return [name for name in re.split(r"[,\s]+", text) if name]


def _number(keyword: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise QueryError(f"expected a number, got {shown(text)}", keyword=keyword) from None


def _mapping(keyword: str, text: str, mark: str = ";") -> dict[str, str]:
    found: dict[str, str] = {}
    for part in filter(None, map(str.strip, text.split(mark))):
        name, equals, value = part.partition("=")
        if not equals or not name.strip() or not value.strip():
            raise QueryError(f"expected NAME=VALUE, got {shown(part)}", keyword=keyword)
        if name.strip() in found:
            raise QueryError(f"{shown(name.strip())} is given twice", keyword=keyword)
        found[name.strip()] = value.strip()
    return found


def _ranking(keyword: str, text: str) -> str | dict[str, str]:
    return _mapping(keyword, text, ",") if "=" in text else text


_readers: Final[Mapping[str, Callable[[str, str], object]]] = {
    **dict.fromkeys(_SINGLES, _demand),
    **dict.fromkeys(_NAMES, _names),
    "include_flagged": _flag,
    "confidence": _number,
    "rank_by": _ranking,
    "adapt": _mapping,
    "training": _mapping,
}


# --- query -> URL ---


def to_url(query: Query, page: str = "", catalog: Catalog | None = None) -> str:
    """The link to a question: `page`, a `#` and the parameters that differ from the defaults.

    Args:
        query: the question.
        page: address of the page; only what follows it when empty.
        catalog: whose defaults are left out; the embedded one when `None`.

    Raises:
        UnknownNameError: the catalog does not have the question's benchmark.
    """
    stated = parameters(query, load() if catalog is None else catalog)
    return f"{page}#{urlencode(stated, quote_via=quote, safe='/,:|=;')}"


def parameters(query: Query, catalog: Catalog) -> dict[str, str]:
    """The parameters of the link to a question, those with their defaults left out."""
    usual = build_query(catalog, benchmark=query.benchmark)
    found = {"benchmark": query.benchmark}
    if query.objectives != usual.objectives:
        found["objectives"] = ",".join(query.objectives)
    found |= _about_model(query)
    for name in ("snapshot", "era", "accelerator", "evidence", "certainty"):
        value = getattr(query, name)
        if value != getattr(usual, name) and value is not None:
            found[name] = value
    found |= {requirement.name: _demanded(requirement) for requirement in query.requirements}
    found |= _picked(query)
    if query.min_evidence is not None:
        found["min_evidence"] = query.min_evidence
    known = catalog.metric_by_id
    found |= {
        f"{bound.kind}_{bound.metric}": _limit(bound, known[bound.metric].unit)
        for bound in query.bounds
    }
    if query.floor != usual.floor:
        headline = known[catalog.benchmark_by_id[query.benchmark].headline]
        found["floor"] = _exact(query.floor, headline.unit)
    if query.weights:
        found["rank_by"] = ",".join(f"{name}={value!r}" for name, value in query.weights.items())
    elif query.rank_by != usual.rank_by:
        found["rank_by"] = query.rank_by
    if query.include_flagged:
        found["include_flagged"] = "1"
    if query.confidence != usual.confidence:
        found["confidence"] = repr(query.confidence)
    if query.peft_version is not None:
        found["peft_version"] = query.peft_version
    return found


def _demanded(requirement: Requirement) -> str:
    if requirement.name in _SINGLES:
        (support,) = requirement.values
        return {"yes": "1", "no": "0"}.get(support, support)
    return ("|" if requirement.mode == "any" else ",").join(requirement.values)


def _picked(query: Query) -> dict[str, str]:
    """Methods and variants that are wanted, and those that are not."""
    wanted, waiting = [], list(query.methods)
    for text in query.variants:
        method = text.partition(":")[0]
        # each method keeps its place, that of its first variant
        while method in waiting:
            first = waiting.pop(0)
            wanted += [] if first == method else [first]
        wanted.append(text)
    wanted += waiting
    unwanted = [*query.exclude, *query.excluded_variants]
    stated = {"methods": ",".join(wanted), "exclude": ",".join(unwanted)}
    return {name: text for name, text in stated.items() if text}


def _about_model(query: Query) -> dict[str, str]:
    """What the question says of a model, by its name, and of training on it."""
    if query.model is None:
        return {}
    found = {"model": query.model.name}
    usual = TargetOptions()
    changed = [(name, value) for name, value in query.adapt if value != getattr(usual, name)]
    if changed:
        found["adapt"] = ";".join(f"{name}={_plain(value)}" for name, value in changed)
    if query.memory is not None:
        kind = "max_memory" if query.memory.device is None else "device"
        found[kind] = query.memory.text
        if query.fit == "off":
            found["fit"] = "off"
    if query.training is not None:
        stated = [(name, getattr(query.training, name)) for name in query.fixed]
        if query.effective_batch is not None and "batch_size" not in query.fixed:
            stated.append(("effective_batch", query.effective_batch))
        if stated or query.memory is None:
            found["training"] = ";".join(f"{name}={_plain(value)}" for name, value in stated)
    return {name: text for name, text in found.items() if text}


def _plain(value: object) -> str:
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return "none" if value is None else str(value)


def _limit(bound: Bound, unit: Unit) -> str:
    """What the user wrote, unless that is a figure rounded for people."""
    try:
        same = parse_quantity(bound.text, unit) == bound.value
    except QuantityError:
        same = False
    return bound.text.replace(" ", "") if same else _exact(bound.value, unit)


def _exact(value: float, unit: Unit) -> str:
    number = repr(int(value)) if value == int(value) else repr(value)
    return number + {"bytes": "B", "seconds": "s"}.get(unit, "")

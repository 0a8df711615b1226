"""A quantized base: what it asks of a method, and which conditions of that our script meets.

A method that the probe saw train under some circumstances alone is `partial` in the catalog. Those
that a script decides, such as `prepare_model_for_kbit_training`, count as met unless the question
fixes the contrary; those of the model are read off it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from peft_shop.adapt.circumstances import (
    measured_circumstances,
    model_circumstances,
    shared_circumstances,
)
from peft_shop.ask.adapted import retargeted
from peft_shop.catalog.conditions import TRIED_DTYPES, in_words
from peft_shop.forecast.records import Settings

if TYPE_CHECKING:
    from collections.abc import Iterable

    from peft_shop.ask.contenders import Contender
    from peft_shop.ask.query import Query
    from peft_shop.catalog.catalog import Catalog
    from peft_shop.catalog.conditions import Given
    from peft_shop.catalog.features import Support
    from peft_shop.catalog.methods import Capability, Method

__all__ = [
    "Loading",
    "base_notes",
    "circumstances",
    "condition",
    "feature_of",
    "fixed_loading",
    "loadings",
    "quantized_base",
    "trains_on",
    "weakest",
]

Loading: TypeAlias = Literal["prepared", "loaded"]
"""After `prepare_model_for_kbit_training`, or as `from_pretrained` gives it."""

_ORDER: Final[dict[Support, int]] = {"no": 0, "unknown": 1, "partial": 2, "yes": 3}
_LOADINGS: Final[dict[Loading, bool]] = {"loaded": False, "prepared": True}
_WORDS: Final[dict[Loading, str]] = {
    "prepared": "only after `prepare_model_for_kbit_training`, which the script calls",
    "loaded": "only as loaded, without `prepare_model_for_kbit_training`, as the script does it",
}


def feature_of(backend: str) -> str:
    """Identifier of the capability to train on a base that `backend` quantized."""
    return f"quantization.{backend}"


def quantized_base(query: Query) -> tuple[str, str] | None:
    """Backend of the base that the question is about and the option that says so.

    `None` where the base is not quantized, as far as the question itself says: a setup may do so.
    """
    if query.model is not None and query.model.quantization is not None:
        return query.model.quantization, "model"
    if query.training is not None and query.training.quantization is not None:
        return query.training.quantization, "training"
    return None


def weakest(method: Method, variants: tuple[str, ...], backend: str) -> Capability:
    """What is known of training on such a base: of the method or of the variants, what is less.

    A base that somebody demands by name is judged by the variant alone; one that is simply there
    must not meet a method that was seen to fail on it in another setting.
    """
    own = method.capability(feature_of(backend), variants)
    plain = method.capability(feature_of(backend))
    return own if _ORDER[own.support] <= _ORDER[plain.support] else plain


def circumstances(catalog: Catalog, query: Query, contender: Contender) -> Given:
    """What is known of a contender's base that verdicts depend on, the choices of a script aside.

    Of the question's model, or of the one that the benchmark's runs were measured on.
    """
    if query.model is None:
        # what the measured models have in common: the web page knows no more of a benchmark
        benchmark = catalog.benchmark_by_id[query.benchmark]
        known = measured_circumstances(benchmark.model_id)
        given = dict(shared_circumstances()) if known else {}
    else:
        adapted = retargeted(catalog, query, contender)
        config = None if adapted is None else adapted.whole_config
        given = dict(model_circumstances(query.model, config))
    settings = query.training
    dtype = Settings.model_fields["dtype"].default if settings is None else settings.dtype
    return {**given, "dtype": frozenset({dtype})} if dtype in TRIED_DTYPES else given


def loadings(capability: Capability, given: Given) -> tuple[Loading, ...]:
    """The ways of loading a quantized base under which the method trains."""
    return tuple(
        loading
        for loading, prepared in _LOADINGS.items()
        if capability.under({**given, "prepared": frozenset({prepared})}) == "yes"
    )


def condition(capability: Capability, given: Given) -> Loading | None:
    """The way of loading without which the method does not train; `None` where both or none do."""
    ways = loadings(capability, given)
    return ways[0] if len(ways) == 1 else None


def trains_on(capability: Capability, given: Given, *, fixed: Loading | None = None) -> Support:
    """Support as our script loads the base: a met condition is `yes`, a contradicted one `no`.

    Args:
        capability: to train on such a base, or any other.
        given: what is known of the base.
        fixed: how the question fixes that the base is loaded; `None` leaves it to the script.
    """
    ways = _LOADINGS if fixed is None else {fixed: _LOADINGS[fixed]}
    found = [
        capability.under({**given, "prepared": frozenset({prepared})}) for prepared in ways.values()
    ]
    return max(found, key=_ORDER.__getitem__)


def fixed_loading(query: Query) -> Loading | None:
    """How the question fixes that the base is loaded; `None` where it leaves that open."""
    if query.training is None or "prepare_kbit" not in query.fixed:
        return None
    return "prepared" if query.training.prepare_kbit else "loaded"


def _demanded_backends(query: Query) -> set[str]:
    return {
        value.partition(":")[0]
        for requirement in query.requirements
        if requirement.name == "quantization"
        for value in requirement.values
    }


def base_notes(catalog: Catalog, query: Query, contender: Contender) -> Iterable[str]:
    """What to know of a kept contender on its quantized base: conditions, and what is unknown."""
    setup = contender.setup
    base = quantized_base(query)
    backend: str | None = None if base is None else base[0]
    if setup is not None:
        backend = setup.settings.quantization or backend
    demanded = _demanded_backends(query) if query.requirements else set()
    if (backend is None and not demanded) or contender.method not in catalog.method_by_id:
        return
    method = catalog.method_by_id[contender.method]
    given = circumstances(catalog, query, contender)
    for name in dict.fromkeys([*([] if backend is None else [backend]), *sorted(demanded)]):
        capability = method.capability(feature_of(name), contender.variants)
        needed = condition(capability, given)
        if needed is not None:
            yield f"trains on a {name} base {_WORDS[needed]}"
        elif capability.support == "unknown":
            yield f"whether it trains on a {name} base is not known: {capability.note}"
        elif capability.support == "partial" and loadings(capability, given):
            yield f"trains on a {name} base only {in_words(capability.conditions)}, as here"
        elif capability.support == "partial":
            yield f"trains on a {name} base in part: {capability.note}"

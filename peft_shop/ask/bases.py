"""A quantized base: what it asks of a method, and which conditions of that our script meets.

A method that the probe saw train only after `prepare_model_for_kbit_training`, or only as the base
was loaded, is `partial` in the catalog. The scripts load the base in just that way, so the
condition counts as met unless the question fixes the contrary.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable

    from peft_shop.ask.contenders import Contender
    from peft_shop.ask.query import Query
    from peft_shop.catalog.catalog import Catalog
    from peft_shop.catalog.features import Support
    from peft_shop.catalog.methods import Capability, Method

__all__ = [
    "Loading",
    "base_notes",
    "condition",
    "feature_of",
    "fixed_loading",
    "quantized_base",
    "trains_on",
    "weakest",
]

Loading: TypeAlias = Literal["prepared", "loaded"]
"""After `prepare_model_for_kbit_training`, or as `from_pretrained` gives it."""

_ORDER: Final[dict[Support, int]] = {"no": 0, "unknown": 1, "partial": 2, "yes": 3}
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


def condition(capability: Capability) -> Loading | None:
    """The way of loading without which the method does not train; `None` where both ways do."""
    if capability.support != "partial" or capability.prepared is None:
        return None
    return "prepared" if capability.prepared else "loaded"


def trains_on(capability: Capability, *, fixed: Loading | None = None) -> Support:
    """Support as our script loads the base: a met condition is `yes`, a contradicted one `no`.

    Args:
        capability: to train on such a base.
        fixed: how the question fixes that the base is loaded; `None` leaves it to the script.
    """
    needed = condition(capability)
    if needed is None:
        return capability.support
    return "no" if fixed not in {None, needed} else "yes"


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
    for name in dict.fromkeys([*([] if backend is None else [backend]), *sorted(demanded)]):
        capability = method.capability(feature_of(name), contender.variants)
        needed = condition(capability)
        if needed is not None:
            yield f"trains on a {name} base {_WORDS[needed]}"
        elif capability.support == "unknown":
            yield f"whether it trains on a {name} base is not known: {capability.note}"
        elif capability.support == "partial":
            yield f"trains on a {name} base in part: {capability.note}"

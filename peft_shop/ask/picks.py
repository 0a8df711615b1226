"""Names of methods in a question -> the methods, variants and bases that are meant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from peft_shop.ask.meanings import method_meaning
from peft_shop.ask.requirements import names_stated

if TYPE_CHECKING:
    from peft_shop.catalog.catalog import Catalog

__all__ = ["Picks", "resolve_methods", "resolve_picks"]


@dataclass(frozen=True, slots=True)
class Picks:
    """Methods that are named, whole or by their variants.

    Attributes:
        methods: identifiers of all that are named, whole or in part.
        whole: identifiers of those that are named as such.
        variants: `method:variant` of those of which only variants are named.
        quantization: backends of the base that the names imply.
    """

    methods: tuple[str, ...] = ()
    whole: tuple[str, ...] = ()
    variants: tuple[str, ...] = ()
    quantization: tuple[str, ...] = ()


def resolve_picks(catalog: Catalog, names: object, option: str) -> Picks:
    """What `names` (one or several, of methods, variants or combinations) stand for.

    Raises:
        UnknownNameError: nothing is called so, or several things are; names the nearest.
        QueryError: no names.
    """
    meanings = [
        method_meaning(catalog, name, keyword=option) for name in names_stated(names, option).values
    ]
    whole = tuple(dict.fromkeys(meaning.method for meaning in meanings if meaning.variant is None))
    variants = [
        f"{meaning.method}:{meaning.variant}" for meaning in meanings if meaning.method not in whole
    ]
    return Picks(
        methods=tuple(dict.fromkeys(meaning.method for meaning in meanings)),
        whole=whole,
        variants=tuple(dict.fromkeys(variants)),
        quantization=tuple(dict.fromkeys(q for meaning in meanings if (q := meaning.quantization))),
    )


def resolve_methods(catalog: Catalog, names: object, option: str) -> tuple[str, ...]:
    """Identifiers of the methods that `names` (one or several) stand for."""
    return resolve_picks(catalog, names, option).methods

"""Which rank a LoRA may have, by the configuration, the engine and the user."""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from peft_shop.catalog.methods import PLAIN
from peft_shop.errors import ConversionError
from peft_shop.serve.ranks import exact_rule, formula, matching_rules, rank_by

if TYPE_CHECKING:
    from peft_shop.catalog.catalog import Catalog
    from peft_shop.catalog.engines import Engine
    from peft_shop.serve.adapter import Adapter

__all__ = ["NO_ENGINE", "Request", "exact_rank", "peft_is_right", "requested"]

NO_ENGINE: Final = 512
"""Highest rank that `auto` tries where no engine is named: the highest that any engine takes."""


@dataclass(frozen=True)
class Request:
    """The rank that was asked for.

    Attributes:
        kind: `auto`, `rank` or `share`.
        rank: the rank, or the highest that may come out.
        allowed: share of every layer's norm that may be left out [1].
        first: a good first guess; `None` where nothing is known.
    """

    kind: str
    rank: int
    allowed: float
    first: int | None


def requested(rank: str | float, *, known: int | None, engine: Engine | None) -> Request:
    """What a user means by `rank`.

    Args:
        rank: `auto`, a whole number, or a share of the squared singular values in (0, 1).
        known: the exact rank by the configuration.
        engine: that is to load the result.

    Raises:
        ConversionError: it means nothing, or more than the engine takes.
    """
    most = _limit(engine)
    text = f"rank: expected 'auto', a whole number of at least 1 or a share below 1, got {rank!r}"
    value: Any = rank
    if isinstance(value, str):
        if value.strip().lower() == "auto":
            return Request("auto", most or NO_ENGINE, 0.0, known)
        try:
            value = float(value) if "." in value or "e" in value.lower() else int(value)
        except ValueError as error:
            raise ConversionError(text) from error
    if isinstance(value, bool) or value is None:
        raise ConversionError(text)
    if isinstance(value, float):
        if not 0 < value < 1:
            raise ConversionError(f"{text}; write a whole number without a point")
        return Request("share", most or NO_ENGINE, math.sqrt(1 - value), known)
    try:
        whole = operator.index(value)
    except TypeError as error:
        raise ConversionError(text) from error
    if whole < 1:
        raise ConversionError(text)
    if engine is not None and most is not None and whole > most:
        raise ConversionError(
            f"rank {whole}: {engine.title} {engine.version} takes at most {most}"
            + (f" ({engine.ranks.flag})" if engine.ranks.flag else "")
        )
    return Request("rank", whole, 0.0, known)


def _limit(engine: Engine | None) -> int | None:
    if engine is None:
        return None
    return max(engine.ranks.choices, default=None) or engine.ranks.most


def exact_rank(catalog: Catalog, adapter: Adapter) -> tuple[int, str] | None:
    """Rank at which nothing is lost, by the configuration alone, and the formula."""
    rule = exact_rule(catalog.conversions, adapter)
    return None if rule is None else (rank_by(rule, adapter), formula(rule))


def peft_is_right(catalog: Catalog, adapter: Adapter) -> str | None:
    """Why peft's own conversion must not be used; `None` where it is right and exact."""
    rules = matching_rules(catalog.conversions, adapter, "convert")
    for rule in rules:
        if rule.verdict in {"wrong", "refused", "unknown", "approximate"}:
            how = {
                "wrong": "peft converts it wrongly without a word",
                "refused": "peft refuses to convert it",
                "unknown": "nobody knows what peft makes of it",
                "approximate": "peft converts it only approximately",
            }[rule.verdict]
            return f"{how}: {rule.because}"
    method = catalog.method_by_id[adapter.method]
    if method.capability("convertible_to_lora", adapter.variants).support != "yes":
        return "peft offers no conversion for it"
    if adapter.method == PLAIN:
        return "it is a LoRA already, of which the change of weights is read"
    if not any(rule.verdict == "exact" for rule in rules):
        return "peft's conversion of it is not known to be exact"
    return None

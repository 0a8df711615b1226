"""Learning rates tried, where the runs of a benchmark vary in them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from peft_shop.ask.contenders import field_of_play
from peft_shop.ask.told import rates_tried

if TYPE_CHECKING:
    from collections.abc import Mapping

    from peft_shop.ask.candidates import Candidate
    from peft_shop.ask.places import Dropped, Unmeasured
    from peft_shop.ask.recommendation import Recommendation
    from peft_shop.ask.told import RatesTried

__all__ = ["rates_footnote", "rates_of", "rates_sentence"]


def rates_of(recommendation: Recommendation) -> Mapping[tuple[str, tuple[str, ...]], RatesTried]:
    """Rates by method and variants, over all comparable runs; empty where none varied."""
    if not recommendation.query.ranked:
        return {}
    catalog = recommendation.catalog
    field = field_of_play(catalog, recommendation.query)
    return rates_tried(catalog, recommendation.benchmark, field.contenders)


def rates_sentence(
    recommendation: Recommendation, one: Candidate | Dropped | Unmeasured
) -> str | None:
    """What was tried of the method and variants of a candidate; `None` where nothing is told."""
    rate = rates_of(recommendation).get((one.method, getattr(one, "variants", ())))
    return None if rate is None else f"Learning rates tried of {rate}."


def rates_footnote(recommendation: Recommendation) -> str | None:
    """The same of every method, those that may be under-tuned first."""
    rates = sorted(rates_of(recommendation).values(), key=lambda rate: rate.edge is None)
    if not rates:
        return None
    single = [one.title for one in rates if one.edge == "only"]
    several = "; ".join(str(one) for one in rates if one.edge != "only")
    text = f"Learning rates tried: {several}." if several else ""
    if single:
        text += f" One rate only: {', '.join(single)}."
    return f"{text.strip()} A best rate at an edge, or the only one, may not be the best there is."

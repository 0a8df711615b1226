"""The order of a front: what "best first" means."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from peft_shop.ask import reasons
from peft_shop.ask.spread import between, factor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from peft_shop.ask.contenders import Contender
    from peft_shop.ask.query import Query
    from peft_shop.catalog.benchmarks import Metric
    from peft_shop.catalog.catalog import Catalog

__all__ = ["best_first", "epsilons", "ranked"]


def ranked(
    catalog: Catalog,
    query: Query,
    kept: Sequence[Contender],
    members: Sequence[int],
    objectives: Sequence[Metric],
) -> list[int]:
    """Front members in the order of `query.rank_by`; ties by headline, objectives, name.

    Args:
        catalog: for the metrics.
        query: says the order.
        kept: contenders that `members` are indices into.
        members: the front.
        objectives: the metrics optimised, headline first.
    """
    headline = catalog.metric_by_id[catalog.benchmark_by_id[query.benchmark].headline]

    def at(i: int, metric: Metric) -> float:
        return reasons.cost(kept[i], metric) if metric.id in kept[i].values else math.inf

    def usual(i: int) -> tuple[float | str, ...]:
        return (at(i, headline), *(at(i, metric) for metric in objectives), kept[i].name)

    if query.rank_by in catalog.metric_by_id:
        chosen = catalog.metric_by_id[query.rank_by]
        return sorted(members, key=lambda i: (at(i, chosen), *usual(i)))
    if not members or query.rank_by == "headline":
        return sorted(members, key=usual)
    if query.rank_by == "cheapest-tie":
        top = min(members, key=usual)
        others = [metric for metric in objectives if metric.id != headline.id]

        def equal(i: int) -> bool:
            spread = between(kept[i], kept[top], headline.id)
            # the best of several equal members is ahead by chance
            least = factor(query.confidence, spread.degrees, len(members) - 1)
            return at(i, headline) - at(top, headline) <= least * spread.sd

        cheapest = sorted(
            filter(equal, members),
            key=lambda i: (*(at(i, metric) for metric in others), kept[i].name),
        )
        return cheapest + sorted((i for i in members if not equal(i)), key=usual)
    weights = query.weights or {metric.id: 1.0 for metric in objectives}
    scored = [catalog.metric_by_id[name] for name in weights]

    def scaled(i: int, metric: Metric) -> float:
        """Cost relative to the front: 0 at its best member, 1 at its worst or when missing."""
        present = [at(k, metric) for k in members if math.isfinite(at(k, metric))]
        if not math.isfinite(at(i, metric)):
            return 1.0
        low, high = min(present), max(present)
        return (at(i, metric) - low) / (high - low) if high > low else 0.0

    def score(i: int) -> float:
        if query.rank_by == "knee":
            return math.hypot(*(scaled(i, metric) for metric in scored))
        return sum(weights[metric.id] * scaled(i, metric) for metric in scored)

    return sorted(members, key=lambda i: (score(i), *usual(i)))


def best_first(
    catalog: Catalog,
    query: Query,
    contenders: Sequence[Contender],
    objectives: Sequence[Metric],
) -> list[Contender]:
    """Contenders in the order of `query.rank_by`, whatever dominates what."""
    order = ranked(catalog, query, contenders, range(len(contenders)), objectives)
    return [contenders[row] for row in order]


def epsilons(kept: Sequence[Contender], objectives: Sequence[Metric]) -> list[float]:
    """Per objective the difference below which exact figures count as equal, in base units."""
    widths = []
    for metric in objectives:
        width = metric.tie or 0.0
        known = [
            abs(contender.values[metric.id]) for contender in kept if metric.id in contender.values
        ]
        if metric.tie_relative and known:
            least = min(known)
            width = max(width, metric.tie_relative * least)
        widths.append(width)
    return widths

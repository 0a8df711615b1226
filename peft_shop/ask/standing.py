"""Where every kept contender stands: on the front, tied with it, or dominated, and by whom."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from peft_shop.ask import reasons
from peft_shop.ask.noise import front_probabilities, tie_set
from peft_shop.ask.ranking import epsilons, ranked
from peft_shop.pareto import dominators, front

if TYPE_CHECKING:
    from collections.abc import Sequence

    from peft_shop.ask.contenders import Contender
    from peft_shop.ask.query import Query
    from peft_shop.catalog.catalog import Catalog
    from peft_shop.catalog.runs import Metric

__all__ = ["Standing", "Standings", "standings"]


@dataclass(frozen=True, slots=True)
class Standing:
    """A kept contender with its place.

    Attributes:
        contender: who.
        row: its place among the kept ones, which the reasons count by.
        costs: its figures, turned so that less is better, in the order of the objectives; one
            that is not known is worse than every known one.
        sds: standard deviations of `costs`, 0 where a figure is exact.
        on_front: whether nothing is better in one objective without being worse in another.
        tied: whether nothing is better beyond doubt.
        chance: probability of being on the front of the true figures.
        dominator: the front member that stands above it; `None` on the front.
    """

    contender: Contender
    row: int
    costs: tuple[float, ...]
    sds: tuple[float, ...]
    on_front: bool
    tied: bool
    chance: float
    dominator: Contender | None


@dataclass(frozen=True, slots=True)
class Standings:
    """All kept contenders, each in one of three places.

    Attributes:
        front: in the order of the question.
        ties: the likeliest first.
        dominated: in the order of `kept`.
        kept: all of them, in the order in which they came.
        costs: (n, m), in the order of `kept`.
    """

    front: tuple[Standing, ...]
    ties: tuple[Standing, ...]
    dominated: tuple[Standing, ...]
    kept: tuple[Contender, ...]
    costs: tuple[tuple[float, ...], ...]


def standings(
    catalog: Catalog, query: Query, kept: Sequence[Contender], objectives: Sequence[Metric]
) -> Standings:
    """Where each of `kept` stands.

    Args:
        catalog: for the metrics.
        query: says the order and the confidence.
        kept: contenders with a run that fail nothing.
        objectives: the m metrics optimised, the one to argue with first.
    """
    costs = _costs(kept, objectives)
    sds = [tuple(one.sds.get(metric.id, 0.0) for metric in objectives) for one in kept]
    on_front = ranked(catalog, query, kept, front(costs), objectives)
    tied = set(
        tie_set(costs, sds, confidence=query.confidence, epsilons=epsilons(kept, objectives))
    )
    above = dominators(costs, on_front)
    chances = front_probabilities(costs, sds)
    every = [
        Standing(
            contender=contender,
            row=row,
            costs=costs[row],
            sds=sds[row],
            on_front=row not in above,
            tied=row in tied,
            chance=chances[row],
            dominator=kept[above[row]] if row in above else None,
        )
        for row, contender in enumerate(kept)
    ]
    behind = [standing for standing in every if not standing.on_front]
    return Standings(
        front=tuple(every[row] for row in on_front),
        ties=tuple(
            sorted(
                (standing for standing in behind if standing.tied),
                key=lambda standing: (-standing.chance, standing.contender.name),
            )
        ),
        dominated=tuple(standing for standing in behind if not standing.tied),
        kept=tuple(kept),
        costs=tuple(costs),
    )


def _costs(kept: Sequence[Contender], objectives: Sequence[Metric]) -> list[tuple[float, ...]]:
    """Costs (n, m); what is not known is ranked behind all that is, and alike among itself."""
    columns = []
    for metric in objectives:
        known = [reasons.cost(one, metric) for one in kept if metric.id in one.values]
        worst = max(known, default=0.0)
        unknown = worst + abs(worst) + 1.0
        columns.append(
            [reasons.cost(one, metric) if metric.id in one.values else unknown for one in kept]
        )
    return list(zip(*columns, strict=True)) if columns else [() for _ in kept]

"""Where every kept contender stands: on the front, tied with it, or dominated, and by whom."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from peft_shop.ask import reasons
from peft_shop.ask.noise import front_probabilities
from peft_shop.ask.ranking import epsilons, ranked
from peft_shop.ask.ties import rival_counts, tie_set
from peft_shop.pareto import dominators, front

if TYPE_CHECKING:
    from collections.abc import Sequence

    from peft_shop.ask.contenders import Contender
    from peft_shop.ask.query import Query
    from peft_shop.catalog.benchmarks import Metric
    from peft_shop.catalog.catalog import Catalog

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
        rivals: with how many others it is compared, being nowhere worse in exact figures.
        dominator: the front member that stands above it; `None` on the front.
    """

    contender: Contender
    row: int
    costs: tuple[float, ...]
    sds: tuple[float, ...]
    on_front: bool
    tied: bool
    chance: float
    rivals: int
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
    deviations = _deviations(kept, objectives)
    sds = deviations.sds
    on_front = ranked(catalog, query, kept, front(costs), objectives)
    tied = set(_ties(tuple(costs), deviations, query.confidence, tuple(epsilons(kept, objectives))))
    above = dominators(costs, on_front)
    chances = _chances(tuple(costs), deviations)
    rivals = rival_counts(costs, sds)
    every = [
        Standing(
            contender=contender,
            row=row,
            costs=costs[row],
            sds=sds[row],
            on_front=row not in above,
            tied=row in tied,
            chance=chances[row],
            rivals=rivals[row],
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


class _Deviations(NamedTuple):
    """Of the costs of the kept contenders, each (n, m) but the last.

    Attributes:
        sds: standard deviations, 0 where a figure is exact.
        reruns: the part of them that re-runs have.
        degrees: of freedom behind `reruns`.
        paired: by row, row and column what the choice of questions adds to a difference.
    """

    sds: tuple[tuple[float, ...], ...]
    reruns: tuple[tuple[float, ...], ...]
    degrees: tuple[tuple[float, ...], ...]
    paired: tuple[tuple[tuple[int, int, int], float], ...]


def _deviations(kept: Sequence[Contender], objectives: Sequence[Metric]) -> _Deviations:
    names = [metric.id for metric in objectives]
    sds = tuple(tuple(contender.sds.get(name, 0.0) for name in names) for contender in kept)
    places = {contender.name: row for row, contender in enumerate(kept) if contender.paired_sds}
    return _Deviations(
        sds=sds,
        reruns=tuple(
            tuple(contender.rerun_sds.get(name, sd) for name, sd in zip(names, row, strict=True))
            for contender, row in zip(kept, sds, strict=True)
        ),
        degrees=tuple(
            tuple(contender.degrees.get(name, math.inf) for name in names) for contender in kept
        ),
        paired=tuple(
            ((row, places[other], column), sd)
            for row, contender in enumerate(kept)
            for column, name in enumerate(names)
            for other, sd in contender.paired_sds.get(name, {}).items()
            if other in places
        ),
    )


# the same question again costs no arithmetic; large answers are not kept
@lru_cache(maxsize=32)
def _ties(
    costs: tuple[tuple[float, ...], ...],
    deviations: _Deviations,
    confidence: float,
    widths: tuple[float, ...],
) -> list[int]:
    return tie_set(
        costs,
        deviations.sds,
        confidence=confidence,
        epsilons=widths,
        reruns=deviations.reruns,
        degrees=deviations.degrees,
        paired=dict(deviations.paired),
    )


@lru_cache(maxsize=32)
def _chances(costs: tuple[tuple[float, ...], ...], deviations: _Deviations) -> list[float]:
    """P(front), with the degrees of freedom that most estimates of a column have."""
    degrees = []
    for column in range(len(costs[0]) if costs else 0):
        counts = Counter(row[column] for row in deviations.degrees)
        for row, part in zip(deviations.degrees, deviations.reruns, strict=True):
            counts[row[column]] -= part[column] == 0
        degrees.append(min(counts, key=lambda value: (-counts[value], value)))
    return front_probabilities(costs, deviations.sds, reruns=deviations.reruns, degrees=degrees)


def _costs(kept: Sequence[Contender], objectives: Sequence[Metric]) -> list[tuple[float, ...]]:
    """Costs (n, m); what is not known is ranked behind all that is, and alike among itself."""
    columns = []
    for metric in objectives:
        known = [
            reasons.cost(contender, metric) for contender in kept if metric.id in contender.values
        ]
        worst = max(known, default=0.0)
        unknown = worst + abs(worst) + 1.0
        columns.append(
            [
                reasons.cost(contender, metric) if metric.id in contender.values else unknown
                for contender in kept
            ]
        )
    return list(zip(*columns, strict=True)) if columns else [() for _ in kept]

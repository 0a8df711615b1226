"""What was published beside what a trial measured: figures and orders, never one front of both."""

from __future__ import annotations

import math
from itertools import combinations
from typing import TYPE_CHECKING, NamedTuple

from peft_shop.ask.contenders import field_of_play
from peft_shop.ask.reading import build_query

if TYPE_CHECKING:
    from collections.abc import Sequence

    from peft_shop.ask.contenders import Contender
    from peft_shop.catalog.benchmarks import Benchmark, Metric
    from peft_shop.catalog.catalog import Catalog
    from peft_shop.catalog.runs import Run

__all__ = ["Beside", "Orders", "kendall_tau", "orders_of"]


class Beside(NamedTuple):
    """One configuration as published, and as the user measured it.

    Attributes:
        experiment: its name in the user's own benchmark.
        published: headline figure of the published run, in base units.
        published_rank: its place among those that both measured, from 1 on.
        own: headline figure of the user's own runs.
        own_rank: likewise.
    """

    experiment: str
    published: float
    published_rank: int
    own: float
    own_rank: int


class Orders(NamedTuple):
    """The published order beside the user's own.

    Attributes:
        benchmark: that the published figures are from.
        metric: its headline.
        own_metric: the headline of the user's benchmark.
        rows: configurations that both measured, best of the user's own first.
        tau: Kendall's tau-b of the two orders, from -1 to 1; `None` where one of them has one place
            only.
    """

    benchmark: Benchmark
    metric: Metric
    own_metric: Metric
    rows: tuple[Beside, ...]
    tau: float | None

    def row_of(self, run: Run | None) -> Beside | None:
        """The row of a run of the user's; `None` where nothing was published of it."""
        if run is None:
            return None
        return next((row for row in self.rows if row.experiment == run.experiment), None)


def orders_of(catalog: Catalog, own: Benchmark) -> Orders | None:
    """The published order of a trial's candidates beside the trial's own.

    Args:
        catalog: of the trial, which holds what is published too.
        own: the trial's benchmark.

    Returns:
        `None` for a published benchmark, and where no candidate has figures on both sides.
    """
    if own.protocol is None:
        return None
    field = field_of_play(catalog, build_query(catalog, benchmark=own.id))
    mine = [
        (contender, contender.run.provenance.published)
        for contender in field.contenders
        if contender.run is not None and contender.run.provenance.published is not None
    ]
    for benchmark in catalog.benchmarks:
        if benchmark.protocol is not None:
            continue
        # every run that was current at some time: a trial may have begun before the newest
        query = build_query(catalog, benchmark=benchmark.id, snapshot="all")
        theirs = {
            contender.run.id: contender
            for contender in field_of_play(catalog, query).contenders
            if contender.run is not None
        }
        pairs = [
            (contender, theirs[published])
            for contender, published in mine
            if published in theirs
            and own.headline in contender.values
            and benchmark.headline in theirs[published].values
        ]
        if pairs:
            return _orders(catalog, own, benchmark, pairs)
    return None


def _orders(
    catalog: Catalog,
    own: Benchmark,
    benchmark: Benchmark,
    pairs: Sequence[tuple[Contender, Contender]],
) -> Orders:
    own_metric = catalog.metric_by_id[own.headline]
    metric = catalog.metric_by_id[benchmark.headline]
    ours = [contender.values[own.headline] for contender, _ in pairs]
    theirs = [contender.values[benchmark.headline] for _, contender in pairs]
    own_ranks = _ranks([_cost(value, own_metric) for value in ours])
    ranks = _ranks([_cost(value, metric) for value in theirs])
    rows = [
        Beside(contender.run.experiment, published, rank, figure, own_rank)
        for (contender, _), published, rank, figure, own_rank in zip(
            pairs, theirs, ranks, ours, own_ranks, strict=True
        )
        if contender.run is not None
    ]
    rows.sort(key=lambda row: (row.own_rank, row.experiment))
    return Orders(benchmark, metric, own_metric, tuple(rows), kendall_tau(ranks, own_ranks))


def _cost(value: float, metric: Metric) -> float:
    return value if metric.better == "lower" else -value


def _ranks(costs: Sequence[float]) -> list[int]:
    """Places from 1 on; equal figures share the better one."""
    return [1 + sum(other < cost for other in costs) for cost in costs]


def kendall_tau(one: Sequence[float], other: Sequence[float]) -> float | None:
    """Kendall's tau-b of two orders (Biometrika 33, 1945, 239-251); `None` where it is not defined.

    >>> kendall_tau([1, 2, 3], [1, 3, 2])
    0.3333333333333333
    """
    agree = disagree = tied_one = tied_other = 0
    for (a, x), (b, y) in combinations(list(zip(one, other, strict=True)), 2):
        side = (a > b) - (a < b), (x > y) - (x < y)
        tied_one += side[0] == 0
        tied_other += side[1] == 0
        agree += side[0] * side[1] > 0
        disagree += side[0] * side[1] < 0
    pairs = len(one) * (len(one) - 1) // 2
    scale = math.sqrt((pairs - tied_one) * (pairs - tied_other))
    return (agree - disagree) / scale if scale else None

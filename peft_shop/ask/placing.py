"""Where a method stands on each benchmark, by its best comparable run: never one order over two."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from peft_shop.ask.contenders import field_of_play
from peft_shop.ask.reading import build_query
from peft_shop.ask.replicates import UNFIT

if TYPE_CHECKING:
    from collections.abc import Iterable

    from peft_shop.ask.contenders import Contender
    from peft_shop.catalog.benchmarks import Benchmark
    from peft_shop.catalog.catalog import Catalog

__all__ = ["Place", "places"]


@dataclass(frozen=True, slots=True)
class Place:
    """A method, or a variant of it, on one benchmark.

    Attributes:
        rank: by the best headline score of each method, from 1; equal scores share a rank.
        methods: methods with a comparable run.
        runs: comparable runs of what stands there.
        best: name of the best of them.
        score: its headline score, in base units.
    """

    benchmark: Benchmark
    rank: int
    methods: int
    runs: int
    best: str
    score: float


def places(catalog: Catalog, method: str, *variants: str) -> tuple[Place, ...]:
    """Place of a method on each benchmark that has a comparable run of it, in the catalog's order.

    Flagged runs and runs under other conditions or of other eras do not count.

    Args:
        catalog: what is known.
        method: identifier of the method.
        variants: count only runs that have all of these; such runs are ranked among the best ones
            of the other methods.
    """
    found = []
    for benchmark in catalog.benchmarks:
        headline = catalog.metric_by_id[benchmark.headline]
        sign = 1 if headline.better == "higher" else -1
        best: dict[str, float] = {}
        own: list[Contender] = []
        for contender in _comparable(catalog, benchmark):
            score = sign * contender.values[benchmark.headline]
            if contender.method != method:
                best[contender.method] = max(best.get(contender.method, score), score)
            elif set(variants) <= set(contender.variants):
                own.append(contender)
        if own:
            top = max(own, key=lambda one: (sign * one.values[benchmark.headline], one.name))
            score = sign * top.values[benchmark.headline]
            found.append(
                Place(
                    benchmark=benchmark,
                    rank=1 + sum(other > score for other in best.values()),
                    methods=1 + len(best),
                    runs=len(own),
                    best=top.name,
                    score=top.values[benchmark.headline],
                )
            )
    return tuple(found)


def _comparable(catalog: Catalog, benchmark: Benchmark) -> Iterable[Contender]:
    query = build_query(catalog, benchmark=benchmark.id)
    for contender in field_of_play(catalog, query).contenders:
        run = contender.run
        if run is None or benchmark.headline not in contender.values or run.era != query.era:
            continue
        if not any(
            flag.code in UNFIT and (not flag.metrics or benchmark.headline in flag.metrics)
            for flag in run.flags
        ):
            yield contender

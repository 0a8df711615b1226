"""Query -> a Verdict per candidate.

`judge` says of each contender which constraints it fails, all of them. An unknown value never
satisfies a requirement, and a figure that is missing or not comparable never meets a bound.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from peft_shop.ask.adapted import retargeted
from peft_shop.ask.contenders import ANY_ERA, SHIFTED_ERAS
from peft_shop.ask.demanding import demand_failures
from peft_shop.ask.query import Failure, Verdict
from peft_shop.ask.replicates import UNFIT
from peft_shop.units import format_quantity

if TYPE_CHECKING:
    from collections.abc import Iterable

    from peft_shop.ask.contenders import Contender
    from peft_shop.ask.query import Bound, MemoryLimit, Query
    from peft_shop.catalog.benchmarks import Metric
    from peft_shop.catalog.catalog import Catalog
    from peft_shop.catalog.runs import Run

__all__ = ["FORECAST_METRICS", "MEMORY", "MODEL", "judge"]

MODEL: Final = "model"
"""Option whose value is the model that the configurations are for."""
MEMORY: Final = "max_memory"
"""Option whose value the forecast of peak memory must meet."""
FORECAST_METRICS: Final = ("peak_memory", "checkpoint_size", "trainable_parameters")
"""Metrics whose measured figures a forecast replaces."""


def judge(catalog: Catalog, query: Query, contenders: Iterable[Contender]) -> list[Verdict]:
    """A verdict for every contender, in their order, with every constraint that it fails."""
    terms = _terms(catalog, query)
    return [
        Verdict(
            candidate=contender.name, failures=tuple(_failures(catalog, terms, query, contender))
        )
        for contender in contenders
    ]


@dataclass(frozen=True, slots=True)
class _Terms:
    """What every run is held against, worked out once for a question.

    Attributes:
        asked: metrics whose measured figures decide the answer.
        compares_eras: whether scores are compared, which only mean the same within one era.
        headline: the score of the benchmark.
        least: the least score, for people.
        strangers: what is said of runs of another era, by era; filled as they come.
    """

    asked: frozenset[str]
    compares_eras: bool
    headline: Metric
    least: str
    strangers: dict[str | None, Failure]


def _terms(catalog: Catalog, query: Query) -> _Terms:
    headline = catalog.metric_by_id[catalog.benchmark_by_id[query.benchmark].headline]
    return _Terms(
        asked=frozenset(asked_metrics(query)),
        compares_eras=era_matters(catalog, query),
        headline=headline,
        least=format_quantity(query.floor, headline.unit),
        strangers={},
    )


def _failures(
    catalog: Catalog, terms: _Terms, query: Query, contender: Contender
) -> Iterable[Failure]:
    method = catalog.method_by_id[contender.method]
    yield from demand_failures(catalog, method, contender, query)
    adaptation = retargeted(catalog, query, contender)
    if adaptation is not None and adaptation.problems:
        problems = "; ".join(adaptation.problems)
        yield Failure(constraint=MODEL, reason=problems, found=problems)
    if query.memory is not None:
        yield from _memory_failures(query.memory, contender)
    if contender.run is not None:
        yield from _run_failures(catalog, terms, query, contender, contender.run)


def asked_metrics(query: Query) -> Iterable[str]:
    """Metrics whose measured figures decide the answer: objectives, bounds, order and weights."""
    names = [*query.objectives, *(bound.metric for bound in query.bounds)]
    names += [query.rank_by, *query.weights]
    replaced = FORECAST_METRICS if query.training is not None else ()
    return (name for name in dict.fromkeys(names) if name not in replaced)


def era_matters(catalog: Catalog, query: Query) -> bool:
    """Whether the question compares scores, which only mean the same within one era."""
    if query.era in {None, ANY_ERA, SHIFTED_ERAS}:
        return False
    known = catalog.metric_by_id
    return any(known[name].scope == "score" for name in asked_metrics(query) if name in known)


def _run_failures(
    catalog: Catalog, terms: _Terms, query: Query, contender: Contender, run: Run
) -> Iterable[Failure]:
    if terms.compares_eras and run.era != query.era:
        if run.era not in terms.strangers:
            terms.strangers[run.era] = Failure(
                constraint="era",
                reason=f"scored in the {run.era!r} era, not in {query.era!r}",
                demanded=query.era,
                found=run.era,
            )
        yield terms.strangers[run.era]
    if run.flags and not query.include_flagged:
        yield from _flag_failures(catalog, terms, run)
    for name in query.objectives:
        if name not in contender.values and not _unforecast(query, name):
            reason = f"{name}: {contender.unusable.get(name, 'not measured')}"
            yield Failure(constraint="objectives", reason=reason, demanded=name)
    for bound in query.bounds:
        if (
            bound.kind == "min"
            or bound.metric in contender.values
            or not _unforecast(query, bound.metric)
        ):
            yield from _bound_failures(catalog, contender, bound)
    yield from _floor_failures(terms, query, contender)


def _flag_failures(catalog: Catalog, terms: _Terms, run: Run) -> Iterable[Failure]:
    for flag in run.flags:
        concerned = {catalog.metric_by_field[name].id for name in flag.metrics}
        if flag.code in UNFIT and (not concerned or concerned & terms.asked):
            reason = f"{flag.code}: {flag.reason}"
            yield Failure(constraint="flagged", reason=reason, found=flag.code)


def _floor_failures(terms: _Terms, query: Query, contender: Contender) -> Iterable[Failure]:
    headline = terms.headline
    score = contender.values.get(headline.id)
    if score is None:
        if query.floor > 0:
            reason = contender.unusable.get(headline.id, "not measured")
            yield Failure(
                constraint="floor", reason=f"{headline.id}: {reason}", demanded=terms.least
            )
    elif _worse(headline, score, query.floor):
        shown = format_quantity(score, headline.unit)
        yield Failure(
            constraint="floor",
            reason=f"{headline.id} {shown} is below {terms.least}: it learned nothing",
            demanded=terms.least,
            found=shown,
        )


def _unforecast(query: Query, metric: str) -> bool:
    """Whether `metric` is missing for want of a forecast: unknown, and so never too much."""
    return query.training is not None and metric in FORECAST_METRICS


def _worse(metric: Metric, value: float, limit: float) -> bool:
    return value < limit if metric.better == "higher" else value > limit


def _bound_failures(catalog: Catalog, contender: Contender, bound: Bound) -> Iterable[Failure]:
    name = f"{bound.kind}_{bound.metric}"
    value = contender.values.get(bound.metric)
    if value is None:
        reason = f"{bound.metric}: {contender.unusable.get(bound.metric, 'not measured')}"
        yield Failure(constraint=name, reason=reason, demanded=bound.text)
    elif value > bound.value if bound.kind == "max" else value < bound.value:
        unit = catalog.metric_by_id[bound.metric].unit
        side = "above" if bound.kind == "max" else "below"
        shown = format_quantity(value, unit)
        yield Failure(
            constraint=name,
            reason=f"{bound.metric} {shown} is {side} {bound.text}",
            demanded=bound.text,
            found=shown,
        )


def _memory_failures(limit: MemoryLimit, contender: Contender) -> Iterable[Failure]:
    """A forecast whose whole interval lies above the limit.

    One that straddles it is kept, and so is what cannot be forecast: unknown is not too much.
    """
    if contender.misfit is not None:
        yield Failure(
            constraint=MEMORY, reason=contender.misfit, demanded=limit.text, found=contender.misfit
        )
    elif (
        contender.setup is None
        and contender.forecast
        and contender.forecast.peak_memory.low > limit.bytes
    ):
        low, high = (
            format_quantity(value, "bytes")
            for value in (contender.forecast.peak_memory.low, contender.forecast.peak_memory.high)
        )
        yield Failure(
            constraint=MEMORY,
            reason=f"the forecast, {low} to {high}, is above {limit.text}",
            demanded=limit.text,
            found=f"{low} to {high}",
        )

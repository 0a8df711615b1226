"""Query -> Recommendation: evidence, verdicts, the front, ties and reasons put together."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from peft_shop.ask import reasons
from peft_shop.ask.advice import relaxations, warnings
from peft_shop.ask.contenders import field_of_play
from peft_shop.ask.judging import MEMORY, judge
from peft_shop.ask.ranking import best_first
from peft_shop.ask.recommendation import Recommendation
from peft_shop.ask.records import AnswerRecords, dropped_record, unmeasured_record
from peft_shop.ask.replicates import is_unfit
from peft_shop.ask.standing import standings
from peft_shop.catalog.methods import PLAIN
from peft_shop.records import uncollected

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from peft_shop.ask.appraisal import Traced
    from peft_shop.ask.contenders import Contender, Field
    from peft_shop.ask.places import (
        BaselineKind,
    )
    from peft_shop.ask.query import Query, Verdict
    from peft_shop.catalog.benchmarks import Metric
    from peft_shop.catalog.catalog import Catalog

__all__ = ["answer"]


@uncollected()
def answer(
    catalog: Catalog, query: Query, traced: Mapping[str, Traced] | None = None
) -> Recommendation:
    """The answer to `query` from `catalog`; the same question always gets the same answer.

    Args:
        catalog: holds the facts.
        query: the question.
        traced: what dry runs told of contenders of which no closed form knows, by name.
    """
    field = _costed(catalog, query, field_of_play(catalog, query), traced or {})
    verdicts = judge(catalog, query, field.contenders)
    judged = tuple(zip(field.contenders, verdicts, strict=True))
    benchmark = catalog.benchmark_by_id[query.benchmark]
    objectives = _argued_first(
        [catalog.metric_by_id[name] for name in query.objectives], benchmark.headline
    )
    qualified = [contender for contender, verdict in judged if verdict.kept]
    measured = [contender for contender in qualified if contender.run is not None]
    close = [
        contender
        for contender in measured
        if contender.setup is not None and contender.setup.fits == "maybe"
    ]
    sure = [contender for contender in measured if contender not in close]
    placed = standings(catalog, query, sure, objectives)
    baselines = _baselines(catalog, query, field.contenders, field.baselines)
    records = AnswerRecords(
        catalog,
        query,
        placed,
        contenders=field.contenders,
        objectives=objectives,
        baselines=baselines,
    )
    return Recommendation.trusted(
        query=query,
        benchmark=benchmark,
        metrics=tuple(catalog.metric_by_id[name] for name in benchmark.metrics),
        front=tuple(map(records.front_member, placed.front)),
        ties=tuple(map(records.tied, placed.ties)),
        dominated=tuple(map(records.dominated, placed.dominated)),
        too_close=tuple(map(records.too_close, best_first(catalog, query, close, objectives))),
        unmeasured=tuple(
            unmeasured_record(catalog, query, contender)
            for contender in sorted(qualified, key=lambda one: one.method != PLAIN)
            if contender.run is None
        ),
        dropped=tuple(
            dropped_record(catalog, benchmark, contender, verdict)
            for contender, verdict in judged
            if not verdict.kept
        ),
        baselines=tuple(records.baseline(kind, contender) for kind, contender in baselines),
        relaxations=() if measured else relaxations(catalog, query, field.contenders, verdicts),
        setup=field.setup,
        nothing_fits=None
        if any(contender.setup for contender in qualified)
        else field.nothing_fits,
        warnings=(
            *_fitting(catalog, query, field.contenders, verdicts),
            *field.warnings,
            *warnings(catalog, query, field.contenders, verdicts, objectives),
        ),
        catalog_version=catalog.catalog_version,
        peft_version=catalog.peft_version,
    )


def _costed(catalog: Catalog, query: Query, field: Field, traced: Mapping[str, Traced]) -> Field:
    """The field with forecasts in place of measured costs, where the question asks for them."""
    if query.training is None:
        return field
    if query.fit == "auto":
        from peft_shop.ask.plans import planned  # noqa: PLC0415 - only where a device is named

        plans = planned(catalog, query, field.contenders, field.baselines, traced)
        return replace(
            field,
            contenders=plans.contenders,
            baselines=plans.baselines,
            setup=plans.setup,
            nothing_fits=plans.nothing_fits,
        )
    from peft_shop.ask.appraisal import appraised  # noqa: PLC0415 - only where costs are asked

    return replace(
        field,
        contenders=appraised(catalog, query, field.contenders, traced),
        baselines=appraised(catalog, query, field.baselines, traced),
    )


def _fitting(
    catalog: Catalog, query: Query, contenders: Sequence[Contender], verdicts: Sequence[Verdict]
) -> Iterable[str]:
    """What to change where the memory alone keeps everything out."""
    if query.memory is None or query.fit == "auto":
        return
    if any(
        verdict.kept and contender.forecast is not None
        for contender, verdict in zip(contenders, verdicts, strict=True)
    ):
        return
    from peft_shop.ask.appraisal import fitting_advice  # noqa: PLC0415 - only where costs are asked

    only = [
        contender
        for contender, verdict in zip(contenders, verdicts, strict=True)
        if {failure.constraint for failure in verdict.failures} == {MEMORY}
    ]
    advice = fitting_advice(catalog, query, only)
    if advice is not None:
        yield advice


def _argued_first(objectives: list[Metric], headline: str) -> list[Metric]:
    """Objectives with the headline first, where it is one of them."""
    return sorted(objectives, key=lambda metric: metric.id != headline)


def _baselines(
    catalog: Catalog,
    query: Query,
    contenders: Iterable[Contender],
    full: Iterable[Contender],
) -> list[tuple[BaselineKind, Contender]]:
    """The best plain LoRA run and full fine-tuning, of the query's era where it has one."""
    headline = catalog.metric_by_id[catalog.benchmark_by_id[query.benchmark].headline]

    def best(group: Iterable[Contender]) -> Contender | None:
        usable = [
            contender
            for contender in group
            if contender.run is not None
            and headline.id in contender.values
            and (query.era in {None, "any", "shifted"} or contender.run.era == query.era)
        ]
        sound = [contender for contender in usable if not is_unfit(contender.run)] or usable
        return min(
            sound,
            key=lambda contender: (reasons.cost(contender, headline), contender.name),
            default=None,
        )

    plain = best(
        contender
        for contender in contenders
        if contender.method == PLAIN and not contender.variants
    )
    whole = best(full)
    kinds: list[tuple[BaselineKind, Contender | None]] = [
        (PLAIN, plain),
        ("full_finetuning", whole),
    ]
    return [(kind, contender) for kind, contender in kinds if contender is not None]

"""Query -> Recommendation: evidence, verdicts, the front, ties and reasons put together."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from peft_shop.ask import reasons
from peft_shop.ask.advice import relaxations, warnings
from peft_shop.ask.answer import Recommendation
from peft_shop.ask.candidates import (
    Baseline,
    Difference,
    Dominated,
    Dropped,
    FrontMember,
    Tied,
    Unmeasured,
)
from peft_shop.ask.contenders import Contender, field_of_play
from peft_shop.ask.judging import MEMORY, SERVE, judge, retargeted
from peft_shop.ask.noise import front_probabilities, significance_threshold, tie_set
from peft_shop.ask.ranking import epsilons, ranked
from peft_shop.catalog.features import FULL_FINETUNING
from peft_shop.pareto import dominators, front
from peft_shop.serve.routes import candidate_route, demanded

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from peft_shop.ask.query import Query, Verdict
    from peft_shop.catalog.catalog import Catalog
    from peft_shop.catalog.runs import Metric

__all__ = ["answer", "title"]


def answer(catalog: Catalog, query: Query) -> Recommendation:
    """The answer to `query` from `catalog`; the same question always gets the same answer."""
    field = field_of_play(catalog, query)
    if query.training is not None:
        from peft_shop.ask.appraisal import appraised  # noqa: PLC0415 - only where costs are asked

        field = replace(
            field,
            contenders=appraised(catalog, query, field.contenders),
            baselines=appraised(catalog, query, field.baselines),
        )
    verdicts = judge(catalog, query, field.contenders)
    benchmark = catalog.benchmark_by_id[query.benchmark]
    objectives = _argued_first(
        [catalog.metric_by_id[name] for name in query.objectives], benchmark.headline
    )
    kept = [
        one
        for one, verdict in zip(field.contenders, verdicts, strict=True)
        if verdict.kept and one.run is not None
    ]
    tried = Counter(one.method for one in field.contenders if one.run is not None)
    costs = [tuple(reasons.cost(one, metric) for metric in objectives) for one in kept]
    sds = [tuple(one.sds.get(metric.id, 0.0) for metric in objectives) for one in kept]
    on_front = ranked(catalog, query, kept, front(costs), objectives)
    tied = tie_set(costs, sds, confidence=query.confidence, epsilons=epsilons(kept, objectives))
    above = dominators(costs, on_front)
    chance = front_probabilities(costs, sds)
    members = [kept[i] for i in on_front]
    baselines = _baselines(catalog, query, field.contenders, field.baselines)
    ties = sorted((i for i in tied if i in above), key=lambda i: (-chance[i], kept[i].name))
    rest = [i for i in range(len(kept)) if i in above and i not in set(ties)]
    threshold = significance_threshold(query.confidence)

    def base(one: Contender, probability: float | None = None) -> dict[str, Any]:
        return _candidate(catalog, query, one, tried[one.method], probability)

    return Recommendation(
        query=query,
        benchmark=benchmark,
        metrics=tuple(catalog.metric_by_id[name] for name in benchmark.metrics),
        front=tuple(
            FrontMember(
                **base(kept[i], chance[i]),
                why=reasons.why(i, kept, costs, objectives),
                gives_up=reasons.gives_up(kept[i], members, objectives),
                versus=tuple(_difference(kept[i], one) for _, one in baselines),
                warning=reasons.luck(i, kept, costs, objectives, tried[kept[i].method]),
            )
            for i in on_front
        ),
        ties=tuple(
            Tied(
                **base(kept[i], chance[i]),
                dominated_by=kept[above[i]].name,
                because=reasons.tie_reason(kept[i], kept[above[i]], objectives, threshold),
            )
            for i in ties
        ),
        dominated=tuple(
            Dominated(**base(kept[i], chance[i]), dominated_by=kept[above[i]].name) for i in rest
        ),
        unmeasured=tuple(
            _unmeasured(catalog, query, one)
            for one, verdict in zip(field.contenders, verdicts, strict=True)
            if verdict.kept and one.run is None
        ),
        dropped=tuple(
            Dropped(
                name=one.name,
                title=title(catalog, one.method, one.variants),
                method=one.method,
                variants=one.variants,
                run=one.run,
                failures=verdict.failures,
            )
            for one, verdict in zip(field.contenders, verdicts, strict=True)
            if not verdict.kept
        ),
        baselines=tuple(Baseline(**base(one), kind=kind) for kind, one in baselines),
        relaxations=() if kept else relaxations(catalog, query, field.contenders, verdicts),
        warnings=(
            *_fitting(catalog, query, field.contenders, verdicts),
            *field.warnings,
            *warnings(catalog, query, field.contenders, verdicts, objectives),
        ),
        catalog_version=catalog.catalog_version,
        peft_version=catalog.peft_version,
    )


def title(catalog: Catalog, method: str, variants: Sequence[str] = ()) -> str:
    """Method and variants for people, such as "LoRA (rsLoRA)"."""
    if method == FULL_FINETUNING:
        return "Full fine-tuning"
    known = catalog.method_by_id[method]
    names = [variant.title for variant in known.variants if variant.id in variants]
    if len(names) == 1 and names[0].startswith(known.title):
        return names[0]  # "MiSS mini" says it all
    return f"{known.title} ({', '.join(names)})" if names else known.title


def _fitting(
    catalog: Catalog, query: Query, contenders: Sequence[Contender], verdicts: Sequence[Verdict]
) -> Iterable[str]:
    """What to change where the memory alone keeps everything out."""
    if query.memory is None or any(verdict.kept for verdict in verdicts):
        return
    from peft_shop.ask.appraisal import fitting_advice  # noqa: PLC0415 - only where costs are asked

    only = [
        one
        for one, verdict in zip(contenders, verdicts, strict=True)
        if {failure.constraint for failure in verdict.failures} == {MEMORY}
    ]
    advice = fitting_advice(catalog, query, only)
    if advice is not None:
        yield advice


def _candidate(
    catalog: Catalog, query: Query, one: Contender, configurations: int, probability: float | None
) -> dict[str, Any]:
    run = one.run
    flags = run.flags if run is not None else ()
    engines = [
        demanded(value)[0]
        for requirement in query.requirements
        if requirement.name == SERVE
        for value in requirement.values
    ]
    return {
        "name": one.name,
        "title": title(catalog, one.method, one.variants),
        "method": one.method,
        "variants": one.variants,
        "run": run,
        "values": one.values,
        "unusable": one.unusable,
        "sds": one.sds,
        "front_probability": probability,
        "configurations": max(configurations, 1),
        "pooled": one.pooled,
        "notes": (*one.notes, *(f"{flag.code}: {flag.reason}" for flag in flags)),
        "routes": {
            engine: candidate_route(catalog, engine, query.benchmark, run or one.method)
            for engine in engines
        },
        "retargeted": retargeted(catalog, query, one),
        "forecasted": one.forecast,
    }


def _unmeasured(catalog: Catalog, query: Query, one: Contender) -> Unmeasured:
    method = catalog.method_by_id[one.method]
    return Unmeasured(
        method=method.id,
        title=method.title,
        summary=method.summary,
        capabilities=method.capabilities,
        retargeted=retargeted(catalog, query, one),
    )


def _argued_first(objectives: list[Metric], headline: str) -> list[Metric]:
    """Objectives with the headline first, where it is one of them."""
    return sorted(objectives, key=lambda metric: metric.id != headline)


def _baselines(
    catalog: Catalog,
    query: Query,
    contenders: Iterable[Contender],
    full: Iterable[Contender],
) -> list[tuple[str, Contender]]:
    """The best plain LoRA run and full fine-tuning, of the query's era where it has one."""
    headline = catalog.metric_by_id[catalog.benchmark_by_id[query.benchmark].headline]

    def best(group: Iterable[Contender]) -> Contender | None:
        usable = [
            one
            for one in group
            if one.run is not None
            and headline.id in one.values
            and (query.era in {None, "any", "shifted"} or one.run.era == query.era)
        ]
        return min(usable, key=lambda one: (reasons.cost(one, headline), one.name), default=None)

    plain = best(one for one in contenders if one.method == "lora" and not one.variants)
    whole = best(full)
    found = [("lora", plain), ("full_finetuning", whole)]
    return [(kind, one) for kind, one in found if one is not None]


def _difference(one: Contender, baseline: Contender) -> Difference:
    return Difference(
        baseline=baseline.name,
        values={
            name: value - baseline.values[name]
            for name, value in one.values.items()
            if name in baseline.values
        },
    )

"""Query -> Recommendation: evidence, verdicts, the front, ties and reasons put together."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from peft_shop.ask import reasons
from peft_shop.ask.adapted import retargeted, routed, trained_by
from peft_shop.ask.advice import relaxations, warnings
from peft_shop.ask.answer import Recommendation
from peft_shop.ask.bases import base_notes
from peft_shop.ask.candidates import (
    Baseline,
    BaselineKind,
    Difference,
    Dominated,
    Dropped,
    FrontMember,
    Tied,
    TooClose,
    Unmeasured,
)
from peft_shop.ask.contenders import field_of_play
from peft_shop.ask.demanding import SERVE, TRAINER
from peft_shop.ask.judging import MEMORY, judge
from peft_shop.ask.ranking import best_first
from peft_shop.ask.replicates import is_unfit
from peft_shop.ask.rivals import Rivals
from peft_shop.ask.standing import standings
from peft_shop.ask.told import told_title
from peft_shop.catalog.features import FULL_FINETUNING
from peft_shop.catalog.methods import PLAIN
from peft_shop.records import frozen, uncollected
from peft_shop.serve.routes import demanded
from peft_shop.serve.trainers import demanded_trainer
from peft_shop.units import format_quantity

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from peft_shop.ask.appraisal import Traced
    from peft_shop.ask.contenders import Contender, Field
    from peft_shop.ask.query import Query, Verdict
    from peft_shop.ask.standing import Standing, Standings
    from peft_shop.catalog.catalog import Catalog
    from peft_shop.catalog.runs import Benchmark, Metric

__all__ = ["answer", "title"]


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
    close = [one for one in measured if one.setup is not None and one.setup.fits == "maybe"]
    sure = [one for one in measured if one not in close]
    placed = standings(catalog, query, sure, objectives)
    baselines = _baselines(catalog, query, field.contenders, field.baselines)
    records = _Records(
        catalog,
        query,
        placed,
        contenders=field.contenders,
        objectives=objectives,
        baselines=baselines,
    )
    return Recommendation(
        query=query,
        benchmark=benchmark,
        metrics=tuple(catalog.metric_by_id[name] for name in benchmark.metrics),
        front=tuple(map(records.front_member, placed.front)),
        ties=tuple(map(records.tied, placed.ties)),
        dominated=tuple(map(records.dominated, placed.dominated)),
        too_close=tuple(map(records.too_close, best_first(catalog, query, close, objectives))),
        unmeasured=tuple(
            _unmeasured(catalog, query, contender)
            for contender in sorted(qualified, key=lambda one: one.method != PLAIN)
            if contender.run is None
        ),
        dropped=tuple(
            _dropped(catalog, benchmark, contender, verdict)
            for contender, verdict in judged
            if not verdict.kept
        ),
        baselines=tuple(records.baseline(kind, contender) for kind, contender in baselines),
        relaxations=() if measured else relaxations(catalog, query, field.contenders, verdicts),
        setup=field.setup,
        nothing_fits=None if any(one.setup for one in qualified) else field.nothing_fits,
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


class _Records:
    """Makes the records of one answer out of standings."""

    def __init__(
        self,
        catalog: Catalog,
        query: Query,
        placed: Standings,
        *,
        contenders: Iterable[Contender],
        objectives: Sequence[Metric],
        baselines: Sequence[tuple[BaselineKind, Contender]],
    ) -> None:
        self.catalog = catalog
        self.query = query
        self.objectives = objectives
        self.baselines = baselines
        self.members = [standing.contender for standing in placed.front]
        benchmark = catalog.benchmark_by_id[query.benchmark]
        self.benchmark = benchmark
        # runs under other conditions try something else
        self.tried = Counter(
            contender.method for contender in contenders if benchmark.headline in contender.values
        )
        self.rivals = Rivals(placed.kept, placed.costs)
        self.titles: dict[tuple[str, tuple[str, ...]], str] = {}
        self.engines = tuple(_engines(query))
        self.trainers = tuple(_trainers(query))

    def front_member(self, standing: Standing) -> FrontMember:
        """The record of a member of the front, with what it beats and gives up."""
        contender = standing.contender
        configurations = self.tried[contender.method]
        return FrontMember(
            **self._candidate(contender, standing.chance),
            why=reasons.why(standing.row, self.rivals, self.objectives),
            gives_up=reasons.gives_up(contender, self.members, self.objectives),
            versus=tuple(_difference(contender, other) for _, other in self.baselines),
            warning=reasons.luck(standing.row, self.rivals, self.objectives, configurations),
        )

    def tied(self, standing: Standing) -> Tied:
        """The record of a tie, with the reason."""
        dominator = _above(standing)
        return Tied(
            **self._candidate(standing.contender, standing.chance),
            dominated_by=dominator.name,
            because=reasons.tie_reason(
                standing.contender,
                dominator,
                self.objectives,
                self.query.confidence,
                rivals=standing.rivals,
            ),
        )

    def dominated(self, standing: Standing) -> Dominated:
        """The record of a dominated contender."""
        return Dominated.trusted(
            **self._candidate(standing.contender, standing.chance),
            dominated_by=_above(standing).name,
        )

    def too_close(self, contender: Contender) -> TooClose:
        """The record of a contender that may fit or may not."""
        setup, limit = contender.setup, self.query.memory
        if setup is None or limit is None:
            raise AssertionError(f"{contender.name} has no setup")
        low, high = (format_quantity(value, "bytes") for value in (setup.peak.low, setup.peak.high))
        there = format_quantity(limit.bytes, "bytes")
        return TooClose(
            **self._candidate(contender),
            because=f"the forecast, {low} to {high}, is neither surely above nor surely below "
            f"the {there} of {limit.text}",
        )

    def baseline(self, kind: BaselineKind, contender: Contender) -> Baseline:
        """The record of a baseline, which stands nowhere."""
        return Baseline(**self._candidate(contender), kind=kind)

    def _title(self, contender: Contender) -> str:
        key = contender.method, contender.variants
        if key not in self.titles:
            self.titles[key] = title(self.catalog, *key)
        plain = self.titles[key]
        return told_title(self.catalog, self.benchmark, plain, contender.run)

    def _candidate(self, contender: Contender, chance: float | None = None) -> dict[str, Any]:
        run = contender.run
        flags = run.flags if run is not None else ()
        return {
            "name": contender.name,
            "title": self._title(contender),
            "method": contender.method,
            "variants": contender.variants,
            "run": run,
            "values": frozen(contender.values),
            "unusable": frozen(contender.unusable),
            "sds": frozen(contender.sds),
            "rerun_sds": frozen(contender.rerun_sds),
            "degrees": frozen(contender.degrees),
            "paired_sds": frozen(contender.paired_sds),
            "front_probability": chance,
            "configurations": max(self.tried[contender.method], 1),
            "pooled": contender.pooled,
            "seeds": _seeds(contender),
            "replicates": tuple(each.id for each in contender.members),
            "notes": (
                *contender.notes,
                *base_notes(self.catalog, self.query, contender),
                *(f"{flag.code}: {flag.reason}" for flag in flags),
            ),
            "routes": frozen(
                {
                    engine: routed(self.catalog, self.query, contender, engine)
                    for engine in self.engines
                }
            ),
            "trainers": frozen(
                {
                    demanded_trainer(demand)[0]: trained_by(
                        self.catalog, self.query, contender, demand
                    )
                    for demand in self.trainers
                }
            ),
            "retargeted": retargeted(self.catalog, self.query, contender),
            "forecasted": contender.forecast,
            "setup": contender.setup,
        }


def _seeds(contender: Contender) -> tuple[int, ...]:
    runs = contender.members or (() if contender.run is None else (contender.run,))
    return tuple(sorted({run.provenance.seed for run in runs}))


def _above(standing: Standing) -> Contender:
    if standing.dominator is None:
        raise AssertionError(f"{standing.contender.name} is on the front")
    return standing.dominator


def _engines(query: Query) -> Iterable[str]:
    for requirement in query.requirements:
        if requirement.name == SERVE:
            yield from (demanded(value)[0] for value in requirement.values)


def _trainers(query: Query) -> Iterable[str]:
    for requirement in query.requirements:
        if requirement.name == TRAINER:
            yield from requirement.values


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
    if query.memory is None or query.fit == "auto":
        return
    if any(
        verdict.kept and one.forecast is not None
        for one, verdict in zip(contenders, verdicts, strict=True)
    ):
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


def _unmeasured(catalog: Catalog, query: Query, contender: Contender) -> Unmeasured:
    method = catalog.method_by_id[contender.method]
    return Unmeasured(
        method=method.id,
        title=method.title,
        summary=method.summary,
        capabilities=method.capabilities,
        retargeted=retargeted(catalog, query, contender),
        forecasted=contender.forecast,
        setup=contender.setup,
        notes=(*contender.notes, *base_notes(catalog, query, contender)),
    )


def _dropped(
    catalog: Catalog, benchmark: Benchmark, contender: Contender, verdict: Verdict
) -> Dropped:
    plain = title(catalog, contender.method, contender.variants)
    return Dropped.trusted(
        name=contender.name,
        title=told_title(catalog, benchmark, plain, contender.run),
        method=contender.method,
        variants=contender.variants,
        run=contender.run,
        failures=verdict.failures,
    )


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
            one
            for one in group
            if one.run is not None
            and headline.id in one.values
            and (query.era in {None, "any", "shifted"} or one.run.era == query.era)
        ]
        sound = [one for one in usable if not is_unfit(one.run)] or usable
        return min(sound, key=lambda one: (reasons.cost(one, headline), one.name), default=None)

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


def _difference(contender: Contender, baseline: Contender) -> Difference:
    return Difference(
        baseline=baseline.name,
        values={
            name: value - baseline.values[name]
            for name, value in contender.values.items()
            if name in baseline.values
        },
    )

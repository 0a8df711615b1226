"""The records of an answer, made out of standings and verdicts."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from peft_shop.ask import reasons
from peft_shop.ask.adapted import retargeted, routed, trained_by
from peft_shop.ask.bases import base_notes
from peft_shop.ask.demanding import SERVE, TRAINER
from peft_shop.ask.places import (
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
from peft_shop.ask.rivals import Rivals
from peft_shop.ask.told import told_title
from peft_shop.catalog.features import FULL_FINETUNING
from peft_shop.records import frozen
from peft_shop.serve.routes import demanded
from peft_shop.serve.trainers import demanded_trainer
from peft_shop.units import format_quantity

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from peft_shop.ask.contenders import Contender
    from peft_shop.ask.query import Query, Verdict
    from peft_shop.ask.standing import Standing, Standings
    from peft_shop.catalog.benchmarks import Benchmark, Metric
    from peft_shop.catalog.catalog import Catalog

__all__ = [
    "AnswerRecords",
    "dropped_record",
    "title",
    "unmeasured_record",
]


class AnswerRecords:
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
        return FrontMember.trusted(
            **self._candidate(contender, standing.chance),
            why=reasons.why(standing.row, self.rivals, self.objectives),
            gives_up=reasons.gives_up(contender, self.members, self.objectives),
            versus=tuple(_difference(contender, other) for _, other in self.baselines),
            warning=reasons.luck(standing.row, self.rivals, self.objectives, configurations),
        )

    def tied(self, standing: Standing) -> Tied:
        """The record of a tie, with the reason."""
        dominator = _above(standing)
        return Tied.trusted(
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
        return TooClose.trusted(
            **self._candidate(contender),
            because=f"the forecast, {low} to {high}, is neither surely above nor surely below "
            f"the {there} of {limit.text}",
        )

    def baseline(self, kind: BaselineKind, contender: Contender) -> Baseline:
        """The record of a baseline, which stands nowhere."""
        return Baseline.trusted(**self._candidate(contender), kind=kind)

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


def unmeasured_record(catalog: Catalog, query: Query, contender: Contender) -> Unmeasured:
    """The record of a method without a run."""
    method = catalog.method_by_id[contender.method]
    return Unmeasured.trusted(
        method=method.id,
        title=method.title,
        summary=method.summary,
        capabilities=method.capabilities,
        retargeted=retargeted(catalog, query, contender),
        forecasted=contender.forecast,
        setup=contender.setup,
        notes=(*contender.notes, *base_notes(catalog, query, contender)),
    )


def dropped_record(
    catalog: Catalog, benchmark: Benchmark, contender: Contender, verdict: Verdict
) -> Dropped:
    """The record of a contender that fails constraints."""
    plain = title(catalog, contender.method, contender.variants)
    return Dropped.trusted(
        name=contender.name,
        title=told_title(catalog, benchmark, plain, contender.run),
        method=contender.method,
        variants=contender.variants,
        run=contender.run,
        failures=verdict.failures,
    )


def _difference(contender: Contender, baseline: Contender) -> Difference:
    return Difference.trusted(
        baseline=baseline.name,
        values=frozen(
            {
                name: value - baseline.values[name]
                for name, value in contender.values.items()
                if name in baseline.values
            }
        ),
    )

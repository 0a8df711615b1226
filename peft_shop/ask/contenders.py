"""Contenders of a question: one per run of the snapshot, and per method without a run there."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from dataclasses import field as member
from typing import TYPE_CHECKING

from peft_shop.ask.figures import (
    Comparability,
    conditions_of,
    figures_of,
    older_definitions,
    set_noise,
    usual_conditions,
)
from peft_shop.ask.pooling import ALL_SNAPSHOTS, Shifts, runs_until, same_recipe
from peft_shop.ask.replicates import UNFIT, replicates
from peft_shop.ask.uncertainty import NoiseBook, noise_of_replicates, with_pairings
from peft_shop.catalog.features import FULL_FINETUNING
from peft_shop.records import FrozenDict

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from peft_shop.ask.query import Query
    from peft_shop.catalog.benchmarks import Benchmark
    from peft_shop.catalog.catalog import Catalog
    from peft_shop.catalog.methods import Method
    from peft_shop.catalog.noise import EraShift
    from peft_shop.catalog.runs import Run
    from peft_shop.forecast.records import Forecast, NothingFits, Setup

__all__ = [
    "ALL_SNAPSHOTS",
    "ANY_ERA",
    "SHIFTED_ERAS",
    "Contender",
    "Field",
    "field_of_play",
    "in_snapshot",
    "newest_snapshot",
]

ANY_ERA = "any"
SHIFTED_ERAS = "shifted"
_NOTHING = FrozenDict()


@dataclass(frozen=True, slots=True)
class Contender:
    """A run, or a method without one, as a question sees it.

    Attributes:
        name: experiment, run id where an experiment stands several times, or method id.
        values: usable figures by metric id, in base units.
        unusable: why a metric of the benchmark has no usable figure, by metric id.
        sds: standard deviations of noisy figures, as the question asks for them, by metric id.
        rerun_sds: the part of `sds` that re-runs have.
        degrees: of freedom behind `rerun_sds`; absent where it is known.
        paired_sds: what the choice of questions adds to the difference from another contender, by
            metric id and its name, where results of single questions tell it.
        pooled: number of runs behind the figures.
        members: those runs, `run` first; empty for `run` alone.
        notes: what was done to the figures.
        forecast: what it costs on the question's model; `None` where that is not asked.
        setup: the training settings under which it fits; `None` where none was looked for.
        misfit: why no setup fits; `None` where one does, or that is not known.
    """

    name: str
    method: str
    variants: tuple[str, ...]
    run: Run | None
    values: dict[str, float] = member(default_factory=dict)
    unusable: dict[str, str] = member(default_factory=dict)
    sds: dict[str, float] = member(default_factory=dict)
    rerun_sds: dict[str, float] = member(default_factory=dict)
    degrees: dict[str, float] = member(default_factory=dict)
    paired_sds: dict[str, dict[str, float]] = member(default_factory=dict)
    pooled: int = 1
    members: tuple[Run, ...] = ()
    notes: tuple[str, ...] = ()
    forecast: Forecast | None = None
    setup: Setup | None = None
    misfit: str | None = None


@dataclass(frozen=True, slots=True)
class Field:
    """Everything that stands for selection, and what must be said about it.

    Attributes:
        contenders: candidates, by name.
        baselines: full fine-tuning runs; never candidates.
        warnings: for people.
        setup: the answer's one setup; `None` where none was looked for, or nothing fits.
        nothing_fits: what to do where nothing fits.
    """

    contenders: tuple[Contender, ...]
    baselines: tuple[Contender, ...]
    warnings: tuple[str, ...]
    setup: Setup | None = None
    nothing_fits: NothingFits | None = None


def in_snapshot(run: Run, snapshot: str | None) -> bool:
    """Whether a question about `snapshot` is about `run`."""
    return snapshot in {None, ALL_SNAPSHOTS} or snapshot in run.snapshots


def newest_snapshot(catalog: Catalog, benchmark: str) -> str | None:
    """Identifier of the newest snapshot that holds a run of `benchmark`."""
    used = {name for run in catalog.runs_by_benchmark[benchmark] for name in run.snapshots}
    dated = [(snapshot.date, snapshot.id) for snapshot in catalog.snapshots if snapshot.id in used]
    return max(dated)[1] if dated else None


def field_of_play(catalog: Catalog, query: Query) -> Field:
    """Contenders and baselines of `query`, sorted by name; worked out once per catalog.

    Where nothing is evidence, every method stands without a run.
    """
    if not query.ranked:
        return Field(
            contenders=tuple(_unmeasured(method) for method in catalog.methods),
            baselines=(),
            warnings=(),
        )
    key = (
        *(query.benchmark, query.snapshot, query.era, query.evidence),
        *(query.accelerator, query.certainty),
    )
    if key not in catalog.derived:
        catalog.derived[key] = _field(catalog, query)
    field: Field = catalog.derived[key]
    return field


def _field(catalog: Catalog, query: Query) -> Field:
    benchmark = catalog.benchmark_by_id[query.benchmark]
    on_file = catalog.runs_by_benchmark[query.benchmark]
    runs = [run for run in on_file if in_snapshot(run, query.snapshot)]
    until = runs_until(catalog, on_file, query.snapshot)
    conditions = conditions_of(on_file)
    reference = usual_conditions(runs, conditions, query.accelerator)
    metrics = [catalog.metric_by_id[name] for name in benchmark.metrics]
    groups = replicates(runs)
    noise = [item for item in catalog.noise if item.benchmark == benchmark.id]
    told = {item.metric for item in noise}
    noise += noise_of_replicates(
        benchmark.id,
        groups,
        [one for one in metrics if one.id not in told and one.scope == "score"],
    )
    asked = query.certainty == "questions"
    book = NoiseBook(noise, questions=benchmark.sample_size if asked else None)
    shifts = [shift for shift in catalog.era_shifts if shift.benchmark == benchmark.id]
    names = Counter(group[0].experiment for group in groups)
    defined = [(metric, older_definitions(metric, metrics)) for metric in metrics]
    uncertain = {item.metric for item in noise} | ({benchmark.headline} if asked else set())
    noisy = [
        metric
        for metric in metrics
        if metric.id in uncertain and metric.tie is None and metric.tie_relative is None
    ]
    alike: dict[str, list[Run]] = {}
    for run in until:
        alike.setdefault(run.experiment, []).append(run)

    def contender(group: Sequence[Run]) -> Contender:
        run = group[0]
        pool = _fit(group)
        if query.evidence == "pooled":
            candidates = alike.get(run.experiment, ())
            pool = same_recipe(run, candidates, any_era=query.era == SHIFTED_ERAS)
        moved = Shifts(benchmark, shifts, catalog) if query.era == SHIFTED_ERAS else None
        figures = figures_of(run, pool, defined, Comparability(conditions, reference, moved))
        notes = [] if moved is None else moved.notes(figures.values, pool)
        for metric in noisy:
            if metric.id in figures.values:
                set_noise(figures, metric, run, book, headline=metric.id == benchmark.headline)
        if len(group) > 1 or len(pool) > 1:
            notes += _pool_notes(group, pool)
        return Contender(
            name=run.experiment if names[run.experiment] == 1 else run.id,
            method=run.method,
            variants=run.variants,
            run=run,
            values=FrozenDict(figures.values),  # so that records of answers share them
            unusable=FrozenDict(figures.unusable) if figures.unusable else _NOTHING,
            sds=FrozenDict(figures.sds) if figures.sds else _NOTHING,
            rerun_sds=FrozenDict(figures.rerun_sds) if figures.rerun_sds else _NOTHING,
            degrees=FrozenDict(figures.degrees) if figures.degrees else _NOTHING,
            pooled=len(pool),
            members=tuple(pool) if len(pool) > 1 else (),
            notes=tuple(notes),
        )

    everyone = [contender(group) for group in groups]
    if asked and catalog.pairings:
        pairings = [pairing for pairing in catalog.pairings if pairing.benchmark == benchmark.id]
        everyone = with_pairings(everyone, pairings)
    measured = {one.method for one in everyone}
    everyone += [_unmeasured(method) for method in catalog.methods if method.id not in measured]
    everyone.sort(key=lambda one: one.name)
    return Field(
        contenders=tuple(one for one in everyone if one.method != FULL_FINETUNING),
        baselines=tuple(one for one in everyone if one.method == FULL_FINETUNING),
        warnings=_era_warnings(runs, query, benchmark, shifts),
    )


def _unmeasured(method: Method) -> Contender:
    return Contender(name=method.id, method=method.id, variants=(), run=None)


def _fit(group: Sequence[Run]) -> Sequence[Run]:
    """Replicates that count for the mean: those that are not flagged as unfit, where any is not."""
    if len(group) == 1:
        return group
    fit = [run for run in group if not any(flag.code in UNFIT for flag in run.flags)]
    return fit or group[:1]


def _pool_notes(group: Sequence[Run], pool: Sequence[Run]) -> Iterable[str]:
    """How many runs stand behind the figures, and of what they are repetitions."""
    seeds = len({run.recipe.training.seed for run in pool})
    if len(pool) > 1 and seeds == len(pool):
        yield f"mean of {seeds} seeds"
    elif len(pool) > 1:
        yield f"mean of {len(pool)} runs of the same recipe" + (
            f" ({seeds} seeds)" if seeds > 1 else ""
        )
    left = len(group) - len(_fit(group))
    if left:
        yield f"{left} of {len(group)} seeds left out as flagged"


def _era_warnings(
    runs: Sequence[Run], query: Query, benchmark: Benchmark, shifts: Sequence[EraShift]
) -> tuple[str, ...]:
    counts = Counter(run.era for run in runs if run.method != FULL_FINETUNING)
    if len(counts) < 2:
        return ()
    titles = {era.id: era.title for era in benchmark.eras}
    mix = " and ".join(
        f"{counts[era.id]} {titles[era.id]}" for era in benchmark.eras if counts[era.id]
    )
    text = f"this snapshot mixes runs whose scores are not comparable: {mix}"
    for shift in shifts:
        if counts[shift.older] and counts[shift.newer]:
            text += (
                f"; the same experiments score {100 * shift.shift:+.2f} +- "
                f"{100 * shift.standard_error:.2f} points after the change ({shift.pairs} pairs)"
            )
    if query.era == ANY_ERA:
        text += "; they are ranked together because you asked for it"
    elif query.era == SHIFTED_ERAS:
        text += "; older scores are shifted by that much"
    else:
        text += f"; only {titles[query.era or '']} runs are ranked (era={ANY_ERA!r} mixes them)"
    return (text,)

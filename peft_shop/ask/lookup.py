"""Names that people type -> runs and methods of the catalog."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from peft_shop.ask.contenders import Contender, field_of_play
from peft_shop.ask.judging import judge
from peft_shop.ask.meanings import (
    current_runs,
    is_method,
    meaning_of,
    method_meaning,
    runs_called,
)
from peft_shop.ask.reading import build_query, resolve_benchmark
from peft_shop.ask.reasons import cost
from peft_shop.ask.replicates import is_unfit
from peft_shop.catalog.methods import Method
from peft_shop.catalog.runs import Run
from peft_shop.catalog.short_names import run_of_short
from peft_shop.errors import QueryError, UnknownNameError
from peft_shop.serve.adapter import adapter_of_method, adapter_of_run, read_adapter

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peft_shop.ask.meanings import Meaning
    from peft_shop.ask.query import Query
    from peft_shop.catalog.benchmarks import Metric
    from peft_shop.catalog.catalog import Catalog
    from peft_shop.serve.adapter import Adapter

__all__ = [
    "Choice",
    "Subject",
    "benchmark_of",
    "best_run",
    "choose_run",
    "choose_subject",
    "matching_methods",
    "resolve_adapter",
    "resolve_card",
    "resolve_run",
    "resolve_subjects",
]


Chosen = TypeVar("Chosen", Run, Method)


@dataclass(frozen=True, slots=True)
class Subject:
    """What is compared: a run, or a method with its best run.

    Attributes:
        name: as it is shown.
        method: `None` for full fine-tuning.
        contender: the run's comparable figures; `None` for a method that was not measured.
        chosen: whether the run was chosen for a method that was named.
        variant: that was named; `None` where a method or a run was.
    """

    name: str
    method: Method | None
    contender: Contender | None
    chosen: bool = False
    variant: str | None = None

    @property
    def variants(self) -> tuple[str, ...]:
        """Variants of the run; the one that was named where there is no run."""
        if self.contender is not None:
            return self.contender.variants
        return () if self.variant is None else (self.variant,)


@dataclass(frozen=True)
class Choice(Generic[Chosen]):
    """What a name stands for where one thing is needed.

    Attributes:
        subject: the run; the method where it was not measured.
        quantization: backend of the base that the name implies.
        remark: what the name was taken for, where it says less; may be empty.
    """

    subject: Chosen
    quantization: str | None = None
    remark: str = ""


def benchmark_of(catalog: Catalog, names: Sequence[str]) -> str | None:
    """The benchmark that has all runs among `names`; `None` where there is none or more than one.

    Spares people an option when they name a run of another benchmark than the default one.
    """
    common: set[str] | None = None
    for name in names:
        if is_method(catalog, name):
            continue
        places = {run.benchmark for run in runs_called(catalog, name).values()}
        if places:
            common = places if common is None else common & places
    return next(iter(common)) if common is not None and len(common) == 1 else None


def resolve_run(catalog: Catalog, name: str, benchmark: str | None = None) -> Run:
    """The run that `name` stands for: see `choose_run`."""
    return choose_run(catalog, name, benchmark).subject


def choose_run(catalog: Catalog, name: str, benchmark: str | None = None) -> Choice[Run]:
    """The run that `name` stands for.

    Args:
        catalog: where to look.
        name: a run's id, an experiment (its newest run) or the end of one; a method with one
            run only; a variant or combination, of whose runs the best is taken.
        benchmark: where to look; everywhere when `None`.

    Raises:
        UnknownNameError: nothing is called so, or several runs are; names the nearest.
        QueryError: a method with several runs, or without one.
    """
    where = (
        list(catalog.benchmark_by_id)
        if benchmark is None
        else [resolve_benchmark(catalog, benchmark).id]
    )
    meaning = meaning_of(catalog, name, benchmarks=where, kind="run", hint="see `peft-shop runs`")
    if meaning.run is not None:
        return Choice(meaning.run)
    runs = [run for one in where for run in current_runs(catalog, one) if meaning.covers(run)]
    # what is only answered on request stands for no name that other benchmarks know
    usual = [run for run in runs if not catalog.benchmark_by_id[run.benchmark].on_request]
    runs = usual or runs
    if not runs:
        what = meaning.title if meaning.variant else meaning.method
        raise QueryError(f"{what} was not measured on {' or '.join(where)}")
    if len(runs) > 1 and meaning.variant is None and meaning.quantization is None:
        listed = ", ".join(f"{run.experiment} ({run.benchmark})" for run in runs)
        raise QueryError(f"{meaning.method} has {len(runs)} runs; name one of them: {listed}")
    return _best_of(catalog, runs, meaning)


def choose_subject(
    catalog: Catalog, name: str, benchmark: str | None
) -> Choice[Run] | Choice[Method]:
    """What is forecast for `name`: its run, else the best run of what it means, else the method.

    Args:
        catalog: where to look.
        name: as for `choose_run`.
        benchmark: whose runs stand for a method; `None` for the catalog's first.

    Raises:
        UnknownNameError: nothing is called so, or several things are; names the nearest.
        QueryError: a variant without a run there: nobody may be answered for another one.
    """
    meaning = meaning_of(catalog, name)
    if meaning.run is not None:
        return Choice(meaning.run)
    where = resolve_benchmark(catalog, benchmark) if benchmark else catalog.benchmarks[0]
    runs = [run for run in current_runs(catalog, where.id) if meaning.covers(run)]
    if runs:
        return _best_of(catalog, runs, meaning)
    method = catalog.method_by_id.get(meaning.method)
    if method is None or meaning.variant is not None:
        raise QueryError(
            f"no run of {meaning.title} is on file for {where.id}: name a run of "
            f"{meaning.method}, see `peft-shop runs --method {meaning.method}`"
        )
    return Choice(method, meaning.quantization, meaning.remark)


def _best_of(catalog: Catalog, runs: Sequence[Run], meaning: Meaning) -> Choice[Run]:
    """The run of `meaning` with the best headline score, on the first benchmark that has one."""
    places = [
        benchmark
        for benchmark in catalog.benchmarks
        if any(run.benchmark == benchmark.id for run in runs)
    ]
    here = [run for run in runs if run.benchmark == places[0].id]
    headline = catalog.metric_by_id[places[0].headline]
    best = _best(here, headline) or here[0]
    remarks = [meaning.remark] if meaning.remark else []
    if len(runs) > 1:
        what = "plain LoRA" if meaning.quantization and not meaning.variant else meaning.title
        remarks.append(
            f"{best.experiment} is the best of {len(here)} runs of {what} by "
            f"{headline.label.lower()}"
            if len(here) > 1
            else f"{best.experiment} is the run of {what} on {places[0].title}"
        )
    return Choice(best, meaning.quantization, "; ".join(remarks))


def _best(runs: Sequence[Run], headline: Metric) -> Run | None:
    better = 1 if headline.better == "higher" else -1
    usable = [
        run
        for run in runs
        if headline.field in run.metrics
        and not is_unfit(run)
        and not any(flag.code == "broken_config" for flag in run.flags)
    ]
    return max(usable, key=lambda run: (better * run.metrics[headline.field], run.id), default=None)


def best_run(catalog: Catalog, method: str, benchmark: str | None) -> Run | None:
    """The current run of `method` with the best headline score; `None` where it has none.

    Args:
        catalog: where to look.
        method: its identifier.
        benchmark: identifier, or `None` for the catalog's first.
    """
    where = resolve_benchmark(catalog, benchmark) if benchmark else catalog.benchmarks[0]
    runs = [run for run in current_runs(catalog, where.id) if run.method == method]
    return _best(runs, catalog.metric_by_id[where.headline])


def resolve_card(catalog: Catalog, name: str) -> Method:
    """The method that `name` stands for, by its own name or by that of one of its variants.

    Raises:
        UnknownNameError: neither a method nor a variant, or several; names the nearest.
    """
    return catalog.method_by_id[method_meaning(catalog, name).method]


def resolve_adapter(catalog: Catalog, name: str, benchmark: str | None = None) -> Adapter:
    """The adapter that `name` stands for.

    Args:
        catalog: where to look.
        name: a run, a method or variant as such, or a folder with `adapter_config.json`; a name of
            the catalog goes before a folder, which can be written `./name`.
        benchmark: where to look for runs; everywhere when `None`.

    Raises:
        UnknownNameError: nothing is called so; names the nearest.
        QueryError: a run of this name is on several benchmarks.
        AdapterError: the folder's configuration cannot be read.
    """
    path = Path(name)
    called = any(name in {run.experiment, run.id} for run in catalog.runs) or bool(
        run_of_short(catalog, name, catalog.runs)
    )
    looks_like_path = name.startswith((".", "/", "~")) or path.suffix == ".json"
    # what looks like a path is meant as one, and its own error says more
    if not called and (
        looks_like_path or (name.strip() and path.exists() and not is_method(catalog, name))
    ):
        return read_adapter(catalog, path.expanduser())
    meaning = meaning_of(
        catalog,
        name,
        benchmarks=None if benchmark is None else [resolve_benchmark(catalog, benchmark).id],
        kind="method, run or folder",
        hint="a folder must hold adapter_config.json",
    )
    if meaning.run is not None:
        modality = catalog.benchmark_by_id[meaning.run.benchmark].modality
        return adapter_of_run(meaning.run, modality)
    if meaning.method not in catalog.method_by_id:
        raise QueryError(f"{name}: full fine-tuning leaves no adapter; name one of its runs")
    variants = [meaning.variant] if meaning.variant else []
    return adapter_of_method(catalog.method_by_id[meaning.method], variants)


def resolve_subjects(catalog: Catalog, query: Query, names: Sequence[str]) -> tuple[Subject, ...]:
    """What `names` stand for on the benchmark and snapshot of `query`, each once, in their order.

    Raises:
        UnknownNameError: neither a run there nor a method; names the nearest.
    """
    field = field_of_play(catalog, query)
    measured = [
        contender
        for contender in (*field.contenders, *field.baselines)
        if contender.run is not None
    ]
    return tuple(
        {
            subject.name: subject
            for subject in (_subject(catalog, query, measured, name) for name in names)
        }.values()
    )


def _subject(catalog: Catalog, query: Query, measured: Sequence[Contender], name: str) -> Subject:
    for contender in measured:
        run = contender.run
        if run is not None and name in {contender.name, run.experiment, run.id}:
            return Subject(contender.name, catalog.method_by_id.get(contender.method), contender)
    hint = f"runs are those of {query.benchmark}, snapshot {query.snapshot}"
    meaning = meaning_of(catalog, name, benchmarks=[query.benchmark], hint=hint)
    headline = catalog.metric_by_id[catalog.benchmark_by_id[query.benchmark].headline]
    usable = [
        contender
        for contender in measured
        if contender.run is not None
        and meaning.covers(contender.run)
        and (meaning.run is not None or headline.id in contender.values)
    ]
    sound = [one for one in usable if not is_unfit(one.run)] or usable
    best = min(sound, key=lambda one: (cost(one, headline), one.name), default=None)
    if best is None and meaning.run is not None:
        names = [contender.name for contender in measured]
        raise UnknownNameError("run or method", name, names, hint=hint)
    return Subject(
        best.name if best else meaning.variant or meaning.method,
        catalog.method_by_id.get(meaning.method),
        best,
        chosen=meaning.run is None,
        variant=meaning.variant,
    )


def matching_methods(
    catalog: Catalog,
    demands: Mapping[str, object],
    *,
    methods: object = None,
    exclude: object = None,
    min_evidence: str | None = None,
    peft_version: str | None = None,
) -> tuple[Method, ...]:
    """Methods that meet every demand by themselves, measured or not, in the catalog's order.

    Args:
        catalog: where to look.
        demands: as for `build_query`.
        methods: only these.
        exclude: none of these.
        min_evidence: weakest evidence that counts.
        peft_version: version that must have the method.

    Raises:
        InputError: a name or value that cannot be asked for.
    """
    query = build_query(
        catalog,
        demands=demands,
        methods=methods,
        exclude=exclude,
        min_evidence=min_evidence,
        peft_version=peft_version,
    )
    variants: dict[str, tuple[str, ...]] = {}
    for text in query.variants:
        method, _, variant = text.partition(":")
        variants[method] = (*variants.get(method, ()), variant)
    plain = [
        Contender(name=m.id, method=m.id, variants=variants.get(m.id, ()), run=None)
        for m in catalog.methods
    ]
    verdicts = judge(catalog, query, plain)
    return tuple(
        method for method, verdict in zip(catalog.methods, verdicts, strict=True) if verdict.kept
    )

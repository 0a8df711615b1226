"""Names that people type -> runs and methods of the catalog."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from peft_shop.ask.contenders import Contender, field_of_play, in_snapshot, newest_snapshot
from peft_shop.ask.judging import judge
from peft_shop.ask.reading import build_query, resolve_benchmark, resolve_methods
from peft_shop.ask.reasons import cost
from peft_shop.catalog.features import FULL_FINETUNING
from peft_shop.errors import QueryError, UnknownNameError
from peft_shop.serve.adapter import adapter_of_method, adapter_of_run, read_adapter

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peft_shop.ask.query import Query
    from peft_shop.catalog.catalog import Catalog
    from peft_shop.catalog.methods import Method
    from peft_shop.catalog.runs import Run
    from peft_shop.serve.adapter import Adapter

__all__ = [
    "Subject",
    "benchmark_of",
    "best_run",
    "current_runs",
    "matching_methods",
    "resolve_adapter",
    "resolve_card",
    "resolve_run",
    "resolve_subjects",
]


@dataclass(frozen=True, slots=True)
class Subject:
    """What is compared: a run, or a method with its best run.

    Attributes:
        name: as it is shown.
        method: `None` for full fine-tuning.
        contender: the run's comparable figures; `None` for a method that was not measured.
        chosen: whether the run was chosen for a method that was named.
    """

    name: str
    method: Method | None
    contender: Contender | None
    chosen: bool = False

    @property
    def variants(self) -> tuple[str, ...]:
        """Variants of the run."""
        return self.contender.variants if self.contender else ()


def current_runs(catalog: Catalog, benchmark: str, snapshot: str | None = None) -> tuple[Run, ...]:
    """Runs of `benchmark` in `snapshot` (`"all"` for every run), by default in the newest one."""
    wanted = snapshot or newest_snapshot(catalog, benchmark)
    return tuple(run for run in catalog.runs_by_benchmark[benchmark] if in_snapshot(run, wanted))


def benchmark_of(catalog: Catalog, names: Sequence[str]) -> str | None:
    """The benchmark that has all runs among `names`; `None` where there is none or more than one.

    Spares people an option when they name a run of another benchmark than the default one.
    """
    found: set[str] | None = None
    for name in names:
        here = {run.benchmark for run in catalog.runs if name in {run.experiment, run.id}}
        if here:
            found = here if found is None else found & here
    return next(iter(found)) if found is not None and len(found) == 1 else None


def resolve_run(catalog: Catalog, name: str, benchmark: str | None = None) -> Run:
    """The run that `name` stands for.

    Args:
        catalog: where to look.
        name: a run's id, an experiment (its newest run), or a method with one experiment only.
        benchmark: where to look; everywhere when `None`.

    Raises:
        UnknownNameError: nothing is called so; names the nearest.
        QueryError: several runs could be meant, or a method without a run.
    """
    wanted = (
        list(catalog.benchmark_by_id)
        if benchmark is None
        else [resolve_benchmark(catalog, benchmark).id]
    )
    runs = [run for run in catalog.runs if run.benchmark in wanted]
    for named in (
        [run for run in runs if run.id == name],
        [run for run in runs if run.experiment == name],
    ):
        where = sorted({run.benchmark for run in named})
        if len(where) > 1:
            raise QueryError(f"{name!r} ran on {' and '.join(where)}: name the benchmark too")
        if named:
            current = [run for run in named if run in current_runs(catalog, where[0])]
            return max(
                current or named,
                key=lambda run: datetime.fromisoformat(run.created_at).timestamp(),
            )
    current = [run for one in wanted for run in current_runs(catalog, one)]
    try:
        (method,) = resolve_methods(catalog, name, "run")
    except UnknownNameError:
        raise UnknownNameError(
            "run", name, {run.experiment for run in runs}, hint="see `peft-shop runs`"
        ) from None
    of = [run for run in current if run.method == method]
    if len(of) == 1:
        return of[0]
    if not of:
        raise QueryError(f"{method} was not measured on {' or '.join(wanted)}")
    listed = ", ".join(f"{run.experiment} ({run.benchmark})" for run in of)
    raise QueryError(f"{method} has {len(of)} runs; name one of them: {listed}")


def best_run(catalog: Catalog, method: str, benchmark: str | None) -> Run | None:
    """The current run of `method` with the best headline score; `None` where it has none.

    Args:
        catalog: where to look.
        method: its identifier.
        benchmark: identifier, or `None` for the catalog's first.
    """
    where = resolve_benchmark(catalog, benchmark) if benchmark else catalog.benchmarks[0]
    field = catalog.metric_by_id[where.headline].field
    better = 1 if catalog.metric_by_id[where.headline].better == "higher" else -1
    runs = [
        run
        for run in current_runs(catalog, where.id)
        if run.method == method
        and field in run.metrics
        and not any(flag.code == "broken_config" for flag in run.flags)
    ]
    return max(runs, key=lambda run: (better * run.metrics[field], run.id), default=None)


def resolve_card(catalog: Catalog, name: str) -> Method:
    """The method that `name` stands for, by its own name or by that of one of its variants.

    Raises:
        UnknownNameError: neither a method nor a variant; names the nearest.
    """
    try:
        (identifier,) = resolve_methods(catalog, name, "method")
    except UnknownNameError:
        variants = {
            key: method
            for method in reversed(catalog.methods)
            for variant in method.variants
            for key in (variant.id, variant.title.lower().replace("-", "_"))
        }
        key = name.lower().replace("-", "_")
        if key in variants:
            return variants[key]
        valid = _names_of_methods(catalog)
        raise UnknownNameError("method", name, valid, hint="see `peft-shop methods`") from None
    return catalog.method_by_id[identifier]


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
    if any(name in {run.experiment, run.id} for run in catalog.runs):
        run = resolve_run(catalog, name, benchmark)
        return adapter_of_run(run, catalog.benchmark_by_id[run.benchmark].modality)
    path = Path(name)
    try:
        method = resolve_card(catalog, name)
    except UnknownNameError:
        # what looks like a path is meant as one, and its own error says more
        if path.exists() or name.startswith((".", "/", "~")) or path.suffix == ".json":
            return read_adapter(catalog, path.expanduser(), weights=True)
        valid = [*(run.experiment for run in catalog.runs), *_names_of_methods(catalog)]
        hint = "a folder must hold adapter_config.json"
        raise UnknownNameError("method, run or folder", name, valid, hint=hint) from None
    folded = name.lower().replace("-", "_")
    variants = [
        variant.id
        for variant in method.variants
        if folded in {variant.id, variant.title.lower().replace("-", "_")} and folded != method.id
    ]
    return adapter_of_method(method, variants)


def _names_of_methods(catalog: Catalog) -> list[str]:
    return [*catalog.method_by_id, *(v.id for m in catalog.methods for v in m.variants)]


def resolve_subjects(catalog: Catalog, query: Query, names: Sequence[str]) -> tuple[Subject, ...]:
    """What `names` stand for on the benchmark and snapshot of `query`, each once, in their order.

    Raises:
        UnknownNameError: neither a run there nor a method; names the nearest.
    """
    field = field_of_play(catalog, query)
    measured = [one for one in (*field.contenders, *field.baselines) if one.run is not None]
    return tuple(
        {
            subject.name: subject
            for subject in (_subject(catalog, query, measured, name) for name in names)
        }.values()
    )


def _subject(catalog: Catalog, query: Query, measured: Sequence[Contender], name: str) -> Subject:
    for one in measured:
        if one.run is not None and name in {one.name, one.run.experiment, one.run.id}:
            return Subject(one.name, catalog.method_by_id.get(one.method), one)
    try:
        (identifier,) = resolve_methods(catalog, name, "name")
    except UnknownNameError:
        if name.replace("-", "_") != FULL_FINETUNING:
            valid = [*(one.name for one in measured), *catalog.method_by_id]
            hint = f"runs are those of {query.benchmark}, snapshot {query.snapshot}"
            raise UnknownNameError("run or method", name, valid, hint=hint) from None
        identifier = FULL_FINETUNING
    headline = catalog.metric_by_id[catalog.benchmark_by_id[query.benchmark].headline]
    usable = [one for one in measured if one.method == identifier and headline.id in one.values]
    best = min(usable, key=lambda one: (cost(one, headline), one.name), default=None)
    return Subject(
        best.name if best else identifier, catalog.method_by_id.get(identifier), best, chosen=True
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
    plain = [Contender(name=m.id, method=m.id, variants=(), run=None) for m in catalog.methods]
    verdicts = judge(catalog, query, plain)
    return tuple(
        method for method, verdict in zip(catalog.methods, verdicts, strict=True) if verdict.kept
    )

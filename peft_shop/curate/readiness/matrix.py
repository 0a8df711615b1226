"""Every architecture against every subject: retargeted, then refused or exercised."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import multiprocessing
import re
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from peft_shop.adapt.records import TargetOptions
from peft_shop.adapt.retarget import retarget
from peft_shop.catalog.features import FULL_FINETUNING
from peft_shop.catalog.store import load
from peft_shop.curate.readiness.verdicts import Cells, Findings, Readiness, Verdict, by_reason
from peft_shop.errors import MissingExtraError, UnknownNameError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from peft_shop.adapt.records import Retargeted
    from peft_shop.catalog.catalog import Catalog
    from peft_shop.catalog.methods import Method
    from peft_shop.catalog.runs import Run
    from peft_shop.curate.readiness.zoo import Entry
    from peft_shop.model.structure import Structure

__all__ = [
    "OPTIONS",
    "Forced",
    "architecture_names",
    "force",
    "force_refused",
    "judge",
    "subject_names",
    "subjects",
    "survey",
]

OPTIONS: Final = TargetOptions(
    total_steps=100, token_indices=(3, 4, 5), adapters=("expert0", "expert1")
)
"""What a user has to say where a method asks: a training's length, rows that the zoo's batches have
in them, and adapters to mix, in whose place the exerciser puts real ones."""
T = TypeVar("T")
PACKAGES: Final = ("diffusers", "peft", "torch", "transformers")


def subjects(catalog: Catalog, methods: Iterable[str] | None = None) -> dict[str, Method | Run]:
    """What is put on every architecture, by name: methods, then recipes of the newest snapshots.

    Recipes of benchmarks that only answer on request are variations of rates, and left out.

    Args:
        catalog: where they come from.
        methods: only these methods and their runs; all when `None`.

    Raises:
        UnknownNameError: a method that the catalog does not have.
    """
    known = catalog.method_by_id
    chosen = list(known if methods is None else methods)
    for name in chosen:
        if name not in known:
            raise UnknownNameError("method", name, known)
    found: dict[str, Method | Run] = {name: known[name] for name in sorted(chosen)}
    order = [snapshot.id for snapshot in catalog.snapshots]
    for benchmark, runs in sorted(catalog.runs_by_benchmark.items()):
        if catalog.benchmark_by_id[benchmark].on_request:
            continue
        named = {name for run in runs for name in run.snapshots}
        newest = max(named, key=order.index, default=None)
        for run in sorted(runs, key=lambda one: one.id):
            if newest in run.snapshots and run.method in chosen and run.method != FULL_FINETUNING:
                found[f"{benchmark}:{run.experiment}"] = run
    return found


def subject_names(catalog: Path | None, methods: Iterable[str] | None = None) -> tuple[str, ...]:
    """Names of what is put on every architecture, from a catalog file or the package's own.

    Raises:
        UnknownNameError: a method that the catalog does not have.
    """
    return tuple(subjects(load(catalog), methods))


class _Case(NamedTuple):
    """One architecture, inspected, with what X-LoRA mixes on it."""

    catalog: Catalog
    entry: Entry
    structure: Structure
    experts: dict[str, object]

    def adapted(self, subject: Method | Run) -> Retargeted:
        return retarget(self.catalog, subject, self.structure, OPTIONS)

    def tried(self, config: dict[str, object]) -> Verdict:
        from peft_shop.curate.readiness.exercise import exercise

        outcome = exercise(self.entry, config, experts=self.experts)
        if outcome.ok:
            return Verdict("ready")
        return Verdict("failed", (f"{outcome.stage}: {outcome.detail}",))


def _case(catalog: Catalog, entry: Entry) -> _Case:
    from peft_shop.model.inspection import inspect_model

    structure = inspect_model(entry.build()).structure
    lora = retarget(catalog, catalog.method_by_id["lora"], structure, OPTIONS)
    return _Case(catalog, entry, structure, dict(lora.config))


def judge(
    catalog: Catalog, entry: Entry, chosen: dict[str, Method | Run]
) -> tuple[Structure, Cells]:
    """Verdicts of every subject on one architecture.

    Recipes that come to the same configuration here are tried once.
    """
    case = _case(catalog, entry)
    known: dict[str, Verdict] = {}
    cells: Cells = {}
    with _undisturbed():
        for name, subject in chosen.items():
            adapted = case.adapted(subject)
            if adapted.problems:
                cells[name] = Verdict("refused", tuple(sorted(set(adapted.problems))))
                continue
            key = json.dumps(adapted.config, sort_keys=True)
            if key not in known:
                known[key] = case.tried(adapted.config)
            cells[name] = known[key]
    return case.structure, cells


@dataclass(frozen=True, slots=True)
class Forced:
    """A refused subject that was tried all the same.

    Attributes:
        architecture: id of the architecture.
        subject: method or recipe.
        reasons: why it was refused.
        verdict: what came of it; `ready` means that the refusal was wrong.
    """

    architecture: str
    subject: str
    reasons: tuple[str, ...]
    verdict: Verdict


def force(
    catalog: Catalog, entry: Entry, chosen: dict[str, Method | Run], count: int
) -> list[Forced]:
    """Refused subjects of one architecture, at most `count` spread evenly, tried all the same.

    The configuration is the one that retargeting hands back beside its problems; where that
    names no module of this model, the modules are those that plain LoRA would adapt.
    """
    case = _case(catalog, entry)
    refused = [(name, case.adapted(subject)) for name, subject in chosen.items()]
    refused = [(name, adapted) for name, adapted in refused if adapted.problems]
    stride = max(1, -(-len(refused) // count))
    with _undisturbed():
        return [
            Forced(entry.id, name, tuple(sorted(set(adapted.problems))), case.tried(nearest))
            for name, adapted in refused[::stride]
            for nearest in [_nearest(case, adapted.config)]
        ]


def _nearest(case: _Case, config: dict[str, object]) -> dict[str, object]:
    """`config`, with LoRA's modules where it names none of this model's."""
    stated = config.get("target_modules")
    names = [name for group in case.structure.groups for name in group.names]
    ends = tuple(f".{one}" for one in stated) if isinstance(stated, list | tuple) else ()
    if stated is None or stated == "all-linear" or any(f".{n}".endswith(ends) for n in names):
        return config
    if isinstance(stated, str) and any(re.fullmatch(stated, name) for name in names):
        return config
    return {**config, "target_modules": case.experts.get("target_modules")}


class _Task(NamedTuple):
    """One architecture's work, small enough to be sent to another process."""

    architecture: str
    methods: tuple[str, ...] | None
    catalog: Path | None
    forced: int


def _load(task: _Task) -> tuple[Catalog, Entry, dict[str, Method | Run]]:
    from peft_shop.curate.readiness.zoo import entries

    catalog = load(task.catalog)
    return catalog, entries([task.architecture])[0], subjects(catalog, task.methods)


def _judged(task: _Task) -> Findings:
    catalog, entry, chosen = _load(task)
    structure, cells = judge(catalog, entry, chosen)
    return Findings(
        title=entry.title,
        class_name=structure.architecture,
        modality=entry.modality,
        parameters=structure.parameters,
        refused=by_reason(cells, "refused"),
        failed=by_reason(cells, "failed"),
    )


def _forced(task: _Task) -> list[Forced]:
    return force(*_load(task), task.forced)


def architecture_names() -> tuple[str, ...]:
    """Ids of the zoo's entries, in its order.

    Raises:
        MissingExtraError: what the zoo is built with is not installed.
    """
    for package in PACKAGES:
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError(package, "test", "trying configurations on architectures")
    from peft_shop.curate.readiness.zoo import zoo

    return tuple(zoo())


def _tasks(
    architectures: Iterable[str] | None,
    methods: Iterable[str] | None,
    catalog: Path | None,
    forced: int = 0,
) -> list[_Task]:
    known = architecture_names()
    chosen = list(dict.fromkeys(known if architectures is None else architectures))
    for name in chosen:
        if name not in known:
            raise UnknownNameError("architecture", name, known)
    only = None if methods is None else tuple(methods)
    return [_Task(name, only, catalog, forced) for name in chosen]


def survey(
    architectures: Iterable[str] | None = None,
    methods: Iterable[str] | None = None,
    *,
    catalog: Path | None = None,
    jobs: int = 1,
) -> Readiness:
    """The matrix, or the part of it that is asked for.

    Args:
        architectures: ids of the zoo's entries; all when `None`.
        methods: only these methods and their runs are tried; all when `None`. The others count
            as not found: `differences` and `merge` are told which subjects were tried.
        catalog: a catalog file; the package's own when `None`.
        jobs: processes to run at a time, one architecture each.

    Raises:
        UnknownNameError: an architecture or method that does not exist.
        MissingExtraError: what the zoo is built with is not installed.
    """
    tasks = _tasks(architectures, methods, catalog)
    subject_names(catalog, methods)  # an unknown method is an error before anything is tried
    found = _spread(_judged, tasks, jobs)
    names = subject_names(catalog)
    return Readiness(
        packages={package: metadata.version(package) for package in PACKAGES},
        methods=tuple(sorted(name for name in names if ":" not in name)),
        recipes=tuple(sorted(name for name in names if ":" in name)),
        architectures={
            task.architecture: findings
            for task, findings in sorted(zip(tasks, found, strict=True), key=lambda pair: pair[0])
        },
    )


def _spread(work: Callable[[_Task], T], tasks: list[_Task], jobs: int) -> list[T]:
    if jobs <= 1 or len(tasks) == 1:
        return [work(task) for task in tasks]
    # fresh processes: torch does not survive a fork
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=_alone) as pool:
        return list(pool.map(work, tasks))


def _alone() -> None:
    """One thread a process: more would be in each other's way."""
    import torch

    torch.set_num_threads(1)


def force_refused(
    count: int,
    architectures: Iterable[str] | None = None,
    methods: Iterable[str] | None = None,
    *,
    catalog: Path | None = None,
    jobs: int = 1,
) -> list[Forced]:
    """Refused subjects, at most `count` of each architecture, tried all the same.

    Raises:
        UnknownNameError: an architecture or method that does not exist.
        MissingExtraError: what the zoo is built with is not installed.
    """
    subject_names(catalog, methods)
    tasks = _tasks(architectures, methods, catalog, count)
    return [one for found in _spread(_forced, tasks, jobs) for one in found]


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Nothing is fetched, and neither advice nor progress of the libraries is shown."""
    from diffusers.utils import logging as of_diffusers
    from huggingface_hub import constants
    from transformers.utils import logging as of_transformers

    before = [(one, one.get_verbosity()) for one in (of_diffusers, of_transformers)]
    for one, _ in before:
        one.set_verbosity_error()
    online = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        constants.HF_HUB_OFFLINE = online
        for one, level in before:
            one.set_verbosity(level)

"""Raw result files -> runs on file: all mistakes at once, all files written or none."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from peft_shop.catalog.runs import Run, Snapshot
from peft_shop.curate.intake.assembly import Assembler
from peft_shop.curate.intake.conventions import load_conventions
from peft_shop.curate.intake.layouts import find_results
from peft_shop.curate.intake.ledger import (
    RUNS_FOLDER,
    SNAPSHOTS_FILE,
    RunKey,
    differences,
    joined,
    key_of,
    read_runs,
    read_snapshots,
    render_runs,
    render_snapshots,
)
from peft_shop.curate.intake.results import read_result
from peft_shop.errors import IngestError, Problem, QueryError
from peft_shop.files import write_all

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from peft_shop.curate.intake.layouts import Layout, ResultFile
    from peft_shop.curate.intake.results import Result

__all__ = ["IngestReport", "ingest"]

_SNAPSHOT_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,59}")


@dataclass(frozen=True, slots=True)
class IngestReport:
    """What an ingestion did.

    Attributes:
        added: runs that are new, as `benchmark: experiment@created_at`.
        updated: runs on file that changed, such as by a snapshot that holds them now.
        unchanged: runs that were read and are on file as they are.
        outside: runs that were read and belong to no snapshot.
        duplicates: files that hold a run which another file or the data folder has already.
        left_out: files without a run of their own on file now, with the reason.
        notes: what was read and not taken, and what a maintainer should look at.
        snapshots: identifiers of the snapshots that are new.
        written: files that changed.
        total: runs on file, by benchmark.
    """

    added: tuple[str, ...]
    updated: tuple[str, ...]
    unchanged: tuple[str, ...]
    outside: tuple[str, ...]
    duplicates: tuple[Problem, ...]
    left_out: tuple[Problem, ...]
    notes: tuple[Problem, ...]
    snapshots: tuple[str, ...]
    written: tuple[Path, ...]
    total: dict[str, int]


def ingest(
    paths: Sequence[Path],
    *,
    data: Path,
    catalog: Path,
    snapshot: str | None = None,
    keep_going: bool = False,
) -> IngestReport:
    """Take the result files under `paths` into the data folder.

    Args:
        paths: archives, checkouts of the suite, plain folders of result files, or files.
        data: folder with `rules.toml`, `benchmarks.toml`, `sources.toml`; receives `runs/` and
            `snapshots.toml`.
        catalog: folder whose `curated/` tells the methods and their variants; may be absent.
        snapshot: identifier under which the runs of checkouts and plain folders are current. A
            checkout's default is the date of its newest run; a plain folder has none.
        keep_going: leave out what cannot be taken in, instead of stopping.

    Raises:
        IngestError: a file cannot be taken in; lists every mistake, and nothing was written.
        CatalogError: the hand-written definitions or the files on record are broken.
        QueryError: `snapshot` cannot be used.
        MissingExtraError: peft is not installed.
        OSError: the data folder cannot be written; it is then as it was.
    """
    if snapshot is not None and not _SNAPSHOT_ID.fullmatch(snapshot):
        raise QueryError(
            f"snapshot {snapshot!r} is not a name: use letters, digits and _ . + -, at most 60"
        )
    assembler = Assembler(load_conventions(data), catalog)
    intake = _Intake(assembler, read_runs(data), read_snapshots(data))
    layouts = [find_results(path) for path in paths]
    if snapshot is not None and all(layout.kind == "archive" for layout in layouts):
        raise QueryError("snapshot: an archive names its snapshots itself; leave the option out")
    for layout in layouts:
        intake.take(layout, snapshot)
    intake.check_snapshots()
    if intake.problems and not keep_going:
        count = len(intake.problems)
        raise IngestError(
            f"{count} problem{'s' if count > 1 else ''}, nothing was written "
            "(to leave these files out, keep going):",
            sorted(intake.problems),
        )
    runs = intake.merged()
    contents: dict[Path, bytes] = {}
    for benchmark in assembler.conventions.benchmarks:
        path = data / RUNS_FOLDER / f"{benchmark}.jsonl"
        of = [run for run in runs.values() if run.benchmark == benchmark]
        if of or path.exists():
            contents[path] = render_runs(of)
    snapshots = intake.current_snapshots(runs)
    if snapshots or (data / SNAPSHOTS_FILE).exists():
        contents[data / SNAPSHOTS_FILE] = render_snapshots(snapshots.values())
    return intake.report(runs, snapshots, write_all(contents))


class _Intake:
    """Runs on file and runs being read, brought together."""

    def __init__(
        self,
        assembler: Assembler,
        on_file: dict[RunKey, Run],
        snapshots: dict[str, Snapshot],
    ) -> None:
        self.assembler = assembler
        self.on_file = on_file
        self.snapshots_on_file = snapshots
        self.snapshots = dict(snapshots)
        self.read: dict[RunKey, Run] = {}
        self.origin: dict[RunKey, str] = {}
        self.problems: list[Problem] = []
        self.left_out: list[Problem] = []
        self.duplicates: list[Problem] = []
        self.notes: list[Problem] = []

    def take(self, layout: Layout, snapshot: str | None) -> None:
        """Read every file of a layout."""
        self.problems += layout.problems
        self.notes += layout.notes
        results = self._results(layout)
        notes = self.assembler.conventions.rules.snapshot_notes
        for found in layout.snapshots:
            note = notes.get(found.id, found.note)
            self.snapshots[found.id] = found.model_copy(update={"note": note})
        runs = [(result, self._run(result, layout)) for result in results]
        collective = None
        if layout.kind != "archive" and results:
            collective = self._collective(layout, results, snapshot)
        for result, run in runs:
            if run is not None:
                held = run.snapshots if collective is None else (collective,)
                self._enter(run.model_copy(update={"snapshots": held}), str(result.origin.path))

    def _results(self, layout: Layout) -> list[Result]:
        """Results without a mistake, each experiment once in a folder."""
        results: list[Result] = []
        seen: dict[tuple[Path, str, str], str] = {}
        for origin in self._known(layout):
            path = str(origin.path)
            outcome = read_result(origin, self.assembler.conventions)
            self.problems += outcome.problems
            result = outcome.result
            if outcome.failure is not None:
                message = f"the run did not succeed: {outcome.failure!r}"
                self.left_out.append(Problem(path, "train_info.status", message))
            if result is None:
                continue
            self.notes += result.notes
            if outcome.problems:
                self._run(result, layout)  # for the mistakes in the rest of the file
                continue
            key = (origin.path.parent, result.benchmark.id, result.experiment)
            if key in seen:
                message = f"{result.experiment!r} is the experiment of {seen[key]} too"
                hint = "one folder holds an experiment once; put a repetition into its own folder"
                self.problems.append(Problem(path, "run_info.experiment_name", message, hint))
                continue
            seen[key] = path
            results.append(result)
        return results

    def _known(self, layout: Layout) -> list[ResultFile]:
        """Files of the tasks that the data folder defines.

        A checkout may hold tasks of other kinds beside them; these are left out as a whole. Where
        it holds nothing else, each file is read, and says that its task is unknown.
        """
        if layout.kind != "checkout":
            return list(layout.files)
        named = self.assembler.conventions.benchmark_named
        known = [file for file in layout.files if file.task and named(file.task) is not None]
        if not known:
            return list(layout.files)
        others = Counter((file.task, file.path.parent) for file in layout.files)
        for (task, folder), count in sorted(others.items()):
            if task is not None and named(task) is None:
                message = f"{count} result files of the task {task!r}, which is not defined"
                hint = "define it in data/benchmarks.toml and data/rules.toml"
                self.left_out.append(Problem(str(folder), "", message, hint))
        return known

    def _run(self, result: Result, layout: Layout) -> Run | None:
        run, problems, notes = self.assembler.run(result, layout)
        self.problems += problems
        self.notes += notes
        return run

    def _collective(
        self, layout: Layout, results: list[Result], snapshot: str | None
    ) -> str | None:
        """Snapshot that all runs of a checkout or folder belong to."""
        newest = max(_moment(result.created_at) for result in results)
        date = newest.date().isoformat()
        own = f"{results[0].benchmark.id}-{date}"
        name = snapshot or {"checkout": date, "unmerged": own}.get(layout.kind)
        if name is None:
            message = "these runs belong to no snapshot"
            hint = "name one if they are meant to be compared as one set"
            self.notes.append(Problem(str(layout.root), "", message, hint))
            return None
        origin = self.assembler.place(results[0])
        made = Snapshot(id=name, date=date, source=origin.source, commit=layout.commit)
        if layout.kind == "unmerged":
            note = self.assembler.conventions.rules.snapshot_notes.get(name)
            update = {"note": note, "commit": layout.commit or origin.commit}
            made = made.model_copy(update=update)
        self.snapshots.setdefault(name, made)
        return name

    def _enter(self, run: Run, path: str) -> None:
        """Put a run beside the others, or say why it cannot stand there."""
        key = key_of(run)
        read = self.read.get(key)
        old = read or self.on_file.get(key)
        if old is None:
            self.read[key], self.origin[key] = run, path
            return
        beside = self.origin[key] if read else "the data folder"
        changed = differences(old, run)
        if changed:
            message = f"{run.id} differs from {beside} in {', '.join(changed)}"
            self.problems.append(
                Problem(path, "run_info.created_at", message, "one of the two was changed by hand")
            )
            return
        if read or old.provenance.sha256 != run.provenance.sha256:
            reason = f"{run.id} is in {beside} already, with the same content"
            self.duplicates.append(Problem(path, "", reason))
        self.read[key] = joined(old, run)
        self.origin.setdefault(key, path)

    def check_snapshots(self) -> None:
        """A snapshot is what was current at one time: no experiment can be in it twice."""
        runs = self.merged()
        count = Counter(
            (run.benchmark, run.experiment, s) for run in runs.values() for s in run.snapshots
        )
        for key in sorted(self.read):
            run = self.read[key]
            for name in run.snapshots:
                if count[run.benchmark, run.experiment, name] > 1:
                    message = f"snapshot {name} would hold two runs of {run.experiment}"
                    hint = "name another snapshot"
                    self.problems.append(Problem(self.origin[key], "", message, hint))
                    del self.read[key]
                    break

    def merged(self) -> dict[RunKey, Run]:
        """Runs on file and runs read."""
        return {**self.on_file, **self.read}

    def current_snapshots(self, runs: dict[RunKey, Run]) -> dict[str, Snapshot]:
        """Snapshots that hold a run."""
        used = {name for run in runs.values() for name in run.snapshots}
        return {name: snapshot for name, snapshot in self.snapshots.items() if name in used}

    def report(
        self, runs: dict[RunKey, Run], snapshots: dict[str, Snapshot], written: tuple[Path, ...]
    ) -> IngestReport:
        """What was done, in sorted lists."""
        read = sorted(self.read.items())
        names = {key: f"{run.benchmark}: {run.id}" for key, run in read}
        known = self.on_file
        return IngestReport(
            added=tuple(names[key] for key, _ in read if key not in known),
            updated=tuple(names[key] for key, run in read if key in known and known[key] != run),
            unchanged=tuple(names[key] for key, run in read if known.get(key) == run),
            outside=tuple(names[key] for key, run in read if not run.snapshots),
            duplicates=tuple(self.duplicates),
            left_out=tuple(sorted([*self.left_out, *self.problems])),
            notes=tuple(dict.fromkeys(self.notes)),
            snapshots=tuple(name for name in snapshots if name not in self.snapshots_on_file),
            written=written,
            total=dict(sorted(Counter(run.benchmark for run in runs.values()).items())),
        )


def _moment(created_at: str) -> datetime:
    return datetime.fromisoformat(created_at).astimezone(UTC)

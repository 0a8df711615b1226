"""Where result files, snapshots and experiments lie: four layouts, one description.

- an *archive*: `snapshots.json`, `results/<task>/<date>/*.json`, `experiments/<task>/...`; a
  folder inside it (such as `foreign/`) holds runs that belong to no snapshot;
- a *checkout* of the suite: `method_comparison/<task>/results/*.json` beside
  `<task>/experiments/`; results of cancelled or temporary runs lie in other folders;
- the folder of a task that is *not merged*, named after it or `unmerged-<task>`: its
  `temporary_results/*.json` are all there is, and they are taken where that folder is named;
- a *plain folder* of result files, also with one subfolder per task, or a single file.
"""

from __future__ import annotations

import itertools
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from peft_shop.catalog.runs import Snapshot
from peft_shop.curate.intake.sheets import MAX_BYTES
from peft_shop.errors import Problem
from peft_shop.files import read_bounded

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["SUITE", "SUITE_SOURCE", "Layout", "ResultFile", "find_results"]

SUITE: Final = "method_comparison"
UNMERGED: Final = "unmerged-"
SUITE_SOURCE: Final = "peft-method-comparison"
LOCAL_SOURCE: Final = "local"
_TEMPORARY: Final = "temporary_results"
_SNAPSHOTS: Final = "snapshots.json"
_HEX: Final = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, slots=True)
class ResultFile:
    """One result file and what its place says of it.

    Attributes:
        path: where to read it.
        task: name of the folder of its task, or `None` where the place does not say.
        source: key in `data/sources.toml`.
        file: path inside the source.
        commit: commit of the source that holds it.
        snapshots: identifiers of the snapshots that list it.
    """

    path: Path
    task: str | None
    source: str
    file: str
    commit: str | None = None
    snapshots: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Layout:
    """What was found under one path.

    Attributes:
        experiments: folders that hold `<experiment>/adapter_config.json`, by task.
        snapshots: those that the place itself describes.
        problems: what is wrong with the place; the files found are still listed.
        notes: what was skipped on purpose.
    """

    kind: Literal["archive", "checkout", "unmerged", "folder"]
    root: Path
    files: tuple[ResultFile, ...] = ()
    experiments: dict[str, Path] = field(default_factory=dict)
    snapshots: tuple[Snapshot, ...] = ()
    commit: str | None = None
    problems: tuple[Problem, ...] = ()
    notes: tuple[Problem, ...] = ()


def find_results(path: Path) -> Layout:
    """Result files under `path`, in a stable order, with whatever its layout says of them."""
    if not path.exists():
        return _nothing(path, "no such file or folder")
    if (path / _TEMPORARY).is_dir() and not (path / "results").is_dir():
        return _unmerged(path)
    for root in (path, *path.resolve().parents):
        if (root / _SNAPSHOTS).is_file() and (root / "results").is_dir():
            return _archive(root, path)
    tasks = _tasks(path)
    layout = _checkout(path, tasks) if tasks else _folder(path)
    if not layout.files and not layout.problems:
        return _nothing(path, "holds no result files")
    return layout


def _nothing(path: Path, message: str) -> Layout:
    hint = (
        f"expected a folder of *.json result files, a checkout's {SUITE} folder, "
        f"or a folder with {_SNAPSHOTS}"
    )
    return Layout("folder", path, problems=(Problem(str(path), "", message, hint),))


# --- archive ---


def _archive(root: Path, path: Path) -> Layout:
    problems: list[Problem] = []
    notes: list[Problem] = []
    listed: dict[str, list[Snapshot]] = {}
    snapshots = []
    for index, entry in enumerate(_listing(root / _SNAPSHOTS, problems)):
        snapshot, names = _snapshot(root / _SNAPSHOTS, f"[{index}]", entry, problems)
        if snapshot is None:
            continue
        if not names:
            notes.append(
                Problem(str(root / _SNAPSHOTS), snapshot.id, "lists no runs and is left out")
            )
            continue
        snapshots.append(snapshot)
        for name in names:
            listed.setdefault(name, []).append(snapshot)
    commits = _commits(root, problems)
    whole = root == path
    inside = Path() if whole else path.resolve().relative_to(root)
    found = {
        (inside / file.relative_to(path)).as_posix(): file
        for file in _json_files(path / "results" if whole else path)
    }
    if whole:
        problems += [
            Problem(str(root / _SNAPSHOTS), snapshots_of[0].id, f"lists {name}, which is not there")
            for name, snapshots_of in listed.items()
            if name not in found
        ]
    tasks = _subfolders(root / "experiments")
    files = []
    for name, file in found.items():
        of = listed.get(name, [])
        task = _part_after(name, {"results", "foreign"}) or file.parent.name
        commit = commits.get(name) or (of[0].commit if of else None)
        files.append(
            ResultFile(
                path=file,
                task=task,
                source=SUITE_SOURCE,
                file=f"{SUITE}/{task}/results/{file.name}",
                commit=commit,
                snapshots=tuple(snapshot.id for snapshot in of),
            )
        )
    if not files:
        problems.append(Problem(str(path), "", "holds no result files"))
    return Layout(
        "archive",
        root,
        files=tuple(files),
        experiments=tasks,
        snapshots=tuple(snapshots) if whole else (),
        problems=tuple(problems),
        notes=tuple(notes) if whole else (),
    )


def _listing(path: Path, problems: list[Problem]) -> list[Any]:
    entries = _loaded(path, problems)
    if entries is not None and not isinstance(entries, list):
        problems.append(Problem(str(path), "", "expected a list of snapshots"))
    return entries if isinstance(entries, list) else []


def _snapshot(
    path: Path, where: str, entry: Any, problems: list[Problem]
) -> tuple[Snapshot | None, tuple[str, ...]]:
    """Snapshot and the files that it lists; `None` where the entry is broken."""
    fields = ("id", "date", "commit", "note")
    runs = entry.get("runs", {}) if isinstance(entry, dict) else None
    if (
        not isinstance(entry, dict)
        or not isinstance(runs, dict)
        or not all(isinstance(entry.get(key), str) for key in ("id", "date"))
        or not all(isinstance(entry.get(key), str | None) for key in fields)
        or not all(
            isinstance(names, list) and all(isinstance(name, str) for name in names)
            for names in runs.values()
        )
        or not re.fullmatch(r"\d{4}-\d\d-\d\d", entry["date"])
    ):
        message = "expected {id, date, commit, runs: {task: [file, ...]}}"
        problems.append(Problem(str(path), where, message))
        return None, ()
    snapshot = Snapshot(
        source=SUITE_SOURCE,
        **{key: entry[key].strip() for key in fields if entry.get(key)},
    )
    return snapshot, tuple(name for names in runs.values() for name in names)


def _commits(root: Path, problems: list[Problem]) -> dict[str, str]:
    """Commit of each file that was read on its own, from every `sources-*.json`."""
    commits: dict[str, str] = {}
    for path in sorted(root.glob("sources-*.json")):
        entries = _loaded(path, problems)
        if not isinstance(entries, dict):
            problems.append(Problem(str(path), "", "expected {file: {commit}}"))
            continue
        for name, entry in entries.items():
            commit = entry.get("commit") if isinstance(entry, dict) else None
            if isinstance(commit, str) and _HEX.fullmatch(commit):
                commits[name] = commit
            else:
                problems.append(Problem(str(path), f"{name}.commit", "expected 40 hex digits"))
    return commits


# --- checkout ---


def _tasks(path: Path) -> dict[str, Path]:
    """Folders of tasks, by name, when `path` is in a checkout of the suite."""
    for root in (path / SUITE, path):
        paths = {
            name: folder
            for name, folder in _subfolders(root).items()
            if (folder / "results").is_dir()
        }
        if paths:
            return paths
    if (path / "results").is_dir():
        return {path.resolve().name: path}
    return {}


def _checkout(path: Path, tasks: dict[str, Path]) -> Layout:
    commit = _head(path)
    files = [
        ResultFile(file, task, SUITE_SOURCE, f"{SUITE}/{task}/results/{file.name}", commit)
        for task, folder in tasks.items()
        for file in sorted((folder / "results").glob("*.json"))
    ]
    experiments = {task: folder / "experiments" for task, folder in tasks.items()}
    return Layout("checkout", path, files=tuple(files), experiments=experiments, commit=commit)


def _head(path: Path) -> str | None:
    """Commit that a checkout of peft is at, read from its `.git`; `None` where there is none.

    A copy of the suite inside another repository has no commit: that repository's says nothing.
    """
    for folder in (path.resolve(), *path.resolve().parents):
        git = folder / ".git"
        if git.is_dir() and (folder / SUITE).is_dir() and (folder / "src" / "peft").is_dir():
            head = _first_line(git / "HEAD")
            if head.startswith("ref: "):
                name = head.removeprefix("ref: ")
                head = _first_line(git / name) or _packed(git / "packed-refs", name)
            return head if _HEX.fullmatch(head) else None
    return None


def _first_line(path: Path) -> str:
    try:
        return _read(path).splitlines()[0].strip()
    except (OSError, UnicodeDecodeError, IndexError):
        return ""


def _packed(path: Path, name: str) -> str:
    try:
        lines = _read(path).splitlines()
    except (OSError, UnicodeDecodeError):
        return ""
    return next((line.split()[0] for line in lines if line.endswith(f" {name}")), "")


# --- not merged ---


def _unmerged(path: Path) -> Layout:
    """A task's folder without merged results: its temporary ones, and their experiments."""
    task = path.resolve().name.removeprefix(UNMERGED)
    files = [
        ResultFile(file, task, SUITE_SOURCE, f"{SUITE}/{task}/{_TEMPORARY}/{file.name}")
        for file in sorted((path / _TEMPORARY).glob("*.json"))
    ]
    if not files:
        return _nothing(path / _TEMPORARY, "holds no result files")
    commit = _head(path)
    experiments = {task: path / "experiments"}
    return Layout("unmerged", path, files=tuple(files), experiments=experiments, commit=commit)


# --- plain folder ---


def _folder(path: Path) -> Layout:
    if path.is_file():
        file = ResultFile(path, None, LOCAL_SOURCE, path.name)
        return Layout("folder", path.parent, files=(file,))
    files = [
        ResultFile(file, None if folder == path else folder.name, LOCAL_SOURCE, name)
        for folder in (path, *_subfolders(path).values())
        for file in sorted(folder.glob("*.json"))
        for name in [file.relative_to(path).as_posix()]
    ]
    return Layout("folder", path, files=tuple(files))


# --- shared ---


def _subfolders(path: Path) -> dict[str, Path]:
    if not path.is_dir():
        return {}
    return {
        child.name: child
        for child in sorted(path.iterdir())
        if child.is_dir() and not child.name.startswith(".")
    }


def _json_files(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
    else:
        yield from sorted(path.rglob("*.json"))


def _part_after(name: str, folders: Iterable[str]) -> str | None:
    """Component of a path that follows the first of `folders`, unless it is the file itself."""
    parts = name.split("/")
    for before, part in itertools.pairwise(parts[:-1]):
        if before in folders:
            return part
    return None


def _read(path: Path) -> str:
    return read_bounded(path, MAX_BYTES, "a list of results").decode("utf-8")


def _loaded(path: Path, problems: list[Problem]) -> Any:
    try:
        return json.loads(_read(path))
    except OSError as error:
        problems.append(Problem(str(path), "", (error.strerror or "cannot be read").lower()))
    except RecursionError:
        problems.append(Problem(str(path), "", "not JSON: nested too deeply"))
    except ValueError as error:
        problems.append(Problem(str(path), "", f"not JSON: {error}"))
    return None

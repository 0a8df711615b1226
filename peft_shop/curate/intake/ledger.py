"""The evidence on file: `data/runs/<benchmark>.jsonl` and `data/snapshots.toml`.

The only reader and writer of these files on the importer's side. A run has one line, with
sorted keys, without what is absent or default, so that a change shows as the change it is.
"""

from __future__ import annotations

import json
import tomllib
from typing import TYPE_CHECKING, Any, Final

from pydantic import ValidationError

from peft_shop.catalog.diagnosis import problems_of
from peft_shop.catalog.runs import Run, Snapshot
from peft_shop.errors import CatalogError, Problem
from peft_shop.records import Record, compact_json

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

__all__ = [
    "RunKey",
    "differences",
    "joined",
    "key_of",
    "read_runs",
    "read_snapshots",
    "render_runs",
    "render_snapshots",
]

SNAPSHOTS_FILE: Final = "snapshots.toml"
RUNS_FOLDER: Final = "runs"
RunKey = tuple[str, str, str]
"""Benchmark, experiment, creation time."""
_HEADER: Final = """\
# Which runs were current when: one [[snapshots]] entry per state of a source, oldest first.
# Written by `peft-shop catalog ingest`; runs name the snapshots that they belong to.
"""


class _Snapshots(Record):
    snapshots: tuple[Snapshot, ...] = ()


def key_of(run: Run) -> RunKey:
    """What makes two runs the same run."""
    return run.benchmark, run.experiment, run.created_at


def differences(old: Run, new: Run) -> list[str]:
    """What was measured differently: renamed keys do not show here, other figures do."""
    if old.provenance.sha256 == new.provenance.sha256:
        return []
    pairs: dict[str, tuple[Any, Any]] = {
        "method": (old.method, new.method),
        "metrics": (old.metrics, new.metrics),
        "curve": (old.curve, new.curve),
        "training settings": (old.recipe.training, new.recipe.training),
        "packages": (old.provenance.packages, new.provenance.packages),
        "accelerator": (old.provenance.accelerator, new.provenance.accelerator),
    }
    return [name for name, (left, right) in pairs.items() if left != right]


def joined(old: Run, new: Run) -> Run:
    """One run from two records of it: the new reading, at the place where it was first found."""
    first = old.provenance
    known = {
        name: value for name, value in new.provenance.model_dump().items() if value is not None
    }
    # the place, the commit and the hash belong together: they say where the figures were taken
    place = {
        name: getattr(first, name)
        for name in ("source", "file", "commit", "sha256")
        if not (name == "commit" and first.commit is None and first.sha256 == known["sha256"])
    }
    recipe = new.recipe
    if (old.recipe.config_source, recipe.config_source) == ("experiment", "result"):
        recipe = old.recipe  # the file that the run was started from says more than its dump
    return new.model_copy(
        update={
            "provenance": first.model_copy(update=known | place),
            "recipe": recipe,
            "snapshots": tuple(sorted({*old.snapshots, *new.snapshots})),
        }
    )


def read_runs(data: Path) -> dict[RunKey, Run]:
    """Runs on file; empty where there is no file yet.

    Raises:
        CatalogError: a line is no run, or one key stands twice; all mistakes.
    """
    runs: dict[RunKey, Run] = {}
    problems: list[Problem] = []
    for path in sorted((data / RUNS_FOLDER).glob("*.jsonl")):
        for number, line in enumerate(_text(path, problems).splitlines(), start=1):
            where = f"line {number}"
            run = _run(line, str(path), where, problems)
            if run is None:
                continue
            if run.benchmark != path.stem:
                problems.append(Problem(str(path), where, f"is a run of {run.benchmark!r}"))
            elif key_of(run) in runs:
                problems.append(Problem(str(path), where, f"{run.id} is on file twice"))
            runs[key_of(run)] = run
    if problems:
        raise CatalogError("the runs on file cannot be read:", problems)
    return runs


def read_snapshots(data: Path) -> dict[str, Snapshot]:
    """Snapshots on file by identifier; empty where there is no file yet.

    Raises:
        CatalogError: the file breaks its format; all mistakes.
    """
    path = data / SNAPSHOTS_FILE
    if not path.exists():
        return {}
    problems: list[Problem] = []
    table: dict[str, Any] = {}
    try:
        table = tomllib.loads(_text(path, problems))
        found = _Snapshots.model_validate(table).snapshots
    except ValidationError as error:
        problems += problems_of(error, _Snapshots, table, str(path))
    except tomllib.TOMLDecodeError as error:
        problems.append(Problem(str(path), "", f"not TOML: {error}"))
    if problems:
        raise CatalogError("the snapshots on file cannot be read:", problems)
    return {snapshot.id: snapshot for snapshot in found}


def render_runs(runs: Iterable[Run]) -> bytes:
    """Lines of one benchmark's file, by experiment and then by time."""
    ordered = sorted(runs, key=lambda run: (run.experiment, run.created_at))
    return "".join(f"{compact_json(_stated(run))}\n" for run in ordered).encode("ascii")


def render_snapshots(snapshots: Iterable[Snapshot]) -> bytes:
    """The file of snapshots, by date and then by identifier."""
    ordered = sorted(snapshots, key=lambda snapshot: (snapshot.date, snapshot.id))
    tables = [
        "\n[[snapshots]]\n"
        + "".join(
            f"{name} = {json.dumps(value, ensure_ascii=False)}\n"
            for name, value in snapshot.model_dump(exclude_none=True).items()
        )
        for snapshot in ordered
    ]
    return (_HEADER + "".join(tables)).encode("utf-8")


def _text(path: Path, problems: list[Problem]) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        problems.append(Problem(str(path), "", (error.strerror or "cannot be read").lower()))
    except UnicodeDecodeError as error:
        problems.append(Problem(str(path), "", f"not UTF-8: {error.reason}"))
    return ""


def _run(line: str, path: str, where: str, problems: list[Problem]) -> Run | None:
    value: Any = None
    try:
        value = json.loads(line)
        return Run.model_validate(value)
    except ValidationError as error:
        problems += problems_of(error, Run, value, path, within=where)
    except RecursionError:
        problems.append(Problem(path, where, "not JSON: nested too deeply"))
    except ValueError as error:
        problems.append(Problem(path, where, f"not JSON: {error}"))
    return None


def _stated(run: Run) -> dict[str, Any]:
    """What a run states: no defaults, no empty tables."""
    # exclude_defaults knows no default factories, hence the second pass over the few tables
    value = run.model_dump(mode="json", exclude_defaults=True)
    for table, name in (
        (value["recipe"], "config"),
        (value["recipe"], "resolved"),
        (value["recipe"]["training"], "optimizer_options"),
        (value["recipe"]["training"], "options"),
    ):
        if table.get(name) == {}:
            del table[name]
    return value

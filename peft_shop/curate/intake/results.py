"""One raw result file -> a checked `Result`, or every mistake in it.

Nothing is guessed: a figure is a finite number of the right kind or it is absent, and a key
that nobody declared in `data/rules.toml` is reported, so that no figure is lost in silence.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from peft_shop.catalog.diagnosis import dotted
from peft_shop.catalog.runs import Curve
from peft_shop.curate.intake.conventions import UNRECORDED
from peft_shop.curate.intake.sheets import MAX_BYTES, Sheet, kind_of, parse, walk
from peft_shop.errors import Problem, nearest_names
from peft_shop.files import read_bounded, regular_size

if TYPE_CHECKING:
    from peft_shop.catalog.benchmarks import Benchmark
    from peft_shop.curate.intake.conventions import Conventions, FigureRule
    from peft_shop.curate.intake.layouts import ResultFile

__all__ = ["Outcome", "Result", "read_result"]

_PACKAGE: Final = re.compile(r"(?P<name>[a-z0-9_]+)-version")
_EXPERIMENT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+=-]*(/[A-Za-z0-9_.+=-]+)*")
_CREATED: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")


@dataclass(frozen=True, slots=True)
class Result:
    """What one result file states.

    A part that is broken is empty here, and a problem says so.

    Attributes:
        sound: whether no part is broken.
        metrics: by field; sentinels are removed.
        sentinels: fields whose figure was a stand-in.
        packages: versions that ran.
        notes: keys that were not understood.
    """

    origin: ResultFile
    sha256: str
    benchmark: Benchmark
    experiment: str
    created_at: str
    sound: bool = True
    peft_config: dict[str, Any] | None = None
    train_config: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, int | float] = field(default_factory=dict)
    curve: Curve | None = None
    sentinels: tuple[str, ...] = ()
    packages: dict[str, str] = field(default_factory=dict)
    peft_commit: str | None = None
    peft_branch: str | None = None
    worktree_dirty: bool | None = None
    accelerator: str = ""
    platform: str | None = None
    model_revision: str | None = None
    notes: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one file.

    Attributes:
        result: `None` where not even the task can be told, or the run failed.
        problems: every mistake found in the file.
        failure: what the suite says of a run that did not succeed.
    """

    result: Result | None = None
    problems: tuple[Problem, ...] = ()
    failure: str | None = None


def read_result(origin: ResultFile, conventions: Conventions) -> Outcome:
    """The result in a file, with every mistake that was found."""
    path = str(origin.path)
    try:
        size = regular_size(origin.path)
        if size > MAX_BYTES:
            message = f"has {size} bytes; at most {MAX_BYTES} are read"
            hint = "a result file has well under 1 MB"
            return Outcome(problems=(Problem(path, "", message, hint),))
        content = read_bounded(origin.path, MAX_BYTES, "a result")
    except OSError as error:
        return Outcome(problems=(Problem(path, "", (error.strerror or "cannot be read").lower()),))
    document, problem = parse(content, path)
    if problem is not None:
        return Outcome(problems=(problem,))
    sheet = Sheet(path)
    if not isinstance(document, dict):
        sheet.complain("", f"expected an object, got {kind_of(document)}")
        return Outcome(problems=tuple(sheet.problems))
    train_info = document.get("train_info")
    status = train_info.get("status") if isinstance(train_info, dict) else None
    if isinstance(status, str) and status != "success":
        return Outcome(failure=status)  # what else is missing then is no mistake
    digest = hashlib.sha256(content).hexdigest()
    result = _Reading(sheet, origin, digest, conventions).read(document)
    return Outcome(result, tuple(sheet.problems))


class _Reading:
    """Reads one parsed file, part by part."""

    def __init__(
        self, sheet: Sheet, origin: ResultFile, sha256: str, conventions: Conventions
    ) -> None:
        self.sheet = sheet
        self.origin = origin
        self.sha256 = sha256
        self.conventions = conventions
        self.notes: list[Problem] = []

    def read(self, document: dict[str, Any]) -> Result | None:
        """The result; `None` where its task cannot be told."""
        sheet = self.sheet
        run_info = sheet.table(document, "", key="run_info")
        train_info = sheet.table(document, "", key="train_info")
        meta_info = sheet.table(document, "", key="meta_info")
        experiment = self._experiment(run_info)
        created_at = self._created_at(run_info)
        sheet.text(train_info, "train_info", key="status")
        entries = self._entries(train_info)
        train_config = sheet.table(run_info, "run_info", key="train_config")
        evaluation = sheet.table(document, "", key="rl_eval_info", required=False)
        benchmark = self._benchmark(entries, train_config, evaluation)
        if benchmark is None:
            return None
        tables = {"run_info": run_info, "train_info": train_info, "rl_eval_info": evaluation}
        metrics, sentinels = self._metrics(benchmark, created_at or "", tables, entries)
        self._finite(run_info)
        packages, peft_commit = self._packages(meta_info)
        system = sheet.table(meta_info, "meta_info", key="system_info")
        key = "accelerator" if "accelerator" in system else "gpu"  # renamed on 2025-07-22
        reference = self.conventions.rules.benchmarks[benchmark.id].accelerator
        accelerator = sheet.text(
            system, "meta_info.system_info", key=key, required=reference != UNRECORDED
        )
        platform = [system.get(part) for part in ("system", "release", "machine")]
        model = sheet.table(meta_info, "meta_info", key="model_info", required=False)
        dirty = run_info.get("peft_worktree_is_dirty")
        if not isinstance(dirty, bool | None):
            sheet.complain("run_info.peft_worktree_is_dirty", "expected a boolean")
            dirty = None
        return Result(
            origin=self.origin,
            sha256=self.sha256,
            benchmark=benchmark,
            experiment=experiment or "",
            created_at=created_at or "",
            peft_config=self._peft_config(run_info),
            train_config=train_config,
            metrics=metrics,
            curve=self._curve(benchmark, entries),
            sentinels=sentinels,
            packages=packages,
            peft_commit=peft_commit,
            peft_branch=sheet.text(run_info, "run_info", key="peft_branch", required=False),
            worktree_dirty=dirty,
            accelerator=accelerator or (UNRECORDED if reference == UNRECORDED else ""),
            platform=" ".join(part for part in platform if isinstance(part, str)) or None,
            model_revision=sheet.text(model, "meta_info.model_info", key="sha", required=False),
            notes=tuple(self.notes),
            sound=not sheet.problems,  # last: the lines above may find a mistake
        )

    def _experiment(self, run_info: dict[str, Any]) -> str | None:
        name = self.sheet.text(run_info, "run_info", key="experiment_name")
        if name is None:
            return None
        place = "run_info.experiment_name"
        if "\\" in name:
            hint = "made on Windows? write it with `/`, and name the file to match"
            self.sheet.complain(place, f"{name!r} has a backslash", hint)
        elif (
            not _EXPERIMENT.fullmatch(name)
            or len(name) > 200
            or any(part in (".", "..") for part in name.split("/"))
        ):
            hint = "letters, digits and _ . + = - in parts joined by `/`, at most 200 characters"
            self.sheet.complain(place, f"{name[:200]!r} is not the name of an experiment", hint)
        else:
            return name
        return None

    def _created_at(self, run_info: dict[str, Any]) -> str | None:
        value = self.sheet.text(run_info, "run_info", key="created_at")
        if value is None:
            return None
        try:
            if _CREATED.fullmatch(value):
                return datetime.fromisoformat(value).astimezone(UTC).isoformat()
        except ValueError:
            pass  # the same complaint: 30 February has the right form and is no date either
        hint = "expected a form like 2026-09-16T05:44:16+00:00"
        self.sheet.complain("run_info.created_at", f"{value[:60]!r} is not a time", hint)
        return None

    def _entries(self, train_info: dict[str, Any]) -> list[dict[str, Any]]:
        value = train_info.get("metrics")
        place = "train_info.metrics"
        if not isinstance(value, list) or not value:
            if train_info:
                self.sheet.complain(place, "expected a list of at least one entry")
            return []
        for index, entry in enumerate(value):
            if not isinstance(entry, dict):
                self.sheet.complain(
                    f"{place}[{index}]", f"expected an object, got {kind_of(entry)}"
                )
        return [entry if isinstance(entry, dict) else {} for entry in value]

    def _benchmark(
        self,
        entries: list[dict[str, Any]],
        train_config: dict[str, Any],
        evaluation: dict[str, Any],
    ) -> Benchmark | None:
        """Benchmark by the folder's name, else by its headline, else by its base model."""
        conventions = self.conventions
        task = self.origin.task
        named = conventions.benchmark_named(task) if task else None
        if named is None:
            rules = conventions.rules.benchmarks
            last = {**(entries[-1] if entries else {}), **evaluation}
            model = train_config.get("model_id")
            by_score = [name for name in conventions.benchmarks if rules[name].headline in last]
            by_model = [b.id for b in conventions.benchmarks.values() if b.model_id == model]
            known = self.origin.source == "local" or task is None
            found = (by_score or by_model) if known else []
            if len(found) != 1:
                every = [
                    name for b in conventions.benchmarks for name in (b, conventions.folder_of(b))
                ]
                near = nearest_names(task, every) if task else ()
                hint = (
                    f"did you mean {' or '.join(near)}?"
                    if near
                    else f"known: {', '.join(every)}; define another in data/benchmarks.toml and "
                    "data/rules.toml"
                )
                what = f"unknown task {task!r}" if task else "cannot tell the task"
                self.sheet.complain("", what, hint)
                return None
            named = conventions.benchmarks[found[0]]
        model = train_config.get("model_id")
        if train_config and model != named.model_id:
            message = f"{named.id} is measured on {named.model_id!r}, got {model!r}"
            self.sheet.complain("run_info.train_config.model_id", message)
        return named

    def _metrics(
        self,
        benchmark: Benchmark,
        created_at: str,
        tables: dict[str, dict[str, Any]],
        entries: list[dict[str, Any]],
    ) -> tuple[dict[str, int | float], tuple[str, ...]]:
        sections = {
            **{name: (table, name) for name, table in tables.items()},
            "last": (entries[-1] if entries else {}, f"train_info.metrics[{len(entries) - 1}]"),
        }
        rules = [
            rule
            for rule in self.conventions.rules.metrics
            if rule.applies(benchmark.id, created_at)
        ]
        found: dict[str, int | float] = {}
        for rule in rules:
            if not entries and rule.section in ("steps", "last"):
                value = None  # what is missing has been said
            elif rule.section == "steps":
                value = self._sum(rule, entries)
            else:
                table, where = sections[rule.section]
                value = self._figure(rule, table, where)
            if value is not None:
                found[rule.field] = value
        stand_ins = self.conventions.rules.sentinels
        sentinels = tuple(field for field in found if found[field] == stand_ins.get(field))
        for name in sentinels:
            del found[name]
        self._unknown(benchmark, rules, tables, entries)
        return found, sentinels

    def _figure(self, rule: FigureRule, table: dict[str, Any], where: str) -> int | float | None:
        key = next((key for key in (rule.key, *rule.aliases) if key in table), rule.key)
        return self.sheet.number(
            table,
            where,
            key=key,
            required=rule.required,
            integer=rule.integer,
            signed=rule.signed,
            nan_is_absent=rule.nan_is_absent,
        )

    def _sum(self, rule: FigureRule, entries: list[dict[str, Any]]) -> float | None:
        values = [
            self._figure(rule, entry, f"train_info.metrics[{index}]")
            for index, entry in enumerate(entries[:-1])
        ]
        # the last entry is the test, the others are intervals of training
        if len(entries) == 1 and rule.required:
            self.sheet.complain("train_info.metrics", f"no entry of training states {rule.key!r}")
        known = [value for value in values if value is not None]
        return math.fsum(known) if known and len(known) == len(values) else None

    def _curve(self, benchmark: Benchmark, entries: list[dict[str, Any]]) -> Curve | None:
        key = self.conventions.rules.benchmarks[benchmark.id].curve
        if key is None:
            return None
        steps: list[int] = []
        scores: list[float] = []
        for index, entry in enumerate(entries):
            if key not in entry:
                continue
            where = f"train_info.metrics[{index}]"
            step = self.sheet.number(entry, where, key="step", integer=True)
            score = self.sheet.number(entry, where, key=key, signed=True, nan_is_absent=True)
            if step is not None and score is not None:
                steps.append(int(step))
                scores.append(float(score))
        return Curve(steps=tuple(steps), scores=tuple(scores)) if steps else None

    def _unknown(
        self,
        benchmark: Benchmark,
        rules: list[FigureRule],
        tables: dict[str, dict[str, Any]],
        entries: list[dict[str, Any]],
    ) -> None:
        """Note the keys that no rule takes and no list ignores: they may be figures."""
        own = self.conventions.rules.benchmarks[benchmark.id]
        known: dict[str, set[str]] = defaultdict(set)
        for rule in rules:
            known[rule.section].update((rule.key, *rule.aliases))
        for ignored in (self.conventions.rules.ignored_keys, own.ignored):
            for section, keys in ignored.items():
                known[section].update(keys)
        known["steps"].add(own.curve or "")
        found = {name: set(tables[name]) for name in ("train_info", "rl_eval_info")}
        found["last"] = set(entries[-1]) if entries else set()
        found["steps"] = {key for entry in entries[:-1] for key in entry}
        places = {**{name: name for name in tables}, "last": "train_info.metrics[-1]"}
        self.notes += [
            Problem(
                self.sheet.path,
                f"{places.get(section, 'train_info.metrics[*]')}.{key}",
                "unknown key, not taken",
                "declare it in data/rules.toml if it is a figure",
            )
            for section, keys in found.items()
            for key in sorted(keys - known[section])
        ]

    def _finite(self, run_info: dict[str, Any]) -> None:
        for place, value in walk(
            {key: run_info.get(key) for key in ("train_config", "peft_config")}
        ):
            if isinstance(value, float) and not math.isfinite(value):
                self.sheet.complain(f"run_info.{dotted(place)}", f"expected a number, got {value}")

    def _peft_config(self, run_info: dict[str, Any]) -> dict[str, Any] | None:
        if run_info.get("peft_config") is None and "peft_config" in run_info:
            return None  # full fine-tuning
        return self.sheet.table(run_info, "run_info", key="peft_config")

    def _packages(self, meta_info: dict[str, Any]) -> tuple[dict[str, str], str | None]:
        where = "meta_info.package_info"
        info = self.sheet.table(meta_info, "meta_info", key="package_info")
        versions = {}
        for key in info:
            match = _PACKAGE.fullmatch(key)
            version = self.sheet.text(info, where, key=key, required=False) if match else None
            if match and version is not None:
                versions[match["name"]] = version
        if isinstance(meta_info.get("package_info"), dict):
            for name in ("peft", "torch", "transformers"):
                if name not in versions:
                    self.sheet.complain(f"{where}.{name}-version", "required key is missing")
        return versions, self.sheet.text(info, where, key="peft-commit-hash", required=False)

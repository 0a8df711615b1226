"""Source files of the catalog -> records, with every mistake of every file at once.

Reading is strict: a number in quotes is not a number, a key that stands twice is a mistake, and
every value is checked against the records of `schema.py`. Whether records make sense together
is for `rules.py` to say.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Final, Generic, TypeVar

from pydantic import Field, StringConstraints, ValidationError

from peft_shop.catalog.benchmarks import Benchmark, Metric
from peft_shop.catalog.diagnosis import problems_of
from peft_shop.catalog.engines import Conversion, Engine
from peft_shop.catalog.methods import Curated, Observation
from peft_shop.catalog.noise import EraShift, ForecastAccuracy, Noise
from peft_shop.catalog.runs import Run, Snapshot, Source
from peft_shop.catalog.trainers import Trainer
from peft_shop.curate.calibration.counting import COMPUTED, Computed
from peft_shop.curate.publish.accuracies import (
    CLOSED_FORMS,
    DRY_RUNS,
    MEASURED_STEPS,
    accuracies,
)
from peft_shop.curate.readiness.verdicts import Readiness
from peft_shop.errors import CatalogError, Problem
from peft_shop.records import Record, Text

if TYPE_CHECKING:
    from pathlib import Path

__all__ = [
    "Entry",
    "Excuse",
    "History",
    "MethodHistory",
    "Sources",
    "read_sources",
]

CONVERSIONS: Final = "conversions.toml"
HISTORY: Final = "history.json"
EXCEPTIONS: Final = "exceptions.toml"
R = TypeVar("R", bound=Record)
R_co = TypeVar("R_co", bound=Record, covariant=True)


class MethodHistory(Record):
    """First peft release that has a method, its configuration fields and its variants."""

    since: str
    fields: dict[str, str] = Field(default_factory=dict)
    variants: dict[str, str] = Field(default_factory=dict)


class History(Record):
    """`catalog/observed/history.json`: what was found in the published wheels of peft."""

    releases: tuple[str, ...]
    methods: dict[str, MethodHistory]
    notes: tuple[Text, ...] = ()


class Excuse(Record):
    """One entry of `catalog/exceptions.toml`: a record that may break a rule.

    Attributes:
        rule: identifier of the rule.
        record: the record as `validate` prints it.
        because: why it may.
    """

    rule: str
    record: str
    because: Text


class _Version(Record):
    """`catalog/version.toml`."""

    catalog_version: Annotated[str, StringConstraints(pattern=r"^\d{4}\.\d{1,2}\.\d+$")]


class _Noise(Record):
    """`data/noise.json`."""

    noise: tuple[Noise, ...] = ()
    era_shifts: tuple[EraShift, ...] = ()


@dataclass(frozen=True, slots=True)
class Entry(Generic[R_co]):
    """A record and where it was written.

    Attributes:
        path: the file, as the user named it.
        where: place in the file, such as `line 3` or `metrics[2]`; empty for a whole file.
    """

    path: str
    where: str
    record: R_co

    def problem(self, where: str, message: str, hint: str = "") -> Problem:
        """Problem at the place `where` inside this record."""
        joint = ": " if " " in self.where else "."
        place = joint.join(part for part in (self.where, where) if part)
        return Problem(path=self.path, where=place, message=message, hint=hint)


@dataclass(frozen=True, slots=True)
class Sources:
    """Every record that the catalog is made from, before anything is joined.

    Attributes:
        curated: by method.
        observed: by method.
        engines: by the name of the file.
        trainers: likewise.
        files: SHA-256 of every file that was read, by its path inside the repository.
    """

    version: str
    curated: dict[str, Entry[Curated]]
    observed: dict[str, Entry[Observation]]
    history: Entry[History] | None
    excuses: tuple[Entry[Excuse], ...]
    metrics: tuple[Entry[Metric], ...]
    benchmarks: tuple[Entry[Benchmark], ...]
    sources: tuple[Entry[Source], ...]
    snapshots: tuple[Entry[Snapshot], ...]
    runs: tuple[Entry[Run], ...]
    noise: tuple[Entry[Noise], ...] = ()
    era_shifts: tuple[Entry[EraShift], ...] = ()
    engines: dict[str, Entry[Engine]] = field(default_factory=dict)
    conversions: tuple[Entry[Conversion], ...] = ()
    trainers: dict[str, Entry[Trainer]] = field(default_factory=dict)
    forecasts: tuple[ForecastAccuracy, ...] = ()
    readiness: Entry[Readiness] | None = None
    computed: Entry[Computed] | None = None
    files: dict[str, str] = field(default_factory=dict)


def read_sources(catalog: Path, data: Path) -> Sources:
    """Records in the folders `catalog` and `data`.

    Raises:
        CatalogError: a file is absent, cannot be read or breaks its format; lists every mistake.
    """
    for folder in (catalog, data):
        if not folder.is_dir():
            hint = "run from the root of the repository, or name the folder"
            problem = Problem(str(folder), "", "no such folder", hint)
            raise CatalogError("cannot read the catalog's sources", [problem])
    reader = _Reader({"catalog": catalog, "data": data})
    version = reader.whole("catalog/version.toml", _Version)
    noise = reader.whole("data/noise.json", _Noise, optional=True)
    excuses: tuple[Entry[Excuse], ...] = ()
    if (catalog / EXCEPTIONS).exists():
        excuses = reader.table(f"catalog/{EXCEPTIONS}", "exception", Excuse)
    conversions: tuple[Entry[Conversion], ...] = ()
    if (catalog / CONVERSIONS).exists():
        conversions = reader.table(f"catalog/{CONVERSIONS}", "conversions", Conversion)
    forecasts = [reader.optional(name) for name in (CLOSED_FORMS, DRY_RUNS, MEASURED_STEPS)]
    sources = Sources(
        version=version.record.catalog_version if version else "",
        curated=reader.folder("catalog/curated/*.toml", Curated),
        observed=reader.folder("catalog/observed/*.json", Observation),
        history=reader.whole(f"catalog/observed/{HISTORY}", History, optional=True),
        excuses=excuses,
        metrics=reader.table("data/benchmarks.toml", "metrics", Metric),
        benchmarks=reader.table("data/benchmarks.toml", "benchmarks", Benchmark),
        sources=reader.table("data/sources.toml", "sources", Source),
        snapshots=reader.table("data/snapshots.toml", "snapshots", Snapshot),
        runs=tuple(
            entry for name in reader.names("data/runs/*.jsonl") for entry in reader.lines(name)
        ),
        noise=_members(noise, "noise"),
        era_shifts=_members(noise, "era_shifts"),
        engines=reader.folder("catalog/engines/*.toml", Engine),
        conversions=conversions,
        trainers=reader.folder("catalog/trainers/*.toml", Trainer),
        forecasts=tuple(accuracies(*forecasts)),
        readiness=reader.whole("data/readiness.json", Readiness, optional=True),
        computed=reader.whole(f"data/{COMPUTED}", Computed, optional=True),
        files=dict(sorted(reader.files.items())),
    )
    if reader.problems:
        raise CatalogError("the catalog's sources break their format", reader.problems)
    return sources


def _members(whole: Entry[_Noise] | None, name: str) -> tuple[Entry[Any], ...]:
    """Entries of one list of `data/noise.json`."""
    if whole is None:
        return ()
    records = getattr(whole.record, name)
    return tuple(Entry(whole.path, f"{name}[{i}]", record) for i, record in enumerate(records))


class _Reader:
    """Reads files and collects what is wrong with them.

    Files go by the names that they have in the repository, such as `data/sources.toml`, so that
    hashes do not depend on where the two folders lie.
    """

    def __init__(self, roots: dict[str, Path]) -> None:
        self.roots = roots
        self.problems: list[Problem] = []
        self.files: dict[str, str] = {}
        self._documents: dict[str, Any] = {}

    def names(self, pattern: str) -> list[str]:
        """Names of the files that match `pattern`, sorted."""
        root, _, rest = pattern.partition("/")
        folder = self.roots[root]
        return sorted(f"{root}/{path.relative_to(folder).as_posix()}" for path in folder.glob(rest))

    def whole(self, name: str, model: type[R], *, optional: bool = False) -> Entry[R] | None:
        """The record that a whole file holds."""
        if optional and not self._path(name).exists():
            return None
        data = self._document(name)
        return None if data is None else self._entry(name, "", data, model)

    def optional(self, name: str) -> Any:
        """Content of a file of figures, `None` where there is no such file."""
        return self._document(name) if self._path(name).exists() else None

    def folder(self, pattern: str, model: type[R]) -> dict[str, Entry[R]]:
        """The record of each file that matches `pattern`, by the file's stem."""
        entries = {}
        for name in self.names(pattern):
            if name.endswith(f"/{HISTORY}"):
                continue
            entry = self.whole(name, model)
            if entry is not None:
                entries[self._path(name).stem] = entry
        return entries

    def table(self, name: str, key: str, model: type[R]) -> tuple[Entry[R], ...]:
        """Records of the array of tables `key` in a TOML file."""
        document = self._document(name)
        if document is None:
            return ()
        members = document.get(key, [])
        if not isinstance(members, list):
            self._complain(name, key, f"expected [[{key}]] tables")
            return ()
        entries = (
            self._entry(name, f"{key}[{index}]", member, model)
            for index, member in enumerate(members)
        )
        return tuple(entry for entry in entries if entry is not None)

    def lines(self, name: str) -> list[Entry[Run]]:
        """Runs of a file that has one a line."""
        entries = []
        for number, line in enumerate((self._text(name) or "").splitlines(), start=1):
            where = f"line {number}"
            data = self._json(line, name, where)
            entry = None if data is None else self._entry(name, where, data, Run)
            if entry is not None:
                entries.append(entry)
        return entries

    def _path(self, name: str) -> Path:
        root, _, rest = name.partition("/")
        return self.roots[root] / rest

    def _complain(self, name: str, where: str, message: str, hint: str = "") -> None:
        self.problems.append(Problem(str(self._path(name)), where, message, hint))

    def _text(self, name: str) -> str | None:
        try:
            content = self._path(name).read_bytes()
        except OSError as error:
            self._complain(name, "", (error.strerror or "cannot be read").lower())
            return None
        if name != f"catalog/{EXCEPTIONS}":  # excuses do not enter the catalog
            self.files[name] = hashlib.sha256(content).hexdigest()
        try:
            return content.decode("utf-8")
        except UnicodeDecodeError as error:
            message = f"not UTF-8: byte {error.start} cannot be read"
            self._complain(name, "", message, "save it as UTF-8")
            return None

    def _document(self, name: str) -> Any:
        """Parsed JSON or TOML file, `None` where it cannot be parsed; read once."""
        if name not in self._documents:
            text = self._text(name)
            parse = self._toml if name.endswith(".toml") else self._json
            self._documents[name] = None if text is None else parse(text, name, "")
        return self._documents[name]

    def _toml(self, text: str, name: str, where: str) -> Any:
        try:
            # through JSON, so that one strict reading serves both formats; dates become text
            return json.loads(json.dumps(tomllib.loads(text), default=str, allow_nan=False))
        except tomllib.TOMLDecodeError as error:
            self._complain(name, where, f"not TOML: {error}")
        except ValueError:
            self._complain(name, where, "holds nan or inf", "leave out what was not measured")
        return None

    def _json(self, text: str, name: str, where: str) -> Any:
        try:
            found = json.loads(text, parse_constant=_refuse, object_pairs_hook=_unique)
        except RecursionError:
            self._complain(name, where, "not JSON: nested too deeply")
        except ValueError as error:
            self._complain(name, where, f"not JSON: {error}")
        else:
            if isinstance(found, dict):
                return found
            self._complain(name, where, f"expected an object, got {type(found).__name__}")
        return None

    def _entry(self, name: str, where: str, data: Any, model: type[R]) -> Entry[R] | None:
        path = str(self._path(name))
        try:
            return Entry(path, where, model.model_validate_json(json.dumps(data), strict=True))
        except ValidationError as error:
            self.problems += problems_of(error, model, data, path, within=where)
            return None


def _refuse(constant: str) -> None:
    msg = f"{constant} is not a number; leave out what was not measured"
    raise ValueError(msg)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = sorted({key for key in keys if keys.count(key) > 1})
        msg = f"key {twice[0]!r} stands twice in one object"
        raise ValueError(msg)
    return members

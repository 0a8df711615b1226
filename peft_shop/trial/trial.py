"""A trial as people hold it: a folder, its protocol, its runs, and its catalog."""

from __future__ import annotations

import json
import time
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, Self, get_args

from pydantic import ValidationError

from peft_shop.catalog.diagnosis import problems_of
from peft_shop.catalog.export import dump
from peft_shop.catalog.store import TRIAL_CATALOG
from peft_shop.errors import (
    CatalogError,
    InputError,
    PeftShopError,
    Problem,
    QueryError,
    UnknownNameError,
)
from peft_shop.files import read_bounded, write_all, write_atomically
from peft_shop.trial.costing import Estimate, calibration_of, estimate
from peft_shop.trial.evidence import catalog_of, without_paths
from peft_shop.trial.ledger import append, locked
from peft_shop.trial.local import run_local
from peft_shop.trial.preparing import model_files, prepare, versions
from peft_shop.trial.records import Asked, Job, Protocol, Result, Stage
from peft_shop.trial.running import RESULT, Running
from peft_shop.trial.stages import every_job, next_jobs
from peft_shop.trial.status import Status, status_of
from peft_shop.trial.trust import demand_trust, source_of_score, trust
from peft_shop.units import read_quantity

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import pandas as pd

    from peft_shop.ask.answer import Recommendation
    from peft_shop.catalog.catalog import Catalog
    from peft_shop.catalog.runs import Noise, Run
    from peft_shop.units import Quantity

__all__ = ["Trial"]

ASKED: Final = "trial.toml"
PROTOCOL: Final = "protocol.json"
_LARGEST: Final = 2**28
_CHANGED: Final = "another protocol is another trial: make a new one with `peft-shop trial new`"


class Trial:
    """An equal-conditions comparison on the user's own model and data.

    A trial is a folder; everything is read from there, so that it can be interrupted, moved on to
    another day, and opened by another process. It can stand wherever a catalog file can:
    `recommend(catalog=trial)`.

    Args:
        folder: of a trial that `create` made.

    Raises:
        InputError: there is no trial.
        CatalogError: one of its files is broken.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        if not (self.folder / ASKED).is_file():
            raise InputError(
                f"{self.folder}: no trial there; make one with `peft-shop trial new {self.folder} "
                "--model FOLDER --train FILE`"
            )
        self.asked = self._read_asked()
        self._answer: Recommendation | None = None

    @classmethod
    def create(
        cls,
        folder: str | Path,
        *,
        model: str | Path,
        train: str | Path,
        candidates: int | Recommendation | tuple[str, ...] | list[str] = 6,
        **settings: Any,
    ) -> Self:
        """A new trial in a new or empty folder; nothing is started.

        Args:
            folder: where it lives.
            model: folder of the base model.
            train: file of examples.
            candidates: how many of the published order, names, or an answer whose front and ties
                take part.
            **settings: the other fields of `trial.toml`, see `peft_shop.trial.records.Asked`.

        Raises:
            InputError: a folder that is not empty, or a setting that cannot be.
        """
        place = Path(folder)
        if place.exists() and (not place.is_dir() or any(place.iterdir())):
            raise InputError(f"{place} exists already and is not empty; choose another folder")
        answer = None if isinstance(candidates, int | tuple | list) else candidates
        if answer is not None:
            names = tuple(each.name for each in (*answer.front, *answer.ties))
        else:
            names = candidates if isinstance(candidates, int) else tuple(candidates)  # type: ignore[arg-type,assignment]  # no answer
        paths = {
            name: str(Path(settings.pop(name)).resolve())
            for name in ("valid", "test", "general")
            if settings.get(name) is not None
        }
        score = str(settings.get("score") or "")
        if ":" in score:
            file, _, function = score.rpartition(":")
            settings["score"] = f"{Path(file).resolve()}:{function}"
        stated = {
            "model": str(Path(model).resolve()),
            "train": str(Path(train).resolve()),
            **paths,
            "candidates": names,
            **{name: value for name, value in settings.items() if value is not None},
        }
        asked = _asked(stated, "Trial.create")
        for path in (asked.model, asked.train, asked.valid, asked.test, asked.general):
            if path is not None and not Path(path).exists():
                raise InputError(f"{path}: no such file or folder")
        if ":" in asked.scored_by:
            trust(source_of_score(asked.scored_by))
        place.mkdir(parents=True, exist_ok=True)
        write_atomically(place / ASKED, _toml(asked).encode())
        trial = cls(place)
        trial._answer = answer
        return trial

    def __fspath__(self) -> str:
        """Its folder, which stands for its catalog."""
        if (self.folder / PROTOCOL).is_file():
            self.refresh()
        return str(self.folder)

    def __repr__(self) -> str:
        return f"<Trial {self.folder}>"

    @property
    def protocol(self) -> Protocol:
        """What is equal for all runs: frozen, or what it would be now.

        Raises:
            InputError: a file, a name or a number that cannot be.
            CatalogError: a file is broken.
        """
        path = self.folder / PROTOCOL
        if not path.is_file():
            return prepare(self.folder, self.asked, self._answer).protocol
        content = read_bounded(path, _LARGEST, "a protocol")
        try:
            return Protocol.model_validate_json(content)
        except ValidationError as error:
            problem = Problem(str(path), "", str(error).splitlines()[0], _CHANGED)
            raise CatalogError("cannot read the protocol", [problem]) from error

    def freeze(self) -> Protocol:
        """Freezes the protocol and writes the divided data; what is frozen is checked instead.

        Raises:
            InputError: the question, the model, the data or the packages changed since.
        """
        path = self.folder / PROTOCOL
        if path.is_file():
            protocol = self.protocol
            self._check(protocol)
            return protocol
        prepared = prepare(self.folder, self.asked, self._answer)
        (self.folder / "data").mkdir(exist_ok=True)
        write_all({self.folder / name: content for name, content in prepared.files.items()})
        write_atomically(path, prepared.protocol.model_dump_json(indent=1).encode())
        append(self.folder, "frozen", protocol=prepared.protocol.digest)
        return prepared.protocol

    def run(
        self,
        *,
        engine: Literal["local"] = "local",
        slots: int = 1,
        within: Quantity | None = None,
        timeout: Quantity | None = None,
        tell: Callable[[int, int, str], None] | None = None,
        allow_code: bool = False,
    ) -> Status:
        """Does what is left of the trial, in this process and its children.

        Args:
            engine: where; `local` is this machine.
            slots: runs at the same time.
            within: time after which no further run is started, such as `"6h"`.
            timeout: after which one run is ended.
            tell: told the number of runs done, of all, and what the current ones do.
            allow_code: whether a score function that came with the folder may run.

        Raises:
            InputError: the protocol changed, another process runs the trial, or its score is code
                that this user did not name.
            PeftShopError: the disk refuses; what had ended is kept.
        """
        if engine != "local":
            raise QueryError(f"engine {engine!r} is not there; known: local")
        if slots < 1:
            raise QueryError(f"slots must be a whole number from 1 on, got {slots}")
        limit = None if within is None else read_quantity(within, "seconds", name="within")
        longest = None if timeout is None else read_quantity(timeout, "seconds", name="timeout")
        with locked(self.folder):
            protocol = self.freeze()
            demand_trust(self.folder, protocol, allow_code=allow_code)
            results = self.results(protocol, mend=True)
            run_local(
                self.folder,
                protocol,
                results,
                slots=slots,
                deadline=None if limit is None else time.monotonic() + limit,
                timeout=longest,
                tell=tell,
                ended=lambda _: self._keep_catalog(protocol, results),
            )
            self._keep_catalog(protocol, results)
        return status_of(protocol, results)

    def results(self, protocol: Protocol | None = None, *, mend: bool = False) -> dict[str, Result]:
        """Results of the frozen protocol by identifier; what is none is put aside if `mend`."""
        protocol = protocol or self.protocol
        digest = protocol.digest
        found = {}
        for path in sorted((self.folder / "runs").glob(f"*/{RESULT}")):
            try:
                result = Result.model_validate_json(read_bounded(path, _LARGEST, "a result"))
                right = result.id == path.parent.name == result.job.id(protocol)
            except (ValidationError, OSError, StopIteration):
                right = False
            else:
                right = right and result.protocol == digest
            if right:
                found[result.id] = result
            elif mend:
                path.replace(path.with_suffix(".bad"))
                append(self.folder, "note", run=path.parent.name, text="a broken result, put aside")
        return found

    def run_one(
        self,
        name: str | None = None,
        *,
        index: int | None = None,
        stage: str = "rates",
        allow_code: bool = False,
    ) -> Result | None:
        """Does one run; one that has an outcome is left as it is.

        Args:
            name: identifier of the run, or
            index: its number in the stage, from 0 on.
            stage: `base`, `rates` or `seeds`, which needs the rates of all candidates.
            allow_code: whether a score function that came with the folder may run.

        Returns:
            How it ended; `None` where the stage has no run of that number.

        Raises:
            InputError: no such run, a stage that cannot begin, or a protocol that changed.
            PeftShopError: its process was ended from outside.
        """
        if (self.folder / PROTOCOL).is_file():
            protocol = self.protocol
        else:
            with locked(self.folder):
                protocol = self.freeze()
        demand_trust(self.folder, protocol, allow_code=allow_code)
        results = self.results(protocol)
        jobs = {job.id(protocol): job for job in self._stage(protocol, results, stage, name)}
        if name is None:
            name = dict(enumerate(jobs)).get(-1 if index is None else index)
            if name is None:
                return None
        elif name not in jobs:
            raise UnknownNameError("run", name, jobs)
        if name not in results:
            base = next((each for each in results.values() if each.job.stage == "base"), None)
            measured = None if base is None else base.measured
            append(self.folder, "start", run=name)
            running = Running(
                self.folder,
                protocol,
                jobs[name],
                base_valid_loss=None if measured is None else measured.valid_loss,
            )
            try:
                running.process.wait()
            finally:
                running.stop()
            result = running.result()
            if result is None:
                append(self.folder, "interrupted", run=name)
                raise PeftShopError(f"{name}: its process was ended from outside; do it again")
            append(self.folder, "end", run=name, outcome=result.outcome)
            results[name] = result
            self.refresh()
        return results[name]

    def _stage(
        self, protocol: Protocol, results: Mapping[str, Result], stage: str, name: str | None
    ) -> list[Job]:
        """Jobs of a stage in a fixed order; of all stages where a run is named.

        Raises:
            InputError: no such stage, or one that cannot begin.
        """
        if name is not None:
            return every_job(protocol, results)
        if stage not in get_args(Stage):
            raise UnknownNameError("stage", stage, get_args(Stage))
        if stage == "seeds" and any(job.stage != "seeds" for job in next_jobs(protocol, results)):
            raise InputError(
                f"{self.folder}: the seeds need the base and all rates first; `peft-shop trial "
                f"status {self.folder}` tells what is missing"
            )
        return [job for job in every_job(protocol, results) if job.stage == stage]

    def refresh(self) -> Path:
        """Writes the trial's catalog anew from its results; gives its path."""
        protocol = self.protocol
        with locked(self.folder, "catalog.lock", wait=True):
            return self._write_catalog(protocol, self.results(protocol))

    def estimate(self) -> Estimate:
        """What is left, and how long that takes."""
        protocol = self.protocol
        known = calibration_of(self.folder, protocol)
        return estimate(protocol, self.results(protocol), known)

    def exported(self) -> bytes:
        """The catalog without paths: folders and files have their last name only."""
        return dump(without_paths(self.catalog))

    def status(self) -> Status:
        """How far it is, what failed, and which pairs are undecided."""
        protocol = self.protocol
        results = self.results(protocol)
        on_file = len(list((self.folder / "runs").glob(f"*/{RESULT}")))
        return status_of(protocol, results, foreign=on_file - len(results))

    @property
    def complete(self) -> bool:
        """Whether nothing is left to do."""
        protocol = self.protocol
        return not next_jobs(protocol, self.results(protocol))

    @property
    def catalog(self) -> Catalog:
        """Its runs, and the published catalog beside them."""
        protocol = self.protocol
        return catalog_of(protocol, self.results(protocol))

    @property
    def runs(self) -> tuple[Run, ...]:
        """Its own runs."""
        catalog = self.catalog
        return catalog.runs_by_benchmark[catalog.benchmarks[0].id]

    @property
    def noise(self) -> tuple[Noise, ...]:
        """What its seeds tell of chance."""
        catalog = self.catalog
        own = catalog.benchmarks[0].id
        return tuple(noise for noise in catalog.noise if noise.benchmark == own)

    def to_frame(self) -> pd.DataFrame:
        """A row for every run: candidate, rate, seed and figures."""
        import pandas as pd

        return pd.DataFrame(
            [
                {
                    "candidate": run.experiment,
                    "learning_rate": run.recipe.training.learning_rate,
                    "seed": run.provenance.seed,
                    **run.metrics,
                }
                for run in self.runs
            ]
        )

    def _check(self, protocol: Protocol) -> None:
        """That nothing changed since the protocol was frozen.

        Raises:
            InputError: something did.
        """
        if self.asked != protocol.asked:
            changed = [
                name
                for name in Asked.model_fields
                if getattr(self.asked, name) != getattr(protocol.asked, name)
            ]
            raise InputError(
                f"{self.folder / ASKED}: {', '.join(changed)} changed since the trial began; "
                f"{_CHANGED}"
            )
        now = versions()
        for package, then in protocol.versions.items():
            if now.get(package) != then:
                raise InputError(
                    f"{self.folder}: the trial began with {package} {then}, now there is "
                    f"{now.get(package, 'none')}; {_CHANGED}"
                )
        if model_files(Path(protocol.asked.model)) != protocol.model_files:
            raise InputError(f"{protocol.asked.model}: the model's files changed; {_CHANGED}")
        splits = [protocol.train, protocol.valid, protocol.test, protocol.general]
        held = model_files(self.folder / "data")
        for split in splits:
            name = "" if split is None else Path(split.file).name
            if split is not None and held.get(name) != split.sha256:
                raise InputError(f"{self.folder / split.file}: the data changed; {_CHANGED}")
        if protocol.code is not None and held.get("score.py") != protocol.code.sha256:
            raise InputError(f"{self.folder / protocol.code.file}: the score changed; {_CHANGED}")

    def _read_asked(self) -> Asked:
        path = self.folder / ASKED
        try:
            table = tomllib.loads(read_bounded(path, 2**20, "a question").decode())
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            problem = Problem(str(path), "", f"not a TOML file: {error}")
            raise CatalogError("cannot read the trial", [problem]) from error
        return _asked(table, str(path))

    def _keep_catalog(self, protocol: Protocol, results: Mapping[str, Result]) -> None:
        with locked(self.folder, "catalog.lock", wait=True):
            self._write_catalog(protocol, results)

    def _write_catalog(self, protocol: Protocol, results: Mapping[str, Result]) -> Path:
        path = self.folder / TRIAL_CATALOG
        write_atomically(path, dump(catalog_of(protocol, results)))
        return path


def _asked(table: Mapping[str, Any], place: str) -> Asked:
    """The question as a record.

    Raises:
        CatalogError: it breaks its format; lists every mistake.
    """
    try:
        return Asked.model_validate(table)
    except ValidationError as error:
        raise CatalogError(
            "cannot make such a trial", problems_of(error, Asked, dict(table), place)
        ) from error


def _toml(asked: Asked) -> str:
    """The question as people edit it."""
    lines = ["# What is asked of this trial. It may be edited until its first run.", ""]
    for name, value in asked.model_dump(mode="json").items():
        if value is not None:
            # strings, numbers, booleans and lists of them are written alike in JSON and TOML
            lines.append(f"{name} = {json.dumps(value, ensure_ascii=False)}")
    return "\n".join(lines) + "\n"

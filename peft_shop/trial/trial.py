"""A trial as people hold it: a folder, its protocol, its runs, and its catalog."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from peft_shop.catalog.export import dump
from peft_shop.catalog.store import TRIAL_CATALOG
from peft_shop.errors import InputError, QueryError
from peft_shop.files import write_atomically
from peft_shop.trial.asking import ASKED, read_asked
from peft_shop.trial.costing import calibrate, calibration_of, estimate, patience, run_time
from peft_shop.trial.creating import make_folder
from peft_shop.trial.driver import drive
from peft_shop.trial.engines import Engine, demand_exclusive, opened, slots_of
from peft_shop.trial.evidence import catalog_of, without_paths
from peft_shop.trial.freezing import check_unchanged, frozen, write_frozen
from peft_shop.trial.keeping import Keep, drop_worse, kept
from peft_shop.trial.ledger import locked
from peft_shop.trial.outcomes import files_of_results, read_results
from peft_shop.trial.preparing import prepare
from peft_shop.trial.proposing import TrialPlan, planned
from peft_shop.trial.remaining import Remaining
from peft_shop.trial.single import chosen_job, do_one
from peft_shop.trial.stages import next_jobs, stages_until
from peft_shop.trial.status import Status, status_of
from peft_shop.trial.trust import demand_trust
from peft_shop.units import read_quantity

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import pandas as pd

    from peft_shop.ask.recommendation import Recommendation
    from peft_shop.catalog.catalog import Catalog
    from peft_shop.catalog.noise import Noise
    from peft_shop.catalog.runs import Run
    from peft_shop.trial.costing import Estimate
    from peft_shop.trial.records import Protocol, Stage
    from peft_shop.trial.results import Result
    from peft_shop.units import Quantity

__all__ = ["Trial"]


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
        self.asked = read_asked(self.folder)
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
        answer = None if isinstance(candidates, int | tuple | list) else candidates
        if answer is not None:
            names = tuple(each.name for each in (*answer.front, *answer.ties))
        else:
            names = candidates if isinstance(candidates, int) else tuple(candidates)  # type: ignore[arg-type,assignment]  # no answer
        place = Path(folder)
        make_folder(place, model=model, train=train, candidates=names, settings=settings)
        trial = cls(place)
        trial._answer = answer
        return trial

    def discard(self) -> None:
        """Takes back a trial of which nothing was frozen: its question, and its folder if empty."""
        if frozen(self.folder) is None:
            (self.folder / ASKED).unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # it holds something else
                self.folder.rmdir()

    def __fspath__(self) -> str:
        """Its folder, which stands for its catalog."""
        if frozen(self.folder) is not None:
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
        protocol = frozen(self.folder)
        return protocol or prepare(self.folder, self.asked, self._answer).protocol

    def freeze(self) -> Protocol:
        """Freezes the protocol and writes the divided data; what is frozen is checked instead.

        Raises:
            InputError: the question, the model, the data or the packages changed since.
        """
        protocol = frozen(self.folder)
        if protocol is not None:
            check_unchanged(self.folder, self.asked, protocol)
            return protocol
        prepared = prepare(self.folder, self.asked, self._answer)
        write_frozen(self.folder, prepared)
        return prepared.protocol

    def run(
        self,
        *,
        engine: Engine = "local",
        address: str | None = None,
        slots: int | None = None,
        stage: Stage = "seeds",
        within: Quantity | None = None,
        yes: bool = True,
        keep: Keep | None = None,
        share: bool = False,
        timeout: Quantity | None = None,
        tell: Callable[[int, int, str], None] | None = None,
        tell_step: Callable[[int, int, str], None] | None = None,
        allow_code: bool = False,
    ) -> Status:
        """Does what is left of the trial.

        Args:
            engine: where: `local` in children of this process, or `ray` in a Ray cluster.
            address: of the cluster, such as `auto`; without one Ray starts on this machine.
            slots: runs at the same time; by default one, or as many as the cluster takes.
            stage: the last one that is done; the seeds are what comes last.
            within: time after which no further run is started, such as `"6h"`.
            yes: whether to go on where the forecast says that this does not fit `within`.
            keep: adapters that stay in `runs/<id>/adapter`: `best` of each candidate's seeds by
                validation loss, or `all`.
            share: whether several runs may meet on one accelerator; memory and time are no metrics
                of the trial then.
            timeout: after which one run is ended; three times its forecast where `calibrate` was
                called, else never.
            tell: told the number of runs done, of all, what the current ones do and how long.
            tell_step: told the steps done of a current run, of all, its loss and how long; `tell`
                is told of the whole alone then.
            allow_code: whether a score function that came with the folder may run.

        Raises:
            InputError: the protocol changed, another process runs the trial, or its score is code
                that this user did not name.
            QueryError: it does not fit, and `yes` is false; what would is told.
            PeftShopError: the disk refuses, or the cluster does; what had ended is kept.
            MissingExtraError: the engine is not installed.
        """
        stages = stages_until(stage)
        limit = None if within is None else read_quantity(within, "seconds", name="within")
        longest = None if timeout is None else read_quantity(timeout, "seconds", name="timeout")
        if within is not None and not yes:
            plan = self.plan(within=within, slots=slots_of(engine, slots))
            if plan.fits is False:
                raise QueryError(f"{self.folder}: {plan.advice(within)}; nothing was started")
        with locked(self.folder):
            protocol = self.freeze()
            demand_trust(self.folder, protocol, allow_code=allow_code)
            together = slots_of(engine, slots)
            shared = demand_exclusive(protocol, engine, together, share=share)
            results = self.results(protocol, mend=True)
            known = calibration_of(self.folder, protocol)
            if longest is None:
                longest = patience(protocol, known)
                # each has a part of the accelerator then
                longest = longest * (together or 1) if shared and longest else longest
            deadline = None if limit is None else time.monotonic() + limit
            left = Remaining(protocol, results, known, together)
            with opened(
                engine,
                self.folder,
                protocol,
                address=address,
                timeout=longest,
                within=limit,
                keep=keep,
                shared=shared,
            ) as start:
                drive(
                    self.folder,
                    protocol,
                    results,
                    start,
                    slots=together,
                    deadline=deadline,
                    stages=stages,
                    tell=tell,
                    describe=left.text if tell_step is None else left.whole,
                    watch=None if tell_step is None else lambda begun: tell_step(*left.step(begun)),
                    ended=lambda _: self._tidy(protocol, results, keep),
                )
            self._tidy(protocol, results, keep)
        return status_of(protocol, results, adapters=kept(self.folder, results))

    def results(self, protocol: Protocol | None = None, *, mend: bool = False) -> dict[str, Result]:
        """Results of the frozen protocol by identifier; what is none is put aside if `mend`."""
        return read_results(self.folder, protocol or self.protocol, mend=mend)

    def run_one(
        self,
        name: str | None = None,
        *,
        index: int | None = None,
        stage: str = "rates",
        keep: Keep | None = None,
        allow_code: bool = False,
    ) -> Result | None:
        """Does one run; one that has an outcome is left as it is.

        Args:
            name: identifier of the run, or
            index: its number in the stage, from 0 on.
            stage: `base`, `rates` or `seeds`, which needs the rates of all candidates.
            keep: adapters that stay, as in `run`.
            allow_code: whether a score function that came with the folder may run.

        Returns:
            How it ended; `None` where the stage has no run of that number.

        Raises:
            InputError: no such run, a stage that cannot begin, or a protocol that changed.
            PeftShopError: its process was ended from outside.
        """
        if frozen(self.folder) is None:
            with locked(self.folder, wait=True):
                self.freeze()
        protocol = self.freeze()
        demand_trust(self.folder, protocol, allow_code=allow_code)
        results = self.results(protocol)
        job = chosen_job(self.folder, protocol, results, name=name, index=index, stage=stage)
        if job is None:
            return None
        identifier = job.id(protocol)
        if identifier not in results:
            results[identifier] = do_one(self.folder, protocol, results, job, keep=keep)
            self._tidy(protocol, self.results(protocol), keep)
        return results[identifier]

    def refresh(self) -> Path:
        """Writes the trial's catalog anew from its results; gives its path."""
        protocol = self.protocol
        with locked(self.folder, "catalog.lock", wait=True):
            return self._write_catalog(protocol, self.results(protocol))

    def calibrate(self, *, allow_code: bool = False) -> None:
        """Trains a few steps, so that the time of the rest can be told; freezes nothing.

        Raises:
            InputError: another process runs the trial.
            PeftShopError: they did not train.
        """
        with locked(self.folder):
            protocol, files = frozen(self.folder), None
            if protocol is None:
                prepared = prepare(self.folder, self.asked, self._answer)
                protocol, files = prepared.protocol, prepared.files
            demand_trust(self.folder, protocol, allow_code=allow_code)
            calibrate(self.folder, protocol, files)

    def plan(self, *, within: Quantity | None = None, slots: int | None = 1) -> TrialPlan:
        """What it will do and how long that takes; nothing is started.

        Args:
            within: time that it may take, such as `"6h"`; what does not fit comes with a proposal.
            slots: runs at the same time, as if they did not slow each other down; `None` for all.
        """
        limit = None if within is None else read_quantity(within, "seconds", name="within")
        protocol = self.protocol
        results, known = self.results(protocol), calibration_of(self.folder, protocol)
        each = run_time(protocol, results, known)
        left = estimate(protocol, results, known)
        if limit is not None:
            limit *= max(1, left.runs if slots is None else slots)
        return planned(protocol, left, each, limit)

    def estimate(self) -> Estimate:
        """What is left, and how long that takes."""
        return self.plan().estimate

    def exported(self) -> bytes:
        """The catalog without paths: folders and files have their last name only."""
        return dump(without_paths(self.catalog))

    def status(self) -> Status:
        """How far it is, what failed, and which pairs are undecided."""
        protocol = self.protocol
        results = self.results(protocol)
        on_file = len(files_of_results(self.folder))
        adapters = kept(self.folder, results)
        return status_of(protocol, results, foreign=on_file - len(results), adapters=adapters)

    @property
    def complete(self) -> bool:
        """Whether nothing is left to do."""
        return self.complete_until("seeds")

    def complete_until(self, stage: Stage) -> bool:
        """Whether nothing is left to do of a stage and those before it."""
        protocol = self.protocol
        stages = stages_until(stage)
        return all(job.stage not in stages for job in next_jobs(protocol, self.results(protocol)))

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

    def _tidy(
        self, protocol: Protocol, results: Mapping[str, Result], keep: Keep | None = None
    ) -> None:
        """After a run: the catalog has it, and of adapters only what is to be kept is there."""
        with locked(self.folder, "catalog.lock", wait=True):
            self._write_catalog(protocol, results)
            if keep == "best":
                drop_worse(self.folder, results)

    def _write_catalog(self, protocol: Protocol, results: Mapping[str, Result]) -> Path:
        path = self.folder / TRIAL_CATALOG
        write_atomically(path, dump(catalog_of(protocol, results)))
        return path

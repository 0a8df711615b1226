"""One run of a trial without a driver, as an array job of a scheduler does it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from peft_shop.errors import InputError, PeftShopError, UnknownNameError
from peft_shop.trial.halving import briefing_of, may_begin, yardstick_of
from peft_shop.trial.keeping import keeps, known
from peft_shop.trial.ledger import append
from peft_shop.trial.running import Running
from peft_shop.trial.stages import every_job, next_jobs, stages_until

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from peft_shop.trial.records import Job, Protocol
    from peft_shop.trial.results import Result

__all__ = ["chosen_job", "do_one"]


def chosen_job(
    folder: Path,
    protocol: Protocol,
    results: Mapping[str, Result],
    *,
    name: str | None = None,
    index: int | None = None,
    stage: str = "rates",
) -> Job | None:
    """The run that is meant; `None` where the stage has none of that number.

    Args:
        folder: of the trial.
        protocol: what is equal for all.
        results: by identifier of the run.
        name: identifier of the run, or
        index: its number in the stage, from 0 on.
        stage: `base`, `rates` or `seeds`.

    Raises:
        InputError: no such run, no such stage, or one that cannot begin.
    """
    jobs = every_job(protocol, results)
    if name is not None:
        by_name = {job.id(protocol): job for job in jobs}
        if name not in by_name:
            raise UnknownNameError("run", name, by_name)
        return by_name[name]
    stages_until(stage)
    if stage == "seeds" and any(job.stage != "seeds" for job in next_jobs(protocol, results)):
        raise InputError(
            f"{folder}: the seeds need the base and all rates first; `peft-shop trial "
            f"status {folder}` tells what is missing"
        )
    numbered = dict(enumerate(job for job in jobs if job.stage == stage))
    return numbered.get(-1 if index is None else index)


def do_one(
    folder: Path,
    protocol: Protocol,
    results: Mapping[str, Result],
    job: Job,
    *,
    keep: str | None = None,
) -> Result:
    """Trains one run in a process of its own, whatever else there is.

    Args:
        folder: of the trial.
        protocol: what is equal for all.
        results: by identifier of the run.
        job: what to do.
        keep: which adapters stay: `best`, `all` or none.

    Raises:
        InputError: it is to be held against runs that are still to be done.
        PeftShopError: its process was ended from outside.
    """
    name = job.id(protocol)
    if not may_begin(protocol, results, job):
        raise InputError(
            f"{folder}: with halving all are held against {yardstick_of(protocol).name}: do the "
            "runs of its rates first"
        )
    briefing, stays = briefing_of(protocol, results, job), keeps(known(keep), job)
    append(folder, "start", run=name)
    running = Running(folder, protocol, job, briefing, keep=stays)
    try:
        running.process.wait()
    finally:
        running.stop()
    result = running.result()
    if result is None:
        append(folder, "interrupted", run=name)
        raise PeftShopError(f"{name}: its process was ended from outside; do it again")
    append(folder, "end", run=name, outcome=result.outcome)
    return result

"""The driver: starts what can be done next, several runs at a time, all of it resumable."""

from __future__ import annotations

import errno
import time
import typing
from typing import TYPE_CHECKING, Final, get_args

from peft_shop.errors import PeftShopError
from peft_shop.trial.halving import briefing_of
from peft_shop.trial.ledger import append
from peft_shop.trial.records import Stage
from peft_shop.trial.stages import expected_jobs, next_jobs

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from pathlib import Path

    from peft_shop.trial.halving import Briefing
    from peft_shop.trial.records import Job, Protocol
    from peft_shop.trial.results import Result

__all__ = ["Attempt", "drive"]

_PAUSE: Final = 0.05
_RETRIES: Final = 2
"""Times that a run whose process was ended from outside is started again."""


class Attempt(typing.Protocol):
    """A run that an engine has begun."""

    @property
    def id(self) -> str:
        """Identifier of the run."""

    @property
    def job(self) -> Job:
        """What it does."""

    @property
    def over(self) -> bool:
        """Whether it has ended."""

    def stop(self) -> None:
        """Ends it."""

    def result(self) -> Result | None:
        """How it ended, once on the disk; `None` where it has to run again."""

    def progress(self) -> str:
        """Its last word."""


def drive(
    folder: Path,
    protocol: Protocol,
    results: dict[str, Result],
    start: Callable[[Job, Briefing], Attempt],
    *,
    slots: int | None = 1,
    deadline: float | None = None,
    stages: Collection[Stage] = get_args(Stage),
    tell: Callable[[int, int, str], None] | None = None,
    describe: Callable[[Sequence[Attempt], int], str] | None = None,
    watch: Callable[[Sequence[Attempt]], None] | None = None,
    ended: Callable[[Result], None] | None = None,
) -> None:
    """Does what is left of a trial; `results` grows by every run that ends.

    Args:
        folder: of the trial.
        protocol: what is equal for all.
        results: by identifier of the run.
        start: begins a job, with what its training is told.
        slots: runs at the same time; `None` for all that can be done.
        deadline: by `time.monotonic`, after which no further run is started.
        stages: that are done; those after them are left.
        tell: told the number of runs done, of all, and what the current ones do.
        describe: words for the current runs of so many; by default the last one of each.
        watch: told the current runs, where there are any.
        ended: called with every new result.

    Raises:
        PeftShopError: the disk refuses; what had ended is kept.
        KeyboardInterrupt: as it came, after all processes were ended.
    """
    active: list[Attempt] = []
    tries: dict[str, int] = {}
    jobs, total = next_jobs(protocol, results), expected_jobs(protocol, results)
    try:
        while True:
            late = deadline is not None and time.monotonic() > deadline
            busy = {attempt.id for attempt in active}
            waiting = [job for job in jobs if job.id(protocol) not in busy and job.stage in stages]
            while waiting and (slots is None or len(active) < slots) and not late:
                job = waiting.pop(0)
                append(folder, "start", run=job.id(protocol))
                active.append(start(job, briefing_of(protocol, results, job)))
            if not active:
                return
            for attempt in [each for each in active if each.over]:
                active.remove(attempt)
                result = attempt.result()
                if result is None:
                    _again(folder, attempt, tries, late=late)
                    continue
                append(folder, "end", run=attempt.id, outcome=result.outcome)
                results[attempt.id] = result
                jobs, total = next_jobs(protocol, results), expected_jobs(protocol, results)
                if ended is not None:
                    ended(result)
            if tell is not None:
                tell(len(results), total, (describe or _last_words)(active, total))
            if watch is not None and active:
                watch(active)
            time.sleep(_PAUSE)
    except OSError as error:
        reason = "the disk is full" if error.errno == errno.ENOSPC else error.strerror or str(error)
        raise PeftShopError(
            f"{error.filename or folder}: {reason}; what had ended is kept, run it again to go on"
        ) from error
    finally:
        for attempt in active:
            attempt.stop()


def _last_words(attempts: Sequence[Attempt], _: int) -> str:
    return "; ".join(f"{attempt.id}: {attempt.progress()}" for attempt in attempts)


def _again(folder: Path, attempt: Attempt, tries: dict[str, int], *, late: bool) -> None:
    """Notes that a run was interrupted.

    Raises:
        PeftShopError: too often.
    """
    tries[attempt.id] = tries.get(attempt.id, 0) + 1
    append(folder, "interrupted", run=attempt.id, times=tries[attempt.id])
    if tries[attempt.id] > _RETRIES and not late:
        raise PeftShopError(
            f"{attempt.id}: its process was ended from outside {tries[attempt.id]} times; look "
            f"into {folder / 'runs' / attempt.id}"
        )

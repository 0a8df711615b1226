"""The engine of one machine: a process a run, several at a time, all of it resumable."""

from __future__ import annotations

import errno
import time
from typing import TYPE_CHECKING, Final

from peft_shop.errors import PeftShopError
from peft_shop.trial.ledger import append
from peft_shop.trial.running import Running
from peft_shop.trial.stages import expected_jobs, next_jobs

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from peft_shop.trial.records import Protocol, Result

__all__ = ["Tell", "run_local"]

_PAUSE: Final = 0.05
_RETRIES: Final = 2
"""Times that a run whose process was ended from outside is started again."""

Tell = "Callable[[int, int, str], None]"
"""Told the number of runs done, of all, and what the current ones do."""


def run_local(
    folder: Path,
    protocol: Protocol,
    results: dict[str, Result],
    *,
    slots: int = 1,
    deadline: float | None = None,
    timeout: float | None = None,
    tell: Callable[[int, int, str], None] | None = None,
    ended: Callable[[Result], None] | None = None,
) -> None:
    """Does what is left of a trial; `results` grows by every run that ends.

    Args:
        folder: of the trial.
        protocol: what is equal for all.
        results: by identifier of the run.
        slots: runs at the same time; more than one shares the machine, and with it times.
        deadline: by `time.monotonic`, after which no further run is started.
        timeout: after which a run is ended [s].
        tell: progress.
        ended: called with every new result.

    Raises:
        PeftShopError: the disk refuses; what had ended is kept.
        KeyboardInterrupt: as it came, after all processes were ended.
    """
    active: list[Running] = []
    tries: dict[str, int] = {}
    try:
        while True:
            late = deadline is not None and time.monotonic() > deadline
            busy = {running.id for running in active}
            waiting = [job for job in next_jobs(protocol, results) if job.id(protocol) not in busy]
            while waiting and len(active) < slots and not late:
                job = waiting.pop(0)
                base = _base_loss(results)
                append(folder, "start", run=job.id(protocol))
                active.append(Running(folder, protocol, job, base_valid_loss=base, timeout=timeout))
            if not active:
                return
            for running in [each for each in active if each.over]:
                active.remove(running)
                result = running.result()
                if result is None:
                    tries[running.id] = tries.get(running.id, 0) + 1
                    append(folder, "interrupted", run=running.id, times=tries[running.id])
                    if tries[running.id] > _RETRIES:
                        raise PeftShopError(
                            f"{running.id}: its process was ended from outside "
                            f"{tries[running.id]} times; look into {running.place}"
                        )
                    continue
                append(folder, "end", run=running.id, outcome=result.outcome)
                results[running.id] = result
                if ended is not None:
                    ended(result)
            if tell is not None:
                doing = "; ".join(f"{each.id}: {each.progress()}" for each in active)
                tell(len(results), expected_jobs(protocol, results), doing)
            time.sleep(_PAUSE)
    except OSError as error:
        reason = "the disk is full" if error.errno == errno.ENOSPC else error.strerror or str(error)
        raise PeftShopError(
            f"{error.filename or folder}: {reason}; what had ended is kept, run it again to go on"
        ) from error
    finally:
        for running in active:
            running.stop()


def _base_loss(results: dict[str, Result]) -> float | None:
    """Validation loss of the model as it is, once it was scored."""
    return next(
        (
            result.measured.valid_loss
            for result in results.values()
            if result.job.stage == "base" and result.measured is not None
        ),
        None,
    )

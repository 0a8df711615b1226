"""How long a trial that is running still takes: each run and the whole, as intervals."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

from peft_shop.trial.costing import run_time, span
from peft_shop.trial.running import Running

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peft_shop.trial.costing import Calibration, RunTime
    from peft_shop.trial.driver import Attempt
    from peft_shop.trial.records import Job, Protocol
    from peft_shop.trial.results import Result

__all__ = ["Remaining"]


class Remaining:
    """Tells what the current runs do, how long they and the whole trial still take.

    Args:
        protocol: what is equal for all.
        results: by identifier of the run, as they come.
        calibration: what a few steps took; `None` without one.
        slots: runs at the same time; `None` where nobody knows how many.
    """

    def __init__(
        self,
        protocol: Protocol,
        results: Mapping[str, Result],
        calibration: Calibration | None,
        slots: int | None,
    ) -> None:
        self._protocol = protocol
        self._results = results
        self._calibration = calibration
        self._slots = slots

    def text(self, attempts: Sequence[Attempt], total: int) -> str:
        """Time that is left of all, and the last word and the time left of each current run.

        Args:
            attempts: runs that were begun.
            total: runs of the whole trial [count].
        """
        words = [self._word(attempt, f"{attempt.id}: {attempt.progress()}") for attempt in attempts]
        return "; ".join(filter(None, [self.whole(attempts, total), *words]))

    def whole(self, attempts: Sequence[Attempt], total: int) -> str:
        """Time that is left of all; empty where nobody knows.

        Args:
            attempts: runs that were begun.
            total: runs of the whole trial [count].
        """
        each = self._typical()
        lefts = [self._left(attempt) for attempt in attempts]
        if each is None or self._slots is None or None in lefts:
            return ""
        number = max(0, total - len(self._results) - len(attempts))
        low, high = map(sum, zip(*filter(None, lefts), strict=True)) if lefts else (0.0, 0.0)
        least, most = self._whole(each)
        low, high = low + number * least, high + number * most
        return f"in all {_told((low / self._slots, high / self._slots))}"

    def step(self, attempts: Sequence[Attempt]) -> tuple[int, int, str]:
        """Where the first of the current runs is.

        Args:
            attempts: runs that were begun, at least one.

        Returns:
            Its steps that are over, all of them, and its name, loss and time left, with the number
            of the other current runs.
        """
        first, *others = attempts
        said = first.progress()
        step = _step(said)
        words = said.partition(" ")[2].partition(" ")[2] if step else said
        told = self._word(first, f"{first.id}: {words}")
        if others:
            told += f", and {len(others)} more at the same time"
        return step, self._protocol.asked.steps, told

    def _word(self, attempt: Attempt, told: str) -> str:
        """What is told of a run, with the time that it still takes where it runs here."""
        left = self._left(attempt) if isinstance(attempt, Running) else None
        return told if left is None else f"{told} ({_told(left)})"

    def _left(self, attempt: Attempt) -> tuple[float, float] | None:
        began = attempt.started if isinstance(attempt, Running) else None
        elapsed = 0.0 if began is None else time.monotonic() - began
        return self.of_run(attempt.job, elapsed, _step(attempt.progress()))

    def of_run(self, job: Job, elapsed: float, step: int = 0) -> tuple[float, float] | None:
        """The least and the most that a run still takes [s]; `None` where nothing was measured.

        Other runs of its candidate tell it best, then all runs, then the calibration; its own pace
        widens the interval, since more may run on this machine now than did then.

        Args:
            job: what it does.
            elapsed: time since it began [s].
            step: its last one that is over.
        """
        each = self._typical(job.contestant) or self._typical()
        if each is None:
            return None
        if step:
            left, pace = max(0, self._protocol.asked.steps - step), elapsed / step
            return left * min(each.low, pace), left * max(each.high, pace) + each.overhead
        whole = self._whole(each)
        if job.stage == "base":  # it has no steps
            if self._calibration is None:
                return None
            whole = (self._calibration.overhead_seconds,) * 2
        return max(0.0, whole[0] - elapsed), max(0.0, whole[1] - elapsed)

    def _whole(self, each: RunTime) -> tuple[float, float]:
        """Time of a whole run [s]."""
        steps = self._protocol.asked.steps
        return each.overhead + steps * each.low, each.overhead + steps * each.high

    def _typical(self, contestant: str | None = None) -> RunTime | None:
        """What a run of a candidate takes that has finished some, or any run."""
        results = self._results
        if contestant is not None:
            results = {
                name: each
                for name, each in results.items()
                if each.job.contestant == contestant and each.measured is not None
            }
            if not results:
                return None
        return run_time(self._protocol, results, self._calibration)


def _step(word: str) -> int:
    """Number of the step that a training's last word tells of; 0 before the first one is over.

    >>> _step("step 12 loss 1.5"), _step("loading")
    (12, 0)
    """
    told = re.match(r"step (\d+) ", word)
    return 0 if told is None else int(told[1])


def _told(left: tuple[float, float]) -> str:
    return f"{span(*left)} left" if left[1] > 0 else "longer than forecast"

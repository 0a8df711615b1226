"""What a trial will take: from its own finished runs, or from a few steps of plain LoRA."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Final

from pydantic import ValidationError

from peft_shop.catalog.methods import PLAIN
from peft_shop.errors import PeftShopError
from peft_shop.files import read_bounded, write_atomically
from peft_shop.records import Finite, Record
from peft_shop.trial.records import Job
from peft_shop.trial.running import Running
from peft_shop.trial.stages import expected_jobs
from peft_shop.trial.trust import demand_trust

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from peft_shop.trial.records import Contestant, Protocol, Result

__all__ = ["Calibration", "Estimate", "calibrate", "calibration_of", "estimate"]

CALIBRATION: Final = "calibration.json"
_STEPS: Final = 8
"""Of a calibration: three to warm up, five that count."""


class Calibration(Record):
    """What a few steps of one candidate took on this machine.

    Attributes:
        protocol: digest of the protocol.
        contestant: which candidate.
        step_seconds: median of a step.
        overhead_seconds: everything else of a run: starting, loading, scoring.
    """

    protocol: str
    contestant: str
    step_seconds: Finite
    overhead_seconds: Finite


class Estimate(Record):
    """What is left of a trial.

    Attributes:
        runs: that are left, as far as can be told now [count].
        low, high: time of all of them, one after another [s]; `None` where nothing was measured.
        because: where the times come from.
    """

    runs: int
    low: Finite | None
    high: Finite | None
    because: str


def calibrate(folder: Path, protocol: Protocol) -> Calibration:
    """Trains plain LoRA, or the first candidate, for a few steps, and keeps what that took.

    Raises:
        PeftShopError: it did not train.
        InputError: its score is code that this user did not name.
    """
    demand_trust(folder, protocol)
    contestant = _yardstick(protocol)
    training = contestant.recipe.training.model_copy(update={"max_steps": _STEPS})
    recipe = contestant.recipe.model_copy(update={"training": training})
    short = contestant.model_copy(update={"recipe": recipe})
    others = tuple(each for each in protocol.contestants if each.name != contestant.name)
    quick = protocol.model_copy(update={"contestants": (*others, short)})
    job = Job(stage="rates", contestant=contestant.name, learning_rate=contestant.rates[0], seed=0)
    started = time.monotonic()
    running = Running(folder, quick, job, into="calibration")
    try:
        running.process.wait()
    finally:
        running.stop()
    elapsed = time.monotonic() - started
    result = running.result()
    if result is None or result.measured is None or result.measured.step_median_seconds is None:
        reason = "it was interrupted" if result is None else result.detail
        raise PeftShopError(f"the calibration did not train: {reason}")
    calibration = Calibration(
        protocol=protocol.digest,
        contestant=contestant.name,
        step_seconds=result.measured.step_median_seconds,
        overhead_seconds=max(0.0, elapsed - result.measured.step_seconds),
    )
    write_atomically(folder / CALIBRATION, calibration.model_dump_json().encode())
    return calibration


def calibration_of(folder: Path, protocol: Protocol) -> Calibration | None:
    """What an earlier calibration of this protocol found; `None` without one."""
    try:
        content = read_bounded(folder / CALIBRATION, 65_536, "a calibration")
        calibration = Calibration.model_validate(json.loads(content))
    except (OSError, ValueError, ValidationError):
        return None
    return calibration if calibration.protocol == protocol.digest else None


def estimate(
    protocol: Protocol, results: Mapping[str, Result], calibration: Calibration | None
) -> Estimate:
    """What is left, with the times of this machine.

    The interval is that of the published times of a step among the candidates: methods differ.
    """
    runs = max(0, expected_jobs(protocol, results) - len(results))
    own = [
        each.measured.step_seconds
        for each in results.values()
        if each.measured is not None and each.job.stage != "base"
    ]
    paces = [each.pace for each in protocol.contestants[1:] if each.pace is not None] or [1.0]
    if own:
        return Estimate(
            runs=runs,
            low=runs * min(own),
            high=runs * max(own),
            because=f"training of {len(own)} runs that finished; loading and scoring come on top",
        )
    if calibration is None:
        return Estimate(runs=runs, low=None, high=None, because="nothing was measured yet")
    steps = protocol.asked.steps
    each = [
        calibration.overhead_seconds + steps * calibration.step_seconds * pace for pace in paces
    ]
    return Estimate(
        runs=runs,
        low=runs * min(each),
        high=runs * max(each),
        because=f"{_STEPS} steps of {calibration.contestant}, and the published times of a step",
    )


def _yardstick(protocol: Protocol) -> Contestant:
    rest = protocol.contestants[1:]
    return next((each for each in rest if each.method == PLAIN and not each.variants), rest[0])

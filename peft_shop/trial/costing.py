"""What a trial will take: from its own finished runs, or from a few steps of plain LoRA."""

from __future__ import annotations

import hashlib
import json
import time
from typing import TYPE_CHECKING, Final

from pydantic import ValidationError

from peft_shop.errors import PeftShopError
from peft_shop.files import read_bounded, write_all, write_atomically
from peft_shop.records import Finite, Record, compact_json
from peft_shop.trial.halving import yardstick_of
from peft_shop.trial.records import Job
from peft_shop.trial.running import Running
from peft_shop.trial.stages import expected_jobs
from peft_shop.units import format_quantity

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from peft_shop.records import Json
    from peft_shop.trial.records import Contestant, Protocol
    from peft_shop.trial.results import Result

__all__ = [
    "Calibration",
    "Estimate",
    "RunTime",
    "calibrate",
    "calibration_of",
    "estimate",
    "patience",
    "run_time",
    "span",
]

CALIBRATION: Final = "calibration.json"
_PLACE: Final = "calibration"
_LEAST_PATIENCE: Final = 600.0
_STEPS: Final = 8
"""Of a calibration: three to warm up, five that count."""


class Calibration(Record):
    """What a few steps of one candidate took on this machine.

    Attributes:
        conditions: digest of what a step depends on.
        contestant: which candidate.
        step_seconds: median of a step.
        overhead_seconds: everything else of a run: starting, loading, scoring.
    """

    conditions: str
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


class RunTime(Record):
    """What one run takes, from the fastest candidate to the slowest.

    Attributes:
        low, high: time of a step [s].
        overhead: everything else of a run [s].
        because: where the times come from.
    """

    low: Finite
    high: Finite
    overhead: Finite
    because: str


def calibrate(folder: Path, protocol: Protocol, files: Mapping[str, bytes] | None = None) -> None:
    """Trains plain LoRA, or the first candidate, for a few steps, and keeps what that took.

    Args:
        folder: of the trial.
        protocol: of the trial.
        files: its data by name, where it is not frozen yet and its folder has none.

    Raises:
        PeftShopError: it did not train.
    """
    short = _short(protocol)
    others = tuple(each for each in protocol.contestants if each.name != short.name)
    quick = protocol.model_copy(update={"contestants": (*others, short)})
    job = Job(stage="rates", contestant=short.name, learning_rate=short.rates[0], seed=0)
    started = time.monotonic()
    place = folder
    if files is not None:
        place = folder / _PLACE
        (place / "data").mkdir(parents=True, exist_ok=True)
        write_all({place / name: content for name, content in files.items()})
    running = Running(place, quick, job, into=_PLACE)
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
        conditions=_conditions(protocol),
        contestant=short.name,
        step_seconds=result.measured.step_median_seconds,
        overhead_seconds=max(0.0, elapsed - result.measured.step_seconds),
    )
    write_atomically(folder / CALIBRATION, calibration.model_dump_json().encode())


def calibration_of(folder: Path, protocol: Protocol) -> Calibration | None:
    """What an earlier calibration under these conditions found; `None` without one.

    Other rates, seeds, steps and candidates are the same conditions.
    """
    try:
        content = read_bounded(folder / CALIBRATION, 65_536, "a calibration")
        calibration = Calibration.model_validate(json.loads(content))
    except (OSError, ValueError, ValidationError):
        return None
    return calibration if calibration.conditions == _conditions(protocol) else None


def patience(protocol: Protocol, calibration: Calibration | None) -> float | None:
    """Time after which a run hangs rather than trains [s]; `None` where nobody calibrated.

    Three times what the slowest candidate should take, and never less than ten minutes.
    """
    each = run_time(protocol, {}, calibration)
    if each is None:
        return None
    return max(_LEAST_PATIENCE, 3 * (each.overhead + protocol.asked.steps * each.high))


def run_time(
    protocol: Protocol, results: Mapping[str, Result], calibration: Calibration | None
) -> RunTime | None:
    """What one run takes on this machine; `None` where nothing was measured yet.

    The interval is that of the runs that finished, or else of the published times of a step among
    the candidates: methods differ.
    """
    own = [
        each.measured.step_seconds / protocol.asked.steps
        for each in results.values()
        if each.measured is not None and each.job.stage != "base"
    ]
    overhead = 0.0 if calibration is None else calibration.overhead_seconds
    if own:
        because = f"training of {len(own)} runs that finished"
        if calibration is None:
            because += "; loading and scoring come on top"
        return RunTime(low=min(own), high=max(own), overhead=overhead, because=because)
    if calibration is None:
        return None
    paces = [each.pace for each in protocol.contestants[1:] if each.pace is not None] or [1.0]
    return RunTime(
        low=min(paces) * calibration.step_seconds,
        high=max(paces) * calibration.step_seconds,
        overhead=overhead,
        because=f"{_STEPS} steps of {calibration.contestant}, and the published times of a step",
    )


def estimate(
    protocol: Protocol, results: Mapping[str, Result], calibration: Calibration | None
) -> Estimate:
    """What is left, with the times of this machine."""
    runs = max(0, expected_jobs(protocol, results) - len(results))
    each = run_time(protocol, results, calibration)
    if each is None:
        return Estimate(runs=runs, low=None, high=None, because="nothing was measured yet")
    steps = protocol.asked.steps
    return Estimate(
        runs=runs,
        low=runs * (each.overhead + steps * each.low),
        high=runs * (each.overhead + steps * each.high),
        because=each.because,
    )


def span(low: float, high: float) -> str:
    """An interval of time as people read it.

    Args:
        low: its lower end [s].
        high: its upper end [s].

    >>> span(90.0, 90.0), span(60.0, 7200.0)
    ('1.5 min', '1.0 min to 2.00 h')
    """
    ends = [format_quantity(each, "seconds") for each in (low, high)]
    return " to ".join(dict.fromkeys(ends))


def _short(protocol: Protocol) -> Contestant:
    """The yardstick with a few steps."""
    yardstick = yardstick_of(protocol)
    training = yardstick.recipe.training.model_copy(update={"max_steps": _STEPS})
    recipe = yardstick.recipe.model_copy(update={"training": training})
    return yardstick.model_copy(update={"recipe": recipe})


def _conditions(protocol: Protocol) -> str:
    """Digest of what a step depends on."""
    splits = (protocol.train, protocol.valid, protocol.test, protocol.general)
    parts: list[Json] = [
        dict(protocol.model_files),
        [split.sha256 for split in splits if split is not None],
        protocol.asked.scored_by,
        protocol.device,
        protocol.threads,
        dict(protocol.versions),
        _short(protocol).recipe.model_dump(mode="json"),
    ]
    return hashlib.sha256(compact_json(parts).encode()).hexdigest()

"""One run of a trial: a process of its own, how it ended, and the one file that says so."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pydantic import ValidationError

from peft_shop.catalog.runs import Provenance, Run
from peft_shop.files import read_bounded, write_all, write_atomically
from peft_shop.records import parse_json
from peft_shop.scripts.data import TRAIN_FILE
from peft_shop.scripts.script import snippet
from peft_shop.trial.halving import Briefing
from peft_shop.trial.keeping import drop, settle
from peft_shop.trial.measure import DIVERGED, HALF, HALVED, MEASURED
from peft_shop.trial.metrics import benchmark_of
from peft_shop.trial.results import Measured, Result

if TYPE_CHECKING:
    from peft_shop.records import Json
    from peft_shop.trial.records import Job, Protocol
    from peft_shop.trial.results import Outcome

__all__ = ["LOG", "RESULT", "Running", "script_of"]

ORDER: Final = "order.json"
SCRIPT: Final = "train.py"
LOG: Final = "log.txt"
RESULT: Final = "result.json"
_LARGEST: Final = 2**28
_LOG_END: Final = 30
_NO_MEMORY: Final = (
    "OutOfMemoryError",
    "MemoryError",
    "DefaultCPUAllocator: can't allocate memory",
    "CUDA out of memory",
)
_NO_SPACE: Final = ("No space left on device", "Disk quota exceeded", "File too large")
"""What a training says that could not write: no outcome of its candidate."""
_DEATH_SIGNAL: Final = 1
"""`PR_SET_PDEATHSIG`: what a process is sent when the one that started it ends."""
_GIVEN_UP: Final[dict[int, Outcome]] = {DIVERGED: "diverged", HALVED: "halved"}
"""Exit codes by which a meter says that it stopped the training itself."""
NOTHING_TOLD: Final = Briefing()
_SIGNALS: Final = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL}


def script_of(
    protocol: Protocol, job: Job, *, watch: str | None = None, train_file: Path | None = None
) -> str:
    """The training script of a job: the one that `snippet` prints, with a meter if `watch`.

    Args:
        protocol: what is equal for all.
        job: what to do.
        watch: file with the order to the meter.
        train_file: the examples, where they do not lie in the trial's own folder.

    Raises:
        ConfigError: no such script can train it.
    """
    contestant = protocol.contestant(job.contestant)
    recipe = job.recipe(protocol)
    if train_file is not None:
        options = {**recipe.training.options, TRAIN_FILE: str(train_file)}
        training = recipe.training.model_copy(update={"options": options})
        recipe = recipe.model_copy(update={"training": training})
    run = Run(
        benchmark=protocol.benchmark,
        experiment=contestant.name,
        created_at=protocol.frozen_at,
        method=contestant.method,
        variants=contestant.variants,
        metrics={},
        recipe=recipe,
        provenance=Provenance(
            source=protocol.benchmark,
            file=RESULT,
            packages=protocol.versions,
            accelerator=protocol.device,
            seed=job.seed,
        ),
    )
    return snippet(run, benchmark_of(protocol), watch=watch)


class Running:
    """A run whose process was started.

    Args:
        folder: of the trial.
        protocol: what is equal for all.
        job: what to do.
        briefing: what the training is told besides its recipe.
        timeout: after which the process is ended [s]; `None` for never.
        keep: whether the adapter stays beside the result.
        shared: whether others may run on its accelerator.
        into: folder of the runs inside the trial's.
    """

    def __init__(
        self,
        folder: Path,
        protocol: Protocol,
        job: Job,
        briefing: Briefing = NOTHING_TOLD,
        *,
        timeout: float | None = None,
        keep: bool = False,
        shared: bool = False,
        into: str = "runs",
    ) -> None:
        self.job = job
        self.id = job.id(protocol)
        self.place = folder / into / self.id
        self.started = time.monotonic()
        self._protocol = protocol
        self._timeout = timeout
        self._keep = keep
        self._shared = shared
        self._too_long = False
        self._kills = _memory_kills()
        self.place.mkdir(parents=True, exist_ok=True)
        for leftover in (self.place / MEASURED, self.place / HALF, self.place / RESULT):
            leftover.unlink(missing_ok=True)
        drop(self.place)
        order = {
            "test": str((folder / protocol.test.file).resolve()),
            "valid": str((folder / protocol.valid.file).resolve()),
            "general": (
                None
                if protocol.general is None
                else str((folder / protocol.general.file).resolve())
            ),
            "batch_size": protocol.asked.batch_size // protocol.accumulation,
            "steps": job.recipe(protocol).training.max_steps,
            "briefing": briefing.model_dump(mode="json"),
            "score": _score_order(folder, protocol),
        }
        path = self.place / ORDER
        script = script_of(
            protocol,
            job,
            watch=str(path.resolve()),
            train_file=(folder / protocol.train.file).resolve(),
        )
        write_all({path: json.dumps(order).encode(), self.place / SCRIPT: script.encode()})
        with (self.place / LOG).open("wb") as log:
            self.process = subprocess.Popen(  # noqa: S603 - the script was made here, from records
                [sys.executable, "-P", SCRIPT],
                cwd=self.place,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=_environment(protocol),
                preexec_fn=_die_with_parent,  # noqa: PLW1509 - one call of the C library
            )

    @property
    def over(self) -> bool:
        """Whether its process has ended; ends one that takes too long."""
        if self.process.poll() is not None:
            return True
        if self._timeout is not None and time.monotonic() - self.started > self._timeout:
            self._too_long = True
            self.stop()
            return True
        return False

    def stop(self) -> None:
        """Ends the process."""
        self.process.kill()
        self.process.wait()

    def result(self) -> Result | None:
        """How it ended, once on the disk; `None` where it was interrupted and has to run again.

        Raises:
            OSError: the disk refuses.
        """
        outcome, detail, measured = self._outcome()
        if outcome is None:
            return None
        result = Result(
            id=self.id,
            protocol=self._protocol.digest,
            job=self.job,
            outcome=outcome,
            detail=detail,
            measured=measured,
            half_valid_loss=self._half() if outcome == "halved" else None,
            shared=self._shared,
            created_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        )
        if self._keep and measured is not None:
            settle(self.place)
        else:
            drop(self.place)
        write_atomically(self.place / RESULT, result.model_dump_json().encode())
        for leftover in (MEASURED, HALF, ORDER):
            (self.place / leftover).unlink(missing_ok=True)
        return result

    def _outcome(self) -> tuple[Outcome | None, str, Measured | None]:
        """How it ended and why, and its figures; no outcome where it was interrupted."""
        if self._too_long:
            return "timeout", f"ended after {self._timeout:.0f} s", None
        if self.process.returncode == 0:
            try:
                content = read_bounded(self.place / MEASURED, _LARGEST, "a measurement")
                return "finished", "", Measured.model_validate_json(content)
            except (OSError, ValidationError) as error:
                return "failed", f"no measurement: {error}", None
        return *self._failure(self.process.returncode, self._log()), None

    def _failure(self, code: int, log: list[str]) -> tuple[Outcome | None, str]:
        """What became of a process that ended with `code`, and why.

        Raises:
            OSError: the disk refused what it wrote.
        """
        if code in _GIVEN_UP:
            return _GIVEN_UP[code], next(iter(log[-1:]), "")
        if any(sign in line for line in log for sign in _NO_SPACE):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.place))
        if any(sign in line for line in log for sign in _NO_MEMORY):
            return "out_of_memory", _last_step(log)
        if code == -signal.SIGKILL and _memory_kills() > self._kills:
            return "out_of_memory", f"the system ended it; {_last_step(log)}"
        if code < 0 and -code in _SIGNALS:
            return None, ""
        return "failed", "\n".join(log)

    def _half(self) -> float:
        """Validation loss of a run that was halved."""
        return float(parse_json(read_bounded(self.place / HALF, 1024, "a loss")))

    def _log(self) -> list[str]:
        """The last lines that it wrote."""
        with (self.place / LOG).open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 16_384))
            return file.read().decode(errors="replace").strip().splitlines()[-_LOG_END:]

    def progress(self) -> str:
        """Its last word."""
        return next(iter(self._log()[-1:]), "")


def _score_order(folder: Path, protocol: Protocol) -> dict[str, Json] | None:
    """What a judge is told; `None` where only the loss counts."""
    if protocol.score_metric is None:
        return None
    asked, code = protocol.asked, protocol.code
    order: dict[str, Json] = {
        "kind": asked.scored_by if code is None else "own",
        "max_new_tokens": asked.max_new_tokens,
        "stop": list(asked.stop),
        "max_length": asked.max_length,
        "chat": protocol.chat,
        "choices": list(protocol.choices),
        "labels": list(protocol.labels),
    }
    if code is not None:
        place = str((folder / code.file).resolve())
        order |= {"file": place, "sha256": code.sha256, "function": code.function}
    return order


def _last_step(log: list[str]) -> str:
    steps = [line for line in log if line.startswith("step ")]
    return f"after {steps[-1]}" if steps else "before the first step was over"


def _environment(protocol: Protocol) -> dict[str, str]:
    threads = str(protocol.threads)
    return {
        **os.environ,
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "PYTHONHASHSEED": "0",
        "PYTHONUNBUFFERED": "1",
    }


def _die_with_parent() -> None:
    """In the new process: it ends when the driver does, however that ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_DEATH_SIGNAL, signal.SIGKILL)


def _memory_kills() -> int:
    """Processes of this control group that the system has ended for want of memory."""
    try:
        content = read_bounded(Path("/sys/fs/cgroup/memory.events"), 65_536, "a counter").decode()
    except (OSError, ValueError):
        return 0
    fields = dict(line.split() for line in content.splitlines() if len(line.split()) == 2)
    return int(fields.get("oom_kill", 0))

"""The engine of a Ray cluster: a task starts the same process as on this machine does.

The driver owns the plan and the ledger. What travels is our own function, by name, and JSON: there
the job, the protocol and the examples, back the result. No disk is shared; the folder of the base
model lies at the same place on every machine.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from peft_shop.errors import MissingExtraError, PeftShopError
from peft_shop.files import read_bounded, write_atomically
from peft_shop.records import compact_json, parse_json
from peft_shop.trial.halving import Briefing
from peft_shop.trial.preparing import model_files, versions
from peft_shop.trial.records import Job, Protocol
from peft_shop.trial.results import Result
from peft_shop.trial.running import LOG, RESULT, Running

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from peft_shop.records import Json

__all__ = ["accelerator_of", "cluster", "train_there"]

_PAUSE: Final = 0.2
_RETRIES: Final = 2
"""Times that Ray starts a task again whose worker or machine was lost."""
_DATA_LIMIT: Final = 2**31
_LOG_LIMIT: Final = 2**28


@contextlib.contextmanager
def cluster(
    folder: Path,
    protocol: Protocol,
    *,
    address: str | None = None,
    timeout: float | None = None,
    within: float | None = None,
) -> Iterator[Callable[[Job, Briefing], Submitted]]:
    """Joins a cluster, and gives the function that begins a job there.

    Args:
        folder: of the trial.
        protocol: what is equal for all.
        address: of the cluster; `None` leaves it to Ray, which starts on this machine.
        timeout: after which a run is ended [s].
        within: time after which a task that still waits for its place trains nothing [s].

    Raises:
        MissingExtraError: ray is not installed.
        PeftShopError: there is no such cluster.
    """
    # nothing goes out of the user's network, unless the user has said so
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise MissingExtraError("ray", "ray", "the engine `ray`") from error
    try:
        ray.init(address=address, include_dashboard=False, log_to_driver=False)
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise PeftShopError(
            f"no Ray cluster at {address or 'this machine'}: {reason}; `ray start --head` starts "
            "one and prints its address; where it has a token, set RAY_AUTH_MODE=token"
        ) from error
    try:
        task = _task(ray, protocol)
        not_after = None if within is None else time.time() + within
        data = ray.put(_examples(folder, protocol))
        whole = protocol.model_dump(mode="json")

        def start(job: Job, briefing: Briefing) -> Submitted:
            order = {
                "protocol": whole,
                "job": job.model_dump(mode="json"),
                "briefing": briefing.model_dump(mode="json"),
                "timeout": timeout,
                "not_after": not_after,
            }
            return Submitted(folder, protocol, job, task.remote(compact_json(order), data))

        yield start
    finally:
        ray.shutdown()


class Submitted:
    """A run that was given to the cluster.

    Args:
        folder: of the trial.
        protocol: what is equal for all.
        job: what to do.
        reference: of the task's answer.
    """

    def __init__(self, folder: Path, protocol: Protocol, job: Job, reference: Any) -> None:
        self.job = job
        self.id = job.id(protocol)
        self.place = folder / "runs" / self.id
        self._protocol = protocol
        self._reference = reference

    @property
    def over(self) -> bool:
        """Whether the task has answered, or was lost for good."""
        import ray

        ready, _ = ray.wait([self._reference], timeout=0)
        return bool(ready)

    def stop(self) -> None:
        """Ends the task and what it started."""
        import ray

        ray.cancel(self._reference, force=True)

    def result(self) -> Result | None:
        """How it ended, once on the disk; `None` where it has to run again.

        Raises:
            PeftShopError: the task was lost, or its machine is not like the protocol's.
            OSError: the disk refuses.
        """
        import ray

        try:
            answer = parse_json(ray.get(self._reference).encode())
        except ray.exceptions.RayError as error:
            reason = next(iter(str(error).strip().splitlines()[-1:]), type(error).__name__)
            raise PeftShopError(
                f"{self.id}: the cluster lost it {_RETRIES + 1} times: {reason}; what had ended "
                "is kept, run it again to go on"
            ) from error
        if answer["problem"] is not None:
            raise PeftShopError(f"{self.id}: {answer['problem']}")
        if answer["result"] is None:
            return None
        result = Result.model_validate_json(answer["result"])
        if (result.id, result.protocol) != (self.id, self._protocol.digest):
            raise PeftShopError(f"{self.id}: the cluster answered with {result.id}")
        self.place.mkdir(parents=True, exist_ok=True)
        write_atomically(self.place / LOG, answer["log"].encode())
        write_atomically(self.place / RESULT, answer["result"].encode())
        return result

    def progress(self) -> str:
        """Its last word."""
        return "given to the cluster"


def train_there(order: str, data: str) -> str:
    """The task: trains one run on the machine where it finds itself.

    Args:
        order: JSON object: `protocol`, `job`, `briefing`, `timeout`, `not_after`.
        data: JSON object: content of the files of examples by name.

    Returns:
        JSON object: `result` (the content of the result file, or null where it has to run again),
        `log`, and `problem`, why this machine cannot take part, or null.
    """
    ordered = parse_json(order.encode())
    protocol = Protocol.model_validate(ordered["protocol"])
    job = Job.model_validate(ordered["job"])
    answer: dict[str, Json] = {"result": None, "log": "", "problem": _difference(protocol)}
    late = ordered["not_after"] is not None and time.time() > ordered["not_after"]
    if late or answer["problem"] is not None:
        return compact_json(answer)
    with tempfile.TemporaryDirectory(prefix="peft-shop-trial-") as scratch:
        folder = Path(scratch)
        (folder / "data").mkdir()
        for name, content in parse_json(data.encode()).items():
            (folder / name).write_bytes(content.encode())
        running = Running(
            folder,
            protocol,
            job,
            Briefing.model_validate(ordered["briefing"]),
            timeout=ordered["timeout"],
        )
        try:
            while not running.over:
                time.sleep(_PAUSE)
        finally:
            running.stop()
        result = running.result()
        if result is not None:
            answer["result"] = result.model_dump_json()
        log = read_bounded(running.place / LOG, _LOG_LIMIT, "a log")
        answer["log"] = log.decode(errors="replace")
    return compact_json(answer)


def accelerator_of(device: str, known: dict[str, str]) -> str | None:
    """Ray's name of an accelerator, from the name that torch has for it.

    Args:
        device: such as `NVIDIA A100-SXM4-80GB`.
        known: Ray's names by the names of its constants.

    >>> accelerator_of("NVIDIA A100-SXM4-80GB", {"A": "A100", "B": "H100"})
    'A100'
    >>> accelerator_of("NVIDIA GeForce RTX 4090", {"A": "A100"}) is None
    True
    """
    words = set(device.replace("-", " ").split())
    return next((name for name in sorted(known.values(), key=len) if name in words), None)


def _task(ray: Any, protocol: Protocol) -> Any:
    """The task with what it needs: one accelerator of the protocol's kind, or processors alone."""
    needs: dict[str, Any] = {"num_cpus": protocol.threads, "num_gpus": 0}
    if protocol.device != "cpu":
        names = vars(ray.util.accelerators.accelerators)
        known = {key: name for key, name in names.items() if key.isupper() and str(name) == name}
        needs |= {"num_gpus": 1, "accelerator_type": accelerator_of(protocol.device, known)}
    return ray.remote(max_calls=1, max_retries=_RETRIES, **needs)(train_there)


def _examples(folder: Path, protocol: Protocol) -> str:
    """The files of examples and the score function as one JSON object, content by name."""
    splits = (protocol.train, protocol.valid, protocol.test, protocol.general)
    names = [split.file for split in splits if split is not None]
    names += [] if protocol.code is None else [protocol.code.file]
    files = {name: read_bounded(folder / name, _DATA_LIMIT, "examples").decode() for name in names}
    return compact_json(files)


def _difference(protocol: Protocol) -> str | None:
    """Why a run on this machine would not be under equal conditions; `None` where it is."""
    now = versions()
    for package, then in protocol.versions.items():
        if now.get(package) != then:
            return (
                f"the trial began with {package} {then}, a machine of the cluster has "
                f"{now.get(package, 'none')}"
            )
    model = Path(protocol.asked.model)
    if model_files(model) != protocol.model_files:
        return f"{model}: a machine of the cluster has other files there than the trial began with"
    return None

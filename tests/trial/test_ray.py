"""Ray: what it gives is what this machine gives, whoever is killed meanwhile."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from peft_shop.errors import MissingExtraError, QueryError, UnknownNameError
from peft_shop.records import compact_json
from peft_shop.trial.engines import opened
from peft_shop.trial.ledger import events
from peft_shop.trial.ray import accelerator_of, train_there
from peft_shop.trial.records import BASE, Job
from peft_shop.trial.results import Result
from peft_shop.trial.trial import Trial

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import SimpleNamespace

ray_is_there = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="pip install 'peft-shop[ray]'"
)
TIMES = ("step_seconds", "step_median_seconds", "cpu_seconds")


def test_without_ray_the_install_command_is_told(
    made: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with (
        pytest.raises(MissingExtraError, match=r"pip install 'peft-shop\[ray\]'"),
        opened("ray", tmp_path, made.protocol()),
    ):
        pass


def test_an_engine_is_known_and_only_a_cluster_has_an_address(
    made: SimpleNamespace, tmp_path: Path
) -> None:
    with pytest.raises(UnknownNameError, match="ray"), opened("rey", tmp_path, made.protocol()):
        pass
    with (
        pytest.raises(QueryError, match="address"),
        opened("local", tmp_path, made.protocol(), address="auto"),
    ):
        pass


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"versions": {"peft": "0.0.1"}}, "peft 0.0.1"),
        ({"versions": {}}, "other files"),
        ({"versions": {}, "model_files": {}}, None),
    ],
)
def test_a_machine_that_is_not_like_the_protocol_takes_no_part(
    made: SimpleNamespace, tmp_path: Path, change: dict[str, object], says: str | None
) -> None:
    protocol = made.protocol()
    asked = protocol.asked.model_copy(update={"model": str(tmp_path)})
    protocol = protocol.model_copy(update={"asked": asked, **change})
    order = {
        "protocol": protocol.model_dump(mode="json"),
        "job": Job(stage="base", contestant=BASE, learning_rate=0, seed=0).model_dump(mode="json"),
        "briefing": {},
        "timeout": None,
        "not_after": 0.0,  # long ago: nothing is trained
    }
    answer = json.loads(train_there(compact_json(order), "{}"))
    assert answer["result"] is None
    if says is None:
        assert answer["problem"] is None
    else:
        assert says in answer["problem"]


@pytest.mark.parametrize(
    ("device", "name"),
    [("NVIDIA A100-SXM4-80GB", "A100"), ("Tesla T4", "T4"), ("NVIDIA GeForce RTX 4090", None)],
)
def test_an_accelerator_has_the_name_that_ray_knows(device: str, name: str | None) -> None:
    known = {"NVIDIA_TESLA_A100": "A100", "NVIDIA_TESLA_T4": "T4", "OTHER": "A100-80G"}
    assert accelerator_of(device, known) == name


WITHOUT_TOKEN = {**os.environ, "RAY_AUTH_MODE": "disabled"}
"""The environment of a cluster, and of who joins it: no token of the home folder is asked for."""


def started(folder: Path) -> tuple[subprocess.Popen[bytes], str] | None:
    """A cluster's head and its address; `None` where it gave up, as it does on a busy machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    told = folder / f"head-{port}.txt"
    options = ["--num-cpus=2", "--include-dashboard=false", "--disable-usage-stats"]
    with told.open("wb") as log:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"),
                *("--node-ip-address=127.0.0.1", f"--port={port}", *options),
            ],
            stdout=log,
            stderr=log,
            start_new_session=True,
            env=WITHOUT_TOKEN,
        )
    deadline = time.monotonic() + 90
    while "Ray runtime started" not in told.read_text(errors="replace"):
        if process.poll() is not None or time.monotonic() > deadline:
            ended(process)
            return None
        time.sleep(0.2)
    return process, f"127.0.0.1:{port}"


def ended(process: subprocess.Popen[bytes]) -> None:
    """Ends a head and all that it started."""
    process.terminate()
    try:
        process.wait(60)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


@pytest.fixture
def head(tmp_path: Path) -> Iterator[str]:
    """Address of a cluster of this machine, that is gone afterwards."""
    running = started(tmp_path) or started(tmp_path)
    assert running is not None, [path.read_text() for path in tmp_path.glob("head-*.txt")]
    process, address = running
    yield address
    ended(process)


def created(tiny: Path, folder: Path) -> Trial:
    return Trial.create(
        folder,
        model=tiny / "model",
        train=tiny / "train.jsonl",
        candidates=("lora", "miss"),
        steps=4,
        max_length=32,
        batch_size=4,
        rates=1,
        seeds=1,
    )


def driver(folder: Path, address: str) -> subprocess.Popen[bytes]:
    words = ["trial", "run", str(folder), "--engine", "ray", "--address", address]
    with (folder / "driver.txt").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "peft_shop", *words],
            stdout=log,
            stderr=log,
            start_new_session=True,
            env=WITHOUT_TOKEN,
        )


def measured(folder: Path) -> dict[str, object]:
    """Figures of every run by what was done, without times."""
    figures = {}
    for path in (folder / "runs").glob("*/result.json"):
        result = Result.model_validate_json(path.read_bytes())
        assert result.measured is not None, result.detail
        figures[result.job.model_dump_json()] = result.measured.model_dump(exclude=set(TIMES))
    return figures


def ancestors(pid: int) -> list[int]:
    """Processes above one, the nearest first."""
    found = []
    while pid > 1:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
        pid = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("PPid:"))
        found.append(pid)
    return found


def trainings() -> list[int]:
    """Processes that train a run that was given to a cluster."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if "/peft-shop-trial-" in str((entry / "cwd").readlink()):
                found.append(int(entry.name))
    return found


def eventually(happens: Callable[[], object], within: float = 240) -> None:
    deadline = time.monotonic() + within
    while not happens():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.slow
@ray_is_there
def test_a_cluster_measures_what_this_machine_does_whoever_is_killed(
    tiny: Path, tmp_path: Path, head: str
) -> None:
    local = created(tiny, tmp_path / "local" / "t")
    there = created(tiny, tmp_path / "there" / "t")
    assert not local.run(slots=2).failed
    # a worker is killed: Ray starts its task again, and the driver hears nothing of it
    running = driver(there.folder, head)
    eventually(lambda: trainings() or running.poll() is not None)
    assert running.poll() is None, (there.folder / "driver.txt").read_text()
    worker = ancestors(trainings()[0])[0]
    os.kill(worker, signal.SIGKILL)
    eventually(lambda: len(list((there.folder / "runs").glob("*/result.json"))) >= 1)
    assert not [event for event in events(there.folder) if event["event"] == "interrupted"]
    # the driver is killed: nothing trains on, and another one finishes what is left
    eventually(trainings)
    running.kill()
    running.wait()
    eventually(lambda: not trainings(), within=30)
    done = {path: path.stat().st_mtime_ns for path in there.folder.glob("runs/*/result.json")}
    assert driver(there.folder, head).wait(400) == 0, (there.folder / "driver.txt").read_text()
    assert {path: path.stat().st_mtime_ns for path in done} == done
    assert measured(there.folder) == measured(local.folder)
    assert len(measured(there.folder)) == 1 + 2 + 2
    assert trainings() == []

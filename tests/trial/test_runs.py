"""Real trainings in processes of their own: what they are, how they end, and what kills them."""

from __future__ import annotations

import functools
import itertools
import json
import math
import os
import random
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from peft_shop import recommend
from peft_shop.catalog.export import dump
from peft_shop.trial import running
from peft_shop.trial.records import Job
from peft_shop.trial.running import Running, script_of
from peft_shop.trial.stages import every_job
from peft_shop.trial.trial import Trial

if TYPE_CHECKING:
    from peft_shop.trial.records import Protocol
    from peft_shop.trial.results import Result
    from peft_shop.trial.status import Status

pytestmark = pytest.mark.slow

STEPS = 5


def trial(tiny: Path, folder: Path, *candidates: str, **settings: Any) -> Trial:
    usual = {"steps": STEPS, "max_length": 32, "rates": 1, "seeds": 2, "batch_size": 4}
    return Trial.create(
        folder,
        model=tiny / "model",
        train=tiny / "train.jsonl",
        general=tiny / "general.txt",
        candidates=candidates,
        **{**usual, **settings},
    )


def job_of(protocol: Protocol, name: str) -> Job:
    contestant = protocol.contestant(name)
    return Job(stage="rates", contestant=name, learning_rate=contestant.rates[0], seed=0)


def ended(run: Running, *, within: float = 240) -> Result | None:
    deadline = time.monotonic() + within
    while not run.over:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return run.result()


def losses(run: Running) -> list[float]:
    log = (run.place / "log.txt").read_text(encoding="utf-8", errors="replace")
    return [float(loss) for loss in re.findall(r"^step \d+ loss (\S+)$", log, re.MULTILINE)]


def test_what_a_snippet_trains_is_what_was_measured(tiny: Path, tmp_path: Path) -> None:
    asked = trial(tiny, tmp_path / "t", "lora", "lora-fa", "riemannian", "adalora", "prompt_tuning")
    protocol = asked.freeze()
    optimizers = {each.recipe.training.optimizer for each in protocol.contestants[1:]}
    assert len(optimizers) >= 3, protocol.left_out
    for contestant in protocol.contestants[1:]:
        job = job_of(protocol, contestant.name)
        run = Running(asked.folder, protocol, job)
        result = ended(run)
        assert result is not None
        assert result.outcome == "finished", result.detail
        script = f"{script_of(protocol, job)}\nprint('last', repr(loss.item()))\n"
        plain = subprocess.run(
            [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        assert float(plain.stdout.split()[-1]) == pytest.approx(losses(run)[-1], abs=1e-6)
        assert len(losses(run)) == STEPS


def test_every_way_to_fail_is_an_outcome(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = trial(tiny, tmp_path / "t", "lora", "miss")
    protocol = asked.freeze()
    job = job_of(protocol, protocol.contestants[1].name)
    wild = job.model_copy(update={"learning_rate": 1e6})
    result = ended(Running(asked.folder, protocol, wild))
    assert result is not None
    assert result.outcome == "diverged", result.detail
    assert "loss" in result.detail

    result = ended(Running(asked.folder, protocol, job, timeout=0.2))
    assert result is not None
    assert result.outcome == "timeout"

    interrupted = Running(asked.folder, protocol, job)
    interrupted.process.send_signal(signal.SIGTERM)
    assert ended(interrupted) is None
    assert not (interrupted.place / "result.json").exists()

    full = "raise OSError(28, 'No space left on device')\n"
    monkeypatch.setattr(running, "script_of", lambda *_, **__: full)
    refused = Running(asked.folder, protocol, job)
    with pytest.raises(OSError, match="No space"):
        ended(refused)
    assert not (refused.place / "result.json").exists()

    # what the system ends for want of memory, as the counter of its control group tells
    patient = "import time\ntime.sleep(60)\n"
    monkeypatch.setattr(running, "script_of", lambda *_, **__: patient)
    counter = itertools.count()
    monkeypatch.setattr(running, "_memory_kills", lambda: next(counter))
    ended_by_system = Running(asked.folder, protocol, job)
    ended_by_system.process.kill()
    result = ended(ended_by_system)
    assert result is not None
    assert result.outcome == "out_of_memory"

    aborting = "import os\nos.abort()\n"
    monkeypatch.setattr(running, "script_of", lambda *_, **__: aborting)
    result = ended(Running(asked.folder, protocol, job))
    assert result is not None
    assert result.outcome == "failed"

    hungry = "import torch\ntorch.ones(2**36)\n"
    monkeypatch.setattr(running, "script_of", lambda *_, **__: hungry)
    monkeypatch.setattr(running, "_die_with_parent", _little_memory)
    result = ended(Running(asked.folder, protocol, job))
    assert result is not None
    assert result.outcome == "out_of_memory", result.detail


def _little_memory() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (8 * 2**30, 8 * 2**30))


def timeless(folder: Path) -> str:
    """The trial's catalog without what differs from one time to the next."""
    text = dump(Trial(folder).catalog).decode()
    own = json.loads(text)
    runs = [run for run in own["runs"] if run["benchmark"] == own["benchmarks"][0]["id"]]
    for run in runs:
        run["created_at"] = ""
        for name in ("cpu_seconds", "step_seconds"):
            run["metrics"].pop(name, None)
    return json.dumps([own["benchmarks"][0], runs, own["noise"]], sort_keys=True)


def test_twenty_kills_change_nothing(tiny: Path, tmp_path: Path) -> None:
    settings = {"seeds": 3, "steps": 3}
    straight = trial(tiny, tmp_path / "straight" / "t", "lora", "miss", **settings)
    assert not straight.run().failed
    # the order of candidates changes nothing either
    killed = trial(tiny, tmp_path / "killed" / "t", "miss", "lora", **settings)
    draw = random.Random(0)
    command = [sys.executable, "-m", "peft_shop", "trial", "run", str(killed.folder)]
    for _ in range(20):
        driver = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        time.sleep(draw.uniform(3, 14))
        if draw.random() < 0.4:  # the training alone: its driver starts it again
            for pid in trainings(killed.folder):
                os.kill(pid, signal.SIGKILL)
            time.sleep(draw.uniform(0, 3))
        driver.kill()
        driver.wait()
    time.sleep(5)
    assert trainings(killed.folder) == {}
    done = {path.parent.name: path.stat().st_mtime_ns for path in results(killed.folder)}
    last = subprocess.run(command, capture_output=True, text=True, check=False)
    assert last.returncode == 0, last.stderr
    again = {path.parent.name: path.stat().st_mtime_ns for path in results(killed.folder)}
    assert {name: again[name] for name in done} == done, "a run was measured twice"
    where = {str(tmp_path / name): "" for name in ("straight", "killed")}
    texts = [timeless(straight.folder), timeless(killed.folder)]
    for old in where:
        texts = [text.replace(old, "") for text in texts]
    digests = [re.sub(r"[0-9a-f]{64}|--[0-9a-f]{8}", "", text) for text in texts]
    assert digests[0] == digests[1]


def results(folder: Path) -> list[Path]:
    return sorted((folder / "runs").glob("*/result.json"))


def trainings(folder: Path) -> dict[int, str]:
    """Processes that work in the folder of a run, with that folder."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            place = str((entry / "cwd").readlink())
        except OSError:  # it ended meanwhile, or is not ours
            continue
        if place.startswith(str(folder)):
            found[int(entry.name)] = place
    return found


def test_what_fails_leaves_the_rest_alone(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = trial(tiny, tmp_path / "t", "lora", "miss", "vera", "xlora", seeds=1)
    protocol = asked.freeze()
    assert "it needs" in protocol.left_out["xlora"]
    broken = {"miss": "import os\nos.abort()\n", "vera": "import torch\ntorch.ones(2**45)\n"}

    def script(protocol: Protocol, job: Job, **options: Any) -> str:
        method = protocol.contestant(job.contestant).method
        return broken.get(method) or script_of(protocol, job, **options)

    monkeypatch.setattr(running, "script_of", script)
    status = asked.run()
    assert status.complete
    outcomes = {
        (protocol.contestant(each.job.contestant).method, each.job.stage): each.outcome
        for each in asked.results().values()
    }
    assert outcomes == {
        ("full_finetuning", "base"): "finished",
        ("lora", "rates"): "finished",
        ("lora", "seeds"): "finished",
        ("miss", "rates"): "failed",
        ("vera", "rates"): "out_of_memory",
    }
    assert {each.outcome for each in status.failed} == {"failed", "out_of_memory"}
    told = " ".join(asked.catalog.benchmarks[0].caveats)
    assert "failed: runs of miss" in told
    assert "out of memory: runs of vera" in told


def test_a_full_disk_loses_nothing(tiny: Path, tmp_path: Path) -> None:
    asked = trial(tiny, tmp_path / "t", "lora", seeds=1)
    asked.freeze()
    command = [sys.executable, "-m", "peft_shop", "trial", "run", str(asked.folder)]
    done: dict[Path, int] = {}
    # the first cannot write a script, the second no catalog
    for size, ended in ((1000, 0), (200_000, 1), (200_000, 2)):
        full = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            preexec_fn=functools.partial(
                resource.setrlimit, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY)
            ),
        )
        assert full.returncode == 2, full.stderr
        assert re.search(r"error: \S*/t\b\S*: .*; what had ended is kept", full.stderr)
        now = {path: path.stat().st_mtime_ns for path in results(asked.folder)}
        assert len(now) == ended
        assert now.items() >= done.items()
        done = now
    last = subprocess.run(command, capture_output=True, text=True, check=False)
    assert last.returncode == 0, last.stderr
    assert {path: path.stat().st_mtime_ns for path in done} == done
    assert asked.status().complete


def test_a_broken_result_is_put_aside_and_done_again(tiny: Path, tmp_path: Path) -> None:
    asked = trial(tiny, tmp_path / "t", "lora", seeds=1)
    asked.run()
    broken, foreign, *_ = results(asked.folder)
    broken.write_text(broken.read_text(encoding="utf-8")[:-40], encoding="utf-8")
    other = json.loads(foreign.read_text(encoding="utf-8")) | {"protocol": "0" * 64}
    foreign.write_text(json.dumps(other), encoding="utf-8")
    assert asked.status().done == 1
    asked.run()
    assert asked.status().complete
    assert broken.with_suffix(".bad").exists()
    assert foreign.with_suffix(".bad").exists()


def check_adapters(asked: Trial, status: Status) -> None:
    """Each candidate has the adapter of its best seed, whole, and nobody else has any."""
    results = asked.results()
    assert {str(path.relative_to(asked.folder)) for path in asked.folder.rglob("adapter*/")} == set(
        status.adapters
    )
    assert asked.status().adapters == status.adapters
    for name in (each.name for each in status.candidates if each.name != "full_finetuning"):
        seeds = [
            each
            for each in results.values()
            if each.job.contestant == name and each.job.stage == "seeds"
        ]
        best = min(seeds, key=lambda each: each.measured.valid_loss)
        place = asked.folder / "runs" / best.id / "adapter"
        assert [each.id for each in seeds if f"runs/{each.id}/adapter" in status.adapters] == [
            best.id
        ]
        size = sum(file.stat().st_size for file in place.rglob("*.safetensors"))
        assert size == best.measured.checkpoint_bytes
        assert not list(place.rglob("*.bin"))
        config = json.loads((place / "adapter_config.json").read_text(encoding="utf-8"))
        assert config["peft_type"] == asked.protocol.contestant(name).recipe.peft_type


def test_from_a_file_to_a_front(tiny: Path, tmp_path: Path) -> None:
    asked = trial(
        tiny,
        tmp_path / "t",
        "lora",
        "miss",
        "vera",
        rates=2,
        steps=40,
        full_finetuning=True,
    )
    status = asked.run(slots=2, share=True, keep="best")
    assert not status.failed, status.failed
    assert all(each.shared for each in asked.results().values())
    assert not any("cpu_seconds" in each.metrics for each in asked.runs)
    check_adapters(asked, status)
    answer = recommend(catalog=asked, peft_version="any")
    assert answer.benchmark.id == asked.protocol.benchmark
    for candidate in status.candidates:
        assert candidate.test_loss < status.base_test_loss, candidate
    by_name = {candidate.name: candidate for candidate in status.candidates}
    assert by_name["full_finetuning"].test_loss is not None
    lora = next(name for name in by_name if name.startswith("lora/"))
    forgetting = [
        run.metrics["forgetting"]
        for run in sorted(asked.runs, key=lambda run: run.recipe.training.learning_rate)
        if run.experiment.startswith(f"{lora}-lr")
    ]
    # a random base has nothing to forget: a higher rate moves its loss further all the same
    assert abs(forgetting[0]) < abs(forgetting[-1])
    frame = asked.to_frame()
    assert len(frame) == len(asked.runs)
    assert all(map(math.isfinite, frame["test_loss"]))
    assert {job.id(asked.protocol) for job in every_job(asked.protocol, asked.results())} == set(
        asked.results()
    )

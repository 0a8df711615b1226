"""What the engine asks of Ray and makes of its answers, with a stand-in for Ray."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from peft_shop.errors import PeftShopError
from peft_shop.records import compact_json
from peft_shop.trial import driver
from peft_shop.trial.driver import drive
from peft_shop.trial.engines import opened
from peft_shop.trial.outcomes import read_results
from peft_shop.trial.records import Job, Protocol
from peft_shop.trial.stages import expected_jobs

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class LostError(Exception):
    """Whatever Ray says of a task that it lost."""


class Ray(SimpleNamespace):
    """The functions of Ray that the engine calls; a task runs when its answer is asked for."""

    def __init__(self) -> None:
        kinds = SimpleNamespace(NVIDIA_TESLA_T4="T4", NVIDIA_H100="H100", AMD="A100-80G", other="x")
        super().__init__(
            exceptions=SimpleNamespace(RayError=LostError),
            util=SimpleNamespace(accelerators=SimpleNamespace(accelerators=kinds)),
        )
        self.refuses: Exception | None = None
        self.needs: dict[str, Any] = {}
        self.sent: list[object] = []
        self.cancelled: list[object] = []
        self.open = False
        self.instead: Callable[[str, str], str] | None = None
        """What a task does instead of training."""

    def init(self, **options: object) -> None:
        if self.refuses is not None:
            raise self.refuses
        assert options["log_to_driver"] is False
        self.open = True

    def put(self, value: object) -> object:
        self.sent.append(value)
        return value

    def remote(self, **needs: object) -> Callable[[Any], SimpleNamespace]:
        self.needs = needs

        def submitted(task: Any) -> SimpleNamespace:
            def remote(order: str, data: str) -> Callable[[], str]:
                self.sent.append(order)
                return lambda: (self.instead or task)(order, data)

            return SimpleNamespace(remote=remote)

        return submitted

    def wait(self, references: list[Any], *, timeout: float) -> tuple[list[Any], list[Any]]:
        assert timeout == 0
        return references, []

    def get(self, reference: Callable[[], str]) -> str:
        return reference()

    def cancel(self, reference: object, *, force: bool) -> None:
        assert force
        self.cancelled.append(reference)

    def shutdown(self) -> None:
        self.open = False


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> Ray:
    stand_in = Ray()
    monkeypatch.setitem(sys.modules, "ray", stand_in)
    monkeypatch.setattr(driver, "_PAUSE", 0)
    return stand_in


def folder_of(protocol: Protocol, place: Path) -> Path:
    (place / "data").mkdir()
    for split in (protocol.train, protocol.valid, protocol.test):
        (place / split.file).write_text('{"prompt": "q", "completion": "ä"}\n', encoding="utf-8")
    return place


def answer(result: str | None = None, problem: str | None = None) -> str:
    return compact_json({"result": result, "log": "step 1 loss 2\n", "problem": problem})


def test_all_goes_through_the_cluster(made: SimpleNamespace, tmp_path: Path, ray: Ray) -> None:
    protocol = made.protocol()
    folder = folder_of(protocol, tmp_path)

    def train(order: str, data: str) -> str:
        asked = json.loads(order)
        assert Protocol.model_validate(asked["protocol"]).digest == protocol.digest
        assert json.loads(data) == {"data/train.jsonl": '{"prompt": "q", "completion": "ä"}\n'}
        job = Job.model_validate(asked["job"])
        known = None if job.stage == "base" else 2.0
        assert asked["briefing"]["base_valid_loss"] == known
        assert asked["timeout"] == 60
        return answer(made.result(protocol, job, made.measured(2.0)).model_dump_json())

    ray.instead = train
    results: dict[str, Any] = {}
    with opened("ray", folder, protocol, address="auto", timeout=60, within=None) as start:
        drive(folder, protocol, results, start, slots=None)
    assert len(results) == expected_jobs(protocol, results)
    assert read_results(folder, protocol) == results
    assert all((folder / "runs" / name / "log.txt").read_text() for name in results)
    assert ray.needs == {"num_cpus": 1, "num_gpus": 0, "max_calls": 1, "max_retries": 2}
    # nothing but text travels
    assert all(isinstance(sent, str) for sent in ray.sent)
    assert not ray.open


@pytest.mark.parametrize(
    ("device", "kind"), [("NVIDIA H100 80GB HBM3", "H100"), ("NVIDIA GeForce RTX 4090", None)]
)
def test_a_task_has_one_accelerator_of_the_kind_of_the_trial(
    made: SimpleNamespace, tmp_path: Path, ray: Ray, device: str, kind: str | None
) -> None:
    protocol = made.protocol().model_copy(update={"device": device, "threads": 4})
    with opened("ray", folder_of(protocol, tmp_path), protocol):
        pass
    wanted = {"num_cpus": 4, "num_gpus": 1, "accelerator_type": kind}
    assert {name: ray.needs[name] for name in wanted} == wanted


@pytest.mark.parametrize(
    ("ends", "says"),
    [
        ("problem", "a machine of the cluster has other files"),
        ("lost", "the cluster lost it 3 times: its worker died"),
        ("other", "the cluster answered with lora-a--"),
    ],
)
def test_what_cannot_count_stops_the_driver(
    made: SimpleNamespace,
    tmp_path: Path,
    ray: Ray,
    ends: str,
    says: str,
) -> None:
    protocol = made.protocol()
    folder = folder_of(protocol, tmp_path)
    other = Job(stage="rates", contestant="lora/a", learning_rate=0.0001, seed=0)

    def train(order: str, data: str) -> str:
        if ends == "lost":
            raise LostError("a long story\nits worker died")
        if ends == "problem":
            return answer(problem="m: a machine of the cluster has other files there")
        return answer(made.result(protocol, other, made.measured(2.0)).model_dump_json())

    ray.instead = train
    with (
        pytest.raises(PeftShopError, match=says),
        opened("ray", folder, protocol) as start,
    ):
        drive(folder, protocol, {}, start, slots=None)
    assert read_results(folder, protocol) == {}
    assert not ray.open


@pytest.mark.parametrize("kind", [ConnectionError, LostError])
def test_a_cluster_that_does_not_answer_is_named(
    made: SimpleNamespace, tmp_path: Path, ray: Ray, kind: type[Exception]
) -> None:
    ray.refuses = kind("nobody answers\nthere")
    with (
        pytest.raises(PeftShopError, match=r"no Ray cluster at h:6379: nobody answers; `ray start"),
        opened("ray", tmp_path, made.protocol(), address="h:6379"),
    ):
        pass

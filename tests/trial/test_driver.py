"""The driver starts, waits, tries again and stops, whatever engine it has."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import subprocess
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest

from peft_shop.errors import InputError, PeftShopError, QueryError
from peft_shop.trial import driver
from peft_shop.trial.asking import asked_of, write_asked
from peft_shop.trial.driver import drive
from peft_shop.trial.engines import demand_exclusive, opened
from peft_shop.trial.halving import Briefing
from peft_shop.trial.ledger import events
from peft_shop.trial.stages import expected_jobs, next_jobs, stages_until
from peft_shop.trial.trial import Trial

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import SimpleNamespace

    from peft_shop.trial.records import Job, Protocol
    from peft_shop.trial.results import Result


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "_PAUSE", 0)


class Engine:
    """Runs that end at the second look, as a script says."""

    def __init__(
        self, protocol: Protocol, ends: Callable[[Job, int], Result | BaseException | None]
    ) -> None:
        self.protocol, self.ends = protocol, ends
        self.active: list[Attempt] = []
        self.most = 0
        self.times: Counter[str] = Counter()

    def __call__(self, job: Job, _: object) -> Attempt:
        attempt = Attempt(self, job)
        self.active.append(attempt)
        self.most = max(self.most, len(self.active))
        self.times[attempt.id] += 1
        return attempt


class Attempt:
    def __init__(self, engine: Engine, job: Job) -> None:
        self.engine, self.job, self.looks = engine, job, 0
        self.id = job.id(engine.protocol)

    @property
    def over(self) -> bool:
        self.looks += 1
        return self.looks > 1

    def stop(self) -> None:
        self.engine.active.remove(self)

    def result(self) -> Result | None:
        self.engine.active.remove(self)
        ended = self.engine.ends(self.job, self.engine.times[self.id])
        if isinstance(ended, BaseException):
            raise ended
        return ended

    def progress(self) -> str:
        return "step 1"


def finished(made: SimpleNamespace, protocol: Protocol) -> Callable[[Job, int], Any]:
    return lambda job, _: made.result(protocol, job, made.measured(2.0))


@pytest.mark.parametrize("slots", [1, 3, None])
def test_all_is_done_once_within_the_slots(
    made: SimpleNamespace, tmp_path: Path, slots: int | None
) -> None:
    protocol = made.protocol()
    engine = Engine(protocol, finished(made, protocol))
    results: dict[str, Result] = {}
    told: list[tuple[int, int, str]] = []
    ended: list[Result] = []
    drive(
        *(tmp_path, protocol, results, engine),
        slots=slots,
        tell=lambda *words: told.append(words),
        ended=ended.append,
    )
    assert next_jobs(protocol, results) == []
    assert len(results) == expected_jobs(protocol, results) == len(ended)
    assert set(engine.times.values()) == {1}
    assert engine.most <= (slots or 10**9)
    assert slots == 1 or engine.most > 1
    assert told[-1][0] == len(results)
    diary = Counter(entry["event"] for entry in events(tmp_path))
    assert diary == {"start": len(results), "end": len(results)}


def test_what_is_ended_from_outside_is_tried_twice_more(
    made: SimpleNamespace, tmp_path: Path
) -> None:
    protocol = made.protocol()
    whole = finished(made, protocol)
    results: dict[str, Result] = {}
    twice = Engine(protocol, lambda job, number: whole(job, number) if number > 2 else None)
    drive(tmp_path, protocol, results, twice)
    assert next_jobs(protocol, results) == []

    def unlucky(job: Job, number: int) -> Result | None:
        return None if job.stage == "seeds" else whole(job, number)

    engine = Engine(protocol, unlucky)
    results = {}
    with pytest.raises(PeftShopError, match="3 times"):
        drive(tmp_path, protocol, results, engine, slots=2)
    assert engine.active == []
    assert {each.job.stage for each in results.values()} == {"base", "rates"}


def test_after_the_deadline_nothing_is_started(made: SimpleNamespace, tmp_path: Path) -> None:
    protocol = made.protocol()
    engine = Engine(protocol, finished(made, protocol))
    drive(tmp_path, protocol, {}, engine, deadline=0.0)
    assert not engine.times


@pytest.mark.parametrize("stage", ["base", "rates", "seeds"])
def test_only_the_stages_that_were_asked_for(
    made: SimpleNamespace, tmp_path: Path, stage: str
) -> None:
    protocol = made.protocol()
    results: dict[str, Result] = {}
    engine = Engine(protocol, finished(made, protocol))
    drive(tmp_path, protocol, results, engine, stages=stages_until(stage))
    assert {each.job.stage for each in results.values()} == set(stages_until(stage))
    assert all(job.stage not in stages_until(stage) for job in next_jobs(protocol, results))


@pytest.mark.parametrize(
    ("error", "expected", "says"),
    [
        (
            OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/full/result.json"),
            PeftShopError,
            "/full/result.json: the disk is full; what had ended is kept",
        ),
        (KeyboardInterrupt(), KeyboardInterrupt, None),
    ],
)
def test_whatever_stops_the_driver_leaves_nothing_running(
    made: SimpleNamespace,
    tmp_path: Path,
    error: BaseException,
    expected: type[BaseException],
    says: str | None,
) -> None:
    protocol = made.protocol()
    whole = finished(made, protocol)
    engine = Engine(protocol, lambda job, n: error if "miss" in job.contestant else whole(job, n))
    results: dict[str, Result] = {}
    with pytest.raises(expected, match=says):
        drive(tmp_path, protocol, results, engine, slots=3)
    assert engine.active == []
    assert "base" in {each.job.stage for each in results.values()}


def test_a_trial_that_is_run_already_is_refused(tmp_path: Path) -> None:
    write_asked(tmp_path, asked_of({"model": "m", "train": "t"}, "here"))
    holder = (
        "import sys; from pathlib import Path; from peft_shop.trial.ledger import locked\n"
        "with locked(Path(sys.argv[1])):\n    print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", holder, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(InputError, match="another process runs this trial"):
            Trial(tmp_path).run()


@pytest.fixture
def frozen_trial(
    made: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Path, Engine]:
    """A trial with three runs of 2000 s left, and what it would go on with."""
    protocol = made.protocol(("lora/a", "miss/b"))
    write_asked(tmp_path, protocol.asked)
    (tmp_path / "protocol.json").write_text(protocol.model_dump_json(), encoding="utf-8")
    measured = made.measured(2.0).model_copy(update={"step_seconds": 2000.0})

    def ends(job: Job, _: int = 1) -> Result:
        scored = {"valid_loss": 2.0 if job.learning_rate == 0.0003 else 3.0}
        done: Result = made.result(protocol, job, measured.model_copy(update=scored))
        place = tmp_path / "runs" / done.id
        place.mkdir(parents=True)
        (place / "result.json").write_text(done.model_dump_json(), encoding="utf-8")
        return done

    results: dict[str, Result] = {}
    while len(results) < 10:
        result = ends(next_jobs(protocol, results)[0])
        results[result.id] = result
    engine = Engine(protocol, ends)
    standing_in = contextlib.nullcontext(engine)
    monkeypatch.setattr("peft_shop.trial.trial.opened", lambda *_, **__: standing_in)
    monkeypatch.setattr("peft_shop.trial.trial.check_unchanged", lambda *_: None)
    monkeypatch.setattr(Trial, "_tidy", lambda *_: None)
    return tmp_path, engine


Command: TypeAlias = "Callable[..., tuple[int, str, str]]"


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        (("--within", "1min"), 1, "does not fit into 1min, and the least that compares anything"),
        (("--within", "1h"), 1, "it would with --rates 2 --seeds 2 --steps"),
        (("--within", "1h", "--yes"), 0, "no run is started after 1h"),
        (("--within", "1h", "--stage", "rates"), 0, "no run is started after 1h"),
        (("--within", "1h", "--slots", "2"), 0, ""),
        (("--within", "2h"), 0, ""),
        (("--within", "1h", "--slots", "0"), 2, "slots must be a whole number from 1 on"),
    ],
)
def test_what_does_not_fit_into_the_time_is_not_started(
    frozen_trial: tuple[Path, Engine],
    run: Command,
    options: tuple[str, ...],
    code: int,
    says: str,
) -> None:
    folder, engine = frozen_trial
    ended, _, told = run("trial", "run", str(folder), *options)
    assert says in " ".join(told.split())
    assert ended == code
    assert bool(engine.times) == (code == 0 and options[-1] != "rates")


def test_where_nothing_was_measured_a_trial_starts_and_says_so(
    frozen_trial: tuple[Path, Engine], run: Command
) -> None:
    folder, engine = frozen_trial
    shutil.rmtree(folder / "runs")
    code, _, told = run("trial", "run", str(folder), "--within", "1h")
    assert code == 0
    assert "nobody can tell whether this fits into 1h" in " ".join(told.split())
    assert engine.times


def test_python_starts_in_any_case_unless_it_is_told_not_to(
    frozen_trial: tuple[Path, Engine],
) -> None:
    folder, engine = frozen_trial
    with pytest.raises(QueryError, match=r"does not fit into 1h.*nothing was started"):
        Trial(folder).run(within="1h", yes=False)
    assert not engine.times
    told: list[str] = []
    assert Trial(folder).run(within="1h", tell=lambda *words: told.append(words[-1])).complete
    # three runs of 2000 s were left, and none of them has begun to train
    assert told[0].startswith("in all 1.67 h left; ")


def test_runs_meet_on_an_accelerator_only_where_the_user_does_without_memory_and_time(
    made: SimpleNamespace,
) -> None:
    on_cpu = made.protocol()
    on_gpu = on_cpu.model_copy(update={"device": "NVIDIA H100"})
    with pytest.raises(QueryError, match=r"2 runs at the same time on one NVIDIA H100.*--share"):
        demand_exclusive(on_gpu, "local", 2)
    assert demand_exclusive(on_gpu, "local", 2, share=True)
    assert not demand_exclusive(on_gpu, "local", 1, share=True)
    assert not demand_exclusive(on_cpu, "local", 2)
    for slots in (2, None):
        assert not demand_exclusive(on_gpu, "ray", slots)
        with pytest.raises(QueryError, match="a whole accelerator"):
            demand_exclusive(on_gpu, "ray", slots, share=True)


def test_what_is_refused_for_want_of_share_starts_nothing(
    frozen_trial: tuple[Path, Engine], run: Command
) -> None:
    folder, engine = frozen_trial
    on_gpu = engine.protocol.model_copy(update={"device": "NVIDIA H100"})
    (folder / "protocol.json").write_text(on_gpu.model_dump_json(), encoding="utf-8")
    code, _, told = run("trial", "run", str(folder), "--slots", "2")
    assert code == 2
    assert "say --share" in " ".join(told.split())
    assert not engine.times


@pytest.mark.parametrize("shared", [False, True])
def test_a_run_knows_whether_it_shares_and_whether_its_adapter_stays(
    made: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared: bool
) -> None:
    begun: list[dict[str, object]] = []
    monkeypatch.setattr("peft_shop.trial.engines.Running", lambda *_, **told: begun.append(told))
    protocol = made.protocol()
    (base,) = next_jobs(protocol, {})
    with opened("local", tmp_path, protocol, keep="all", shared=shared) as start:
        start(base, Briefing())
    assert begun == [{"timeout": None, "keep": True, "shared": shared}]

"""Classes and generated answers, trained and scored for real."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from peft_shop.trial.trial import Trial

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow

SETTINGS: dict[str, Any] = {"steps": 4, "max_length": 32, "rates": 1, "seeds": 1, "batch_size": 4}


def first_loss(trial: Trial, run: str) -> float:
    log = (trial.folder / "runs" / run / "log.txt").read_text(encoding="utf-8", errors="replace")
    return float(re.search(r"^step 1 loss (\S+)$", log, re.MULTILINE)[1])


def test_every_candidate_starts_with_the_same_new_head(tiny: Path, tmp_path: Path) -> None:
    rows = [
        {"text": f"w{n % 40} w{n % 7}", "label": ["low", "high"][n % 40 > 20]} for n in range(280)
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    trial = Trial.create(
        tmp_path / "t",
        model=tiny / "model",
        train=path,
        task="seq_cls",
        candidates=("lora", "miss"),
        full_finetuning=True,
        **SETTINGS,
    )
    base = trial.run_one(stage="base", index=0)
    done = [trial.run_one(stage="rates", index=place) for place in range(3)]
    assert [each.outcome for each in (base, *done)] == ["finished"] * 4, [e.detail for e in done]
    # these three leave the model as it is before their first step
    assert len({first_loss(trial, each.id) for each in done}) == 1
    assert all(0 <= each.measured.score <= 1 for each in done)
    assert len(done[0].measured.score_items) == trial.protocol.test.examples
    assert {count for _, count in done[0].measured.test_items} == {1}
    benchmark = trial.catalog.benchmarks[0]
    assert (benchmark.headline, benchmark.task) == ("test_accuracy", "seq_cls")
    assert benchmark.floor >= trial.protocol.majority


@pytest.mark.parametrize("score", ["exact_match", "choice", "own"])
def test_answers_are_generated_and_scored(
    tiny: Path, tmp_path: Path, score: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "user"))
    rows = [{"prompt": f"w{n} w{n + 1} ", "completion": f"w{n % 3}"} for n in range(55)]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    mine = tmp_path / "mine.py"
    mine.write_text(
        "def length(prompt, answer, reference):\n    return len(answer.split())\n", encoding="utf-8"
    )
    trial = Trial.create(
        tmp_path / "t",
        model=tiny / "model",
        train=path,
        score=f"{mine}:length" if score == "own" else score,
        max_new_tokens=3,
        candidates=("prompt_tuning", "lora"),
        **SETTINGS,
    )
    if score == "own":
        trial.calibrate()
        assert trial.plan().estimate.low is not None
    trial.freeze()
    mine.unlink()  # the trial has its copy
    done = [trial.run_one(stage="base", index=0), trial.run_one(stage="rates", index=0)]
    assert [each.outcome for each in done] == ["finished"] * 2, [each.detail for each in done]
    for each in done:
        assert len(each.measured.score_items) == trial.protocol.test.examples
        assert each.measured.score == pytest.approx(
            sum(each.measured.score_items) / len(each.measured.score_items)
        )
    if score == "own":
        # a random model goes on to the end of its allowance
        assert done[0].measured.score == pytest.approx(3, abs=1.5)
    else:
        assert set(done[0].measured.score_items) <= {0.0, 1.0}

"""Random questions, command lines and files: no undocumented exception, no hang, bounded memory."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))  # not a package
from mutants import ROOMS

ROOT = Path(__file__).resolve().parents[1]


def fuzz(kind: str, count: int, seed: int, folder: Path) -> str:
    script = str(ROOT / "benchmarks" / "fuzz.py")
    done = subprocess.run(
        [sys.executable, script, kind, "--count", str(count), "--seed", str(seed)],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env=os.environ | {"PEFT_SHOP_CACHE": "off", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)},
    )
    outcome = json.loads(done.stdout)
    assert outcome["broken"] == []
    assert sum(outcome["ends"].values()) == count
    assert len(outcome["ends"]) > 1
    assert outcome["peak_mb"] < 1024
    return f"{kind}: {outcome['ends']}, {outcome['peak_mb']} MB"


@pytest.mark.parametrize(("kind", "count"), [("questions", 150), ("commands", 40)])
def test_a_few_random_cases_break_nothing(kind: str, count: int, tmp_path: Path) -> None:
    pytest.importorskip("resource", reason="needs a Unix")
    fuzz(kind, count, 7, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "count"), [("questions", 10_000), ("commands", 1_000), ("files", 2_000)]
)
def test_many_random_cases_break_nothing(
    kind: str, count: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ends = fuzz(kind, count, 20261129, tmp_path)
    with capsys.disabled():
        sys.stdout.write(f"\n{ends}\n")


@pytest.mark.slow
def test_the_tests_of_a_room_bite(capsys: pytest.CaptureFixture[str]) -> None:
    seed = int(os.environ.get("PEFT_SHOP_MUTATION_SEED", "3"))  # another one draws another room
    room = random.Random(seed).choice(sorted(ROOMS))
    done = subprocess.run(
        [
            *(sys.executable, str(ROOT / "benchmarks" / "mutation.py"), room),
            *("--count", "12", "--seed", str(seed), "--least", "0.75"),
        ],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    with capsys.disabled():
        sys.stdout.write(f"\n{done.stdout}")
    assert done.returncode == 0, done.stdout + done.stderr

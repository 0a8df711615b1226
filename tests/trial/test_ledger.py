"""The diary of a trial survives whatever cuts it short, and one driver works at a time."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from peft_shop.errors import InputError
from peft_shop.trial.ledger import append, events, locked

if TYPE_CHECKING:
    from pathlib import Path


def test_every_truncation_of_the_last_line_loads(tmp_path: Path) -> None:
    for number in range(3):
        append(tmp_path, "start", run=f"r{number}", text="naïve \u2028 line")
    whole = (tmp_path / "ledger.jsonl").read_bytes()
    last = whole.rstrip(b"\n").rfind(b"\n") + 1
    for length in range(last, len(whole)):
        (tmp_path / "ledger.jsonl").write_bytes(whole[:length])
        before = [entry["run"] for entry in events(tmp_path)]
        assert before[:2] == ["r0", "r1"]
        append(tmp_path, "end", run="later")
        after = [entry["run"] for entry in events(tmp_path)]
        assert after == [*before, "later"], length


def test_a_second_driver_is_refused(tmp_path: Path) -> None:
    holder = (
        "import sys, time; from pathlib import Path; from peft_shop.trial.ledger import locked\n"
        "with locked(Path(sys.argv[1])):\n    print('held', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", holder, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(InputError, match="another process runs this trial"), locked(tmp_path):
            pass
    finally:
        process.kill()
        process.communicate()
    with locked(tmp_path):  # the system let go
        pass

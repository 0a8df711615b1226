"""What takes long says what it does on a terminal, and in a log from time to time."""

from __future__ import annotations

import io
import sys
import threading
import time

import pytest

from peft_shop.show import progress
from peft_shop.show.progress import progress_bar, progress_bars, waiting


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(monkeypatch: pytest.MonkeyPatch, stream: io.StringIO, seconds: float) -> str:
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(progress, "_PATIENCE", 0.05)
    with waiting("Looking at [red]it"):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and "Looking" not in stream.getvalue():
            time.sleep(0.01)
    return stream.getvalue()


def test_a_long_wait_is_told_on_a_terminal_as_it_is_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    assert "Looking at [red]it" in shown(monkeypatch, Terminal(), 10.0)


def test_a_short_one_and_one_without_a_terminal_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(monkeypatch, io.StringIO(), 0.2) == ""
    assert shown(monkeypatch, Terminal(), 0.0) == ""


def test_nothing_keeps_running_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    before = threading.active_count()
    with pytest.raises(KeyError), waiting("Looking"):
        raise KeyError
    assert threading.active_count() == before


@pytest.mark.parametrize(("every", "lines"), [(30.0, 4), (None, 0)])
def test_a_log_has_a_line_from_time_to_time(
    monkeypatch: pytest.MonkeyPatch, every: float | None, lines: int
) -> None:
    log = io.StringIO()
    clock = iter(range(0, 10_000, 10))  # every look at it is ten seconds later
    monkeypatch.setattr(sys, "stderr", log)
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    with progress_bar("runs", every=every) as tell:
        for _ in range(12):
            tell(3, 7, "lora: step 5 loss 1.2")
    assert log.getvalue() == "runs: 3 of 7; lora: step 5 loss 1.2\n" * lines


def test_two_bars_tell_of_the_whole_and_of_its_part(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    with progress_bars("runs", "steps", every=30.0) as (tell, tell_part):
        assert tell_part is not None
        tell(3, 7, "in all 4 min left")
        tell_part(120, 500, "lora: loss 1.2 [red]")
    rows = [row for row in screen.getvalue().splitlines() if "lora" in row or "in all" in row]
    assert all(word in rows[-2] for word in ("runs", "3/7", "in all 4 min left"))
    assert all(word in rows[-1] for word in ("steps", "120/500", "lora: loss 1.2 [red]"))


def test_a_log_is_told_of_the_whole_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with progress_bars("runs", "steps", every=30.0) as (_, tell_part):
        assert tell_part is None

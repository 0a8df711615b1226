"""Streams that are full, closed, left or narrow: an exit code, and never a traceback."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from peft_shop.cli.app import app
from peft_shop.cli.streams import READER_GONE, _Guarded, _Quiet, guarded_streams, in_encoding
from peft_shop.errors import PeftShopError

if TYPE_CHECKING:
    from collections.abc import Callable

FULL = Path("/dev/full")
COMMAND = f"{sys.executable} -m peft_shop"


@pytest.mark.skipif(os.name != "posix", reason="closes streams as a shell does")
@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        pytest.param(
            "--help > /dev/full",
            2,
            "error: cannot write to the standard output",
            marks=pytest.mark.skipif(not FULL.exists(), reason="no device that is always full"),
        ),
        ("methods >&-", 2, "error: cannot write to the standard output"),
        ("show lorra 2>&-", 2, ""),
        ("show lorra <&- >&- 2>&-", 2, ""),
        ("--help | head -c 1 > /dev/null; exit ${PIPESTATUS[0]}", READER_GONE, ""),
    ],
)
def test_a_stream_that_fails_is_an_exit_code(line: str, code: int, said: str) -> None:
    # a pipe that is smaller than the help, so that its reader is gone before the end
    wide = {**os.environ, "COLUMNS": "4000"} if "head" in line else dict(os.environ)
    done = subprocess.run(
        ["bash", "-c", f"{COMMAND} {line}"], capture_output=True, text=True, check=False, env=wide
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert said in done.stderr
    assert bool(said) == bool(done.stderr)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_a_narrow_encoding_shows_what_it_can(encoding: str) -> None:
    text = "Test accuracy ↑ ± 0.9 ─ (IA)³"
    shown = in_encoding(text, encoding)
    assert shown.encode(encoding)
    assert "Test accuracy ^" in shown
    assert in_encoding(text, "utf-8") == text
    held = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    _Guarded(held).write(text)
    held.flush()
    assert held.buffer.getvalue() == shown.encode(encoding)  # type: ignore[attr-defined]


class _Broken(io.StringIO):
    encoding = "utf-8"  # type: ignore[assignment]  # a property of text streams

    def __init__(self, error: OSError) -> None:
        super().__init__()
        self.error = error

    def write(self, _: str) -> int:
        raise self.error

    def flush(self) -> None:
        raise self.error


def test_who_writes_is_told_how_it_failed() -> None:
    for act in (lambda one: one.write("x"), lambda one: one.flush()):
        with pytest.raises(PeftShopError, match="No space left"):
            act(_Guarded(_Broken(OSError(28, "No space left on device"))))
        with pytest.raises(SystemExit) as gone:
            act(_Guarded(_Broken(BrokenPipeError())))
        assert gone.value.code == READER_GONE
        act(_Quiet(_Broken(OSError(28, "No space left on device"))))


def test_streams_are_given_back() -> None:
    before = sys.stdout, sys.stderr
    with guarded_streams():
        assert (sys.stdout, sys.stderr) != before
        assert sys.stdout.isatty() == before[0].isatty()
    assert (sys.stdout, sys.stderr) == before


def test_the_help_names_every_exit_code(run: Callable[..., tuple[int, str, str]]) -> None:
    epilog: Any = app.info.epilog
    for code in ("0 ", "1 ", "2 ", "130 ", "141 "):
        assert f"{code}" in epilog
    _, out, _ = run("--help")
    assert "141 nobody reads the output any more" in " ".join(out.split())

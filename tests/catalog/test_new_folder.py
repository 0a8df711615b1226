"""Folders appear whole or not at all, and a killed run gives back what it had moved away."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from peft_shop.catalog import new_folder as folders
from peft_shop.catalog.new_folder import new_folder
from peft_shop.files import clear_leftovers

if TYPE_CHECKING:
    from pathlib import Path


def make(target: Path, text: str, *, replace: bool = False) -> None:
    with new_folder(target, replace=replace) as made:
        (made.scratch / "notes").write_text("not to stay")
        (made.path / "sub").mkdir()
        (made.path / "sub" / "file").write_text(text)


def held(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): path.read_text()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_folder_appears_whole(tmp_path: Path) -> None:
    make(tmp_path / "a" / "out", "new")
    assert held(tmp_path) == {"a/out/sub/file": "new"}
    assert (tmp_path / "a" / "out").stat().st_mode & 0o700 == 0o700


def test_a_failing_block_leaves_nothing_and_keeps_what_was_there(tmp_path: Path) -> None:
    make(tmp_path / "out", "old")

    def fails() -> None:
        with new_folder(tmp_path / "out", replace=True) as made:
            (made.path / "half").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fails()
    assert held(tmp_path) == {"out/sub/file": "old"}


@pytest.mark.parametrize("swaps", [True, False])
def test_an_old_folder_is_replaced_in_one_step_or_moved_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, swaps: bool
) -> None:
    if not swaps:
        monkeypatch.setattr(folders, "_swapped", lambda *_: False)
    make(tmp_path / "out", "old")
    (tmp_path / "out" / "other").write_text("of the old one")
    make(tmp_path / "out", "new", replace=True)
    assert held(tmp_path) == {"out/sub/file": "new"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("failing", [1, 2])
def test_a_failure_between_two_renames_gives_the_old_folder_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    make(tmp_path / "out", "old")
    rename, calls = os.rename, 0

    def fail(source: Any, target: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == failing:
            raise OSError(5, "Input/output error")
        rename(source, target)

    monkeypatch.setattr(folders, "_swapped", lambda *_: False)
    monkeypatch.setattr(os, "rename", fail)
    with pytest.raises(OSError, match="Input/output"):
        make(tmp_path / "out", "new", replace=True)
    monkeypatch.undo()
    assert held(tmp_path) == {"out/sub/file": "old"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_is_there_is_not_replaced_unasked(tmp_path: Path) -> None:
    make(tmp_path / "out", "old")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "empty").mkdir()
    for name in ("out", "file"):
        with pytest.raises(FileExistsError):
            make(tmp_path / name, "new")
    make(tmp_path / "empty", "new")
    assert held(tmp_path) == {"out/sub/file": "old", "file": "mine", "empty/sub/file": "new"}


def test_of_writers_into_one_new_folder_one_wins_and_the_others_are_told(tmp_path: Path) -> None:
    count = 6
    barrier, outcomes = threading.Barrier(count), []

    def write(number: int) -> None:
        try:
            with new_folder(tmp_path / "out", replace=False) as made:
                for name in ("a", "b"):
                    (made.path / name).write_text(str(number))
                barrier.wait()
        except FileExistsError:
            outcomes.append(None)
        else:
            outcomes.append(str(number))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (winner,) = [outcome for outcome in outcomes if outcome is not None]
    assert len(outcomes) == count
    assert held(tmp_path) == {"out/a": winner, "out/b": winner}


def test_a_link_is_followed(tmp_path: Path) -> None:
    make(tmp_path / "real", "old")
    (tmp_path / "link").symlink_to("real")
    make(tmp_path / "link", "new", replace=True)
    assert (tmp_path / "link").is_symlink()
    assert held(tmp_path / "real") == {"sub/file": "new"}


DIES: str = """
import os, sys
from pathlib import Path
from peft_shop.catalog import new_folder as folders
target = Path(sys.argv[1])
folders._swapped = lambda *_: False
rename, calls = os.rename, 0
def dies(source, place):
    global calls
    calls += 1
    if calls == int(sys.argv[2]):
        os.kill(os.getpid(), 9)
    rename(source, place)
os.rename = dies
with folders.new_folder(target, replace=True) as made:
    (made.path / "file").write_text("new")
"""


@pytest.mark.parametrize("dies_at", [1, 2])
@pytest.mark.skipif(os.name != "posix", reason="no signals")
def test_the_next_run_gives_back_what_a_killed_one_had_moved_away(
    tmp_path: Path, dies_at: int
) -> None:
    target = tmp_path / "out"
    with new_folder(target, replace=False) as made:
        (made.path / "file").write_text("old")
    done = subprocess.run([sys.executable, "-c", DIES, str(target), str(dies_at)], check=False)
    assert done.returncode == -9
    assert target.exists() == (dies_at == 1)
    (left,) = [path.name for path in tmp_path.iterdir() if path.name.endswith(".tmp")]
    assert left.split(".")[3].isdigit()
    clear_leftovers(tmp_path)
    assert held(tmp_path) == {"out/file": "old"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]

"""Folders appear whole or not at all, killed runs leave nothing for long, readers have bounds."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peft_shop import files
from peft_shop.files import (
    folders,
    leftovers,
    new_folder,
    parse_json,
    read_bounded,
    regular_size,
    workplace,
    write_all,
    write_atomically,
    writing,
)


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


# --- folders ---


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


# --- leftovers ---

DIES: str = """
import os, sys
from pathlib import Path
from peft_shop import files
from peft_shop.files import folders
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
with files.new_folder(target, replace=True) as made:
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
    files.clear_leftovers(tmp_path)
    assert held(tmp_path) == {"out/file": "old"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_only_leftovers_of_dead_processes_of_this_machine_go(tmp_path: Path) -> None:
    machine = leftovers._machine()
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    gone = [f".peft-shop.{machine}.{dead.pid}.0123abcd.tmp"]
    stay = [
        f".peft-shop.{machine}.{os.getpid()}.0123abcd.tmp",
        f".peft-shop.{machine}.1.0123abcd.tmp",
        f".peft-shop.00000000.{dead.pid}.0123abcd.tmp",
        f".peft-shop.{machine}.{dead.pid}.tmp",
        ".mine.tmp",
        "notes",
    ]
    for name in (*gone, *stay):
        (tmp_path / name).write_text("")
    write_atomically(tmp_path / "file", b"new")
    assert {path.name for path in tmp_path.iterdir()} == {*stay, "file"}
    with workplace(tmp_path) as work:
        assert work.parent == tmp_path
    assert {path.name for path in tmp_path.iterdir()} == {*stay, "file"}


def test_a_leftover_that_is_a_link_takes_nothing_with_it(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    (tmp_path / "theirs" / "old").mkdir(parents=True)
    (tmp_path / "theirs" / "old" / "file").write_text("theirs")
    link = tmp_path / f".peft-shop.{leftovers._machine()}.{dead.pid}.0123abcd.tmp"
    link.symlink_to("theirs")
    files.clear_leftovers(tmp_path)
    assert held(tmp_path) == {"theirs/old/file": "theirs"}
    assert [path.name for path in tmp_path.iterdir()] == ["theirs"]


# --- what is no regular file ---


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes")
def test_what_is_no_regular_file_is_neither_read_nor_replaced(tmp_path: Path) -> None:
    pipe, folder = tmp_path / "pipe", tmp_path / "folder"
    os.mkfifo(pipe)
    folder.mkdir()
    loop = tmp_path / "loop"
    loop.symlink_to("loop")
    for path, kind in ((pipe, "a pipe"), (folder, "a folder"), (Path("/dev/zero"), "a device")):
        with pytest.raises(OSError, match=f"is {kind}"):
            regular_size(path)
        with pytest.raises(OSError, match=f"is {kind}"):
            read_bounded(path, 10, "a note")
        with pytest.raises(OSError, match=f"is {kind}"):
            write_all({path: b"new"})
    with pytest.raises(OSError, match="is a link that leads nowhere"):
        write_all({loop: b"new"})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "loop", "pipe"]


def test_a_link_to_a_file_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    link = tmp_path / "link"
    link.symlink_to(Path("real") / "file")
    write_atomically(link, b"one")
    write_atomically(link, b"two")
    assert link.is_symlink()
    assert held(tmp_path) == {"real/file": "two", "link": "two"}


def test_a_file_that_is_there_is_not_replaced_unasked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, other = tmp_path / "a", tmp_path / "b"
    write_all({path: b"one"}, replace=False)
    with pytest.raises(FileExistsError):
        write_all({other: b"two", path: b"two"}, replace=False)
    assert held(tmp_path) == {"a": "one"}
    # made by somebody else between the look and the end
    monkeypatch.setattr(writing, "_place", lambda name, **_: name)
    with pytest.raises(FileExistsError):
        write_all({other: b"two", path: b"two"}, replace=False)
    assert held(tmp_path) == {"a": "one"}


def test_long_names(tmp_path: Path) -> None:
    write_atomically(tmp_path / ("x" * 255), b"")
    with pytest.raises(OSError, match="too long"):
        write_atomically(tmp_path / ("x" * 256), b"")
    assert len(list(tmp_path.iterdir())) == 1


@given(st.binary(max_size=20), st.integers(0, 20))
def test_at_most_so_much_is_read(tmp_path_factory: Any, content: bytes, limit: int) -> None:
    path = tmp_path_factory.mktemp("read") / "file"
    path.write_bytes(content)
    if len(content) <= limit:
        assert read_bounded(path, limit, "a note") == content
    else:
        with pytest.raises(OSError, match=f"larger than {limit} bytes: too large for a note"):
            read_bounded(path, limit, "a note")


@given(st.integers(0, 300))
def test_depth(depth: int) -> None:
    text = "[" * depth + "]" * depth
    if not depth:
        return
    if depth <= 100:
        value = parse_json(text)
        for _ in range(depth - 1):
            (value,) = value
        assert value == []
    else:
        with pytest.raises(ValueError, match="nested deeper than 100"):
            parse_json(text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[" * 10**6, "nested deeper"),
        ("9" * 401, "more than 400 digits"),
        ("0." + "9" * 400, "more than 400 digits"),
        ("1e400", "not a number"),
        ("NaN", "not a number"),
        ("-Infinity", "not a number"),
        ("{", "."),
        (b"\xff", "."),
        ('{"name": "\\ud800"}', "half a character"),
        (b'{"\\uDCFF": 1}', "half a character"),
        ('["\ud800"]', "half a character"),
        (b'["\xed\xa0\x80"]', "half a character"),
        ('["\\udc00"]'.encode("utf-16"), "half a character"),
    ],
)
def test_what_no_honest_file_holds(text: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_json(text)


def test_whole_characters_may_be_escaped() -> None:
    assert parse_json('["\\ud83d\\ude00 \\\\ud800"]') == ["\N{GRINNING FACE} \\ud800"]


def test_numbers_of_many_digits() -> None:
    assert parse_json("9" * 400) == int("9" * 400)

"""Files are written whole or not at all, killed runs leave nothing for long, reads have bounds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peft_shop import files
from peft_shop.catalog.new_folder import workplace
from peft_shop.files import (
    clear_leftovers,
    read_bounded,
    regular_size,
    write_all,
    write_atomically,
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def held(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): path.read_text()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_file_is_written_with_its_folders(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "c.json"
    assert write_atomically(path, b"one\n")
    assert path.read_bytes() == b"one\n"
    assert names(tmp_path) == ["c.json"]


def test_the_same_bytes_are_not_written_again(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_atomically(path, b"one")
    os.utime(path, (1, 1))
    assert not write_atomically(path, b"one")
    assert path.stat().st_mtime == 1
    assert write_all({path: b"one", tmp_path / "b.json": b"two"}) == (tmp_path / "b.json",)


def test_permissions_stay_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_atomically(path, b"one")
    assert path.stat().st_mode & 0o777 == 0o644
    path.chmod(0o600)
    write_atomically(path, b"two")
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("failing", [1, 2, 3])
def test_a_failure_between_two_files_undoes_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    old, new, last = (tmp_path / name for name in ("old.json", "new.json", "sub/last.json"))
    old.write_bytes(b"before")
    calls = 0
    replace = os.replace

    def fail(source: Any, target: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == failing:
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="No space left"):
        write_all({old: b"after", new: b"after", last: b"after"})
    assert old.read_bytes() == b"before"
    assert names(tmp_path) == ["old.json"]


def test_a_failure_while_staging_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = tmp_path / "old.json"
    old.write_bytes(b"before")

    def fail(_: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="Input/output"):
        write_all({old: b"after", tmp_path / "new.json": b"after"})
    assert old.read_bytes() == b"before"
    assert names(tmp_path) == ["old.json"]


def test_a_folder_in_the_way_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "b.json").mkdir()
    (tmp_path / "a.json").write_bytes(b"before")
    with pytest.raises(IsADirectoryError):
        write_all({tmp_path / "a.json": b"after", tmp_path / "b.json": b"after"})
    assert (tmp_path / "a.json").read_bytes() == b"before"
    assert names(tmp_path) == ["a.json"]


# --- killed while a set takes its names ---

REWRITES = """
import os, sys
from pathlib import Path
from peft_shop.files import write_all
folder, last = Path(sys.argv[1]), int(sys.argv[2])
def rewrites(dies_at):
    calls = 0
    def counted(action):
        def call(*arguments, **keywords):
            nonlocal calls
            calls += 1
            if calls == dies_at:
                os._exit(9)  # no less sudden than kill -9
            return action(*arguments, **keywords)
        return call
    for name in ("fsync", "replace", "rename", "unlink", "chmod"):
        setattr(os, name, counted(getattr(os, name)))
    write_all({folder / f"{name}.csv": b"new " * 5_000 for name in "abcd"})
for dies_at in range(1, last):
    child = os.fork()
    if child == 0:
        folder /= str(dies_at)
        rewrites(dies_at)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(os.name != "posix", reason="no processes to fork")
def test_a_set_whose_writer_was_killed_is_old_or_new_after_the_next_run(tmp_path: Path) -> None:
    last = 30
    for dies_at in range(1, last):
        (tmp_path / str(dies_at)).mkdir()
        for name in "abc":
            (tmp_path / str(dies_at) / f"{name}.csv").write_bytes(b"old")
    done = subprocess.run(
        [sys.executable, "-c", REWRITES, str(tmp_path), str(last)],
        capture_output=True,
        text=True,
        check=True,
    )
    codes = done.stdout.split()
    assert set(codes) == {"0", "9"}
    assert codes == sorted(codes, reverse=True)
    seen = set()
    for dies_at in range(1, last):
        folder = tmp_path / str(dies_at)
        parts = {path.name: path.read_bytes() for path in folder.glob("*.csv")}
        # at any moment every file is whole
        assert set(parts.values()) <= {b"old", b"new " * 5_000}
        if dies_at % 2:  # whatever the next run writes there, even in vain
            write_atomically(folder / "other.json", b"the next run")
        else:
            with pytest.raises(FileExistsError):
                write_all(dict.fromkeys(folder.glob("*.csv"), b"other"), replace=False)
        after = {path.name: path.read_bytes()[:3] for path in folder.glob("*.csv")}
        assert after in (dict.fromkeys(["a.csv", "b.csv", "c.csv"], b"old"),
                         dict.fromkeys(["a.csv", "b.csv", "c.csv", "d.csv"], b"new"))  # fmt: skip
        assert names(folder) == [*sorted(after), *["other.json"][: dies_at % 2]]
        seen.add((len(set(parts.values())) > 1, len(after)))
    assert seen == {(False, 3), (False, 4), (True, 4)}


def dead_process() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def left(folder: Path, text: str, process: int) -> Path:
    """What a dead process left: a complete file, and the record of names to take."""
    start = f".peft-shop.{files._machine()}.{process}.0123abcd"
    (folder / f"{start}.tmp").write_bytes(b"new")
    (folder / f"{start}.set").write_text(text.replace("TMP", f"{start}.tmp"))
    return folder / f"{start}.set"


@pytest.mark.parametrize(
    "text",
    [
        '[["TMP","a.csv",null]]', '[["TMP","a.csv","0"]]', '[["TMP","../a.csv",null]]',
        '[["TMP","/etc/a.csv",null]]', '[["a.csv","TMP",null]]', '[["TMP","",null]]',
        '[["TMP","..",null]]', '[["TMP"]]', "[1]", "7", "{}", "[", '[["TMP",1,null]]', "",
        pytest.param("[" * 10**5, id="deep"),
    ],
)  # fmt: skip
def test_a_record_moves_nothing_that_was_changed_since_or_lies_elsewhere(
    tmp_path: Path, text: str
) -> None:
    dead = dead_process()
    (tmp_path / "in").mkdir()
    for folder in (tmp_path, tmp_path / "in"):
        (folder / "a.csv").write_bytes(b"edited")
    left(tmp_path / "in", text, dead)
    clear_leftovers(tmp_path / "in")
    assert names(tmp_path) == ["a.csv", "a.csv"]
    assert {path.read_bytes() for path in tmp_path.rglob("a.csv")} == {b"edited"}


def test_a_record_of_another_user_counts_for_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = dead_process()
    for user, there in ((os.getuid() + 1, ["b.csv"]), (os.getuid(), ["a.csv", "b.csv"])):
        monkeypatch.setattr(os, "getuid", lambda user=user: user)
        (tmp_path / "b.csv").write_bytes(b"own")
        left(tmp_path, '[["TMP","a.csv",null]]', dead)
        clear_leftovers(tmp_path)
        assert names(tmp_path) == there


def test_only_leftovers_of_dead_processes_of_this_machine_go(tmp_path: Path) -> None:
    machine = files._machine()
    dead = dead_process()
    gone = [f".peft-shop.{machine}.{dead}.0123abcd.tmp"]
    stay = [
        f".peft-shop.{machine}.{os.getpid()}.0123abcd.tmp",
        f".peft-shop.{machine}.1.0123abcd.tmp",
        f".peft-shop.00000000.{dead}.0123abcd.tmp",
        f".peft-shop.{machine}.{dead}.tmp",
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
    dead = dead_process()
    (tmp_path / "theirs" / "old").mkdir(parents=True)
    (tmp_path / "theirs" / "old" / "file").write_text("theirs")
    link = tmp_path / f".peft-shop.{files._machine()}.{dead}.0123abcd.tmp"
    link.symlink_to("theirs")
    clear_leftovers(tmp_path)
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
    monkeypatch.setattr(files, "_place", lambda name, **_: name)
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

"""Files are written whole or not at all, one or many."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peft_shop.files import clear_leftovers, compact_json, leftovers, write_all, write_atomically

if TYPE_CHECKING:
    from pathlib import Path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


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


def left(folder: Path, text: str, process: int) -> Path:
    """What a dead process left: a complete file, and the record of names to take."""
    start = f".peft-shop.{leftovers._machine()}.{process}.0123abcd"
    (folder / f"{start}.tmp").write_bytes(b"new")
    (folder / f"{start}.set").write_text(text.replace("TMP", f"{start}.tmp"))
    return folder / f"{start}.set"


@pytest.mark.parametrize(
    "text",
    [
        '[["TMP","a.csv",null]]', '[["TMP","a.csv","0"]]', '[["TMP","../a.csv",null]]',
        '[["TMP","/etc/a.csv",null]]', '[["a.csv","TMP",null]]', '[["TMP","",null]]',
        '[["TMP","..",null]]', '[["TMP"]]', "[1]", "7", "{}", "[", '[["TMP",1,null]]', "",
    ],
)  # fmt: skip
def test_a_record_moves_nothing_that_was_changed_since_or_lies_elsewhere(
    tmp_path: Path, text: str
) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    (tmp_path / "in").mkdir()
    for folder in (tmp_path, tmp_path / "in"):
        (folder / "a.csv").write_bytes(b"edited")
    left(tmp_path / "in", text, dead.pid)
    clear_leftovers(tmp_path / "in")
    assert names(tmp_path) == ["a.csv", "a.csv"]
    assert {path.read_bytes() for path in tmp_path.rglob("a.csv")} == {b"edited"}


def test_a_record_of_another_user_counts_for_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    for user, there in ((os.getuid() + 1, ["b.csv"]), (os.getuid(), ["a.csv", "b.csv"])):
        monkeypatch.setattr(os, "getuid", lambda user=user: user)
        (tmp_path / "b.csv").write_bytes(b"own")
        left(tmp_path, '[["TMP","a.csv",null]]', dead.pid)
        clear_leftovers(tmp_path)
        assert names(tmp_path) == there


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False),
    lambda members: st.lists(members) | st.dictionaries(st.text(), members),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), JSON), st.randoms(use_true_random=False))
def test_the_order_of_keys_does_not_show(value: dict[str, Any], random: Any) -> None:
    keys = list(value)
    random.shuffle(keys)
    text = compact_json({key: value[key] for key in keys})
    assert text == compact_json(value)
    assert len(text.splitlines()) == 1


def test_nan_is_no_json() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        compact_json({"a": float("nan")})

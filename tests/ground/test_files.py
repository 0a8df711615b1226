"""Files are written whole or not at all, one or many."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peft_shop.files import compact_json, write_all, write_atomically

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

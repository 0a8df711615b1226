"""Temporary names, and what the next run makes of those that a killed one left."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import stat
import zlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from peft_shop.files.reading import compact_json, parse_json, read_bounded, regular_size

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "OLD",
    "Waiting",
    "clear_leftovers",
    "discard",
    "drop_record",
    "keep_record",
    "sync",
    "temporary_name",
]

OLD: Final = "old"
"""In a workplace: the folder that was moved out of the way of a new one."""
_NAME: Final = re.compile(r"\.peft-shop\.([0-9a-f]{8})\.([0-9]{1,10})\.[0-9a-f]{8}\.(tmp|set)")
"""Names of ours: the machine, the process, chance, and whether it is the record of a set."""
_RECORD_BYTES: Final = 2**20


def temporary_name(folder: Path, kind: str = "tmp") -> Path:
    """A name in `folder` that nobody has and that tells whose it is."""
    return folder / f".peft-shop.{_machine()}.{os.getpid()}.{os.urandom(4).hex()}.{kind}"


@cache
def _machine() -> str:
    """A name for this machine and its process numbers: those of another one mean nothing here."""
    name = os.uname().nodename if hasattr(os, "uname") else os.environ.get("COMPUTERNAME", "")
    with contextlib.suppress(OSError):
        name += str(Path("/proc/self/ns/pid").readlink())
    return f"{zlib.crc32(name.encode(errors='replace')):08x}"


def clear_leftovers(folder: Path) -> None:
    """Finishes or takes away what killed processes of this machine left in `folder`.

    Files that were complete as a set take their names, unless somebody has changed what is there
    since. A folder that such a process had moved out of the way of a new one goes back where it
    was, if nothing is there. Failures are of no consequence: the next run tries again.
    """
    with contextlib.suppress(OSError):
        dead = [
            match
            for match in map(_NAME.fullmatch, os.listdir(folder))  # noqa: PTH208 - names alone
            if match and match[1] == _machine() and not _lives(int(match[2]))
        ]
        for match in sorted(dead, key=lambda match: match[3]):  # records before what they name
            if match[3] == "set":
                _finish(folder / match[0])
            discard(folder / match[0])


def _lives(process: int) -> bool:
    if os.name != "posix":
        return True  # asking would end it there
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def discard(temporary: Path) -> None:
    """Removes a temporary file or folder, after giving back what it keeps for others."""
    with contextlib.suppress(OSError):
        if temporary.is_symlink() or not temporary.is_dir():
            temporary.unlink()
            return
        kept = temporary / OLD
        for name in os.listdir(kept) if kept.is_dir() and not kept.is_symlink() else ():  # noqa: PTH208 - names alone
            if not os.path.lexists(temporary.parent / name):
                (kept / name).rename(temporary.parent / name)
        shutil.rmtree(temporary, ignore_errors=True)


# --- files that change together ---


@dataclass(frozen=True, slots=True)
class Waiting:
    """A complete temporary file that is about to take its name.

    Attributes:
        temporary: the file.
        place: what it will be called.
        old: what is there now; `None` for nothing.
    """

    temporary: Path
    place: Path
    old: bytes | None


def keep_record(files: Sequence[Waiting]) -> Path | None:
    """Notes beside files of one folder which names they are about to take, on disk.

    Returns:
        The record; `None` where there is but one file, or they lie in several folders.
    """
    if len(files) < 2 or len({file.place.parent for file in files}) > 1:
        return None
    folder = files[0].place.parent
    text = compact_json([[f.temporary.name, f.place.name, _digest(f.old)] for f in files])
    draft, record = temporary_name(folder), temporary_name(folder, "set")
    try:
        with draft.open("xb") as stream:
            stream.write(text.encode())
            stream.flush()
            os.fsync(stream.fileno())
        draft.rename(record)
    finally:
        draft.unlink(missing_ok=True)
    sync(folder)
    return record


def drop_record(record: Path | None) -> None:
    """Takes a record away: its files have their names, or none is to take one."""
    if record is not None:
        record.unlink(missing_ok=True)


def _finish(record: Path) -> None:
    """Gives the files of a record the names that they had not taken yet.

    A record of another user, or one that names anything outside its folder, counts for nothing.
    """
    entries: list[tuple[str, str, str | None]] = []
    with contextlib.suppress(OSError, ValueError):
        entries = _entries(record) if _is_own(record) else []
    for temporary, name, old in entries:
        waiting, place = record.parent / temporary, record.parent / name
        with contextlib.suppress(OSError):  # such as one that has taken its name
            if _is_own(waiting) and _digest(_held(place)) == old:
                waiting.replace(place)


def _entries(record: Path) -> list[tuple[str, str, str | None]]:
    """What a record holds.

    Raises:
        ValueError: it holds something else.
    """
    document: Any = parse_json(read_bounded(record, _RECORD_BYTES, "a record of files"))
    entries: list[tuple[str, str, str | None]] = []
    for item in document if isinstance(document, list) else [None]:
        if not isinstance(item, list) or len(item) != 3:
            raise ValueError("no record of files")
        temporary, name, old = item
        texts = (temporary, name, old or "")
        plain = all(isinstance(text, str) and Path(text).name == text for text in texts)
        if not plain or not name or not _NAME.fullmatch(temporary):
            raise ValueError("no record of files")
        entries.append((temporary, name, old))
    return entries


def _is_own(path: Path) -> bool:
    """Whether a regular file is there that belongs to this user."""
    found = path.lstat()
    return stat.S_ISREG(found.st_mode) and found.st_uid == os.getuid()


def _held(place: Path) -> bytes | None:
    if not os.path.lexists(place):
        return None
    regular_size(place)
    return place.read_bytes()


def _digest(content: bytes | None) -> str | None:
    return None if content is None else hashlib.sha256(content).hexdigest()


def sync(folder: Path) -> None:
    """Waits until the names in a folder are on the disk, where the system lets one ask."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

"""Files written whole or not at all, and regular files read with a bound.

What is being written lies under a temporary name in the same folder until it is complete. That name
carries the process id, so that the next run can tell what a killed one left: what was complete as a
set takes its names, the rest goes. Folders that appear whole are made by `catalog/new_folder.py`.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import stat
import zlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = [
    "OLD",
    "clear_leftovers",
    "discard",
    "read_bounded",
    "regular_size",
    "sync",
    "temporary_name",
    "write_all",
    "write_atomically",
]

_KINDS: Final = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISLNK, "a link that leads nowhere"),
)
OLD: Final = "old"
"""In a workplace: the folder that was moved out of the way of a new one."""
_NAME: Final = re.compile(r"\.peft-shop\.([0-9a-f]{8})\.([0-9]{1,10})\.[0-9a-f]{8}\.(tmp|set)")
"""Names of ours: the machine, the process, chance, and whether it is the record of a set."""
_RECORD_BYTES: Final = 2**20


# --- reading ---


def regular_size(path: Path) -> int:
    """Bytes of a regular file; never waits for a pipe and never opens a device.

    Raises:
        OSError: it is none, or cannot be looked at; `strerror` is fit for people.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise _no_file(path, status.st_mode)
    return status.st_size


def read_bounded(path: Path, limit: int, what: str) -> bytes:
    """The bytes of a regular file that has at most `limit` of them.

    Args:
        path: the file; links are followed.
        limit: largest size [bytes].
        what: that it should be, such as `a configuration`, for the message.

    Raises:
        OSError: it is no regular file, is larger, or cannot be read; `strerror` is fit for people.
    """
    regular_size(path)
    # what lies there may have become a pipe since: then this does not wait for a writer
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with os.fdopen(handle, "rb") as stream:
        mode = os.fstat(stream.fileno()).st_mode
        if not stat.S_ISREG(mode):
            raise _no_file(path, mode)
        content = stream.read(limit + 1)
    if len(content) > limit:
        size = f"{limit / 2**20:.3g} MiB" if limit >= 2**20 else f"{limit} bytes"
        raise OSError(errno.EFBIG, f"larger than {size}: too large for {what}", str(path))
    return content


def _no_file(path: Path, mode: int) -> OSError:
    """The error that says what lies at `path` instead of a regular file."""
    kind = next((name for is_kind, name in _KINDS if is_kind(mode)), "no file")
    code = errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
    return OSError(code, f"is {kind}, not a regular file", str(path))


# --- writing ---


def write_atomically(path: Path, content: bytes) -> bool:
    """Give `path` the bytes `content`, whole or not at all; says whether anything changed.

    Raises:
        OSError: the folder cannot be written; `path` is then as it was.
    """
    return bool(write_all({path: content}))


def write_all(contents: Mapping[Path, bytes], *, replace: bool = True) -> tuple[Path, ...]:
    """Write several files so that all of them change or none does.

    Every temporary file is complete before the first one takes its name; if taking a name fails,
    the names already taken get their old bytes back. Should the process be killed while the files
    of one folder take their names, the next run in that folder gives the others theirs. Files that
    hold these bytes already are left alone, so that re-running changes no time stamp. A link is
    followed: what it leads to changes.

    Args:
        contents: what to write where.
        replace: whether files that are there may be replaced; if not, a file that another process
            makes meanwhile is not replaced either.

    Returns:
        The files that changed, in the order given.

    Raises:
        FileExistsError: one is there, and `replace` is false; every file is then as it was.
        OSError: a folder cannot be written, or there is something else than a regular file; every
            file is then as it was.
    """
    for folder in {Path(os.path.realpath(path)).parent for path in contents}:
        clear_leftovers(folder)
    places = {path: _place(path, replace=replace) for path in contents}
    old = {path: place.read_bytes() if place.exists() else None for path, place in places.items()}
    changed = [path for path, content in contents.items() if old[path] != content]
    staged: dict[Path, Path] = {}
    replaced: list[Path] = []
    record: Path | None = None
    try:
        for path in changed:
            staged[path] = _stage(places[path], contents[path])
        record = _keep_record([_Waiting(staged[path], places[path], old[path]) for path in changed])
        for path in changed:
            _take_name(staged[path], places[path], replace=replace)
            replaced.append(path)
    except BaseException:
        _drop_record(record)
        for path in replaced:
            _restore(places[path], old[path])
        raise
    finally:
        _drop_record(record)
        for temporary in staged.values():
            temporary.unlink(missing_ok=True)
    return tuple(changed)


def _place(path: Path, *, replace: bool) -> Path:
    """The file that a name leads to.

    Raises:
        OSError: there is something that must not be replaced.
    """
    place = Path(os.path.realpath(path))
    try:
        mode = place.lstat().st_mode
    except FileNotFoundError:
        return place
    if not stat.S_ISREG(mode):
        raise _no_file(path, mode)
    if not replace:
        raise FileExistsError(errno.EEXIST, "exists already", str(path))
    return place


def _stage(path: Path, content: bytes) -> Path:
    """Temporary file beside `path` that holds `content`, on disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_name(path.parent)
    # made private; a catalog is meant to be read like any other file
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    handle = os.open(temporary, flags, 0o600)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.chmod(path.stat().st_mode & 0o777 if path.exists() else 0o644)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return temporary


def _take_name(temporary: Path, path: Path, *, replace: bool) -> None:
    """Gives a complete file its name; without `replace` only if nobody has it."""
    if not replace:
        try:
            os.link(temporary, path)
        except FileExistsError:
            raise FileExistsError(errno.EEXIST, "exists already", str(path)) from None
        except OSError:
            if os.path.lexists(path):  # this file system has no hard links
                raise FileExistsError(errno.EEXIST, "exists already", str(path)) from None
        else:
            return
    os.replace(temporary, path)  # noqa: PTH105 - atomic, and a test makes it fail


def _restore(path: Path, content: bytes | None) -> None:
    """Undo a replacement; a failure here must not hide the one that is being handled."""
    with contextlib.suppress(OSError):
        if content is None:
            path.unlink(missing_ok=True)
        else:
            _stage(path, content).replace(path)


# --- what a killed process leaves ---


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


# --- sets of files that take their names together ---


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A complete temporary file that is about to take its name.

    Attributes:
        temporary: the file.
        place: what it will be called.
        old: what is there now; `None` for nothing.
    """

    temporary: Path
    place: Path
    old: bytes | None


def _keep_record(files: Sequence[_Waiting]) -> Path | None:
    """Notes beside files of one folder which names they are about to take, on disk.

    Returns:
        The record; `None` where there is but one file, or they lie in several folders.
    """
    if len(files) < 2 or len({file.place.parent for file in files}) > 1:
        return None
    folder = files[0].place.parent
    text = json.dumps([[f.temporary.name, f.place.name, _digest(f.old)] for f in files])
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


def _drop_record(record: Path | None) -> None:
    """Takes a record away: its files have their names, or none is to take one."""
    if record is not None:
        record.unlink(missing_ok=True)


def _finish(record: Path) -> None:
    """Gives the files of a record the names that they had not taken yet.

    A record of another user, or one that names anything outside its folder, counts for nothing.
    """
    entries: list[tuple[str, str, str | None]] = []
    with contextlib.suppress(OSError, ValueError, RecursionError):
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
        RecursionError: it is nested very deep.
    """
    document: Any = json.loads(read_bounded(record, _RECORD_BYTES, "a record of files"))
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
    status = path.lstat()
    return stat.S_ISREG(status.st_mode) and status.st_uid == os.getuid()


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

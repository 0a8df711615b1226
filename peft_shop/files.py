"""Files and folders written whole or not at all, and read with a bound.

What is being written lies under a temporary name in the same folder until it is complete. That name
carries the process id, so that the next run can tell what a killed one left and take it away.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
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
    from collections.abc import Iterator, Mapping

__all__ = [
    "NewFolder",
    "clear_leftovers",
    "compact_json",
    "new_folder",
    "parse_json",
    "read_bounded",
    "regular_size",
    "workplace",
    "write_all",
    "write_atomically",
]

_TEMPORARY: Final = re.compile(r"\.peft-shop\.([0-9a-f]{8})\.([0-9]{1,10})\.[0-9a-f]{8}\.tmp")
"""Names of ours: the machine, the process, chance."""
_OLD: Final = "old"
"""In a workplace: the folder that was moved out of the way of a new one."""
_DEPTH: Final = 100
_DIGITS: Final = 400
_MAYBE_HALF: Final = re.compile(rb"\\u[dD]|\xed[\xa0-\xbf]|\x00")
"""Escaped, as bytes of UTF-8, or in a text whose characters take more than one byte."""
_KINDS: Final = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISLNK, "a link that leads nowhere"),
)


def compact_json(value: Any) -> str:
    """One line of ASCII JSON that depends on the value alone: sorted keys, no spaces, no NaN.

    >>> compact_json({"b": [1, 2.5], "a": None})
    '{"a":null,"b":[1,2.5]}'
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


# --- reading ---


def regular_size(path: Path) -> int:
    """Bytes of a regular file; never waits for a pipe and never opens a device.

    Raises:
        OSError: it is none, or cannot be looked at; `strerror` is fit for people.
    """
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise _no_file(path, found.st_mode)
    return found.st_size


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


def parse_json(content: bytes | str, *, infinite: bool = False) -> Any:
    """The JSON value of a text from outside, with bounds that no honest file reaches.

    Args:
        content: the text.
        infinite: whether Infinity and NaN may be there, as Python writes them; configurations of
            models have them.

    Raises:
        ValueError: it is not JSON, is nested deeper than 100, has a number of more than 400
            digits or one that is not finite, or half a character (a surrogate without its pair).
    """
    constant = float if infinite else _no_number
    try:
        value = json.loads(
            content, parse_constant=constant, parse_int=_whole_number, parse_float=_fraction
        )
    except RecursionError:
        msg = f"nested deeper than {_DEPTH}"
        raise ValueError(msg) from None
    level, depth = [value], 0
    while level := [inner for inner in level if isinstance(inner, dict | list)]:
        depth += 1
        if depth > _DEPTH:
            msg = f"nested deeper than {_DEPTH}"
            raise ValueError(msg)
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
    _refuse_half_characters(content, value)
    return value


def _refuse_half_characters(content: bytes | str, value: Any) -> None:
    """Texts that no file and no screen can take; few honest files have such an escape at all."""
    text = content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass")
    if not _MAYBE_HALF.search(text):
        return
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        msg = f"half a character, {error.object[error.start]!a}: a surrogate without its pair"
        raise ValueError(msg) from None


def _no_number(constant: str) -> float:
    msg = f"{constant} is not a number"
    raise ValueError(msg)


def _whole_number(text: str) -> int:
    if len(text) > _DIGITS:
        msg = f"a number of more than {_DIGITS} digits"
        raise ValueError(msg)
    return int(text)


def _fraction(text: str) -> float:
    if len(text) > _DIGITS:
        msg = f"a number of more than {_DIGITS} digits"
        raise ValueError(msg)
    value = float(text)
    return value if math.isfinite(value) else _no_number(text)


def _no_file(path: Path, mode: int) -> OSError:
    kind = next((name for is_kind, name in _KINDS if is_kind(mode)), "no file")
    code = errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
    return OSError(code, f"is {kind}, not a regular file", str(path))


# --- writing files ---


def write_atomically(path: Path, content: bytes) -> bool:
    """Give `path` the bytes `content`, whole or not at all; says whether anything changed.

    Raises:
        OSError: the folder cannot be written; `path` is then as it was.
    """
    return bool(write_all({path: content}))


def write_all(contents: Mapping[Path, bytes], *, replace: bool = True) -> tuple[Path, ...]:
    """Write several files so that all of them change or none does.

    Every temporary file is complete before the first one takes its name; if taking a name fails,
    the names already taken get their old bytes back. Files that hold these bytes already are left
    alone, so that re-running changes no time stamp. A link is followed: what it leads to changes.

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
    places = {path: _place(path, replace=replace) for path in contents}
    old = {path: place.read_bytes() if place.exists() else None for path, place in places.items()}
    changed = [path for path, content in contents.items() if old[path] != content]
    staged: dict[Path, Path] = {}
    replaced: list[Path] = []
    try:
        for path in changed:
            staged[path] = _stage(places[path], contents[path])
        for path in changed:
            _take_name(staged[path], places[path], replace=replace)
            replaced.append(path)
    except BaseException:
        for path in replaced:
            _restore(places[path], old[path])
        raise
    finally:
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
    clear_leftovers(path.parent)
    temporary = _temporary(path.parent)
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


# --- temporary names ---


@cache
def _machine() -> str:
    """A name for this machine and its process numbers: those of another one mean nothing here."""
    name = os.uname().nodename if hasattr(os, "uname") else os.environ.get("COMPUTERNAME", "")
    with contextlib.suppress(OSError):
        name += str(Path("/proc/self/ns/pid").readlink())
    return f"{zlib.crc32(name.encode(errors='replace')):08x}"


def _temporary(folder: Path) -> Path:
    return folder / f".peft-shop.{_machine()}.{os.getpid()}.{os.urandom(4).hex()}.tmp"


def clear_leftovers(folder: Path) -> None:
    """Takes away what killed processes of this machine left half-written in `folder`.

    A folder that such a process had moved out of the way of a new one goes back where it was, if
    nothing is there. Failures are of no consequence: the next run tries again.
    """
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):  # noqa: PTH208 - names are all that is looked at
            match = _TEMPORARY.fullmatch(name)
            if match and match[1] == _machine() and not _lives(int(match[2])):
                _discard(folder / name)


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


def _discard(temporary: Path) -> None:
    """Removes a temporary file or folder, after giving back what it keeps for others."""
    with contextlib.suppress(OSError):
        if temporary.is_symlink() or not temporary.is_dir():
            temporary.unlink()
            return
        kept = temporary / _OLD
        for name in os.listdir(kept) if kept.is_dir() and not kept.is_symlink() else ():  # noqa: PTH208 - names alone
            if not os.path.lexists(temporary.parent / name):
                (kept / name).rename(temporary.parent / name)
        shutil.rmtree(temporary, ignore_errors=True)


# --- writing folders ---


@dataclass(frozen=True, slots=True)
class NewFolder:
    """A folder that is being made.

    Attributes:
        path: the folder itself, empty at first.
        scratch: a place for what is not to stay.
    """

    path: Path
    scratch: Path


@contextlib.contextmanager
def workplace(parent: Path) -> Iterator[Path]:
    """An empty folder in `parent`, for work that ends with the block.

    Raises:
        OSError: it cannot be made.
    """
    parent.mkdir(parents=True, exist_ok=True)
    clear_leftovers(parent)
    folder = _temporary(parent)
    folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        _discard(folder)


@contextlib.contextmanager
def new_folder(target: Path, *, replace: bool) -> Iterator[NewFolder]:
    """A folder that takes the name `target` when the block ends well, and vanishes if not.

    A folder that has the name already is replaced in one step where the system has one, so that at
    any moment the old one or the new one is there, whole. Elsewhere it is moved away first; if the
    process dies between, the next run moves it back.

    Args:
        target: the name; a link is followed.
        replace: whether a folder with something in it may be replaced.

    Raises:
        FileExistsError: there is one, perhaps made by another process meanwhile, and `replace` is
            false.
        OSError: it cannot be written.
    """
    place = Path(os.path.realpath(target))
    with workplace(place.parent) as work:
        made = NewFolder(work / "new", work / "scratch")
        made.path.mkdir()
        made.scratch.mkdir()
        yield made
        _settle(made.path)
        if replace and os.path.lexists(place):
            _exchange(made.path, place, work)
        else:
            try:
                os.rename(made.path, place)  # noqa: PTH104 - fails where something is in the way
            except OSError as error:
                if error.errno in {errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR}:
                    raise FileExistsError(errno.EEXIST, "exists already", str(target)) from error
                raise
        _sync(place.parent)


def _exchange(made: Path, place: Path, work: Path) -> None:
    """Gives `made` the name of the folder `place`, whose old content stays in `work`."""
    if _swapped(made, place):
        return
    kept = work / _OLD / place.name
    kept.parent.mkdir()
    try:
        os.rename(place, kept)  # noqa: PTH104 - as its counterpart, which a test makes fail
        os.rename(made, place)  # noqa: PTH104 - as above
    except BaseException:
        if os.path.lexists(kept) and not os.path.lexists(place):
            os.rename(kept, place)  # noqa: PTH104 - as above
        raise


def _swapped(one: Path, other: Path) -> bool:
    """Swaps two names in one step; `False` where the system or the disk cannot."""
    import ctypes  # noqa: PLC0415 - every command imports this file, and few come here

    here, swap = -100, 2  # AT_FDCWD; RENAME_EXCHANGE of Linux and RENAME_SWAP of macOS
    paths = os.fsencode(one), os.fsencode(other)
    calls = {"renameat2": (here, paths[0], here, paths[1], swap), "renamex_np": (*paths, swap)}
    with contextlib.suppress(OSError, TypeError):  # no such library
        system = ctypes.CDLL(None)
        for name, arguments in calls.items():
            if hasattr(system, name):
                return bool(getattr(system, name)(*arguments) == 0)
    return False


def _settle(folder: Path) -> None:
    """Waits until everything in a folder is on the disk."""
    for root, _, names in os.walk(folder):
        for name in names:
            with (Path(root) / name).open("rb") as stream:
                os.fsync(stream.fileno())
        _sync(Path(root))


def _sync(folder: Path) -> None:
    """Waits until the names in a folder are on the disk, where the system lets one ask."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

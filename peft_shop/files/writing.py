"""Files written whole or not at all, one or many."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from peft_shop.files.leftovers import (
    Waiting,
    clear_leftovers,
    drop_record,
    keep_record,
    temporary_name,
)
from peft_shop.files.reading import no_file

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["write_all", "write_atomically"]


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
        record = keep_record([Waiting(staged[path], places[path], old[path]) for path in changed])
        for path in changed:
            _take_name(staged[path], places[path], replace=replace)
            replaced.append(path)
    except BaseException:
        drop_record(record)
        for path in replaced:
            _restore(places[path], old[path])
        raise
    finally:
        drop_record(record)
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
        raise no_file(path, mode)
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

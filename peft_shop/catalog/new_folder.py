"""Folders that appear whole or not at all, such as tables, the web page or a converted adapter."""

from __future__ import annotations

import contextlib
import errno
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from peft_shop.files import OLD, clear_leftovers, discard, sync, temporary_name

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["NewFolder", "new_folder", "workplace"]


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
    folder = temporary_name(parent)
    folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        discard(folder)


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
        sync(place.parent)


def _exchange(made: Path, place: Path, work: Path) -> None:
    """Gives `made` the name of the folder `place`, whose old content stays in `work`."""
    if _swapped(made, place):
        return
    kept = work / OLD / place.name
    kept.parent.mkdir()
    try:
        os.rename(place, kept)  # noqa: PTH104 - as its counterpart, which a test makes fail
        os.rename(made, place)  # noqa: PTH104 - as above
    except BaseException:
        if os.path.lexists(kept) and not os.path.lexists(place):
            os.rename(kept, place)  # noqa: PTH104 - as above
        raise


def _swapped(path: Path, other: Path) -> bool:
    """Swaps two names in one step; `False` where the system or the disk cannot."""
    import ctypes  # noqa: PLC0415 - every command imports this file, and few come here

    here, swap = -100, 2  # AT_FDCWD; RENAME_EXCHANGE of Linux and RENAME_SWAP of macOS
    paths = os.fsencode(path), os.fsencode(other)
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
        sync(Path(root))

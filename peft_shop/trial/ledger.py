"""The folder's diary and its lock: who works on a trial, and what happened when."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import time
from typing import TYPE_CHECKING, Final

from peft_shop.errors import InputError
from peft_shop.files import read_bounded
from peft_shop.records import parse_json

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from peft_shop.records import Json

__all__ = ["append", "events", "locked"]

_LEDGER: Final = "ledger.jsonl"
_LOCK: Final = "lock"
_LIMIT: Final = 2**28


def append(folder: Path, event: str, **details: Json) -> None:
    """Adds one event in one write that is on the disk when this returns.

    Raises:
        OSError: the disk refuses.
    """
    entry = {
        "event": event,
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "host": socket.gethostname(),
        "pid": os.getpid(),
        **details,
    }
    file = os.open(folder / _LEDGER, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        # a line that a crash cut short ends here, so that this one is whole
        size = os.fstat(file).st_size
        torn = size > 0 and _last_byte(folder / _LEDGER, size) != b"\n"
        line = ("\n" if torn else "") + json.dumps(entry, ensure_ascii=False) + "\n"
        os.write(file, line.encode())
        os.fsync(file)
    finally:
        os.close(file)


def events(folder: Path) -> list[dict[str, Json]]:
    """All events that are whole, in order."""
    path = folder / _LEDGER
    if not path.exists():
        return []
    entries = []
    for line in read_bounded(path, _LIMIT, "a ledger").split(b"\n"):
        with contextlib.suppress(ValueError):
            entry = parse_json(line)
            if isinstance(entry, dict):
                entries.append(entry)
    return entries


@contextlib.contextmanager
def locked(folder: Path, name: str = _LOCK, *, wait: bool = False) -> Iterator[None]:
    """Holds the trial for one driver; the system lets go when the process ends.

    Args:
        folder: of the trial.
        name: of the lock.
        wait: whether to wait for another process.

    Raises:
        InputError: another process works on it.
    """
    with (folder / name).open("a+b") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except OSError as error:
            raise InputError(
                f"{folder}: another process runs this trial; `peft-shop trial status {folder}` "
                "tells how far it is"
            ) from error
        yield


def _last_byte(path: Path, size: int) -> bytes:
    with path.open("rb") as file:
        file.seek(size - 1)
        return file.read(1)

"""Files written whole or not at all: bytes go to a temporary neighbour, then take the name."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["compact_json", "write_all", "write_atomically"]


def compact_json(value: Any) -> str:
    """One line of ASCII JSON that depends on the value alone: sorted keys, no spaces, no NaN.

    >>> compact_json({"b": [1, 2.5], "a": None})
    '{"a":null,"b":[1,2.5]}'
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def write_atomically(path: Path, content: bytes) -> bool:
    """Give `path` the bytes `content`, whole or not at all; says whether anything changed.

    Raises:
        OSError: the folder cannot be written; `path` is then as it was.
    """
    return bool(write_all({path: content}))


def write_all(contents: Mapping[Path, bytes]) -> tuple[Path, ...]:
    """Write several files so that all of them change or none does.

    Every temporary file is complete before the first one takes its name; if taking a name fails,
    the names already taken get their old bytes back. Files that hold these bytes already are left
    alone, so that re-running changes no time stamp.

    Returns:
        The files that changed, in the order given.

    Raises:
        OSError: a folder cannot be written; every file is then as it was.
    """
    old = {path: path.read_bytes() if path.exists() else None for path in contents}
    changed = [path for path, content in contents.items() if old[path] != content]
    staged: dict[Path, Path] = {}
    replaced: list[Path] = []
    try:
        for path in changed:
            staged[path] = _stage(path, contents[path])
        for path in changed:
            os.replace(staged[path], path)  # noqa: PTH105 - atomic, and a test makes it fail
            replaced.append(path)
    except BaseException:
        for path in replaced:
            _restore(path, old[path])
        raise
    finally:
        for temporary in staged.values():
            temporary.unlink(missing_ok=True)
    return tuple(changed)


def _stage(path: Path, content: bytes) -> Path:
    """Temporary file beside `path` that holds `content`, on disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        # mkstemp makes private files; a catalog is meant to be read like any other file
        temporary.chmod(path.stat().st_mode & 0o777 if path.exists() else 0o644)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return temporary


def _restore(path: Path, content: bytes | None) -> None:
    """Undo a replacement; a failure here must not hide the one that is being handled."""
    with contextlib.suppress(OSError):
        if content is None:
            path.unlink(missing_ok=True)
        else:
            _stage(path, content).replace(path)

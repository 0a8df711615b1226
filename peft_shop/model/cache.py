"""What was found of a model before, on disk: a second question needs no torch.

One file per finding in the user's cache folder, named by a hash of all that it was made from.
Whatever cannot be read or written is passed over in silence: the folder is safe to delete.
`PEFT_SHOP_CACHE=off` does without; another value is the folder to use.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pydantic import ValidationError

from peft_shop.files import read_bounded, write_atomically
from peft_shop.model.structure import Structure
from peft_shop.records import compact_json

if TYPE_CHECKING:
    from peft_shop.model.checkpoints import Checkpoint

__all__ = ["Drawer", "cached_structure", "keep_structure"]

_LARGEST: Final = 4 * 2**20
"""Largest file [bytes]; usual ones have 2 to 30 kB."""
_PACKAGES: Final = ("peft-shop", "peft", "transformers", "diffusers", "bitsandbytes", "torch")
"""What a finding depends on besides the model."""
_OFF: Final = frozenset({"off", "0", "no", "false"})


class Drawer:
    """Findings of one kind.

    Args:
        name: of the folder within the cache.
        rooms: of this package whose code makes the findings; a change of it makes old ones void.
        most: findings that are kept; beyond them the oldest go.
    """

    def __init__(self, name: str, rooms: tuple[str, ...], most: int) -> None:
        self._name = name
        self._rooms = rooms
        self._most = most

    def get(self, *parts: Any) -> bytes | None:
        """What was kept of these parts (JSON values); `None` where there is nothing."""
        file = self._file(parts)
        if file is None:
            return None
        try:
            return read_bounded(file, _LARGEST, "a finding")
        except OSError:
            return None

    def put(self, content: bytes, *parts: Any) -> None:
        """Keeps what was found of these parts."""
        file = self._file(parts)
        if file is None or len(content) > _LARGEST:
            return
        with contextlib.suppress(OSError):
            write_atomically(file, content)
            self._drop_oldest(file.parent)

    def _file(self, parts: tuple[Any, ...]) -> Path | None:
        setting = os.environ.get("PEFT_SHOP_CACHE", "").strip()
        if setting.lower() in _OFF:
            return None
        facts = [parts, _versions(), _sources(self._rooms)]
        key = hashlib.sha256(_text(facts).encode("utf-8", "backslashreplace")).hexdigest()
        return _root(setting) / self._name / f"{key}.json"

    def _drop_oldest(self, folder: Path) -> None:
        files = [path for path in folder.iterdir() if path.suffix == ".json"]
        if len(files) > self._most:
            files.sort(key=lambda path: path.stat().st_mtime)
            for path in files[: len(files) - self._most]:
                path.unlink(missing_ok=True)


def _text(facts: Any) -> str:
    try:
        return compact_json(facts)
    except ValueError:  # infinity, which configurations may have
        return repr(facts)


def _root(setting: str) -> Path:
    if setting:
        return Path(setting).expanduser()
    from platformdirs import user_cache_path  # noqa: PLC0415 - only where a folder is named

    return user_cache_path("peft-shop", appauthor=False)


@cache
def _versions() -> list[tuple[str, str | None]]:
    return [(name, _version(name)) for name in _PACKAGES]


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


@cache
def _sources(rooms: tuple[str, ...]) -> list[tuple[str, int]]:
    """Times of change of the rooms' files, which differ between two versions as well."""
    home = Path(__file__).parent.parent
    paths = [path for room in rooms for path in sorted((home / room).rglob("*.py"))]
    return [(path.name, path.stat().st_mtime_ns) for path in paths]


# --- structures ---

_STRUCTURES: Final = Drawer("structures", ("model",), 200)


def cached_structure(checkpoint: Checkpoint) -> Structure | None:
    """What an earlier inspection of the same files found; `None` where there was none."""
    content = None if checkpoint.remote else _STRUCTURES.get(*_facts(checkpoint))
    if content is None:
        return None
    try:
        structure = Structure.model_validate_json(content)
    except (ValidationError, RecursionError):
        return None
    return structure.model_copy(update={"name": checkpoint.name})


def keep_structure(checkpoint: Checkpoint, structure: Structure) -> None:
    """Keeps what an inspection found, for the next question on the same files."""
    if not checkpoint.remote:
        content = structure.model_dump_json(exclude_defaults=True).encode()
        _STRUCTURES.put(content, *_facts(checkpoint))


def _facts(checkpoint: Checkpoint) -> tuple[Any, ...]:
    return checkpoint.content, checkpoint.names, checkpoint.fingerprint

"""Structures of models that were inspected before, on disk: a second question needs no torch.

One JSON file per structure in the user's cache folder, named by a hash of all that it was made
from. Whatever cannot be read or written is passed over in silence: the folder is safe to delete.
`PEFT_SHOP_CACHE=off` does without; another value is the folder to use.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pydantic import ValidationError

from peft_shop.files import read_bounded, write_atomically
from peft_shop.model.structure import Structure

if TYPE_CHECKING:
    from peft_shop.model.checkpoints import Checkpoint

__all__ = ["cached_structure", "keep_structure"]

_MOST: Final = 200
"""Structures that are kept; beyond them the oldest go."""
_LARGEST: Final = 4 * 2**20
"""Largest file [bytes]; usual ones have 10 to 30 kB."""
_PACKAGES: Final = ("peft-shop", "transformers", "diffusers", "bitsandbytes", "torch")
"""What an inspection depends on."""


def cached_structure(checkpoint: Checkpoint) -> Structure | None:
    """What an earlier inspection of the same files found; `None` where there was none."""
    file = _file(checkpoint)
    if file is None:
        return None
    try:
        content = read_bounded(file, _LARGEST, "a structure")
        found = Structure.model_validate_json(content)
    except (OSError, ValidationError, RecursionError):
        return None
    return found.model_copy(update={"name": checkpoint.name})


def keep_structure(checkpoint: Checkpoint, structure: Structure) -> None:
    """Keeps what an inspection found, for the next question on the same files."""
    file = _file(checkpoint)
    if file is None:
        return
    content = structure.model_dump_json(exclude_defaults=True).encode()
    if len(content) > _LARGEST:
        return
    with contextlib.suppress(OSError):
        write_atomically(file, content)
        _drop_oldest(file.parent)


def _drop_oldest(folder: Path) -> None:
    files = [path for path in folder.iterdir() if path.suffix == ".json"]
    if len(files) > _MOST:
        files.sort(key=lambda path: path.stat().st_mtime)
        for path in files[: len(files) - _MOST]:
            path.unlink(missing_ok=True)


def _file(checkpoint: Checkpoint) -> Path | None:
    """Where the structure of a model is kept; `None` where it must not be."""
    setting = os.environ.get("PEFT_SHOP_CACHE", "")
    if checkpoint.remote or setting.strip().lower() in {"off", "0", "no", "false"}:
        return None
    parts = [
        checkpoint.content,
        checkpoint.names,
        checkpoint.fingerprint,
        [(name, _version(name)) for name in _PACKAGES],
        _own_sources(),
    ]
    key = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    if setting:
        folder = Path(setting).expanduser()
    else:
        from platformdirs import user_cache_path  # noqa: PLC0415 - only where a folder is named

        folder = user_cache_path("peft-shop", appauthor=False) / "structures"
    return folder / f"{key}.json"


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _own_sources() -> list[tuple[str, int]]:
    """Names and sizes of this room's files, which change between two versions as well."""
    room = Path(__file__).parent
    return sorted((path.name, path.stat().st_mtime_ns) for path in room.glob("*.py"))

"""A folder or an id of the hub -> the checkpoint there; weights are never fetched, no torch."""

from __future__ import annotations

import contextlib
import logging
import re
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

from peft_shop.errors import MissingExtraError, ModelError
from peft_shop.model.checkpoints import BACKBONES, Checkpoint, names_in, open_folder, read_json

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["open_checkpoint"]

_HUB_ID: Final = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")


def open_checkpoint(model: str | Path) -> Checkpoint:
    """The configuration of a local folder, or of a model on the hub.

    Raises:
        ModelError: there is none; the message says why and what to do.
    """
    folder = Path(model).expanduser()
    try:
        there = folder.exists()
    except (OSError, ValueError):  # too long for a name, or no text for one
        there = False
    if there or isinstance(model, Path):
        return open_folder(folder, str(model))
    return _open_hub(str(model))


def _open_hub(name: str) -> Checkpoint:
    """The configuration of a model on the hub, from the local cache where it is there."""
    if not _HUB_ID.fullmatch(name):
        raise ModelError(f"{name[:200]}: no such folder, and no id of a model on the hub either")
    main = _fetch(name, "config.json")
    if main is not None:
        content = read_json(main)
        # code that comes with a model has to be fetched by its name; the rest is here already
        source = name if "auto_map" in content else str(main.parent)
        place = f"{name}/config.json"
        names = names_in(main.parent)
        return Checkpoint(name, content, source, place, main.parent, fetched=True, names=names)
    index = _fetch(name, "model_index.json")
    if index is None:
        if _fetch(name, "adapter_config.json") is not None:
            raise ModelError(f"{name} is an adapter, not a model; pass the base model")
        raise ModelError(f"{name} has neither config.json nor model_index.json on the hub")
    parts = read_json(index)
    for part in BACKBONES:
        if part in parts:
            file = _fetch(name, f"{part}/config.json")
            if file is not None:
                return Checkpoint(
                    name, read_json(file), name, f"{name}/{part}/config.json", file.parent,
                    fetched=True, names=names_in(file.parent),
                )  # fmt: skip
    raise ModelError(f"{name} is a pipeline without any of {', '.join(BACKBONES)}")


def _fetch(name: str, file: str) -> Path | None:
    """One small file of a model on the hub; `None` where the model has no such file."""
    if find_spec("huggingface_hub") is None:
        raise MissingExtraError("huggingface_hub", "peft", f"{name} is no folder here; the hub")
    import huggingface_hub  # noqa: PLC0415 - not needed for a folder, and slow
    from huggingface_hub.errors import (  # noqa: PLC0415 - as above
        EntryNotFoundError,
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    cached = huggingface_hub.try_to_load_from_cache(name, file)
    if isinstance(cached, str):
        return Path(cached)
    try:
        with _quiet():
            return Path(huggingface_hub.hf_hub_download(name, file))
    except GatedRepoError as error:
        raise ModelError(
            f"{name} is gated: accept its terms on the hub and log in with `hf auth login`"
        ) from error
    except RepositoryNotFoundError as error:
        raise ModelError(
            f"{name}: no such folder, and the hub has no such model (or it is private: "
            "`hf auth login`)"
        ) from error
    except LocalEntryNotFoundError as error:
        raise ModelError(
            f"{name}: no such folder, and the hub cannot be reached; go online, or download the "
            f"configuration elsewhere (`hf download {name} --include '*.json'`) and pass its folder"
        ) from error
    except EntryNotFoundError:
        return None
    except (HfHubHTTPError, OSError) as error:
        raise ModelError(f"{name}: the hub does not answer: {error}") from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps bars for small files and reports of retries from the screen."""
    from huggingface_hub.utils import (  # noqa: PLC0415 - as in `_fetch`
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    logger = logging.getLogger("huggingface_hub")
    level, hidden = logger.level, are_progress_bars_disabled()
    try:
        logger.setLevel(logging.ERROR)
        if not hidden:
            disable_progress_bars()
        yield
    finally:
        logger.setLevel(level)
        if not hidden:
            enable_progress_bars()

"""Folders and ids of a hub -> a configuration and what lies beside it, read with bounds; no torch.

Nothing from a file is executed here, weights are never fetched, and of weights at hand only the
headers are read.
"""

from __future__ import annotations

import os
import re
import stat
import struct
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from peft_shop.errors import ModelError
from peft_shop.files import parse_json, read_bounded

__all__ = ["Checkpoint", "open_checkpoint"]

_BACKBONES: Final = ("transformer", "unet", "prior")
"""Parts of a diffusers pipeline that are fine-tuned, in this order."""
_HUB_ID: Final = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")
_LFS: Final = b"version https://git-lfs.github.com/spec/"
_CONFIG_LIMIT: Final = 16 * 2**20
"""Largest configuration that is read [bytes]; honest ones stay below one MiB."""
_HEADER_LIMIT: Final = 32 * 2**20
"""Most bytes of headers that are read, of all shards together."""
_SHARDS: Final = 512
_ENTRIES: Final = 20_000
"""Most names of a folder that are looked at."""
_STORAGE_FILES: Final = (
    "hf_quant_config.json", "quantize_config.json", "quant_config.json", "quanto_qmap.json",
)  # fmt: skip
"""Where exporters say how weights are stored, beside the configuration."""
_TOKENIZERS: Final = re.compile(
    r"tokenizer.*|vocab\..*|.*\.(tiktoken|spm|model|bpe)|spiece\..*|preprocessor_config\.json|"
    r"processor_config\.json|tekken\.json"
)
_WEIGHTS: Final = re.compile(r".*\.(safetensors|bin|pt|pth|ckpt|msgpack|h5)")
_OWN: Final = re.compile(r"(model|pytorch_model|diffusion_pytorch_model)([-_].*)?\.safetensors")


@dataclass(frozen=True)
class Checkpoint:
    """A model's configuration, and where its other files lie.

    Attributes:
        name: how the user named it.
        content: the configuration; of a pipeline, that of the part that is fine-tuned.
        source: from where code that comes with the model is loaded.
        place: the file of the configuration, for messages.
        folder: where it lies.
        fetched: whether the folder is a cache of the hub, which need not hold all files.
    """

    name: str
    content: dict[str, Any]
    source: str
    place: str
    folder: Path
    fetched: bool = False
    names: tuple[str, ...] = field(default=(), compare=False)

    @cached_property
    def storage_files(self) -> dict[str, Any]:
        """What exporters wrote of the storage, by the names of their files."""
        present = [name for name in self.names if name in _STORAGE_FILES]
        return {name: _read_json(self.folder / name) for name in present}

    @cached_property
    def weights(self) -> tuple[Path, ...]:
        """Files of weights in safetensors, those of the model itself."""
        files = [name for name in self.names if name.endswith(".safetensors")]
        own = [name for name in files if _OWN.fullmatch(name)]
        plain = [name for name in own if name.count(".") == 1]  # others are variants
        return tuple(self.folder / name for name in (plain or own or files)[:_SHARDS])

    @cached_property
    def stored_types(self) -> Counter[str]:
        """Elements of the weights by their type as safetensors names it [count]."""
        return _types(self.weights)

    @cached_property
    def fingerprint(self) -> tuple[tuple[str, int, int], ...]:
        """Name, size and time of change of what is read beside the configuration."""
        found = []
        for path in (*self.weights, *(self.folder / one for one in self.storage_files)):
            try:
                facts = path.stat()
            except OSError:
                continue
            found.append((path.name, facts.st_size, facts.st_mtime_ns))
        return tuple(sorted(found))

    @cached_property
    def remarks(self) -> tuple[str, ...]:
        """What is amiss with its files, each with the next step."""
        found = []
        pointers = [path.name for path in self.weights[:1] if _is_pointer(path)]
        pointers += [
            name
            for name in ("tokenizer.json", "tokenizer.model")
            if name in self.names and _is_pointer(self.folder / name)
        ]
        if pointers:
            found.append(
                f"{', '.join(pointers)} is a Git LFS pointer, not the file: run `git lfs pull` in "
                f"{self.folder} before training"
            )
        whole = any(map(_WEIGHTS.fullmatch, self.names)) and not self.fetched
        if (
            whole
            and "_class_name" not in self.content
            and not any(map(_TOKENIZERS.fullmatch, self.names))
        ):
            found.append(
                f"{self.folder} has weights and no tokenizer or processor: save it there before "
                "training (`tokenizer.save_pretrained(folder)`)"
            )
        return tuple(found)


def open_checkpoint(model: str | Path) -> Checkpoint:
    """The configuration of a local folder, or of a model on the hub.

    Raises:
        ModelError: there is none; the message says why and what to do.
    """
    folder = Path(model).expanduser()
    try:
        there = folder.exists()
    except (OSError, ValueError):
        there = False
    if there or isinstance(model, Path):
        return _open_folder(folder, str(model))
    return _open_hub(str(model))


# --- folders ---


def _open_folder(folder: Path, name: str) -> Checkpoint:
    """The configuration in a local folder.

    Raises:
        ModelError: it is not a folder with a model's configuration.
    """
    if folder.is_file():
        if folder.suffix == ".gguf":
            raise ModelError(_gguf(str(folder)))
        raise ModelError(f"{folder} is a file; pass the folder that holds it")
    if not folder.is_dir():
        raise ModelError(f"{folder}: no such folder")
    names = _names(folder)
    if "model_index.json" in names:
        return _pipeline(folder, name)
    if "config.json" in names:
        place = folder / "config.json"
        return Checkpoint(name, _read_json(place), str(folder), str(place), folder, names=names)
    raise ModelError(_missing(folder, names))


def _names(folder: Path) -> tuple[str, ...]:
    names = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                names.append(entry.name)
                if len(names) >= _ENTRIES:
                    break
    except OSError as error:
        raise ModelError(f"cannot read {folder}: {error.strerror or error}") from error
    return tuple(sorted(names))


def _missing(folder: Path, names: tuple[str, ...]) -> str:
    """What a folder without a configuration holds, and what to do."""
    if "adapter_config.json" in names:
        base = _read_json(folder / "adapter_config.json").get("base_model_name_or_path")
        named = f", {base!r}" if isinstance(base, str) and base else ""
        return (
            f"{folder} holds an adapter, not a model; pass the base model that it was trained "
            f"on{named}"
        )
    nothing = f"{folder} has neither config.json nor model_index.json"
    models = [name for name in names if name.endswith(".gguf")]
    if models:
        return f"{nothing}: {_gguf(models[0])}"
    if "params.json" in names:
        return (
            f"{nothing}: params.json is the original format of Meta or Mistral; convert it to the "
            "one of transformers (its folders models/llama and models/mistral have a script for "
            "that), or pass the id of the model on the hub"
        )
    inside = [
        name
        for name in names
        if os.path.lexists(folder / name / "config.json")
        or os.path.lexists(folder / name / "model_index.json")
    ]
    inside = inside or [
        f"snapshots/{one.name}"
        for one in sorted((folder / "snapshots").glob("*"))[:3]
        if (folder / "snapshots").is_dir()
    ]
    if inside:
        return f"{nothing}; did you mean {' or '.join(str(folder / one) for one in inside[:3])}?"
    if any(map(_WEIGHTS.fullmatch, names)):
        return (
            f"{nothing}, only weights: copy the config.json from where they came from, or save it "
            "there: `config.save_pretrained(folder)`"
        )
    return f"{nothing}; save the model's configuration there: `config.save_pretrained(folder)`"


def _gguf(name: str) -> str:
    return (
        f"{name} is a GGUF file, which is made for inference and cannot be trained; pass the model "
        "that it was made from"
    )


def _pipeline(folder: Path, name: str) -> Checkpoint:
    parts = _read_json(folder / "model_index.json")
    for part in _BACKBONES:
        file = folder / part / "config.json"
        if part in parts and file.is_file():
            return Checkpoint(
                name, _read_json(file), str(folder), str(file), file.parent,
                names=_names(file.parent),
            )  # fmt: skip
    raise ModelError(
        f"{folder}/model_index.json: the pipeline has no {' or '.join(_BACKBONES)} folder with a "
        "config.json; pass the folder of the part that you fine-tune"
    )


# --- files ---


def _read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a small file of a model.

    Raises:
        ModelError: it is no regular file, too large or too deep, a Git LFS pointer, or no object.
    """
    try:
        content = read_bounded(path, _CONFIG_LIMIT, "a configuration")
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror or error}") from error
    if content.startswith(_LFS):
        raise ModelError(
            f"{path} is a Git LFS pointer, not the file: run `git lfs pull` in its folder, or "
            "download the model anew"
        )
    try:
        value = parse_json(content.decode("utf-8"), infinite=True)
    except UnicodeDecodeError as error:
        raise ModelError(f"cannot read {path}: {error}") from error
    except ValueError as error:
        raise ModelError(f"{path}: not JSON: {error}") from error
    if not isinstance(value, dict):
        raise ModelError(f"{path}: expected an object, got {type(value).__name__}")
    return value


def _is_pointer(path: Path) -> bool:
    try:
        if path.stat().st_size > 1024:
            return False
        return read_bounded(path, 1024, "a pointer").startswith(_LFS)
    except OSError:
        return False


def _types(files: tuple[Path, ...]) -> Counter[str]:
    """Elements by type of what the headers of safetensors files list; broken ones are left out."""
    found: Counter[str] = Counter()
    left = _HEADER_LIMIT
    for path in files:
        header = _header(path, left)
        left -= len(header)
        try:
            entries = parse_json(header) if header else {}
        except ValueError:
            continue
        for entry in entries.values() if isinstance(entries, dict) else ():
            shape = entry.get("shape") if isinstance(entry, dict) else None
            if isinstance(shape, list) and all(type(one) is int for one in shape):
                size = 1
                for one in shape:
                    size *= one
                found[str(entry.get("dtype"))] += size
    return found


def _header(path: Path, limit: int) -> bytes:
    """The header of a safetensors file: its length as 8 bytes, little-endian, then JSON."""
    try:
        # no waiting for a writer, should it be a pipe
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        with os.fdopen(handle, "rb") as stream:
            if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                return b""
            start = stream.read(8)
            size = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
            return stream.read(size) if size <= limit else b""
    except OSError:
        return b""


# --- the hub ---


def _open_hub(name: str) -> Checkpoint:
    """The configuration of a model on the hub, from the local cache where it is there."""
    if not _HUB_ID.fullmatch(name):
        raise ModelError(f"{name[:200]}: no such folder, and no id of a model on the hub either")
    main = _fetch(name, "config.json")
    if main is not None:
        content = _read_json(main)
        # code that comes with a model has to be fetched by its name; the rest is here already
        source = name if "auto_map" in content else str(main.parent)
        place = f"{name}/config.json"
        names = _names(main.parent)
        return Checkpoint(name, content, source, place, main.parent, fetched=True, names=names)
    index = _fetch(name, "model_index.json")
    if index is None:
        if _fetch(name, "adapter_config.json") is not None:
            raise ModelError(f"{name} is an adapter, not a model; pass the base model")
        raise ModelError(f"{name} has neither config.json nor model_index.json on the hub")
    parts = _read_json(index)
    for part in _BACKBONES:
        if part in parts:
            file = _fetch(name, f"{part}/config.json")
            if file is not None:
                return Checkpoint(
                    name, _read_json(file), name, f"{name}/{part}/config.json", file.parent,
                    fetched=True, names=_names(file.parent),
                )  # fmt: skip
    raise ModelError(f"{name} is a pipeline without any of {', '.join(_BACKBONES)}")


def _fetch(name: str, file: str) -> Path | None:
    """One small file of a model on the hub; `None` where the model has no such file."""
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

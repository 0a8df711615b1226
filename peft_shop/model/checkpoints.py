"""A model's folder -> its configuration and what lies beside it, read with bounds; no torch.

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
from typing import TYPE_CHECKING, Any, Final

from peft_shop.errors import ModelError
from peft_shop.files import read_bounded
from peft_shop.records import parse_json

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["BACKBONES", "Checkpoint", "names_in", "open_folder", "read_json"]

BACKBONES: Final = ("transformer", "unet", "prior")
"""Parts of a diffusers pipeline that are fine-tuned, in this order."""
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
_POINTED: Final = ("tokenizer.json", "tokenizer.model")
"""Large files that a clone without Git LFS lacks, besides weights."""
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
        names: of what lies in the folder.
    """

    name: str
    content: dict[str, Any]
    source: str
    place: str
    folder: Path
    fetched: bool = False
    names: tuple[str, ...] = field(default=(), compare=False)

    @property
    def remote(self) -> bool:
        """Whether code that comes with the model is part of it."""
        return bool(self.content.get("auto_map"))

    @cached_property
    def storage_files(self) -> dict[str, Any]:
        """What exporters wrote of the storage, by the names of their files."""
        present = [name for name in self.names if name in _STORAGE_FILES]
        return {name: read_json(self.folder / name) for name in present}

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
        others = [name for name in self.names if name in (*_STORAGE_FILES, *_POINTED)]
        for path in (*self.weights, *(self.folder / one for one in others)):
            try:
                facts = path.stat()
            except OSError:
                continue
            found.append((path.name, facts.st_size, facts.st_mtime_ns))
        return tuple(sorted(found))

    @cached_property
    def remarks(self) -> tuple[str, ...]:
        """What is amiss with its files, each with the next step."""
        remarks = []
        pointers = [path.name for path in self.weights[:1] if _is_pointer(path)]
        pointers += [
            name for name in _POINTED if name in self.names and _is_pointer(self.folder / name)
        ]
        if pointers:
            remarks.append(
                f"{', '.join(pointers)} in its folder is a Git LFS pointer, not the file: run "
                "`git lfs pull` there before training."
            )
        whole = any(map(_WEIGHTS.fullmatch, self.names)) and not self.fetched
        if (
            whole
            and "_class_name" not in self.content
            and not any(map(_TOKENIZERS.fullmatch, self.names))
        ):
            remarks.append(
                "Its folder has weights and no tokenizer or processor: save it there before "
                "training (`tokenizer.save_pretrained(folder)`)."
            )
        return tuple(remarks)


# --- folders ---


def open_folder(folder: Path, name: str) -> Checkpoint:
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
    names = names_in(folder)
    if "model_index.json" in names:
        return _pipeline(folder, name)
    if "config.json" in names:
        place = folder / "config.json"
        return Checkpoint(name, read_json(place), str(folder), str(place), folder, names=names)
    raise ModelError(_missing(folder, names))


def names_in(folder: Path) -> tuple[str, ...]:
    """Names of what lies in a folder, sorted; of a very large one, of a part.

    Raises:
        ModelError: it cannot be read.
    """
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
        base = read_json(folder / "adapter_config.json").get("base_model_name_or_path")
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
        f"snapshots/{path.name}"
        for path in sorted((folder / "snapshots").glob("*"))[:3]
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
    parts = read_json(folder / "model_index.json")
    for part in BACKBONES:
        file = folder / part / "config.json"
        if part in parts and file.is_file():
            return Checkpoint(
                name, read_json(file), str(folder), str(file), file.parent,
                names=names_in(file.parent),
            )  # fmt: skip
    raise ModelError(
        f"{folder}/model_index.json: the pipeline has no {' or '.join(BACKBONES)} folder with a "
        "config.json; pass the folder of the part that you fine-tune"
    )


# --- files ---


def read_json(path: Path) -> dict[str, Any]:
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
    types: Counter[str] = Counter()
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
                types[str(entry.get("dtype"))] += size
    return types


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

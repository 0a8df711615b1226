"""Changes of weights -> the whole model with the adapter in it, written one tensor at a time."""

from __future__ import annotations

import copy
import json
import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import torch
from safetensors import safe_open

from peft_shop.conversion.bases import tied
from peft_shop.conversion.deltas import relative
from peft_shop.conversion.report import MERGED_HALF_TOLERANCE, TOLERANCE, LayerReport
from peft_shop.conversion.writing import DTYPES, TensorEntry, write_tensors
from peft_shop.errors import ConversionError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from peft_shop.conversion.bases import BaseWeights
    from peft_shop.conversion.deltas import LayerChange
    from peft_shop.conversion.plan import Plan
    from peft_shop.conversion.reading import AdapterFolder

__all__ = ["MergedParts"]

_SHARD: Final = 5 * 10**9
"""Bytes of a file, as transformers cuts them."""
_COPIED: Final = (".json", ".txt", ".model", ".jinja")
_NOT_COPIED: Final = ("config.json", "adapter_config.json")


@dataclass
class MergedParts:
    """New weights as they are made, kept on disk until the model is written.

    Attributes:
        scratch: folder for them.
        base: the base model.
        dtype: name of the type of the numbers; `None` for that of the base's own.
    """

    scratch: Path
    base: BaseWeights
    dtype: str | None
    layers: list[LayerReport] = field(default_factory=list)
    files: dict[str, Path] = field(default_factory=dict)
    halves: bool = False
    """Whether new weights were rounded to 16 bits."""

    @property
    def tolerance(self) -> float:
        """Largest error and deviation [1] that count as done, where the user gives none."""
        return TOLERANCE if self.judges_layers else MERGED_HALF_TOLERANCE

    @property
    def judges_layers(self) -> bool:
        """Whether the layers' errors decide, besides the outputs."""
        return not self.halves

    def add(self, change: LayerChange) -> None:
        """Takes the new weights of one layer, rounded to the output's type.

        Raises:
            ConversionError: the base has no place for one, such as a bias.
        """
        state = self.base.skeleton().state_dict()
        off, size = 0.0, change.size
        shape: tuple[int, ...] = ()
        for name, new in change.new.items():
            full = f"{change.name}.{name}"
            if full not in state:
                raise ConversionError(
                    f"{full}: the adapter makes one, but {type(self.base.skeleton()).__name__} "
                    "has none there, so a merged model cannot hold it"
                )
            stored = self._store(full, new)
            old = self.base.weight(full).to(new.dtype)
            off = max(off, relative(stored.to(new.dtype) - new, new - old))
            size = max(size, relative(new - old, old))
            shape = tuple(new.shape)
        self.layers.append(
            LayerReport(
                name=change.name,
                kind=change.kind,
                shape=shape or (0,),
                way="merged",
                rank=0,
                size=size,
                error=off,
            )
        )

    def copy(self, source: AdapterFolder, found: Plan) -> None:
        """Takes parameters that the adapter holds whole: heads, embeddings, biases."""
        named = {key: key.removeprefix("base_model.model.") for key in found.saved}
        for key, name in {**named, **found.replaced}.items():
            new = source.tensors([key])[key].to(torch.float32)
            stored = self._store(name, new)
            known = self.base.dtype(name) is not None
            old = self.base.weight(name).to(torch.float32) if known else torch.zeros_like(new)
            if old.shape != new.shape:
                raise ConversionError(
                    f"{source.weights}: {key} has the shape {list(new.shape)}, and the base's is "
                    f"{list(old.shape)}; give the base that was trained on, resized as it was"
                )
            self.layers.append(
                LayerReport(
                    name=name,
                    kind="other",
                    shape=tuple(new.shape),
                    way="copied",
                    rank=0,
                    size=relative(new - old, old) if known else 1.0,
                    error=relative(stored.float() - new, new - old),
                )
            )

    def _store(self, name: str, new: Any) -> Any:
        dtype = DTYPES[self.dtype] if self.dtype else self.base.dtype(name) or torch.float32
        self.halves = self.halves or dtype.itemsize < torch.float32.itemsize
        stored = new.to(dtype).contiguous()
        path = self.scratch / f"{len(self.files)}.safetensors"
        write_tensors(path, [TensorEntry("new", tuple(stored.shape), dtype, lambda: stored)], {})
        self.files[name] = path
        return stored

    # --- the folder ---

    def size(self) -> int:
        """Bytes of the output's tensors."""
        return sum(entry.size for entry in self._entries())

    def write(self, folder: Path) -> None:
        """Writes weights, configuration and what else belongs to the base's folder."""
        entries = self._entries()
        diffusion = isinstance(self.base.config, dict)
        stem = "diffusion_pytorch_model" if diffusion else "model"
        shards = list(_shards(entries))
        where: dict[str, str] = {}
        for number, shard in enumerate(shards, start=1):
            single = len(shards) == 1
            name = (
                f"{stem}.safetensors"
                if single
                else (f"{stem}-{number:05d}-of-{len(shards):05d}.safetensors")
            )
            write_tensors(folder / name, shard, {"format": "pt"})
            where |= {entry.key: name for entry in shard}
        if len(shards) > 1:
            total = sum(entry.size for entry in entries)
            index = {"metadata": {"total_size": total}, "weight_map": where}
            (folder / f"{stem}.safetensors.index.json").write_text(
                json.dumps(index, indent=2), encoding="utf-8"
            )
        self._configure(folder, entries)

    def _configure(self, folder: Path, entries: Iterable[TensorEntry]) -> None:
        skeleton = self.base.skeleton()
        if self.base.folder is not None:
            for file in sorted(self.base.folder.iterdir()):
                named = file.name.endswith(_COPIED) and not file.name.endswith(".index.json")
                if file.is_file() and named and file.name not in _NOT_COPIED:
                    shutil.copyfile(file, folder / file.name)
        if isinstance(self.base.config, dict):
            text = json.dumps(self.base.config, indent=2) + "\n"
            (folder / "config.json").write_text(text, encoding="utf-8")
        elif hasattr(skeleton, "config") and hasattr(skeleton.config, "save_pretrained"):
            config = copy.deepcopy(skeleton.config)
            config.architectures = [type(skeleton).__name__]
            kinds = {entry.dtype for entry in entries if entry.dtype.is_floating_point}
            if len(kinds) == 1:
                config.dtype = str(kinds.pop()).removeprefix("torch.")
            if self._untied():
                config.tie_word_embeddings = False
            config.save_pretrained(str(folder))

    def _untied(self) -> set[str]:
        """Names that shared a weight in the base and have different ones now."""
        loose: set[str] = set()
        for names in tied(self.base.skeleton()):
            changed = [name for name in names if name in self.files]
            if changed and (len(changed) < len(names) or not self._alike(changed)):
                loose |= set(names)
        return loose

    def _alike(self, names: list[str]) -> bool:
        """Whether the new weights of several names are the same."""
        first, *others = (_Weight(self, name)() for name in names)
        return all(torch.equal(first, other) for other in others)

    def _entries(self) -> list[TensorEntry]:
        skeleton = self.base.skeleton()
        parameters = dict(skeleton.named_parameters(remove_duplicate=False))
        loose = self._untied()
        twins = {name for names in tied(skeleton) for name in names[1:] if not loose & set(names)}
        entries = []
        for name, stand_in in skeleton.state_dict().items():
            if name in twins:
                continue
            stored = self.base.dtype(name)
            if stored is None and name not in self.files:
                if name not in parameters:
                    continue  # a buffer that the model makes by itself
                stored = self.base.weight(name).dtype  # stored under another name, or an error
            dtype = stored or torch.float32
            if self.dtype and dtype.is_floating_point:
                dtype = DTYPES[self.dtype]
            entries.append(TensorEntry(name, tuple(stand_in.shape), dtype, _Weight(self, name)))
        return entries


@dataclass(frozen=True)
class _Weight:
    """A weight of the merged model."""

    parts: MergedParts
    name: str

    def __call__(self) -> Any:
        path = self.parts.files.get(self.name)
        if path is None:
            return self.parts.base.weight(self.name)
        with safe_open(path, framework="pt") as file:
            return file.get_tensor("new")


def _shards(entries: Iterable[TensorEntry]) -> Iterable[list[TensorEntry]]:
    """Entries in groups of at most a file's size."""
    group: list[TensorEntry] = []
    for entry in entries:
        if group and sum(one.size for one in group) + entry.size > _SHARD:
            yield group
            group = []
        group.append(entry)
    if group:
        yield group

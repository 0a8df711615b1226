"""An adapter folder -> what is in it: configuration, names, shapes, and tensors on request.

Nothing is executed and nothing is held: tensors are read from the safetensors file one at a time.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
from peft import PeftConfig
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from peft_shop.conversion.foreign import refuse_what_is_not_pefts
from peft_shop.conversion.headers import read_header
from peft_shop.conversion.refusals import refuse_what_is_no_weight
from peft_shop.errors import ConversionError
from peft_shop.serve.adapter import CONFIG_FILE, Adapter, read_adapter

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from peft_shop.catalog.catalog import Catalog
    from peft_shop.records import Json

__all__ = ["PREFIX", "RECOMPUTED", "WEIGHTS_FILE", "AdapterFolder", "open_adapter"]

WEIGHTS_FILE: Final = "adapter_model.safetensors"
PREFIX: Final = "base_model.model."
"""What peft puts before the name of every module of the base."""
RECOMPUTED: Final = frozenset(("frod", "adamss", "psoft", "osf"))
"""Methods that make frozen factors from the base again when they load: those must fit the trained
ones to the last digit."""
_IS_LORA: Final = re.compile(r"\.(lora|hada|lokr|oft|vera|ia3|miss|boft|hra|ln_tuning)_")
"""In keys of adapters, never in those of models."""
_DOT: Final = re.compile(r"\.")
_PATTERNS: Final = ("rank_pattern", "alpha_pattern")
_MOVED: Final = (
    *_PATTERNS,
    "target_modules",
    "layers_to_transform",
    "layers_pattern",
    "exclude_modules",
)
_COARSE: Final = frozenset((torch.bfloat16, torch.float16))


@dataclass(frozen=True)
class AdapterFolder:
    """An adapter that peft saved.

    Attributes:
        folder: where it lies.
        config: `adapter_config.json`.
        adapter: method, variants and traits.
        shapes: of every tensor, by the key that peft reads.
        notes: what a reader of the report should know.
        targets: names of the adapted modules, where they are not for the configuration to say.
    """

    folder: Path
    config: Mapping[str, Json]
    adapter: Adapter
    shapes: Mapping[str, tuple[int, ...]]
    notes: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    _stored: Mapping[str, str] = field(default_factory=dict)

    @property
    def weights(self) -> Path:
        """The file of its tensors."""
        return self.folder / WEIGHTS_FILE

    @property
    def renamed(self) -> bool:
        """Whether keys of the file are not those that peft would read."""
        return bool(self._stored)

    def tensors(self, keys: Iterable[str]) -> dict[str, Any]:
        """Tensors of `keys` as they are stored, read now."""
        with safe_open(self.weights, framework="pt") as file:
            return {key: file.get_tensor(self._stored.get(key, key)).clone() for key in keys}

    def under_other_names(self, names: Mapping[str, str], note: str) -> AdapterFolder:
        """The same adapter with keys that peft reads on the base.

        Args:
            names: other key of every key.
            note: what to tell about it.
        """
        shapes = {names[key]: shape for key, shape in self.shapes.items()}
        stored = {names[key]: self._stored.get(key, key) for key in self.shapes}
        return replace(self, shapes=shapes, _stored=stored, notes=(*self.notes, note))

    def moved(self, old: str, new: str, modules: Iterable[str], note: str) -> AdapterFolder:
        """The same adapter on a base whose modules begin with `new` instead of `old`.

        Args:
            old: beginning of the names in the file, with its dot; may be empty.
            new: that of the base.
            modules: names in the base that are adapted.
            note: what to tell about it.
        """
        names = {key: f"{PREFIX}{new}{key.removeprefix(PREFIX + old)}" for key in self.shapes}
        config = dict(self.config)
        for part in _PATTERNS:
            pattern = config.get(part)
            if isinstance(pattern, dict):
                config[part] = {_moved(key, old, new): value for key, value in pattern.items()}
        targets = tuple(modules)
        config |= {
            "target_modules": list(targets),
            "layers_to_transform": None,
            "layers_pattern": None,
            "exclude_modules": None,
        }
        config = {key: value for key, value in config.items() if key in self.config or value}
        return replace(self.under_other_names(names, note), config=config, targets=targets)

    def write_for_peft(self, folder: Path) -> Path:
        """The folder that peft loads: its own, or a copy in `folder` with the names it needs."""
        if not self.renamed and not self.targets:
            return self.folder
        folder.mkdir()
        (folder / CONFIG_FILE).write_text(json.dumps(self.config), encoding="utf-8")
        save_file(self.tensors(self.shapes), folder / WEIGHTS_FILE)
        return folder

    def under(self, module: str) -> tuple[str, ...]:
        """Keys that belong to one module of the base."""
        return tuple(self._by_module.get(module, ()))

    @cached_property
    def _by_module(self) -> Mapping[str, list[str]]:
        """Keys by every module that they lie under; an adapter of experts has many of both."""
        found: dict[str, list[str]] = {}
        for key in self.shapes:
            inner = key.removeprefix(PREFIX)
            if inner != key:
                for dot in _DOT.finditer(inner):
                    found.setdefault(inner[: dot.start()], []).append(key)
        return found

    def peft_config(self) -> Any:
        """A new configuration object, for plain modules: no task, no whole modules, frozen."""
        try:
            config = PeftConfig.from_pretrained(str(self.folder))
        except Exception as error:
            text = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            raise ConversionError(
                f"{self.folder / CONFIG_FILE}: the installed peft refuses it: {text}"
            ) from error
        for name in _MOVED if self.targets else ():
            if hasattr(config, name) and (name in self.config or name not in _PATTERNS):
                setattr(config, name, self.config.get(name))
        config.task_type = None
        config.inference_mode = True
        for name in ("modules_to_save", "trainable_token_indices"):
            if getattr(config, name, None):
                setattr(config, name, None)  # taken care of apart from the layers
        return config


def _moved(pattern: str, old: str, new: str) -> str:
    """A pattern for names that begin with `new` instead of `old`."""
    for begin, instead in ((old, new), (re.escape(old), re.escape(new))):
        if old and pattern.startswith(begin):
            return instead + pattern.removeprefix(begin)
    return pattern


def open_adapter(catalog: Catalog, path: str | Path) -> AdapterFolder:
    """The adapter in a folder, checked: complete, readable and finite.

    Raises:
        AdapterError: its configuration cannot be read.
        ConversionError: its weights cannot be read, are not finite, or were rounded where that
            makes them worthless.
    """
    folder = Path(path)
    refuse_what_is_not_pefts(folder)
    adapter = read_adapter(catalog, folder)
    refuse_what_is_no_weight(adapter, folder)
    config = json.loads((folder / CONFIG_FILE).read_bytes())
    if config.get("megatron_config"):
        raise ConversionError(
            f"{folder / CONFIG_FILE}: megatron_config: peft would import the module that "
            "megatron_core names; an adapter of Megatron-LM is converted with its own tools"
        )
    file = folder / WEIGHTS_FILE
    if not file.exists():
        hint = "save it again with save_pretrained(folder)"
        if (folder / "adapter_model.bin").is_file():
            hint = (
                "there is an adapter_model.bin, which is a pickle and can execute code: load it "
                "with peft and " + hint
            )
        raise ConversionError(f"{folder}: there is no {WEIGHTS_FILE}; {hint}")
    read_header(file)
    shapes: dict[str, tuple[int, ...]] = {}
    dtypes: dict[str, Any] = {}
    for key, tensor in _read(file):
        shapes[key] = tuple(tensor.shape)
        if tensor.is_floating_point():
            dtypes[key] = tensor.dtype
            if not bool(torch.isfinite(tensor).all()):
                bad = int((~torch.isfinite(tensor)).sum())
                raise ConversionError(
                    f"{file}: {key}: {bad} of {tensor.numel()} numbers are not finite; the "
                    "training has diverged, and no conversion mends that; take an earlier one"
                )
    if not shapes:
        raise ConversionError(f"{file}: holds no tensors; was the adapter saved before training?")
    coarse = sorted(key for key, dtype in dtypes.items() if dtype in _COARSE)
    if adapter.method in RECOMPUTED and coarse:
        raise ConversionError(
            f"{file}: {coarse[0]}: stored as {str(dtypes[coarse[0]]).removeprefix('torch.')}, but "
            f"{adapter.method} makes its frozen factors anew from the base and needs the trained "
            "numbers as they were; save the adapter in fp32 (load the base in fp32 to train it, or "
            "leave autocast_adapter_dtype on)"
        )
    return _with_usual_names(AdapterFolder(folder, config, adapter, shapes))


def _with_usual_names(source: AdapterFolder) -> AdapterFolder:
    """The adapter with the keys that peft would have written."""
    bare = [key for key in source.shapes if not key.startswith(PREFIX)]
    if len(bare) < len(source.shapes) or not any(_IS_LORA.search(key) for key in bare):
        return source
    names = {key: PREFIX + key.removeprefix("base_model.") for key in bare}
    return source.under_other_names(
        names,
        f"The keys of {WEIGHTS_FILE} lack peft's prefix {PREFIX.rstrip('.')} (such as {bare[0]}): "
        "it was added. peft itself loads nothing of such a file, without an error.",
    )


def _read(file: Path) -> Iterator[tuple[str, Any]]:
    """Every tensor of a file, one at a time."""
    try:
        with safe_open(file, framework="pt") as opened:
            for key in opened.keys():  # noqa: SIM118 - not a dictionary
                yield key, opened.get_tensor(key)
    except (SafetensorError, OSError) as error:
        raise ConversionError(f"{file}: not a safetensors file: {error}") from error

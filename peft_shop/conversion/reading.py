"""An adapter folder -> what is in it: configuration, names, shapes, and tensors on request.

Nothing is executed and nothing is held: tensors are read from the safetensors file one at a time.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
from peft import PeftConfig
from safetensors import SafetensorError, safe_open

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
_COARSE: Final = frozenset((torch.bfloat16, torch.float16))


@dataclass(frozen=True)
class AdapterFolder:
    """An adapter that peft saved.

    Attributes:
        folder: where it lies.
        config: `adapter_config.json`.
        adapter: method, variants and traits.
        shapes: of every tensor, by key.
    """

    folder: Path
    config: Mapping[str, Json]
    adapter: Adapter
    shapes: Mapping[str, tuple[int, ...]]
    _dtypes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def weights(self) -> Path:
        """The file of its tensors."""
        return self.folder / WEIGHTS_FILE

    def tensors(self, keys: Iterable[str]) -> dict[str, Any]:
        """Tensors of `keys` as they are stored, read now."""
        with safe_open(self.weights, framework="pt") as file:
            return {key: file.get_tensor(key).clone() for key in keys}

    def under(self, module: str) -> tuple[str, ...]:
        """Keys that belong to one module of the base."""
        start = f"{PREFIX}{module}."
        return tuple(key for key in self.shapes if key.startswith(start))

    def peft_config(self) -> Any:
        """A new configuration object, for plain modules: no task, no whole modules, frozen."""
        try:
            config = PeftConfig.from_pretrained(str(self.folder))
        except (TypeError, ValueError, ImportError) as error:
            raise ConversionError(
                f"{self.folder / CONFIG_FILE}: the installed peft refuses it: {error}"
            ) from error
        config.task_type = None
        config.inference_mode = True
        for name in ("modules_to_save", "trainable_token_indices"):
            if getattr(config, name, None):
                setattr(config, name, None)  # taken care of apart from the layers
        return config


def open_adapter(catalog: Catalog, path: str | Path) -> AdapterFolder:
    """The adapter in a folder, checked: complete, readable and finite.

    Raises:
        AdapterError: its configuration cannot be read.
        ConversionError: its weights cannot be read, are not finite, or were rounded where that
            makes them worthless.
    """
    folder = Path(path)
    if not folder.is_dir():
        reason = "is a file, not a folder" if folder.exists() else "there is no such folder"
        raise ConversionError(
            f"{folder}: {reason}; name the folder that peft's save_pretrained made"
        )
    adapter = read_adapter(catalog, folder)
    refuse_what_is_no_weight(adapter, folder)
    config = json.loads((folder / CONFIG_FILE).read_bytes())
    file = folder / WEIGHTS_FILE
    if not file.is_file():
        hint = "save it again with save_pretrained(folder)"
        if (folder / "adapter_model.bin").is_file():
            hint = (
                "there is an adapter_model.bin, which is a pickle and can execute code: load it "
                "with peft and " + hint
            )
        raise ConversionError(f"{folder}: there is no {WEIGHTS_FILE}; {hint}")
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
    return AdapterFolder(folder, config, adapter, shapes, dtypes)


def _read(file: Path) -> Iterator[tuple[str, Any]]:
    """Every tensor of a file, one at a time."""
    try:
        with safe_open(file, framework="pt") as opened:
            for key in opened.keys():  # noqa: SIM118 - not a dictionary
                yield key, opened.get_tensor(key)
    except (SafetensorError, OSError) as error:
        raise ConversionError(f"{file}: not a safetensors file: {error}") from error

"""Where a base model comes from: a folder, the hub's cache, or memory.

Of a folder only the shards' headers are read at first; a weight is read when it is asked for.
"""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
import transformers
from safetensors import SafetensorError, safe_open
from torch import nn

from peft_shop.conversion.bases import QUANTIZED, Base, ModuleBase, tied
from peft_shop.errors import ConversionError, nearest_names

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["FolderBase", "open_base"]

_INDEXES: Final = ("model.safetensors.index.json", "diffusion_pytorch_model.safetensors.index.json")
_SINGLES: Final = ("model.safetensors", "diffusion_pytorch_model.safetensors")
_CLASSES: Final = {
    "CAUSAL_LM": "AutoModelForCausalLM",
    "SEQ_2_SEQ_LM": "AutoModelForSeq2SeqLM",
    "SEQ_CLS": "AutoModelForSequenceClassification",
    "TOKEN_CLS": "AutoModelForTokenClassification",
    "QUESTION_ANS": "AutoModelForQuestionAnswering",
    "FEATURE_EXTRACTION": "AutoModel",
}
_FLOATS: Final = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}
_TYPES: Final = _FLOATS | {
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


@dataclass
class FolderBase:
    """A base model in a folder, as transformers or diffusers save it."""

    name: str
    folder: Path | None
    path: Path
    config: Any
    builder: Any
    notes: list[str] = field(default_factory=list)
    files: Mapping[str, Path] = field(default_factory=dict)
    """The shard of every stored key."""
    places: Mapping[str, str] = field(default_factory=dict)
    """The stored key of every parameter and buffer."""
    _skeleton: Any = None
    _loaded: Any = None
    _missing: frozenset[str] = frozenset()

    @classmethod
    def of(cls, name: str, folder: Path, task_type: str | None, classes: int | None) -> FolderBase:
        """Reads configuration and headers, and builds the skeleton."""
        document = _document(folder)
        if document.get("quantization_config"):
            how = str(document["quantization_config"].get("quant_method", "quantized"))
            raise ConversionError(QUANTIZED.format(how=how))
        files = _shards(folder)
        if "_class_name" in document:
            config, builder = document, _diffusers_class(document["_class_name"])
        else:
            config, builder = _transformers_class(folder, task_type)
            if classes is not None and hasattr(config, "num_labels"):
                config.num_labels = classes
        made = cls(name, folder, folder, config, builder, files=files)
        made._match(document)
        return made

    def skeleton(self) -> Any:
        """The model on the meta device."""
        if self._skeleton is None:
            try:
                with torch.device("meta"):
                    self._skeleton = (
                        self.builder.from_config(self.config)
                        if hasattr(self.builder, "from_config")
                        else self.builder._from_config(self.config)  # noqa: SLF001 - no other way
                    ).eval()
            except (ValueError, KeyError, TypeError, AttributeError, ImportError) as error:
                raise ConversionError(
                    f"base {self.path}: cannot be built as {self.builder.__name__}: {error}; give "
                    "the model itself, as a torch module, in Python"
                ) from error
        return self._skeleton

    def weight(self, name: str) -> Any:
        """A parameter or buffer as it is stored."""
        key = self.places.get(name)
        if key is not None and self._loaded is None:
            with safe_open(self.files[key], framework="pt") as file:
                return file.get_tensor(key)
        return self._whole_state(name)[name]

    def _whole_state(self, name: str) -> Mapping[str, Any]:
        """Weights of the model, loaded whole because the file stores them under other names."""
        if self._loaded is None:
            model, info = self.builder.from_pretrained(
                str(self.path),
                local_files_only=True,
                config=copy.deepcopy(self.config),
                output_loading_info=True,
            )
            self._missing = frozenset(info["missing_keys"])
            self._loaded = model.state_dict()
            self.notes.append(
                "The base was loaded whole, because its file stores some weights under other "
                f"names than the model has (such as {name})."
            )
        if name in self._missing or name not in self._loaded:
            raise ConversionError(f"base {self.path}: it has no weights for {name}")
        loaded: Mapping[str, Any] = self._loaded
        return loaded

    def dtype(self, name: str) -> Any:
        """Type of a stored parameter or buffer; `None` where there is none."""
        if self._loaded is not None:
            found = None if name in self._missing else self._loaded.get(name)
            return None if found is None else found.dtype
        key = self.places.get(name)
        if key is None:
            return None
        with safe_open(self.files[key], framework="pt") as file:
            return _TYPES[file.get_slice(key).get_dtype()]

    def whole(self) -> Any:
        """The model in fp32, loaded anew."""
        options: dict[str, Any] = {"local_files_only": True}
        if isinstance(self.config, dict):
            options["torch_dtype"] = torch.float32
        else:
            options |= {"dtype": torch.float32, "config": copy.deepcopy(self.config)}
            options["attn_implementation"] = "eager"
        return self.builder.from_pretrained(str(self.path), **options).float().eval()

    def _match(self, document: Mapping[str, Any]) -> None:
        """Finds the stored key of every parameter; loads the model whole where names differ."""
        skeleton = self.skeleton()
        state = {name: tuple(tensor.shape) for name, tensor in skeleton.state_dict().items()}
        prefix = f"{getattr(skeleton, 'base_model_prefix', '') or ''}."
        places: dict[str, str] = {}
        for key in self.files:
            for name in (key, prefix + key, key.removeprefix(prefix)):
                if name in state:
                    places[name] = key
                    break
        for names in tied(skeleton):
            known = next((places[name] for name in names if name in places), None)
            if known is not None:
                places |= dict.fromkeys(names, known)
        self.places = places
        if not places:
            some = next(iter(state), "")
            near = nearest_names(some, self.files)
            raise ConversionError(
                f"base {self.path}: its weights do not belong to a {type(skeleton).__name__}: "
                f"nothing like {some!r} among them; nearest: {', '.join(near) or 'none'}"
            )
        self._check_shapes(state, document)

    def _check_shapes(
        self, state: Mapping[str, tuple[int, ...]], document: Mapping[str, Any]
    ) -> None:
        found: dict[str, tuple[int, ...]] = {}
        for path in set(self.files.values()):
            with safe_open(path, framework="pt") as file:
                for key in file.keys():  # noqa: SIM118 - not a dictionary
                    part = file.get_slice(key)
                    found[key] = tuple(part.get_shape())
                    if part.get_dtype() not in _FLOATS and key.endswith(".weight"):
                        raise ConversionError(QUANTIZED.format(how=f"{key} is {part.get_dtype()}"))
        for name, key in self.places.items():
            if found[key] != state[name]:
                raise ConversionError(
                    f"{self.path}: {key} has the shape {list(found[key])}, but its config.json "
                    f"({document.get('model_type') or document.get('_class_name')}) gives "
                    f"{list(state[name])}"
                )


def _document(folder: Path) -> dict[str, Any]:
    file = folder / "config.json"
    try:
        found = json.loads(file.read_bytes())
    except OSError as error:
        hint = (
            "is it an adapter's folder?"
            if (folder / "adapter_config.json").is_file()
            else ("name the folder of a model; of a pipeline, the model's own, such as unet")
        )
        raise ConversionError(f"base {folder}: there is no config.json; {hint}") from error
    except ValueError as error:
        raise ConversionError(f"{file}: not JSON: {error}") from error
    if not isinstance(found, dict):
        raise ConversionError(f"{file}: expected a JSON object, got {type(found).__name__}")
    return found


def _shards(folder: Path) -> dict[str, Path]:
    """The file of every stored key."""
    found: dict[str, Path] = {}
    paths = [folder / name for name in _SINGLES if (folder / name).is_file()][:1]
    for index in [folder / name for name in _INDEXES if (folder / name).is_file()][:1]:
        try:
            paths = [
                folder / name for name in set(json.loads(index.read_bytes())["weight_map"].values())
            ]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConversionError(f"{index}: not an index of shards: {error}") from error
    if not paths:
        raise ConversionError(
            f"base {folder}: there are no safetensors weights; save the model again with "
            "save_pretrained"
        )
    for path in sorted(paths):
        try:
            with safe_open(path, framework="pt") as file:
                found |= dict.fromkeys(file.keys(), path)
        except (SafetensorError, OSError) as error:
            raise ConversionError(f"{path}: not a safetensors file: {error}") from error
    return found


def _transformers_class(folder: Path, task_type: str | None) -> tuple[Any, Any]:
    try:
        config = transformers.AutoConfig.from_pretrained(str(folder), local_files_only=True)
    except (ValueError, KeyError, OSError) as error:
        raise ConversionError(f"{folder / 'config.json'}: {error}") from error
    auto = _CLASSES.get(task_type or "")
    if auto is not None:
        return config, getattr(transformers, auto)
    for name in getattr(config, "architectures", None) or ():
        if hasattr(transformers, name):
            return config, getattr(transformers, name)
    return config, transformers.AutoModel


def _diffusers_class(name: str) -> Any:
    try:
        import diffusers  # noqa: PLC0415 - only for image models
    except ImportError as error:
        raise ConversionError(
            f"the base is a {name}, which needs diffusers; run: pip install diffusers"
        ) from error
    if not hasattr(diffusers, name):
        raise ConversionError(f"the installed diffusers {diffusers.__version__} has no {name}")
    return getattr(diffusers, name)


def open_base(base: object, *, task_type: str | None, classes: int | None = None) -> Base:
    """The base model that `base` stands for.

    Args:
        base: a folder, an identifier of the hub, or a `torch.nn.Module`.
        task_type: of the adapter, which decides on the model's class.
        classes: outputs of the head that the adapter brings, if any.

    Raises:
        ConversionError: there is no such model, or it is quantized.
    """
    if isinstance(base, nn.Module):
        return ModuleBase.of(base)
    if not isinstance(base, str | Path):
        raise ConversionError(
            f"base: expected a folder, the identifier of a cached model or a torch module, got "
            f"{type(base).__name__}"
        )
    folder = Path(base)
    if not folder.is_dir():
        folder = _cached(str(base))
    return FolderBase.of(str(base), folder, task_type, classes)


def _cached(name: str) -> Path:
    from huggingface_hub import snapshot_download  # noqa: PLC0415 - only for identifiers
    from huggingface_hub.errors import (  # noqa: PLC0415 - as above
        HFValidationError,
        LocalEntryNotFoundError,
    )

    try:
        return Path(snapshot_download(name, local_files_only=True))
    except (HFValidationError, LocalEntryNotFoundError) as error:
        raise ConversionError(
            f"base {name!r}: neither a folder nor a model in the hub's cache; fetch it first: "
            f"hf download {name}"
        ) from error

"""Where a base model comes from: a folder, the hub's cache, or memory.

Of a folder only the shards' headers are read at first; a weight is read when it is asked for.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
from safetensors import safe_open
from torch import nn

from peft_shop.conversion.bases import QUANTIZED, BaseWeights, ModuleBase, quiet, tied
from peft_shop.conversion.classes import BaseClass, base_classes, read_config
from peft_shop.conversion.headers import FLOATS, Stored, json_object, read_header
from peft_shop.errors import ConversionError, nearest_names

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

__all__ = ["FolderBase", "open_base"]

_INDEXES: Final = ("model.safetensors.index.json", "diffusion_pytorch_model.safetensors.index.json")
_SINGLES: Final = ("model.safetensors", "diffusion_pytorch_model.safetensors")
_NO_NAMES: Final = ("", ".", "..")
_TYPES: Final = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
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
    kind: BaseClass
    notes: list[str] = field(default_factory=list)
    files: Mapping[str, Path] = field(default_factory=dict)
    """The shard of every stored key."""
    stored: Mapping[str, Stored] = field(default_factory=dict)
    """Type and shape of every stored key."""
    places: Mapping[str, str] = field(default_factory=dict)
    """The stored key of every parameter and buffer."""
    absent: tuple[str, ...] = ()
    """Parameters that no file holds, so that they start at random; known once it was loaded."""
    _skeleton: Any = None
    _loaded: Any = None
    _missing: frozenset[str] = frozenset()

    @classmethod
    def of(
        cls,
        name: str,
        folder: Path,
        task_type: str | None,
        classes: int | None,
        modules: Collection[str],
        *,
        trust_remote_code: bool,
    ) -> FolderBase:
        """Reads configuration and headers, and builds the skeleton of the class that fits.

        Args:
            name: as the user named it.
            folder: where it lies.
            task_type: of the adapter.
            classes: outputs of the head that the adapter brings.
            modules: names that the class should have modules for.
            trust_remote_code: whether code that comes with the model may run.
        """
        document = read_config(folder)
        quantization = document.get("quantization_config")
        if quantization:
            stated = quantization if isinstance(quantization, dict) else {}
            raise ConversionError(
                QUANTIZED.format(how=str(stated.get("quant_method", "quantized")))
            )
        files, stored = _shards(folder)
        first, failure = None, None
        for kind in base_classes(folder, document, task_type, trust_remote_code=trust_remote_code):
            if classes is not None and hasattr(kind.config, "num_labels"):
                kind.config.num_labels = classes
            made = cls(name, folder, folder, kind, files=files, stored=stored)
            try:
                made.skeleton()
                made._match(document)
            except ConversionError as error:
                failure = failure or error
                continue
            first = first or made
            if made._has(modules):
                return made
        if first is None:
            raise failure or ConversionError(f"base {folder}: nothing that could be built")
        return first

    @property
    def config(self) -> Any:
        """The configuration."""
        return self.kind.config

    def _has(self, modules: Collection[str]) -> bool:
        """Whether the model has all of some modules."""
        return set(modules) <= {name for name, _ in self.skeleton().named_modules()}

    def skeleton(self) -> Any:
        """The model on the meta device."""
        if self._skeleton is None:
            builder = self.kind.builder
            build = getattr(builder, "from_config", None) or builder._from_config  # noqa: SLF001 - no other way
            try:
                with torch.device("meta"):
                    self._skeleton = build(copy.deepcopy(self.config), **self.kind.options).eval()
            except Exception as error:
                text = " ".join(f"{type(error).__name__}: {error}".split())[:300]
                raise ConversionError(
                    f"base {self.path}: cannot be built as {builder.__name__}: {text}; give the "
                    "model itself, as a torch module, in Python"
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
            model, info = self._load(output_loading_info=True)
            self._missing = frozenset(info["missing_keys"])
            self._loaded = model.state_dict()
            self.notes.append(
                "The base was loaded whole, because its file stores some weights under other "
                f"names than the model has (such as {name})."
            )
        if name in self._missing or name not in self._loaded:
            raise ConversionError(
                f"base {self.path}: it has no weights for {name}, and the adapter brings none: "
                "they started at random in the training and were not saved, so no whole model can "
                "be written; train again with that module in modules_to_save, or keep the LoRA"
            )
        loaded: Mapping[str, Any] = self._loaded
        return loaded

    def dtype(self, name: str) -> Any:
        """Type of a stored parameter or buffer; `None` where there is none."""
        if self._loaded is not None:
            found = None if name in self._missing else self._loaded.get(name)
            return None if found is None else found.dtype
        key = self.places.get(name)
        return None if key is None else _TYPES.get(self.stored[key].dtype)

    def whole(self) -> Any:
        """The model in fp32, loaded anew; what its files do not hold is the same each time."""
        torch.manual_seed(0)
        options: dict[str, Any] = {"output_loading_info": True}
        if isinstance(self.config, dict):
            options["torch_dtype"] = torch.float32
        else:
            options |= {"dtype": torch.float32, "attn_implementation": "eager"}
        model, info = self._load(**options)
        self.absent = tuple(sorted(info["missing_keys"]))
        return model.float().eval()

    def _load(self, **options: Any) -> Any:
        """What transformers or diffusers makes of the folder, from safetensors files alone."""
        options |= {"local_files_only": True, "use_safetensors": True, **self.kind.options}
        if not isinstance(self.config, dict):
            options["config"] = copy.deepcopy(self.config)
            options.setdefault("trust_remote_code", False)
        try:
            with quiet():
                return self.kind.builder.from_pretrained(str(self.path), **options)
        except Exception as error:
            text = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            raise ConversionError(
                f"base {self.path}: {self.kind.builder.__name__} does not load: {text}"
            ) from error

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
        for key, stored in self.stored.items():
            if stored.dtype not in FLOATS and key.endswith(".weight"):
                raise ConversionError(QUANTIZED.format(how=f"{key} is {stored.dtype}"))
        for name, key in self.places.items():
            if self.stored[key].shape != state[name]:
                raise ConversionError(
                    f"{self.path}: {key} has the shape {list(self.stored[key].shape)}, but its "
                    f"config.json ({document.get('model_type') or document.get('_class_name')}) "
                    f"gives {list(state[name])}"
                )


def _shards(folder: Path) -> tuple[dict[str, Path], dict[str, Stored]]:
    """The file of every stored key, and what it is."""
    paths = [folder / name for name in _SINGLES if (folder / name).exists()][:1]
    for index in [folder / name for name in _INDEXES if (folder / name).exists() and not paths][:1]:
        table = json_object(index, "an index of shards").get("weight_map")
        if not isinstance(table, dict) or not table:
            raise ConversionError(f"{index}: not an index of shards: no weight_map")
        names = set(table.values()) if all(isinstance(n, str) for n in table.values()) else {""}
        outside = sorted(name for name in names if Path(name).name != name or name in _NO_NAMES)
        if outside:
            raise ConversionError(
                f"{index}: weight_map: {', '.join(map(repr, outside[:3]))}: a shard lies in the "
                "model's own folder, so this is no name of one"
            )
        paths = [folder / name for name in sorted(names)]
    if not paths:
        raise ConversionError(
            f"base {folder}: there are no safetensors weights; save the model again with "
            "save_pretrained"
        )
    files: dict[str, Path] = {}
    stored: dict[str, Stored] = {}
    for path in paths:
        header = read_header(path)
        both = sorted(files.keys() & header.keys())
        if both:
            raise ConversionError(f"{both[0]} lies in both {files[both[0]]} and {path}")
        files |= dict.fromkeys(header, path)
        stored |= header
    return files, stored


def open_base(
    base: object,
    *,
    task_type: str | None,
    classes: int | None = None,
    modules: Collection[str] = (),
    trust_remote_code: bool = False,
) -> BaseWeights:
    """The base model that `base` stands for.

    Args:
        base: a folder, an identifier of the hub, or a `torch.nn.Module`.
        task_type: of the adapter, which decides on the model's class.
        classes: outputs of the head that the adapter brings, if any.
        modules: names of modules that the adapter adapts, which decide among classes.
        trust_remote_code: whether code that comes with the model may run.

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
    return FolderBase.of(
        str(base), folder, task_type, classes, modules, trust_remote_code=trust_remote_code
    )


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

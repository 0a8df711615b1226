"""Folders and ids of a hub -> a configuration; weights are never read or fetched."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Final

import huggingface_hub
import transformers
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    StrictDataclassError,
)
from transformers import CONFIG_MAPPING, AutoConfig

from peft_shop.errors import ModelError, nearest_names
from peft_shop.model.choosing import diffusers_class

__all__ = ["read_folder", "read_hub"]

_BACKBONES: Final = ("transformer", "unet", "prior")
"""Parts of a diffusers pipeline that are fine-tuned, in this order."""
_HUB_ID: Final = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")


def read_folder(folder: Path, *, trust_remote_code: bool = False) -> Any:
    """The configuration in a local folder, as an object of transformers or diffusers.

    Raises:
        ModelError: it is not a folder with a model's configuration.
    """
    if folder.is_file():
        raise ModelError(f"{folder} is a file; pass the folder that holds it")
    if not folder.is_dir():
        raise ModelError(f"{folder}: no such folder")
    index = folder / "model_index.json"
    main = folder / "config.json"
    if index.is_file():
        return _pipeline(folder, _json(index))
    if not main.is_file():
        if (folder / "adapter_config.json").is_file():
            base = _json(folder / "adapter_config.json").get("base_model_name_or_path")
            named = f", {base!r}" if base else ""
            raise ModelError(
                f"{folder} holds an adapter, not a model; pass the base model that it was trained "
                f"on{named}"
            )
        raise ModelError(
            f"{folder} has neither config.json nor model_index.json; save the model's "
            "configuration there: `config.save_pretrained(folder)`"
        )
    return _from_dict(_json(main), str(folder), str(main), trust_remote_code=trust_remote_code)


def read_hub(name: str, *, trust_remote_code: bool = False) -> Any:
    """The configuration of a model on the hub, from the local cache where it is there.

    Raises:
        ModelError: there is no such model, or it cannot be reached.
    """
    if not _HUB_ID.fullmatch(name):
        raise ModelError(f"{name}: no such folder, and no id of a model on the hub either")
    main = _fetch(name, "config.json")
    if main is not None:
        content = _json(main)
        # code that comes with a model has to be fetched by its name; the rest is here already
        source = name if "auto_map" in content else str(main.parent)
        place = f"{name}/config.json"
        return _from_dict(content, source, place, trust_remote_code=trust_remote_code)
    index = _fetch(name, "model_index.json")
    if index is None:
        if _fetch(name, "adapter_config.json") is not None:
            raise ModelError(f"{name} is an adapter, not a model; pass the base model")
        raise ModelError(f"{name} has neither config.json nor model_index.json on the hub")
    parts = _json(index)
    for part in _BACKBONES:
        if part in parts:
            file = _fetch(name, f"{part}/config.json")
            if file is not None:
                return _diffusers(_json(file))
    raise ModelError(f"{name} is a pipeline without any of {', '.join(_BACKBONES)}")


def _pipeline(folder: Path, parts: dict[str, Any]) -> Any:
    for part in _BACKBONES:
        file = folder / part / "config.json"
        if part in parts and file.is_file():
            return _diffusers(_json(file))
    raise ModelError(
        f"{folder}/model_index.json: the pipeline has no {' or '.join(_BACKBONES)} folder with a "
        "config.json; pass the folder of the part that you fine-tune"
    )


def _from_dict(content: dict[str, Any], source: str, place: str, *, trust_remote_code: bool) -> Any:
    if "_class_name" in content:
        return _diffusers(content)
    remote = "AutoConfig" in (content.get("auto_map") or {})
    kind = content.get("model_type")
    if remote and kind not in CONFIG_MAPPING and not trust_remote_code:
        raise ModelError(
            f"{place}: auto_map: the model is code that comes with it; read it, and if you trust "
            "it pass trust_remote_code=True (--trust-remote-code)"
        )
    if not remote and not isinstance(kind, str):
        raise ModelError(f"{place}: model_type: missing; it says which model this is")
    if not remote and isinstance(kind, str) and kind not in CONFIG_MAPPING:
        near = nearest_names(kind, list(CONFIG_MAPPING.keys()))
        hint = f"; nearest: {', '.join(near)}" if near else ""
        raise ModelError(
            f"{place}: model_type: transformers {transformers.__version__} does not know "
            f"{kind!r}{hint}; a newer one may: pip install -U transformers"
        )
    try:
        return AutoConfig.from_pretrained(source, trust_remote_code=trust_remote_code)
    except (
        ArithmeticError, AttributeError, ImportError, LookupError, OSError, StrictDataclassError,
        TypeError, ValueError,
    ) as error:  # fmt: skip
        raise ModelError(f"{place}: {type(error).__name__}: {error}") from error


def _diffusers(content: dict[str, Any]) -> Any:
    """A configuration as diffusers' own models have it."""
    cls = diffusers_class(str(content["_class_name"]))
    return {"_class_name": cls.__name__, **content}


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"cannot read {path}: {error}") from error
    except json.JSONDecodeError as error:
        raise ModelError(f"{path}: not JSON: {error}") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path}: expected an object, got {type(content).__name__}")
    return content


def _fetch(name: str, file: str) -> Path | None:
    """One small file of a model on the hub; `None` where the model has no such file."""
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

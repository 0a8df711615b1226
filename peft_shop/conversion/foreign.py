"""Adapters of other tools, named as what they are: `convert` takes what peft saved."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from peft_shop.conversion.headers import json_object, read_header
from peft_shop.errors import ConversionError
from peft_shop.serve.adapter import CONFIG_FILE

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

__all__ = ["refuse_what_is_not_pefts"]

_DIFFUSERS: Final = (
    "a LoRA as diffusers writes it ({key}): diffusers loads it as it is (load_lora_weights), and "
    "there is nothing to convert; to have it in peft's form, load it there and save the model's "
    "adapter with save_lora_adapter, or train with peft's save_pretrained"
)
_KOHYA: Final = (
    "a file in the layout of kohya's trainers ({key}): ComfyUI and the Stable Diffusion web UI "
    "load it as it is, and so does diffusers (load_lora_weights); there is nothing to convert"
)
_LYCORIS: Final = (
    "a file in LyCORIS' layout ({key}): ComfyUI and the Stable Diffusion web UI load it as it is; "
    "to have a plain LoRA of it, merge it there, or use LyCORIS' own tools"
)
_MLX: Final = (
    "an adapter of mlx-lm ({key}), whose matrices are stored the other way round: fuse it with "
    "mlx_lm.fuse, or train with peft"
)
_GGUF: Final = (
    "a GGUF file, as llama.cpp reads it: start from the folder that it was made of (peft's "
    "save_pretrained)"
)
_BONE: Final = (
    "Bone became MiSS, and peft from 0.19 on reads it no more: turn the folder into one of MiSS "
    "with peft's own script (scripts/convert-bone-to-miss.py in its repository), then convert that"
)
_ENDS: Final = (
    # most telling first: ends of keys, and what they tell
    ((".hada_w1_a", ".lokr_w1", ".lokr_w1_a", ".oft_blocks", ".dora_scale"), "lycoris_", _LYCORIS),
    ((".lora_down.weight", ".lora_up.weight", ".alpha"), "lora_", _KOHYA),
    (("_lora.down.weight", ".lora.down.weight", ".lora_linear_layer.down.weight"), "", _DIFFUSERS),
    ((".lora_a", ".lora_b"), "", _MLX),
)
_PIPELINES: Final = ("transformer.", "unet.", "text_encoder", "transformer_2.")


def refuse_what_is_not_pefts(place: Path) -> None:
    """Refuses a file or folder of another tool, with its name and the way from there.

    Raises:
        ConversionError: it is one, or there is nothing at all.
    """
    if place.is_file():
        told = _file(place)
        raise ConversionError(
            f"{place}: {told}"
            if told
            else f"{place}: is a file, not a folder; name the folder "
            "that peft's save_pretrained made"
        )
    if not place.is_dir():
        reason = "not a folder" if place.exists() else "there is no such folder"
        raise ConversionError(
            f"{place}: {reason}; name the folder that peft's save_pretrained made"
        )
    told = _folder(place)
    if told is not None:
        raise ConversionError(f"{place}: {told}")


def _folder(folder: Path) -> str | None:
    file = folder / CONFIG_FILE
    try:
        config: dict[str, Any] = json_object(file, "a configuration")
    except FileNotFoundError:
        for path in sorted(folder.iterdir()):
            told = _file(path)
            if told is not None:
                return f"{path.name} is {told}"
        return None
    if str(config.get("peft_type")).upper() == "BONE":
        return _BONE
    if "peft_type" not in config and {"lora_parameters", "fine_tune_type"} & config.keys():
        return _MLX.format(key="lora_parameters in adapter_config.json")
    return None


def _file(path: Path) -> str | None:
    """What a file of weights is; `None` where it is nothing known."""
    if path.suffix == ".gguf":
        return _GGUF
    if path.suffix != ".safetensors" or not path.is_file():
        return None
    return _keys(read_header(path))


def _keys(keys: Iterable[str]) -> str | None:
    listed = sorted(keys)
    for ends, start, told in _ENDS:
        for key in listed:
            if key.endswith(ends) and key.startswith(start):
                return told.format(key=key)
            if key.endswith(ends) and start == "lycoris_" and key.startswith("lora_"):
                return told.format(key=key)
    for key in listed:
        if key.startswith(_PIPELINES) and ".lora_A" in key:
            return _DIFFUSERS.format(key=key)
    return None

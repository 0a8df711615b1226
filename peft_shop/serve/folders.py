"""Files of an adapter's folder, read as plain data and with bounds; nothing in them is executed."""

from __future__ import annotations

import json
import os
import struct
from typing import TYPE_CHECKING, Any, Final

from peft_shop.catalog.methods import PLAIN_TYPE
from peft_shop.errors import AdapterError, Problem
from peft_shop.files import read_bounded, regular_size
from peft_shop.records import parse_json
from peft_shop.serve.fields import is_number
from peft_shop.upstream.expressions import endless_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from peft_shop.records import Json

__all__ = ["CONFIG", "WEIGHTS", "complaints", "document", "highest_token", "shown", "tensors"]

CONFIG: Final = "adapter_config.json"
WEIGHTS: Final = "adapter_model.safetensors"
_MAX_BYTES: Final = 8 * 2**20
"""Lists of token indices can be long; a larger file is no configuration."""
_MAX_HEADER: Final = 32 * 2**20
"""Bytes of a safetensors header; adapters on 10^5 modules have 20 MB."""
_MAX_SHOWN: Final = 60
_OTHERS: Final = {
    "pytorch_lora_weights.safetensors": "it holds a file as diffusers saves it, without peft's "
    "configuration: load it with the pipeline's load_lora_weights",
    "adapters.safetensors": "it holds adapters of MLX LM, in a format of their own",
    "config.json": "it holds a whole model, not an adapter",
}
"""What a folder may hold instead, and what that is."""


def _fault(file: Path, message: str, hint: str = "") -> AdapterError:
    return AdapterError("cannot read the adapter", [Problem(str(file), "", message, hint)])


def document(file: Path) -> dict[str, Json]:
    """The JSON object in an `adapter_config.json`.

    Raises:
        AdapterError: there is no such file, it is none of reasonable size, or holds something else.
    """
    try:
        text = read_bounded(file, _MAX_BYTES, "a configuration")
    except OSError as error:
        reason = error.strerror or "cannot be read"
        raise _fault(file, f"{reason[0].lower()}{reason[1:]}", _hint(file)) from error
    try:
        found = parse_json(text)
        json.loads(text, object_pairs_hook=_unique)  # parsing has set the bounds already
    except ValueError as error:
        raise _fault(file, f"not JSON: {error}") from error
    if not isinstance(found, dict):
        raise _fault(file, f"expected a JSON object, got {type(found).__name__}")
    if "fine_tune_type" in found or "lora_parameters" in found:
        raise _fault(file, "a configuration of MLX LM, not of peft", "its adapters load there only")
    for field, reason in endless_in(found):
        raise _fault(file, f"{field}: {reason}")
    return found


def _hint(file: Path) -> str:
    for name, meaning in _OTHERS.items():
        if (file.parent / name).is_file():
            return meaning
    return f"name a folder that peft saved, with {CONFIG} in it"


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        msg = f"the key {shown(twice)} stands twice"
        raise ValueError(msg)
    return found


def tensors(folder: Path) -> dict[str, tuple[int, ...]]:
    """Shapes of the tensors in an adapter's safetensors file, by name; empty where there is none.

    Only the header is read.

    Raises:
        AdapterError: there is one, and it is no safetensors file.
    """
    file = folder / WEIGHTS
    if not os.path.lexists(file):
        return {}
    try:
        header = parse_json(_header(file))
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise _fault(file, f"not a safetensors file: {reason}") from error
    if not isinstance(header, dict):
        raise _fault(file, "not a safetensors file: its header is no JSON object")
    return {
        name: _shape(file, name, entry) for name, entry in header.items() if name != "__metadata__"
    }


def _header(file: Path) -> bytes:
    """The header of a safetensors file: its length in 8 bytes, then that many of JSON."""
    size = regular_size(file)
    handle = os.open(file, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with os.fdopen(handle, "rb") as stream:
        start = stream.read(8)
        if start.startswith(b"version "):
            msg = "a Git LFS pointer, not the file: fetch it with `git lfs pull`"
            raise ValueError(msg)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else size
        if length > min(size - 8, _MAX_HEADER):
            msg = (
                "its header is longer than the file"
                if length > size - 8
                else "its header is over 32 MiB"
            )
            raise ValueError(msg)
        return stream.read(length)


def _shape(file: Path, name: str, entry: Any) -> tuple[int, ...]:
    shape = entry.get("shape") if isinstance(entry, dict) else None
    if not isinstance(shape, list) or not all(isinstance(n, int) and n >= 0 for n in shape):
        raise _fault(file, f"not a safetensors file: {shown(name)} has no shape")
    return tuple(shape)


def highest_token(folder: Path) -> int | None:
    """Highest index in an `added_tokens.json`; `None` where there is none that can be read."""
    try:
        found = parse_json(
            read_bounded(folder / "added_tokens.json", _MAX_BYTES, "a table of tokens")
        )
    except (OSError, ValueError):
        return None  # tokenizers of other makers have other files
    values = found.values() if isinstance(found, dict) else ()
    return max((v for v in values if isinstance(v, int) and not isinstance(v, bool)), default=None)


# --- fields with values that peft could not have written ---


def complaints(config: Mapping[str, Json]) -> Iterable[tuple[str, str]]:
    """Fields that a route depends on and that have no value peft could have written."""
    checks: dict[str, tuple[str, Callable[[Any], bool]]] = {
        "r": ("a whole number of at least 1", _is_rank),
        "lora_alpha": ("a number", is_number),
        "rank_pattern": ("an object of whole numbers of at least 1", _is_table(_is_rank)),
        "alpha_pattern": ("an object of numbers", _is_table(is_number)),
        "use_rslora": ("true or false", _is_flag),
        "use_dora": ("true or false", _is_flag),
        "use_qalora": ("true or false", _is_flag),
        "lora_bias": ("true or false", _is_flag),
        "modules_to_save": ("a list of names", _is_list),
        "target_modules": ("a name, a pattern or a list of names", _is_target),
        "exclude_modules": ("a name, a pattern or a list of names", _is_target),
        "target_parameters": ("a list of names", _is_list),
        "layers_to_transform": ("a whole number or a list of them", _is_index),
        "layers_pattern": ("a name or a list of names", _is_target),
        "base_model_name_or_path": ("a name", _is_text),
        "task_type": ("a name", _is_text),
        "auto_mapping": ("an object", _is_object),
    }
    for name, (expected, is_right) in checks.items():
        value = config.get(name)
        # prompt methods and others use 0 or null where they have no rank
        if value is None or (name == "r" and value == 0 and config.get("peft_type") != PLAIN_TYPE):
            continue
        if name == "rank_pattern" and config.get("peft_type") == "ADALORA":
            continue  # which of the ranks are left, as true and false
        if not is_right(value):
            yield name, f"expected {expected}, got {shown(value)}"


def shown(value: object) -> str:
    """A value from a file as messages show it: short, whatever it is."""
    if isinstance(value, list | dict) and len(value) > _MAX_SHOWN:
        return f"{'a list' if isinstance(value, list) else 'an object'} of {len(value)}"
    text = repr(value[: 2 * _MAX_SHOWN] if isinstance(value, str) else value)
    return text if len(text) <= _MAX_SHOWN else f"{text[: _MAX_SHOWN - 3]}..."


def _is_rank(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_flag(value: object) -> bool:
    return isinstance(value, bool)


def _is_list(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _is_target(value: object) -> bool:
    return isinstance(value, str) or _is_list(value)


def _is_table(is_right: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, dict) and all(map(is_right, value.values()))


def _is_index(value: object) -> bool:
    items = value if isinstance(value, list) else [value]
    return all(isinstance(item, int) and not isinstance(item, bool) for item in items)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_object(value: object) -> bool:
    return isinstance(value, dict)

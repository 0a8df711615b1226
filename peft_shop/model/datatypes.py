"""In which data type a model is: what its configuration and its weights' headers say; no torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from peft_shop.errors import ModelError, nearest_names

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["ASSUMED", "is_part", "most_of", "parts_of", "stated_dtype", "unprefixed"]

ASSUMED: Final = "bfloat16"
"""What a model that says nothing is taken for: most are published so, and trained so."""
_KEYS: Final = ("dtype", "torch_dtype")
_PLAIN: Final = ("bfloat16", "float16", "float32", "float64")
_ALIASES: Final = {"half": "float16", "float": "float32", "double": "float64", "fp16": "float16",
                   "bf16": "bfloat16", "fp32": "float32"}  # fmt: skip
_HEADER: Final = {"BF16": "bfloat16", "F16": "float16", "F32": "float32", "F64": "float64"}
"""Types of plain weights, as safetensors writes them."""
_FIRST: Final = re.compile(r"(text|language|llm|thinker|decoder|generator)_?(model_)?config")
"""The part of a configuration that is trained most."""


def is_part(value: Any) -> bool:
    """Whether it is a configuration, as an object or as JSON."""
    return isinstance(value, Mapping) or (
        hasattr(value, "model_type") and hasattr(value, "__dict__")
    )


def parts_of(config: Any) -> Iterator[tuple[str, Any]]:
    """A configuration and those in it with their dotted places, language models first."""
    pending: list[tuple[str, Any]] = [("", config)]
    seen: set[int] = set()
    while pending:
        place, part = pending.pop(0)
        if not is_part(part) or id(part) in seen:
            continue
        seen.add(id(part))
        yield place, part
        fields = part if isinstance(part, Mapping) else vars(part)
        inner = [
            (f"{place}{key}.", value) for key, value in fields.items() if _holds_part(str(key))
        ]
        # what is inside a language model comes before what stands beside it
        inner.sort(key=lambda one: not _FIRST.fullmatch(one[0].split(".")[-2]))
        pending = inner + pending


def _holds_part(key: str) -> bool:
    return key.endswith("config") and not key.startswith(
        ("quantization", "compression", "generation")
    )


def stated_dtype(config: Any, place: str = "the configuration") -> str | None:
    """The data type that a configuration states, in itself or in a part; `None` where none does.

    Args:
        config: of transformers or diffusers, as an object or as its JSON.
        place: what to call it in an error.

    Raises:
        ModelError: what it states is no data type.
    """
    for where, part in parts_of(config):
        fields = part if isinstance(part, Mapping) else vars(part)
        for key in ("_dtype", *_KEYS):  # objects of transformers hide it behind a property
            name = _named(fields.get(key), f"{place}: {where}{key}")
            if name is not None:
                return name
    return None


def _named(value: Any, place: str) -> str | None:
    if value is None or value == "auto":
        return None
    if type(value).__module__ == "torch":
        value = str(value)
    if not isinstance(value, str):
        raise ModelError(f"{place}: {str(value)[:60]!r} is no data type, such as 'bfloat16'")
    name = value.strip().lower().removeprefix("torch.")
    name = _ALIASES.get(name, name)
    if name in _PLAIN:
        return name
    if re.fullmatch(r"(float8|fp8|float4|fp4|u?int\d)\w*", name):
        return None  # how weights are stored, and nothing to compute in
    near = nearest_names(name[:60], _PLAIN)
    hint = f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(_PLAIN)}"
    raise ModelError(f"{place}: {value[:60]!r} is no data type{hint}")


def unprefixed(content: dict[str, Any]) -> dict[str, Any]:
    """The same configuration with its data types as transformers reads them, without `torch.`."""
    changed: dict[str, Any] = {}
    for key, value in content.items():
        if key in _KEYS:
            changed[key] = _named(value, key)
        elif _holds_part(str(key)) and isinstance(value, dict):
            changed[key] = unprefixed(value)
        else:
            changed[key] = value
    return changed


def most_of(sizes: Mapping[str, int]) -> str | None:
    """The data type of most plain weights, from elements by the types of safetensors [count]."""
    plain = {name: count for name, count in sizes.items() if name in _HEADER and count > 0}
    return _HEADER[max(plain, key=lambda name: plain[name])] if plain else None

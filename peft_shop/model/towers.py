"""Which part of the model a layer belongs to."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Final

from peft_shop.model.vocabulary import TOWER_CONFIGS, TOWER_WORDS

if TYPE_CHECKING:
    from torch import nn

    from peft_shop.model.structure import Role, Tower

__all__ = ["Towers", "modalities_of"]

_ALONE: Final[dict[str, Tower]] = {"image": "vision", "audio": "audio"}
"""Tower of a model that takes one thing only."""


def modalities_of(model: nn.Module) -> frozenset[str]:
    """What a model of transformers says that it takes: `text`, `image`, `audio`, ...

    A class that only inherits the general answer, text, says by its main input what it takes.
    """
    given = getattr(type(model), "input_modalities", ())
    given = (given,) if isinstance(given, str) else given
    if tuple(given) == ("text",):
        main = _BY_INPUT.get(getattr(model, "main_input_name", ""), ())
        accepts = inspect.signature(type(model).forward).parameters
        writes = {"input_ids", "decoder_input_ids"} & set(accepts)
        given = (*main, *(given if writes or not main else ()))
    return frozenset("image" if one == "video" else one for one in given)


_BY_INPUT: Final[dict[str, tuple[str, ...]]] = {
    "pixel_values": ("image",),
    "pixel_values_videos": ("image",),
    "input_features": ("audio",),
    "input_values": ("audio",),
    "past_values": ("time",),
}
"""What goes in by the name of a model's main input."""


class Towers:
    """The towers of one model, found from the parts of its configuration and its names."""

    def __init__(self, model: nn.Module, config: Any, library: str) -> None:
        self._library = library
        self._root = modalities_of(model)
        self._seq2seq = bool(getattr(config, "is_encoder_decoder", False))
        self._parts: list[tuple[str, Tower]] = []
        self._names: dict[int, str] = {}
        for key in getattr(config, "sub_configs", None) or {}:
            self._names[id(getattr(config, key, None))] = key
        for name, module in model.named_modules():
            if name and hasattr(type(module), "input_modalities"):
                tower = self._tower(name, module)
                if tower is not None:
                    self._parts.append((f"{name}.", tower))
        self._parts.sort(key=lambda part: -len(part[0]))
        self._rest = self._remainder()

    def of(self, name: str, role: Role) -> Tower:
        """The tower of the layer `name`."""
        if self._library == "diffusers":
            return "image"
        for prefix, tower in self._parts:
            if name.startswith(prefix):
                return tower
        if self._seq2seq:
            words = name.lower().split(".")
            for word in words:
                if word in {"encoder", "decoder"}:
                    return "encoder" if word == "encoder" else "decoder"
        found = self._by_words(name) or self._rest
        # a language model's head often stands beside it
        return "text" if found == "other" and role == "head" and "text" in self._root else found

    def _tower(self, name: str, module: nn.Module) -> Tower | None:
        part = self._names.get(id(getattr(module, "config", None)))
        if part is not None:
            for pattern, tower in TOWER_CONFIGS:
                if pattern.fullmatch(part):
                    return self._sided(name, tower)
        found = self._by_words(name)
        if found is not None:
            return self._sided(name, found)
        return None

    def _sided(self, name: str, tower: Tower) -> Tower:
        if tower != "text" or not self._seq2seq:
            return tower
        words = name.lower().split(".")
        for word in reversed(words):
            if word in {"encoder", "decoder"}:
                return "encoder" if word == "encoder" else "decoder"
        return tower

    @staticmethod
    def _by_words(name: str) -> Tower | None:
        for word in name.lower().split("."):
            for pattern, tower in TOWER_WORDS:
                if pattern.fullmatch(word):
                    return tower
        return None

    def _remainder(self) -> Tower:
        """Tower of what belongs to no part."""
        if self._library != "transformers":
            return "other"
        if "text" in self._root:
            taken = {tower for _, tower in self._parts}
            return "other" if "text" in taken else "text"
        for name, tower in _ALONE.items():
            if self._root == {name}:
                return tower
        return "other"

"""The base model: its skeleton without weights, and single weights or the whole on request."""

from __future__ import annotations

import contextlib
import copy
import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

import torch
import transformers
from torch import nn

from peft_shop.errors import ConversionError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["QUANTIZED", "BaseWeights", "ModuleBase", "quiet", "tied"]

QUANTIZED: Final = (
    "the base is quantized ({how}), so its weights are not the numbers that the adapter changes; "
    "give the original model in bf16, fp16 or fp32, convert or merge with that, and quantize "
    "afterwards"
)


class BaseWeights(Protocol):
    """What a conversion needs of a base model.

    Attributes:
        name: as the user named it.
        folder: where it lies; `None` for a live module.
        notes: what a reader of the report should know.
        absent: parameters that its files do not hold, as far as that is known.
    """

    name: str
    folder: Path | None
    notes: list[str]
    absent: tuple[str, ...]

    @property
    def config(self) -> Any:
        """Its configuration, or `None`."""

    def skeleton(self) -> Any:
        """The model on the meta device; one object, not to be changed."""

    def weight(self, name: str) -> Any:
        """A parameter or buffer as it is stored."""

    def dtype(self, name: str) -> Any:
        """Type of a stored parameter or buffer; `None` where the base has none."""

    def whole(self) -> Any:
        """The model with its weights in fp32, new, in evaluation mode."""


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Loading talks about many things that are no news here."""
    talk = transformers.utils.logging
    bars, level = talk.is_progress_bar_enabled(), talk.get_verbosity()
    talk.disable_progress_bar()
    talk.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        talk.set_verbosity(level)
        if bars:
            talk.enable_progress_bar()


# --- a live module ---


@dataclass
class ModuleBase:
    """A base model that is in memory already; it is not changed."""

    name: str
    model: Any
    config: Any
    folder: Path | None = None
    notes: list[str] = field(default_factory=list)
    absent: tuple[str, ...] = ()
    _skeleton: Any = None
    _weights: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, model: Any) -> ModuleBase:
        """Checks that it is a plain model."""
        if hasattr(model, "peft_config"):
            raise ConversionError(
                "base: this model carries an adapter already; give the one without, such as "
                "model.get_base_model() before anything was injected"
            )
        config = getattr(model, "config", None)
        quantization = getattr(config, "quantization_config", None)
        if quantization is not None:
            raise ConversionError(QUANTIZED.format(how=type(quantization).__name__))
        for name, weight in model.named_parameters():
            if not weight.is_floating_point():
                raise ConversionError(QUANTIZED.format(how=f"{name} is {weight.dtype}"))
        weights = dict(model.named_parameters(remove_duplicate=False))
        weights |= dict(model.named_buffers(remove_duplicate=False))
        return cls(type(model).__name__, model, config, _weights=weights)

    def skeleton(self) -> Any:
        """The model on the meta device."""
        if self._skeleton is None:
            stands = {id(weight): _on_meta(weight) for weight in self._weights.values()}
            self._skeleton = copy.deepcopy(self.model, stands)
        return self._skeleton

    def weight(self, name: str) -> Any:
        """A parameter or buffer."""
        return self._weights[name].detach()

    def dtype(self, name: str) -> Any:
        """Type of a parameter or buffer."""
        return self._weights[name].dtype if name in self._weights else None

    def whole(self) -> Any:
        """A copy in fp32."""
        return copy.deepcopy(self.model).float().eval()


def _on_meta(tensor: Any) -> Any:
    empty = torch.empty_like(tensor, device="meta")
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(empty, requires_grad=False)
    return empty


def tied(model: Any) -> list[list[str]]:
    """Names of parameters that are one and the same."""
    groups: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        groups.setdefault(id(parameter), []).append(name)
    return [names for names in groups.values() if len(names) > 1]

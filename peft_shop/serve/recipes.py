"""What a trainer is asked to train: method, variants, configuration, and how the step runs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Protocol

from peft_shop.catalog.methods import PLAIN

if TYPE_CHECKING:
    from collections.abc import Mapping

    from peft_shop.catalog.engines import Modality
    from peft_shop.records import Json

__all__ = ["TrainerRecipe", "TrainingStep"]

_BITSANDBYTES: Final = "bnb_"
"""How formats of bitsandbytes begin."""


class TrainingStep(Protocol):
    """Settings of a training step that decide what a trainer does with a recipe."""

    @property
    def quantization(self) -> str | None:
        """Backend of a quantized base."""

    @property
    def gradient_checkpointing(self) -> bool:
        """Whether blocks are run again in the backward pass."""

    @property
    def dtype(self) -> str:
        """Type of the base."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainerRecipe:
    """What a trainer is asked to train.

    Attributes:
        name: as it is shown.
        method: identifier of the method, or `full_finetuning`.
        variants: recognised variants.
        config: fields of the peft configuration that are set; `None` for a method as such.
        models: kind of model that it adapts; `None` where that is open.
        quantized: whether the base is in 4 or 8 bit; `None` where that is open, as below.
        stored: format in which the base comes quantized; `None` for a plain one, and for those of
            bitsandbytes, in which every tool that quantizes also loads.
        checkpointing: whether gradient checkpointing is on.
        half: whether the base is in bfloat16 or float16.
    """

    name: str
    method: str
    variants: tuple[str, ...] = ()
    config: Mapping[str, Json] | None = None
    models: Modality | None = None
    quantized: bool | None = None
    stored: str | None = None
    checkpointing: bool | None = None
    half: bool | None = None

    def on_stored(self, backend: str | None) -> TrainerRecipe:
        """The same recipe on a base that comes quantized; `None` for one that does not."""
        if backend is None:
            return self
        stored = None if backend.startswith(_BITSANDBYTES) else backend
        return replace(self, quantized=True, stored=stored)

    def under(self, step: TrainingStep) -> TrainerRecipe:
        """The same recipe in a training step."""
        return replace(
            self,
            quantized=step.quantization is not None,
            checkpointing=step.gradient_checkpointing,
            half=step.dtype != "float32",
        )

    def condition(self, name: str) -> bool | None:
        """Whether a circumstance of `CONDITIONS` holds; `None` where that is open."""
        if name in {"quantized", "checkpointing", "half"}:
            found: bool | None = getattr(self, name)
            # a quantized base has no type of its own
            return False if name == "half" and self.quantized else found
        if self.config is None:
            return None if self.method == PLAIN or name != "experts_dropout" else False
        if name == "experts_dropout":
            dropout = self.config.get("lora_dropout")
            return bool(self.config.get("target_parameters")) and bool(dropout)
        ends = ("lm_head",) if name == "head" else ("lm_head", "embed_tokens")
        targets = self.config.get("target_modules")
        named = [targets] if isinstance(targets, str) else targets or ()
        return any(str(one).endswith(ends) for one in named)

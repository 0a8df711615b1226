"""Adapters that are no change of weights, told from their configuration before anything is read.

What a configuration does not show (routing by input, chance) is found when the layers are measured.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from peft.config import PromptLearningConfig
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

from peft_shop.catalog.methods import PLAIN
from peft_shop.errors import ConversionError

if TYPE_CHECKING:
    from pathlib import Path

    from peft_shop.serve.adapter import Adapter

__all__ = ["refuse_what_is_no_weight", "refuse_without_start"]

_METHODS: Final = {
    "adaption_prompt": "it adds prompts to the attention blocks, gated by trained numbers",
    "poly": "it mixes its experts by the task of each sample",
    "shadow": "it runs a second, smaller model beside the base",
    "xlora": (
        "it weighs its experts anew for every token; peft would convert or merge them without "
        "their gates and report success. Convert one expert's own folder instead"
    ),
}
_TRAITS: Final = {
    "alora": (
        "it acts from its invocation tokens onwards; as a plain LoRA or merged it would act on "
        "every token, and peft's own conversion does that without a word"
    ),
    "arrow": "it routes tokens among several adapters; peft's own conversion gives zeros",
    "layer_replication": "it copies layers of the base, which neither a LoRA nor a base has",
    "loftq": (
        "its base is the one that LoftQ quantized and left, not the one it started from; save that "
        "base, set init_lora_weights to true in adapter_config.json, and give that as the base"
    ),
}


def refuse_what_is_no_weight(adapter: Adapter, folder: Path) -> None:
    """Refuses what cannot be a LoRA nor merged, whatever its numbers are.

    Raises:
        ConversionError: it is such an adapter.
    """
    reason = _METHODS.get(adapter.method)
    kind: Any = PEFT_TYPE_TO_CONFIG_MAPPING.get(adapter.method.upper())
    if reason is None and kind is not None and issubclass(kind, PromptLearningConfig):
        reason = "it learns virtual tokens or a cache, which no weight can stand for"
    if reason is None:
        reason = next((text for key, text in _TRAITS.items() if key in adapter.traits), None)
    if reason is not None:
        raise ConversionError(f"{folder}: {adapter.method} is not a change of weights: {reason}")


def refuse_without_start(adapter: Adapter, folder: Path) -> None:
    """Refuses an adapter whose changed base can only be known from its untrained self.

    Raises:
        ConversionError: it is one.
    """
    start = adapter.config.get("init_lora_weights")
    text = start.lower() if isinstance(start, str) else ""
    if adapter.method == PLAIN and (text in {"corda", "lora_ga"} or text.startswith("pissa_niter")):
        raise ConversionError(
            f"{folder}: {start} changed the base when it started, in a way that cannot be computed "
            "again from the base; give the folder of the adapter as it was before training "
            "(--initial), saved with init_lora_weights set to true"
        )

"""Source that loads the base of a script: its type, its quantization, its place."""

from __future__ import annotations

from typing import TYPE_CHECKING

from peft_shop.scripts.source import INDENT, Raw, call

if TYPE_CHECKING:
    from peft_shop.records import Json
    from peft_shop.scripts.step import Step

__all__ = ["loading_options", "preparation", "quantizing"]

_KEYWORD = "quantization_config="


def loading_options(step: Step) -> dict[str, Json]:
    """Arguments of `from_pretrained`; a quantized base goes to its place while it is loaded."""
    options: dict[str, Json] = {"dtype": Raw(f"torch.{step.dtype}")}
    if step.backend is not None:
        if step.quantize:
            options["quantization_config"] = quantizing(step)
        options["device_map"] = {"": Raw("device")}
    return options


def quantizing(step: Step) -> Raw:
    """Source of the `BitsAndBytesConfig`, as an argument of its own line."""
    if step.backend == "bnb_8bit":
        arguments: dict[str, Json] = {"load_in_8bit": True}
    else:
        arguments = {
            "load_in_4bit": True,
            "bnb_4bit_quant_type": "nf4",
            "bnb_4bit_use_double_quant": step.double_quantization,
            "bnb_4bit_compute_dtype": Raw(f"torch.{step.dtype}"),
        }
    used = INDENT + len(_KEYWORD) + 1
    return Raw(call("BitsAndBytesConfig", arguments, indent=INDENT, used=used))


def preparation(step: Step) -> list[str]:
    """Statements between loading and wrapping."""
    if not step.prepare:
        return []
    # it would switch checkpointing on by itself, which is the setup's to decide
    options = {"use_gradient_checkpointing": False}
    return ["base = " + call("prepare_model_for_kbit_training", options, "base", used=7)]

"""Which benchmark's runs are evidence for a model; no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from peft_shop.catalog.features import TaskType

__all__ = ["evidence_for"]


def evidence_for(architecture: str, modality: str, task: TaskType | None) -> tuple[str | None, str]:
    """The benchmark whose runs are evidence for a model, or `None`, and why."""
    if modality == "text" and task == "CAUSAL_LM":
        return "metamathqa", "a causal language model of text, as the one that was measured"
    if modality == "image":
        if "2D" in architecture or architecture in {"StableCascadeUNet", "Kandinsky3UNet"}:
            return "image_gen", "a diffusion backbone for images, as the one that was measured"
        return "image_gen", (
            f"as a guess: no benchmark on record measures a {architecture}, the one for images "
            "measured a backbone in two dimensions"
        )
    what = {
        "text": f"a {architecture}: the one for text measured a causal language model",
        "multimodal": "a model of several modalities",
        "vision": "a vision model",
        "audio": "an audio model",
    }.get(modality, f"a {architecture}")
    return None, f"no benchmark on record measures {what}"

"""Which benchmark's runs are evidence for a model; no torch."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from peft_shop.catalog.features import TaskType

__all__ = ["Evidence", "evidence_for"]

_NO_IMAGE: Final = re.compile(
    r"Audio|Music|Sound|Speech|AceStep|Autoencoder|VQModel|Vocoder|Protein"
)
"""Diffusion parts that make no pictures, and those that are no backbone."""


class Evidence(NamedTuple):
    """The benchmark whose runs are evidence for a model.

    Attributes:
        benchmark: its name; `None` where none is.
        because: why that one, or why none.
        guess: whether it measured something else that is near.
    """

    benchmark: str | None
    because: str
    guess: bool = False

    @property
    def note(self) -> tuple[str, ...]:
        """What a reader must know besides, if anything."""
        if not self.guess:
            return ()
        return ("No benchmark on record measures such a model: take scores and order as a guess.",)


def evidence_for(architecture: str, modality: str, task: TaskType | None) -> Evidence:
    """The benchmark whose runs are evidence for a model, and why."""
    if modality == "text" and task == "CAUSAL_LM":
        because = "a causal language model of text, as the one that was measured"
        return Evidence("metamathqa", because)
    if modality == "image" and not _NO_IMAGE.search(architecture):
        if "2D" in architecture or architecture in {"StableCascadeUNet", "Kandinsky3UNet"}:
            because = "a diffusion backbone for images, as the one that was measured"
            return Evidence("image_gen", because)
        because = (
            f"as a guess: no benchmark on record measures a {architecture}, the one for images "
            "measured a backbone in two dimensions"
        )
        return Evidence("image_gen", because, guess=True)
    what = {
        "text": f"a {architecture}: the one for text measured a causal language model",
        "image": f"a {architecture}: the one for images measured a backbone that makes them",
        "multimodal": "a model of several modalities",
        "vision": "a vision model",
        "audio": "an audio model",
    }.get(modality, f"a {architecture}")
    return Evidence(None, f"no benchmark on record measures {what}")

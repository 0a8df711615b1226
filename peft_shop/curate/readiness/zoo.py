"""Tiny real architectures to try configurations on: what an entry is, and all of them by name.

Each is a class of transformers or diffusers with two layers and a few thousand parameters, built
from a configuration. Widths of inputs and outputs differ and are not all powers of two (48 and
80, heads of 12), so that a block size or a rank that fits full-size models by luck does not fit
here by luck as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import torch
from torch import nn

from peft_shop.errors import UnknownNameError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from peft_shop.catalog.features import TaskType

__all__ = ["BATCH", "Entry", "Modality", "entries", "seeded", "zoo"]

Modality: TypeAlias = Literal["text", "vision", "audio", "multimodal", "image"]

BATCH: Final = 2
"""Samples in every batch: two, so that task identifiers can differ."""
_LIVELY: Final = 0.08
"""Least standard deviation of a weight matrix; below it the residual stream hides the layer."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One architecture and how to feed it.

    Attributes:
        id: short name, the `model_type` of its configuration where that is unique.
        title: name for people.
        modality: what it works on.
        task_type: the peft task type of its head; `None` where none fits.
        builder: makes the model as its class initialises it; call `build` instead.
        inputs: makes keyword arguments of forward, from a seeded generator; call `batch` instead.
        loss: scalar to train, from what forward returns.
        outputs: the tensor that is compared before and after, from what forward returns.
        training_only: keyword arguments that only the loss needs.
    """

    id: str
    title: str
    modality: Modality
    task_type: TaskType | None
    builder: Callable[[], Any]
    inputs: Callable[[Any], dict[str, Any]]
    loss: Callable[[Any], Any]
    outputs: Callable[[Any], Any]
    training_only: tuple[str, ...] = ("labels",)

    def build(self) -> Any:
        """A new model in fp32 on the CPU; the same weights each time, no seed left behind."""
        with seeded(0):
            model = self.builder()
            _enliven(model)
        return model

    def batch(self) -> dict[str, Any]:
        """Keyword arguments of forward, the same each time."""
        return self.inputs(torch.Generator().manual_seed(7))


class seeded:  # noqa: N801 - reads as a verb where it is used
    """Context with torch's generator seeded; its state is as before afterwards."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._fork: Any = None

    def __enter__(self) -> None:
        self._fork = torch.random.fork_rng(devices=[])
        self._fork.__enter__()
        torch.manual_seed(self._seed)

    def __exit__(self, *details: object) -> None:
        self._fork.__exit__(*details)


def _enliven(model: Any) -> None:
    """Give every weight enough spread to matter, and move biases and norms off zero and one.

    Initialisations for full-size models are near the identity: at this size an adapter behind
    them could be lost without any output changing.
    """
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() <= 1:
                parameter.add_(0.1 * torch.randn(parameter.shape))
            elif float(parameter.std()) < _LIVELY:
                fan_in = parameter[0].numel() if parameter.dim() != 3 else parameter.shape[-1]
                nn.init.normal_(parameter, std=fan_in**-0.5)


@cache
def zoo() -> dict[str, Entry]:
    """Every entry by id, in the order of the modalities."""
    from peft_shop.curate.readiness.zoo_diffusion import DIFFUSION
    from peft_shop.curate.readiness.zoo_encoders import ENCODERS
    from peft_shop.curate.readiness.zoo_senses import SENSES
    from peft_shop.curate.readiness.zoo_text import TEXT

    return {entry.id: entry for entry in (*TEXT, *ENCODERS, *SENSES, *DIFFUSION)}


def entries(names: Iterable[str] | None = None) -> tuple[Entry, ...]:
    """Entries by id, in the order given; all when `None`.

    Raises:
        UnknownNameError: an id that the zoo does not have.
    """
    known = zoo()
    if names is None:
        return tuple(known.values())
    chosen = list(dict.fromkeys(names))
    for name in chosen:
        if name not in known:
            raise UnknownNameError("architecture", name, known)
    return tuple(known[name] for name in chosen)

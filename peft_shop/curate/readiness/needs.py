"""What single methods need around forward and step, and what their design leaves out: data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["NEEDS", "Need"]


@dataclass(frozen=True, slots=True)
class Need:
    """What one method needs beyond wrapping.

    Attributes:
        tasks: field with the number of tasks, where every forward needs task identifiers.
        shifts: whether it makes the decoder's inputs from the labels itself, and takes no others.
        experts: whether it mixes trained LoRA adapters, which must be made first.
        model_config: fields of the model's configuration to set.
        after_step: called with the wrapped model after an optimizer step, before gradients go.
        silent: parts of names of trainable weights some of which its design leaves without a
            gradient, with the reason.
    """

    tasks: str = ""
    shifts: bool = False
    experts: bool = False
    model_config: dict[str, Any] = field(default_factory=dict)
    after_step: Callable[[Any], object] | None = None
    silent: dict[str, str] = field(default_factory=dict)


def _allocate(model: Any) -> object:
    return model.base_model.update_and_allocate(1)


NEEDS: Final[dict[str, Need]] = {
    "ADALORA": Need(after_step=_allocate),
    "MULTITASK_PROMPT_TUNING": Need(tasks="num_tasks", shifts=True),
    "POLY": Need(tasks="n_tasks"),
    "SHADOW": Need(
        silent={
            "shadow_update_": "each block updates the shadow state for the next one; nothing "
            "reads what the last block makes of it",
            "shadow_backbone.": "the shadow is a small model of the base's own class, of which "
            "only the blocks run: its embeddings and the like have no part in the outputs",
        }
    ),
    "XLORA": Need(experts=True, model_config={"use_cache": False}),
}
"""By peft type; a method that is not here needs nothing special."""

"""What peft would write for an adapter on a model without weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from peft.utils import get_peft_model_state_dict

from peft_shop.errors import UnknownNameError
from peft_shop.preflight.stand_ins import standing_in

if TYPE_CHECKING:
    from peft import PeftModel

__all__ = ["SavedState", "saved_state"]

SavedState: TypeAlias = dict[str, tuple[tuple[int, ...], Any]]
"""Shape and torch dtype by name, as they stand in `adapter_model.safetensors`."""


def saved_state(model: PeftModel, adapter_name: str = "default") -> SavedState:
    """Shape and dtype of every tensor that `model.save_pretrained` would write.

    Heads and embeddings that are trained whole and frozen factors that a method saves are in it.
    Whether the vocabulary was resized is not looked up (peft would compare it with the hub's); a
    resized embedding is not in it unless the configuration trains or targets it.

    Args:
        model: what `inject` gave.
        adapter_name: name of the adapter.

    Raises:
        UnknownNameError: the model has no such adapter.
    """
    if adapter_name not in model.peft_config:
        kind = "adapter"
        raise UnknownNameError(kind, adapter_name, model.peft_config)
    config = model.peft_config[adapter_name]
    base = config.base_model_name_or_path
    config.base_model_name_or_path = None
    try:
        with torch.no_grad(), standing_in(config):
            state = get_peft_model_state_dict(model, adapter_name=adapter_name)
    finally:
        config.base_model_name_or_path = base
    return {
        name: (tuple(tensor.shape), tensor.dtype)
        for name, tensor in state.items()
        if isinstance(tensor, torch.Tensor)
    }

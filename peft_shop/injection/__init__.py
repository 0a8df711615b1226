"""Adapters on models without weights."""

from peft_shop.injection.saving import SavedState, saved_state
from peft_shop.injection.stand_ins import approximations
from peft_shop.injection.wrapping import REFUSALS, as_config, inject, refusal

__all__ = [
    "REFUSALS",
    "SavedState",
    "approximations",
    "as_config",
    "inject",
    "refusal",
    "saved_state",
]

"""Makes a measured recipe valid on another model, and says what it changed and why."""

from __future__ import annotations

from peft_shop.adaptation import Change, Retargeted, TargetOptions, retargeted_recipe
from peft_shop.retargeting.adaptation import retarget

__all__ = ["Change", "Retargeted", "TargetOptions", "retarget", "retargeted_recipe"]

"""What retargeting is asked and what it answers: the records of `peft_shop.adaptation`."""

from peft_shop.adaptation import Change, Retargeted, TargetOptions, retargeted_recipe

__all__ = ["Change", "Retargeted", "TargetOptions", "retargeted_recipe"]

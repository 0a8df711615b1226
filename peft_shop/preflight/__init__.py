"""What a configuration really touches on a model, before any weight is loaded."""

from peft_shop.adaptation import Preflight, Touched
from peft_shop.preflight.checking import preflight

__all__ = ["Preflight", "Touched", "preflight"]

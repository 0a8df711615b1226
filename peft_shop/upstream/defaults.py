"""Class defaults of the fields that are looked at here, and what methods need besides them.

Read in the configuration classes of peft 0.21.2; a test compares them with the installed peft.
"""

from __future__ import annotations

import json
from importlib import resources
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from peft_shop.records import Json

__all__ = ["CLASS_DEFAULTS", "LENGTH", "STEPS", "class_defaults"]

STEPS: Final = 1000
"""Optimizer steps that a plan is made for where nobody says how many there are [count]."""
LENGTH: Final = 20
"""Virtual tokens of a prompt without a measured recipe [count]."""
CLASS_DEFAULTS: Final[dict[str, dict[str, Json]]] = json.loads(
    resources.files(__package__).joinpath("defaults.json").read_text("utf-8")
)
"""By method; a field that is not here has the default `None`, `False` for `fan_in_fan_out`."""


def class_defaults(peft_type: str) -> dict[str, Json]:
    """Defaults of a method's configuration class; empty tables are as good as none."""
    known = CLASS_DEFAULTS.get(peft_type, {})
    stated = {name: value for name, value in known.items() if value not in ([], {})}
    return {"fan_in_fan_out": False, **stated}

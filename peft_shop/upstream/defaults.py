"""Class defaults of the fields that retargeting looks at, and what methods need besides them.

Read in the configuration classes of peft 0.21.2; a test compares them with the installed peft.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from peft_shop.records import Json

__all__ = ["CLASS_DEFAULTS", "LENGTH", "STEPS", "class_defaults"]

STEPS: Final = 1000
"""Optimizer steps that a plan is made for where nobody says how many there are [count]."""
LENGTH: Final = 20
"""Virtual tokens of a prompt without a measured recipe [count]."""
CLASS_DEFAULTS: Final[dict[str, dict[str, Json]]] = {
    "ADALORA": {"init_r": 12, "target_r": 8, "tinit": 0, "tfinal": 0, "total_step": None},
    "BOFT": {"boft_block_size": 4, "boft_block_num": 0, "boft_n_butterfly_factor": 1},
    "C3A": {"block_size": 256},
    "FOURIERFT": {"n_frequency": 1000},
    "GRALORA": {"r": 32, "gralora_k": 2},
    "LILY": {"stride_A": 1, "num_B": 2},
    "LORA": {
        "r": 8,
        "lora_alpha": 8,
        "lora_dropout": 0.0,
        "init_lora_weights": True,
        "use_rslora": False,
    },
    "MISS": {"r": 64, "mini_r": 1, "init_weights": True},
    "OFT": {"r": 0, "oft_block_size": 32},
    "POLY": {"n_splits": 1, "n_tasks": 1},
    "PSOFT": {"r": 32},
    "ROAD": {"group_size": 64},
    "SHIRA": {"r": 32},
    "SUPERTUNING": {"sparsity": 0.99},
    "VBLORA": {"vector_length": 256},
    "WAVEFT": {"n_frequency": 2592},
    "CARTRIDGE": {"num_frozen_tokens": 1},
    "MULTITASK_PROMPT_TUNING": {"num_tasks": 1},
    "SHADOW": {"shadow_model": "mirror"},
}
"""By method; a field that is not here has the default `None`, `False` for `fan_in_fan_out`."""


def class_defaults(peft_type: str) -> dict[str, Json]:
    """Defaults of a method's configuration class as far as retargeting looks at them."""
    return {"fan_in_fan_out": False, **CLASS_DEFAULTS.get(peft_type, {})}

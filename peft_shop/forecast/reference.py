"""Plain LoRA, which step times and setups are compared with; needs no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from peft_shop.catalog.methods import PLAIN_TYPE
from peft_shop.errors import ConfigError, ForecastError
from peft_shop.forecast.quick.closed_forms import closed_form

if TYPE_CHECKING:
    from peft_shop.forecast.records import Settings
    from peft_shop.model.structure import Structure
    from peft_shop.records import Json

__all__ = ["is_beyond_shapes", "plain_lora"]

_PLAIN_RANK: Final = 32
"""Rank of the plain LoRA that step times are relative to, as in the suites."""
_QUERY_AND_VALUE: Final = frozenset(
    {"attention_query", "attention_value", "attention_qkv", "attention_key_value", "mixer_in"}
)


def plain_lora(structure: Structure) -> dict[str, Json]:
    """Configuration of plain LoRA as the suites' reference: rank 32, on query and value.

    Image models get it on all linear layers of their blocks, as in the image suite.

    Raises:
        ForecastError: the model has no such layers.
    """
    image = structure.modality == "image"
    names = [
        name
        for group in structure.groups
        if group.kind in ("linear", "transformers_conv1d")
        and (
            group.role.startswith(("attention_", "mlp_"))
            if image
            else group.role in _QUERY_AND_VALUE
        )
        for name in group.names
    ]
    if not names:
        msg = f"{structure.name} has no layers that plain LoRA is put on"
        raise ForecastError(msg)
    config: dict[str, Json] = {
        "peft_type": PLAIN_TYPE,
        "r": _PLAIN_RANK,
        "lora_alpha": 2 * _PLAIN_RANK,
        "target_modules": sorted(names),
    }
    if structure.task_type not in (None, "IMAGE"):
        config["task_type"] = structure.task_type
    return config


def is_beyond_shapes(structure: Structure, settings: Settings) -> bool:
    """Whether the model takes plain LoRA, yet no closed form knows its blocks."""
    try:
        closed_form(structure, plain_lora(structure), settings)
    except ForecastError:
        return False
    except ConfigError:
        return True
    return False

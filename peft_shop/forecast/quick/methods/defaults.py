"""Defaults of the fields that configurations of many methods share, for closed forms."""

from __future__ import annotations

from typing import Any, Final

__all__ = ["COMMON"]

COMMON: Final[dict[str, Any]] = {
    "target_modules": None,
    "exclude_modules": None,
    "layers_to_transform": None,
    "layers_pattern": None,
    "modules_to_save": None,
    "task_type": None,
    "trainable_token_indices": None,
    "bias": "none",
}
"""Of every class that has them."""

"""Facts about model types that are read off the installed peft and transformers, as a file.

    python -m peft_shop.curate.readiness.model_types

writes `peft_shop/adapt/model_types.json` anew; a test compares it with what is installed.
"""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import transformers
from peft.utils import transformers_weight_conversion as conversion
from transformers.models.auto import modeling_auto

from peft_shop.files import write_atomically

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["FILE", "model_types", "model_types_bytes"]

FILE: Final = Path(__file__).parents[2] / "adapt" / "model_types.json"
_TASKS: Final = (
    modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    modeling_auto.MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES,
    modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
    modeling_auto.MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES,
)
"""Classes of text models by model type; one of them, or several."""


def model_types() -> dict[str, list[str]]:
    """Names by what is true of them.

    `without_past`: model types none of whose classes takes past key values.
    `listed_experts`: model types whose LoRA targets peft rewrites, because transformers joined
    their experts: a regular expression becomes a list of last parts.
    `renamed_modules`: last parts of names that this rewriting takes for experts.
    """
    mapping = conversion._MOE_TARGET_MODULE_MAPPING  # noqa: SLF001 - peft has no other word for it
    patterns = conversion._MODEL_TO_CONVERSION_PATTERN  # noqa: SLF001 - as above
    kinds = {kind for table in _TASKS for kind in table}
    return {
        "listed_experts": sorted(name for name, base in patterns.items() if base in mapping),
        "renamed_modules": sorted({key for names in mapping.values() for key in names}),
        "without_past": sorted(kind for kind in kinds if _takes_no_past(kind)),
    }


def model_types_bytes() -> bytes:
    """The file."""
    return (json.dumps(model_types(), indent=1) + "\n").encode()


def _takes_no_past(kind: str) -> bool:
    classes = list(_classes(kind))
    return bool(classes) and not any(
        "past_key_values" in inspect.signature(cls.forward).parameters for cls in classes
    )


def _classes(kind: str) -> Iterator[Any]:
    for table in (modeling_auto.MODEL_MAPPING_NAMES, *_TASKS):
        names = table.get(kind, ())
        for name in (names,) if isinstance(names, str) else names:
            # a class whose own packages are not installed tells nothing
            if (cls := getattr(transformers, name, None)) is not None:
                yield cls


if __name__ == "__main__":
    write_atomically(FILE, model_types_bytes())

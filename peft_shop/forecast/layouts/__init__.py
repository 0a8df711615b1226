"""Closed forms of what each method adds to a model: tensors and kept activations."""

from peft_shop.forecast.layouts.parts import DTYPE_BYTES, Adapter, Fields, Kept, Site, Tensor
from peft_shop.forecast.layouts.registry import (
    CLOSED_FORMS,
    DEFAULTS,
    WITHOUT_CLOSED_FORM,
    adapter_of,
)

__all__ = [
    "CLOSED_FORMS",
    "DEFAULTS",
    "DTYPE_BYTES",
    "WITHOUT_CLOSED_FORM",
    "Adapter",
    "Fields",
    "Kept",
    "Site",
    "Tensor",
    "adapter_of",
]

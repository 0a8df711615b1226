"""Candidate x model -> what training it costs.

What stands here needs neither torch nor peft; `peft_shop.forecast.exact` and
`peft_shop.forecast.dry_run` do.
"""

from peft_shop.costs import (
    Attention,
    Dtype,
    Forecast,
    Interval,
    Optimizer,
    Settings,
    StepTime,
    Term,
    TermName,
    Way,
)
from peft_shop.forecast.checkpoint import checkpoint_bytes
from peft_shop.forecast.closed_forms import closed_form
from peft_shop.forecast.devices import Device, Fit, device_of, devices, fits

__all__ = [
    "Attention",
    "Device",
    "Dtype",
    "Fit",
    "Forecast",
    "Interval",
    "Optimizer",
    "Settings",
    "StepTime",
    "Term",
    "TermName",
    "Way",
    "checkpoint_bytes",
    "closed_form",
    "device_of",
    "devices",
    "fits",
]

"""What a forecast is asked and what it answers: the records of `peft_shop.costs`."""

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

__all__ = [
    "Attention",
    "Dtype",
    "Forecast",
    "Interval",
    "Optimizer",
    "Settings",
    "StepTime",
    "Term",
    "TermName",
    "Way",
]

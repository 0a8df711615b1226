"""Forecasts by a dry run: a training step on the meta device, replayed through an allocator."""

from peft_shop.forecast.dry_run.allocator import CachingAllocator
from peft_shop.forecast.dry_run.forecasting import Measured, dry_run, measure
from peft_shop.forecast.dry_run.preparing import Prepared, prepare
from peft_shop.forecast.dry_run.replay import Replay, replay
from peft_shop.forecast.dry_run.steps import Step, trace
from peft_shop.forecast.dry_run.timing import Work, work_of
from peft_shop.forecast.dry_run.trace import Trace

__all__ = [
    "CachingAllocator",
    "Measured",
    "Prepared",
    "Replay",
    "Step",
    "Trace",
    "Work",
    "dry_run",
    "measure",
    "prepare",
    "replay",
    "trace",
    "work_of",
]

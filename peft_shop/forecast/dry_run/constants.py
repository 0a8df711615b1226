"""The fitted numbers of dry runs, and the residuals that their intervals rest on.

`constants.json` beside this file is written by
`peft_shop.curate.calibration.dry_run_accuracy`; nobody edits it.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import files
from typing import Annotated, Final

from pydantic import Field

from peft_shop.forecast.constants import Regime, Residuals
from peft_shop.records import Finite, Name, Record

__all__ = ["RESOURCE", "DryRunConstants", "StepConstants", "constants"]

RESOURCE: Final = "constants.json"

_Cost = Annotated[Finite, Field(ge=0)]


class StepConstants(Record):
    """Time of work on one accelerator, fitted to one suite's runs.

    Attributes:
        benchmark: the suite.
        accelerator: that all of its runs had.
        half_flop: of one floating-point operation in half precision [s].
        full_flop: of one in full precision [s].
        byte: of one byte read or written [s].
        launch: of one kernel [s].
        synchronization: of one value read back [s].
        residuals: recorded over forecast, with the method left out of the fit.
        methods: those that were timed.
    """

    benchmark: Name
    accelerator: str
    half_flop: _Cost
    full_flop: _Cost
    byte: _Cost
    launch: _Cost
    synchronization: _Cost
    residuals: Residuals
    methods: tuple[Name, ...]


class DryRunConstants(Record):
    """All of them.

    Attributes:
        peft_version: installed when they were fitted.
        torch_version: likewise.
        whole: residuals of memory without gradient checkpointing.
        checkpointed: with it.
        steps: per suite.
    """

    peft_version: str
    torch_version: str
    whole: Regime
    checkpointed: Regime
    steps: tuple[StepConstants, ...]


@lru_cache(maxsize=1)
def constants() -> DryRunConstants:
    """The constants that come with the package."""
    resource = files("peft_shop.forecast.dry_run") / RESOURCE
    return DryRunConstants.model_validate_json(resource.read_bytes())

"""The few fitted numbers of the closed forms, and the residuals that intervals rest on.

`constants.json` beside this file is written by `peft_shop.curate.calibration.command`, which fits
them to the runs on file; nobody edits it.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import files
from typing import Final

from peft_shop.records import Finite, Name, Record

__all__ = ["CONSTANTS_RESOURCE", "Constants", "Regime", "Residuals", "constants"]

CONSTANTS_RESOURCE: Final = "constants.json"


class Residuals(Record):
    """How far the records lay from the forecast, with the method in question left out of the fit.

    Attributes:
        low: 5 % quantile of recorded over forecast, less one.
        high: 95 % quantile.
        runs: number of runs behind it.
    """

    low: Finite
    high: Finite
    runs: int


class Regime(Record):
    """Constants of one way of training.

    Attributes:
        activations: factor on what the step allocates beyond weights; on one block's activations
            under gradient checkpointing.
        trained: bytes per byte of trained parameters beyond the parameters and the optimizer's
            states: gradients and temporaries of small tensors, whose pool activations cannot use.
        residuals: of this regime.
        benchmark: whose runs it was fitted to.
        methods: measured ones.
        parameters: of the one model that was measured; `None` where that is not stated.
    """

    activations: Finite
    trained: Finite
    residuals: Residuals
    benchmark: Name
    methods: tuple[Name, ...]
    parameters: int | None = None


class Constants(Record):
    """All fitted constants.

    Attributes:
        snapshot: newest snapshot whose runs were fitted.
        peft_version: installed when they were fitted.
        whole: without gradient checkpointing.
        checkpointed: with it.
    """

    snapshot: str
    peft_version: str
    whole: Regime
    checkpointed: Regime


@lru_cache(maxsize=1)
def constants() -> Constants:
    """The constants that come with the package."""
    resource = files("peft_shop.forecast") / CONSTANTS_RESOURCE
    return Constants.model_validate_json(resource.read_bytes())

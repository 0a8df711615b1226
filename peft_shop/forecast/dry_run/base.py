"""Peaks of plain LoRA by dry runs, for models of which no closed form knows the blocks.

With experts or recurrent blocks the closed forms still know what an adapter adds. So one adapter
is traced at a few batch sizes and depths, and all others differ from it by what they add.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Final

from peft_shop.errors import ForecastError, PeftShopError
from peft_shop.forecast.dry_run.extrapolation import depth_of, shorten
from peft_shop.forecast.dry_run.forecasting import peak_of
from peft_shop.forecast.ladder import ladder
from peft_shop.forecast.quick.remembered import remembered
from peft_shop.forecast.reference import is_beyond_shapes, plain_lora
from peft_shop.forecast.traced import TRACED, TracedBase, branch_of, traced_base
from peft_shop.model.inspection import Target

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from peft_shop.forecast.records import Settings
    from peft_shop.model.structure import Structure

__all__ = ["trace_base"]

_FEW: Final = (2, 4)
_PERIODS: Final = (4, 8)
"""Depths that are traced: of a model of like blocks, and of one that alternates between kinds."""
_ROOM: Final = 2.0
"""A step that takes so much less than there is leaves nothing to be gained by other setups."""


def trace_base(
    target: Target,
    settings: Settings,
    *,
    fixed: Collection[str],
    bfloat16: bool,
    usable: int | None = None,
    told: Callable[[int, int], None] = lambda _done, _all: None,
) -> bool:
    """Look at the model so that `fitted` knows it; whether it does now.

    Args:
        target: the model; its structure is what `fitted` is to be asked about.
        settings: the training step that was asked for.
        fixed: fields of it that stay.
        bfloat16: whether the device computes in it.
        usable: what there is [B]: where the step as asked takes less than half of it, no other
            setup is traced; `None` to trace them all.
        told: called with the number of dry runs that are done, and of all.
    """
    structure = target.structure
    known = traced_base(structure, settings)
    if known is not None and (known.complete or usable is not None):
        return True
    if not is_beyond_shapes(structure, settings):
        return False
    config = plain_lora(structure)
    steps = _steps(structure, settings, fixed, bfloat16=bfloat16)
    targets, layers, depth = _depths(target)
    peaks = {} if known is None else dict(known.peaks)
    complete = True
    for number, (branch, step) in enumerate(steps):
        if branch in peaks:
            continue
        told(number, len(steps))
        try:
            with warnings.catch_warnings():
                # what peft and torch say about layers and kernels is for a preflight to tell
                warnings.simplefilter("ignore")
                one, two = (
                    float(peak_of(targets, config, sized, layers=layers, depth=depth))
                    for sized in _sized(step)
                )
        except PeftShopError:
            continue
        peaks[branch] = (one, two)
        roomy = usable is not None and _ROOM * TracedBase(peaks).peak(
            step.model_copy(update={"batch_size": settings.batch_size})
        )
        if roomy and usable is not None and roomy <= usable and number + 1 < len(steps):
            complete = False
            break
    if peaks:
        kept: dict[str, TracedBase] = remembered(
            structure, (TRACED, settings.sequence_length), dict
        )
        kept["base"] = TracedBase(peaks, complete)
    return bool(peaks)


def _steps(
    structure: Structure, settings: Settings, fixed: Collection[str], *, bfloat16: bool
) -> list[tuple[tuple[object, ...], Settings]]:
    """One step of each branch, the cheapest first."""
    rungs = ladder(
        structure, settings, fixed, effective=2, bfloat16=bfloat16, backends=["bnb_4bit"]
    )
    steps = {
        branch_of(rung.settings): rung.settings
        for rung in reversed(rungs)
        if rung.settings.optimizer == settings.optimizer
        and (not rung.slight or rung.settings.prepare_kbit != bfloat16)
    }
    return list(reversed(steps.items()))


def _sized(step: Settings) -> Iterator[Settings]:
    for size in (1, 2):
        yield step.model_copy(update={"batch_size": size, "accumulation": 1})


def _depths(target: Target) -> tuple[list[Target], tuple[int, int] | None, int]:
    """The model at two depths to go by; itself where it is shallow or is no stack of blocks."""
    plain = target.skeleton()
    depth = depth_of(plain)
    structure = target.structure
    alternates = any(group.role.startswith("mixer") for group in structure.groups)
    layers = _PERIODS if alternates else _FEW
    if depth <= layers[1]:
        return [target], None, depth
    made = []
    for count in layers:
        short = target.skeleton()
        try:
            shorten(short, count)
        except ForecastError:
            return [target], None, depth
        made.append(Target(structure, target.config, short))
    return made, layers, depth

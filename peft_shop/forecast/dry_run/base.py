"""Peaks of plain LoRA by dry runs, for models of which no closed form knows the blocks.

With experts or recurrent blocks the closed forms still know what an adapter adds. So one adapter
is traced at a few batch sizes and depths, and all others differ from it by what they add.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Final

from peft_shop.errors import PeftShopError
from peft_shop.forecast.dry_run.forecasting import measure
from peft_shop.forecast.ladder import ladder
from peft_shop.forecast.quick.remembered import remembered
from peft_shop.forecast.reference import is_beyond_shapes, plain_lora
from peft_shop.forecast.traced import TRACED, TracedBase, branch_of, traced_base

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from peft_shop.forecast.records import Settings
    from peft_shop.model.inspection import Target

__all__ = ["trace_base"]

_FEW: Final = (2, 4)
_PERIODS: Final = (4, 8)
"""Depths that are traced: of a model of like blocks, and of one that alternates between kinds."""


def trace_base(
    target: Target,
    settings: Settings,
    *,
    fixed: Collection[str],
    bfloat16: bool,
    told: Callable[[int, int], None] = lambda _done, _all: None,
) -> bool:
    """Look at the model so that `fitted` knows it; whether it does now.

    Args:
        target: the model; its structure is what `fitted` is to be asked about.
        settings: the training step that was asked for.
        fixed: fields of it that stay.
        bfloat16: whether the device computes in it.
        told: called with the number of dry runs that are done, and of all.
    """
    structure = target.structure
    if traced_base(structure, settings) is not None:
        return True
    if not is_beyond_shapes(structure, settings):
        return False
    config = plain_lora(structure)
    rungs = ladder(
        structure, settings, fixed, effective=2, bfloat16=bfloat16, backends=["bnb_4bit"]
    )
    asked = settings.optimizer
    steps = {
        branch_of(rung.settings): rung.settings
        for rung in reversed(rungs)
        if rung.settings.optimizer == asked
        and rung.settings.fused_loss == settings.fused_loss
        and (not rung.slight or rung.settings.prepare_kbit != bfloat16)
    }
    alternates = any(group.role.startswith("mixer") for group in structure.groups)
    layers = _PERIODS if alternates else _FEW
    peaks: dict[tuple[object, ...], tuple[float, float]] = {}
    for number, (branch, step) in enumerate(reversed(steps.items())):
        told(number, len(steps))
        pair = []
        for size in (1, 2):
            sized = step.model_copy(update={"batch_size": size, "accumulation": 1})
            try:
                with warnings.catch_warnings():
                    # what peft and torch say about layers and kernels is for a preflight to tell
                    warnings.simplefilter("ignore")
                    found = measure(target, config, sized, layers=layers)
            except PeftShopError:
                break
            pair.append(float(found.memory.peak_reserved))
        if len(pair) == 2:
            peaks[branch] = (pair[0], pair[1])
    if peaks:
        remembered(structure, (TRACED, settings.sequence_length), lambda: TracedBase(peaks))
    return bool(peaks)

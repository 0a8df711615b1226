"""Peaks of plain LoRA by dry runs, for models of which no closed form knows the blocks.

With experts or recurrent blocks the closed forms still know what an adapter adds. So one adapter
is traced at a few batch sizes and depths, and all others differ from it by what they add.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from peft_shop.errors import PeftShopError
from peft_shop.forecast.deadline import OutOfTimeError
from peft_shop.forecast.dry_run.extrapolation import depth_of, few_layers, shorten
from peft_shop.forecast.dry_run.forecasting import peak_of
from peft_shop.forecast.reference import plain_lora
from peft_shop.model.inspection import Target
from peft_shop.model.quiet import quiet

if TYPE_CHECKING:
    from peft_shop.forecast.records import Settings

__all__ = ["plain_peaks"]


def plain_peaks(target: Target, step: Settings) -> tuple[float, float] | None:
    """Peaks of plain LoRA with one sequence at a time and with two [B].

    Args:
        target: the model.
        step: the training step, whatever its batch.

    Returns:
        `None` where no such step can be traced.

    Raises:
        OutOfTimeError: the time was up before.
    """
    config = plain_lora(target.structure)
    targets, layers, depth = _depths(target, recomputed=step.gradient_checkpointing)
    sized = (
        step.model_copy(update={"batch_size": size, "accumulation": 1, "optimizer": "adamw"})
        for size in (1, 2)
    )
    try:
        # what they say about layers and kernels is for a preflight to tell
        with quiet():
            one, two = (
                float(peak_of(targets, config, settings, layers=layers, depth=depth))
                for settings in sized
            )
    except OutOfTimeError:
        raise
    except PeftShopError:
        return None
    return one, two


def _depths(
    target: Target, *, recomputed: bool
) -> tuple[list[Target], tuple[int, int] | None, int]:
    """The model at two depths to go by; itself where it is shallow or follows no period."""
    plain = target.skeleton()
    depth = depth_of(plain)
    layers = few_layers(plain, recomputed=recomputed)
    if layers is None:
        return [target], None, depth
    made = []
    for count in layers:
        short = target.skeleton()
        shorten(short, count)
        made.append(Target(target.structure, target.config, short))
    return made, layers, depth

"""Which setups of plain LoRA are traced, where no closed form knows the model; no torch by itself.

Setups are looked at in the order of their cost until one fits with room to spare: what is dearer
is not asked for then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from peft_shop.forecast.constants import constants
from peft_shop.forecast.deadline import OutOfTimeError
from peft_shop.forecast.intervals import memory_interval
from peft_shop.forecast.ladder import ladder
from peft_shop.forecast.recorded import keep_base, recorded_base
from peft_shop.forecast.reference import is_beyond_shapes, plain_lora
from peft_shop.forecast.traced import TracedBase, branch_of, keep_traced, traced_base

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from peft_shop.forecast.ladder import Rung
    from peft_shop.forecast.records import Settings
    from peft_shop.model.inspection import Target
    from peft_shop.model.structure import Structure

__all__ = ["look_at_base"]

_ROOM: Final = 1.1
"""What other adapters may take more than plain LoRA, which a setup is to have room for."""


_LIKE_TEXT: Final = frozenset({"text", "multimodal"})
"""Kinds of models whose layers all see the same tokens, from which what an adapter adds follows;
levels of a UNet see each another number."""


def look_at_base(
    target: Target,
    settings: Settings,
    *,
    fixed: Collection[str],
    bfloat16: bool,
    effective: int = 1,
    usable: int | None = None,
    told: Callable[[int, int], None] = lambda _done, _all: None,
) -> bool:
    """Look at a language model so that `fitted` knows it; whether it does now.

    Args:
        target: the model; its structure is what `fitted` is to be asked about.
        settings: the training step that was asked for.
        fixed: fields of it that stay.
        bfloat16: whether the device computes in it.
        effective: batch behind one step of the optimizer.
        usable: what there is [B], for which a setup is looked for; `None` to look at all of them.
        told: called with the number of setups that are done, and of all.
    """
    structure = target.structure
    base = traced_base(structure, settings)
    if base is None:
        if structure.modality not in _LIKE_TEXT or not is_beyond_shapes(structure, settings):
            return False
        base = recorded_base(target, settings) or TracedBase({}, complete=False)
    rungs = _rungs(structure, settings, fixed, effective=effective, bfloat16=bfloat16)
    branches = list(dict.fromkeys(branch_of(rung.settings) for rung in rungs))
    peaks = dict(base.peaks)
    enough, cut = None, False
    for rung in rungs:
        if enough is not None and rung.cost != enough:
            break
        step = rung.settings
        branch = branch_of(step)
        if branch not in peaks:
            told(sum(known in peaks for known in branches), len(branches))
            from peft_shop.forecast.dry_run.base import plain_peaks  # noqa: PLC0415 - torch only where one is made

            try:
                peaks[branch] = plain_peaks(target, step)
            except OutOfTimeError:
                cut = True
                break
        peak = TracedBase(peaks).peak(step)
        if usable is not None and _ROOM * _upper(structure, peak, step) <= usable:
            enough = rung.cost
    complete = all(branch in peaks for branch in branches)
    made = TracedBase(peaks, complete, cut)
    if made != base:
        keep_base(target, settings, made)
    keep_traced(structure, settings, made)
    return any(made.knows(rung.settings) for rung in rungs)


def _rungs(
    structure: Structure,
    settings: Settings,
    fixed: Collection[str],
    *,
    effective: int,
    bfloat16: bool,
) -> list[Rung]:
    """Setups that plain LoRA would be tried in, the cheapest first."""
    rungs = ladder(
        structure, settings, fixed, effective=effective, bfloat16=bfloat16, backends=["bnb_4bit"]
    )
    return [
        rung
        for rung in rungs
        if rung.settings.optimizer == settings.optimizer
        and (not rung.slight or rung.settings.prepare_kbit != bfloat16)
    ]


def _upper(structure: Structure, peak: float, step: Settings) -> float:
    """Upper end of the interval of plain LoRA's peak [B]."""
    if peak == float("inf"):
        return peak
    regime = constants().checkpointed if step.gradient_checkpointing else constants().whole
    method = str(plain_lora(structure)["peft_type"]).lower()
    return memory_interval(peak, method, structure, step, regime).high

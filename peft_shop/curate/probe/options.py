"""Options of a configuration that do something: each tried against the same adapter without."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

import torch

from peft_shop.curate.probe.bench import deviation, logits, trainable
from peft_shop.curate.probe.judgement import attempt

if TYPE_CHECKING:
    from collections.abc import Iterable

    from peft_shop.curate.probe.bench import Bench

__all__ = ["effective_options"]

SETTINGS: Final[dict[str, Any]] = {
    "alpha_pattern": {"q_proj": 97},
    "rank_pattern": {"q_proj": 2},
}
"""A value by option that any method which reads it shows at once; other options are not tried."""
SAME: Final = 1e-5
"""Deviation [1] up to which two adapters do the same."""


def effective_options(bench: Bench, options: Iterable[str]) -> tuple[str, ...]:
    """Those of `options` that the configuration has and that were not seen to do nothing."""
    return tuple(name for name in options if name in bench.fields and not _idle(bench, name))


def _idle(bench: Bench, option: str) -> bool:
    """Whether an adapter is the same with the option and without."""
    if option not in SETTINGS or "q_proj" not in bench.setup.targets:
        return False
    plain = _imprint(bench)
    changed = attempt(partial(_imprint, bench, **{option: SETTINGS[option]}), proven=True)
    if not changed.done:  # the option is read, or nothing could fail
        return False
    (sizes, outputs), (others, moved) = plain, changed.value
    return bool(sizes == others and deviation(moved, outputs) <= SAME)


def _imprint(bench: Bench, **extra: Any) -> tuple[dict[str, tuple[int, ...]], Any]:
    """Shapes of an adapter's trainable weights, and its outputs once all of them are moved."""
    host = bench.language_host()
    model = bench.language_model(host, **extra)
    weights = trainable(model)
    generator = torch.Generator().manual_seed(6)
    with torch.no_grad():
        for weight in weights.values():
            weight.add_(0.1 * torch.randn(weight.shape, generator=generator))
    return {name: tuple(weight.shape) for name, weight in weights.items()}, logits(model, host)

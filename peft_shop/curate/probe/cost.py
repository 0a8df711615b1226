"""What wrapping costs: processor time of one layer at two widths, told as a class."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Final

import torch
from torch import nn

from peft_shop.curate.probe.hosts import Host

if TYPE_CHECKING:
    from peft_shop.curate.probe.bench import Bench

__all__ = ["INITIALISATION", "initialisation"]

INITIALISATION: Final = "initialisation"
"""Stands beside the features in the probe's options; it is a fact in words, not a capability."""
WIDTHS: Final = (512, 1024)
NOTABLE: Final = 0.1
"""Processor time [s] of a layer of width 1024 below which nobody needs to know."""


class _Wide(nn.Module):  # type: ignore[misc] # torch is not followed by mypy
    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer = nn.Linear(width, width)


def initialisation(bench: Bench) -> str | None:
    """How long wrapping takes, in words, when it matters.

    Processor time on one thread is the same on a busy machine; only its order of magnitude and
    how it grows with the width are told, which agree among machines.
    """
    if bench.prompt or bench.setup.blocks is not None or bench.setup.experts:
        return None
    seconds = [_seconds(bench, width) for width in WIDTHS]
    if seconds[1] < NOTABLE:
        return None
    low = math.floor(math.log10(seconds[1]))
    growth = seconds[1] / max(seconds[0], 1e-6)
    times = "eightfold" if growth > 5.6 else "fourfold" if growth > 2.8 else "little"
    return (
        f"{10.0**low:g} to {10.0 ** (low + 1):g} s of one core for a layer of width {WIDTHS[1]}, "
        f"growing {times} when the width doubles"
    )


def _seconds(bench: Bench, width: int) -> float:
    best = math.inf
    for _ in range(2):
        torch.manual_seed(0)
        host = Host(_Wide(width), {}, ("layer",))
        config = bench.config(target_modules=["layer"])
        start = time.process_time()
        bench.wrap(host, config)
        best = min(best, time.process_time() - start)
    return best

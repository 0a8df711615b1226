"""What a method costs: wrapping, as a class of time, and inference unmerged, as operations."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from peft_shop.curate.probe.bench import logits
from peft_shop.curate.probe.hosts import Host

if TYPE_CHECKING:
    from peft_shop.curate.probe.bench import Bench

__all__ = ["INFERENCE", "INITIALISATION", "inference", "initialisation"]

INFERENCE: Final = "inference"
"""As `INITIALISATION`: what an unmerged adapter adds to a forward pass."""

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


class _Count(TorchDispatchMode):  # type: ignore[misc] # as above
    """Counts what PyTorch dispatches."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        del types
        self.operations += 1
        return func(*args, **(kwargs or {}))


def inference(bench: Bench) -> str:
    """What an unmerged adapter adds to a forward pass, in operations of PyTorch.

    A count of operations is the same on every machine and at every width; what one of them takes
    is not, so no time is told.
    """
    host = bench.language_host()
    with _Count() as base:
        logits(host.model, host)
    layers = sum(name.rpartition(".")[2] in host.targets for name, _ in host.model.named_modules())
    model = bench.language_model(host)
    with _Count() as adapted:
        logits(model, host)
    more = adapted.operations - base.operations
    if bench.prompt:
        return f"{more} more operations a pass, and every sequence longer by the virtual tokens"
    if layers == 0 or more == 0:
        return f"{more} more operations a pass over a model of {base.operations}"
    return f"unmerged, {more / layers:.0f} more operations in each adapted layer"


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

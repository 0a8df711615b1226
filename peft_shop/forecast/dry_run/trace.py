"""What a dry run records: every allocation and release, and every kernel, as plain data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple, TypeAlias

__all__ = ["EMPTY_CACHE", "Kernel", "Kind", "Phase", "StorageBlock", "Trace"]

Phase: TypeAlias = Literal["static", "forward", "backward", "clip", "optimizer"]
Kind: TypeAlias = Literal[
    "base",
    "adapter",
    "gradients",
    "optimizer",
    "norm",
    "attention",
    "mlp",
    "adapter_activation",
    "checkpoint",
    "other",
    "materialized",
    "logits",
    "loss",
    "temporary",
]
"""What a block holds; the terms of a forecast are made of these."""

EMPTY_CACHE: Final = -(2**62)
"""Stands in `Trace.events` where the cache is emptied."""


class StorageBlock(NamedTuple):
    """One storage.

    Attributes:
        size: bytes that were asked for.
        kind: what it holds.
        phase: when it was made.
        op: the operation that made it.
        site: the module in which it was made, every index as `*`.
    """

    size: int
    kind: Kind
    phase: Phase
    op: str
    site: str


class Kernel(NamedTuple):
    """One operation on the accelerator.

    Attributes:
        op: its name.
        flops: floating-point operations of matrix products and convolutions; 0 for the rest.
        traffic: bytes read and written, each tensor once.
        half: whether its products are taken in half precision.
        launches: kernels that the operation starts.
        phase: of the step.
    """

    op: str
    flops: int
    traffic: int
    half: bool
    launches: int
    phase: Phase


@dataclass(slots=True)
class Trace:
    """One or more training steps.

    Attributes:
        blocks: storages by number.
        events: in order: `n` where block `n` is made, `~n` where it is released, `EMPTY_CACHE`.
        steps: where in `events` each step begins; what is before the first one is static.
        kernels: of the last step.
        calls: operations that Python issued in the last step, views included.
        synchronizations: values that the last step read back from the accelerator.
    """

    blocks: list[StorageBlock] = field(default_factory=list)
    events: list[int] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    kernels: list[Kernel] = field(default_factory=list)
    calls: int = 0
    synchronizations: int = 0

    @property
    def flops(self) -> int:
        """Floating-point operations of the last step."""
        return sum(kernel.flops for kernel in self.kernels)

    @property
    def traffic(self) -> int:
        """Bytes that the last step reads and writes."""
        return sum(kernel.traffic for kernel in self.kernels)

    @property
    def launches(self) -> int:
        """Kernels that the last step starts."""
        return sum(kernel.launches for kernel in self.kernels)

    def static(self, *kinds: Kind) -> int:
        """Bytes of the static blocks of the given kinds."""
        return sum(b.size for b in self.blocks if b.phase == "static" and b.kind in kinds)

"""What noise that was estimated from few repeats may be in truth."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from peft_shop.ask.quantiles import scale_nodes

if TYPE_CHECKING:
    from collections.abc import Sequence

    Matrix = Sequence[Sequence[float]]

__all__ = [
    "KNOWN_FROM",
    "scaled",
    "scales_of",
]


KNOWN_FROM: Final = 200.0
"""From so many degrees of freedom on an estimate is taken as known: it moves none by 0.002."""


def scaled(
    row: Sequence[float], part: Sequence[float], widths: Sequence[float]
) -> tuple[float, ...]:
    """Deviations of one row where the estimated part is `widths` times as large."""
    return tuple(
        math.sqrt(max(sd * sd - own * own, 0.0) + (own * width) ** 2)
        for sd, own, width in zip(row, part, widths, strict=True)
    )


def scales_of(degrees: float) -> Sequence[tuple[float, float]]:
    """Ratios of the estimated to the true noise that count, and their weights."""
    if degrees >= KNOWN_FROM:
        return ((1.0, 1.0),)
    # averages are smooth in the noise: few nodes are right to 1e-3 from three degrees on
    nodes = [node for node in scale_nodes(degrees, 1.5) if node[1] > 1e-3]
    total = math.fsum(weight for _, weight in nodes)
    return [(ratio, weight / total) for ratio, weight in nodes]

"""How much a mean over examples would differ with other examples."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["standard_error"]


def standard_error(gaps: Sequence[float], counts: Sequence[int]) -> float:
    """Standard error of a mean difference by tokens, from what each example adds to it.

    Args:
        gaps: difference of the summed losses of each example.
        counts: predicted tokens of each.

    >>> standard_error([1.0, 1.0, 1.0], [5, 5, 5])
    0.0
    """
    tokens, number = sum(counts), len(counts)
    mean = math.fsum(gaps) / tokens
    # the ratio of two sums: its error comes from what each example adds beyond its share
    rest = [gap - mean * count for gap, count in zip(gaps, counts, strict=True)]
    return math.sqrt(math.fsum(each * each for each in rest) * number / (number - 1)) / tokens

"""How much a mean over examples would differ with other examples."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from peft_shop.trial.results import Measured

__all__ = ["cost_items", "cost_of", "error_of_gap", "standard_error"]


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


def error_of_gap(ours: Sequence[tuple[float, int]], theirs: Sequence[tuple[float, int]]) -> float:
    """Standard error of the difference of two mean losses on the same examples [nats]."""
    counts = [count for _, count in ours]
    if len(ours) < 2 or not sum(counts) or len(theirs) != len(ours):
        return 0.0
    gaps = [mine - other for (mine, _), (other, _) in zip(ours, theirs, strict=True)]
    return standard_error(gaps, counts)


def cost_of(measured: Measured) -> float:
    """What candidates of a trial are ordered by, less is better: the loss, or a score turned."""
    return measured.test_loss if measured.score is None else -measured.score


def cost_items(measured: Measured) -> tuple[tuple[float, int], ...]:
    """The same of every test example, with its weight."""
    if measured.score is None:
        return measured.test_items
    return tuple((-score, 1) for score in measured.score_items)

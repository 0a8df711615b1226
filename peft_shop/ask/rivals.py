"""Whom a member of the front is held against, found quickly among thousands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from peft_shop.pareto import dominates

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from peft_shop.ask.contenders import Contender

__all__ = ["Rivals"]

_LARGE: Final = 1000
"""From this many rows on columns are arrays."""


class Rivals:
    """Kept contenders with their costs, asked for each member of the front.

    Attributes:
        kept: every kept contender with a run.
        costs: their costs, (n, m), the column to argue with first.
    """

    def __init__(self, kept: Sequence[Contender], costs: Sequence[tuple[float, ...]]) -> None:
        self.kept = kept
        self.costs = costs
        self._order = sorted(range(len(kept)), key=lambda j: (costs[j][:1], kept[j].name))
        self._arrays: tuple[Any, Any] | None = None
        if len(kept) >= _LARGE and costs[0]:
            import numpy as np

            self._arrays = np.asarray(costs, dtype=float), np.asarray(self._order)

    def of(self, place: int) -> Iterator[int]:
        """The others that are no worse than row `place` in every column but the first.

        Those of the least first cost come first, then by name.
        """
        mine = self.costs[place][1:]
        if self._arrays is None:
            for j in self._order:
                if j != place and all(a <= b for a, b in zip(self.costs[j][1:], mine, strict=True)):
                    yield j
            return
        rows, order = self._arrays
        no_worse = (rows[:, 1:] <= mine).all(axis=1)
        for j in order[no_worse[order]]:
            if j != place:
                yield int(j)

    def beaten(self, place: int) -> int:
        """How many rows row `place` dominates."""
        mine = self.costs[place]
        if self._arrays is None:
            return sum(dominates(mine, row) for row in self.costs)
        rows, _ = self._arrays
        return int(((rows >= mine).all(axis=1) & (rows > mine).any(axis=1)).sum())

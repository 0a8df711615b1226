"""Peaks as polynomials of batch and length, exported from the closed forms themselves.

Without a chunked loss and with a fused attention kernel every sum of the closed forms is
`a + b B S + c B S^2 + d B` (B sequences of S tokens), and the peak is the largest of a few of them:
at the loss, or in the backward pass of one block. Who holds the polynomials needs no closed form.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from peft_shop.errors import ConfigError
from peft_shop.forecast.constants import constants
from peft_shop.forecast.quick.recomputed import RESERVE
from peft_shop.forecast.quick.spread import ShapeSpread

if TYPE_CHECKING:
    from collections.abc import Iterator

    from peft_shop.forecast.quick.spread import Array
    from peft_shop.forecast.records import Settings

__all__ = ["Polynomial", "Polynomials", "peak_of"]

Polynomial = tuple[float, float, float, float]
"""Factors of 1, B S, B S^2 and B [B]."""
_LENGTHS: Final = (256, 1024, 2048)
"""Tokens at which the sums are read."""


def peak_of(branches: list[Polynomial], batch: int, length: int) -> float:
    """The largest of the branches for `batch` sequences of `length` tokens [B]."""
    return max(a + batch * (length * (b + length * c) + d) for a, b, c, d in branches)


class Polynomials(ShapeSpread):
    """Shapes on one text model, whose peaks are wanted as polynomials."""

    def polynomials(self, settings: Settings) -> list[list[Polynomial]]:
        """Per shape the polynomials whose largest is its peak.

        Args:
            settings: the training step; its batch and length do not matter.

        Raises:
            ConfigError: under these settings a peak is more than that.
        """
        if settings.fused_loss or settings.attention == "eager":
            msg = "a chunked loss or eager attention makes the peak more than a polynomial"
            raise ConfigError(msg)
        if self.structure.modality == "image":
            msg = f"{self.structure.name}: peaks of image models are no polynomials of a length"
            raise ConfigError(msg)
        low, middle, high = (self._read(settings, 1, length) for length in _LENGTHS)
        double = self._read(settings, 2, _LENGTHS[0])
        found: list[list[Polynomial]] = [[] for _ in self._prompt]
        for branch in range(len(low)):
            factors = _solved(low[branch], middle[branch], high[branch], double[branch])
            for place, one in enumerate(factors.T):
                a, b, c, d = (float(value) for value in one)
                found[place].append((a, b, c, d))
        return [_undominated(branches) for branches in found]

    def _read(self, settings: Settings, batch: int, length: int) -> list[Array]:
        """Every branch at one batch and length, (n,) each."""
        step = settings.model_copy(update={"batch_size": batch, "sequence_length": length})
        return list(self._branches(step))

    def _branches(self, settings: Settings) -> Iterator[Array]:
        static = self._base(settings) + self._static(settings)
        flowing, tokens = self._flowing(settings)
        scratch = self._scratch(flowing, settings, tokens)
        at_loss, logits = self._at_loss(flowing, tokens)
        if not settings.gradient_checkpointing:
            reserve = constants().whole.activations
            kept = self._kept(flowing, tokens)
            yield static + reserve * (kept + at_loss)
            yield static + reserve * (kept + scratch)
            return
        boundary, last = self._boundary(flowing, tokens)
        yield static + RESERVE * (boundary + last + at_loss + (2 * last if logits else 0.0))
        for stack in range(len(self._stacks)):
            frozen, adapters = self._of_stack(flowing, tokens, stack)
            for kept in adapters:
                yield static + RESERVE * (boundary + last + frozen + kept + scratch)


def _solved(low: Array, middle: Array, high: Array, double: Array) -> Array:
    """(4, n) factors from values at the three lengths, and at the first with two sequences."""
    first, second, third = map(float, _LENGTHS)
    constant = 2 * low - double
    rise = (middle - low) / (second - first)
    quadratic = ((high - low) / (third - first) - rise) / (third - second)
    linear = rise - quadratic * (first + second)
    return np.array(
        [constant, linear, quadratic, low - constant - first * (linear + quadratic * first)]
    )


def _undominated(branches: list[Polynomial]) -> list[Polynomial]:
    """The branches that can be the largest: none is nowhere above another one."""
    distinct = list(dict.fromkeys(branches))
    return [
        one
        for one in distinct
        if not any(
            other != one and all(x <= y for x, y in zip(one, other, strict=True))
            for other in distinct
        )
    ]

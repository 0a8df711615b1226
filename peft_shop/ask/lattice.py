"""Probabilities of being on a front with several noisy columns, at the points of a lattice."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from peft_shop.ask.noise_scales import KNOWN_FROM, scaled, scales_of
from peft_shop.ask.quantiles import normal_below, scale_nodes
from peft_shop.pareto import front

if TYPE_CHECKING:
    from collections.abc import Sequence

    Matrix = Sequence[Sequence[float]]

__all__ = [
    "MANY",
    "on_lattice",
]


MANY: Final = 200
"""From this many rows on a lattice first tries each against the strongest alone."""
_FAINT: Final = 4.0
"""Rivals that are so many deviations behind in one of several noisy columns are left out: what each
adds is below 4e-5."""
_FAINT_CHANCE: Final = 1e-4
"""Chance of being on the front below which a row is dropped early."""
_POINTS: Final = 1024
"""Points of the lattice: the error of a probability is below 0.005."""


def on_lattice(
    costs: Matrix,
    sds: Matrix,
    reruns: Matrix,
    noisy: Sequence[int],
    degrees: Sequence[float],
) -> list[float]:
    """Probability that each row is on the front, for several noisy columns; as the integral.

    Given the figures of a row and the scale of the noise, its rivals dominate it independently:
    each with the product over the columns of normal probabilities.
    """
    import numpy as np

    widths = [1 / min(scales_of(freedom))[0] for freedom in degrees]
    widest = [scaled(row, part, widths) for row, part in zip(sds, reruns, strict=True)]
    exact, total, part, limit = (
        np.asarray(rows, dtype=float) for rows in (costs, sds, reruns, widest)
    )
    # their differences survive single precision, which halves the time
    means = (exact - exact.min(axis=0)).astype(np.float32)
    own, scales = _lattice(tuple(degrees[k] for k in noisy))
    known = np.maximum(total**2 - part**2, 0.0).astype(np.float32)
    part = part.astype(np.float32)

    def chance_of(place: int, rivals: Any, step: int) -> float:
        """That none of `rivals` dominates a row, at every `step`-th point."""
        others = rivals[_possible(exact, limit, place, noisy, rivals)]
        chance = np.ones((len(others), len(range(0, _POINTS, step))), dtype=np.float32)
        for axis, k in enumerate(noisy):
            noise = scales[axis, ::step] ** 2
            mine = means[place, k] + own[axis, ::step] * np.sqrt(
                known[place, k] + part[place, k] ** 2 * noise
            )
            theirs = np.sqrt(known[others, None, k] + part[others, None, k] ** 2 * noise)
            lead = mine - means[others, None, k]
            if theirs.size and theirs.min() > 0:
                chance *= _below(lead / theirs)
            else:  # a figure without noise is no worse, or it is worse
                chance *= np.where(
                    theirs > 0, _below(lead / np.where(theirs > 0, theirs, 1.0)), lead >= 0
                )
        return float((1.0 - chance).prod(axis=0).mean())

    rows = np.arange(len(costs))
    chances = np.zeros(len(costs))
    if len(costs) >= MANY:
        # fewer rivals leave a greater chance. What the strongest leave next to nothing is no rival
        # that counts either: whatever it dominates, one that dominates it dominates as well
        rivals = _strongest(costs, MANY // 4)
        for step in (_POINTS // 32, _POINTS // 64):
            rough = np.array([chance_of(place, rivals, step) for place in rows.tolist()])
            rows = rivals = rows[rough > _FAINT_CHANCE]
    # a row at a time: what is held at once stays small, however many rows there are
    for place in rows.tolist():
        chances[place] = chance_of(place, rows, 1)
    return [float(chance) for chance in chances]


def _strongest(costs: Matrix, least: int) -> Any:
    """Places of the front, of the front without it, and so on, until they are `least`."""
    import numpy as np

    left = list(range(len(costs)))
    taken: list[int] = []
    while left and len(taken) < least:
        layer = {left[row] for row in front([costs[i] for i in left])}
        taken += sorted(layer)[: 2 * least]
        left = [i for i in left if i not in layer]
    return np.array(sorted(taken))


def _possible(means: Any, widest: Any, place: int, noisy: Sequence[int], rivals: Any) -> Any:
    """Which of `rivals` may dominate the row at `place`, one truth value each."""
    import numpy as np

    exact = [k for k in range(means.shape[1]) if k not in noisy]
    theirs, spread = means[rivals], widest[rivals]
    able = (theirs[:, exact] <= means[place, exact]).all(axis=1) & (rivals != place)
    for k in noisy:
        able &= theirs[:, k] - means[place, k] <= _FAINT * np.hypot(spread[:, k], widest[place, k])
    # rows without any noise that are equal stand together
    still = ~spread[:, noisy].any(axis=1) & (not widest[place, noisy].any())
    return able & ~(still & (theirs == means[place]).all(axis=1))


@lru_cache(maxsize=8)
def _lattice(degrees: tuple[float, ...]) -> tuple[Any, Any]:
    """Normal figures, and scales of the noise, at the points of a lattice; both (m, points).

    The lattice is Kronecker's, with powers of the root of x^(d+1) = x + 1 (Roberts, "The
    unreasonable effectiveness of quasirandom sequences", 2018).
    """
    import numpy as np

    drawn = [freedom for freedom in degrees if freedom < KNOWN_FROM]
    dimension = len(degrees) + len(drawn)
    root = 2.0
    for _ in range(60):
        root = (1 + root) ** (1 / (dimension + 1))
    steps = root ** -np.arange(1, dimension + 1)
    places = (0.5 + np.outer(steps, np.arange(1, _POINTS + 1))) % 1.0
    grid = np.linspace(-8, 8, 8193)
    normal = np.interp(places[: len(degrees)], _below(grid), grid)
    scales = np.ones_like(normal)
    rest = iter(places[len(degrees) :])
    for axis, freedom in enumerate(degrees):
        if freedom < KNOWN_FROM:
            ratios, weights = np.array(scale_nodes(freedom, 0.1)).T
            # the weight of a node lies to both sides of it
            scales[axis] = 1 / np.interp(next(rest), np.cumsum(weights) - weights / 2, ratios)
    return normal.astype(np.float32), scales.astype(np.float32)


_FINENESS: Final = 2048
"""Entries of the table of the normal distribution per deviation: its error is below 1e-4."""


@lru_cache(maxsize=1)
def _table() -> Any:
    import numpy as np

    places = range(-8 * _FINENESS, 8 * _FINENESS + 1)
    table = [normal_below(place / _FINENESS) for place in places]
    return np.array(table, dtype=np.float32)


def _below(values: Any) -> Any:
    """Normal distribution function of an array: the nearest entry of a table."""
    import numpy as np

    places = np.clip(values, -8, 8) * _FINENESS + (8 * _FINENESS + 0.5)
    return _table().take(places.astype(np.int32))

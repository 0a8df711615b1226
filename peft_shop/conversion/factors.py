"""A change of weights -> the two thin matrices of a LoRA, and what they leave out.

Small matrices are decomposed whole. Large ones are looked at through random vectors (Halko,
Martinsson and Tropp, SIAM Review 53, 2011, algorithms 4.4 and 5.1), which costs as much as the rank
that is there and not as much as the matrix; what is left out is computed, not estimated.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import torch

__all__ = ["EXACT", "Factors", "Spectrum", "decompose", "error_of", "factors"]

EXACT: Final = 1e-5
"""Share [1] of a change that counts as nothing: fp32 keeps seven digits."""
_WHOLE: Final = 768
"""Smaller side up to which a matrix is decomposed whole."""
_START: Final = 64
_SPARE: Final = 12
"""Random vectors beyond the rank that is looked for."""
_PASSES: Final = 2
_STRIP: Final = 2048
"""Rows that are multiplied at a time where a whole product would only be summed up."""


@dataclass
class Factors:
    """A LoRA's matrices for one layer: `b @ a` is the change.

    Attributes:
        a: (rank, in).
        b: (out, rank).
        error: norm of what is missing relative to the norm of the change [1].
        full_rank: smallest rank that would lose nothing; `None` where it was not found.
    """

    a: Any
    b: Any
    error: float
    full_rank: int | None

    @property
    def rank(self) -> int:
        """Number of rows of `a`."""
        return int(self.a.shape[0])


@dataclass
class Spectrum:
    """Leading singular vectors of a matrix, and how much they leave.

    Attributes:
        left: (out, k), orthonormal columns.
        values: (k,), descending.
        right: (k, in), orthonormal rows.
        norm: Frobenius norm of the matrix.
        rest: Frobenius norm of what all k leave out.
    """

    left: Any
    values: Any
    right: Any
    norm: float
    rest: float

    def missing(self, rank: int) -> float:
        """Norm of what `rank` of them leave out, relative to the matrix [1]."""
        if not self.norm:
            return 0.0
        tail = float((self.values[rank:].double() ** 2).sum())
        return math.sqrt(tail + self.rest**2) / self.norm

    def least(self, allowed: float) -> int | None:
        """Smallest rank that leaves out at most `allowed` [1]; `None` where k are too few."""
        if not self.norm:
            return 0
        tails = (self.values.double() ** 2).flip(0).cumsum(0).flip(0)
        tails = torch.cat([tails, tails.new_zeros(1)]) + self.rest**2
        fits = torch.nonzero(tails.sqrt() <= allowed * self.norm)
        return int(fits[0]) if len(fits) else None


def decompose(matrix: Any, *, most: int, allowed: float, first: int | None = None) -> Spectrum:
    """Enough leading singular vectors of `matrix` (out, in) to leave out at most `allowed` [1].

    Args:
        matrix: what to decompose.
        most: never look for more than so many.
        allowed: what may be left out; 0 takes `most` whatever is left.
        first: how many there may be, where something is known.
    """
    columns = torch.nonzero(matrix.abs().amax(0)).flatten()
    if 0 < len(columns) < matrix.shape[1] // 2:
        # single rows of an embedding: the rest of it is zero
        inner = decompose(matrix[:, columns].contiguous(), most=most, allowed=allowed, first=first)
        right = inner.right.new_zeros(inner.right.shape[0], matrix.shape[1])
        right[:, columns] = inner.right
        return Spectrum(inner.left, inner.values, right, inner.norm, inner.rest)
    side = min(matrix.shape)
    most = min(most, side)
    if side <= _WHOLE:
        left, values, right = torch.linalg.svd(matrix, full_matrices=False)
        norm = float(values.double().norm())
        return Spectrum(left, values, right, norm, 0.0)
    count = most if allowed == 0 else min(most, (first or _START))
    while True:
        spectrum = _sketched(matrix, min(side, count + _SPARE))
        if count >= most or spectrum.least(allowed) is not None:
            return spectrum
        count = min(most, 2 * count)


def factors(found: Spectrum, rank: int, *, full_rank: int | None, dtype: Any) -> Factors:
    """The first `rank` singular vectors as matrices of a LoRA, of equal norm; error not set yet."""
    roots = found.values[:rank].clamp_min(0).sqrt()
    a = (roots.unsqueeze(1) * found.right[:rank]).to(dtype).contiguous()
    b = (found.left[:, :rank] * roots).to(dtype).contiguous()
    return Factors(a, b, 0.0, full_rank)


def error_of(matrix: Any, a: Any, b: Any) -> float:
    """Norm of `matrix - b @ a` relative to the norm of `matrix` [1], a strip at a time."""
    total, off = 0.0, 0.0
    wide_a = a.to(matrix.dtype)
    for start in range(0, matrix.shape[0], _STRIP):
        strip = matrix[start : start + _STRIP]
        total += float((strip.double() ** 2).sum())
        product = b[start : start + _STRIP].to(matrix.dtype) @ wide_a
        off += float(((strip - product).double() ** 2).sum())
    return math.sqrt(off / total) if total else (0.0 if off == 0 else 1.0)


def _sketched(matrix: Any, count: int) -> Spectrum:
    """`count` leading singular vectors from random combinations of the columns."""
    chance = torch.Generator().manual_seed(0)
    start = torch.randn(matrix.shape[1], count, generator=chance).to(matrix.dtype)
    basis = torch.linalg.qr(matrix @ start).Q
    small = basis.T @ matrix  # (count, in)
    norm, rest = _left_out(matrix, basis, small)
    if rest > EXACT / 10 * norm:
        # not all of it: turn the basis towards the leading vectors
        for _ in range(_PASSES):
            basis = torch.linalg.qr(matrix.T @ basis).Q
            basis = torch.linalg.qr(matrix @ basis).Q
        small = basis.T @ matrix
        norm, rest = _left_out(matrix, basis, small)
    frame, triangle = torch.linalg.qr(small.T)
    inner, values, outer = torch.linalg.svd(triangle.T, full_matrices=False)
    return Spectrum(basis @ inner, values, outer @ frame.T, norm, rest)


def _left_out(matrix: Any, basis: Any, small: Any) -> tuple[float, float]:
    """Frobenius norms of `matrix` and of `matrix - basis @ small`, a strip at a time."""
    norm, rest = 0.0, 0.0
    for row in range(0, matrix.shape[0], _STRIP):
        strip = matrix[row : row + _STRIP]
        norm += float((strip.double() ** 2).sum())
        rest += float(((strip - basis[row : row + _STRIP] @ small).double() ** 2).sum())
    return math.sqrt(norm), math.sqrt(rest)

"""Operations on sparse tensors that torch has no version of for the meta device: sizes alone.

How many entries coincide is not known without numbers: as if none did.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["SPARSE"]

_aten: Final = torch.ops.aten


def _coalesce(sparse: torch.Tensor) -> torch.Tensor:
    """Sorted: new indices and values."""
    return _aten._sparse_coo_tensor_with_dims_and_tensors(  # noqa: SLF001 - torch has no other name for it
        sparse.sparse_dim(),
        sparse.dense_dim(),
        sparse.shape,
        torch.empty_like(sparse._indices()),  # noqa: SLF001 - the public ones need sorted ones
        torch.empty_like(sparse._values()),  # noqa: SLF001 - as above
        dtype=sparse.dtype,
        layout=torch.sparse_coo,
        device="meta",
        is_coalesced=True,
    )


def _to_dense(sparse: torch.Tensor, dtype: torch.dtype | None = None, **_: Any) -> torch.Tensor:
    return torch.empty(sparse.shape, dtype=dtype or sparse.dtype, device="meta")


def _mask(dense: torch.Tensor, mask: torch.Tensor, **_: Any) -> torch.Tensor:
    """Entries of `dense` where `mask` has some."""
    values = torch.empty(mask._values().shape, dtype=dense.dtype, device="meta")  # noqa: SLF001 - as above
    return _aten._sparse_coo_tensor_with_dims_and_tensors(  # noqa: SLF001 - as above
        mask.sparse_dim(),
        mask.dense_dim(),
        mask.shape,
        mask._indices(),  # noqa: SLF001 - as above
        values,
        dtype=dense.dtype,
        layout=torch.sparse_coo,
        device="meta",
        is_coalesced=True,
    )


def _product(sparse: torch.Tensor, dense: torch.Tensor) -> torch.Tensor:
    return torch.empty(sparse.shape[0], dense.shape[-1], dtype=dense.dtype, device="meta")


SPARSE: Final[Mapping[Any, Callable[..., Any]]] = {
    _aten._coalesce.default: _coalesce,  # noqa: SLF001 - as above
    _aten._to_dense.default: _to_dense,  # noqa: SLF001 - as above
    _aten.sparse_mask.default: _mask,
    _aten._sparse_mask_projection.default: _mask,  # noqa: SLF001 - as above
    _aten._sparse_mm.default: _product,  # noqa: SLF001 - as above
}
"""By the operation that they stand for."""

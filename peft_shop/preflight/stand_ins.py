"""What replaces the few steps of peft that need numbers and not only shapes.

Each was read in the peft of `READ_IN`. A stand-in gives what the step gives with real weights, in
shape and dtype; `APPROXIMATE` names where a shape itself depends on the weights.
"""

from __future__ import annotations

import contextlib
import importlib
import threading
import warnings
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import torch

from peft_shop.preflight.meta import META, StayOnMeta

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

__all__ = ["APPROXIMATE", "READ_IN", "STAND_INS", "StandIn", "approximations", "standing_in"]

READ_IN: Final = "0.21.2"
"""Version of peft in which the steps were read."""


class StandIn(NamedTuple):
    """One step of a method that is replaced while it is wrapped.

    Attributes:
        method: member of peft's `PeftType`.
        place: dotted name of what is replaced.
        replacement: what stands there meanwhile.
        why: what the step needs.
    """

    method: str
    place: str
    replacement: Any
    why: str


class _Wishart:
    """Gives samples of the right shape; torch's distribution checks its parameters' values."""

    def __init__(self, *, df: float, scale_tril: Any) -> None:
        del df
        self._scale = scale_tril

    def _bartlett_sampling(self, shape: Any) -> Any:
        return torch.empty((*shape, *self._scale.shape), device=META)


def _leading_vectors(
    matrix: Any,
    q: int | None = 6,
    niter: int | None = 2,
    M: Any = None,  # noqa: N803 - torch's name
) -> tuple[Any, Any, Any]:
    """Shapes of `torch.svd_lowrank`, whose steps cost more than all the rest even on meta."""
    del niter, M
    rows, columns = matrix.shape[-2:]
    count = 6 if q is None else q
    if not 0 <= count <= min(rows, columns):
        msg = f"q(={count}) must be non-negative integer and not greater than min(m, n)"
        raise ValueError(msg)
    made = [
        torch.empty((*matrix.shape[:-2], *size), dtype=matrix.dtype, device=META)
        for size in ((rows, count), (count,), (columns, count))
    ]
    return made[0], made[1], made[2]


class _Torch:
    """`torch` with another `svd_lowrank`, for a module that reaches it by that name."""

    svd_lowrank = staticmethod(_leading_vectors)

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)


def _clusters(vectors: Any, count: int, rounds: int) -> tuple[list[int], int]:
    """Sizes of clusters, as even as can be, in place of the cluster of every row; their number."""
    del rounds
    rows = int(vectors.shape[0])
    number = min(count, rows)
    return [rows // number + (index < rows % number) for index in range(number)], number


def _segments(sizes: list[int]) -> dict[int, Any]:
    """Row indices by cluster."""
    return {
        index: torch.empty(size, dtype=torch.int64, device=META) for index, size in enumerate(sizes)
    }


def _assignment(parameters: int, length: int, seed: int) -> Any:
    """Index into the shared vector for every parameter, without the shuffle of all of them."""
    del length, seed
    return torch.empty(parameters, dtype=torch.int64, device=META)


def _permutation_matrix(_: Any, indices: Any) -> Any:
    """Matrix of a permutation, without a loop over its rows."""
    return torch.empty((len(indices), len(indices)), device=META)


def _butterfly(
    _: Any, size: int, blocks: int, block_size: int = 3, n_butterfly_factor: int = 1
) -> Any:
    """Permutation of a butterfly, without a loop over its blocks; refuses what peft refuses."""
    if n_butterfly_factor and blocks * block_size * 2 > size:
        msg = "Invalid number of blocks!"
        raise ValueError(msg)
    return torch.empty(size, dtype=torch.int64, device=META)


def _projected(encoder: Any) -> Any:
    """CPT's prompt after its projection, which asks for the norm of every token."""
    return torch.empty_like(encoder.delta_embedding.weight)


def _nothing(*_: Any, **__: Any) -> None:
    """An initialisation that changes numbers only."""


STAND_INS: Final = (
    StandIn("ADAMSS", "peft.tuners.adamss.layer.torch", _Torch(), "time: an SVD a cluster"),
    StandIn("ADAMSS", "peft.tuners.adamss.utils.torch", _Torch(), "time: an SVD a layer"),
    StandIn("ADAMSS", "peft.tuners.adamss.layer.clustering_Z", _clusters, "k-means of weights"),
    StandIn("ADAMSS", "peft.tuners.adamss.layer.seg_locations", _segments, "clusters found"),
    StandIn("BOFT", "peft.tuners.boft.layer.BOFTLayer.perm2mat", _permutation_matrix, "indices"),
    StandIn("BOFT", "peft.tuners.boft.layer.BOFTLayer.block_butterfly_perm", _butterfly, "indices"),
    StandIn("CPT", "peft.tuners.cpt.model.CPTEmbedding.get_projection", _projected, "norms"),
    StandIn("LORA", "peft.tuners.lora.layer.LoraLayer.corda_init", _nothing, "a run over data"),
    StandIn("LORA", "peft.tuners.lora.layer.LoraLayer.loftq_init", _nothing, "a quantizer"),
    StandIn("LORA", "peft.tuners.lora.layer.svd_lowrank", _leading_vectors, "time: iterations"),
    StandIn("LORA", "peft.tuners.lora.monteclora.Wishart", _Wishart, "checked parameters"),
    StandIn("PSOFT", "peft.tuners.psoft.layer.svd_lowrank", _leading_vectors, "time: iterations"),
    StandIn(
        "UNILORA",
        "peft.tuners.unilora.model.UniLoraModel.generate_index",
        staticmethod(_assignment),
        "a shuffle in numpy",
    ),
)
"""Steps that are replaced."""


def _mask(layer: Any, rank: int, **_: Any) -> Any:
    """Mask with as many places as SHiRA trains in `layer`, all of which it selects."""
    places = rank * sum(layer.weight.shape)
    return torch.empty((1, places), dtype=torch.bool, device=META)


_SETTINGS: Final[Mapping[str, Mapping[str, Any]]] = {
    # random or made by the user's function, it must select as many
    "SHIRA": {"mask_fn": _mask},
    # no bar for what takes no time
    "FROD": {"progressbar": False},
    # depends on singular values; the rank is then at most `subspace_rank`
    "ADAMSS": {"use_dynamic_rank": False},
    # a tokenizer's or a file's numbers go into an embedding of the same shape
    "PROMPT_TUNING": {"prompt_tuning_init": "RANDOM"},
    "MULTITASK_PROMPT_TUNING": {"prompt_tuning_init": "RANDOM"},
}
"""Fields of the configuration that are set meanwhile, by method."""


def _off_diagonal(rows: Any, columns: Any, **_: Any) -> tuple[Any, Any]:
    """Grid without its diagonal, which FRoD leaves out by a mask."""
    shape = (len(rows), len(columns) - 1)
    return torch.empty(shape, dtype=rows.dtype, device=META), torch.empty(
        shape, dtype=columns.dtype, device=META
    )


_TORCH: Final[Mapping[str, Mapping[Callable[..., Any], Callable[..., Any]]]] = {
    "FROD": {torch.meshgrid: _off_diagonal}
}
_SELECT_ALL: Final = frozenset({"FROD", "SHIRA", "UNILORA"})
"""Methods whose masks were read and select everything that stands in."""

_EVEN: Final = (
    "AdaMSS finds its clusters in the weights: they are taken to be of equal size, and those "
    "smaller than subspace_rank would train fewer parameters"
)
_AT_MOST: Final = (
    "AdaMSS with use_dynamic_rank lowers ranks by the weights' singular values: figures are the "
    "most that it can train"
)
APPROXIMATE: Final[Mapping[str, tuple[tuple[str, Callable[[Any], bool]], ...]]] = MappingProxyType(
    {
        "ADAMSS": (
            (_EVEN, lambda config: config.subspace_rank > 1),
            (_AT_MOST, lambda config: config.use_dynamic_rank),
        ),
    }
)
"""By method, what is only approximately so without weights, and when."""


def approximations(config: Any) -> tuple[str, ...]:
    """What is only approximately true of `config` on a model without weights."""
    return tuple(
        said for said, holds in APPROXIMATE.get(str(config.peft_type.value), ()) if holds(config)
    )


_ONE_AT_A_TIME: Final = threading.RLock()


@contextlib.contextmanager
def standing_in(config: Any) -> Iterator[None]:
    """Wrap with `config` inside it: torch stays on meta and the steps that cannot are replaced.

    peft's own functions are replaced meanwhile for the whole process, so that only one thread at
    a time can be inside.
    """
    method = str(config.peft_type.value)
    settings = {
        name: value for name, value in _SETTINGS.get(method, {}).items() if hasattr(config, name)
    }
    before = {name: getattr(config, name) for name in settings}
    with contextlib.ExitStack() as stack:
        stack.enter_context(_ONE_AT_A_TIME)
        for one in STAND_INS:
            if one.method == method:
                stack.enter_context(_replaced(one.place, one.replacement))
        for name, value in settings.items():
            setattr(config, name, value)
        # what peft and transformers call out of date in each other is no news to the user
        stack.enter_context(warnings.catch_warnings())
        for category in (DeprecationWarning, FutureWarning):
            warnings.simplefilter("ignore", category)
        # the sequence of random numbers is not ours to move on
        stack.enter_context(torch.random.fork_rng(devices=[]))
        stack.enter_context(
            StayOnMeta(_TORCH.get(method), select_all=method in _SELECT_ALL),
        )
        try:
            yield
        finally:
            for name, value in before.items():
                setattr(config, name, value)


def owner_of(place: str) -> tuple[Any, str] | None:
    """The module or class that holds `place` and the name in it; `None` where there is none."""
    path, _, name = place.rpartition(".")
    parts = path.split(".")
    for length in range(len(parts), 0, -1):
        try:
            owner: Any = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            owner = getattr(owner, part, None)
        return (owner, name) if name in getattr(owner, "__dict__", {}) else None
    return None


@contextlib.contextmanager
def _replaced(place: str, replacement: Any) -> Iterator[None]:
    found = owner_of(place)
    if found is None:  # another peft: the step is gone, or what came for it will say so
        yield
        return
    owner, name = found
    original = owner.__dict__[name]
    setattr(owner, name, replacement)
    try:
        yield
    finally:
        setattr(owner, name, original)

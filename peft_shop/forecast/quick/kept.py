"""What an adapter keeps from the forward pass until the backward pass, per block."""

from __future__ import annotations

import re
from collections import defaultdict
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from peft_shop.forecast.quick.base_memory import DTYPE_SIZE
from peft_shop.forecast.quick.methods.parts import DTYPE_BYTES

if TYPE_CHECKING:
    from peft_shop.forecast.quick.methods.parts import Additions
    from peft_shop.forecast.records import Settings

__all__ = [
    "Place",
    "Rates",
    "adapter_size",
    "element_sizes",
    "kept_bytes",
    "kept_rates",
    "place_of",
]

_INDEXED: Final = re.compile(r"^(?P<stack>.*?)\.(?P<index>\d+)\.")


def adapter_size(settings: Settings) -> int:
    """Size of one adapter element [B]: float32 beside a half-precision base, as peft casts it."""
    return 4 if settings.autocast_adapter_dtype else DTYPE_SIZE[settings.dtype]


def element_sizes(settings: Settings) -> dict[str, int]:
    """Bytes of one element by the dtype of a `Tensor`."""
    own = {"adapter": adapter_size(settings), "base": DTYPE_SIZE[settings.dtype]}
    return DTYPE_BYTES | own


class Rates(NamedTuple):
    """What the adapter keeps in one block.

    Attributes:
        token: per token [B].
        sequence: per sequence [B].
        fixed: whatever the batch, such as weights that are computed [B].
    """

    token: float
    sequence: float
    fixed: float


Place: TypeAlias = "tuple[str, int]"
"""Stack and index of a block; `('', 0)` for what is in none."""


@lru_cache(maxsize=1 << 15)
def place_of(name: str) -> Place | None:
    """The block that a module is in, by its name; `None` outside of blocks."""
    match = _INDEXED.match(name)
    return None if match is None else (match["stack"], int(match["index"]))


def kept_rates(adapter: Additions, settings: Settings) -> dict[Place, Rates]:
    """Rates of what the adapter keeps, per block; outside blocks ('', 0).

    Worked out once per adapter and what they depend on; nobody may change them.
    """
    small, large = DTYPE_SIZE[settings.dtype], adapter_size(settings)
    frozen_input = settings.optimizer == "lora_fa" and _has_lora_a(adapter)
    key = (small, large, frozen_input, settings.moved_after_injection)
    if key not in adapter.rates:
        made = _rates(adapter, small, large, frozen=frozen_input, moved=key[-1])
        adapter.rates[key] = made
    rates: dict[Place, Rates] = adapter.rates[key]
    return rates


def _rates(
    adapter: Additions, small: int, large: int, *, frozen: bool, moved: bool
) -> dict[Place, Rates]:
    """Rates for elements of the stream and of the adapter of so many bytes."""
    found: dict[Place, list[float]] = {}
    shared: set[tuple[str, int]] = set()
    for one in adapter.kept:
        site = one.site
        place = found.setdefault(place_of(site.name) or ("", 0), [0.0, 0.0, 0.0])
        casts = one.casts and not frozen
        copied = casts and large != small
        if one.input or (casts and not copied):
            key = (site.name.rpartition(".")[0], site.inputs)
            if key not in shared:
                shared.add(key)
                place[0] += small * site.inputs
        place[0] += large * (one.token + (site.inputs if copied else 0)) + small * one.base_token
        place[1] += small * one.sequence
        place[2] += large * one.weight + small * one.base_weight + one.fixed
        if not moved:
            place[2] += small * one.copied_weight
    return {place: Rates(*values) for place, values in found.items()}


def kept_bytes(
    adapter: Additions, settings: Settings, tokens: int
) -> dict[tuple[str, int], list[float]]:
    """Kept activations and kept weights per block, (stack, index); outside blocks ('', 0)."""
    batch = settings.batch_size
    bytes_by_place: dict[tuple[str, int], list[float]] = defaultdict(lambda: [0.0, 0.0])
    for place, rates in kept_rates(adapter, settings).items():
        activations = rates.token * batch * tokens + rates.sequence * batch
        bytes_by_place[place] = [activations, rates.fixed]
    return bytes_by_place


def _has_lora_a(adapter: Additions) -> bool:
    return any(".lora_A." in tensor.name for tensor in adapter.tensors)

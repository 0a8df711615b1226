"""Sizes that a configuration states, held against what any model has; no torch.

A configuration comes from elsewhere: a number of layers of ten million would take all memory and
days before anything could be said of it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from peft_shop.errors import ModelError
from peft_shop.model.datatypes import parts_of

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["check_sizes"]

_LIMITS: Final[tuple[tuple[re.Pattern[str], int, str], ...]] = (
    (
        re.compile(
            r"(num|n)_((hidden|encoder|decoder|single|attention|joint|refiner|dual|mtp)_)*layers?|"
            r"(encoder|decoder)_layers|n_layer|depths?|layers_per_block|num_(hidden_)?blocks|"
            r"n_blocks|num_nextn_predict_layers|transformer_layers_per_block"
        ),
        2_000,
        "layers",
    ),
    (
        re.compile(r"(num|n|moe_num)(_local|_routed|_total|_shared)*_experts|moe_experts"),
        65_536,
        "experts",
    ),
    (
        re.compile(
            r"(num_(attention|key_value|query)_heads|n_heads?|num_(kv_)?heads|head_dim|"
            r"(encoder|decoder)_attention_heads|attention_head_dim)"
        ),
        65_536,
        "heads, or width of a head",
    ),
    (
        re.compile(
            r"((\w+_)?hidden_size|d_model|n_embd|hidden_dim|dim|(\w+_)?intermediate_size|ffn_dim|"
            r"d_ff|n_inner|(encoder|decoder)_ffn_dim|ffn_hidden_size|hidden_sizes|embed_dim)"
        ),
        2**22,
        "width",
    ),
    (re.compile(r"(\w+_)?vocab(ulary)?_size"), 2**27, "size of a vocabulary"),
    (
        re.compile(r"max_(position_embeddings|seq_len|sequence_length|source_positions)|n_ctx"),
        2**31,
        "longest input",
    ),
    (re.compile(r"num_(labels|codebooks|channels)|in_channels|out_channels"), 2**22, "count"),
)
"""Names of sizes, the largest that is taken for one, and what it is."""


def check_sizes(config: Any, place: str) -> None:
    """Refuses a configuration whose sizes no model has.

    Args:
        config: of transformers or diffusers, as an object or as its JSON.
        place: what to call it in an error.

    Raises:
        ModelError: a size is no whole number, negative, or beyond all reason; names the field.
    """
    for where, part in parts_of(config):
        fields = part if isinstance(part, Mapping) else vars(part)
        for key, value in fields.items():
            for pattern, limit, what in _LIMITS:
                if pattern.fullmatch(str(key)):
                    for number in _numbers(value, f"{place}: {where}{key}"):
                        # some say -1 where others say nothing
                        if not (0 if what == "layers" else -1) <= number <= limit:
                            raise ModelError(
                                f"{place}: {where}{key}: {str(number)[:40]} is no {what} that a "
                                f"model has; expected 0 to {limit:,}"
                            )
                    break


def _numbers(value: Any, place: str) -> Iterator[int]:
    """The whole numbers of a size, which some models state per layer."""
    pending, count = [value], 0
    while pending:
        size = pending.pop()
        count += 1
        if count > 20_000:
            raise ModelError(f"{place}: a list longer than any model has layers")
        if isinstance(size, list | tuple):
            pending += size
        elif isinstance(size, str) or (isinstance(size, float) and not size.is_integer()):
            raise ModelError(f"{place}: expected a whole number, got {str(size)[:60]!r}")
        elif type(size) is int or isinstance(size, float):
            yield int(size)

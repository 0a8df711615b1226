"""Blocks of a model: which mix tokens, by what, and in which of them an adapter sits."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from peft_shop.model.structure import ModuleGroup, Role, Structure, Tower

__all__ = ["MIXED_IN", "MIXED_OUT", "block_of", "blocks_of", "other_mixers", "share_of_blocks"]

MIXED_IN: Final[frozenset[Role]] = frozenset(
    {"attention_key", "attention_key_value", "attention_latent", "attention_mlp_in",
     "attention_qkv", "attention_query", "attention_value"}
)  # fmt: skip
"""Roles of what goes into attention."""
MIXED_OUT: Final[frozenset[Role]] = frozenset({"attention_mlp_out", "attention_output"})
"""Roles of what comes out of it."""
_INSTEAD: Final[tuple[tuple[frozenset[Role], frozenset[Role]], ...]] = (
    (MIXED_IN, frozenset({"attention_qkv", "attention_key_value", "mixer_in"})),
    (MIXED_OUT, frozenset({"mixer_out"})),
)
"""What does the work of attention's inputs and outputs in a block that has none of them."""
_NARROW: Final = 8
"""A mixer's input this many times narrower than its widest is a gate, one number a head."""
_PARTS: Final = (*MIXED_IN, *MIXED_OUT, "mixer_in", "mixer_out", "mlp_down", "mlp_gate",
                 "mlp_gate_up", "mlp_up", "expert_down", "expert_gate_up")  # fmt: skip


@lru_cache(maxsize=1 << 14)  # one model gets many recipes
def block_of(name: str) -> str | None:
    """The block that a module is in, by the last index before its own name; `None` outside.

    >>> block_of("model.layers.3.self_attn.q_proj"), block_of("lm_head")
    ('model.layers.3', None)
    """
    parts = name.split(".")
    last = max((i for i, part in enumerate(parts[:-1]) if part.isdigit()), default=None)
    return None if last is None else ".".join(parts[: last + 1])


def blocks_of(groups: Iterable[ModuleGroup]) -> frozenset[str]:
    """Blocks that hold modules of `groups`."""
    return frozenset(
        block for group in groups for name in group.names if (block := block_of(name)) is not None
    )


def other_mixers(
    groups: Collection[ModuleGroup], picked: Collection[ModuleGroup], roles: Collection[Role]
) -> list[ModuleGroup]:
    """What mixes tokens where `picked` has no attention: hybrids have it in few of their blocks.

    Args:
        groups: what can be chosen from.
        picked: what does what was asked for.
        roles: what was asked for.

    Returns:
        Linear attention's and state-space mixers' own inputs and outputs, gates left out.
    """
    module_groups: list[ModuleGroup] = []
    for asked, instead in _INSTEAD:
        if asked.isdisjoint(roles):
            continue
        covered = blocks_of(group for group in picked if group.role in asked)
        if not covered:
            continue
        there = [
            group
            for group in groups
            if group.role in instead and not covered >= blocks_of([group]) and group not in picked
        ]
        widest = max((group.out_features for group in there), default=0)
        module_groups += [group for group in there if group.out_features * _NARROW > widest]
    return module_groups


def share_of_blocks(
    structure: Structure, towers: Collection[Tower], names: Iterable[str]
) -> tuple[int, int]:
    """Blocks that hold any of `names`, and blocks in all.

    Blocks are those with attention, a mixer or an MLP; a convolution alone is none.
    """
    parts = set(_PARTS)
    every = blocks_of(
        group for group in structure.groups if group.tower in towers and group.role in parts
    )
    hit = {block for name in names for block in (block_of(name), name) if block in every}
    return len(hit), len(every)

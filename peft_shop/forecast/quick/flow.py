"""How far back the gradient goes: nothing is kept before the first trained module."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from peft_shop.forecast.quick.kept import place_of
from peft_shop.forecast.quick.remembered import remembered

if TYPE_CHECKING:
    from peft_shop.forecast.quick.frozen import Block
    from peft_shop.forecast.quick.kept import Place
    from peft_shop.forecast.quick.methods.parts import Additions
    from peft_shop.model.structure import Structure

__all__ = ["Flow"]


def _roles(structure: Structure) -> dict[str, str]:
    """Role of every module, by its name."""
    return remembered(
        structure,
        "roles",
        lambda: {name: group.role for group in structure.groups for name in group.names},
    )


class Flow:
    """How far back the gradient goes: nothing is kept before the first trained module."""

    def __init__(self, structure: Structure, adapter: Additions) -> None:
        names = {kept.site.name for kept in adapter.kept}
        self.everywhere = bool(adapter.prompt_tokens or adapter.prefix_tokens)
        self.sites: dict[Place, set[str]] = defaultdict(set)
        roles = _roles(structure)
        for name in names:
            place = place_of(name)
            if place is None:
                self.everywhere |= roles.get(name) == "embedding"
                continue
            self.sites[place].add(roles.get(name, "other"))

    def shares(self, block: Block) -> list[tuple[float, float, float]]:
        """Per block of the stack, the shares of norms, attention and MLP that are kept."""
        shares = []
        reached = self.everywhere
        for index in range(block.count):
            roles = self.sites.get((block.stack, index), set())
            if reached:
                shares.append((1.0, 1.0, 1.0))
            elif not roles:
                shares.append((0.0, 0.0, 0.0))
            else:
                shares.append(_first_block(roles))
                reached = True
        self.everywhere = reached
        return shares


def _first_block(roles: set[str]) -> tuple[float, float, float]:
    """Shares in the block that holds the first trained module, whose input needs no gradient."""
    if "norm" in roles or "other" in roles:
        return 1.0, 1.0, 1.0
    if any(role.startswith("attention") and role != "attention_output" for role in roles):
        return 0.5, 1.0, 1.0
    if "attention_output" in roles:
        return 0.5, 0.0, 1.0
    if roles & {"mlp_gate", "mlp_up", "mlp_gate_up"}:
        return 0.0, 0.0, 1.0
    return 0.0, 0.0, 0.0

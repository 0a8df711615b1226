"""What a LoRA keeps of an adapter: the exact rank by rule, else what was seen to be lost.

Rules are data (`catalog/conversions.toml`), checked against what the probe measured; here is how
one is chosen for an adapter and worked out from its configuration.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from peft_shop.catalog.methods import FIDELITY_RANKS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from peft_shop.catalog.engines import Conversion
    from peft_shop.catalog.methods import DeltaKind, Fidelity
    from peft_shop.serve.adapter import Adapter

__all__ = [
    "NO_PLACE",
    "TOLERANCE",
    "Loss",
    "exact_rank",
    "exact_rule",
    "formula",
    "loss",
    "matching_rules",
    "rank_by",
]

TOLERANCE: Final = 0.05
"""Part of an update [1] that an approximate conversion may lose, by Frobenius norm."""

NO_PLACE: Final[dict[DeltaKind, str]] = {
    "bias": "it trains biases, for which a LoRA has no place",
    "norm": "it trains norms, for which a LoRA has no place",
    "activation": "what it adds is no weight of a layer",
    "prompt": "it learns virtual tokens: no weight to write as a LoRA",
    "input_dependent": "it acts differently on other inputs, positions or tasks: no fixed matrix "
    "does that",
}
"""Why a LoRA cannot hold a kind of change."""


def matching_rules(
    conversions: Iterable[Conversion], adapter: Adapter, way: str
) -> list[Conversion]:
    """Rules about an adapter on a way: its method's, and those of traits that it has."""
    traits = set(adapter.traits)
    return [
        rule
        for rule in conversions
        if rule.way == way
        and rule.method in {None, adapter.method}
        and traits.issuperset(rule.traits)
    ]


def exact_rule(
    conversions: Iterable[Conversion], adapter: Adapter, way: str = "extract"
) -> Conversion | None:
    """The rule by which a LoRA of some rank holds all of an adapter's update, if there is one.

    The rank is the update's own, whoever converts: rules of peft's conversion hold for `extract`
    too, unless one of its own is about more of the adapter's traits.
    """
    known = tuple(conversions)
    found = matching_rules(known, adapter, "convert")
    if way == "extract":
        found += matching_rules(known, adapter, "extract")
    if any(rule.verdict == "approximate" for rule in found):
        return None
    exact = [rule for rule in found if rule.verdict == "exact"]
    return max(exact, key=lambda rule: len(rule.traits), default=None)


def exact_rank(conversions: Iterable[Conversion], adapter: Adapter) -> int | None:
    """Rank at which a LoRA holds all of an adapter's update, on layers of any size.

    `None` where no rule tells one, or the adapter is a method as such without a configuration.
    A layer's own rank can be lower, and is never above its smaller side.
    """
    rule = exact_rule(conversions, adapter)
    return rank_by(rule, adapter) if rule is not None and adapter.stated else None


def rank_by(rule: Conversion, adapter: Adapter) -> int:
    """The rule's sum of products; for LoRA with the highest of the ranks that the layers have."""

    def value(name: str) -> int:
        if name.isdecimal():
            return int(name)
        if name == "r" and adapter.ranks:
            return max(adapter.ranks)
        found = adapter.config.get(name)
        if isinstance(found, list | tuple):
            return len(found)  # token indices: one row each
        whole = isinstance(found, int) and not isinstance(found, bool)
        return int(found) if whole and found is not None else rule.defaults[name]

    return sum(math.prod(value(name) for name in term) for term in rule.rank)


def formula(rule: Conversion) -> str:
    """The rule's rank as people write it, such as `r * gralora_k + hybrid_r`."""
    return " + ".join(" * ".join(term) for term in rule.rank)


@dataclass(frozen=True, slots=True)
class Loss:
    """What a LoRA of a rank was seen to lose of an update that has no fixed rank.

    Attributes:
        rank: highest measured rank that may be used.
        error: part of the update lost at that rank [1], by Frobenius norm.
        least_rank: lowest measured rank.
        least_error: part lost at that one.
        shape: inputs and outputs of the layer; larger layers lose more at the same rank.
    """

    rank: int
    error: float
    least_rank: int
    least_error: float
    shape: tuple[int, int]

    def __str__(self) -> str:
        inputs, outputs = self.shape
        lower = ""
        if self.least_rank != self.rank:
            lower = f" and {100 * self.least_error:.0f} % at rank {self.least_rank}"
        return (
            f"about {100 * self.error:.0f} % of the update is lost at rank {self.rank}{lower} "
            f"(measured on {inputs} x {outputs})"
        )


def loss(fidelities: Iterable[Fidelity], most: int | None = None) -> Loss | None:
    """What is lost at the highest measured rank up to `most`, by the worst of several variants.

    `None` where nothing was measured at such a rank.
    """
    measured = [fidelity for fidelity in fidelities if fidelity.errors]
    fitting = [i for i, rank in enumerate(FIDELITY_RANKS) if most is None or rank <= most]
    if not measured or not fitting:
        return None
    last = fitting[-1]
    worst = max(measured, key=lambda one: one.errors[last])
    return Loss(
        FIDELITY_RANKS[last],
        worst.errors[last],
        FIDELITY_RANKS[0],
        worst.errors[0],
        worst.shape,
    )

"""What a verdict depends on: conditions hold just where they say."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peft_shop.catalog.conditions import Circumstances, conditions_met, in_words
from peft_shop.catalog.methods import Capability

if TYPE_CHECKING:
    from collections.abc import Mapping

MEMBERS: dict[str, tuple[Any, ...]] = {
    "bias": (False, True),
    "prepared": (False, True),
    "dtype": ("float32", "bfloat16"),
}
WORLDS = [dict(zip(MEMBERS, values, strict=True)) for values in product(*MEMBERS.values())]
terms = st.builds(
    Circumstances, **{name: st.sampled_from((None, *values)) for name, values in MEMBERS.items()}
)


def fits(term: Circumstances, world: Mapping[str, Any]) -> bool:
    """By hand: every member that is stated is as the world has it."""
    return all(getattr(term, name) in (None, value) for name, value in world.items())


@given(st.lists(terms, max_size=3), st.lists(st.sampled_from(WORLDS), min_size=1, max_size=4))
def test_met_and_unmet_are_right_in_every_world_that_is_possible(
    conditions: list[Circumstances], worlds: list[dict[str, Any]]
) -> None:
    """Of a model whose layers differ, a condition holds where it holds for every layer."""
    known = {name: frozenset(world[name] for world in worlds) for name in MEMBERS}
    met = conditions_met(conditions, known)
    every = [all(fits(term, world) for world in worlds) for term in conditions]
    assert met is any(every)


@given(terms, st.sampled_from(WORLDS), st.sets(st.sampled_from(sorted(MEMBERS))))
def test_what_is_not_known_decides_nothing(
    term: Circumstances, world: dict[str, Any], hidden: set[str]
) -> None:
    shown = {name: frozenset({value}) for name, value in world.items() if name not in hidden}
    possible = {
        fits(term, other)
        for other in WORLDS
        if all(other[name] == value for name, value in world.items() if name not in hidden)
    }
    held = term.hold(shown)
    assert held is (possible.pop() if len(possible) == 1 else None)


def test_support_under_circumstances() -> None:
    partial = Capability(
        support="partial",
        level="verified",
        note="only on layers without a bias",
        conditions=(Circumstances(bias=False), Circumstances(prepared=True, dtype="bfloat16")),
    )
    both = frozenset({True, False})
    for known, support in (
        ({}, "partial"),
        ({"bias": frozenset({False})}, "yes"),
        ({"bias": both}, "partial"),
        ({"bias": both, "prepared": frozenset({False})}, "no"),
        ({"prepared": frozenset({True}), "dtype": frozenset({"bfloat16"})}, "yes"),
    ):
        assert partial.under(known) == support
    plain = partial.model_copy(update={"conditions": ()})
    assert plain.under({"bias": frozenset({False})}) == "partial"


def test_dimensions_of_inputs_may_be_several() -> None:
    term = Circumstances(inputs=(2, 3))
    assert term.hold({"inputs": frozenset({3})}) is True
    assert term.hold({"inputs": frozenset({3, 4})}) is False
    assert in_words([term]) == "on inputs of 2 or 3 dimensions"


@pytest.mark.parametrize("name", Circumstances.model_fields)
def test_every_member_has_words(name: str) -> None:
    values = (True, False) if name not in {"inputs", "dtype"} else ()
    values = values or (((2, 3),) if name == "inputs" else ("float32", "bfloat16"))
    assert all(in_words([Circumstances.model_validate({name: value})]) for value in values)

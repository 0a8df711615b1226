"""The mutation check itself: what it changes, what it leaves alone, and that its lists are true."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))  # not a package
from mutants import EQUIVALENT, ROOMS, chosen, named

ROOT = Path(__file__).resolve().parents[1]

SOURCE = '''\
"""A room."""
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    LIMIT = 1
__all__ = ["rises"]
def rises(a: "list[1]", b: int = 2) -> "set[3]":
    """Whether 4 < 5."""
    if a < b:
        pass
    return list(zip(a, [], strict=True))
'''


def test_changes_are_made_only_where_they_can_matter() -> None:
    made = chosen("room.py", SOURCE, 99, random.Random(1))
    assert [(mutant.line, mutant.what) for mutant in made] == [
        (6, "constant + 1: 2"),
        (8, "Lt -> LtE: a < b"),
        (8, "negated condition: a < b"),
    ]
    assert len({mutant.text for mutant in made}) == 3
    assert "b: int=3" in made[0].text
    assert "a <= b" in made[1].text
    assert "if not a < b" in made[2].text


def test_a_seed_draws_the_same_mutants() -> None:
    source = (ROOT / "peft_shop" / "pareto.py").read_text(encoding="utf-8")
    drawn = [chosen("pareto.py", source, 4, random.Random(seed)) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert len(drawn[0]) == 4


@pytest.mark.parametrize("room", sorted(ROOMS))
def test_rooms_and_their_tests_are_there(room: str) -> None:
    assert (ROOT / "peft_shop" / room).is_file()
    assert all((ROOT / "tests" / name).exists() for name in ROOMS[room])


def test_what_is_called_equivalent_is_still_there() -> None:
    for room in {room for room, _, _ in EQUIVALENT}:
        there = named((ROOT / "peft_shop" / room).read_text(encoding="utf-8"))
        listed = {(line, what) for where, line, what in EQUIVALENT if where == room}
        assert listed <= there

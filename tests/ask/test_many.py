"""Answers from large catalogs: the ways for many rows agree with the plain ones, and grow alike."""

from __future__ import annotations

import cProfile
import math
import pstats
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peft_shop import recommend
from peft_shop.ask import noise, rivals, ties
from peft_shop.ask.contenders import Contender
from peft_shop.ask.noise import front_probabilities
from peft_shop.ask.rivals import Rivals
from peft_shop.ask.ties import tie_set
from peft_shop.catalog.store import parse
from peft_shop.pareto import dominates

if TYPE_CHECKING:
    from peft_shop.catalog.catalog import Catalog

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))  # not a package
from large import HEADLINES, QUESTIONS, SIZES, grown


@given(
    st.integers(1, 4).flatmap(
        lambda width: st.lists(
            st.tuples(*[st.integers(0, 4).map(float)] * width), min_size=1, max_size=14
        )
    ),
    st.data(),
)
def test_arrays_tell_the_same_of_ties_and_chances(
    rows: list[tuple[float, ...]], data: st.DataObject
) -> None:
    kinds = st.sampled_from([0.0, 0.2, 0.7])
    noisy = data.draw(st.sets(st.sampled_from(range(len(rows[0]))), max_size=1))
    sds = [tuple(data.draw(kinds) if k in noisy else 0.0 for k in range(len(row))) for row in rows]
    epsilons = [data.draw(st.sampled_from([0.0, 1.5])) for _ in rows[0]]
    plain = tie_set(rows, sds, epsilons=epsilons), front_probabilities(rows, sds)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(noise, "_LARGE", 0)
        patch.setattr(ties, "_LARGE", 0)
        assert (tie_set(rows, sds, epsilons=epsilons), front_probabilities(rows, sds)) == plain


@given(
    st.integers(1, 4).flatmap(
        lambda width: st.lists(
            st.tuples(*[st.integers(0, 3).map(float)] * width), min_size=1, max_size=12
        )
    )
)
def test_rivals_are_those_of_the_definition(rows: list[tuple[float, ...]]) -> None:
    kept = [Contender(f"run {-place % 5}-{place}", "lora", (), None) for place in range(len(rows))]
    for large in (0, math.inf):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(rivals, "_LARGE", large)
            asked = Rivals(kept, rows)
        for place, mine in enumerate(rows):
            others = [
                j
                for j, row in enumerate(rows)
                if j != place and all(a <= b for a, b in zip(row[1:], mine[1:], strict=True))
            ]
            others.sort(key=lambda j: (rows[j][0], kept[j].name))
            assert list(asked.of(place)) == others
            assert asked.beaten(place) == sum(dominates(mine, row) for row in rows)


def calls_of(catalog: Catalog, **question: object) -> int:
    """How many functions an answer calls: what grows with the catalog, whatever the machine."""
    profile = cProfile.Profile()
    profile.enable()
    recommend("metamathqa", catalog=catalog, peft_version="any", **question)
    profile.disable()
    return pstats.Stats(profile).total_calls  # type: ignore[attr-defined] # typeshed lacks it


def test_the_work_of_an_answer_grows_with_the_number_of_runs() -> None:
    few, many = (parse(grown(count)) for count in (300, 1200))
    for question in (QUESTIONS[name] for name in HEADLINES):
        for catalog in (few, many):
            calls_of(catalog, **question)  # what is worked out once
        growth = math.log(calls_of(many, **question) / calls_of(few, **question), 4)
        assert growth < 1.2, question
    for catalog in (few, many):
        catalog.derived.clear()
    first = [calls_of(catalog, evidence="pooled") for catalog in (few, many)]
    assert math.log(first[1] / first[0], 4) < 1.2


@pytest.mark.slow
def test_the_work_on_ten_thousand_runs_grows_with_their_number() -> None:
    # what it takes is measured in benchmarks/large.py
    few, many = (parse(grown(count)) for count in SIZES)
    for name, question in QUESTIONS.items():
        first = [calls_of(catalog, **question) for catalog in (few, many)]
        again = [calls_of(catalog, **question) for catalog in (few, many)]
        for less, more in (first, again):
            assert math.log(more / less, SIZES[1] / SIZES[0]) < 1.2, (name, first, again)

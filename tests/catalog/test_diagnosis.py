"""Mistakes in records become problems with a place, an expectation and the nearest names."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from peft_shop.catalog.diagnosis import dotted, problems_of
from peft_shop.catalog.methods import Curated
from peft_shop.catalog.runs import Run

if TYPE_CHECKING:
    from peft_shop.errors import Problem

METHOD: dict[str, Any] = {
    "title": "LoRA",
    "peft_type": "LORA",
    "config_class": "LoraConfig",
    "summary": "Thin matrices.",
    "family": "low_rank",
    "task_types": ["CAUSAL_LM"],
}


def found(model: type[BaseModel], data: Any, **options: Any) -> dict[str, Problem]:
    with pytest.raises(ValidationError) as caught:
        model.model_validate_json(json.dumps(data), strict=True)
    problems = problems_of(caught.value, model, data, "file.toml", **options)
    assert len({problem.where for problem in problems}) == len(problems)
    return {problem.where: problem for problem in problems}


def test_a_misspelt_key_names_the_nearest() -> None:
    problems = found(Curated, METHOD | {"famly": "low_rank"})
    assert problems["famly"].message == "unknown key 'famly'"
    assert "'family'" in problems["famly"].hint


def test_a_strange_key_names_the_valid_ones() -> None:
    paper = {"title": "t", "year": 2021, "url": "https://a.b/c", "zzz": 1}
    problems = found(Curated, METHOD | {"paper": paper})
    assert problems["paper.zzz"].hint == "valid keys are title, url, year"


def test_keys_are_known_inside_lists_and_tables() -> None:
    variant = {"id": "x", "title": "X", "summary": "S.", "when": [{"confg": "r", "equals": 1}]}
    override = {"merging": {"suport": "no", "because": "It is."}}
    problems = found(Curated, METHOD | {"variants": [variant], "overrides": override})
    assert "'config'" in problems["variants[0].when[0].confg"].hint
    assert problems["overrides.merging.suport"].hint == "did you mean 'support'?"
    assert problems["overrides.merging.support"].message == "required key is missing"


def test_a_wrong_word_names_the_nearest() -> None:
    problem = found(Curated, METHOD | {"family": "lowrank"})["family"]
    assert "'lowrank'" in problem.message
    assert "'low_rank'" in problem.hint


def test_branches_of_a_union_are_one_problem_at_the_real_place() -> None:
    problem = found(Run, {"metrics": {"train_loss": "0.5"}}, within="line 7")
    place = "line 7: metrics.train_loss"
    assert problem[place].message.endswith("got '0.5'")
    assert " or " in problem[place].message


def test_long_values_are_cut() -> None:
    problem = found(Curated, METHOD | {"title": ["x" * 1000]})["title"]
    assert len(problem.message) < 200


@given(st.lists(st.sampled_from(sorted(METHOD)), unique=True, min_size=1))
def test_every_missing_key_is_told(missing: list[str]) -> None:
    problems = found(Curated, {key: value for key, value in METHOD.items() if key not in missing})
    assert set(problems) == set(missing)


def test_places_are_dotted() -> None:
    assert dotted(["a", 0, "b", "c", 3]) == "a[0].b.c[3]"
    assert dotted([]) == ""

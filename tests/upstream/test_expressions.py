"""Expressions from configurations: honest ones match as ever, endless ones are refused."""

from __future__ import annotations

import json
import re
import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peft_shop import load_catalog
from peft_shop.adapt.retarget import retarget
from peft_shop.errors import AdapterError
from peft_shop.model.structure import ModuleGroup, Structure
from peft_shop.serve.adapter import read_adapter
from peft_shop.upstream.expressions import compiled, endless_in

if TYPE_CHECKING:
    from pathlib import Path

HOSTILE = [
    r"(a+)+$",
    r"(a*)*$",
    r"(a|a)*$",
    r"(a|aa)+$",
    r"(?:a+?)+$",
    r"((a)+b?)*$",
    r"(.*a){20}$",
    r"(?=(a+)+$)b",
    r"a*a*a*a*a*a*a*a*$",
    r"(a?){64}a{64}$",
    "a" * 20_001,
]
HONEST = [
    r".*\.(q|v)_proj",
    r"^(?!.*vision).*\.(?:q_proj|k_proj)$",
    r"(.*\.)?layers\.\d+\..*\.dense",
    r"model\.layers\.(\d+)\.mlp\.experts\.[0-9]{1,3}\.w[13]",
    r"(^|\.)q_proj$",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_what_may_never_end_is_refused(text: str) -> None:
    start = time.process_time()
    with pytest.raises(re.error):
        compiled(text)
    assert [field for field, _ in endless_in({"target_modules": text})] == ["target_modules"]
    assert [field for field, _ in endless_in({"rank_pattern": {text: 8}})] == ["rank_pattern"]
    assert time.process_time() - start < 1


@pytest.mark.parametrize("text", HONEST)
def test_what_people_write_is_taken(text: str) -> None:
    assert compiled(text).pattern == text
    assert not list(endless_in({"target_modules": text, "alpha_pattern": {text: 1}}))


def test_every_expression_on_file_is_taken() -> None:
    seen = 0
    for run in load_catalog().runs:
        for config in (run.recipe.config, run.recipe.resolved):
            assert not list(endless_in(config or {}))
            seen += isinstance((config or {}).get("target_modules"), str)
    assert seen


pieces = st.sampled_from(
    ["a", "b", ".", "a*", "b+", "(a)", "(a|b)", "[ab]*", r"\d", "a?", "(?:ab)*"]
)


@given(st.lists(pieces, min_size=1, max_size=9).map("".join), st.text("ab1", max_size=60))
def test_what_is_taken_matches_as_ever_and_ends(text: str, name: str) -> None:
    try:
        pattern = compiled(text)
    except re.error:
        assert text.count("*") + text.count("+") > 5
        return
    start = time.process_time()
    found = pattern.fullmatch(name)
    assert time.process_time() - start < 5
    assert (found is None) == (re.fullmatch(text, name) is None)


def test_an_adapter_with_an_endless_expression_is_refused(tmp_path: Path) -> None:
    config = {"peft_type": "LORA", "r": 8, "target_modules": r"(.*a)+$"}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(AdapterError, match=r"target_modules: .*list the names"):
        read_adapter(load_catalog(), tmp_path)
    config["target_modules"] = r".*\.(q|v)_proj"
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    read_adapter(load_catalog(), tmp_path)


def test_a_recipe_with_an_endless_expression_is_a_problem() -> None:
    run = next(run for run in load_catalog().runs if run.method == "lora")
    recipe = run.recipe.model_copy(update={"config": {"r": 8, "target_modules": r"(\w+\.?)+$"}})
    names = tuple(f"model.layers.{layer}.self_attn.q_proj" for layer in range(2))
    group = ModuleGroup(
        pattern="model.layers.*.self_attn.q_proj", names=names, role="attention_query",
        tower="text", kind="linear", class_name="Linear", in_features=8, out_features=8,
        parameters=64, shape=(8, 8),
    )  # fmt: skip
    on = Structure(
        name="mine", architecture="M", model_type="m", library="transformers", modality="text",
        task_type="CAUSAL_LM", benchmark_because="x", groups=(group,), parameters=128,
    )  # fmt: skip
    start = time.process_time()
    found = retarget(load_catalog(), run.model_copy(update={"recipe": recipe}), on)
    assert any("may never end" in text for text in found.problems)
    assert time.process_time() - start < 5

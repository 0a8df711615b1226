"""Trainers: the table of what they take, and the laws of the one evaluator."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peft_shop.catalog.store import load
from peft_shop.catalog.trainers import CONDITIONS, Trainer, TrainerFact
from peft_shop.errors import QueryError, UnknownNameError
from peft_shop.serve.recipes import TrainerRecipe
from peft_shop.serve.trainers import (
    Acceptance,
    accepts,
    demanded_trainer,
    methods_taken,
    resolve_trainer,
    resolve_trainer_demand,
)

CATALOG = load()
TRAINERS = CATALOG.trainer_by_id
VARIANTS = {one.id for one in CATALOG.method_by_id["lora"].variants}
TABLE = tomllib.loads((Path(__file__).parent / "trainer_table.toml").read_text(encoding="utf-8"))
PLAIN: dict[str, Any] = {"quantized": False, "checkpointing": False, "half": True, "config": {}}


def recipe(name: str, **conditions: Any) -> TrainerRecipe:
    method, variants = ("lora", (name,)) if name in VARIANTS else (name, ())
    return TrainerRecipe(name=name, method=method, variants=variants, **{**PLAIN, **conditions})


def word(found: Acceptance) -> str:
    """The verdict as the table has it."""
    if found.verdict == "accepts":
        return "cure" if found.needs else "own" if found.own else "yes"
    return {"partly": "lost", "no": "no", "unknown": "unknown"}[found.verdict]


def cells() -> list[tuple[str, str, str, str]]:
    found = []
    for trainer, rows in TABLE.items():
        for name, value in rows.items():
            if isinstance(value, str):
                found.append((trainer, "", name, value))
            else:
                found += [(trainer, name, method, verdict) for method, verdict in value.items()]
    return found


@pytest.mark.parametrize(("trainer", "condition", "name", "expected"), cells())
def test_the_table_of_the_six_first_trainers(
    trainer: str, condition: str, name: str, expected: str
) -> None:
    asked = recipe(name, **({condition: True} if condition else {}))
    assert word(accepts(CATALOG, asked, TRAINERS[trainer])) == expected


def test_the_table_is_about_the_six_first_trainers_and_misses_no_condition() -> None:
    six = {"trl", "transformers", "unsloth", "llama-factory", "axolotl", "diffusers"}
    assert set(TABLE) == six
    for name in six:
        judged = {
            topic
            for rule in TRAINERS[name].rules
            if rule.when in {"quantized", "checkpointing"}
            for topic in rule.topics
        }
        assert judged <= {*CATALOG.method_by_id, *VARIANTS}


@pytest.mark.parametrize("trainer", TRAINERS.values(), ids=lambda one: one.id)
def test_every_answer_names_where_it_was_read_and_how_it_is_known(trainer: Trainer) -> None:
    for taken in methods_taken(CATALOG, trainer):
        assert taken.basis
        for basis in taken.basis:
            assert basis.place
            assert basis.version
            assert basis.value.partition(", ")[2] in {
                *("declared", "validated", "trained", "verified")
            }
        assert taken.verdict == "accepts" or taken.obstacles


def test_unknown_is_never_yes() -> None:
    bare = TRAINERS["trl"].model_copy(update={"facts": {}, "rules": ()})
    for name in (*CATALOG.method_by_id, *VARIANTS):
        found = accepts(CATALOG, recipe(name), bare)
        assert found.verdict == "unknown"
        assert not found.satisfies(partly=True)


# --- the evaluator's laws ---

ANSWERS = st.sampled_from(["yes", "own", "no", "reject", "silent", "unknown"])
TOPICS = ("lora", "rslora", "rank_pattern")
ASKED = TrainerRecipe(
    name="a", method="lora", variants=("rslora",), config={"r": 8, "rank_pattern": {"q": 4}}
)


@given(st.tuples(*(st.tuples(ANSWERS, st.booleans()) for _ in TOPICS)))
def test_the_worst_answer_decides(answers: tuple[tuple[str, bool], ...]) -> None:
    facts = {
        topic: TrainerFact(value=value, note="So.", needs="Do." if cured else None)  # type: ignore[arg-type]
        for topic, (value, cured) in zip(TOPICS, answers, strict=True)
    }
    trainer = TRAINERS["trl"].model_copy(update={"facts": facts, "rules": ()})
    found = accepts(CATALOG, ASKED, trainer)
    ranks = []
    for topic, (value, cured) in zip(TOPICS, answers, strict=True):
        option = topic == "rank_pattern"
        if value == "unknown":
            ranks.append("unknown")
        elif value in {"yes", "own"} or cured:
            ranks.append("accepts")
        else:
            ranks.append("partly" if value == "silent" or option else "no")
    order = ("no", "unknown", "partly", "accepts")
    assert found.verdict == min(ranks, key=order.index)
    # a kept demand has nothing left out, and what is left out is told
    assert bool(found.reasons) == (found.verdict in {"no", "unknown"})
    assert bool(found.lost) or found.verdict != "partly"
    assert found.satisfies() == (found.verdict == "accepts")


@pytest.mark.parametrize("trainer", TRAINERS.values(), ids=lambda one: one.id)
def test_an_open_circumstance_is_a_caution_and_a_given_one_is_judged(trainer: Trainer) -> None:
    for rule in trainer.rules:
        for topic in rule.topics or ("lora",):
            if topic not in {*CATALOG.method_by_id, *VARIANTS}:
                continue
            if rule.when not in {"quantized", "checkpointing", "half"}:
                continue
            opened = accepts(CATALOG, recipe(topic, **{rule.when: None}), trainer)
            held = accepts(CATALOG, recipe(topic, **{rule.when: True}), trainer)
            free = accepts(CATALOG, recipe(topic, **{rule.when: False}), trainer)
            assert rule.note in " ".join(opened.cautions) or opened.verdict == "no"
            told = " ".join([*held.needs, *held.reasons, *(one.change for one in held.lost)])
            assert rule.note in told
            assert rule.note not in " ".join([*free.needs, *free.reasons, *free.cautions])


def test_every_circumstance_is_seen() -> None:
    asked = replace(recipe("lora"), quantized=True, checkpointing=True, half=False)
    config = {"target_parameters": ["experts"], "lora_dropout": 0.1, "target_modules": ["lm_head"]}
    seen = replace(asked, config=config)
    holds = {name: seen.condition(name) for name in CONDITIONS}
    assert holds == dict.fromkeys(CONDITIONS, True) | {"half": False}
    plain = {name: recipe("lora").condition(name) for name in CONDITIONS}
    assert plain == dict.fromkeys(CONDITIONS, False) | {"half": True}
    # a quantized base has no type of its own
    assert replace(recipe("lora"), quantized=True).condition("half") is False


def test_options_that_a_trainer_loses_are_named() -> None:
    asked = replace(recipe("lora"), config={"r": 8, "bias": "all", "exclude_modules": ["lm_head"]})
    found = accepts(CATALOG, asked, TRAINERS["axolotl"])
    assert found.verdict == "partly"
    assert [one.option for one in found.lost] == ["bias", "exclude_modules"]
    assert "dropped without a word" in found.obstacles
    # what is at rest loses nothing
    quiet = replace(asked, config={"r": 8, "bias": "none", "exclude_modules": None})
    assert accepts(CATALOG, quiet, TRAINERS["axolotl"]).verdict == "accepts"
    pattern = replace(asked, config={"target_modules": r".*\.q_proj"})
    found = accepts(CATALOG, pattern, TRAINERS["llama-factory"])
    assert [one.option for one in found.lost] == ["target_modules"]


def test_models_of_another_kind_are_not_taken() -> None:
    image = replace(recipe("lora"), models="image")
    assert accepts(CATALOG, image, TRAINERS["trl"]).verdict == "no"
    assert accepts(CATALOG, image, TRAINERS["kohya"]).own
    text = replace(recipe("lora"), models="text")
    assert accepts(CATALOG, text, TRAINERS["kohya"]).verdict == "no"
    full = replace(recipe("lora"), method="full_finetuning")
    assert accepts(CATALOG, full, TRAINERS["trl"]).verdict == "unknown"


def test_another_version_and_a_retired_tool_are_cautions() -> None:
    found = accepts(CATALOG, recipe("lora"), TRAINERS["trl"], version="1.15.0")
    assert found.verdict == "accepts"
    assert any("1.16.0" in text and "1.15.0" in text for text in found.cautions)
    same = accepts(CATALOG, recipe("lora"), TRAINERS["trl"], version="1.16.0")
    assert same.cautions == ()
    assert accepts(CATALOG, recipe("lora"), TRAINERS["torchtune"]).cautions


# --- names ---


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("TRL", "trl"),
        ("LLaMA Factory", "llama-factory"),
        ("llamafactory", "llama-factory"),
        ("sd-scripts", "kohya"),
        ("Trainer", "transformers"),
        ("ms swift", "ms-swift"),
    ],
)
def test_names_resolve_as_people_write_them(text: str, name: str) -> None:
    assert resolve_trainer(CATALOG, text).id == name


@given(st.text(max_size=30))
def test_any_other_name_is_an_error_that_names_the_nearest(text: str) -> None:
    folded = "".join(letter for letter in text.lower() if letter.isalnum())
    known = {
        "".join(letter for letter in name.lower() if letter.isalnum())
        for one in CATALOG.trainers
        for name in (one.id, one.title, *one.aliases)
    }
    if folded in known:
        assert resolve_trainer(CATALOG, text).id in TRAINERS
    else:
        with pytest.raises(UnknownNameError, match="trainer"):
            resolve_trainer(CATALOG, text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("TRL", ("trl", None, False)),
        ("trl==1.15.0", ("trl", "1.15.0", False)),
        ("Axolotl:partial", ("axolotl", None, True)),
        ("axolotl == 0.20 : partly", ("axolotl", "0.20", True)),
    ],
)
def test_demands(text: str, expected: tuple[str, str | None, bool]) -> None:
    usual = resolve_trainer_demand(CATALOG, text)
    assert demanded_trainer(usual) == expected
    assert resolve_trainer_demand(CATALOG, usual) == usual


@pytest.mark.parametrize("text", ["", ":partly", "trl:", "trl==", "==1"])
def test_demands_without_a_part_are_errors(text: str) -> None:
    with pytest.raises(QueryError, match="expected a trainer"):
        resolve_trainer_demand(CATALOG, text)


def test_a_version_is_no_list() -> None:
    with pytest.raises(QueryError, match="expected a version"):
        resolve_trainer_demand(CATALOG, "trl==1.15.0,axolotl")


def test_misspelt_demands_are_errors() -> None:
    with pytest.raises(UnknownNameError, match="unsloth"):
        resolve_trainer_demand(CATALOG, "unslooth")
    with pytest.raises(UnknownNameError, match="partly"):
        resolve_trainer_demand(CATALOG, "trl:native")


def test_on_a_quantized_base_trl_casts_whatever_it_trains() -> None:
    """Its cast knows no methods, so every method has the cure or is refused."""
    for name in (*CATALOG.method_by_id, *VARIANTS):
        if accepts(CATALOG, recipe(name), TRAINERS["trl"]).verdict == "accepts":
            found = accepts(CATALOG, recipe(name, quantized=True), TRAINERS["trl"])
            told = " ".join((*found.needs, *found.reasons))
            assert "cast" in told or found.verdict == "no", name


@pytest.mark.parametrize("trainer", TRAINERS.values(), ids=lambda one: one.id)
def test_a_format_of_checkpoints_that_is_not_on_record_is_unknown(trainer: Trainer) -> None:
    plain = accepts(CATALOG, recipe("lora"), trainer)
    for backend in ("gptq", "awq", "nvfp4 (modelopt)", "fp8"):
        found = accepts(CATALOG, recipe("lora").on_stored(backend), trainer)
        if trainer.entry == "peft_config":
            assert found.verdict == "accepts"
        elif backend in trainer.stored:
            assert found.verdict == plain.verdict
        else:
            assert found.verdict == "unknown"
            assert backend in found.obstacles
    # files of bitsandbytes are what it would make by itself
    found = accepts(CATALOG, recipe("lora").on_stored("bnb_4bit"), trainer)
    assert found == accepts(CATALOG, recipe("lora", quantized=True), trainer)
    assert recipe("lora").on_stored(None) == recipe("lora")


def test_unknown_cells_are_few() -> None:
    """Trainers whose answer to a method nobody knows; the debt grows by decision alone."""
    debts = [
        (trainer.id, taken.recipe)
        for trainer in CATALOG.trainers
        for taken in methods_taken(CATALOG, trainer)
        if taken.verdict == "unknown"
    ]
    assert len(debts) <= 6

"""A recipe is what the author chose: no more than that, and no less."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peft_shop.catalog.methods import Condition, Variant
from peft_shop.catalog.runs import Recipe, Run, Training
from peft_shop.curate.intake.conventions import load_conventions
from peft_shop.curate.intake.layouts import ResultFile
from peft_shop.curate.intake.recipes import (
    changed_texts,
    class_defaults,
    deviations,
    holds,
    peft_types,
    read_recipe,
    recognised,
)
from peft_shop.curate.intake.results import read_result

if TYPE_CHECKING:
    from conftest import Suite

    from peft_shop.curate.intake.results import Result

ROOT = Path(__file__).parents[2]
CONVENTIONS = load_conventions(ROOT / "data")
RUNS = [
    Run.model_validate_json(line)
    for path in sorted((ROOT / "data" / "runs").glob("*.jsonl"))
    for line in path.read_text(encoding="utf-8").splitlines()
]
TRAINING = Training(
    model_id="m",
    optimizer="AdamW",
    learning_rate=0.1,
    max_steps=1,
    batch_size=1,
    max_length=1,
    dtype="bfloat16",
    options={"init_kv_cache_prefix": "Think."},
)


def result(suite: Suite, *edits: tuple[str, Any]) -> Result:
    path = suite.write("a.json", *edits)
    outcome = read_result(ResultFile(path, "MetaMathQA", "local", "a.json"), CONVENTIONS)
    assert outcome.problems == ()
    assert outcome.result is not None
    return outcome.result


def recipe(
    suite: Suite, *edits: tuple[str, Any], experiment: dict[str, Any] | None = None
) -> Recipe:
    found, problems, _ = read_recipe(result(suite, *edits), experiment, CONVENTIONS)
    assert problems == []
    assert found is not None
    return found


def config(**fields: Any) -> tuple[str, Any]:
    return "run_info/peft_config", fields


def test_only_what_differs_from_the_defaults_is_stated(suite: Suite) -> None:
    found = recipe(suite)
    assert found.peft_type == "LORA"
    assert found.config == {"lora_alpha": 16, "target_modules": ["q_proj", "v_proj"]}
    assert found.written_by == "0.20.0"
    assert found.config_source == "result"


def test_every_default_of_every_class_reduces_to_nothing(suite: Suite) -> None:
    assert len(peft_types()) >= 45
    derived = {
        name for rule in CONVENTIONS.rules.config.derived for name in rule.fields
    }  # these are None by default everywhere
    for peft_type in peft_types():
        recorded = {"peft_type": peft_type, **class_defaults(peft_type)} | {"peft_type": peft_type}
        found = recipe(suite, config(**recorded))
        assert found.config == {}, peft_type
        assert set(found.resolved) <= derived, peft_type


def test_sets_have_one_order_and_no_repetition(suite: Suite) -> None:
    found = recipe(suite, config(peft_type="LORA", target_modules=["v", "q", "v"]))
    assert found.config == {"target_modules": ["q", "v"]}


def test_a_pattern_of_modules_stays_as_it_is(suite: Suite) -> None:
    found = recipe(suite, config(peft_type="LORA", target_modules=r"blocks\.\d+$"))
    assert found.config == {"target_modules": r"blocks\.\d+$"}


def test_what_peft_resolved_is_kept_apart(suite: Suite) -> None:
    found = recipe(suite, experiment={"peft_type": "LORA", "target_modules": None})
    assert "target_modules" not in found.config
    assert found.resolved == {"target_modules": ["q_proj", "v_proj"]}
    assert found.config_source == "experiment"


def test_what_ran_wins_over_a_file_edited_later(suite: Suite) -> None:
    started = {"peft_type": "LORA", "target_modules": ["k_proj"], "lora_alpha": 99}
    found = recipe(suite, experiment=started)
    assert found.config == {"lora_alpha": 16, "target_modules": ["q_proj", "v_proj"]}


def test_learned_ranks_are_no_part_of_a_recipe(suite: Suite) -> None:
    recorded = config(peft_type="ADALORA", total_step=5000, rank_pattern={"a.lora_E": [True]})
    assert recipe(suite, recorded).config == {"total_step": 5000}
    chosen = {"peft_type": "ADALORA", "rank_pattern": {"a": 4}}
    assert recipe(suite, recorded, experiment=chosen).config["rank_pattern"] == {"a": 4}


def test_chosen_ranks_of_another_method_stay(suite: Suite) -> None:
    found = recipe(suite, config(peft_type="OSF", rank_pattern={"q_proj": 2944}))
    assert found.config == {"rank_pattern": {"q_proj": 2944}}


def test_shapes_of_the_base_model_are_no_choice(suite: Suite) -> None:
    shapes = {"token_dim": 1024, "num_layers": 28, "num_attention_heads": 8}
    recorded = config(
        peft_type="PREFIX_TUNING", num_virtual_tokens=200, encoder_hidden_size=3072, **shapes
    )
    found = recipe(suite, recorded)
    assert found.config == {"num_virtual_tokens": 200}
    assert found.resolved == {**shapes, "encoder_hidden_size": 3072}
    other = recipe(suite, config(peft_type="P_TUNING", encoder_hidden_size=128))
    assert other.config == {"encoder_hidden_size": 128}


def test_a_retired_method_is_told_by_its_heir(suite: Suite) -> None:
    found = recipe(suite, config(peft_type="BONE", r=64, init_weights="bat"))
    assert found.peft_type == "MISS"
    assert found.config == {"init_weights": "bat"}


def test_a_field_that_peft_does_not_know_is_kept_and_told(suite: Suite) -> None:
    read = result(suite, config(peft_type="LORA", lora_magic=3))
    found, problems, notes = read_recipe(read, None, CONVENTIONS)
    assert problems == []
    assert found is not None
    assert found.config == {"lora_magic": 3}
    assert [note.where for note in notes] == ["run_info.peft_config.lora_magic"]


@pytest.mark.parametrize(
    ("recorded", "experiment", "message"),
    [
        ({"peft_type": "LORRA"}, None, "unknown method 'LORRA'"),
        ({"peft_type": ["LORA"]}, None, "unknown method"),
        ({}, None, "unknown method"),
        ({"peft_type": "LORA"}, {"peft_type": "OFT"}, "'LORA' ran, the experiment's file says"),
    ],
)
def test_another_method_is_a_mistake(
    suite: Suite, recorded: dict[str, Any], experiment: dict[str, Any] | None, message: str
) -> None:
    read = result(suite, config(**recorded))
    found, (problem,), _ = read_recipe(read, experiment, CONVENTIONS)
    assert found is None
    assert message in problem.message
    assert problem.where == "run_info.peft_config.peft_type"


def test_an_unknown_method_has_near_names(suite: Suite) -> None:
    _, (problem,), _ = read_recipe(result(suite, config(peft_type="LORRA")), None, CONVENTIONS)
    assert "LORA" in problem.hint


def test_full_fine_tuning_has_no_configuration(suite: Suite) -> None:
    found = recipe(suite, ("run_info/peft_config", None))
    assert (found.peft_type, found.config, found.written_by) == (None, {}, None)
    assert found.training.learning_rate == 0.0001


def test_training_settings_are_those_of_the_run(suite: Suite) -> None:
    found = recipe(
        suite,
        ("run_info/train_config/optimizer_type", "lora-fa"),
        ("run_info/train_config/optimizer_kwargs", {"lr": 1, "r": 32}),
        ("run_info/train_config/init_kv_cache_prefix", "Think."),
        ("run_info/train_config/use_gc", True),
    ).training
    assert (found.optimizer, found.learning_rate) == ("lora-fa", 1.0)
    assert found.optimizer_options == {"r": 32}
    assert found.options == {"init_kv_cache_prefix": "Think."}
    assert found.gradient_checkpointing
    assert (found.lr_scheduler, found.max_length, found.max_steps) == ("cosine", 768, 5000)


@pytest.mark.parametrize(
    ("place", "value", "where"),
    [
        ("optimizer_kwargs", ..., "optimizer_kwargs"),
        ("optimizer_kwargs", 0.1, "optimizer_kwargs"),
        ("optimizer_kwargs", {"weight_decay": 0.1}, "optimizer_kwargs.lr"),
        ("optimizer_kwargs", {"lr": "0.1"}, "optimizer_kwargs.lr"),
        ("optimizer_type", ..., "optimizer"),
        ("optimizer_type", 3, "optimizer_type"),
        ("max_steps", "5000", "max_steps"),
        ("max_steps", True, "max_steps"),
        ("max_seq_length", 768.5, "max_seq_length"),
        ("use_gc", 1, "use_gc"),
        ("seed", "zero", "seed"),
    ],
)
def test_a_wrong_setting_is_named_as_the_file_names_it(
    suite: Suite, place: str, value: Any, where: str
) -> None:
    read = result(suite, (f"run_info/train_config/{place}", value))
    found, (problem,), _ = read_recipe(read, None, CONVENTIONS)
    assert found is None
    assert problem.where == f"run_info.train_config.{where}"


def test_deviations_are_what_was_recorded_and_differs(suite: Suite) -> None:
    rules = CONVENTIONS.rules.benchmarks["metamathqa"]
    read = result(
        suite,
        ("run_info/train_config/batch_size", 8),
        ("run_info/train_config/use_gc", ...),
    )
    assert deviations(read, rules, ("batch_size", "use_gc", "dtype")) == [("batch_size", 8, 4)]


def test_another_text_is_noticed_and_not_stored(suite: Suite) -> None:
    rules = CONVENTIONS.rules.benchmarks["metamathqa"]
    assert changed_texts(result(suite), rules) == []
    read = result(suite, ("run_info/train_config/query_template", "Q: {query}"))
    assert changed_texts(read, rules) == ["query_template"]
    found, _, _ = read_recipe(read, None, CONVENTIONS)
    assert found is not None
    assert "Q: {query}" not in found.model_dump_json()


# --- variants ---

STATED = Recipe(
    peft_type="LORA",
    config={"use_rslora": True, "init_lora_weights": "pissa_niter_4", "r": 1},
    training=TRAINING,
)


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (Condition(config="use_rslora", equals=True), True),
        (Condition(config="use_rslora", equals=1), False),
        (Condition(config="r", equals=True), False),
        (Condition(config="use_dora", equals=True), False),
        (Condition(config="use_dora", equals=None), True),
        (Condition(config="init_lora_weights", prefix="pissa"), True),
        (Condition(config="init_lora_weights", prefix="olora"), False),
        (Condition(config="r", prefix="1"), False),
        (Condition(config="r", one_of=(1, 2)), True),
        (Condition(config="r", one_of=(2, 3)), False),
        (Condition(config="kasa_config", is_set=True), False),
        (Condition(config="kasa_config", is_set=False), True),
        (Condition(config="r", is_set=True), True),
        (Condition(training="optimizer", equals="AdamW"), True),
        (Condition(training="optimizer", equals="lora-fa"), False),
        (Condition(training="init_kv_cache_prefix", is_set=True), True),
        (Condition(training="options.init_kv_cache_prefix", is_set=True), True),
        (Condition(training="nothing", is_set=True), False),
    ],
)
def test_a_condition_is_a_test_on_one_field(condition: Condition, *, expected: bool) -> None:
    assert holds(condition, STATED) is expected


def variant(name: str, *when: Condition) -> Variant:
    return Variant(id=name, title=name, summary=name, when=when)


CONDITIONS = st.sampled_from(
    [
        Condition(config="use_rslora", equals=True),
        Condition(config="r", one_of=(1, 2)),
        Condition(config="use_dora", equals=True),
        Condition(training="optimizer", equals="AdamW"),
        Condition(training="optimizer", prefix="lora"),
    ]
)


@given(st.lists(st.lists(CONDITIONS, max_size=3), max_size=4))
def test_a_variant_needs_all_its_conditions(groups: list[list[Condition]]) -> None:
    variants = [variant(f"v{i}", *group) for i, group in enumerate(groups)]
    expected = [
        v.id for v in variants if v.when and all(holds(condition, STATED) for condition in v.when)
    ]
    assert list(recognised(STATED, variants)) == expected


# --- the committed recipes ---


@pytest.mark.parametrize(
    "run",
    [pytest.param(run, id=run.id) for run in RUNS if "2026-09-16" in run.snapshots],
)
def test_a_committed_recipe_states_no_default_and_no_unknown_field(run: Run) -> None:
    if run.recipe.peft_type is None:
        assert run.recipe.config == {}
        return
    defaults = class_defaults(run.recipe.peft_type)
    for name, value in run.recipe.config.items():
        assert name in defaults
        assert value != defaults[name]
    assert not set(run.recipe.config) & set(run.recipe.resolved)
    assert not set(run.recipe.config) & set(CONVENTIONS.rules.config.dropped)


def test_committed_recipes_and_dumps_make_the_same_configuration() -> None:
    """Where the raw files are at hand: recipe + resolved = what the run recorded."""
    upstream = ROOT.parent / "shared" / "upstream" / "results"
    if not upstream.is_dir():
        pytest.skip("the raw results are not beside the repository")
    recorded = {}
    for path in upstream.rglob("*.json"):
        info = json.loads(path.read_bytes())["run_info"]
        recorded[info["experiment_name"], info["created_at"]] = info["peft_config"]
    compared = 0
    for run in RUNS:
        dump = recorded.get((run.experiment, run.created_at))
        if dump is None or dump["peft_type"] != run.recipe.peft_type:
            continue  # full fine-tuning, other hardware, or a retired method
        rules = CONVENTIONS.rules.config
        learned = {n for r in rules.learned if dump["peft_type"] in r.peft_types for n in r.fields}
        stated = class_defaults(dump["peft_type"]) | run.recipe.config | run.recipe.resolved
        for name, value in dump.items():
            if name in rules.dropped or name in learned:
                continue
            want = sorted(set(value)) if name in rules.sets and isinstance(value, list) else value
            assert stated[name] == want, (run.id, name)
        compared += 1
    assert compared > 200


def test_defaults_are_plain_json() -> None:
    for peft_type in peft_types():
        json.dumps(class_defaults(peft_type), allow_nan=False)


def test_the_default_of_a_class_is_read_from_the_class() -> None:
    from peft import LoraConfig

    fields = {field.name for field in dataclasses.fields(LoraConfig)}
    assert set(class_defaults("LORA")) == fields
    assert class_defaults("LORA")["r"] == LoraConfig().r

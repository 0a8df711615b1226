"""What people read about trainers: tables, pages, a sentence, the next command."""

from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from peft_shop import load_catalog, recommend
from peft_shop.catalog.trainers import CONDITIONS, TRAINER_OPTIONS, TRAINER_TOPICS
from peft_shop.cli.app import app
from peft_shop.errors import UnknownNameError
from peft_shop.serve.trainers import methods_taken
from peft_shop.show.next_steps import next_command
from peft_shop.show.trainers import acceptance_sentence, circumstances

if TYPE_CHECKING:
    from pathlib import Path

CATALOG = load_catalog()


def told(*words: str) -> str:
    done = CliRunner().invoke(app, ["trainers", *words])
    assert done.exit_code == 0, done.exception
    return done.stdout


def test_all_trainers_stand_in_one_table_with_counts() -> None:
    rows = {row["trainer"]: row for row in csv.DictReader(io.StringIO(told("--format", "csv")))}
    text = told()
    for trainer in CATALOG.trainers:
        assert trainer.id in text
    verdicts = [one.verdict for one in methods_taken(CATALOG, CATALOG.trainer_by_id["trl"])]
    row = next(line for line in text.splitlines() if line.split()[:1] == ["trl"])
    assert str(verdicts.count("accepts")) in row.split()
    assert rows


@pytest.mark.parametrize("trainer", CATALOG.trainers, ids=lambda one: one.id)
def test_one_trainer_tells_every_method_and_every_trap(trainer: object) -> None:
    name = trainer.id  # type: ignore[attr-defined] # a Trainer
    text = " ".join(told(name, "--format", "markdown").split())
    assert all(method.id in text for method in CATALOG.methods)
    known = CATALOG.trainer_by_id[name]
    assert all(hazard.text in text for hazard in known.hazards)
    assert all(rule.note in text for rule in known.rules)
    assert all(key in text for key in known.keys.values())
    # options, data and losses: every answer, and what is told with it
    for topic in (*TRAINER_OPTIONS, *TRAINER_TOPICS):
        fact = known.facts.get(topic)
        if fact is not None and topic not in {"other_methods", "other_variants"}:
            for said in filter(None, (fact.key, fact.note, fact.needs)):
                assert said.rstrip(".") in text, topic


def test_rows_name_the_circumstances_of_their_own_method_alone() -> None:
    trl = CATALOG.trainer_by_id["trl"]
    assert circumstances(trl, ["prefix_tuning"]) == [
        CONDITIONS["checkpointing"],
        CONDITIONS["quantized"],
    ]
    assert circumstances(CATALOG.trainer_by_id["kohya"], CATALOG.method_by_id) == []
    # rules about every method stand once, below the table
    assert CONDITIONS["head"] not in circumstances(trl, CATALOG.method_by_id)


def test_json_is_the_record_itself() -> None:
    (whole,) = json.loads(told("LLaMA Factory", "--format", "json"))
    assert whole == CATALOG.trainer_by_id["llama-factory"].model_dump(mode="json")


def test_an_unknown_trainer_names_the_nearest() -> None:
    done = CliRunner().invoke(app, ["trainers", "axolotel"])
    assert isinstance(done.exception, UnknownNameError)
    assert "axolotl" in str(done.exception)


def test_a_sentence_says_verdict_needs_and_who_does_them() -> None:
    found = {one.recipe: one for one in methods_taken(CATALOG, CATALOG.trainer_by_id["trl"])}
    assert acceptance_sentence(found["lora"]).startswith("trl 1.16.0: takes it.")
    adalora = acceptance_sentence(found["adalora"])
    assert "To do (the file of `snippet --trainer` does it)" in adalora
    assert "does not take it" in acceptance_sentence(found["poly"])
    assert "unknown" in acceptance_sentence(found["cpt"])


@pytest.mark.parametrize(
    ("trainer", "expected"),
    [
        ("trl", " --trainer trl -o train.py"),
        ("axolotl", " --trainer axolotl -o train.yaml"),
        ("ms-swift", " --trainer ms-swift -o train.sh"),
        ("ludwig", " -o train.py"),
        (["trl", "axolotl"], " -o train.py"),
    ],
)
def test_the_next_command_writes_the_file_of_the_trainer(trainer: object, expected: str) -> None:
    found = recommend("metamathqa", trainer=trainer, peft_version="any")  # type: ignore[arg-type] # names
    command = str(next_command(found))
    assert command.endswith(expected)
    assert ("--trainer" in command) == ("--trainer" in expected)


def test_the_next_command_is_one_that_works(tmp_path: Path) -> None:
    model = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": 256,
        "intermediate_size": 512,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "num_hidden_layers": 2,
        "vocab_size": 1024,
        "dtype": "bfloat16",
    }
    (tmp_path / "config.json").write_text(json.dumps(model), encoding="utf-8")
    asked = {"model": str(tmp_path), "methods": ["lora"]}
    command = str(next_command(recommend("metamathqa", trainer="trl==1.15", **asked)))  # type: ignore[arg-type] # names
    assert " --trainer trl==1.15 " in command  # the version that the user has is kept
    # no script is written for the measured images' benchmark on a language model
    answer = recommend("image_gen", **asked)  # type: ignore[arg-type] # names
    command = str(next_command(answer))
    assert command.startswith(f"peft-shop config {answer.short(answer.best)} -b image_gen")

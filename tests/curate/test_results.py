"""A result file is read whole, or every mistake in it is named with its place."""

from __future__ import annotations

import json
import math
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peft_shop.curate.intake import results, sheets
from peft_shop.curate.intake.conventions import load_conventions
from peft_shop.curate.intake.layouts import ResultFile
from peft_shop.curate.intake.results import read_result
from peft_shop.curate.intake.sheets import MAX_DEPTH, parse

if TYPE_CHECKING:
    from conftest import Suite

    from peft_shop.curate.intake.results import Outcome

DATA = Path(__file__).parents[2] / "data"
CONVENTIONS = load_conventions(DATA)
LAST = "train_info/metrics/2"


def read(path: Path, task: str | None = "MetaMathQA", source: str = "local") -> Outcome:
    return read_result(ResultFile(path, task, source, path.name), CONVENTIONS)


def test_a_sound_file_is_taken_with_every_figure(suite: Suite) -> None:
    outcome = read(suite.write("a.json"))
    assert outcome.problems == ()
    result = outcome.result
    assert result is not None
    assert result.metrics == {
        "peak_memory_bytes": 22_000_000_000,
        "average_memory_bytes": 13_000_000_000,
        "p99_memory_bytes": 20_000_000_000,
        "train_seconds": 1000.25,
        "step_seconds": 80.75,
        "total_seconds": 1200.5,
        "checkpoint_bytes": 9_000_000,
        "trainable_parameters": 2_293_760,
        "total_parameters": 3_215_043_584,
        "train_loss": 0.75,
        "test_accuracy": 0.45,
        "forgetting": 0.1,
        "tokens_seen": 419_805,
    }
    assert result.curve is not None
    assert (result.curve.steps, result.curve.scores) == ((250, 500), (0.3, 0.4))
    assert result.packages == {
        "peft": "0.20.0",
        "torch": "2.13.0+cu130",
        "transformers": "5.13.1",
    }
    assert result.accelerator == "NVIDIA L40S"
    assert result.platform == "Linux x86_64"
    assert result.notes == ()


def test_older_spellings_mean_the_same(suite: Suite) -> None:
    document = suite.result()
    info, system = document["train_info"], document["meta_info"]["system_info"]
    for part in ("max", "reserved_avg", "reserved_99th"):
        info[f"cuda_memory_{part}"] = info.pop(f"accelerator_memory_{part}")
    system["gpu"] = system.pop("accelerator")
    old = read(suite.write_text("old.json", json.dumps(document))).result
    new = read(suite.write("new.json")).result
    assert old is not None
    assert new is not None
    assert (old.metrics, old.accelerator) == (new.metrics, new.accelerator)


@pytest.mark.parametrize(
    ("created_at", "field"),
    [
        ("2026-01-08T23:59:59+00:00", "forgetting_2025"),
        ("2026-01-09T00:00:00+00:00", "forgetting_2026_01"),
        ("2026-07-13T23:59:59+00:00", "forgetting_2026_01"),
        ("2026-07-14T00:00:00+00:00", "forgetting"),
        ("2026-07-14T01:00:00+02:00", "forgetting_2026_01"),  # the evening before, in UTC
    ],
)
def test_forgetting_goes_to_the_definition_in_force(
    suite: Suite, created_at: str, field: str
) -> None:
    result = read(suite.write("a.json", ("run_info/created_at", created_at))).result
    assert result is not None
    assert [name for name in result.metrics if name.startswith("forgetting")] == [field]


@pytest.mark.parametrize("value", [..., None, math.nan])
def test_a_side_metric_without_a_value_is_absent(suite: Suite, value: Any) -> None:
    outcome = read(suite.write("a.json", (f"{LAST}/forgetting", value)))
    assert outcome.problems == ()
    assert outcome.result is not None
    assert "forgetting" not in outcome.result.metrics


@pytest.mark.parametrize("key", ["num_trainable_params", "num_total_params"])
def test_what_early_files_lack_is_absent(suite: Suite, key: str) -> None:
    outcome = read(suite.write("a.json", (f"train_info/{key}", ...)))
    assert outcome.problems == ()
    assert outcome.result is not None
    assert len(outcome.result.metrics) == 12


def test_the_stand_in_for_a_failed_save_is_removed(suite: Suite) -> None:
    result = read(suite.write("a.json", ("train_info/file_size", 99_999_999))).result
    assert result is not None
    assert result.sentinels == ("checkpoint_bytes",)
    assert "checkpoint_bytes" not in result.metrics


def test_a_nan_in_the_curve_leaves_a_gap(suite: Suite) -> None:
    result = read(suite.write("a.json", ("train_info/metrics/0/valid accuracy", math.nan))).result
    assert result is not None
    assert result.curve is not None
    assert result.curve.steps == (500,)


WRONG: list[tuple[str, Any, str, str]] = [
    # place, value (... removes it), dotted place of the problem, message
    ("run_info", ..., "run_info", "required key is missing"),
    ("run_info", [], "run_info", "expected an object, got a list"),
    ("train_info", None, "train_info", "is null"),
    ("meta_info", ..., "meta_info", "required key is missing"),
    ("run_info/experiment_name", ..., "run_info.experiment_name", "required key is missing"),
    ("run_info/experiment_name", 7, "run_info.experiment_name", "expected text, got a number"),
    ("run_info/experiment_name", "  ", "run_info.experiment_name", "expected text"),
    ("run_info/experiment_name", "lora\\x", "run_info.experiment_name", "has a backslash"),
    ("run_info/experiment_name", "lora/../x", "run_info.experiment_name", "not the name"),
    ("run_info/experiment_name", "/etc/x", "run_info.experiment_name", "not the name"),
    ("run_info/experiment_name", "lora x", "run_info.experiment_name", "not the name"),
    ("run_info/experiment_name", "a" * 201, "run_info.experiment_name", "not the name"),
    ("run_info/created_at", "yesterday", "run_info.created_at", "not a time"),
    ("run_info/created_at", "2026-02-30T00:00:00+00:00", "run_info.created_at", "not a time"),
    ("run_info/created_at", "2026-08-01T10:00:00", "run_info.created_at", "not a time"),
    ("run_info/total_time", math.inf, "run_info.total_time", "expected a number, got inf"),
    ("run_info/train_config", ..., "run_info.train_config", "required key is missing"),
    ("run_info/train_config/model_id", "a/b", "run_info.train_config.model_id", "measured on"),
    ("run_info/train_config/x", math.nan, "run_info.train_config.x", "expected a number, got nan"),
    ("run_info/peft_config", ..., "run_info.peft_config", "required key is missing"),
    ("run_info/peft_config", "LORA", "run_info.peft_config", "expected an object, got text"),
    ("run_info/peft_config/r", math.inf, "run_info.peft_config.r", "expected a number, got inf"),
    ("run_info/peft_worktree_is_dirty", "no", "run_info.peft_worktree_is_dirty", "a boolean"),
    ("train_info/status", ..., "train_info.status", "required key is missing"),
    ("train_info/status", 1, "train_info.status", "expected text, got a number"),
    ("train_info/train_time", math.nan, "train_info.train_time", "expected a number, got nan"),
    ("train_info/train_time", "1000", "train_info.train_time", "got text ('1000')"),
    ("train_info/train_time", True, "train_info.train_time", "got a boolean"),
    ("train_info/train_time", -1, "train_info.train_time", "of at least 0, got -1"),
    ("train_info/file_size", 1.5, "train_info.file_size", "expected an integer, got a number"),
    ("train_info/file_size", 10**400, "train_info.file_size", "401 digits"),
    (
        "train_info/accelerator_memory_max",
        ...,
        "train_info.accelerator_memory_max",
        "required key is missing",
    ),
    ("train_info/metrics", ..., "train_info.metrics", "list of at least one entry"),
    ("train_info/metrics", {}, "train_info.metrics", "list of at least one entry"),
    ("train_info/metrics/1", 3, "train_info.metrics[1]", "expected an object, got a number"),
    ("train_info/metrics/1/train time", ..., "train_info.metrics[1].train time", "is missing"),
    ("train_info/metrics/0/step", True, "train_info.metrics[0].step", "got a boolean"),
    ("train_info/metrics/0/step", ..., "train_info.metrics[0].step", "required key is missing"),
    (f"{LAST}/test accuracy", ..., "train_info.metrics[2].test accuracy", "is missing"),
    (f"{LAST}/test accuracy", math.nan, "train_info.metrics[2].test accuracy", "got nan"),
    (f"{LAST}/train loss", math.nan, "train_info.metrics[2].train loss", "got nan"),
    (f"{LAST}/forgetting", math.inf, "train_info.metrics[2].forgetting", "got inf"),
    (
        "meta_info/package_info/torch-version",
        ...,
        "meta_info.package_info.torch-version",
        "required key is missing",
    ),
    ("meta_info/package_info", {}, "meta_info.package_info.transformers-version", "is missing"),
    (
        "meta_info/system_info/accelerator",
        ...,
        "meta_info.system_info.gpu",
        "required key is missing",
    ),
]


@pytest.mark.parametrize(("place", "value", "where", "message"), WRONG)
def test_a_mistake_is_named_with_its_place(
    suite: Suite, place: str, value: Any, where: str, message: str
) -> None:
    path = suite.write("a.json", (place, value))
    found = {problem.where: problem.message for problem in read(path).problems}
    assert message in found[where]
    assert all(problem.path == str(path) for problem in read(path).problems)


def test_all_mistakes_of_a_file_come_at_once(suite: Suite) -> None:
    path = suite.write(
        "a.json",
        ("run_info/created_at", 3),
        ("train_info/train_time", None),
        ("train_info/file_size", "big"),
        ("meta_info/system_info", ...),
    )
    assert [problem.where for problem in read(path).problems] == [
        "run_info.created_at",
        "train_info.train_time",
        "train_info.file_size",
        "meta_info.system_info",
        "meta_info.system_info.gpu",
    ]


def test_a_run_that_failed_is_no_mistake(suite: Suite) -> None:
    outcome = read(suite.write("a.json", ("train_info/status", "canceled"), (LAST, ...)))
    assert (outcome.result, outcome.problems, outcome.failure) == (None, (), "canceled")


def test_a_run_without_steps_is_a_mistake(suite: Suite) -> None:
    last = suite.result()["train_info"]["metrics"][-1]
    found = read(suite.write("a.json", ("train_info/metrics", [last]))).problems
    assert [problem.message for problem in found] == ["no entry of training states 'train time'"]


@pytest.mark.parametrize(
    ("place", "where"),
    [
        ("train_info/energy", "train_info.energy"),
        (f"{LAST}/perplexity", "train_info.metrics[-1].perplexity"),
        ("train_info/metrics/0/valid loss", "train_info.metrics[*].valid loss"),
    ],
)
def test_no_figure_is_lost_in_silence(suite: Suite, place: str, where: str) -> None:
    outcome = read(suite.write("a.json", (place, 1.0)))
    assert outcome.result is not None
    assert [note.where for note in outcome.result.notes] == [where]


def test_more_about_the_machine_is_nobodys_business(suite: Suite) -> None:
    outcome = read(suite.write("a.json", ("meta_info/weather", "fine")))
    assert outcome.result is not None
    assert outcome.result.notes == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not JSON"),
        ('{"run_info": {"created_at": "2026', "not JSON"),
        ("not json at all", "not JSON"),
        ("[1, 2]", "expected an object, got a list"),
        ('{"a": 1, "a": 2}', "key 'a' stands twice in one object"),
        ('{"a": ' + "9" * 5000 + "}", "not JSON"),
        ("[" * 100_000, "nested deeper than"),
        ('{"a":' * 100_000 + "1" + "}" * 100_000, "nested deeper than"),
        ('{"a":' * 40 + "1" + "}" * 40, "nested deeper than"),
    ],
)
def test_what_is_no_result_is_said_to_be_none(suite: Suite, text: str, message: str) -> None:
    outcome = read(suite.write_text("a.json", text))
    assert outcome.result is None
    assert len(outcome.problems) == 1
    assert message in outcome.problems[0].message


def test_a_truncated_file_names_its_line(suite: Suite) -> None:
    path = suite.write("a.json")
    path.write_bytes(path.read_bytes()[:-30])
    (problem,) = read(path).problems
    assert re.fullmatch(r"line \d+ column \d+", problem.where)
    assert "cut off" in problem.hint


def test_bytes_that_are_no_text_are_a_problem(suite: Suite) -> None:
    path = suite.write_text("a.json", "")
    path.write_bytes(b'{"a": "\xff\xfe"}')
    (problem,) = read(path).problems
    assert "not JSON" in problem.message


def test_a_huge_file_is_not_read(suite: Suite, monkeypatch: pytest.MonkeyPatch) -> None:
    path = suite.write("a.json")
    size = path.stat().st_size
    monkeypatch.setattr(results, "MAX_BYTES", size - 1)
    (problem,) = read(path).problems
    assert problem.message == f"has {size} bytes; at most {size - 1} are read"
    assert sheets.MAX_BYTES == 64 * 2**20
    monkeypatch.setattr(results, "MAX_BYTES", size)
    assert read(path).problems == ()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes")
def test_a_pipe_is_not_waited_for(suite: Suite) -> None:
    os.mkfifo(suite.root / "a.json")
    (problem,) = read(suite.root / "a.json").problems
    assert problem.message == "is a pipe, not a regular file"


def test_a_folder_with_the_name_of_a_file_is_a_problem(suite: Suite) -> None:
    path = suite.root / "a.json"
    path.mkdir()
    (problem,) = read(path).problems
    assert problem.message == "is a folder, not a regular file"


@pytest.mark.parametrize(
    ("task", "benchmark"),
    [("MetaMathQA", "metamathqa"), ("metamathqa", "metamathqa"), (None, "metamathqa")],
)
def test_the_task_is_told_by_folder_or_by_score(
    suite: Suite, task: str | None, benchmark: str
) -> None:
    result = read(suite.write("a.json"), task).result
    assert result is not None
    assert result.benchmark.id == benchmark


def test_in_a_plain_folder_any_name_will_do(suite: Suite) -> None:
    result = read(suite.write("a.json"), "my runs").result
    assert result is not None
    assert result.benchmark.id == "metamathqa"


def test_an_unknown_task_of_the_suite_is_not_guessed(suite: Suite) -> None:
    (problem,) = read(suite.write("a.json"), "MetaMath-QA", "peft-method-comparison").problems
    assert problem.message == "unknown task 'MetaMath-QA'"
    assert "MetaMathQA" in problem.hint


def test_a_file_of_another_task_names_what_it_lacks(suite: Suite) -> None:
    found = {problem.where for problem in read(suite.write("a.json"), "image-gen").problems}
    assert "run_info.train_config.model_id" in found
    assert "train_info.metrics[2].test dino_similarity" in found


@settings(max_examples=30)
@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists, max_leaves=9))
def test_any_json_value_can_be_read(value: Any) -> None:
    document, problem = parse(json.dumps(value).encode(), "a.json")
    assert problem is None
    assert json.dumps(document) == json.dumps(value)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_value_or_a_problem(content: bytes) -> None:
    _, problem = parse(content, "a.json")
    assert problem is None or problem.message


@given(st.integers(min_value=1, max_value=2 * MAX_DEPTH))
def test_the_limit_of_nesting_is_exact(depth: int) -> None:
    _, problem = parse(b"[" * depth + b"]" * depth, "a.json")
    assert (problem is None) == (depth <= MAX_DEPTH + 1)

"""Raw results become runs on file: everything or nothing, and twice is as once."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from peft_shop.curate.intake.assembly import era_of
from peft_shop.curate.intake.conventions import load_conventions
from peft_shop.curate.intake.ingest import ingest
from peft_shop.curate.intake.ledger import read_runs, read_snapshots, render_runs, render_snapshots
from peft_shop.errors import CatalogError, IngestError, QueryError

if TYPE_CHECKING:
    from conftest import Suite

    from peft_shop.catalog.runs import Run
    from peft_shop.curate.intake.ingest import IngestReport

ROOT = Path(__file__).parents[2]
BENCHMARKS = load_conventions(ROOT / "data").benchmarks
NAME = "run_info/experiment_name"
TIME = "run_info/created_at"
LORA_VARIANTS = """\
title = "LoRA"
peft_type = "LORA"
config_class = "LoraConfig"
summary = "Two thin matrices."
family = "low_rank"
task_types = ["CAUSAL_LM"]
no_paper_because = "A test."

[[variants]]
id = "lora_fa"
title = "LoRA-FA"
summary = "Trains one of the two."
when = [{ training = "optimizer", equals = "lora-fa" }]

[[variants]]
id = "rslora"
title = "rsLoRA"
summary = "Another scale."
when = [{ config = "use_rslora", equals = true }]
"""


def take(suite: Suite, *paths: Path, **options: Any) -> IngestReport:
    return ingest(paths or [suite.root], data=suite.data, catalog=suite.catalog, **options)


def runs(suite: Suite) -> dict[str, Run]:
    return {run.id: run for run in read_runs(suite.data).values()}


def one(suite: Suite) -> Run:
    (run,) = read_runs(suite.data).values()
    return run


def state(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def archive(suite: Suite, **snapshots: list[str]) -> None:
    """An archive with these snapshots (`s2026_01_01`) and every experiment's file."""
    listing = [
        {
            "id": name[1:].replace("_", "-"),
            "date": name[1:].replace("_", "-"),
            "commit": f"{index}" * 40,
            "runs": {"MetaMathQA": [f"results/MetaMathQA/{file}" for file in files]},
        }
        for index, (name, files) in enumerate(snapshots.items(), start=1)
    ]
    suite.write_text("snapshots.json", json.dumps(listing))


# --- one file ---


def test_a_run_carries_all_that_its_file_says(suite: Suite) -> None:
    path = suite.write("MetaMathQA/lora--llama-3.2-3B-rank8.json")
    report = take(suite)
    run = one(suite)
    assert report.added == ("metamathqa: lora/llama-3.2-3B-rank8@2026-08-01T10:00:00+00:00",)
    assert report.outside == report.added
    assert report.total == {"metamathqa": 1}
    assert (run.benchmark, run.method, run.era, run.snapshots) == (
        "metamathqa",
        "lora",
        "sampled",
        (),
    )
    assert run.metrics["step_seconds"] == 80.75
    assert run.flags == ()
    assert run.recipe.config == {"lora_alpha": 16, "target_modules": ["q_proj", "v_proj"]}
    assert run.provenance.source == "local"
    assert run.provenance.file == "MetaMathQA/lora--llama-3.2-3B-rank8.json"
    assert run.provenance.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert run.provenance.packages["transformers"] == "5.13.1"
    assert run.provenance.peft_commit == "514b9e6d"
    assert run.provenance.worktree_dirty is None
    assert run.provenance.forgetting_definition == "forgetting"
    assert run.provenance.seed == 0


def test_no_path_of_this_machine_gets_on_file(suite: Suite) -> None:
    suite.write("MetaMathQA/a.json")
    take(suite, snapshot="mine")
    for content in state(suite.data).values():
        assert str(suite.root).encode() not in content


def test_full_fine_tuning_is_a_baseline(suite: Suite) -> None:
    suite.write("a.json", ("run_info/peft_config", None))
    take(suite)
    assert (one(suite).method, one(suite).recipe.peft_type) == ("full_finetuning", None)


@pytest.mark.parametrize(
    ("version", "era"),
    [
        ("4.57.1", "greedy"),
        ("4.99", "greedy"),
        ("5", "sampled"),
        ("5.0.0.dev0", "sampled"),
        ("5.16.1", "sampled"),
        ("unknown", None),
    ],
)
def test_the_era_follows_the_version(version: str, era: str | None) -> None:
    assert era_of(BENCHMARKS["metamathqa"], version) == era
    assert era_of(BENCHMARKS["image_gen"], version) is None


def test_a_version_without_a_number_is_a_problem(suite: Suite) -> None:
    suite.write("a.json", ("meta_info/package_info/transformers-version", "main"))
    with pytest.raises(IngestError, match="cannot read the version 'main'"):
        take(suite)


def test_variants_come_from_the_catalog(suite: Suite) -> None:
    path = suite.catalog / "curated" / "lora.toml"
    path.parent.mkdir(parents=True)
    path.write_text(LORA_VARIANTS, encoding="utf-8")
    suite.write(
        "a.json",
        ("run_info/train_config/optimizer_type", "lora-fa"),
        ("run_info/peft_config/use_rslora", True),
    )
    take(suite)
    assert one(suite).variants == ("lora_fa", "rslora")


def test_a_method_must_be_in_the_catalog(suite: Suite) -> None:
    path = suite.catalog / "curated" / "lora.toml"
    path.parent.mkdir(parents=True)
    path.write_text(LORA_VARIANTS, encoding="utf-8")
    suite.write("a.json", ("run_info/peft_config", {"peft_type": "LOHA"}))
    with pytest.raises(IngestError, match=r"no method 'loha' \(did you mean lora\?\)"):
        take(suite)


def test_a_broken_curated_file_stops_everything(suite: Suite) -> None:
    path = suite.catalog / "curated" / "lora.toml"
    path.parent.mkdir(parents=True)
    path.write_text(LORA_VARIANTS.replace('"low_rank"', '"low_ranks"'), encoding="utf-8")
    suite.write("a.json")
    with pytest.raises(CatalogError, match="family"):
        take(suite)


# --- flags ---


def test_other_hardware_is_flagged_on_memory_and_time(suite: Suite) -> None:
    suite.write("a.json", ("meta_info/system_info/accelerator", "NVIDIA A100"))
    take(suite)
    (flag,) = one(suite).flags
    assert flag.code == "environment"
    assert "NVIDIA A100 instead of NVIDIA L40S" in flag.reason
    assert set(flag.metrics) == {
        name for name in one(suite).metrics if name.endswith("seconds") or "memory" in name
    }


@pytest.mark.parametrize(
    ("key", "value", "whole"),
    [
        ("use_gc", True, False),
        ("batch_size", 8, False),
        ("batch_size_eval", 10, False),
        ("max_seq_length", 512, True),
        ("dtype", "float32", True),
        ("generation_kwargs", {"max_new_tokens": 256}, True),
        ("query_template", "Q: {query}", True),
    ],
)
def test_other_settings_are_flagged(suite: Suite, key: str, value: Any, *, whole: bool) -> None:
    suite.write("a.json", (f"run_info/train_config/{key}", value))
    take(suite)
    (flag,) = one(suite).flags
    assert flag.code == "environment"
    assert (flag.metrics == ()) is whole
    assert key in flag.reason


@pytest.mark.parametrize(
    ("key", "value"),
    [("max_steps", 3000), ("lr_scheduler", None), ("autocast_adapter_dtype", False), ("seed", 1)],
)
def test_a_setting_of_the_recipe_is_no_reason_for_a_flag(
    suite: Suite, key: str, value: Any
) -> None:
    suite.write("a.json", (f"run_info/train_config/{key}", value))
    take(suite)
    assert one(suite).flags == ()


def test_a_stand_in_is_flagged_and_gone(suite: Suite) -> None:
    suite.write("a.json", ("train_info/file_size", 99_999_999))
    take(suite)
    (flag,) = one(suite).flags
    assert (flag.code, flag.metrics) == ("sentinel", ("checkpoint_bytes",))
    assert "checkpoint_bytes" not in one(suite).metrics


@pytest.mark.parametrize(
    ("created_at", "flagged"),
    [
        ("2026-07-13T23:00:00+00:00", False),
        ("2026-07-14T00:00:00+00:00", True),
        ("2026-09-17T00:00:00+00:00", False),
    ],
)
def test_a_flag_set_by_people_holds_in_its_time(
    suite: Suite, created_at: str, *, flagged: bool
) -> None:
    suite.write("a.json", (NAME, "lora/llama-3.2-3B-rank32-lorafa"), (TIME, created_at))
    take(suite)
    flags = one(suite).flags
    assert [flag.code for flag in flags] == (["artefact"] if flagged else [])
    assert all("peak_memory_bytes" in flag.metrics for flag in flags)


# --- several files ---


def test_all_problems_of_all_files_come_at_once(suite: Suite) -> None:
    suite.write("MetaMathQA/good.json", (NAME, "lora/good"))
    suite.write("MetaMathQA/a.json", ("train_info/train_time", math.nan))
    suite.write(
        "MetaMathQA/b.json", (NAME, "ewora\\b"), ("run_info/peft_config/peft_type", "EWORA")
    )
    suite.write_text("MetaMathQA/c.json", '{"run_info": ')
    suite.write_text("MetaMathQA/d.json", "[" * 100_000)
    suite.write("MetaMathQA/e.json", (NAME, "lora/good"))
    before = state(suite.data)
    with pytest.raises(IngestError) as caught:
        take(suite, suite.root, suite.root / "gone")
    found = {(Path(problem.path).name, problem.where) for problem in caught.value.problems}
    assert found == {
        ("a.json", "train_info.train_time"),
        ("b.json", "run_info.experiment_name"),
        ("b.json", "run_info.peft_config.peft_type"),
        ("c.json", "line 1 column 14"),
        ("d.json", ""),
        ("good.json", "run_info.experiment_name"),
        ("gone", ""),
    }
    assert "7 problems, nothing was written" in str(caught.value)
    assert state(suite.data) == before


def test_keep_going_takes_the_rest_and_says_what_it_left_out(suite: Suite) -> None:
    suite.write("MetaMathQA/good.json", (NAME, "lora/good"))
    bad = suite.write("MetaMathQA/bad.json", ("train_info/train_time", math.nan))
    report = take(suite, keep_going=True)
    assert [run.experiment for run in runs(suite).values()] == ["lora/good"]
    assert [problem.path for problem in report.left_out] == [str(bad)]
    assert "train_info.train_time" in str(report.left_out[0])


def test_a_run_that_did_not_succeed_is_left_out_without_an_error(suite: Suite) -> None:
    suite.write("MetaMathQA/a.json", ("train_info/status", "canceled"), ("train_info/metrics", []))
    report = take(suite)
    (left_out,) = report.left_out
    assert "'canceled'" in left_out.message
    assert runs(suite) == {}
    assert report.written == ()


def test_an_experiment_stands_once_in_a_folder(suite: Suite) -> None:
    suite.write("MetaMathQA/a.json")
    suite.write("MetaMathQA/b.json", (TIME, "2026-08-02T10:00:00+00:00"))
    with pytest.raises(IngestError, match=r"is the experiment of .*a\.json too"):
        take(suite)


def test_repetitions_in_folders_of_their_own_are_runs(suite: Suite) -> None:
    first = suite.write("one/a.json").parent
    second = suite.write("two/a.json", (TIME, "2026-08-02T10:00:00+00:00")).parent
    assert len(take(suite, first, second).added) == 2


def test_the_same_run_under_renamed_keys_is_one_run(suite: Suite) -> None:
    archive(suite, s2026_01_01=["2026-01-01/a.json"], s2026_02_02=["2026-02-02/a.json"])
    path = suite.write("results/MetaMathQA/2026-01-01/a.json")
    document = suite.result()
    info = document["train_info"]
    info["cuda_memory_max"] = info.pop("accelerator_memory_max")
    renamed = suite.write_text("results/MetaMathQA/2026-02-02/a.json", json.dumps(document))
    report = take(suite)
    run = one(suite)
    assert run.snapshots == ("2026-01-01", "2026-02-02")
    assert run.provenance.commit == "1" * 40
    assert run.provenance.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert [duplicate.path for duplicate in report.duplicates] == [str(renamed)]
    assert take(suite).unchanged == report.added


@pytest.mark.parametrize(
    ("place", "value", "what"),
    [
        ("train_info/file_size", 1, "metrics"),
        ("train_info/metrics/0/valid accuracy", 0.9, "curve"),
        ("run_info/train_config/optimizer_kwargs", {"lr": 0.5}, "training settings"),
        ("meta_info/package_info/torch-version", "2.0", "packages"),
        ("meta_info/system_info/accelerator", "NVIDIA A100", "accelerator"),
        ("run_info/peft_config", None, "method"),
    ],
)
def test_one_key_with_two_contents_is_a_problem(
    suite: Suite, place: str, value: Any, what: str
) -> None:
    first = suite.write("one/a.json").parent
    second = suite.write("two/a.json", (place, value)).parent
    for together in (True, False):
        paths = (first, second) if together else (second,)
        if not together:
            take(suite, first)
        with pytest.raises(IngestError, match=f"differs from .* in .*{what}"):
            take(suite, *paths)


def test_runs_already_on_file_are_kept(suite: Suite) -> None:
    first = suite.write("one/a.json", (NAME, "lora/a")).parent
    second = suite.write("two/b.json", (NAME, "lora/b")).parent
    take(suite, first, snapshot="first")
    take(suite, second, snapshot="second")
    assert [(run.experiment, run.snapshots) for run in runs(suite).values()] == [
        ("lora/a", ("first",)),
        ("lora/b", ("second",)),
    ]
    assert list(read_snapshots(suite.data)) == ["first", "second"]


# --- snapshots ---


def test_a_named_snapshot_holds_a_folder(suite: Suite) -> None:
    suite.write("MetaMathQA/a.json", (NAME, "lora/a"))
    suite.write("MetaMathQA/b.json", (NAME, "lora/b"), (TIME, "2026-08-05T23:30:00-02:00"))
    report = take(suite, snapshot="mine")
    assert report.snapshots == ("mine",)
    assert report.outside == ()
    assert {run.snapshots for run in runs(suite).values()} == {("mine",)}
    snapshot = read_snapshots(suite.data)["mine"]
    assert (snapshot.date, snapshot.source, snapshot.commit) == ("2026-08-06", "local", None)


def test_a_checkout_is_a_snapshot_of_the_day_of_its_newest_run(suite: Suite) -> None:
    task = "method_comparison/MetaMathQA"
    suite.write(f"{task}/results/a.json", (NAME, "lora/a"))
    suite.write(f"{task}/results/b.json", (NAME, "lora/b"), (TIME, "2026-08-09T01:00:00+00:00"))
    suite.write(f"{task}/temporary_results/c.json", (NAME, "lora/c"))
    suite.write_text(
        f"{task}/experiments/lora/a/adapter_config.json",
        json.dumps({"peft_type": "LORA", "target_modules": None}),
    )
    report = take(suite)
    assert report.snapshots == ("2026-08-09",)
    a, b = runs(suite).values()
    assert (a.recipe.config_source, b.recipe.config_source) == ("experiment", "result")
    assert a.recipe.resolved == {"target_modules": ["q_proj", "v_proj"]}
    assert a.provenance.file == f"{task}/results/a.json"
    assert a.snapshots == b.snapshots == ("2026-08-09",)


def test_a_checkout_may_hold_other_tasks(suite: Suite) -> None:
    suite.write("method_comparison/MetaMathQA/results/a.json")
    suite.write_text("method_comparison/Poetry/results/x.json", "{}")
    suite.write_text("method_comparison/Poetry/results/y.json", "{}")
    report = take(suite)
    assert len(report.added) == 1
    (left_out,) = report.left_out
    assert left_out.path == str(suite.root / "method_comparison/Poetry/results")
    assert left_out.message == "2 result files of the task 'Poetry', which is not defined"


def test_a_checkout_of_unknown_tasks_alone_is_a_problem(suite: Suite) -> None:
    suite.write("method_comparison/MetaMath-QA/results/a.json")
    with pytest.raises(IngestError, match=r"unknown task 'MetaMath-QA' \(did you mean"):
        take(suite)


def test_a_snapshot_holds_an_experiment_once(suite: Suite) -> None:
    first = suite.write("one/a.json").parent
    second = suite.write("two/a.json", (TIME, "2026-08-02T10:00:00+00:00")).parent
    take(suite, first, snapshot="mine")
    before = state(suite.data)
    with pytest.raises(IngestError, match="snapshot mine would hold two runs"):
        take(suite, second, snapshot="mine")
    report = take(suite, second, snapshot="mine", keep_going=True)
    assert len(report.left_out) == 1
    assert state(suite.data) == before


def test_a_plain_folder_without_a_name_is_told_so(suite: Suite) -> None:
    suite.write("a.json")
    report = take(suite)
    assert [note.message for note in report.notes] == ["these runs belong to no snapshot"]
    assert not (suite.data / "snapshots.toml").exists()


@pytest.mark.parametrize("name", ["", "a b", "../x", "-x", "a" * 61])
def test_a_snapshot_needs_a_name(suite: Suite, name: str) -> None:
    suite.write("a.json")
    with pytest.raises(QueryError, match="is not a name"):
        take(suite, snapshot=name)


def test_an_archive_needs_no_name(suite: Suite) -> None:
    archive(suite, s2026_01_01=["2026-01-01/a.json"])
    suite.write("results/MetaMathQA/2026-01-01/a.json")
    with pytest.raises(QueryError, match="an archive names its snapshots"):
        take(suite, snapshot="mine")


def test_a_dump_does_not_replace_what_the_experiment_said(suite: Suite) -> None:
    archive(suite, s2026_01_01=["2026-01-01/a.json"])
    suite.write("results/MetaMathQA/2026-01-01/a.json")
    suite.write_text(
        "experiments/MetaMathQA/lora/llama-3.2-3B-rank8/adapter_config.json",
        json.dumps({"peft_type": "LORA"}),
    )
    take(suite)
    before = one(suite)
    assert before.recipe.config_source == "experiment"
    plain = suite.data.parent / "plain"
    plain.mkdir()
    (plain / "a.json").write_text(json.dumps(suite.result()), encoding="utf-8")
    take(suite, plain)
    assert one(suite).recipe == before.recipe
    assert one(suite).provenance == before.provenance


@pytest.mark.parametrize("text", ["{", "[]", "[" * 100_000, '{"lora_alpha": NaN}'])
def test_a_broken_experiment_is_a_problem(suite: Suite, text: str) -> None:
    archive(suite, s2026_01_01=["2026-01-01/a.json"])
    suite.write("results/MetaMathQA/2026-01-01/a.json")
    name = "experiments/MetaMathQA/lora/llama-3.2-3B-rank8/adapter_config.json"
    path = suite.write_text(name, text)
    with pytest.raises(IngestError) as caught:
        take(suite)
    assert [problem.path for problem in caught.value.problems] == [str(path)]


# --- idempotence and atomicity ---


def test_twice_is_as_once_to_the_byte(suite: Suite) -> None:
    suite.write("MetaMathQA/a.json", (NAME, "lora/a"))
    suite.write("MetaMathQA/b.json", (NAME, "lora/b"), ("train_info/file_size", 99_999_999))
    first = take(suite, snapshot="mine")
    before = state(suite.data)
    second = take(suite, snapshot="mine")
    assert state(suite.data) == before
    assert (second.added, second.updated, second.written) == ((), (), ())
    assert second.unchanged == first.added


def test_the_order_of_reading_does_not_show(suite: Suite) -> None:
    folders = [
        suite.write(f"{name}/x.json", (NAME, f"lora/{name}")).parent for name in ("b", "a", "c")
    ]
    take(suite, *folders)
    before = state(suite.data)
    (suite.data / "runs" / "metamathqa.jsonl").unlink()
    take(suite, *reversed(folders))
    assert state(suite.data) == before


def test_a_file_on_record_reads_and_writes_the_same(suite: Suite) -> None:
    suite.write("MetaMathQA/a.json")
    take(suite, snapshot="mine")
    content = (suite.data / "runs" / "metamathqa.jsonl").read_bytes()
    assert render_runs(read_runs(suite.data).values()) == content
    snapshots = (suite.data / "snapshots.toml").read_bytes()
    assert render_snapshots(read_snapshots(suite.data).values()) == snapshots


@pytest.mark.parametrize("failing", [1, 2])
def test_a_failing_write_leaves_everything_as_it_was(
    suite: Suite, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    first = suite.write("one/a.json", (NAME, "lora/a")).parent
    second = suite.write("two/b.json", (NAME, "lora/b")).parent
    take(suite, first, snapshot="mine")
    before = state(suite.data)
    calls = 0
    replace = os.replace

    def fail(source: Any, target: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == failing:
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="No space left"):
        take(suite, second, snapshot="other")
    assert state(suite.data) == before


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("runs/metamathqa.jsonl", "{", "not JSON"),
        ("runs/metamathqa.jsonl", "{}", "required key is missing"),
        ("runs/metamathqa.jsonl", "[" * 100_000, "nested too deeply"),
        ("snapshots.toml", "[[snapshots", "not TOML"),
        ("snapshots.toml", "[[snapshots]]\nid = 3\n", "valid string"),
        ("rules.toml", "metrics = 3", "rules.toml"),
        ("benchmarks.toml", "", "required key is missing"),
        ("sources.toml", "\x00", "not TOML"),
    ],
)
def test_broken_files_on_record_stop_everything(
    suite: Suite, name: str, text: str, message: str
) -> None:
    suite.write("a.json")
    path = suite.data / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")
    before = state(suite.data)
    with pytest.raises(CatalogError, match=message):
        take(suite)
    assert state(suite.data) == before


def test_a_run_twice_on_record_stops_everything(suite: Suite) -> None:
    suite.write("a.json")
    take(suite)
    path = suite.data / "runs" / "metamathqa.jsonl"
    path.write_bytes(path.read_bytes() * 2)
    with pytest.raises(CatalogError, match=r"line 2: .* is on file twice"):
        take(suite)


def test_rules_that_name_nothing_are_told(suite: Suite) -> None:
    path = suite.data / "rules.toml"
    text = path.read_text(encoding="utf-8")
    text = text.replace('field = "drift"', 'field = "drifts"')
    text = text.replace("[benchmarks.image_gen", "[benchmarks.image_generation")
    path.write_text(text, encoding="utf-8")
    suite.write("a.json")
    with pytest.raises(CatalogError) as caught:
        take(suite)
    found = " ".join(problem.message for problem in caught.value.problems)
    assert "'drifts' is not the field of a metric" in found
    assert "no rules for the benchmark 'image_gen'" in found
    assert "no such benchmark" in found


def test_no_data_folder_is_told(suite: Suite) -> None:
    with pytest.raises(CatalogError, match=r"rules\.toml: no such file"):
        ingest([suite.root], data=suite.root / "gone", catalog=suite.catalog)


# --- whatever a file holds ---


def places(value: Any, place: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Every place in a JSON value, the whole one excepted."""
    members = value.items() if isinstance(value, dict) else enumerate(value)
    found = []
    for key, member in members:
        found.append((*place, key))
        if isinstance(member, dict | list):
            found += places(member, (*place, key))
    return found


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda members: st.lists(members, max_size=3) | st.dictionaries(st.text(), members, max_size=3),
    max_leaves=5,
)


@settings(
    max_examples=150,
    deadline=None,  # the first example imports peft
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.data())
def test_any_value_anywhere_is_taken_or_reported(suite: Suite, data: st.DataObject) -> None:
    document = suite.result()
    place = data.draw(st.sampled_from(places(document)))
    here: Any = document
    for key in place[:-1]:
        here = here[key]
    here[place[-1]] = data.draw(VALUES)
    suite.write_text("MetaMathQA/a.json", json.dumps(document))
    shutil.rmtree(suite.data / "runs", ignore_errors=True)
    before = state(suite.data)
    taken = take(suite, keep_going=True)
    assert len(taken.added) == (0 if taken.left_out else 1)
    assert all(math.isfinite(v) for run in runs(suite).values() for v in run.metrics.values())
    if taken.left_out:
        assert state(suite.data) == before

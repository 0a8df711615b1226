"""Results of an unmerged task, and result files whose figures cannot be what they say."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from peft_shop.curate.calibration.counting import COMPUTED, Computed
from peft_shop.curate.intake.ingest import ingest
from peft_shop.curate.intake.ledger import read_runs, read_snapshots
from peft_shop.errors import IngestError

if TYPE_CHECKING:
    from conftest import Suite

ROOT = Path(__file__).parents[2]
UPSTREAM = ROOT.parent / "shared" / "upstream" / "unmerged-rlmath"
upstream = pytest.mark.skipif(
    not UPSTREAM.is_dir(), reason="the raw results are not beside the repository"
)
DEFAULTS = {
    "model_id": "Qwen/Qwen3.5-4B",
    "dtype": "bfloat16",
    "seed": 42,
    "max_steps": 100,
    "learning_rate": 4e-5,
    "lr_scheduler_type": "constant",
    "per_device_train_batch_size": 1,
    "gradient_accumulation_steps": 4,
    "max_completion_length": 1024,
    "num_generations": 8,
    "beta": 0.001,
    "max_grad_norm": 1.0,
    "gradient_checkpointing": True,
    "use_vllm": True,
    "eval_subset_size": 500,
    "save_steps": 0,
}
CONFIG = {"peft_type": "LORA", "r": 8, "target_modules": ["q_proj"], "task_type": "CAUSAL_LM"}


def result(**edits: Any) -> dict[str, Any]:
    """A sound result of the unmerged task; `training`, `config` and `score` are parts of it."""
    return {
        "run_info": {
            "created_at": edits.get("created_at", "2026-05-02T10:00:00+00:00"),
            "total_time": 900.5,
            "experiment_name": edits.get("name", "lora/grpo-qwen35-4b-gsm8k-r8"),
            "peft_branch": "lora-comparison",
            "train_config": DEFAULTS | edits.get("training", {}),
            "peft_config": CONFIG | edits.get("config", {}),
        },
        "train_info": {
            "status": edits.get("status", "success"),
            "train_time": 600.5,
            "metrics": [{"step": 5, "reward": 0.5, "kl": 0.01}],
            **edits.get("train_info", {}),
        },
        "rl_eval_info": {"test_pass_at_1": edits.get("score", 0.926), "num_eval_samples": 500},
        "meta_info": {
            "package_info": {
                "transformers-version": "5.6.0.dev0",
                "peft-version": "0.18.2.dev0",
                "torch-version": "2.10.0",
            },
            "system_info": {"system": "Linux"},
        },
    }


def write(suite: Suite, folder: str = "unmerged-rlmath", **edits: Any) -> Path:
    path = suite.write_text(
        f"{folder}/temporary_results/{edits.get('file', 'a')}.json", json.dumps(result(**edits))
    )
    return path.parents[1]


def take(suite: Suite, *paths: Path, **options: Any) -> Any:
    return ingest(paths or [suite.root], data=suite.data, catalog=suite.catalog, **options)


def test_a_task_that_is_not_merged_is_taken_where_its_folder_is_named(suite: Suite) -> None:
    folder = write(suite)
    report = take(suite, folder)
    assert report.added == ("rlmath: lora/grpo-qwen35-4b-gsm8k-r8@2026-05-02T10:00:00+00:00",)
    (run,) = read_runs(suite.data).values()
    assert run.metrics == {"pass_at_1": 0.926, "train_seconds": 600.5, "total_seconds": 900.5}
    training = run.recipe.training
    assert (training.batch_size, training.max_length, training.options) == (4, 1024, {})
    assert (training.learning_rate, training.optimizer) == (4e-5, "AdamW")
    assert run.flags == ()
    came = run.provenance
    assert came.source == "peft-pull-3078"
    assert came.file == "method_comparison/RLMath/temporary_results/a.json"
    assert came.accelerator == "not recorded"
    assert came.commit == "b6a57175eccc29985062a58f26e81f7a68ac71be"
    assert list(read_snapshots(suite.data)) == list(run.snapshots) == ["rlmath-2026-05-02"]


def test_other_settings_are_flagged_by_name_and_the_rate_is_none(suite: Suite) -> None:
    write(suite, name="lora/a", file="a", training={"learning_rate": 1e-3, "save_steps": 5})
    write(suite, name="lora/b", file="b", training={"max_steps": 10})
    folder = write(suite, name="lora/c", file="c", training={"eval_subset_size": 50})
    take(suite, folder)
    flags = {run.experiment: run.flags for run in read_runs(suite.data).values()}
    assert flags["lora/a"] == ()
    (steps,), (questions,) = flags["lora/b"], flags["lora/c"]
    assert steps.code == questions.code == "environment"
    assert steps.metrics == questions.metrics == ()
    assert "(max_steps) 10 instead of 100" in steps.reason
    assert "questions in the test: 50 instead of 500" in questions.reason


def test_what_peft_does_not_read_is_no_part_of_a_recipe(suite: Suite) -> None:
    folder = write(suite, config={"lora_plus_lr_ratio": 16, "r": 16})
    take(suite, folder)
    (run,) = read_runs(suite.data).values()
    assert run.recipe.config == {"r": 16, "target_modules": ["q_proj"], "task_type": "CAUSAL_LM"}
    assert run.variants == ()


@pytest.mark.parametrize("status", ["train_completed", "running", "cancelled"])
def test_a_run_that_was_not_tested_is_left_out_by_name(suite: Suite, status: str) -> None:
    report = take(suite, write(suite, status=status))
    assert not report.added
    (left_out,) = report.left_out
    assert status in left_out.message


def test_another_unmerged_task_is_refused_and_told_how_to_define_one(suite: Suite) -> None:
    folder = write(suite, "unmerged-poetry")
    with pytest.raises(IngestError, match=r"unknown task 'poetry'.*define another in data/bench"):
        take(suite, folder)
    assert not (suite.data / "runs").exists()


@pytest.mark.parametrize(
    ("edits", "said"),
    [
        ({"score": 92.6}, r"rl_eval_info\.test_pass_at_1: 92\.6 is no share.*write 0\.926"),
        ({"created_at": "2126-05-02T10:00:00+00:00"}, r"run_info\.created_at: 2126.*future"),
        (
            {"train_info": {"num_trainable_params": 1001}},
            r"train_info\.num_trainable_params: 1001 trainable parameters cannot be of rank 8",
        ),
        (
            {"training": {"gradient_accumulation_steps": 0}},
            r"gradient_accumulation_steps: expected",
        ),
    ],
)
def test_figures_that_cannot_be_are_refused(suite: Suite, edits: dict[str, Any], said: str) -> None:
    folder = write(suite, **edits)
    with pytest.raises(IngestError, match=said):
        take(suite, folder)
    assert not (suite.data / "runs").exists()


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        ("train_info/accelerator_memory_max", 20_710, r"accelerator_memory_max: 20710 bytes.*MB"),
        ("train_info/metrics/2/test accuracy", 51.3, r"test accuracy: 51\.3 is no share.*0\.513"),
        ("run_info/created_at", "2126-08-01T10:00:00+00:00", r"created_at: 2126.*in the future"),
    ],
)
def test_the_same_of_the_suite_s_own_files(suite: Suite, place: str, value: Any, said: str) -> None:
    suite.write("MetaMathQA/a.json", (place, value))
    with pytest.raises(IngestError, match=said):
        take(suite)
    assert not (suite.data / "runs").exists()


def test_a_count_of_another_rank_is_refused_on_a_model_of_known_sizes(suite: Suite) -> None:
    (suite.data / "structures").mkdir()
    for path in (ROOT / "data" / "structures").glob("*.json"):
        (suite.data / "structures" / path.name).write_bytes(path.read_bytes())
    count = 28 * (3072 + 3072 + 3072 + 1024)  # queries and values, rank 1
    targets = ("run_info/peft_config/target_modules", ["q_proj", "v_proj"])
    rank = ("run_info/peft_config/r", 16)
    parameters = "train_info/num_trainable_params"
    suite.write("MetaMathQA/a.json", targets, rank, (parameters, 32 * count))
    with pytest.raises(IngestError, match=r"contradict rank 16.*they are of rank 32"):
        take(suite)
    assert not (suite.data / "runs").exists()
    suite.write("MetaMathQA/a.json", targets, rank, (parameters, 16 * count))
    assert len(take(suite).added) == 1


# --- against the raw files ---


@upstream
def test_every_figure_equals_the_raw_one() -> None:
    """An oracle that knows the format by itself, without `rules.toml`."""
    runs = {run.experiment: run for run in read_runs(ROOT / "data").values()}
    defaults = json.loads((UPSTREAM / "default_training_params.json").read_bytes())
    defaults |= {"adam_beta1": 0.9, "adam_beta2": 0.999, "reward_type": "binary"}
    defaults |= {"mask_truncated_completions": False, "disable_dropout": False, "num_iterations": 1}
    defaults |= {"max_grad_norm": 1.0}
    counted = Counter[str]()
    for path in sorted((UPSTREAM / "temporary_results").glob("*.json")):
        document = json.loads(path.read_bytes())
        info, told = document["run_info"], document.get("rl_eval_info") or {}
        training = info["train_config"]
        taken = (
            document["train_info"]["status"] == "success"
            and "test_pass_at_1" in told
            and training["model_id"] == "Qwen/Qwen3.5-4B"
        )
        assert (info["experiment_name"] in runs) == taken
        if not taken:
            continue
        run = runs[info["experiment_name"]]
        assert run.metrics == {
            "pass_at_1": told["test_pass_at_1"],
            "train_seconds": document["train_info"]["train_time"],
            "total_seconds": info["total_time"],
        }
        free = {"learning_rate", "save_steps", "save_total_limit", "save_checkpoint"}
        equal = told["num_eval_samples"] == 500 and all(
            value == defaults.get(key) for key, value in training.items() if key not in free
        )
        flagged = any(flag.code == "environment" for flag in run.flags)
        assert flagged != equal, run.experiment
        counted["equal"] += equal
        counted["taken"] += 1
        assert math.isclose(run.recipe.training.learning_rate, training["learning_rate"])
    assert counted == {"equal": 205, "taken": 304}


@upstream
def test_ingesting_the_raw_files_again_changes_nothing(tmp_path: Path) -> None:
    for name in ("rules.toml", "benchmarks.toml", "sources.toml"):
        (tmp_path / name).write_bytes((ROOT / "data" / name).read_bytes())
    report = ingest([UPSTREAM], data=tmp_path, catalog=ROOT / "catalog", keep_going=True)
    path = "runs/rlmath.jsonl"
    assert (tmp_path / path).read_bytes() == (ROOT / "data" / path).read_bytes()
    assert (len(report.added), len(report.left_out)) == (304, 53)


def test_what_was_computed_is_of_runs_that_recorded_nothing() -> None:
    known = Computed.model_validate_json((ROOT / "data" / COMPUTED).read_bytes())
    runs = {(run.benchmark, run.id): run for run in read_runs(ROOT / "data").values()}
    for benchmark, counts in known.trainable_parameters.items():
        for name, count in counts.items():
            assert count > 0
            assert "trainable_parameters" not in runs[benchmark, name].metrics

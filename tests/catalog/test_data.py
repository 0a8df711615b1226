"""The committed evidence keeps its laws, and equals the raw files where those are at hand."""

from __future__ import annotations

import json
import math
import tomllib
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from peft_shop.catalog.features import FULL_FINETUNING
from peft_shop.curate.intake.assembly import read_variants
from peft_shop.curate.intake.conventions import load_conventions
from peft_shop.curate.intake.ingest import ingest
from peft_shop.curate.intake.ledger import (
    key_of,
    read_runs,
    read_snapshots,
    render_runs,
    render_snapshots,
)
from peft_shop.curate.intake.recipes import recognised, text_digest

if TYPE_CHECKING:
    from peft_shop.catalog.runs import Run

ROOT = Path(__file__).parents[2]
DATA, CATALOG = ROOT / "data", ROOT / "catalog"
UPSTREAM = ROOT.parent / "shared" / "upstream"
CONVENTIONS = load_conventions(DATA)
RUNS = list(read_runs(DATA).values())
SUITE = [run for run in RUNS if run.provenance.source == "peft-method-comparison"]
SNAPSHOTS = read_snapshots(DATA)
NEWEST = "2026-09-16"
GIB = 2**30

upstream = pytest.mark.skipif(
    not UPSTREAM.is_dir(), reason="the raw results are not beside the repository"
)


def one(experiment: str, snapshot: str) -> Run:
    (run,) = (r for r in RUNS if r.experiment == experiment and snapshot in r.snapshots)
    return run


# --- laws ---


def test_there_are_as_many_runs_as_the_guide_says() -> None:
    assert len(SUITE) == 236
    counts = {"metamathqa": 196, "image_gen": 40, "rlmath": 304}
    assert Counter(run.benchmark for run in RUNS) == counts
    guide = (DATA / "README.md").read_text(encoding="utf-8")
    for count in ("260", "234", "236", "26 ", "304", "205"):
        assert count in guide


def test_every_run_is_on_file_once() -> None:
    assert len({key_of(run) for run in RUNS}) == len(RUNS)
    assert len({run.provenance.sha256 for run in RUNS}) == len(RUNS)


def test_the_files_are_as_the_importer_writes_them() -> None:
    for benchmark in CONVENTIONS.benchmarks:
        of = [run for run in RUNS if run.benchmark == benchmark]
        assert (DATA / "runs" / f"{benchmark}.jsonl").read_bytes() == render_runs(of)
    assert (DATA / "snapshots.toml").read_bytes() == render_snapshots(SNAPSHOTS.values())


@pytest.mark.parametrize("benchmark", ["metamathqa", "image_gen"])
def test_metrics_are_those_of_the_benchmark(benchmark: str) -> None:
    known = CONVENTIONS.benchmarks[benchmark]
    fields = {m.field for m in CONVENTIONS.metrics.values() if m.id in known.metrics}
    for run in RUNS:
        if run.benchmark == benchmark:
            assert set(run.metrics) <= fields
            assert known.headline in run.metrics
            assert {"peak_memory_bytes", "step_seconds", "train_loss"} <= set(run.metrics)


def test_no_figure_is_a_stand_in() -> None:
    for run in RUNS:
        for name, value in run.metrics.items():
            assert math.isfinite(value)
            assert value != CONVENTIONS.rules.sentinels.get(name)
        assert run.metrics["train_seconds"] < run.metrics["total_seconds"]
    for run in SUITE:
        assert 0 <= run.metrics.get("test_accuracy", 0) <= 1
        assert run.metrics["step_seconds"] < run.metrics["train_seconds"]
        assert run.metrics["average_memory_bytes"] <= run.metrics["p99_memory_bytes"]
        assert run.metrics["p99_memory_bytes"] <= run.metrics["peak_memory_bytes"]


def test_flags_name_what_they_concern() -> None:
    codes: Counter[str] = Counter()
    for run in RUNS:
        for flag in run.flags:
            codes[flag.code] += run in SUITE
            missing = set(flag.metrics) - set(run.metrics)
            assert (flag.code == "sentinel") == bool(missing)
            assert flag.reason.endswith(".")
    assert codes == {"sentinel": 3, "environment": 3, "artefact": 1, "broken_config": 1}


def test_every_rule_for_a_flag_is_used() -> None:
    for rule in CONVENTIONS.rules.flags:
        hit = [r for r in RUNS if rule.applies(r.benchmark, r.experiment, r.created_at)]
        assert hit, rule.experiment


def test_only_one_machine_stands_without_a_flag() -> None:
    for run in RUNS:
        flagged = any(flag.code == "environment" for flag in run.flags)
        reference = CONVENTIONS.rules.benchmarks[run.benchmark].accelerator
        assert flagged or run.provenance.accelerator == reference


def test_a_snapshot_holds_an_experiment_once_and_has_runs() -> None:
    count = Counter((r.benchmark, r.experiment, s) for r in RUNS for s in r.snapshots)
    assert set(count.values()) == {1}
    assert {name for _, _, name in count} == set(SNAPSHOTS)
    newest = [run for run in RUNS if NEWEST in run.snapshots]
    assert Counter(run.benchmark for run in newest) == {"metamathqa": 73, "image_gen": 39}
    assert sum(run.method == FULL_FINETUNING for run in newest) == 2


def test_the_newest_snapshot_is_of_one_era() -> None:
    newest = [r for r in RUNS if NEWEST in r.snapshots and r.benchmark == "metamathqa"]
    assert {run.era for run in newest} == {"sampled"}
    mixed = [r for r in RUNS if "2026-06-10" in r.snapshots and r.benchmark == "metamathqa"]
    assert Counter(run.era for run in mixed) == {"greedy": 38, "sampled": 14}


def test_forgetting_has_the_definition_of_its_time() -> None:
    for run in SUITE:
        stated = [name for name in run.metrics if name.startswith("forgetting")]
        definition = run.provenance.forgetting_definition
        assert stated in ([], [definition])
        if run.benchmark == "image_gen":
            assert definition is None
        else:
            after = run.created_at[:10] >= "2026-07-14"
            assert (definition == "forgetting") is after


def test_variants_are_those_of_the_curated_catalog() -> None:
    variants = read_variants(CATALOG)
    for run in RUNS:
        assert run.variants == recognised(run.recipe, variants.get(run.method, ()))


def test_provenance_is_complete() -> None:
    for run in SUITE:
        came = run.provenance
        assert came.source == "peft-method-comparison"
        assert came.commit is not None
        assert came.file.startswith("method_comparison/")
        assert {"peft", "torch", "transformers"} <= set(came.packages)
        assert came.seed == 0


# --- figures that the facts about the suite state ---


def test_known_figures() -> None:
    rslora = one("lora/llama-3.2-3B-rank64-rslora", NEWEST)
    assert rslora.metrics["test_accuracy"] == pytest.approx(0.513, abs=5e-4)
    assert rslora.metrics["peak_memory_bytes"] / GIB == pytest.approx(21.01, abs=5e-3)
    assert rslora.variants == ("rslora",)
    lily = one("lily/llama-3.2-3B-rank140-mlp-a2-b2-s8.0", NEWEST)
    assert lily.metrics["test_accuracy"] == pytest.approx(0.526, abs=5e-4)
    assert lily.metrics["peak_memory_bytes"] / GIB == pytest.approx(23.86, abs=5e-3)
    lora = one("lora/flux2-klein-rank64", NEWEST)
    assert lora.metrics["dino_similarity"] == pytest.approx(0.743, abs=5e-4)
    assert lora.metrics["peak_memory_bytes"] / GIB == pytest.approx(10.60, abs=5e-3)


def test_the_artefact_is_where_it_should_be() -> None:
    peaks = [
        (run.metrics["peak_memory_bytes"] / GIB, bool(run.flags))
        for run in sorted(RUNS, key=lambda run: run.created_at)
        if run.experiment == "lora/llama-3.2-3B-rank32-lorafa"
    ]
    assert [(round(peak, 2), flagged) for peak, flagged in peaks] == [
        (18.80, False),
        (18.80, False),
        (18.82, False),
        (20.71, True),
    ]


def test_the_two_runs_of_other_hardware_are_outside() -> None:
    outside = [run for run in SUITE if not run.snapshots]
    assert [run.experiment for run in outside] == [
        "shadow/llama-3.2-3B-default",
        "shadow/llama-3.2-3B-tuned",
    ]
    assert {run.provenance.accelerator for run in outside} == {"NVIDIA A100 80GB PCIe"}
    assert all("checkpoint_bytes" not in run.metrics for run in outside)


def test_no_prompt_list_and_no_learned_rank_is_on_file() -> None:
    for path in (DATA / "runs").glob("*.jsonl"):
        text = path.read_text(encoding="utf-8")
        for word in ("prompts", "query_template", "lora_E", "error_msg"):
            assert word not in text
        assert max(len(line) for line in text.splitlines()) < 4000


def test_every_metric_has_its_section_in_the_guide() -> None:
    guide = (DATA / "README.md").read_text(encoding="utf-8")
    for metric in CONVENTIONS.metrics.values():
        assert f"### `{metric.id}`" in guide


# --- against the raw files ---


def raw() -> dict[str, dict[str, Any]]:
    """Raw results by their path in the archive."""
    return {
        path.relative_to(UPSTREAM).as_posix(): json.loads(path.read_bytes())
        for folder in ("results", "foreign")
        for path in sorted((UPSTREAM / folder).rglob("*.json"))
    }


def raw_key(name: str, document: dict[str, Any]) -> tuple[str, str, str]:
    benchmark = {"MetaMathQA": "metamathqa", "image-gen": "image_gen"}[name.split("/")[1]]
    info = document["run_info"]
    return benchmark, info["experiment_name"], info["created_at"]


@upstream
def test_the_snapshots_hold_the_files_that_were_current() -> None:
    keys = {name: raw_key(name, document) for name, document in raw().items()}
    assert len([name for name in keys if name.startswith("results/")]) == 260
    listing = json.loads((UPSTREAM / "snapshots.json").read_bytes())
    for entry in listing:
        expected = {keys[name] for names in entry["runs"].values() for name in names}
        found = {key_of(run) for run in RUNS if entry["id"] in run.snapshots}
        assert found == expected
        assert (entry["id"] in SNAPSHOTS) == bool(expected)
        if expected:
            snapshot = SNAPSHOTS[entry["id"]]
            assert (snapshot.commit, snapshot.date) == (entry["commit"], entry["date"])


@upstream
def test_every_figure_equals_the_raw_one() -> None:
    """An oracle that knows the suite's keys by itself, without `rules.toml`."""
    by_key = {raw_key(name, document): document for name, document in raw().items()}
    for run in SUITE:
        document = by_key[key_of(run)]
        info, last = document["train_info"], document["train_info"]["metrics"][-1]
        memory = "cuda_memory" if "cuda_memory_max" in info else "accelerator_memory"
        expected = {
            "peak_memory_bytes": info[f"{memory}_max"],
            "average_memory_bytes": info[f"{memory}_reserved_avg"],
            "p99_memory_bytes": info[f"{memory}_reserved_99th"],
            "train_seconds": info["train_time"],
            "step_seconds": math.fsum(
                m["train time"] for m in info["metrics"] if "train time" in m
            ),
            "total_seconds": document["run_info"]["total_time"],
            "checkpoint_bytes": info["file_size"] if info["file_size"] != 99999999 else None,
            "trainable_parameters": info.get("num_trainable_params"),
            "total_parameters": info.get("num_total_params"),
            "train_loss": last["train loss"],
            "test_accuracy": last.get("test accuracy"),
            "dino_similarity": last.get("test dino_similarity"),
            run.provenance.forgetting_definition or "forgetting": last.get("forgetting"),
            "drift": None if last.get("drift") != last.get("drift") else last.get("drift"),
            "tokens_seen": last.get("train total tokens"),
        }
        assert run.metrics == {name: v for name, v in expected.items() if v is not None}
        curve = [
            (m["step"], m[key])
            for m in info["metrics"]
            for key in ("valid accuracy", "valid dino_similarity")
            if key in m
        ]
        assert run.curve is not None
        assert list(zip(run.curve.steps, run.curve.scores, strict=True)) == curve
        dirty = document["run_info"].get("peft_worktree_is_dirty")
        assert run.provenance.worktree_dirty is dirty


@upstream
def test_the_references_are_the_defaults_of_the_suite() -> None:
    for benchmark in ("metamathqa", "image_gen"):
        rules = CONVENTIONS.rules.benchmarks[benchmark]
        folder = UPSTREAM / "experiments" / CONVENTIONS.folder_of(benchmark)
        defaults = json.loads((folder / "default_training_params.json").read_bytes())
        for name, digest in rules.texts.items():
            assert text_digest(defaults.pop(name)) == digest
        assert {k: v for k, v in defaults.items() if v is not None} == rules.reference
        assert set(rules.cost) | set(rules.score) <= {*defaults, "dataset_id"}


@upstream
def test_ingesting_the_raw_files_again_changes_nothing(tmp_path: Path) -> None:
    for name in ("rules.toml", "benchmarks.toml", "sources.toml"):
        (tmp_path / name).write_bytes((DATA / name).read_bytes())
    report = ingest(
        [UPSTREAM, UPSTREAM / "foreign"], data=tmp_path, catalog=CATALOG, keep_going=True
    )
    for name in ("runs/metamathqa.jsonl", "runs/image_gen.jsonl"):
        assert (tmp_path / name).read_bytes() == (DATA / name).read_bytes()
    of_suite = [one for one in SNAPSHOTS.values() if one.source == "peft-method-comparison"]
    assert (tmp_path / "snapshots.toml").read_bytes() == render_snapshots(of_suite)
    assert len(report.added) == 236
    assert len(report.duplicates) == 26
    assert {Path(problem.path).name for problem in report.left_out} == {
        "ewora--llama-3.2-3B-default.json",
        "ewora--flux2-klein-default.json",
    }
    assert Counter(problem.where for problem in report.left_out) == {
        "run_info.experiment_name": 2,
        "run_info.peft_config.peft_type": 2,
    }


def test_hand_written_files_are_toml_with_short_lines() -> None:
    for name in ("rules.toml", "benchmarks.toml", "sources.toml"):
        text = (DATA / name).read_text(encoding="utf-8")
        tomllib.loads(text)
        assert max(len(line) for line in text.splitlines()) <= 120

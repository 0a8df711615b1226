"""Source files are read strictly, and all mistakes are told at once."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import pytest

from peft_shop.curate.sources.sources import read_sources
from peft_shop.errors import CatalogError, Problem

if TYPE_CHECKING:
    from pathlib import Path


def problems(folders: Any) -> list[Problem]:
    with pytest.raises(CatalogError) as caught:
        read_sources(folders.catalog, folders.data)
    assert all(str(problem) in str(caught.value) for problem in caught.value.problems)
    return list(caught.value.problems)


def test_every_record_knows_its_file_and_place(folders: Any) -> None:
    sources = read_sources(folders.catalog, folders.data)
    assert sources.version == "2026.11.0"
    assert list(sources.curated) == ["cpt", "lora"]
    assert list(sources.observed) == ["cpt", "lora"]
    run = sources.runs[2]
    assert run.record.experiment == "lora/waste"
    assert run.problem("metrics.x", "is odd") == Problem(
        str(folders.data / "runs" / "sums.jsonl"), "line 3: metrics.x", "is odd"
    )
    metric = sources.metrics[1].problem("field", "is odd", "mend it")
    assert metric.where == "metrics[1].field"
    assert sources.curated["lora"].problem("", "is odd").where == ""


def test_hashes_are_of_the_files_by_their_names_in_the_repository(folders: Any) -> None:
    folders.write("catalog/exceptions.toml", "")
    files = read_sources(folders.catalog, folders.data).files
    assert list(files) == [
        "catalog/curated/cpt.toml",
        "catalog/curated/lora.toml",
        "catalog/observed/cpt.json",
        "catalog/observed/history.json",
        "catalog/observed/lora.json",
        "catalog/version.toml",
        "data/benchmarks.toml",
        "data/runs/sums.jsonl",
        "data/snapshots.toml",
        "data/sources.toml",
    ]
    content = (folders.data / "sources.toml").read_bytes()
    assert files["data/sources.toml"] == hashlib.sha256(content).hexdigest()


def test_dates_of_toml_are_dates(folders: Any) -> None:
    assert read_sources(folders.catalog, folders.data).sources[0].record.date == "2026-01-01"


def test_all_mistakes_of_all_files_come_at_once(folders: Any) -> None:
    folders.edit("catalog/curated/lora.toml", "family =", "famly =")
    folders.edit("catalog/curated/cpt.toml", "task_types = [", "task_types = [ [")
    folders.edit_json("catalog/observed/lora.json", "category", value="adaptor")
    folders.edit("data/benchmarks.toml", 'better = "higher"', 'better = "high"')
    folders.edit_run(1, "metrics", "train_seconds", value="60")
    found = {(p.path.rpartition("/")[2], p.where): p for p in problems(folders)}
    assert set(found) == {
        ("lora.toml", "family"),
        ("lora.toml", "famly"),
        ("cpt.toml", ""),
        ("lora.json", "category"),
        ("benchmarks.toml", "metrics[2].better"),
        ("sums.jsonl", "line 2: metrics.train_seconds"),
    }
    assert "'adapter'" in found["lora.json", "category"].hint


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "not JSON"),
        ('{"benchmark": "sums"', "not JSON"),
        ("[1]", "expected an object, got list"),
        ("null", "expected an object, got NoneType"),
        ('{"metrics": {"test_accuracy": NaN}}', "NaN is not a number"),
        ('{"metrics": {"test_accuracy": -Infinity}}', "-Infinity is not a number"),
        ('{"benchmark": "a", "benchmark": "b"}', "'benchmark' stands twice"),
        ('{"metrics": ' * 100_000, "nested too deeply"),
    ],
)
def test_a_broken_line_is_told_with_its_number(folders: Any, line: str, message: str) -> None:
    path = folders.data / "runs" / "sums.jsonl"
    folders.write("data/runs/sums.jsonl", path.read_text(encoding="utf-8") + line + "\n")
    (problem,) = problems(folders)
    assert problem.where == "line 7"
    assert message in problem.message


def test_numbers_are_finite_in_toml_too(folders: Any) -> None:
    folders.edit("data/benchmarks.toml", "floor = 0.1", "floor = nan")
    (problem, *_) = problems(folders)
    assert "nan or inf" in problem.message


def test_text_is_no_number_and_truth_is_no_number(folders: Any) -> None:
    folders.edit("data/benchmarks.toml", "floor = 0.1", 'floor = "0.1"')
    assert [p.where for p in problems(folders)] == ["benchmarks[0].floor"]
    folders.edit("data/benchmarks.toml", 'floor = "0.1"', "floor = true")
    assert [p.where for p in problems(folders)] == ["benchmarks[0].floor"]


def test_a_file_that_is_not_utf8_is_told(folders: Any) -> None:
    (folders.catalog / "curated" / "lora.toml").write_bytes(b'title = "\xff"')
    (problem,) = problems(folders)
    assert "not UTF-8" in problem.message


def test_absent_folders_and_files_are_told(folders: Any, tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match="no such folder"):
        read_sources(tmp_path / "nowhere", folders.data)
    (folders.data / "sources.toml").unlink()
    (folders.catalog / "version.toml").unlink()
    assert [p.message for p in problems(folders)] == 2 * ["no such file or directory"]


def test_a_table_must_be_a_list_of_tables(folders: Any) -> None:
    folders.write("data/sources.toml", '[sources]\nid = "lab"\n')
    (problem,) = problems(folders)
    assert (problem.where, problem.message) == ("sources", "expected [[sources]] tables")

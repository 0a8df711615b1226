"""Three layouts of results, told apart by what lies there."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from peft_shop.curate.intake.layouts import find_results

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Suite

COMMIT = "a" * 40


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}", encoding="utf-8")


def archive(root: Path, snapshots: Any, sources: Any = None) -> None:
    touch(root, "experiments/MetaMathQA/lora/x/adapter_config.json")
    (root / "results").mkdir(exist_ok=True)
    (root / "snapshots.json").write_text(json.dumps(snapshots), encoding="utf-8")
    if sources is not None:
        path = root / "sources-2026-02-02.json"
        path.write_text(json.dumps(sources), encoding="utf-8")


A = "results/MetaMathQA/2026-01-01/lora--a.json"
B = "results/image-gen/2026-02-02/lora--b.json"
FOREIGN = "foreign/MetaMathQA/lora--c.json"
SNAPSHOTS: list[dict[str, Any]] = [
    {"id": "zero", "commit": COMMIT, "date": "2025-12-31", "runs": {}},
    {"id": "one", "commit": COMMIT, "date": "2026-01-01", "runs": {"MetaMathQA": [A]}},
    {
        "id": "two",
        "commit": None,
        "date": "2026-02-02",
        "note": "Both.",
        "runs": {"MetaMathQA": [A], "image-gen": [B]},
    },
]


def test_an_archive_says_what_was_current_when(suite: Suite) -> None:
    archive(suite.root, SNAPSHOTS, {B: {"commit": "b" * 40}, FOREIGN: {"commit": "c" * 40}})
    touch(suite.root, A, B, FOREIGN, "results/MetaMathQA/2026-02-02/lora--unlisted.json")
    layout = find_results(suite.root)
    assert (layout.kind, layout.problems) == ("archive", ())
    found = {file.file: file for file in layout.files}
    assert set(found) == {
        "method_comparison/MetaMathQA/results/lora--a.json",
        "method_comparison/MetaMathQA/results/lora--unlisted.json",
        "method_comparison/image-gen/results/lora--b.json",
    }
    a = found["method_comparison/MetaMathQA/results/lora--a.json"]
    assert (a.task, a.commit, a.snapshots) == ("MetaMathQA", COMMIT, ("one", "two"))
    b = found["method_comparison/image-gen/results/lora--b.json"]
    assert (b.task, b.commit, b.snapshots) == ("image-gen", "b" * 40, ("two",))
    assert found["method_comparison/MetaMathQA/results/lora--unlisted.json"].snapshots == ()
    assert [(s.id, s.commit, s.note) for s in layout.snapshots] == [
        ("one", COMMIT, None),
        ("two", None, "Both."),
    ]
    assert [note.where for note in layout.notes] == ["zero"]
    assert layout.experiments["MetaMathQA"] == suite.root / "experiments" / "MetaMathQA"


def test_a_folder_inside_an_archive_belongs_to_no_snapshot(suite: Suite) -> None:
    archive(suite.root, SNAPSHOTS, {FOREIGN: {"commit": "c" * 40}})
    touch(suite.root, A, B, FOREIGN)
    layout = find_results(suite.root / "foreign")
    (file,) = layout.files
    assert (file.task, file.commit, file.snapshots) == ("MetaMathQA", "c" * 40, ())
    assert file.path == suite.root / FOREIGN
    assert layout.snapshots == ()
    assert "MetaMathQA" in layout.experiments


def test_one_file_of_an_archive_keeps_its_snapshots(suite: Suite) -> None:
    archive(suite.root, SNAPSHOTS)
    touch(suite.root, A, B)
    (file,) = find_results(suite.root / A).files
    assert (file.task, file.snapshots) == ("MetaMathQA", ("one", "two"))


@pytest.mark.parametrize(
    ("snapshots", "message"),
    [
        ({}, "expected a list of snapshots"),
        ([7], "expected {id, date"),
        ([{"id": "x", "date": "soon", "runs": {}}], "expected {id, date"),
        ([{"id": "x", "date": "2026-01-01", "runs": {"MetaMathQA": "a"}}], "expected {id, date"),
        ([{"id": "x", "date": "2026-01-01", "runs": {"MetaMathQA": ["gone"]}}], "gone, which is"),
    ],
)
def test_a_broken_list_of_snapshots_is_told(suite: Suite, snapshots: Any, message: str) -> None:
    archive(suite.root, snapshots)
    touch(suite.root, A)
    assert any(message in problem.message for problem in find_results(suite.root).problems)


@pytest.mark.parametrize("text", ["", "[", "[" * 100_000])
def test_a_truncated_list_of_snapshots_is_told(suite: Suite, text: str) -> None:
    archive(suite.root, [])
    touch(suite.root, A)
    suite.write_text("snapshots.json", text)
    (problem,) = find_results(suite.root).problems
    assert "not JSON" in problem.message


@pytest.mark.parametrize("sources", [[], {A: {}}, {A: {"commit": "main"}}, {A: 1}])
def test_broken_sources_are_told(suite: Suite, sources: Any) -> None:
    archive(suite.root, SNAPSHOTS[1:2], sources)
    touch(suite.root, A)
    (problem,) = find_results(suite.root).problems
    assert "sources-2026-02-02.json" in problem.path


@pytest.mark.parametrize("start", [".", "method_comparison", "method_comparison/MetaMathQA"])
def test_a_checkout_is_entered_at_any_level(suite: Suite, start: str) -> None:
    task = "method_comparison/MetaMathQA"
    touch(
        suite.root,
        "src/peft/__init__.py",
        f"{task}/results/lora--a.json",
        f"{task}/temporary_results/lora--a--2026.json",
        f"{task}/cancelled_results/lora--a--2026.json",
        f"{task}/experiments/lora/a/adapter_config.json",
        "method_comparison/peft-shop/app.json",
    )
    suite.write_text(".git/HEAD", "ref: refs/heads/main\n")
    suite.write_text(".git/packed-refs", f"# pack-refs\n{COMMIT} refs/heads/main\n")
    layout = find_results(suite.root / start)
    (file,) = layout.files
    assert layout.kind == "checkout"
    assert file.task == "MetaMathQA"
    assert file.file == "method_comparison/MetaMathQA/results/lora--a.json"
    assert file.commit == layout.commit == COMMIT
    assert layout.experiments["MetaMathQA"] == suite.root / task / "experiments"


@pytest.mark.parametrize(
    ("head", "ref", "commit"),
    [(COMMIT, "", COMMIT), ("ref: refs/heads/x", COMMIT, COMMIT), ("ref: refs/heads/x", "", None)],
)
def test_the_commit_is_read_or_absent(
    suite: Suite, head: str, ref: str, commit: str | None
) -> None:
    touch(suite.root, "src/peft/__init__.py", "method_comparison/MetaMathQA/results/a.json")
    suite.write_text(".git/HEAD", head + "\n")
    suite.write_text(".git/refs/heads/x", ref)
    assert find_results(suite.root).commit == commit


def test_a_copy_inside_another_repository_has_no_commit(suite: Suite) -> None:
    touch(suite.root, "method_comparison/MetaMathQA/results/a.json")
    suite.write_text(".git/HEAD", COMMIT + "\n")
    assert find_results(suite.root / "method_comparison").commit is None


def test_a_plain_folder_may_have_a_folder_per_task(suite: Suite) -> None:
    touch(suite.root, "a.json", "image-gen/b.json", "image-gen/deep/c.json", ".hidden/d.json")
    layout = find_results(suite.root)
    assert layout.kind == "folder"
    assert [(file.file, file.task) for file in layout.files] == [
        ("a.json", None),
        ("image-gen/b.json", "image-gen"),
    ]
    assert {file.source for file in layout.files} == {"local"}


def test_a_single_file_is_a_folder_of_one(suite: Suite) -> None:
    touch(suite.root, "a.json", "b.json")
    layout = find_results(suite.root / "a.json")
    assert [file.path.name for file in layout.files] == ["a.json"]


def test_nothing_there_is_a_problem(suite: Suite) -> None:
    (problem,) = find_results(suite.root).problems
    assert problem.message == "holds no result files"
    (problem,) = find_results(suite.root / "gone").problems
    assert problem.message == "no such file or folder"
    assert "method_comparison" in problem.hint

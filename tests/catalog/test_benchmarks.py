"""A benchmark's record owns what is said of it: names, texts, defaults."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import peft_shop
from peft_shop.ask.reading import build_query, resolve_benchmark
from peft_shop.catalog.store import load
from peft_shop.names import BENCHMARK_ALIASES

ROOT = Path(peft_shop.__file__).parent
# what the benchmarks' texts are about: only their records and the workshop may say it
_OWN = re.compile(r"(?i)gsm8k|metamath(?!qa\b)|flux\.2-klein|1,?319|dreambooth|cat-image")
_SHAPES = ROOT / "adapt" / "measured.py"  # layers of the measured models, by their identifiers


def test_only_the_records_say_what_a_benchmark_is_about() -> None:
    spoken = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path in sorted(ROOT.rglob("*.py"))
        if "curate" not in path.parts and path not in {_SHAPES, ROOT / "names.py"}
        for line in path.read_text(encoding="utf-8").splitlines()
        # examples of a docstring, and the names of another tool's scripts, are no texts of ours
        if _OWN.search(re.sub(r"train_dreambooth_\w+|examples/dreambooth/|^ *>>> .*", "", line))
    ]
    assert spoken == []


def test_no_metric_describes_one_benchmark_alone() -> None:
    catalog = load()
    titles = [one.title for one in catalog.benchmarks]
    for metric in catalog.metrics:
        where = [one for one in catalog.benchmarks if metric.id in one.metrics]
        if len(where) > 1:
            assert not [title for title in titles if title in metric.description], metric.id


@pytest.mark.parametrize(
    ("name", "benchmark"),
    [(name, one.id) for one in load().benchmarks for name in (one.id, one.title, *one.aliases)],
)
def test_every_name_of_a_benchmark_is_taken(name: str, benchmark: str) -> None:
    for spelling in (name, name.upper(), name.replace("_", "-"), name.replace("-", " ")):
        assert resolve_benchmark(load(), spelling).id == benchmark


def test_the_names_for_editors_are_those_of_the_catalog() -> None:
    assert {one.id: one.aliases for one in load().benchmarks} == BENCHMARK_ALIASES


def test_objectives_are_the_benchmark_s_own_by_default() -> None:
    for benchmark in load().benchmarks:
        query = build_query(load(), benchmark=benchmark.id)
        assert query.objectives == benchmark.default_objectives
        assert query.objectives[0] == benchmark.headline

"""Fronts of whole answers against an oracle that reads the catalog's JSON and nothing else.

The oracle does not import the package: it works out from the raw file which runs stand for
selection and which of them no other dominates, for every pair and every triple of metrics on
every snapshot of every benchmark, with the default floor and without one.
"""

from __future__ import annotations

import json
from collections import Counter
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import peft_shop
from peft_shop import load_catalog, recommend
from peft_shop.ask.contenders import field_of_play
from peft_shop.ask.judging import judge
from peft_shop.ask.reading import build_query
from peft_shop.ask.reasons import cost
from peft_shop.pareto import front

if TYPE_CHECKING:
    from collections.abc import Callable

    from peft_shop.catalog.catalog import Catalog

RAW: Final[dict[str, Any]] = json.loads(
    (Path(peft_shop.__file__).parent / "_catalog.json").read_text(encoding="utf-8")
)
CATALOG = load_catalog()
METRICS: Final = {metric["id"]: metric for metric in RAW["metrics"]}
BENCHMARKS: Final = {benchmark["id"]: benchmark for benchmark in RAW["benchmarks"]}
SNAPSHOTS: Final = sorted(
    {(run["benchmark"], name) for run in RAW["runs"] for name in run.get("snapshots", ())}
)


def rankable(benchmark: str) -> list[str]:
    return [name for name in BENCHMARKS[benchmark]["metrics"] if "retired" not in METRICS[name]]


class Oracle:
    """Fronts of one snapshot by brute force.

    Who beats whom in one metric is a set of bits per run; a run is on the front when no other is
    nowhere worse (the intersection over the metrics) and somewhere better (the union).
    """

    def __init__(self, benchmark: str, snapshot: str, floor: float) -> None:
        headline = METRICS[BENCHMARKS[benchmark]["headline"]]
        runs = [
            run
            for run in RAW["runs"]
            if run["benchmark"] == benchmark
            and snapshot in run.get("snapshots", ())
            and run["method"] != "full_finetuning"
        ]
        usual = Counter(run["provenance"]["accelerator"] for run in runs).most_common(1)[0][0]
        self.runs = [
            run
            for run in runs
            if not any(flag["code"] != "sentinel" for flag in run.get("flags", ()))
            and run["provenance"]["accelerator"] == usual
            and run["metrics"].get(headline["field"], -1) >= floor
        ]
        self.no_worse = {name: self._bits(name, strictly=False) for name in rankable(benchmark)}
        self.better = {name: self._bits(name, strictly=True) for name in rankable(benchmark)}

    def _bits(self, name: str, *, strictly: bool) -> list[int]:
        """For each run the set of those that are no worse, or better, in one metric."""
        metric = METRICS[name]
        sign = 1 if metric["better"] == "lower" else -1
        values = [run["metrics"].get(metric["field"]) for run in self.runs]
        return [
            sum(
                1 << j
                for j, other in enumerate(values)
                if mine is not None
                and other is not None
                and (sign * other < sign * mine or (not strictly and other == mine))
            )
            for mine in values
        ]

    def front(self, objectives: tuple[str, ...]) -> set[str]:
        complete = sum(
            1 << i
            for i, run in enumerate(self.runs)
            if all(METRICS[name]["field"] in run["metrics"] for name in objectives)
        )
        found = set()
        for i, run in enumerate(self.runs):
            if not complete >> i & 1:
                continue
            nowhere_worse, somewhere_better = complete, 0
            for name in objectives:
                nowhere_worse &= self.no_worse[name][i]
                somewhere_better |= self.better[name][i]
            if not nowhere_worse & somewhere_better:
                found.add(run["experiment"])
        return found


def test_the_oracle_tells_a_front() -> None:
    oracle = Oracle("image_gen", "2026-08-14", 0.4)
    names = {"lora/flux2-klein-rank64", "oft/flux2-klein-default", "ia3/flux2-klein-default"}
    assert oracle.front(("dino_similarity", "peak_memory")) == names


@pytest.mark.parametrize(("benchmark", "snapshot"), SNAPSHOTS)
def test_every_pair_and_triple(benchmark: str, snapshot: str) -> None:
    metrics = {name: CATALOG.metric_by_id[name] for name in rankable(benchmark)}
    for floor in (None, 0.0):
        oracle = Oracle(benchmark, snapshot, BENCHMARKS[benchmark]["floor"] if floor is None else 0)
        for objectives in (one for size in (2, 3) for one in combinations(metrics, size)):
            query = build_query(
                CATALOG,
                benchmark=benchmark,
                snapshot=snapshot,
                era="any",
                objectives=objectives,
                floor=floor,
            )
            contenders = field_of_play(CATALOG, query).contenders
            kept = [
                one
                for one, verdict in zip(contenders, judge(CATALOG, query, contenders), strict=True)
                if verdict.kept and one.run is not None
            ]
            costs = [tuple(cost(one, metrics[name]) for name in objectives) for one in kept]
            assert {kept[i].name for i in front(costs)} == oracle.front(objectives), objectives


@pytest.mark.parametrize(
    ("benchmark", "snapshot"),
    [
        ("metamathqa", "2025-06-19"),
        ("metamathqa", "2026-06-10"),
        ("metamathqa", "2026-09-16"),
        ("image_gen", "2026-06-10"),
        ("image_gen", "2026-09-16"),
    ],
)
def test_whole_answers_have_that_front(
    alter: Callable[..., Catalog], benchmark: str, snapshot: str
) -> None:
    quiet = alter(CATALOG, noise=())  # only probabilities and ties need it, and they take time
    oracle = Oracle(benchmark, snapshot, BENCHMARKS[benchmark]["floor"])
    for objectives in combinations(rankable(benchmark), 2):
        answer = recommend(
            benchmark,
            objectives,
            snapshot=snapshot,
            era="any",
            peft_version="any",
            catalog=quiet,
        )
        assert {member.name for member in answer} == oracle.front(objectives)


MODEL = next(run for run in CATALOG.runs if run.experiment == "lora/llama-3.2-3B-rank64-rslora")
FIELDS: Final = ("test_accuracy", "peak_memory_bytes", "forgetting")
figures = st.fixed_dictionaries(
    {"train_loss": st.just(1.0)},
    # few values: equal figures and whole duplicates are common
    optional={field: st.sampled_from([0.2, 0.3, 0.4]) for field in FIELDS},
)


@given(st.lists(figures, max_size=12))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_ties_duplicates_and_missing_values(
    alter: Callable[..., Catalog], rows: list[dict[str, float]]
) -> None:
    runs = [
        MODEL.model_copy(
            update={"experiment": f"x/{i}", "metrics": row, "snapshots": ("2026-09-16",)}
        )
        for i, row in enumerate(rows)
    ]
    catalog = alter(CATALOG, noise=(), runs=tuple(runs))
    answer = recommend(
        "metamathqa",
        ["test_accuracy", "peak_memory", "forgetting"],
        snapshot="2026-09-16" if rows else None,
        era="any",
        floor=0,
        peft_version="any",
        catalog=catalog,
    )
    complete = {
        f"x/{i}": (-row["test_accuracy"], row["peak_memory_bytes"], row["forgetting"])
        for i, row in enumerate(rows)
        if set(FIELDS) <= set(row)
    }
    undominated = {
        name
        for name, mine in complete.items()
        if not any(
            other != mine and all(a <= b for a, b in zip(other, mine, strict=True))
            for other in complete.values()
        )
    }
    assert {member.name for member in answer} == undominated
    dropped = {one.name for one in answer.dropped if one.run}
    assert dropped == {f"x/{i}" for i in range(len(rows))} - set(complete)

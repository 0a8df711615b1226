"""What was published stands beside what a trial measured; both never make one front."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peft_shop import recommend
from peft_shop.ask.beside import kendall_tau, orders_of
from peft_shop.catalog.export import dump
from peft_shop.catalog.store import load

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from peft_shop.catalog.catalog import Catalog


def by_pairs(one: Sequence[int], other: Sequence[int]) -> float | None:
    """Tau-b from its definition: the correlation of the signs of all pairs."""
    signs = [
        ((a > b) - (a < b), (x > y) - (x < y))
        for (a, x), (b, y) in itertools.permutations(list(zip(one, other, strict=True)), 2)
    ]
    scale = math.sqrt(sum(a * a for a, _ in signs) * sum(x * x for _, x in signs))
    return sum(a * x for a, x in signs) / scale if scale else None


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), max_size=8))
def test_tau_is_the_correlation_of_signs(pairs: list[tuple[int, int]]) -> None:
    one, other = [a for a, _ in pairs], [b for _, b in pairs]
    assert kendall_tau(one, other) == pytest.approx(by_pairs(one, other))


def trial_of(figures: Sequence[float], alter: Callable[..., Catalog]) -> tuple[Catalog, list[str]]:
    """A trial that repeats published runs of as many methods, with these test losses."""
    catalog = load()
    best: dict[str, str] = {}
    for candidate in recommend("metamathqa", peft_version="any"):
        best.setdefault(candidate.method, candidate.run.id)
    published = [run for run in catalog.runs if run.id in set(best.values())][: len(figures)]
    published.sort(key=lambda run: -run.metrics["test_accuracy"])
    theirs = catalog.benchmark_by_id["metamathqa"]
    own = theirs.model_copy(
        update={
            "id": "trial_own",
            "title": "Trial own",
            "aliases": (),
            "headline": "train_loss",
            "metrics": ("train_loss", "trainable_parameters"),
            "objectives": ("train_loss", "trainable_parameters"),
            "sample_size": None,
            "definitions": {},
            "floor": 99.0,
            "eras": (),
            "protocol": "0" * 64,
        }
    )
    runs = [
        run.model_copy(
            update={
                "benchmark": "trial_own",
                "experiment": f"{run.method}/mine",
                "era": None,
                "metrics": {"train_loss": figure, "trainable_parameters": 10},
                "provenance": run.provenance.model_copy(update={"published": run.id}),
            }
        )
        for run, figure in zip(published, figures, strict=True)
    ]
    made = alter(catalog, benchmarks=(own, *catalog.benchmarks), runs=(*runs, *catalog.runs))
    return made, [run.experiment for run in runs]


def test_figures_ranks_and_agreement(alter: Callable[..., Catalog]) -> None:
    catalog, names = trial_of([2.0, 3.0, 1.0], alter)
    orders = orders_of(catalog, catalog.benchmarks[0])
    assert orders is not None
    assert [row.experiment for row in orders.rows] == [names[2], names[0], names[1]]
    assert [(row.own_rank, row.published_rank) for row in orders.rows] == [(1, 3), (2, 1), (3, 2)]
    assert orders.tau == pytest.approx(-1 / 3)
    assert orders.benchmark.id == "metamathqa"


def test_a_published_benchmark_stands_beside_nothing() -> None:
    catalog = load()
    assert orders_of(catalog, catalog.benchmarks[0]) is None


def test_compare_and_why_show_it(
    run: Callable[..., tuple[int, str, str]], tmp_path: Path, alter: Callable[..., Catalog]
) -> None:
    catalog, names = trial_of([2.0, 3.0, 1.0], alter)
    file = tmp_path / "mine.json"
    file.write_bytes(dump(catalog))
    code, out, _ = run("compare", names[0], names[2], "--catalog", str(file))
    text = " ".join(out.split())
    assert code == 0
    assert "rank 1 of 3; yours: 2.000, rank 2" in text
    assert "rank 3 of 3; yours: 1.000, rank 1" in text
    assert "-0.33 (n = 3)" in text
    assert names[1] not in text
    code, out, _ = run("why", names[0], "--catalog", str(file))
    text = " ".join(out.split())
    assert code == 0
    assert "rank 1 of 3; yours: 2.000, rank 2" in text
    assert "(n = 3)" in text
    answer = recommend(catalog=catalog, peft_version="any")
    everyone = [*answer.front, *answer.ties, *answer.dominated]
    assert {each.run.benchmark for each in everyone} == {"trial_own"}, "one benchmark a front"

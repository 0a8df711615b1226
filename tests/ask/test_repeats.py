"""Noise from repeats: closed forms, what was put in comes out, and who is set apart."""

from __future__ import annotations

import math
import random

import pytest

from peft_shop.ask.repeats import separated, two_way


def test_two_replicates_have_a_closed_form() -> None:
    # differences of 1 and 2 within one batch: the variance is their mean square over 2
    pairs = [(name, "b", value) for name, value in (("x", 5.0), ("x", 6.0), ("y", 0.0), ("y", 2.0))]
    fit = two_way(pairs)
    assert fit is not None
    assert fit.degrees == 2
    assert fit.sd == pytest.approx(math.sqrt((1**2 + 2**2) / 2 / 2))


def test_the_fit_recovers_noise_under_row_and_column_effects() -> None:
    rng = random.Random(4)
    rows = {f"e{i}": rng.gauss(0, 20) for i in range(80)}
    columns = {"a": 0.0, "b": 3.0, "c": -7.0}
    data = [
        (row, column, base + shift + rng.gauss(0, 0.5))
        for row, base in rows.items()
        for column, shift in columns.items()
        if rng.random() < 0.8
    ]
    fit = two_way(data)
    assert fit is not None
    # 95 % of estimates with so many degrees of freedom lie within 15 %
    assert fit.sd == pytest.approx(0.5, rel=0.15)


def test_nothing_repeated_gives_no_estimate() -> None:
    assert two_way([("x", "a", 1.0), ("y", "a", 2.0)]) is None
    assert two_way([("x", "a", 1.0), ("x", "b", 2.0)]) is None
    assert separated([("x", "a", 1.0), ("y", "a", 2.0)], ["m", "m"]).common is None


def repeated(
    rng: random.Random, sds: dict[str, float], recipes: int = 3, times: int = 3
) -> tuple[list[tuple[str, str, float]], list[str]]:
    data, kinds = [], []
    for method, sd in sds.items():
        for recipe in range(recipes):
            base = rng.uniform(0, 50)
            for day in range(times):
                data.append((f"{method}{recipe}", str(day), base + 2 * day + rng.gauss(0, sd)))
                kinds.append(method)
    return data, kinds


def test_a_method_that_is_noisier_is_set_apart_and_the_rest_is_what_it_was() -> None:
    rng = random.Random(2)
    data, kinds = repeated(rng, {**{f"m{i}": 0.5 for i in range(12)}, "wild": 4.0})
    found = separated(data, kinds)
    rest = [i for i, kind in enumerate(kinds) if kind != "wild"]
    alone = two_way([data[i] for i in rest])
    assert found.common is not None
    assert alone is not None
    assert set(found.own) == {"wild"}
    assert (found.common.sd, found.common.degrees) == (alone.sd, alone.degrees)
    assert found.common.used == tuple(rest)
    assert {kinds[i] for i in found.own["wild"].used} == {"wild"}
    # three recipes three times, the days known from the others
    assert found.own["wild"].degrees == 6
    assert found.own["wild"].sd == pytest.approx(4.0, rel=0.6)


def test_the_parts_add_up_to_the_whole() -> None:
    data, kinds = repeated(random.Random(3), {"a": 0.5, "b": 0.4, "c": 0.6, "wild": 6.0})
    found, whole = separated(data, kinds), two_way(data)
    assert whole is not None
    assert found.common is not None
    parts = [found.common, *found.own.values()]
    assert sum(one.degrees for one in parts) == whole.degrees
    assert sum(one.degrees * one.sd**2 for one in parts) == pytest.approx(
        whole.degrees * whole.sd**2
    )


def test_methods_that_are_alike_are_set_apart_in_one_of_a_hundred_cases() -> None:
    rounds, wrong = 150, 0
    for seed in range(rounds):
        data, kinds = repeated(random.Random(seed), {f"m{i}": 1.0 for i in range(5)}, 2, 3)
        wrong += bool(separated(data, kinds).own)
    assert wrong <= 5  # 1.5 expected; more than 5 in less than 1 of 200 cases

"""The noise estimate: recovers what was put in, and the committed figures are its output."""

from __future__ import annotations

import math
import random
from pathlib import Path

import pytest

from peft_shop.catalog.store import load
from peft_shop.curate.publish.noise_model import (
    chi_square_quantile,
    dump,
    estimate,
    read_reported,
    two_way,
)
from peft_shop.errors import CatalogError

DATA = Path(__file__).parents[2] / "data"


@pytest.mark.parametrize(
    ("probability", "degrees", "value"),
    # from published tables of the chi-square distribution
    [(0.025, 10, 3.247), (0.975, 10, 20.483), (0.025, 50, 32.357), (0.975, 50, 71.420)],
)
def test_chi_square_quantiles(probability: float, degrees: int, value: float) -> None:
    assert chi_square_quantile(probability, degrees) == pytest.approx(value, rel=1e-2)


def test_two_replicates_have_a_closed_form() -> None:
    # differences of 1, 2 and 3 within one batch: variance is their mean square over 2
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


def test_the_committed_figures_are_the_output() -> None:
    model = estimate(load(), read_reported(DATA / "noise_reported.toml"))
    assert (DATA / "noise.json").read_bytes() == dump(model)


def test_the_constants_agree_with_what_is_known() -> None:
    """Figures that were derived independently: 0.87 points sampled, -1.79 +- 0.15 for the shift."""
    model = estimate(load())
    sds = {(one.benchmark, one.metric, one.era): one for one in model.noise}
    sampled = sds["metamathqa", "test_accuracy", "sampled"]
    assert sampled.sd == pytest.approx(0.0087, abs=0.0005)
    assert sampled.low is not None
    assert sampled.high is not None
    assert sampled.low < sampled.sd < sampled.high
    assert sds["metamathqa", "test_accuracy", "greedy"].sd == pytest.approx(0.0070, abs=0.0008)
    (shift,) = model.era_shifts
    assert shift.shift == pytest.approx(-0.0179, abs=2 * shift.standard_error)
    assert shift.standard_error == pytest.approx(0.0015, abs=0.0004)
    assert all(one.benchmark == "metamathqa" for one in model.noise), "image_gen has no re-run"


def test_reported_noise_is_read_strictly(tmp_path: Path) -> None:
    assert read_reported(tmp_path / "none.toml") == ()
    broken = tmp_path / "noise.toml"
    broken.write_text('[[noise]]\nbenchmark = "image_gen"\nsd = -1\n', encoding="utf-8")
    with pytest.raises(CatalogError) as error:
        read_reported(broken)
    places = {problem.where for problem in error.value.problems}
    assert {"noise[0].metric", "noise[0].sd", "noise[0].method"} <= places
    broken.write_text("[[noise", encoding="utf-8")
    with pytest.raises(CatalogError, match="TOML"):
        read_reported(broken)

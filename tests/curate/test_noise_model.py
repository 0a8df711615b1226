"""The noise estimate: recovers what was put in, and the committed figures are its output."""

from __future__ import annotations

from pathlib import Path

import pytest

from peft_shop.catalog.store import load
from peft_shop.curate.publish.noise_model import dump, estimate, read_reported
from peft_shop.errors import CatalogError

DATA = Path(__file__).parents[2] / "data"


def test_the_committed_figures_are_the_output() -> None:
    model = estimate(load(), read_reported(DATA / "noise_reported.toml"))
    assert (DATA / "noise.json").read_bytes() == dump(model)


def test_the_constants_agree_with_what_is_known() -> None:
    """Figures that were derived independently: 0.87 points sampled, -1.79 +- 0.15 for the shift."""
    model = estimate(load())
    sds = {(one.benchmark, one.metric, one.era): one for one in model.noise if not one.methods}
    sampled = sds["metamathqa", "test_accuracy", "sampled"]
    assert sampled.sd == pytest.approx(0.0087, abs=0.0005)
    assert sampled.low is not None
    assert sampled.high is not None
    assert sampled.low < sampled.sd < sampled.high
    greedy = sds["metamathqa", "test_accuracy", "greedy"]
    assert greedy.sd == pytest.approx(0.0067, abs=0.0002)
    assert sds["metamathqa", "peak_memory", None].sd == pytest.approx(0.0125 * 2**30, rel=0.05)
    (own,) = [one for one in model.noise if one.methods and one.metric == "test_accuracy"]
    assert own.methods == ("prefix_tuning",)
    assert own.sd == pytest.approx(0.023, abs=0.007)
    (shift,) = model.era_shifts
    assert shift.shift == pytest.approx(-0.0179, abs=2 * shift.standard_error)
    assert shift.standard_error == pytest.approx(0.0015, abs=0.0004)
    assert {one.benchmark for one in model.noise} == {"metamathqa", "rlmath"}, "no image re-run"
    rl = sds["rlmath", "pass_at_1", None]
    assert (rl.sd, rl.degrees) == (pytest.approx(0.0085, abs=0.0001), 8)
    assert (rl.low, rl.high) == (pytest.approx(0.0057, abs=1e-4), pytest.approx(0.0162, abs=1e-4))


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

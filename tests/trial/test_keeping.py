"""Adapters that stay are those that were asked for, and what has their name is whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from peft_shop.errors import QueryError, UnknownNameError
from peft_shop.show.trials import status_document
from peft_shop.trial.engines import opened
from peft_shop.trial.keeping import ADAPTER, drop, drop_worse, keeps, kept
from peft_shop.trial.status import status_of

if TYPE_CHECKING:
    from pathlib import Path
    from types import SimpleNamespace


def adapter(folder: Path, name: str) -> Path:
    place = folder / "runs" / name / ADAPTER
    place.mkdir(parents=True)
    (place / "adapter_model.safetensors").write_bytes(b"weights")
    return place


def test_of_each_candidate_the_seed_with_the_best_validation_loss_stays(
    made: SimpleNamespace, tmp_path: Path
) -> None:
    protocol = made.protocol()
    results = made.carried_out(protocol, lambda job: 2.0 + (job.seed - 2) ** 2)
    seeds = [name for name, each in results.items() if each.job.stage == "seeds"]
    assert [name for name, each in results.items() if keeps("best", each.job)] == seeds
    assert all(keeps("all", each.job) for each in results.values())
    assert not any(keeps(None, each.job) for each in results.values())
    rate = next(name for name, each in results.items() if each.job.stage == "rates")
    adapter(tmp_path, rate)
    done = {}
    # whatever the order in which they end, the best so far is there
    for name in seeds:
        adapter(tmp_path, name)
        done[name] = results[name]
        drop_worse(tmp_path, done)
        for contestant in {each.job.contestant for each in done.values()}:
            own = [each for each in done.values() if each.job.contestant == contestant]
            best = min(own, key=lambda each: each.measured.valid_loss)
            assert [each.id for each in own if each.id in kept(tmp_path, done)] == [best.id]
    left = kept(tmp_path, results)
    assert {results[name].job.seed for name in left if name != rate} == {2}
    assert rate in left, "what was kept of the rates before is nobody's rival"
    status = status_of(protocol, results, adapters=left)
    assert status.adapters == tuple(f"runs/{name}/adapter" for name in left)
    shown = status_document(status).parts
    assert any(status.adapters[0] in str(part) for part in shown)


def test_what_is_taken_away_has_no_name_while_it_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = adapter(tmp_path, "run").parent
    # the process ends before anything is deleted
    monkeypatch.setattr("peft_shop.trial.keeping.shutil.rmtree", lambda *_, **__: None)
    drop(place)
    assert not (place / ADAPTER).exists()
    monkeypatch.undo()
    adapter(tmp_path, "run")
    drop(place)
    assert list(place.iterdir()) == []


def test_a_run_without_figures_keeps_nothing(made: SimpleNamespace, tmp_path: Path) -> None:
    protocol = made.protocol()
    results = made.carried_out(protocol, lambda job: None if job.stage == "rates" else 2.0)
    for name in results:
        adapter(tmp_path, name)
    assert [results[name].job.stage for name in kept(tmp_path, results)] == ["base"]


def test_what_cannot_be_kept_is_refused(made: SimpleNamespace, tmp_path: Path) -> None:
    protocol = made.protocol()
    with (
        pytest.raises(QueryError, match="a cluster brings results alone"),
        opened("ray", tmp_path, protocol, keep="best"),
    ):
        pass
    for engine in ("local", "ray"):
        with (
            pytest.raises(UnknownNameError, match="best"),
            opened(engine, tmp_path, protocol, keep="bset"),
        ):
            pass

"""A trial is a catalog like any other: its runs, its noise, and nothing of its texts."""

from __future__ import annotations

import itertools
import random
from typing import TYPE_CHECKING

import numpy as np
import pytest

from peft_shop import recommend
from peft_shop.ask.lookup import resolve_subjects
from peft_shop.ask.reading import build_query
from peft_shop.catalog.export import dump
from peft_shop.catalog.store import parse
from peft_shop.trial.evidence import catalog_of, without_paths
from peft_shop.trial.sampling import standard_error
from peft_shop.trial.status import status_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import SimpleNamespace

    from peft_shop.trial.records import Job


def losses(job: Job) -> float:
    """One best candidate, one best rate, and a little chance."""
    if job.stage == "base":
        return 6.0
    chance = random.Random(f"{job.contestant}{job.seed}").gauss(0, 0.01)
    method = {"lora/a": 2.0, "miss/b": 2.5, "vera/c": 3.0}[job.contestant]
    return method + (0.3 if job.learning_rate != 0.0003 else 0) + chance


def test_the_catalog_is_whole_and_does_not_depend_on_the_order(made: SimpleNamespace) -> None:
    protocol = made.protocol()
    results = made.carried_out(protocol, losses)
    catalog = catalog_of(protocol, results)
    assert parse(dump(catalog)) == catalog
    shuffled = list(results.items())
    random.Random(0).shuffle(shuffled)
    assert dump(catalog_of(protocol, dict(shuffled))) == dump(catalog)
    own = catalog.runs_by_benchmark["trial_made"]
    assert len(own) == 3 * 3 + 3 * 3
    assert {run.experiment for run in own if run.provenance.seed} == {"lora/a", "miss/b", "vera/c"}
    noise = next(each for each in catalog.noise if each.benchmark == "trial_made")
    assert (noise.metric, noise.degrees) == ("test_loss", 4)
    assert 0.003 < noise.sd < 0.03
    assert catalog.benchmarks[0].floor == 6.0


def test_the_order_of_candidates_changes_no_byte(made: SimpleNamespace) -> None:
    def catalog(names: tuple[str, ...], best: float) -> bytes:
        protocol = made.protocol(names)
        asked = protocol.asked.model_copy(update={"candidates": names})
        protocol = protocol.model_copy(update={"asked": asked})
        results = made.carried_out(
            protocol, lambda job: losses(job) + (job.learning_rate > best) * 0.3
        )
        return dump(catalog_of(protocol, results))

    names = ("lora/a", "miss/b", "vera/c")
    for best in (0.0, 0.0003):  # the best rate at an edge, which is told, and inside
        assert len({catalog(order, best) for order in itertools.permutations(names)}) == 1


def test_a_recipe_of_much_larger_variance_has_a_noise_of_its_own(made: SimpleNamespace) -> None:
    names = [f"lora/{letter}" for letter in "abcdef"]
    protocol = made.protocol(names, seeds=6)

    def wild(job: Job) -> float:
        draw = random.Random(f"{job.contestant}{job.learning_rate}{job.seed}")
        return 5.0 + draw.gauss(0, 0.5 if job.contestant == "lora/f" else 0.01)

    catalog = catalog_of(protocol, made.carried_out(protocol, wild))
    told = [each for each in catalog.noise if each.benchmark == "trial_made"]
    told = [each for each in told if each.metric == "test_loss"]
    assert [each.experiments for each in told] == [(), ("lora/f",)]
    assert told[0].sd < 0.03
    assert told[1].sd > 0.1


def test_the_error_of_a_mean_is_that_of_drawing_examples_again() -> None:
    draw = np.random.default_rng(0)
    counts = draw.integers(1, 30, 400)
    gaps = counts * 0.1 + draw.normal(0, 1, 400) * np.sqrt(counts)
    means = []
    for _ in range(3000):
        chosen = draw.integers(0, 400, 400)
        means.append(gaps[chosen].sum() / counts[chosen].sum())
    ours = standard_error(list(gaps), [int(count) for count in counts])
    assert ours == pytest.approx(np.std(means), rel=0.06)


def test_pairs_of_experiments_know_what_their_examples_add(made: SimpleNamespace) -> None:
    protocol = made.protocol()
    catalog = catalog_of(protocol, made.carried_out(protocol, losses))
    names = {run.experiment for run in catalog.runs_by_benchmark["trial_made"]}
    pairs = {(pair.a, pair.b) for pair in catalog.pairings if pair.metric == "test_loss"}
    assert len(pairs) == len(names) * (len(names) - 1) // 2
    # made examples all lose alike, so which of them were drawn does not matter
    assert max(pair.sd for pair in catalog.pairings) < 1e-9


def test_an_answer_from_a_trial_is_about_the_trial(made: SimpleNamespace) -> None:
    protocol = made.protocol()
    answer = recommend(
        catalog=catalog_of(protocol, made.carried_out(protocol, losses)), peft_version="any"
    )
    assert answer.benchmark.id == "trial_made"
    assert answer.query.objectives == ("test_loss", "forgetting")
    assert answer.best.method == "lora"


def test_the_run_that_chose_a_rate_is_no_rival_of_fresh_seeds(made: SimpleNamespace) -> None:
    protocol = made.protocol()
    catalog = catalog_of(protocol, made.carried_out(protocol, losses))
    flagged = {run.experiment for run in catalog.runs_by_benchmark["trial_made"] if run.flags}
    assert flagged == {f"{name}-lr0.0003" for name in ("lora/a", "miss/b", "vera/c")}
    answer = recommend(catalog=catalog, peft_version="any")
    ranked = {each.name for each in (*answer.front, *answer.ties, *answer.dominated)}
    assert not flagged & ranked
    assert not flagged & {each.name for each in answer.baselines}
    query = build_query(catalog)
    subjects = resolve_subjects(catalog, query, ["lora", "miss"])
    assert [subject.name for subject in subjects] == ["lora/a", "miss/b"]
    part = made.carried_out(protocol, losses, most=10)  # the sweep, before any fresh seed
    runs = catalog_of(protocol, part).runs_by_benchmark["trial_made"]
    assert not any(run.flags for run in runs)


def test_a_picture_has_a_dot_for_every_replicate_and_error_bars(made: SimpleNamespace) -> None:
    pytest.importorskip("matplotlib")
    protocol = made.protocol()
    answer = recommend(
        catalog=catalog_of(protocol, made.carried_out(protocol, losses)), peft_version="any"
    )
    ax = answer.plot()
    dots = [
        tuple(point)
        for each in ax.collections
        if each.get_gid() == "replicates"
        for point in each.get_offsets()
    ]
    members = [run for run in answer.catalog.runs if run.id in answer.best.replicates]
    assert len(members) == 3
    for run in members:
        at = (run.metrics["forgetting"], run.metrics["test_loss"])
        assert any(dot == pytest.approx(at) for dot in dots)
    bars = [each for each in ax.containers if each.has_yerr]
    assert bars, "the mean's standard deviation is drawn"


def test_what_is_missing_is_told(made: SimpleNamespace) -> None:
    protocol = made.protocol()
    results = made.carried_out(
        protocol, lambda job: None if job.contestant == "vera/c" else losses(job)
    )
    told = " ".join(catalog_of(protocol, results).benchmarks[0].caveats)
    assert "diverged: runs of vera/c" in told
    assert "not complete" not in told
    part = dict(list(results.items())[:5])
    assert "not complete" in " ".join(catalog_of(protocol, part).benchmarks[0].caveats)


def test_what_is_given_away_has_no_paths(made: SimpleNamespace) -> None:
    protocol = made.protocol()
    catalog = catalog_of(protocol, made.carried_out(protocol, losses))
    given_away = without_paths(catalog)
    own = [run for run in given_away.runs if run.benchmark == "trial_made"]
    assert own
    for run in own:
        assert "/" not in run.recipe.training.model_id
        assert "/" not in run.recipe.training.options["train_file"]
    assert "/" not in given_away.benchmarks[0].model_id


def test_a_private_catalog_is_written_for_nobody_else(
    made: SimpleNamespace, tmp_path: Path, run: Callable[..., tuple[int, str, str]]
) -> None:
    protocol = made.protocol()
    catalog = catalog_of(protocol, made.carried_out(protocol, losses))
    own, shared = tmp_path / "own.json", tmp_path / "shared.json"
    own.write_bytes(dump(catalog))
    shared.write_bytes(dump(without_paths(catalog)))
    for command in (
        ("catalog", "export", "--table", "runs", "-o", str(tmp_path / "runs.json")),
        ("site", "--single", "-o", str(tmp_path / "page.html")),
    ):
        code, _, told = run(*command, "--catalog", str(own))
        assert code == 2
        assert "trial export" in told
    assert run("catalog", "export", "--table", "runs", "--catalog", str(shared))[0] == 0


@pytest.mark.parametrize("device", ["cpu", "NVIDIA H100"])
def test_where_runs_shared_an_accelerator_memory_and_time_are_absent(
    made: SimpleNamespace, device: str
) -> None:
    protocol = made.protocol().model_copy(update={"device": device})
    results = made.carried_out(protocol, lambda job: 2.0 + job.seed / 100)
    costs = {"cpu_seconds", "step_seconds", "peak_memory_bytes", "eval_peak_memory_bytes"}
    alone = catalog_of(protocol, results)
    assert all(costs & set(run.metrics) for run in alone.runs_by_benchmark[protocol.benchmark])
    # of none, since figures of some would leave the others out of a question about them
    name = max(results)
    results[name] = results[name].model_copy(update={"shared": True})
    spoiled = catalog_of(protocol, results)
    runs = spoiled.runs_by_benchmark[protocol.benchmark]
    assert len(runs) == len(alone.runs_by_benchmark[protocol.benchmark])
    assert not any(costs & set(run.metrics) for run in runs)
    gone = {spoiled.metric_by_id[each].field for each in spoiled.benchmarks[0].metrics}
    assert not costs & gone
    note = "several runs at the same time (--share): memory and time are no metrics of this trial"
    assert note in spoiled.benchmarks[0].caveats
    assert note in status_of(protocol, results).notes
    answer = recommend(catalog=spoiled, peft_version="any")
    assert note in " ".join(str(answer).split())
    # how the trial is named does not change
    assert spoiled.benchmarks[0].protocol == alone.benchmarks[0].protocol

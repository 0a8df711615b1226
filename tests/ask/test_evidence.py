"""Which runs a question is about and which of their figures count, on the real evidence."""

from __future__ import annotations

import math
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peft_shop import load_catalog, recommend
from peft_shop.ask.contenders import Contender, Field, field_of_play, in_snapshot, newest_snapshot
from peft_shop.ask.reading import build_query
from peft_shop.catalog.features import FULL_FINETUNING
from peft_shop.catalog.runs import Flag, Run

if TYPE_CHECKING:
    from collections.abc import Callable

    from peft_shop.catalog.catalog import Catalog

CATALOG = load_catalog()
RSLORA = "lora/llama-3.2-3B-rank64-rslora"
CHECKPOINTED = "adaptionprompt/llama-3.2-3B-lr_5e-3"
A100 = "NVIDIA A100 80GB PCIe"
MEMORY_AND_TIME = {metric.id for metric in CATALOG.metrics if metric.scope in {"memory", "time"}}


def field(catalog: Catalog = CATALOG, **options: Any) -> Field:
    return field_of_play(catalog, build_query(catalog, **options))


def contenders(catalog: Catalog = CATALOG, **options: Any) -> dict[str, Contender]:
    return {one.name: one for one in field(catalog, **options).contenders}


def runs_of(experiment: str, **wanted: Any) -> list[Run]:
    return [
        run
        for run in CATALOG.runs
        if run.experiment == experiment
        and all(getattr(run, name) == value for name, value in wanted.items())
    ]


# --- who stands for selection ---


def test_the_newest_snapshot_is_the_latest_that_has_a_run() -> None:
    for benchmark in CATALOG.benchmarks:
        runs = CATALOG.runs_by_benchmark[benchmark.id]
        dates = {
            snap.date for snap in CATALOG.snapshots for run in runs if snap.id in run.snapshots
        }
        newest = newest_snapshot(CATALOG, benchmark.id)
        assert {snap.date for snap in CATALOG.snapshots if snap.id == newest} == {max(dates)}


def test_without_snapshots_all_runs_stand(alter: Callable[..., Catalog]) -> None:
    loose = tuple(run.model_copy(update={"snapshots": ()}) for run in CATALOG.runs)
    catalog = alter(CATALOG, runs=loose)
    assert newest_snapshot(catalog, "image_gen") is None
    names = {one.name for one in field(catalog, benchmark="image_gen").contenders if one.run}
    runs = CATALOG.runs_by_benchmark["image_gen"]
    assert len(names) == sum(run.method != FULL_FINETUNING for run in runs)


def test_full_finetuning_is_a_baseline_and_methods_without_runs_stand() -> None:
    found = field(benchmark="image_gen")
    assert [one.method for one in found.baselines] == [FULL_FINETUNING]
    measured = {one.method for one in found.contenders if one.run}
    assert {one.method for one in found.contenders} == {method.id for method in CATALOG.methods}
    assert all(one.values == {} for one in found.contenders if one.method not in measured)


def test_an_experiment_that_stands_several_times_goes_by_its_runs() -> None:
    found = contenders(snapshot="all")
    several = runs_of(RSLORA)
    assert len(several) > 1
    assert {run.id for run in several} <= set(found)
    assert RSLORA not in found
    assert RSLORA in contenders()


# --- figures ---


@pytest.mark.parametrize("benchmark", ["metamathqa", "image_gen"])
def test_figures_are_those_on_file_and_every_gap_has_a_reason(benchmark: str) -> None:
    metrics = CATALOG.benchmark_by_id[benchmark].metrics
    for snapshot in {
        name for run in CATALOG.runs_by_benchmark[benchmark] for name in run.snapshots
    }:
        for one in contenders(benchmark=benchmark, snapshot=snapshot).values():
            if one.run is None:
                continue
            assert set(one.values) | set(one.unusable) == set(metrics)
            assert not set(one.values) & set(one.unusable)
            for name, value in one.values.items():
                assert value == one.run.metrics[CATALOG.metric_by_id[name].field]
                assert math.isfinite(value)
            assert all(one.unusable.values())


def test_a_stand_in_gives_its_reason() -> None:
    one = contenders(benchmark="image_gen")["randlora/flux2-klein-default"]
    assert "checkpoint_bytes = 99999999" in one.unusable["checkpoint_size"]
    assert "trainable_parameters" in one.values


def test_counts_that_were_not_recorded_are_missing() -> None:
    one = contenders(snapshot="2025-06-19")[RSLORA]
    assert one.unusable["trainable_parameters"] == "not measured"


def test_forgetting_of_older_definitions_is_kept_and_never_ranked() -> None:
    for snapshot in ("2026-01-13", "2026-06-10"):
        for one in contenders(snapshot=snapshot, era="any").values():
            if one.run is None:
                continue
            assert "forgetting" not in one.values
            assert "older definition" in one.unusable["forgetting"]
            assert "forgetting_2026_01" in one.values
    one = contenders(snapshot="2025-06-19")[RSLORA]
    assert one.unusable["forgetting"] == "not measured"
    newest = [one for one in contenders().values() if one.run]
    assert all("forgetting" in one.values for one in newest)


# --- the environment ---


def test_a_run_under_other_settings_is_not_compared_at_all() -> None:
    one = contenders(snapshot="2026-07-20")[CHECKPOINTED]
    assert one.values == {}
    memory = one.unusable["peak_memory"]
    assert memory == (
        "measured under other conditions "
        "(gradient checkpointing True instead of False, length 512 instead of 768)"
    )
    assert "generation_kwargs" in one.unusable["test_accuracy"]


def test_runs_on_other_hardware_keep_their_scores() -> None:
    found = contenders(snapshot="all", methods="shadow")
    for name in ("shadow/llama-3.2-3B-default", "shadow/llama-3.2-3B-tuned"):
        one = found[name]
        assert not MEMORY_AND_TIME & set(one.values)
        for metric in MEMORY_AND_TIME & set(one.unusable):
            assert f"accelerator {A100} instead of NVIDIA L40S" in one.unusable[metric]
        assert {"test_accuracy", "forgetting", "trainable_parameters"} <= set(one.values)


def test_a_named_accelerator_turns_the_tables() -> None:
    found = contenders(snapshot="all", accelerator=A100)
    for one in found.values():
        if one.run is None:
            continue
        here = one.run.provenance.accelerator == A100
        assert ("peak_memory" in one.values) == here
        if not here:
            assert f"accelerator NVIDIA L40S instead of {A100}" in one.unusable["peak_memory"]


def test_a_flag_knows_settings_that_the_environment_does_not(
    alter: Callable[..., Catalog],
) -> None:
    flag = Flag(code="environment", metrics=("peak_memory_bytes",), reason="batch_size_eval is 64.")
    flagged = [
        run.model_copy(update={"flags": (flag,)}) if run.experiment == RSLORA else run
        for run in CATALOG.runs
    ]
    one = contenders(alter(CATALOG, runs=tuple(flagged)))[RSLORA]
    assert one.unusable["peak_memory"] == "batch_size_eval is 64."
    assert "average_memory" in one.values


def test_settings_that_all_runs_share_are_the_usual_ones(alter: Callable[..., Catalog]) -> None:
    flag = Flag(code="environment", reason="max_seq_length 512 instead of 768.")
    own = tuple(run.model_copy(update={"flags": (flag,)}) for run in CATALOG.runs)
    found = contenders(alter(CATALOG, runs=own))
    assert found[RSLORA].values == contenders()[RSLORA].values


# --- eras ---


def test_every_experiment_that_learned_something_scored_lower_after_the_change() -> None:
    floor = CATALOG.benchmark_by_id["metamathqa"].floor
    shifts = []
    for name in {run.experiment for run in CATALOG.runs_by_benchmark["metamathqa"]}:
        greedy = sorted(runs_of(name, era="greedy"), key=lambda run: run.created_at)
        sampled = sorted(runs_of(name, era="sampled"), key=lambda run: run.created_at)
        if greedy and sampled:
            last, first = greedy[-1].metrics["test_accuracy"], sampled[0].metrics["test_accuracy"]
            if min(last, first) >= floor:
                shifts.append(first - last)
    assert len(shifts) == 34
    assert max(shifts) < 0
    (known,) = CATALOG.era_shifts
    error = stdev(shifts) / len(shifts) ** 0.5
    assert fmean(shifts) == pytest.approx(-0.0179, abs=2 * 0.0015)
    # the catalog leaves out what was implemented anew in between
    assert known.shift == pytest.approx(fmean(shifts), abs=2 * math.hypot(error, 0.0015))


def test_shifted_scores_move_the_older_era_only_and_say_so() -> None:
    plain = contenders(snapshot="2026-06-10", era="any")
    moved = contenders(snapshot="2026-06-10", era="shifted")
    (known,) = CATALOG.era_shifts
    eras = set()
    for name, one in moved.items():
        if one.run is None:
            continue
        eras.add(one.run.era)
        before = plain[name].values
        if one.run.era == "sampled":
            assert one.values == before
            assert one.notes == ()
            continue
        want = max(0.0, before["test_accuracy"] + known.shift)
        assert one.values["test_accuracy"] == pytest.approx(want, abs=1e-12)
        assert one.values | {"test_accuracy": 0} == before | {"test_accuracy": 0}
        (note,) = one.notes
        assert f"shifted by {known.shift:+.4f}" in note
        assert f"{known.standard_error:.4f}" in note
    assert eras == {"greedy", "sampled"}


def test_a_share_never_leaves_its_range() -> None:
    for one in contenders(snapshot="2026-06-10", era="shifted").values():
        if one.run:
            assert 0 <= one.values["test_accuracy"] <= 1


def test_mixed_eras_are_announced() -> None:
    (known,) = CATALOG.era_shifts
    for era, part in [
        (None, "only sampled decoding"),
        ("greedy", "only greedy decoding"),
        ("any", "because you asked for it"),
        ("shifted", "older scores are shifted by that much"),
    ]:
        (text,) = field(snapshot="2026-06-10", era=era).warnings
        assert "mixes runs whose scores are not comparable: 37 greedy" in text
        assert "14 sampled" in text
        assert f"{100 * known.shift:+.2f} +- {100 * known.standard_error:.2f} points" in text
        assert f"({known.pairs} pairs)" in text
        assert part in text
    assert field().warnings == ()
    assert field(benchmark="image_gen").warnings == ()


# --- noise ---


def test_noisy_figures_carry_the_deviation_of_their_era() -> None:
    scored = [
        item
        for item in CATALOG.noise
        if (item.benchmark, item.metric) == ("metamathqa", "test_accuracy")
    ]
    known = {item.era: item.sd for item in scored if not item.methods}
    own = {item.methods: item.sd for item in scored if item.methods}
    assert set(known) == {"greedy", "sampled"}
    assert set(own) == {("prefix_tuning",)}
    for one in contenders(snapshot="2026-06-10", era="any").values():
        if one.run is None:
            continue
        # what is unsteady in one era is not taken for steady in the other
        want = own.get((one.method,), known[one.run.era])
        share = one.values["test_accuracy"]
        assert one.rerun_sds["test_accuracy"] == want
        assert one.sds["test_accuracy"] == pytest.approx(
            math.hypot(want, math.sqrt(share * (1 - share) / 1319)),
            rel=0.02 if share < 0.02 else 1e-9,
        )
        # near-exact figures have a width within which they are equal instead
        assert not MEMORY_AND_TIME & set(one.sds)


def test_a_relative_deviation_is_a_share_of_the_figure(alter: Callable[..., Catalog]) -> None:
    (item, *_) = [one for one in CATALOG.noise if one.metric == "train_loss" and not one.methods]
    relative = item.model_copy(update={"relative": True, "sd": 0.1, "era": None})
    catalog = alter(CATALOG, noise=(relative,))
    for one in contenders(catalog, benchmark=item.benchmark).values():
        if one.run:
            assert one.rerun_sds["train_loss"] == pytest.approx(0.1 * one.values["train_loss"])
            assert one.sds["train_loss"] == one.rerun_sds["train_loss"]


# --- pooling ---


def test_pooled_figures_are_means_of_all_runs_of_the_recipe_with_their_standard_error() -> None:
    pooled = contenders(snapshot="2026-01-13", evidence="pooled")
    alone = contenders(snapshot="2026-01-13")
    sizes = set()
    for name, one in pooled.items():
        if one.run is None:
            continue
        same = [
            run
            for run in runs_of(one.run.experiment, era=one.run.era)
            if (
                run.recipe.config == one.run.recipe.config
                and run.recipe.training == one.run.recipe.training
                and min(run.snapshots) <= "2026-01-13"
                and not any(flag.code in {"artefact", "broken_config"} for flag in run.flags)
            )
            or run is one.run
        ]
        sizes.add(len(same))
        assert one.pooled == len(same)
        for metric in ("test_accuracy", "peak_memory", "train_time"):
            if metric in one.unusable:
                continue
            field_name = CATALOG.metric_by_id[metric].field
            figures = [run.metrics[field_name] for run in same]
            assert one.values[metric] == pytest.approx(fmean(figures), rel=1e-12)
        want = alone[name].rerun_sds["test_accuracy"] / len(same) ** 0.5
        assert one.rerun_sds["test_accuracy"] == pytest.approx(want)
        noted = f"mean of {len(same)} runs of the same recipe"
        assert (noted in one.notes) == (len(same) > 1)
    assert max(sizes) >= 3


def test_the_mean_counts_only_runs_that_have_the_figure() -> None:
    # the first runs did not record parameters
    first = contenders(snapshot="2025-06-19", evidence="pooled")[RSLORA]
    assert first.unusable["trainable_parameters"] == "not measured"
    later = contenders(snapshot="2026-01-13", evidence="pooled")[RSLORA]
    assert later.pooled > 1
    assert later.values["trainable_parameters"] == 18_350_080


@pytest.mark.parametrize("until", ["2025-06-19", "2025-09-25", "2026-06-10", "2026-07-28"])
def test_no_pool_looks_past_the_snapshot(alter: Callable[..., Catalog], until: str) -> None:
    known = tuple(
        run
        for run in CATALOG.runs
        if min((*run.snapshots, *(() if run.snapshots else (run.created_at[:10],)))) <= until
    )
    assert len(known) < len(CATALOG.runs)
    whole = contenders(snapshot=until, evidence="pooled")
    then = contenders(alter(CATALOG, runs=known), snapshot=until, evidence="pooled")
    assert {name: one.values for name, one in whole.items() if one.run} == {
        name: one.values for name, one in then.items() if one.run
    }


def test_a_shifted_pool_holds_runs_of_all_eras() -> None:
    (known,) = CATALOG.era_shifts
    one = contenders(era="shifted", evidence="pooled")[RSLORA]
    assert one.pooled > contenders(evidence="pooled")[RSLORA].pooled
    same = [
        run
        for run in runs_of(RSLORA)
        if one.run is not None
        and run.recipe.config == one.run.recipe.config
        and run.recipe.training == one.run.recipe.training
    ]
    scores = [
        run.metrics["test_accuracy"] + (known.shift if run.era == known.older else 0.0)
        for run in same
    ]
    assert one.values["test_accuracy"] == pytest.approx(fmean(scores), rel=1e-12)
    assert any("is shown shifted" in note for note in one.notes)


def test_flagged_runs_and_other_eras_are_not_pooled() -> None:
    name = "lora/llama-3.2-3B-rank32-lorafa"
    earlier = contenders(snapshot="2026-01-13", evidence="pooled")[name]
    greedy = runs_of(name, era="greedy")
    assert earlier.pooled == len(greedy)
    assert earlier.values["peak_memory"] < 19 * 2**30
    newest = contenders(evidence="pooled")[name]
    assert newest.pooled == len(runs_of(name, era="sampled")) == 1


@given(st.lists(st.floats(0.2, 0.6), min_size=1, max_size=8), st.randoms(use_true_random=False))
@settings(max_examples=25, deadline=None, derandomize=True)
def test_pooling_has_a_closed_form_and_no_order(
    alter: Callable[..., Catalog], scores: list[float], random: Any
) -> None:
    (model,) = [run for run in runs_of(RSLORA) if in_snapshot(run, "2026-09-16")]
    (sd,) = [
        item.sd
        for item in CATALOG.noise
        if (item.metric, item.era, item.methods) == ("test_accuracy", "sampled", ())
    ]
    again = [
        model.model_copy(
            update={
                "created_at": f"2026-10-{day + 1:02}T00:00:00Z",
                "snapshots": ("2026-09-16",) if day == 0 else (),
                "metrics": model.metrics | {"test_accuracy": score},
            }
        )
        for day, score in enumerate(scores)
    ]
    random.shuffle(again)
    others = [run for run in CATALOG.runs if run.experiment != RSLORA]
    one = contenders(alter(CATALOG, runs=(*others, *again)), evidence="pooled")[RSLORA]
    assert one.values["test_accuracy"] == math.fsum(scores) / len(scores)
    assert one.rerun_sds["test_accuracy"] == pytest.approx(sd / len(scores) ** 0.5)


# --- flags and eras act only where a question asks for what they are about ---


def test_a_flag_that_names_metrics_drops_only_from_questions_about_them() -> None:
    name = "lora/llama-3.2-3B-rank32-lorafa"

    def flagged(**options: Any) -> set[str]:
        found = recommend(peft_version="any", floor=0, **options)
        return {
            one.name
            for one in found.dropped
            if "flagged" in {failure.constraint for failure in one.failures}
        }

    assert name in flagged()
    assert name in flagged(objectives="test_accuracy", max_average_memory="30GiB")
    assert name in flagged(objectives="test_accuracy", rank_by="p99_memory")
    time = ["test_accuracy", "train_time"]
    assert name not in flagged(objectives=time)
    # a flag without metrics is about the whole run
    assert flagged(objectives=time) == flagged() - {name}
    assert name not in flagged(objectives=time, include_flagged=True)


def test_the_era_filter_acts_where_a_score_is_compared() -> None:
    sizes = ["peak_memory", "checkpoint_size"]

    def late(**options: Any) -> int:
        found = recommend(snapshot="2026-06-10", peft_version="any", **options)
        return sum(
            "era" in {failure.constraint for failure in one.failures} for one in found.dropped
        )

    assert late() > 30
    assert late(objectives=sizes, min_test_accuracy="20%") > 30
    assert late(objectives=sizes) == 0
    assert len(recommend(objectives=sizes, snapshot="2026-06-10", peft_version="any").front) > 0

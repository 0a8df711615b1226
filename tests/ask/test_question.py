"""Every option is read as documented, and every mistake is told in words that help."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peft_shop import any_of, load_catalog, recommend
from peft_shop.ask.picks import resolve_methods
from peft_shop.ask.query import Bound, Query, Requirement
from peft_shop.ask.reading import (
    build_query,
    resolve_benchmark,
    resolve_metric,
)
from peft_shop.ask.requirements import AnyOf
from peft_shop.catalog.features import EVIDENCE_LEVELS, FEATURES
from peft_shop.errors import InputError, PeftShopError, QuantityError, QueryError, UnknownNameError
from peft_shop.units import format_quantity

if TYPE_CHECKING:
    from collections.abc import Callable

    from peft_shop.catalog.catalog import Catalog

CATALOG = load_catalog()
TEXT = CATALOG.benchmark_by_id["metamathqa"]
IMAGE = CATALOG.benchmark_by_id["image_gen"]


def ask(**options: Any) -> Query:
    return build_query(CATALOG, **options)


def refused(kind: type[PeftShopError], **options: Any) -> str:
    """Message of the refusal of `recommend`; its class must be exactly `kind`."""
    with pytest.raises(PeftShopError) as caught:
        recommend(**{"peft_version": "any", **options})
    assert type(caught.value) is kind
    return str(caught.value)


# --- defaults ---


def test_without_a_word_every_default_is_filled_in() -> None:
    assert ask() == Query(
        benchmark="metamathqa",
        snapshot="2026-09-16",
        era="sampled",
        objectives=("test_accuracy", "peak_memory"),
        floor=0.1,
        certainty="questions",
    )
    assert ask(benchmark="image_gen") == Query(
        benchmark="image_gen",
        snapshot="2026-09-16",
        objectives=("dino_similarity", "peak_memory"),
        floor=0.4,
    )


def test_a_benchmark_that_never_measured_memory_has_one_default_objective(
    alter: Callable[..., Catalog],
) -> None:
    names = tuple(name for name in TEXT.metrics if name != "peak_memory")
    others = [benchmark for benchmark in CATALOG.benchmarks if benchmark is not TEXT]
    catalog = alter(CATALOG, benchmarks=(TEXT.model_copy(update={"metrics": names}), *others))
    assert build_query(catalog).objectives == ("test_accuracy",)


# --- names ---


@pytest.mark.parametrize("name", ["image_gen", "image-gen", "Image-Gen", " IMAGE GEN "])
def test_benchmarks_go_by_any_spelling(name: str) -> None:
    assert resolve_benchmark(CATALOG, name) is IMAGE


def test_a_misspelt_benchmark_names_the_nearest() -> None:
    text = refused(UnknownNameError, benchmark="metamatqa")
    assert text == "unknown benchmark 'metamatqa'; did you mean 'metamathqa'?"
    assert "valid are: metamathqa, image_gen" in refused(UnknownNameError, benchmark="")
    assert "benchmark: expected a name" in refused(QueryError, benchmark=Path("catalog.json"))


@pytest.mark.parametrize(
    ("name", "metric"),
    [
        ("peak_memory", "peak_memory"),
        ("Peak-Memory", "peak_memory"),
        ("peak_memory_bytes", "peak_memory"),
        ("headline", "test_accuracy"),
        ("train_seconds", "train_time"),
    ],
)
def test_metrics_go_by_id_field_and_headline(name: str, metric: str) -> None:
    assert resolve_metric(CATALOG, TEXT, name).id == metric


def test_a_misspelt_metric_names_the_nearest() -> None:
    text = refused(UnknownNameError, objectives=["peak_memry"])
    assert text.startswith("unknown metric of metamathqa 'peak_memry'; did you mean 'peak_memory'")


def test_a_metric_of_another_benchmark_says_whose_it_is() -> None:
    assert "(drift belongs to image_gen)" in refused(UnknownNameError, objectives="drift")
    text = refused(UnknownNameError, benchmark="image_gen", max_forgetting=0.1)
    assert "(forgetting belongs to metamathqa)" in text


@pytest.mark.parametrize("retired", ["forgetting_2025", "forgetting_2026_01"])
@pytest.mark.parametrize("option", ["objectives", "rank_by", "max"])
def test_a_retired_metric_is_refused_with_its_reason(retired: str, option: str) -> None:
    options: dict[str, Any] = {f"max_{retired}": 1} if option == "max" else {option: retired}
    text = refused(QueryError, **options)
    assert text.startswith(f"{retired} cannot be ranked or bounded: ")
    assert str(CATALOG.metric_by_id[retired].retired) in text


def test_a_retired_metric_is_never_suggested() -> None:
    for options in ({"objectives": "forgeting_2025"}, {"rank_by": "forgeting_2025"}):
        text = refused(UnknownNameError, **options)
        assert "did you mean 'forgetting'?" in text


@pytest.mark.parametrize(
    ("written", "chosen"),
    [
        ("peak_memory", ("peak_memory",)),
        ("test_accuracy,peak_memory", ("test_accuracy", "peak_memory")),
        ("peak_memory  train_loss", ("peak_memory", "train_loss")),
        (["headline", "test_accuracy", "peak_memory"], ("test_accuracy", "peak_memory")),
        (("train_loss",), ("train_loss",)),
        ((name for name in ["tokens_seen"]), ("tokens_seen",)),
    ],
)
def test_objectives_are_lists_or_text(written: Any, chosen: tuple[str, ...]) -> None:
    assert ask(objectives=written).objectives == chosen


@pytest.mark.parametrize("nothing", ["", " ,", [], ()])
def test_no_objective_is_refused(nothing: Any) -> None:
    assert refused(QueryError, objectives=nothing) == "at least one objective is needed"


@pytest.mark.parametrize("wrong", [5, [5], {"peak_memory": 1}, [None], any_of("peak_memory")])
def test_objectives_of_another_kind_are_refused(wrong: Any) -> None:
    assert "objectives" in refused(QueryError, objectives=wrong)


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("lora", "lora"),
        ("LoRA", "lora"),
        ("LoraConfig", "lora"),
        ("adaption-prompt", "adaption_prompt"),
        ("OFT", "oft"),
        ("IA3Config", "ia3"),
    ],
)
def test_methods_go_by_id_title_and_class(name: str, method: str) -> None:
    assert resolve_methods(CATALOG, name, "methods") == (method,)


def test_every_alias_leads_to_a_method() -> None:
    for method in CATALOG.methods:
        for alias in method.aliases:
            assert len(resolve_methods(CATALOG, alias, "methods")) == 1


def test_methods_are_named_once_whatever_is_written() -> None:
    query = ask(methods=["LoRA", "lora", "oft"], exclude=any_of("IA3"))
    assert query.methods == ("lora", "oft")
    assert query.exclude == ("ia3",)
    assert ask(methods=[], exclude=None).methods == ()


@pytest.mark.parametrize("option", ["methods", "exclude"])
def test_a_misspelt_method_names_the_nearest(option: str) -> None:
    text = refused(UnknownNameError, **{option: "lroa"})
    assert text.startswith("unknown method 'lroa'; did you mean ")
    assert "'lora'" in text
    assert "peft-shop methods" in text


# --- when ---


def test_snapshots() -> None:
    assert ask(snapshot="2026-06-10").snapshot == "2026-06-10"
    assert ask(snapshot="all").snapshot == "all"
    text = refused(UnknownNameError, snapshot="2026-06-11")
    assert text.startswith("unknown snapshot of metamathqa '2026-06-11'; did you mean '2026-06-10'")


def test_a_snapshot_without_runs_of_the_benchmark_is_unknown_to_it() -> None:
    assert "2025-06-19" in {snapshot.id for snapshot in CATALOG.snapshots}
    text = refused(UnknownNameError, benchmark="image_gen", snapshot="2025-06-19")
    assert text.startswith("unknown snapshot of image_gen")


@pytest.mark.parametrize(
    ("snapshot", "asked", "era"),
    [
        ("2026-06-10", None, "sampled"),
        ("2026-01-13", None, "greedy"),
        ("all", None, "sampled"),
        ("2026-06-10", "greedy", "greedy"),
        ("2026-06-10", "any", "any"),
        ("2026-06-10", "shifted", "shifted"),
    ],
)
def test_the_newest_era_of_the_snapshot_is_the_default(
    snapshot: str, asked: str | None, era: str
) -> None:
    assert ask(snapshot=snapshot, era=asked).era == era


def test_a_benchmark_without_eras_has_none() -> None:
    assert ask(benchmark="image_gen", era="any").era is None
    assert "valid are: any" in refused(UnknownNameError, benchmark="image_gen", era="greedy")


def test_a_misspelt_era_names_the_nearest() -> None:
    text = refused(UnknownNameError, era="gredy")
    assert text == "unknown era of metamathqa 'gredy'; did you mean 'greedy'?"


def test_kinds_of_evidence() -> None:
    assert ask(evidence="pooled").evidence == "pooled"
    assert refused(UnknownNameError, evidence="pool").endswith("did you mean 'pooled'?")
    for level in EVIDENCE_LEVELS:
        assert ask(min_evidence=level).min_evidence == level
    text = refused(UnknownNameError, min_evidence="trainned")
    assert text.startswith("unknown evidence level 'trainned'; did you mean 'trained'")


# --- accelerators ---


def test_an_accelerator_goes_by_its_name() -> None:
    assert ask(accelerator="nvidia l40s").accelerator == "NVIDIA L40S"
    a100 = "NVIDIA A100 80GB PCIe"
    assert ask(accelerator=a100, snapshot="all").accelerator == a100


def test_an_unknown_accelerator_is_refused() -> None:
    text = refused(UnknownNameError, accelerator="L40")
    assert text == "unknown accelerator of metamathqa 'L40'; did you mean 'NVIDIA L40S'?"


def test_an_accelerator_without_runs_in_the_snapshot_says_where_it_has_some() -> None:
    text = refused(UnknownNameError, accelerator="NVIDIA A100 80GB PCIe")
    assert "has runs with snapshot='all' only" in text


# --- capabilities ---


def requirement(**demand: Any) -> Requirement:
    (found,) = ask(demands=demand).requirements
    return found


@pytest.mark.parametrize(
    ("given", "value"),
    [(True, "yes"), ("yes", "yes"), (False, "no"), ("no", "no"), ("partial", "partial")],
)
def test_single_capabilities(given: object, value: str) -> None:
    assert requirement(merging=given) == Requirement(name="merging", values=(value,))


@pytest.mark.parametrize("wrong", ["maybe", 1.5, ["yes"], any_of("yes"), "True"])
def test_another_kind_of_demand_is_refused(wrong: Any) -> None:
    assert refused(QueryError, merging=wrong).startswith("merging: expected True (yes), 'partial'")


def test_every_feature_can_be_demanded_and_reaches_the_query() -> None:
    for feature in FEATURES:
        name, value = (feature.group, feature.title) if feature.group else (feature.id, True)
        options: dict[str, Any] = {name: value}
        query = recommend(peft_version="any", **options).query
        assert query.requirements == (
            Requirement(name=name, values=(feature.title if feature.group else "yes",)),
        )


def test_groups_take_a_name_a_list_or_any_of() -> None:
    assert requirement(quantization="bnb-4bit").values == ("bnb_4bit",)
    both = requirement(quantization=["gptq", "AWQ", "gptq"])
    assert both == Requirement(name="quantization", values=("gptq", "awq"))
    one = requirement(quantization=any_of("gptq", "awq", "GPTQ"))
    assert one == Requirement(name="quantization", values=("gptq", "awq"), mode="any")
    assert ask(demands={"quantization": [], "merging": None}).requirements == ()


@pytest.mark.parametrize(
    ("option", "value", "kind", "nearest"),
    [
        ("quantization", "bnb4bit", "quantization", "'bnb_4bit'"),
        ("layer_types", "conv4d", "layer type", "'conv3d'"),
        ("category", "adaptor", "category", "'adapter'"),
        ("family", "lowrank", "family", "'low_rank'"),
        ("task_types", "CAUSALLM", "task type", "'CAUSAL_LM'"),
        ("options", "rank_patern", "option", "'rank_pattern'"),
    ],
)
def test_a_misspelt_capability_names_the_nearest(
    option: str, value: str, kind: str, nearest: str
) -> None:
    for asked in (value, [value], any_of(value)):
        text = refused(UnknownNameError, **{option: asked})
        assert text.startswith(f"unknown {kind} {value!r}; did you mean {nearest}")


@pytest.mark.parametrize("wrong", [5, [5], any_of(5), {"a": 1}])  # type: ignore[arg-type]  # wrong on purpose
def test_names_of_another_kind_are_refused(wrong: Any) -> None:
    for option in ("quantization", "category", "methods", "exclude"):
        assert refused(QueryError, **{option: wrong}).startswith(f"{option}: expected ")


def test_an_unknown_capability_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="capability 'mergin'; did you mean 'merging'"):
        ask(demands={"mergin": True})


def test_any_of_needs_something() -> None:
    assert any_of("gptq") == AnyOf(("gptq",))
    with pytest.raises(InputError, match="at least one value"):
        any_of()


# --- bounds ---


def bound(**options: Any) -> Bound:
    (found,) = ask(bounds=options).bounds
    return found


@pytest.mark.parametrize(
    ("name", "written", "value", "text"),
    [
        ("max_peak_memory", "24GiB", 24 * 2**30, "24GiB"),
        ("max_peak_memory", "24GB", 24e9, "24GB"),
        ("max_peak_memory", 2**34, 2**34, "16.00 GiB"),
        ("min_test_accuracy", "45%", 0.45, "45%"),
        ("min_test_accuracy", 0.45, 0.45, "45.0 %"),
        ("min_headline", 0.45, 0.45, "45.0 %"),
        ("max_train_time", "20min", 1200, "20min"),
        ("max_train_seconds", "1.5h", 5400, "1.5h"),
        ("max_checkpoint_size", "50MB", 50e6, "50MB"),
        ("max_trainable_parameters", "10M", 10e6, "10M"),
        ("max_forgetting", 0.25, 0.25, "0.250"),
    ],
)
def test_quantities_are_understood_and_echoed(
    name: str, written: Any, value: float, text: str
) -> None:
    found = bound(**{name: written})
    assert found.value == value
    assert found.text == text
    assert found.kind == name[:3]


@given(st.sampled_from(TEXT.metrics), st.floats(-1e12, 1e12))
@settings(max_examples=50, deadline=None, derandomize=True)
def test_any_number_is_a_bound_in_base_units(name: str, value: float) -> None:
    metric = CATALOG.metric_by_id[name]
    if metric.retired:
        return
    lowest = {"bytes": 1024, "score": -math.inf}.get(metric.unit, 0)
    highest = 1 if metric.unit == "fraction" else math.inf
    if value != 0 and not lowest <= value <= highest:
        assert f"min_{name}" in refused(QuantityError, **{f"min_{name}": value})
        return
    found = bound(**{f"min_{name}": value})
    assert found.value == value
    assert found.text == format_quantity(value, metric.unit)


@pytest.mark.parametrize(
    ("name", "written", "part"),
    [
        ("max_peak_memory", "20min", "'min' in '20min' is not a unit of bytes"),
        ("max_peak_memory", "much", "max_peak_memory: cannot read 'much'"),
        ("max_train_time", "20GB", "'GB' in '20GB' is not a unit of seconds"),
        ("min_test_accuracy", "45MB", "not a unit of fraction; known units: %"),
        ("max_forgetting", "5%", "not a unit of score; known units: none"),
        ("max_peak_memory", math.nan, "not a finite number"),
        ("max_peak_memory", "1e999", "not a finite number"),
        ("max_peak_memory", True, "got True"),
        ("max_peak_memory", [1], "got [1]"),
    ],
)
def test_a_quantity_that_cannot_be_read_is_refused(name: str, written: Any, part: str) -> None:
    text = refused(QuantityError, **{name: written})
    assert text.startswith(f"{name}: ")
    assert part in text


@pytest.mark.parametrize("name", ["max_", "maximum_peak_memory", "peak_memory", "maxpeak_memory"])
def test_a_misspelt_bound_names_the_nearest(name: str) -> None:
    assert refused(UnknownNameError, **{name: 1}).startswith(f"unknown bound {name!r}; did you ")


def test_a_bound_on_a_misspelt_metric_names_the_nearest() -> None:
    assert "'peak_memory'" in refused(UnknownNameError, max_peek_memory="1GB")


def test_bounds_that_exclude_each_other_are_refused() -> None:
    text = refused(QueryError, min_peak_memory="30GB", max_peak_memory="20GiB")
    assert text == "min_peak_memory='30GB' is above max_peak_memory='20GiB': no run can meet both"
    assert len(ask(bounds={"min_drift": 0.2, "max_drift": 0.2}, benchmark="image_gen").bounds) == 2


def test_a_bound_given_twice_is_refused() -> None:
    text = refused(QueryError, max_headline="50%", max_test_accuracy="40%")
    assert text == "max_test_accuracy is given twice: 50% and 40%"


# --- floor, confidence, version ---


def test_floors() -> None:
    assert ask(floor="5%").floor == 0.05
    assert ask(floor=0).floor == 0
    assert refused(QuantityError, floor="5GB").startswith("floor: 'GB' in '5GB' is not a unit")
    assert refused(QuantityError, floor=math.inf).startswith("floor: ")


@pytest.mark.parametrize("wrong", [1, 0.49, 0, -1, math.nan, 95])
def test_a_confidence_outside_its_range_is_refused(wrong: float) -> None:
    text = refused(QueryError, confidence=wrong)
    assert text == f"confidence must be at least 0.5 and below 1, got {wrong!r}"


def test_versions_of_peft() -> None:
    assert recommend(peft_version="0.15.0").query.peft_version == "0.15.0"
    assert recommend(peft_version="any").query.peft_version is None
    assert "cannot read 'latest'" in refused(InputError, peft_version="latest")


# --- order ---


@pytest.mark.parametrize("name", ["headline", "knee", "cheapest-tie"])
def test_named_orders(name: str) -> None:
    assert ask(rank_by=name).rank_by == name


def test_metrics_are_orders() -> None:
    assert ask(rank_by="Peak-Memory").rank_by == "peak_memory"
    assert ask(rank_by="train_seconds").rank_by == "train_time"


def test_weights_are_an_order() -> None:
    query = ask(rank_by={"headline": 2, "peak-memory": "0.5", "train_time": 0})
    assert query.rank_by == "weights"
    assert query.weights == {"test_accuracy": 2.0, "peak_memory": 0.5, "train_time": 0.0}


@pytest.mark.parametrize(
    ("weights", "part"),
    [
        ({"peak_memory": -1}, "the weight of peak_memory is negative: -1.0"),
        ({}, "at least one weight must be above 0"),
        ({"peak_memory": 0}, "at least one weight must be above 0"),
        ({"headline": 1, "test_accuracy": 2}, "the weight of test_accuracy is given twice"),
        ("weights", "give the weights themselves: rank_by={"),
        ({"forgetting_2025": 1}, "forgetting_2025 cannot be ranked"),
    ],
)
def test_weights_that_make_no_order_are_refused(weights: Any, part: str) -> None:
    assert refused(QueryError, rank_by=weights).startswith(part)


@pytest.mark.parametrize("wrong", [math.inf, math.nan, "2GB", None])
def test_a_weight_that_is_no_number_is_refused(wrong: Any) -> None:
    text = refused(QuantityError, rank_by={"peak_memory": wrong})
    assert text.startswith("weight of peak_memory: ")


def test_a_misspelt_order_names_the_nearest() -> None:
    assert refused(UnknownNameError, rank_by="kne") == "unknown ranking 'kne'; did you mean 'knee'?"
    assert "'cheapest-tie'" in refused(UnknownNameError, rank_by="cheapest")
    assert "'drift'" in refused(UnknownNameError, benchmark="image_gen", rank_by={"drit": 1})

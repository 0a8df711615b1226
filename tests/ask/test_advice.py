"""Advice is kept to its word: what a relaxation promises comes true when it is followed."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from peft_shop import any_of, load_catalog, recommend
from peft_shop.ask.advice import _just_met
from peft_shop.ask.reasons import cost
from peft_shop.errors import QueryError
from peft_shop.units import Unit, parse_quantity

if TYPE_CHECKING:
    from peft_shop.ask.places import Relaxation
    from peft_shop.ask.recommendation import Recommendation

CATALOG = load_catalog()
NOTHING: list[dict[str, Any]] = [
    {"max_peak_memory": "10GiB"},
    {"min_test_accuracy": "60%"},
    {"floor": "60%"},
    {"max_train_loss": 0.4},
    {"max_trainable_parameters": 1},
    {"max_step_time": "1min"},
    {"max_peak_memory": "10GiB", "max_train_time": "1min"},
    {"max_peak_memory": "10GiB", "min_test_accuracy": "50%", "max_train_time": "10min"},
    {"max_checkpoint_size": "1kB", "min_test_accuracy": "50%"},
    {"methods": "ln_tuning"},
    {"methods": "lora", "exclude": "lora"},
    {"methods": "lora", "category": "prompt_learning"},
    {"methods": ["lora", "unilora"], "era": "greedy"},
    {"methods": "lora", "snapshot": "2026-06-10", "era": "sampled"},
    {"methods": "lily", "peft_version": "0.3.0"},
    {"snapshot": "2026-06-10", "era": "any", "objectives": ["test_accuracy", "forgetting"]},
    {"quantization": any_of("inc"), "layer_types": "conv3d", "max_peak_memory": "1GiB"},
    {"benchmark": "image_gen", "max_drift": -0.1},
    {"benchmark": "image_gen", "min_dino_similarity": 0.9, "max_peak_memory": "9GiB"},
    {"benchmark": "image_gen", "methods": "randlora", "max_checkpoint_size": "1GB"},
    {"benchmark": "image_gen", "methods": "randlora", "objectives": "checkpoint_size"},
]
nothing = pytest.mark.parametrize("asked", NOTHING, ids=str)


def ask(asked: dict[str, Any]) -> Recommendation:
    return recommend(**{"peft_version": "any", **asked})


def kept(answer: Recommendation) -> set[str]:
    return {one.name for one in (*answer.front, *answer.ties, *answer.dominated)}


def without(asked: dict[str, Any], constraint: str) -> dict[str, Any]:
    """The question after giving up everything that `constraint` names."""
    changed = dict(asked)
    for name in constraint.split(" + "):
        if name == "flagged":
            changed["include_flagged"] = True
        elif name in {"era", "peft_version"}:
            changed[name] = "any"
        elif name == "floor":
            changed[name] = 0
        elif name == "objectives":
            changed[name] = "train_loss"
        else:
            del changed[name]
    return changed


PART = re.compile(r"(?:raise|lower) (\w+) to ([-\d.]+(?: (?!and\b)\w+| %)?)")
PROMISE = re.compile(
    r"\(admits (\d+): (\S+?)(?:, \.\.\.)?(?:; without th\w+ limits? (\d+): (\S+?)(?:, \.\.\.)?)?\)$"
)


def check(asked: dict[str, Any], one: Relaxation) -> None:
    whole = kept(ask(without(asked, one.constraint)))
    assert len(whole) == one.admits
    assert one.example in whole
    promise = PROMISE.search(one.suggestion)
    assert promise, one.suggestion
    limits = dict(PART.findall(one.suggestion))
    others = [name for name in one.constraint.split(" + ") if name not in limits]
    followed = without(asked, " + ".join(others)) if others else dict(asked)
    answer = kept(ask(followed | limits))
    assert len(answer) == int(promise[1])
    assert promise[2] in answer
    if promise[3]:
        assert int(promise[3]) == one.admits > len(answer)
        assert promise[4] == one.example
    else:
        assert answer == whole


@nothing
def test_what_a_relaxation_promises_comes_true(asked: dict[str, Any]) -> None:
    answer = ask(asked)
    assert not kept(answer)
    assert answer.relaxations
    for one in answer.relaxations:
        check(asked, one)


@nothing
def test_the_example_is_the_best_of_those_admitted(asked: dict[str, Any]) -> None:
    answer = ask(asked)
    headline = CATALOG.metric_by_id[answer.benchmark.headline]
    for one in answer.relaxations:
        freed = ask(without(asked, one.constraint))
        everyone = [*freed.front, *freed.ties, *freed.dominated]
        best = min(everyone, key=lambda each: (cost(each, headline), each.name))
        assert one.example == best.name


@nothing
def test_the_best_of_nothing_says_what_to_do(asked: dict[str, Any]) -> None:
    answer = ask(asked)
    assert not answer
    with pytest.raises(QueryError, match="nothing meets the constraints") as caught:
        _ = answer.best
    for one in answer.relaxations:
        assert one.suggestion in str(caught.value)


@given(st.data())
@settings(max_examples=60, deadline=None, derandomize=True)
def test_promises_hold_whatever_was_asked(data: st.DataObject) -> None:
    benchmark = data.draw(st.sampled_from(["metamathqa", "image_gen"]))
    names = [
        name
        for name in CATALOG.benchmark_by_id[benchmark].metrics
        if not CATALOG.metric_by_id[name].retired
    ]
    asked: dict[str, Any] = {"benchmark": benchmark}
    for name in data.draw(st.lists(st.sampled_from(names), min_size=1, max_size=3, unique=True)):
        metric = CATALOG.metric_by_id[name]
        values = [
            run.metrics[metric.field]
            for run in CATALOG.runs_by_benchmark[benchmark]
            if metric.field in run.metrics
        ]
        # on the good side, so that few or none meet it
        good = sorted(values, reverse=metric.better == "higher")[: len(values) // 4]
        side = "min" if metric.better == "higher" else "max"
        asked[f"{side}_{name}"] = data.draw(st.sampled_from(good))
    if data.draw(st.booleans()):
        method = data.draw(st.sampled_from(["lora", "oft", "ln_tuning", "unilora", "randlora"]))
        asked["methods"] = method
    answer = ask(asked)
    assume(not kept(answer))
    for one in answer.relaxations:
        check(asked, one)


def test_relaxations_are_the_smallest_sets_and_the_most_admitting_come_first() -> None:
    for asked in NOTHING:
        answer = ask(asked)
        sizes = {one.constraint.count(" + ") for one in answer.relaxations}
        fewest = min(
            len({failure.constraint for failure in one.failures})
            for one in answer.dropped
            if one.run is not None
        )
        assert sizes == {fewest - 1}
        order = [(-one.admits, one.constraint) for one in answer.relaxations]
        assert order == sorted(order)


def test_an_answer_needs_no_relaxation() -> None:
    assert ask({}).relaxations == ()
    assert ask({"benchmark": "image_gen"}).relaxations == ()


@given(
    st.sampled_from(["bytes", "seconds", "fraction", "count", "score"]),
    st.floats(1e-3, 1e13),
    st.sampled_from(["max", "min"]),
)
@example("seconds", 61.0, "max")
@example("seconds", 3601.0, "min")
@example("seconds", 0.052, "max")
@example("bytes", 1025.0, "max")
@settings(max_examples=200, deadline=None, derandomize=True)
def test_a_limit_in_words_is_met_by_the_figure_it_was_made_for(
    unit: Unit, value: float, kind: str
) -> None:
    limit = parse_quantity(_just_met(value, unit, kind), unit)
    assert limit >= value if kind == "max" else limit <= value
    # and is within one unit of its last figure, which is a hundredth of it at most
    smallest = {"bytes": 1, "count": 1, "fraction": 1e-3, "score": 1e-3, "seconds": 1e-4}
    assert limit == pytest.approx(value, rel=0.0101, abs=smallest[unit])


# --- warnings ---


def test_flagged_runs_are_announced_either_way() -> None:
    left_out = [text for text in ask({}).warnings if text.startswith("left out as flagged: ")]
    assert len(left_out) == 1
    assert "lora/llama-3.2-3B-rank32-lorafa" in left_out[0]
    ranked = ask({"include_flagged": True}).warnings
    assert "flagged runs are ranked because you asked for it" in ranked
    assert not any(text.startswith("left out as flagged") for text in ranked)
    assert not any("flagged" in text for text in ask({"benchmark": "image_gen"}).warnings)


def test_scores_of_unknown_noise_are_announced() -> None:
    def unsure(*objectives: str) -> list[str]:
        texts = ask({"objectives": objectives}).warnings
        return [text for text in texts if "re-run noise of" in text]

    (text,) = unsure("test_accuracy", "forgetting")
    assert "forgetting" in text
    assert "test accuracy" not in text.lower()
    assert unsure("test_accuracy", "peak_memory") == []


def test_many_objectives_are_announced() -> None:
    names = ["test_accuracy", "peak_memory", "step_time", "checkpoint_size"]
    many = [text for text in ask({"objectives": names}).warnings if "hardly filter" in text]
    assert len(many) == 1
    assert many[0].startswith("4 objectives")
    assert not any("hardly filter" in text for text in ask({"objectives": names[:3]}).warnings)


def test_an_old_peft_is_announced_with_what_it_lacks() -> None:
    answer = ask({"peft_version": "0.15.0"})
    late = {
        one.name
        for one in answer.dropped
        if any(failure.constraint == "peft_version" for failure in one.failures)
    }
    assert late
    (text,) = [text for text in answer.warnings if "need a newer peft" in text]
    assert text.startswith(f"{len(late)} candidates need a newer peft than 0.15.0")
    assert CATALOG.peft_version in text
    # and the methods that an upgrade would bring, once each
    gained = {one.method for one in answer.dropped if one.name in late}
    assert text.endswith(f"would bring configurations of {', '.join(sorted(gained))}")
    assert not any("newer peft" in text for text in ask({}).warnings)

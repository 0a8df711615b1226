"""The third benchmark against the facts about it: fronts, doubts, names, rates."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from peft_shop import recommend
from peft_shop.ask.contenders import field_of_play
from peft_shop.ask.meanings import current_runs
from peft_shop.ask.placing import places
from peft_shop.ask.reading import build_query
from peft_shop.ask.told import rate_text, rates_tried
from peft_shop.catalog.short_names import short_names
from peft_shop.catalog.store import load
from peft_shop.cli.opening import check_shown
from peft_shop.errors import QueryError
from peft_shop.show.answers import answer_document
from peft_shop.show.brief import brief_json
from peft_shop.show.cards import answer_html, candidate_html
from peft_shop.show.screen import first_screen
from peft_shop.show.site.table import shown_benchmarks
from peft_shop.show.verdicts import why_document

CATALOG = load()
BENCHMARK = CATALOG.benchmark_by_id["rlmath"]
RUNS = CATALOG.runs_by_benchmark["rlmath"]
PREFIX = "grpo-qwen35-4b-gsm8k"


def front(*objectives: str) -> dict[str, tuple[float, float]]:
    answer = recommend("rlmath", objectives=objectives or None, peft_version="any")
    names = answer.query.objectives
    return {answer.short(one): tuple(one.values[name] for name in names) for one in answer.front}  # type: ignore[misc] # two objectives


def test_the_front_on_score_and_parameters_is_that_of_the_facts() -> None:
    assert front() == {
        "dora/r4": (0.938, 6_082_560),
        "ln_tuning/lr1e-03": (0.934, 163_840),
        "waveft/nf500": (0.926, 64_000),
        "tinylora/u256": (0.896, 32_768),
        "tinylora/u128": (0.894, 16_384),
        "tinylora/wt10": (0.742, 64),
    }


def test_the_front_on_score_and_time_is_that_of_the_facts() -> None:
    found = front("pass_at_1", "train_time")
    assert [(name, values[0]) for name, values in found.items()] == [
        ("dora/r4", 0.938),
        ("gralora/r8-lr2e-5", 0.936),
        ("ln_tuning/lr1e-03", 0.934),
        ("ia3/lr1e-03", 0.932),
    ]
    times = [round(values[1]) for values in found.values()]
    assert (times[0], times[-1]) == (676, 545)


def test_205_runs_are_comparable_and_8_of_them_are_no_true_set_up() -> None:
    codes = {run.id: {flag.code for flag in run.flags} for run in RUNS}
    equal = [run for run in RUNS if "environment" not in codes[run.id]]
    assert (len(RUNS), len(equal)) == (304, 205)
    assert sum("broken_config" in codes[run.id] for run in equal) == 8
    suspects = Counter(run.method for run in equal if "artefact" in codes[run.id])
    assert suspects == {"adamss": 4, "c3a": 2}
    questions = [f for run in RUNS for f in run.flags if "questions in the test: 50" in f.reason]
    assert len(questions) == 25
    field = field_of_play(CATALOG, build_query(CATALOG, benchmark="rlmath"))
    comparable = {one.run.id for one in field.contenders if one.run and "pass_at_1" in one.values}
    assert comparable == {run.id for run in equal}


def test_parameters_are_computed_and_marked_with_versions() -> None:
    counted = [run for run in RUNS if "trainable_parameters" in run.metrics]
    assert all(set(run.computed) == {"trainable_parameters"} for run in counted)
    assert {text for run in counted for text in run.computed.values()} == {
        "peft 0.21.2, transformers 5.23.0"
    }
    without = {run.method for run in RUNS if run not in counted}
    assert without == {"adamss", "full_finetuning"}
    by_name = {run.experiment: run.metrics for run in RUNS}
    assert by_name[f"lora/{PREFIX}-r1"]["trainable_parameters"] == 1_327_104  # counted by hand
    assert not any(run.computed for run in CATALOG.runs if run.benchmark != "rlmath")


def test_nothing_that_describes_the_base_model_is_a_metric() -> None:
    assert {name for run in RUNS for name in run.metrics} == {
        "pass_at_1",
        "train_seconds",
        "total_seconds",
        "trainable_parameters",
    }
    (source,) = {run.provenance.source for run in RUNS}
    assert {one.id: one.review for one in CATALOG.sources}[source] == "unmerged"


@pytest.mark.parametrize("name", ["rl", "grpo", "RLMath", "rlmath", "RL-Math"])
def test_it_is_asked_for_by_name_alone(name: str) -> None:
    assert build_query(CATALOG, benchmark=name).benchmark == "rlmath"
    assert build_query(CATALOG).benchmark != "rlmath"
    assert BENCHMARK not in shown_benchmarks(CATALOG)
    with pytest.raises(QueryError, match="the page does not show RLMath"):
        check_shown(CATALOG, "rlmath")


def test_its_snapshot_is_nobody_else_s() -> None:
    for benchmark in CATALOG.benchmarks:
        (of,) = {run.provenance.source for run in current_runs(CATALOG, benchmark.id)}
        assert (of == "peft-pull-3078") == (benchmark.id == "rlmath")


def test_every_answer_says_what_speaks_against_it() -> None:
    answer = recommend("rlmath", peft_version="any")
    assert len(BENCHMARK.caveats) == 2
    together = " ".join(BENCHMARK.caveats)
    for word in (
        "unmerged",
        "unreviewed",
        "base model",
        "One seed",
        "500",
        "unequally",
        "computed",
    ):
        assert word in together
    told = [
        " ".join("".join(text for text, _ in line) for line in first_screen(answer)),
        " ".join(answer_document(answer).paragraphs),
        " ".join(why_document(answer, answer.best.name).paragraphs),
        " ".join(json.loads(brief_json(answer))["caveats"]),
        answer_html(answer).replace("&#x27;", "'"),
        candidate_html(answer.best).replace("&#x27;", "'"),
    ]
    for text in told:
        for caveat in BENCHMARK.caveats:
            assert caveat in text


def test_a_title_tells_size_and_rate() -> None:
    answer = recommend("rlmath", peft_version="any")
    assert [one.title for one in answer.front] == [
        "DoRA r4, lr 4e-5",
        "LayerNorm tuning, lr 1e-3",
        "WaveFT 500 frequencies, lr 4e-5",
        "TinyLoRA u256, lr 4e-5",
        "TinyLoRA u128, lr 4e-5",
        "TinyLoRA with weight tying u64, lr 4e-5",
    ]
    assert all("lr " not in one.title for one in recommend("metamathqa").candidates)


def test_rates_are_those_of_the_facts() -> None:
    field = field_of_play(CATALOG, build_query(CATALOG, benchmark="rlmath"))
    found = rates_tried(CATALOG, BENCHMARK, field.contenders)
    told = {
        key: (len(one.rates), rate_text(one.best), one.edge, one.best_score)
        for key, one in found.items()
    }
    assert told["lora", ("dora",)][::2] == (6, None)
    assert told["ia3", ()] == (5, "1e-3", None, 0.932)
    assert told["hra", ()] == (5, "5e-4", "highest", 0.928)
    assert told["gralora", ()] == (4, "1e-5", "lowest", 0.932)
    assert told["ln_tuning", ()] == (1, "1e-3", "only", 0.934)
    assert ("adalora", ()) not in told  # its set-up failed
    assert str(found["hra", ()]) == (
        "HRA r16: 5 rates from 5e-6 to 5e-4 moved it by 24.8 points, best 5e-4, at the highest"
    )
    others = field_of_play(CATALOG, build_query(CATALOG, benchmark="metamathqa"))
    assert not rates_tried(CATALOG, CATALOG.benchmarks[0], others.contenders)


def test_names_are_short_and_unique() -> None:
    short = short_names(CATALOG, "rlmath")
    assert short[f"dora/{PREFIX}-r4"] == "dora/r4"
    assert short[f"boft/{PREFIX}"] == "boft/gsm8k"
    assert len(set(short.values())) == len(short) == 304
    assert sum(PREFIX in name for name in short.values()) <= 2


def test_benchmarks_stand_side_by_side_and_in_no_order() -> None:
    found = {one.benchmark.id: one for one in places(CATALOG, "lora")}
    assert list(found) == ["metamathqa", "image_gen", "rlmath"]
    assert found["rlmath"].score == 0.938
    assert found["rlmath"].best.endswith("-r4")
    dora = {one.benchmark.id: one for one in places(CATALOG, "lora", "dora")}
    assert dora["rlmath"].runs == 21
    assert "rlmath" not in {one.benchmark.id for one in places(CATALOG, "adalora")}
    for method in CATALOG.methods:
        for place in places(CATALOG, method.id):
            assert 1 <= place.rank <= place.methods

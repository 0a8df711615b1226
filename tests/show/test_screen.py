"""The first screen: laws over many questions, and what must never be lost to brevity."""

from __future__ import annotations

import json
import re
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from peft_shop import recommend
from peft_shop.ask.meanings import meaning_of
from peft_shop.ask.recommendation import Recommendation
from peft_shop.ask.requirements import any_of
from peft_shop.catalog.short_names import short_name, short_names
from peft_shop.catalog.store import load
from peft_shop.errors import AmbiguousNameError, UnknownNameError
from peft_shop.show.brief import BYTES, brief_json
from peft_shop.show.cautions import cautions
from peft_shop.show.naming import in_short
from peft_shop.show.next_steps import next_command, next_commands
from peft_shop.show.overview import entries, objectives_of, yardsticks
from peft_shop.show.printing import screen_lines
from peft_shop.show.screen import LINES, Screen
from peft_shop.show.serving import WORDS
from peft_shop.show.terminal import lines_text, width_of

if TYPE_CHECKING:
    from peft_shop.model.structure import Structure

ENGINES = ("vllm", "llama.cpp", "mlx-lm", "diffusers")
BOUNDS = {
    "max_peak_memory": ("1GiB", "9GiB", "19GiB", "24GiB", "40GiB"),
    "max_checkpoint_size": ("1MiB", "30MiB", "200MiB"),
    "max_train_time": ("5min", "20min"),
}
OBJECTIVES = (None, ["train_time"], ["peak_memory", "train_time", "checkpoint_size"])


@cache
def structure() -> Structure:
    """A model, from shapes alone."""
    from transformers import LlamaConfig

    from peft_shop.model.inspection import inspect_model

    sizes = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2}
    config = LlamaConfig(**sizes, num_attention_heads=4, architectures=["LlamaForCausalLM"])
    return inspect_model(config).structure


@st.composite
def questions(draw: st.DrawFn) -> dict[str, Any]:
    """Questions of every kind: none, one or several demands, with and without a model."""
    asked: dict[str, Any] = {
        "benchmark": draw(st.sampled_from(("metamathqa", "image_gen"))),
        "peft_version": "any",
        "objectives": draw(st.sampled_from(OBJECTIVES)),
        "include_flagged": draw(st.booleans()),
    }
    for name, values in BOUNDS.items():
        asked[name] = draw(st.sampled_from((None, None, *values)))
    for name in ("merging", "convertible_to_lora", "mixed_batches"):
        asked[name] = draw(st.sampled_from((None, None, True, False, "partial")))
    engines = draw(st.sets(st.sampled_from(ENGINES), max_size=2))
    if engines:
        named = sorted(engines)
        asked["serve"] = any_of(*named) if draw(st.booleans()) else named
    if draw(st.integers(0, 3)) == 0:
        asked["methods"] = draw(st.sampled_from((["lora"], ["dora", "miss"], ["prompt_tuning"])))
    if asked["benchmark"] == "metamathqa" and draw(st.integers(0, 2)) == 0:
        asked["model"] = structure()
        asked["device"] = draw(st.sampled_from((None, "T4", "300MiB")))
    return {name: value for name, value in asked.items() if value is not None}


@hypothesis_settings(max_examples=30)
@given(asked=questions(), width=st.integers(60, 130))
def test_first_screens_hold_their_laws(asked: dict[str, Any], width: int) -> None:
    answer = recommend(**asked)
    lines = lines_text(screen_lines(answer, width), width).splitlines()
    assert len(lines) <= LINES
    assert max(map(width_of, lines)) <= width
    shown = [entry for entry in entries(answer) if any(entry.short in line for line in lines)]
    start = next((k for k, line in enumerate(lines) if line.split()[-1:] == ["Again"]), len(lines))
    for place, line in enumerate(lines[start:], start=start):
        rank = re.match(r"([ \d]\d) \S", line)
        if rank is None:
            continue
        entry = entries(answer)[int(rank[1]) - 1]
        row = " ".join(lines[place : place + 2])
        assert entry.short in row, "a name is folded, or is not with its figures"
        assert re.search(rf"\b({'|'.join(WORDS.values())})\b", row), "a row without a serving word"
    if answer.front:
        assert shown, "no member is shown"
        assert shown[0].rank == 1
        # what is not shown is counted
        rest = len(answer.front) - len(shown)
        assert not rest or f"+ {rest} more" in "\n".join(lines)


@hypothesis_settings(max_examples=20)
@given(asked=questions())
def test_no_caution_is_lost_to_brevity(asked: dict[str, Any]) -> None:
    answer = recommend(**asked)
    flat = " ".join(answer.text(width=100).split())
    shown = [entry for entry in entries(answer) if entry.short in flat]
    texts = [
        in_short(answer.catalog, caution.text)
        for caution in cautions(answer, shown, objectives_of(answer))
        if caution.gravity < 5
    ]
    told = [text for text in texts if " ".join(text.split()) in flat]
    more = re.search(r"(\d+) (?:more|to know): --sure", flat)
    assert len(told) + (int(more[1]) if more else 0) >= len(texts)
    assert told == texts[: len(told)], "a lighter caution is told before a graver one"
    whole = " ".join(answer.text("sure", width=100).split())
    for warning in answer.warnings:
        assert in_short(answer.catalog, warning).partition(" (`why`")[0].rstrip(".") in whole


@hypothesis_settings(max_examples=20)
@given(asked=questions())
def test_brief_answers_are_small_and_agree_with_the_whole(asked: dict[str, Any]) -> None:
    answer = recommend(**asked)
    text = brief_json(answer, lambda name: next_commands(answer, name))
    assert len(text.encode()) <= BYTES
    brief = json.loads(text)
    assert brief["counts"]["best"] == len(answer.front)
    assert len(brief["best"]) + brief["more_best"] == len(entries(answer))
    for member, whole in zip(brief["best"], answer.front, strict=False):
        assert answer[member["name"]] == whole
        for metric in answer.query.objectives:
            value = member[metric][0] if isinstance(member[metric], list) else member[metric]
            known = whole.values.get(metric)
            assert value == known if known is None else value == pytest.approx(known, rel=1e-4)
        assert member["serving"] in WORDS.values()
    if not answer.front:
        assert brief["counts"]["too_close_to_call"] or brief.get("relax") or brief.get("setup")


# --- names ---


def test_short_names_are_unique_and_mean_their_run() -> None:
    catalog = load()
    for benchmark in catalog.benchmarks:
        names = short_names(catalog, benchmark.id)
        assert len(set(names.values())) == len(names)
        for experiment, short in names.items():
            assert meaning_of(catalog, short, benchmarks=[benchmark.id]).canonical == experiment
            assert meaning_of(catalog, experiment).canonical == experiment


@pytest.mark.parametrize(
    ("experiment", "model", "short"),
    [
        ("lora/llama-3.2-3B-rank32", "meta-llama/Llama-3.2-3B", "lora/rank32"),
        ("lora/Llama-3.2-3B-rank32", "meta-llama/Llama-3.2-3B", "lora/rank32"),
        ("lora/llama-3.2-3B-", "meta-llama/Llama-3.2-3B", "lora/3B-"),
        ("lora/rank32", "meta-llama/Llama-3.2-3B", "lora/rank32"),
        ("lora/lla-rank32", "meta-llama/Llama-3.2-3B", "lora/lla-rank32"),
        ("lora", "meta-llama/Llama-3.2-3B", "lora"),
        ("lora/other-model-rank32", "meta-llama/Llama-3.2-3B", "lora/other-model-rank32"),
    ],
)
def test_only_the_model_is_left_out_of_a_name(experiment: str, model: str, short: str) -> None:
    assert short_name(experiment, model) == short


def test_a_short_name_that_is_taken_stays_whole() -> None:
    catalog = load()
    run = next(run for run in catalog.runs if run.experiment == "lora/llama-3.2-3B-rank32")
    clash = run.model_copy(update={"experiment": "lora/rank32"})
    again = run.model_copy(update={"experiment": "lora/Llama-3.2-3B-rank64"})
    both = catalog.model_copy(update={"runs": (*catalog.runs, clash, again)})
    names = short_names(both, "metamathqa")
    assert names["lora/rank32"] == "lora/rank32"
    assert names["lora/llama-3.2-3B-rank32"] == "lora/llama-3.2-3B-rank32"
    assert names["lora/Llama-3.2-3B-rank64"] == "lora/Llama-3.2-3B-rank64"
    assert names["lora/llama-3.2-3B-rank64"] == "lora/llama-3.2-3B-rank64"
    assert len(set(names.values())) == len(names)


def test_names_in_texts_are_short_only_where_they_are_names() -> None:
    catalog = load()
    whole = "lora/llama-3.2-3B-rank32"
    assert in_short(catalog, f"{whole}, {whole}.") == "lora/rank32, lora/rank32."
    assert in_short(catalog, f"{whole}@2026") == "lora/rank32@2026"
    for kept in (f"results/{whole}", f"{whole}-own", f"{whole}.json", f"{whole}/x"):
        assert in_short(catalog, kept) == kept


def test_one_name_on_two_benchmarks_is_no_name_without_a_benchmark() -> None:
    with pytest.raises(AmbiguousNameError, match=r"miss/llama-3\.2-3B-default"):
        meaning_of(load(), "miss/default")
    answer = recommend("image_gen", peft_version="any", methods=["miss"])
    command = next_command(answer)
    assert command is not None
    assert "-b image_gen" in command


def test_an_answer_takes_short_names_and_whole_ones() -> None:
    answer = recommend("metamathqa", peft_version="any")
    assert answer["lora/rank64-rslora"] is answer["lora/llama-3.2-3B-rank64-rslora"]
    again = Recommendation.from_json(answer.to_json())
    assert again == answer
    assert str(again) == str(answer)


# --- what the screen says ---


def test_the_screen_is_what_was_drawn() -> None:
    answer = recommend("metamathqa", peft_version="any")
    lines = answer.text().splitlines()
    assert lines[0] == "MetaMathQA on Llama-3.2-3B: most test accuracy for least peak memory"
    assert lines[3].split() == ["Best", "Accuracy", "Memory", "File", "Serving", "Again"]
    flat = "\n".join(lines)
    for rank, word in ((1, "none"), (2, "direct"), (3, "merge"), (4, "convert")):
        (row,) = [line for line in lines if line.startswith(f" {rank} ")]
        assert word in row.split()
    assert "Better than plain LoRA in both: 2 (+1.9 points, -2.0 GiB), 3 (+1.6, -2.8)" in flat
    assert "Careful: no engine serves 1" in flat
    assert "peft-shop snippet shira/lr_0.0003-random_seed_42 -o train.py" in flat


def test_what_merges_is_not_called_lost_where_no_engine_serves_such_a_model() -> None:
    pytest.importorskip("transformers")
    from transformers import ViTConfig

    from peft_shop.model.inspection import inspect_model

    small = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    images = {"intermediate_size": 64, "image_size": 32, "patch_size": 16}
    vit = inspect_model(ViTConfig(**small, **images, architectures=["ViTForImageClassification"]))
    flat = " ".join(recommend(model=vit.structure, methods="lora").text("sure").split())
    assert "not merge" not in flat
    assert "no engine on record serves such a model; LoRA can be merged" in flat


def test_who_beats_the_yardstick_is_computed() -> None:
    for benchmark in ("metamathqa", "image_gen"):
        answer = recommend(benchmark, peft_version="any")
        plain = answer.baselines[0]
        better = {
            rank
            for rank, one in enumerate(answer.front[:5], start=1)
            if one.values[answer.benchmark.headline] > plain.values[answer.benchmark.headline]
            and one.values["peak_memory"] < plain.values["peak_memory"]
        }
        (sentence,) = [line for line in str(answer).splitlines() if "plain LoRA in both" in line]
        told = {int(number) for number in re.findall(r"(\d+) \(", sentence)}
        assert told == better
        assert [one.name for one in yardsticks(answer)] == [one.name for one in answer.baselines]


def test_sections_stand_below_the_same_screen() -> None:
    answer = recommend("metamathqa", peft_version="any", max_peak_memory="24GiB")
    screen = answer.text()
    for name, told in (
        ("why", "2.4 points ahead of miss/default"),
        ("ties", "hira/rank32-lr4.5e-3"),
        ("left-out", "max_peak_memory (3)"),
        ("sure", "Every run has seed 0"),
    ):
        text = answer.text(name)  # type: ignore[arg-type]  # names of a list
        assert text.startswith(screen)
        assert told in " ".join(text.split())
        assert max(map(len, text.splitlines())) <= 80
    assert "Dropped, with every constraint" in answer.text("all")
    with pytest.raises(UnknownNameError, match="did you mean 'ties'"):
        answer.text("tie")  # type: ignore[arg-type]  # a mistake on purpose


def test_left_out_names_every_one_at_each_constraint() -> None:
    answer = recommend("metamathqa", peft_version="any", max_peak_memory="20GiB", merging=True)
    flat = " ".join(answer.text("left-out", width=2000).split())
    for one in answer.dropped:
        for failure in one.failures:
            listed = flat.partition(f"{failure.constraint} (")[2]
            assert answer.short(one) in listed


def test_more_rows_and_other_columns_can_be_asked_for() -> None:
    answer = recommend("metamathqa", peft_version="any")
    lines = lines_text(screen_lines(answer, 80, screen=Screen(limit=2))).splitlines()
    assert [line[:3] for line in lines if re.match(r" \d ", line)] == [" 1 ", " 2 "]
    assert any("+ 4 more" in line for line in lines)
    screen = Screen(columns=("memory", "train_time", "again"))
    lines = lines_text(screen_lines(answer, 80, screen=screen)).splitlines()
    (head,) = [line for line in lines if "Best" in line]
    assert head.split() == ["Best", "Memory", "Train", "time", "Again"]
    with pytest.raises(UnknownNameError, match="did you mean 'memory'"):
        screen_lines(answer, 80, screen=Screen(columns=("memry",)))

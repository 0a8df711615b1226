"""The forecasts of the page on popular models are those of Python, and so are its answers."""

from __future__ import annotations

import random
import shutil
from dataclasses import replace
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

import pytest

from peft_shop import load_catalog, recommend
from peft_shop.ask.contenders import field_of_play
from peft_shop.ask.links import read_url
from peft_shop.ask.reading import build_query
from peft_shop.catalog.features import SINGLES
from peft_shop.curate.publish.planning import models, planning_bytes, structure_of
from peft_shop.forecast.devices import devices
from peft_shop.show.site import planning
from peft_shop.show.site.table import CARDS

if TYPE_CHECKING:
    from collections.abc import Callable

    from peft_shop.ask.recommendation import Recommendation
    from peft_shop.model.structure import Structure

MODELS = {model["id"]: model for model in models()}
needs_node = pytest.mark.skipif(
    shutil.which("node") is None, reason="needs node: apt-get install nodejs"
)


@pytest.mark.parametrize("name", MODELS)
def test_sizes_make_the_number_of_parameters_that_is_published(name: str) -> None:
    assert structure_of(MODELS[name]).parameters == MODELS[name]["parameters"]


@cache
def known(name: str) -> Structure:
    return structure_of(MODELS[name])


def drawn(draw: random.Random, name: str) -> dict[str, str]:
    """A question about a model with a training step of its own."""
    longest = MODELS[name]["config"]["max_position_embeddings"]
    step = {
        "batch_size": draw.choice([1, 2, 3, 4, 8, 17, 64]),
        "sequence_length": draw.choice([1, 64, 300, 512, 1024, 2047, min(longest, 32768), longest]),
        "gradient_checkpointing": draw.choice(["true", "false"]),
        "quantization": draw.choice(["none", "bnb_4bit"]),
    }
    found = {
        "benchmark": "metamathqa",
        "model": name,
        "training": ";".join(f"{key}={value}" for key, value in step.items()),
    }
    if draw.random() < 0.6:
        found |= {"device": draw.choice(CARDS), "fit": "off"}
    elif draw.random() < 0.5:
        found |= {"max_memory": f"{draw.randint(1, 90)}GiB", "fit": "off"}
    if draw.random() < 0.3:
        found["serve"] = draw.choice(["vllm", "sglang", "vllm:native", "vllm,llama_cpp"])
    if draw.random() < 0.3:
        found[draw.choice(SINGLES).id] = draw.choice(["1", "partial", "0"])
    if draw.random() < 0.2:
        found["layer_types"] = draw.choice(["linear", "embedding", "linear,conv2d"])
    if draw.random() < 0.3:
        found["objectives"] = draw.choice(
            ["test_accuracy,checkpoint_size", "test_accuracy,peak_memory,train_time", "peak_memory"]
        )
    if draw.random() < 0.2:
        found["max_peak_memory"] = f"{draw.randint(4, 60)}GiB"
    return found


def link_of(parameters: dict[str, str]) -> str:
    return "#" + urlencode(parameters, quote_via=quote, safe="/,:|=;")


def check_figures(link: str, page: dict[str, Any], answer: Recommendation) -> int:
    """Peaks and counts of everyone that Python tells figures of; how many there were."""
    count = 0
    for one in (*answer.front, *answer.ties, *answer.dominated):
        figures, told = page["figures"][one.name], page["forecasts"][one.name]
        for name in ("checkpoint_size", "trainable_parameters", "total_parameters"):
            assert figures[name] == one.values.get(name), (link, one.name, name)
        assert (told is None) == (one.forecasted is None), (link, one.name)
        if one.forecasted is None:
            continue
        count += 1
        peak = one.forecasted.peak_memory
        ours = (peak.low, peak.value, peak.high)
        assert told == pytest.approx(ours, rel=1e-6), (link, one.name)
        assert figures["peak_memory"] == pytest.approx(one.values["peak_memory"], rel=1e-6)
    return count


def check_answer(link: str, page: dict[str, Any], answer: Recommendation) -> None:
    """Who is kept, in which order, and for which constraints the others are not."""
    assert page["troubles"] == [], link
    assert page["front"] == [one.name for one in answer.front], link
    assert sorted(page["ties"]) == sorted(one.name for one in answer.ties), link
    assert page["beaten"] == [one.name for one in answer.dominated], link
    assert sorted(page["unmeasured"]) == sorted(one.method for one in answer.unmeasured), link
    ours = {one.name: sorted({why.constraint for why in one.failures}) for one in answer.dropped}
    assert {name: sorted({why[0] for why in whys}) for name, whys in page["dropped"]} == ours, link


def compare(page_answers: Callable[..., list[dict[str, Any]]], names: list[str], count: int) -> int:
    draw = random.Random(count)
    questions = [drawn(draw, draw.choice(names)) for _ in range(count)]
    links = [link_of(parameters) for parameters in questions]
    figures = 0
    for parameters, link, page in zip(questions, links, page_answers(links), strict=True):
        stated = read_url(link) | {"model": known(parameters["model"])}
        answer = recommend(**stated)
        check_answer(link, page, answer)
        figures += check_figures(link, page, answer)
    return figures


@pytest.mark.slow
@needs_node
def test_the_page_forecasts_every_model_as_python_does(
    page_answers: Callable[..., list[dict[str, Any]]],
) -> None:
    assert compare(page_answers, list(MODELS), 200) > 1000


def test_a_recipe_that_was_not_compiled_has_no_forecast() -> None:
    catalog = load_catalog()
    contenders = field_of_play(catalog, build_query(catalog)).contenders
    plans = planning.plans_for({"metamathqa": contenders})
    assert [one["id"] for one in plans] == list(MODELS)
    first = next(one for one in contenders if one.run is not None)
    recipe = first.run.recipe
    other = recipe.model_copy(update={"config": {**recipe.config, "r": 3}})
    run = first.run.model_copy(update={"recipe": other})
    changed = [replace(one, run=run) if one is first else one for one in contenders]
    assert first.name not in planning.plans_for({"metamathqa": changed})[0]["rows"]
    assert planning.plans_for({"metamathqa": ()}) == []


@pytest.mark.slow
def test_what_is_committed_is_what_is_compiled() -> None:
    resource = files("peft_shop.show.site") / planning.PLANNING
    assert resource.read_bytes() == planning_bytes(load_catalog())


def test_cards_are_devices_by_name() -> None:
    assert set(CARDS) <= {one.name for one in devices()}

"""A question survives its link, and what a link cannot say is named."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import pytest

from peft_shop import load_catalog, recommend
from peft_shop.ask.keywords import KEYWORDS
from peft_shop.ask.links import VIEW, read_url
from peft_shop.ask.query import Query
from peft_shop.errors import InputError, QuantityError, QueryError, UnknownNameError

if TYPE_CHECKING:
    from collections.abc import Callable

    from peft_shop.model.structure import Structure


def test_questions_survive_their_links(questions: Callable[..., list[dict[str, str]]]) -> None:
    links = set()
    for parameters in questions(150):
        query = Query.from_url("?" + urlencode(parameters))
        link = query.to_url("https://example.org/shop/")
        assert Query.from_url(link) == query, link
        assert Query.from_url(link).to_url("https://example.org/shop/") == link
        links.add(link)
    assert len(links) > 120


def test_a_link_asks_what_the_keywords_ask(questions: Callable[..., list[dict[str, str]]]) -> None:
    for parameters in questions(20, 1):
        stated = read_url("#" + urlencode(parameters))
        assert Query.from_url("#" + urlencode(parameters)) == recommend(**stated).query


@pytest.mark.slow
def test_a_link_about_a_model_keeps_all_that_was_said_of_it() -> None:
    query = recommend(
        model=_structure(),
        device="RTX 4090",
        training={"sequence_length": 256},
        adapt={"total_steps": 200},
    ).query
    stated = read_url(query.to_url())
    assert stated["model"] == query.model.name
    assert stated["device"] == "RTX 4090"
    assert stated["adapt"] == {"total_steps": "200"}
    assert stated["training"]["sequence_length"] == "256"
    assert "fit" not in stated
    again = recommend(**{**stated, "model": query.model, "peft_version": None}).query
    assert again == query


def _structure() -> Structure:
    from transformers import LlamaConfig

    from peft_shop.model.inspection import inspect_model

    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    config = LlamaConfig(**sizes, **heads, vocab_size=128, max_position_embeddings=512)
    return inspect_model(config).structure


@pytest.mark.parametrize(
    ("link", "error", "words"),
    [
        ("?serv=vllm", UnknownNameError, "serve"),
        ("?max_peak_memry=1GiB", UnknownNameError, "peak_memory"),
        ("?serve=", QueryError, "no value"),
        ("?serve=vllm&serve=tgi", QueryError, "twice"),
        ("?merging=maybe", QueryError, "1 (yes)"),
        ("?quantization=gptq,awq|hqq", QueryError, "comma"),
        ("?max_peak_memory=24", QuantityError, "24GiB"),
        ("?confidence=high", QueryError, "number"),
        ("?rank_by=peak_memory=", QueryError, "NAME=VALUE"),
        ("?catalog=/etc/passwd", QueryError, "catalog"),
        ("?methods=lorra", UnknownNameError, "lora"),
        ("?" + "a" * 30_000 + "=1", QueryError, "characters"),
        ("?" + "&".join(f"a{n}=1" for n in range(200)), QueryError, "cannot read"),
    ],
)
def test_what_a_link_cannot_say_is_named(link: str, error: type[InputError], words: str) -> None:
    with pytest.raises(error, match=r".") as caught:
        Query.from_url(link)
    assert words in str(caught.value)


def test_how_it_is_shown_is_no_question() -> None:
    assert Query.from_url("#merging=1&view=compare&x=train_time&compare=a,b") == Query.from_url(
        "https://host/page?merging=1"
    )
    assert not VIEW & KEYWORDS.keys()


def test_what_follows_the_hash_wins() -> None:
    assert read_url("http://127.0.0.1:80/?merging=1#hot_swapping=0") == {
        "hot_swapping": False,
        "peft_version": "any",
    }
    assert read_url("https://host/a=b") == {"peft_version": "any"}


def test_links_of_another_catalog_leave_out_its_defaults() -> None:
    catalog = load_catalog()
    (first, *_) = catalog.benchmarks
    other = catalog.model_copy(
        update={
            "benchmarks": (first.model_copy(update={"floor": 0.3}), *catalog.benchmarks[1:]),
        }
    )
    query = Query.from_url("", catalog=other)
    assert query.floor == 0.3
    assert "floor" not in query.to_url(catalog=other)
    assert Query.from_url(query.to_url()).floor == 0.3


def test_json_of_a_query_is_as_before() -> None:
    text = Query.from_url("?merging=1").model_dump_json()
    assert "url" not in json.loads(text)

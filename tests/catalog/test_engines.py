"""Facts about engines: the rules they were read for, and that nothing can be added in silence."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from peft_shop import load_catalog
from peft_shop.catalog.catalog import Catalog
from peft_shop.catalog.engines import (
    BASE_KINDS,
    FORMATS,
    OTHER_FORMAT,
    TOPIC_IDS,
    TRAIT_IDS,
    Engine,
    Fact,
)
from peft_shop.catalog.export import dump
from peft_shop.catalog.store import parse
from peft_shop.errors import CatalogError
from peft_shop.serve.traits import TRAITS

ROOT = Path(__file__).parents[2]
CATALOG = load_catalog()
ENGINES = CATALOG.engine_by_id


def value(engine: str, topic: str) -> str:
    fact = ENGINES[engine].facts.get(topic)
    return "unknown" if fact is None else fact.value


def test_the_engines_that_were_read_are_there() -> None:
    assert set(ENGINES) == {
        "vllm",
        "sglang",
        "tgi",
        "lorax",
        "llama.cpp",
        "ollama",
        "tensorrt-llm",
        "onnxruntime-genai",
        "openvino-genai",
        "mlx-lm",
        "diffusers",
        "comfyui",
        "a1111",
        "lmdeploy",
    }


@pytest.mark.parametrize(
    ("engine", "topic", "expected"),
    [
        ("vllm", "lora", "yes"),
        ("vllm", "rslora", "yes"),
        ("vllm", "rank_pattern", "yes"),
        ("vllm", "alpha_pattern", "yes"),
        *(
            ("vllm", topic, "reject")
            for topic in (
                "dora",
                "lora_bias",
                "alora",
                "qalora",
                "bdlora",
                "layer_replication",
                "changed_base",
                "loftq",
                "bias",
                "adalora",
                "loha",
                "oft",
                "vera",
                OTHER_FORMAT,
            )
        ),
        ("vllm", "lora_ga", "silent"),
        ("vllm", "saved_head", "yes"),
        ("vllm", "merge_at_load", "no"),
        *(
            (engine, "rslora", "silent")
            for engine in ("sglang", "llama.cpp", "ollama", "lmdeploy", "openvino-genai")
        ),
        ("tgi", "dora", "silent"),
        ("lorax", "dora", "silent"),
        ("openvino-genai", "dora", "silent"),
        ("openvino-genai", "scale", "silent"),
        ("llama.cpp", "dora", "reject"),
        ("llama.cpp", "alora", "yes"),
        ("llama.cpp", "alpha_pattern", "silent"),
        ("llama.cpp", "rank_pattern", "yes"),
        ("tensorrt-llm", "dora", "yes"),
        ("diffusers", "lora_bias", "yes"),
        ("diffusers", "oft", "reject"),
        ("comfyui", "oft", "no"),
        ("comfyui", "scale", "silent"),
        ("lmdeploy", "dora", "reject"),
        ("tensorrt-llm", "rank_pattern", "yes"),
        ("tgi", "alpha_pattern", "silent"),
        ("tgi", "rank_pattern", "silent"),
        ("diffusers", "rank_pattern", "silent"),
        ("diffusers", "adalora", "silent"),
        ("a1111", "dora", "yes"),
        ("sglang", "lora_bias", "silent"),
        ("sglang", "bias", "reject"),
        ("sglang", "adalora", "reject"),
        ("onnxruntime-genai", "loha", "reject"),
        ("openvino-genai", "ia3", "silent"),
    ],
)
def test_what_was_read(engine: str, topic: str, expected: str) -> None:
    assert value(engine, topic) == expected


def test_what_nobody_looked_up_is_a_debt_that_is_counted() -> None:
    """A topic without a fact, or whose fact is `unknown`, over all engines."""

    def answer(engine: Engine, topic: str) -> str:
        fallback = engine.facts.get(OTHER_FORMAT) if topic in FORMATS else None
        fact = engine.facts.get(topic, fallback)
        return "unknown" if fact is None else fact.value

    debts = [(one.id, topic) for one in CATALOG.engines for topic in TOPIC_IDS]
    assert len([debt for debt in debts if answer(ENGINES[debt[0]], debt[1]) == "unknown"]) <= 30


def test_every_kind_of_base_has_an_answer_for_every_engine_that_cares() -> None:
    """A kind without one makes a doubt; there is none that nobody thought of."""
    for engine in CATALOG.engines:
        assert set(engine.kinds) == set(BASE_KINDS), engine.id


def test_classes_that_were_read() -> None:
    def value_of(engine: str, name: str) -> str:
        group = ENGINES[engine].of_class(name)
        return "none" if group is None else group.value

    for name in ("LlamaForCausalLM", "Qwen3ForCausalLM", "Qwen2_5_VLForConditionalGeneration"):
        assert value_of("vllm", name) == "yes"
    for name in ("GPT2LMHeadModel", "BloomForCausalLM", "MambaForCausalLM"):
        assert value_of("vllm", name) == "reject"
    for name in ("Olmo2ForCausalLM", "SmolLM3ForCausalLM", "SomethingNewForCausalLM"):
        assert value_of("vllm", name) == "unknown"
    assert value_of("lmdeploy", "Olmo2ForCausalLM") == "no"
    assert value_of("ollama", "Qwen3ForCausalLM") == "yes"
    assert value_of("comfyui", "UNet2DConditionModel") == "none"


def test_commands_use_recorded_flags_alone() -> None:
    commands = {one.id: one.command for one in CATALOG.engines if one.command is not None}
    assert {"vllm", "sglang", "lmdeploy", "mlx-lm", "llama.cpp"} <= set(commands)
    for command in commands.values():
        used = re.findall(r"(?<=\s)--?[a-z][a-z-]*", command.line.removeprefix("python -m"))
        assert used
        assert set(used) <= set(command.flags)
        assert "ADAPTER" in command.line


def test_rank_flags() -> None:
    vllm = ENGINES["vllm"].ranks
    assert vllm.choices == (1, 8, 16, 32, 64, 128, 256, 320, 512)
    assert (vllm.flag, vllm.default) == ("--max-lora-rank", 16)
    assert ENGINES["tensorrt-llm"].ranks.default == 64
    assert (ENGINES["lorax"].ranks.least, ENGINES["lorax"].ranks.most) == (8, 128)


def test_formats_beyond_lora_say_whose_names_they_go_by() -> None:
    for engine, methods in {
        "comfyui": ("loha", "lokr", "boft", "glora"),
        "a1111": ("loha", "lokr", "boft", "glora", "ia3", "oft"),
    }.items():
        for method in methods:
            fact = ENGINES[engine].facts[method]
            assert (fact.value, fact.layout) == ("yes", "lycoris")
    lokr = ENGINES["diffusers"].facts["lokr"]
    assert (lokr.value, lokr.layout) == ("silent", "lycoris")
    assert lokr.needs is not None
    mine = {
        topic: fact.layout
        for topic, fact in ENGINES["mlx-lm"].facts.items()
        if fact.value == "yes" and topic != "quantized_base"
    }
    assert set(mine.values()) == {"own"}


def test_every_fact_leads_to_a_source_and_its_date() -> None:
    for engine in CATALOG.engines:
        assert re.fullmatch(r"\d{4}-\d\d-\d\d", engine.checked)
        for topic, fact in engine.facts.items():
            source = engine.sources[fact.source]
            assert source.place
            assert source.version or engine.version
            assert topic in TOPIC_IDS
            if fact.value == "unknown":
                assert fact.note
            if fact.value in {"no", "reject", "unknown"}:
                assert fact.needs is None, "what does not load needs nothing"


def test_traits_are_those_that_can_be_recognised() -> None:
    assert set(TRAITS) == set(TRAIT_IDS)
    assert not FORMATS & set(TRAITS)


def test_unknown_keys_and_values_are_mistakes() -> None:
    plain = ENGINES["vllm"].model_dump()
    for wrong in (
        {"colour": "red"},
        {"kind": "toaster"},
        {"facts": {"lora": {"value": "maybe"}}},
        {"facts": {"lora": {"value": "yes", "layout": "mine"}}},
        {"id": "v LLM"},
        {"checked": "yesterday"},
    ):
        with pytest.raises(ValidationError):
            Engine.model_validate({**plain, **wrong})
    with pytest.raises(ValidationError):
        Fact.model_validate({"value": True})


def document(**changes: object) -> bytes:
    engine = ENGINES["vllm"]
    bare = {name: getattr(CATALOG, name) for name in Catalog.model_fields}
    return dump(Catalog(**bare | {"engines": (engine.model_copy(update=changes),)}))


def test_a_file_whose_references_lead_nowhere_is_refused() -> None:
    facts = {"lora": Fact(value="yes", source="cod"), "lorra": Fact(value="no")}
    with pytest.raises(CatalogError) as caught:
        parse(document(facts=facts))
    found = {problem.where: str(problem) for problem in caught.value.problems}
    assert set(found) == {"engines[0].facts.lora.source", "engines[0].facts"}
    assert "did you mean 'code'?" in found["engines[0].facts.lora.source"]
    assert "did you mean 'lora'?" in found["engines[0].facts"]


def test_conversions_whose_references_lead_nowhere_are_refused() -> None:
    first = CATALOG.conversions[0]
    wrong = (
        first.model_copy(update={"method": "loora"}),
        first.model_copy(update={"traits": ("doora",)}),
        first.model_copy(update={"defaults": {}}),
    )
    bare = {name: getattr(CATALOG, name) for name in Catalog.model_fields}
    with pytest.raises(CatalogError) as caught:
        parse(dump(Catalog(**bare | {"conversions": wrong})))
    assert [problem.where for problem in caught.value.problems] == [
        "conversions[0].method",
        "conversions[1].traits[0]",
        "conversions[2].rank",
    ]


def test_a_catalog_without_engines_still_loads() -> None:
    bare = {name: getattr(CATALOG, name) for name in Catalog.model_fields}
    text = dump(Catalog(**bare | {"engines": (), "conversions": ()}))
    assert b'"engines":[' not in text
    assert parse(text).engines == ()


def test_every_engine_and_topic_is_read_back() -> None:
    again = parse(dump(CATALOG))
    assert again.engines == CATALOG.engines
    assert again.conversions == CATALOG.conversions

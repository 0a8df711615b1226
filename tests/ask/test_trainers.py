"""Questions that name a trainer: what it takes is kept, everything else says why it is left out."""

from __future__ import annotations

import json
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from peft_shop import any_of, load_catalog, recommend
from peft_shop.ask.query import Query
from peft_shop.cli.app import app
from peft_shop.errors import UnknownNameError

if TYPE_CHECKING:
    from peft_shop import Recommendation
    from peft_shop.ask.candidates import Candidate
    from peft_shop.model.structure import Structure

CATALOG = load_catalog()


def asked(trainer: Any, **more: Any) -> Recommendation:
    return recommend("metamathqa", trainer=trainer, peft_version="any", **more)


def kept(found: Recommendation) -> list[Candidate]:
    """What meets every constraint; baselines are no candidates."""
    return [*found.front, *found.ties, *found.dominated, *found.too_close]


@pytest.mark.parametrize("trainer", [one.id for one in CATALOG.trainers])
def test_kept_are_accepted_and_dropped_say_why(trainer: str) -> None:
    everything = asked(None)
    found = asked(trainer)
    assert {one.trainers[trainer].verdict for one in kept(found)} <= {"accepts"}
    names = {one.name for one in kept(everything)}
    assert {one.name for one in kept(found)} <= names
    for one in found.dropped:
        mine = [failure for failure in one.failures if failure.constraint == "trainer"]
        if one.name in names:
            assert [failure.demanded for failure in mine] == [trainer]
            assert mine[0].reason.startswith(f"{trainer}: ")
    if not found.front:
        assert any("train with another tool" in one.suggestion for one in found.relaxations)


def test_partly_admits_more_and_never_the_unknown_or_refused() -> None:
    for trainer in CATALOG.trainer_by_id:
        whole = {one.name for one in kept(asked(trainer))}
        partly = asked(f"{trainer}:partly")
        assert whole <= {one.name for one in kept(partly)}
        verdicts = {one.trainers[trainer].verdict for one in kept(partly)}
        assert verdicts <= {"accepts", "partly"}


def test_a_list_means_all_and_any_of_one() -> None:
    def names(trainer: Any) -> set[str]:
        return {one.name for one in kept(asked(trainer))}

    both = names(["unsloth", "llama-factory"])
    assert both == names("unsloth") & names("llama-factory")
    either = names(any_of("unsloth", "llama-factory"))
    assert either == names("unsloth") | names("llama-factory")


def test_the_question_is_echoed_and_survives_json() -> None:
    found = asked("trl==1.15.0")
    assert Query.model_validate_json(found.query.model_dump_json()) == found.query
    several = asked(any_of("trl==1.15.0", "axolotl:partly")).query
    assert Query.from_url(several.to_url()) == several
    taken = json.loads(found.to_json())["front"][0]["trainers"]["trl"]
    assert taken["verdict"] == "accepts"
    assert "1.15.0" in taken["cautions"][0]


def test_an_unknown_trainer_is_an_error_that_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="llama-factory"):
        asked("lama factory")
    done = CliRunner().invoke(app, ["recommend", "--trainer", "unslooth"])
    assert isinstance(done.exception, UnknownNameError)
    assert "unsloth" in str(done.exception)


def test_answers_in_text_name_the_trainer_and_what_to_do() -> None:
    words = ["recommend", "--trainer", "trl", "--method", "adalora", "--peft-version", "any"]
    done = CliRunner().invoke(app, [*words, "--format", "markdown"])
    assert done.exit_code == 0
    assert "trained with trl" in done.stdout
    assert "update_and_allocate" in done.stdout


# --- plans ---


@cache
def model() -> Structure:
    transformers = pytest.importorskip("transformers")
    from peft_shop.model.inspection import inspect_model

    config = transformers.Qwen3Config(
        hidden_size=4096,
        intermediate_size=12288,
        num_hidden_layers=36,
        num_attention_heads=32,
        num_key_value_heads=8,
        head_dim=128,
        vocab_size=151_936,
        tie_word_embeddings=False,
        dtype="bfloat16",
        architectures=["Qwen3ForCausalLM"],
    )
    found: Structure = inspect_model(config).structure
    return found


def test_a_plan_goes_around_what_the_trainer_refuses_in_some_setups() -> None:
    question = {"model": model(), "device": "RTX 4090", "methods": ["prefix_tuning", "loha"]}
    free = {one.name: one.setup for one in kept(recommend(**question))}
    bound = recommend(trainer="trl", **question)
    assert any(setup and setup.settings.gradient_checkpointing for setup in free.values())
    for one in kept(bound):
        assert one.setup is not None
        # prefix tuning fails under checkpointing there, and LoHa on a 4-bit base
        assert one.method != "prefix_tuning" or not one.setup.settings.gradient_checkpointing
        assert one.method != "loha" or one.setup.settings.quantization is None
    for dropped in bound.dropped:
        told = " ".join(failure.reason for failure in dropped.failures)
        if dropped.name in free and "would need" in told:
            assert "trl does not take it" in told


def test_model_device_trainer_and_engine_in_one_question() -> None:
    found = recommend(model=model(), device="RTX 4090", trainer="unsloth", serve="vllm")
    best = found.best
    assert best.setup is not None
    assert best.trainers["unsloth"].verdict == "accepts"
    assert best.routes["vllm"].kind in {"native", "convert", "merge"}

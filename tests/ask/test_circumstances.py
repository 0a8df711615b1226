"""Verdicts that depend on the model or on the script: met, contradicted, or open."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from peft_shop import load_catalog, recommend
from peft_shop.adapt.circumstances import measured_circumstances, model_circumstances
from peft_shop.adapt.measured import MEASURED
from peft_shop.catalog.features import FULL_FINETUNING

if TYPE_CHECKING:
    from peft_shop import Recommendation
    from peft_shop.model.structure import Structure

transformers = pytest.importorskip("transformers")
CATALOG = load_catalog()
HANG_ON_BIAS = ("c3a", "gralora")
"""Methods with runs that train on bnb_8bit layers only where these have no bias."""


def llama(*, bias: bool) -> Structure:
    from peft_shop.model.inspection import inspect_model

    config = transformers.LlamaConfig(
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=128,
        attention_bias=bias,
        mlp_bias=bias,
        architectures=["LlamaForCausalLM"],
    )
    return inspect_model(config).structure


def kept(found: Recommendation) -> set[str]:
    return {one.method for one in found.kept}


def reasons(found: Recommendation, method: str, constraint: str) -> list[str]:
    return [
        failure.reason
        for one in found.dropped
        if one.method == method
        for failure in one.failures
        if failure.constraint == constraint
    ]


@pytest.mark.parametrize("way", ["question", "training", "model"])
def test_a_condition_counts_as_the_model_has_it(way: str) -> None:
    for bias in (False, True):
        model = llama(bias=bias)
        options: dict[str, dict[str, Any]] = {
            "question": {"quantization": "bnb_8bit"},
            "training": {"training": {"quantization": "bnb_8bit"}},
            "model": {},
        }
        if way == "model":
            model = model.model_copy(update={"quantization": "bnb_8bit"})
        found = recommend(model=model, peft_version="any", **options[way])
        constraint = {"question": "quantization"}.get(way, way)
        for method in HANG_ON_BIAS:
            if bias:
                assert any("bias" in reason for reason in reasons(found, method, constraint))
                assert method not in kept(found)
            else:
                assert not reasons(found, method, constraint)
                assert method in kept(found)
                notes = [n for one in found.kept if one.method == method for n in one.notes]
                assert any("only on layers without a bias, as here" in note for note in notes)


def test_without_a_model_it_is_that_of_the_benchmark() -> None:
    """The models that were measured have no biases, and their scripts' states three dimensions."""
    plain = recommend(identity_at_start=True, layer_types=["linear"], quantization="bnb_8bit")
    for method in HANG_ON_BIAS:
        for constraint in ("layer_types", "quantization"):
            assert not reasons(plain, method, constraint)
    assert not reasons(plain, "adaption_prompt", "identity_at_start")


def test_an_identity_that_a_bias_breaks_is_none_on_such_a_model() -> None:
    for bias, holds in ((False, True), (True, False)):
        found = recommend(model=llama(bias=bias), identity_at_start=True, peft_version="any")
        assert bool(reasons(found, "adaption_prompt", "identity_at_start")) is not holds


def test_every_condition_of_the_catalog_is_settled_by_the_measured_models() -> None:
    """Nothing of a question without a model is left open for want of a fact about its model."""
    known = {
        **measured_circumstances("meta-llama/Llama-3.2-3B"),
        "dtype": frozenset({"bfloat16"}),
        "prepared": frozenset({True}),
    }
    for method in CATALOG.methods:
        for feature, capability in method.capabilities.items():
            if capability.conditions and "conv" not in feature:
                assert capability.under(known) in {"yes", "no"}, (method.id, feature)


@pytest.mark.parametrize("model_id", sorted(MEASURED))
def test_what_is_said_of_a_measured_model_is_what_its_structure_says(model_id: str) -> None:
    from pathlib import Path

    from peft_shop.curate.calibration.structures import load_structures

    (benchmark,) = (one.id for one in CATALOG.benchmarks if one.model_id == model_id)
    structure = load_structures(Path(__file__).parents[2] / "data")[benchmark]
    stated = measured_circumstances(model_id)
    read = model_circumstances(structure, None)
    assert stated["bias"] == read["bias"]
    assert stated["tied"] == read["tied"]


def test_full_finetuning_is_nobody_that_a_condition_drops() -> None:
    found = recommend(model=llama(bias=True), quantization="bnb_8bit", peft_version="any")
    assert all(one.method != FULL_FINETUNING for one in found.dropped)

"""Common text models are understood without torch, exactly as an inspection understands them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from peft_shop.errors import MissingExtraError, ModelError
from peft_shop.model.checkpoints import Checkpoint
from peft_shop.model.common_types import _USUAL, structure_from
from peft_shop.model.description import describe
from peft_shop.model.inspection import inspect_model
from peft_shop.model.loading import load_model

if TYPE_CHECKING:
    from peft_shop.model.structure import Structure

TYPES = ("llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3_text")
TEXT_CONFIGS = {
    "llama": "LlamaConfig", "mistral": "MistralConfig", "qwen2": "Qwen2Config",
    "qwen3": "Qwen3Config", "gemma2": "Gemma2Config", "gemma3_text": "Gemma3TextConfig",
}  # fmt: skip
CLASSES = {
    "llama": "Llama", "mistral": "Mistral", "qwen2": "Qwen2", "qwen3": "Qwen3",
    "gemma2": "Gemma2", "gemma3_text": "Gemma3",
}  # fmt: skip


def checkpoint(content: dict[str, Any]) -> Checkpoint:
    return Checkpoint("a model", content, "there", "there/config.json", Path("/nowhere"))


def inspected(content: dict[str, Any]) -> Structure | None:
    """What the long way finds; `None` where the libraries refuse the configuration."""
    try:
        return describe(load_model(checkpoint(content)), None)
    except ModelError:
        return None


@pytest.mark.parametrize("kind", TYPES)
def test_the_defaults_are_those_of_the_installed_classes(kind: str) -> None:
    found = structure_from(checkpoint({"model_type": kind, "num_hidden_layers": 1}))
    assert found is not None
    assert found == inspected({"model_type": kind, "num_hidden_layers": 1})


CONFIGURATIONS = st.fixed_dictionaries(
    {
        "model_type": st.sampled_from(TYPES),
        "num_hidden_layers": st.integers(1, 2),
        "hidden_size": st.sampled_from([48, 64]),
        "intermediate_size": st.sampled_from([64, 80]),
    },
    optional={
        "num_attention_heads": st.sampled_from([2, 4, 8]),
        "num_key_value_heads": st.sampled_from([None, 1, 2, 4]),
        "head_dim": st.sampled_from([None, 8, 40]),
        "vocab_size": st.sampled_from([64, 96]),
        "tie_word_embeddings": st.booleans(),
        "attention_bias": st.booleans(),
        "mlp_bias": st.booleans(),
        "max_position_embeddings": st.just(512),
        "dtype": st.sampled_from(["float16", "torch.bfloat16", None]),
        "torch_dtype": st.just("float32"),
        "rope_scaling": st.sampled_from([None, {"type": "linear", "factor": 2.0}]),
        "pad_token_id": st.sampled_from([None, 0, 80]),
        "architectures": st.sampled_from([[], ["LlamaForCausalLM"], ["Qwen3ForCausalLM"]]),
        "sliding_window": st.sampled_from([None, 128]),
        "hidden_act": st.just("silu"),
        "num_experts": st.just(4),
        "quantization_config": st.just({"quant_method": "fp8"}),
    },
)


@given(CONFIGURATIONS)
@settings(max_examples=60)
def test_both_ways_give_the_same_structure(content: dict[str, Any]) -> None:
    short = structure_from(checkpoint(content))
    if {"num_experts", "quantization_config"} & content.keys():
        assert short is None
    # what is refused here may be fine there; what is made here must be so there
    if short is not None:
        assert short == inspected(content)


@pytest.mark.parametrize("kind", TYPES)
def test_usual_files_are_among_what_is_known(kind: str) -> None:
    content = {
        "model_type": kind, "architectures": [f"{CLASSES[kind]}ForCausalLM"], "hidden_size": 64,
        "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "vocab_size": 128, "torch_dtype": "bfloat16",
        "rms_norm_eps": 1e-5, "rope_theta": 500000.0, "use_cache": True, "bos_token_id": 1,
        "eos_token_id": [1, 2], "initializer_range": 0.02, "transformers_version": "4.51.0",
        "tie_word_embeddings": True, "attention_dropout": 0.0, "max_position_embeddings": 4096,
    }  # fmt: skip
    short = structure_from(checkpoint(content))
    assert short is not None
    assert short == inspected(content)


@pytest.mark.parametrize("kind", TYPES)
def test_a_file_that_spells_out_every_default_is_known(kind: str) -> None:
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "vocab_size": 128}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "pad_token_id": 0}
    made = getattr(transformers, TEXT_CONFIGS[kind])(**sizes, **heads)
    whole = json.loads(made.to_json_string(use_diff=False))
    assert len(whole) > 25
    # as older versions wrote it, with what is of generation
    older = {**_USUAL, **whole, "tie_encoder_decoder": False, "num_beams": 1}
    for content in (whole, older):
        short = structure_from(checkpoint(content))
        assert short is not None, kind
        assert short == inspected(content)


@pytest.mark.parametrize(
    "change",
    [
        {"pruned_heads": {"0": [1]}}, {"is_decoder": True}, {"return_dict": 1},
        {"id2label": {"0": "good"}}, {"use_bidirectional_attention": "all"},
        {"model_type": "mixtral"}, {"model_type": None}, {"auto_map": {"AutoConfig": "a.B"}},
        {"quantization_config": {"quant_method": "gptq"}}, {"text_config": {}},
        {"architectures": ["LlamaForSequenceClassification"]}, {"a_key_of_tomorrow": 1},
        {"hidden_size": 50}, {"num_attention_heads": 0}, {"attention_bias": 1},
        {"rope_scaling": {"rope_type": "of tomorrow"}}, {"layer_types": ["full_attention"]},
    ],
)  # fmt: skip
def test_whatever_is_not_plainly_known_is_left_to_an_inspection(change: dict[str, Any]) -> None:
    usual = {"model_type": "llama", "hidden_size": 64, "num_attention_heads": 4}
    assert structure_from(checkpoint(usual)) is not None
    assert structure_from(checkpoint(usual | change)) is None


def test_an_instance_is_made_when_it_is_asked_for(tmp_path: Path) -> None:
    content = {"model_type": "llama", "hidden_size": 64, "num_hidden_layers": 1}
    (tmp_path / "config.json").write_text(json.dumps(content))
    target = inspect_model(tmp_path)
    assert target.config.hidden_size == 64
    first, second = target.skeleton(), target.skeleton()
    assert first is not second
    assert sum(one.numel() for one in first.parameters()) == target.structure.parameters


ANSWER = """
import sys
from peft_shop import recommend
answer = recommend(model={folder!r}, device="RTX 4090")
assert answer.query.model is not None and answer.candidates
print(sorted({{"torch", "transformers", "peft", "diffusers"}} & set(sys.modules)))
"""


def test_a_question_about_a_common_model_imports_no_torch(tmp_path: Path) -> None:
    content = {"model_type": "qwen3", "hidden_size": 64, "num_hidden_layers": 2, "dtype": "float16"}
    (tmp_path / "config.json").write_text(json.dumps(content))
    code = ANSWER.format(folder=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "[]\n", done.stderr


def test_without_torch_it_is_asked_for_where_it_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("peft_shop.model.inspection.find_spec", lambda _: None)
    content = {"model_type": "llama", "hidden_size": 64, "num_hidden_layers": 1}
    (tmp_path / "config.json").write_text(json.dumps(content))
    target = inspect_model(tmp_path)
    assert target.structure.dimensions.hidden_size == 64
    with pytest.raises(MissingExtraError, match=r"pip install 'peft-shop\[peft\]'"):
        target.skeleton()
    (tmp_path / "config.json").write_text(json.dumps(content | {"model_type": "olmo2"}))
    with pytest.raises(MissingExtraError, match=r"pip install 'peft-shop\[peft\]'"):
        inspect_model(tmp_path)

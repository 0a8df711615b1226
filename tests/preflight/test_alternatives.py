"""Batches that a model takes where the usual one is refused, and what is said where none is."""

from __future__ import annotations

from typing import Any

import pytest
import transformers

from peft_shop.adapt.retarget import retarget
from peft_shop.catalog.store import load
from peft_shop.errors import ForecastError
from peft_shop.model.inspection import inspect_model
from peft_shop.preflight import trying
from peft_shop.preflight.batches import make_batch
from peft_shop.preflight.checking import preflight
from peft_shop.preflight.forward import forward_pass
from peft_shop.upstream.configs import config_from_dict

SMALL = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
HEADS = {**SMALL, "num_attention_heads": 4}

WANT_MORE: dict[str, Any] = {
    "video in five dimensions": transformers.TimesformerConfig(
        **HEADS, image_size=32, patch_size=16, num_frames=2
    ),
    "a spectrogram": transformers.ASTConfig(
        **HEADS, num_mel_bins=32, max_length=64, patch_size=16
    ),
    "a series": transformers.PatchTSTConfig(
        d_model=32, num_hidden_layers=2, ffn_dim=48, context_length=32, patch_length=8
    ),
    "frames before features": transformers.Wav2Vec2BertConfig(
        **HEADS, feature_projection_input_dim=24
    ),
    "packed patches and their grid": transformers.Siglip2VisionConfig(
        **HEADS, patch_size=4, num_patches=16
    ),
    "boxes beside the text": transformers.UdopConfig(
        vocab_size=64, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, image_size=32,
        patch_size=16,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WANT_MORE)
@pytest.mark.filterwarnings("ignore")
def test_a_model_that_wants_more_than_the_usual_batch_is_tried(name: str) -> None:
    target = inspect_model(WANT_MORE[name])
    model = target.skeleton()
    try:
        usual = make_batch(model, target.config, trying._Small())
    except ForecastError:
        usual = None
    assert usual is None or forward_pass(model, usual).error is not None
    assert trying.bare_of(target).because == ""
    method = load().method_by_id["lora"]
    made = retarget(load(), method, target.structure)
    found = preflight(target, config_from_dict(made.config))
    assert (found.forward, found.not_tried_because) == ("passed", None)


def test_without_a_limit_on_positions_a_batch_is_as_long_as_asked() -> None:
    config = transformers.LlamaConfig(**HEADS, vocab_size=64)
    config.max_position_embeddings = -1
    model = inspect_model(transformers.LlamaConfig(**HEADS, vocab_size=64)).skeleton()
    first = make_batch(model, config, trying._Small())
    assert first["input_ids"].shape == (2, 16)


def test_what_takes_pictures_is_no_text_model_for_want_of_a_word() -> None:
    # its class inherits "text" as what goes in and names its main input `pixel_values`
    found = inspect_model(
        transformers.RegNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1])
    )
    assert found.structure.modality == "vision"
    assert found.structure.benchmark is None


BLIP = transformers.BlipConfig(
    text_config={**HEADS, "vocab_size": 64, "encoder_hidden_size": 32},
    vision_config={**HEADS, "image_size": 32, "patch_size": 16},
    architectures=["BlipForConditionalGeneration"],
)


@pytest.mark.filterwarnings("ignore")
def test_peft_wrappers_that_a_model_cannot_be_called_through_are_left_out() -> None:
    target = inspect_model(BLIP)
    assert not target.structure.takes_embeddings
    lora = retarget(load(), load().method_by_id["lora"], target.structure)
    assert "task_type" not in lora.config
    assert preflight(target, config_from_dict(lora.config)).forward == "passed"
    prompts = retarget(load(), load().method_by_id["prompt_tuning"], target.structure)
    assert any("inputs_embeds" in one or "text model" in one for one in prompts.problems)
    assert inspect_model(
        transformers.LlamaConfig(**HEADS, vocab_size=64)
    ).structure.takes_embeddings


@pytest.mark.parametrize("name", ["lora-fa", "riemannian"])
def test_an_optimizer_of_matrices_is_not_offered_for_convolutions(name: str) -> None:
    own = next(run for run in load().runs if run.recipe.training.optimizer.lower() == name)
    regnet = inspect_model(
        transformers.RegNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1])
    )
    found = retarget(load(), own, regnet.structure)
    assert any("optimizer" in one for one in found.problems)
    plain = next(
        run
        for run in load().runs
        if run.method == "lora" and run.recipe.training.optimizer.lower() == "adamw"
    )
    assert not any("optimizer" in one for one in retarget(load(), plain, regnet.structure).problems)
    llama = inspect_model(transformers.LlamaConfig(**HEADS, vocab_size=64))
    assert not retarget(load(), own, llama.structure).problems

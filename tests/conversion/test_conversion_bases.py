"""Bases of every kind: the class that they name, parts of a model, heads, ties, experts."""

from __future__ import annotations

import json
import shutil
import warnings
from typing import TYPE_CHECKING, Any

import pytest

from peft_shop.errors import ConversionError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

torch = pytest.importorskip("torch", reason="needs peft-shop[peft]")
peft = pytest.importorskip("peft", reason="needs peft-shop[peft]")

import transformers  # noqa: E402 - after the check for torch
from safetensors.torch import load_file, save_file  # noqa: E402 - as above

from peft_shop import convert  # noqa: E402 - as above

SAME = 1e-4
TEXT: dict[str, Any] = {
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 12,
    "vocab_size": 50,
}


@pytest.fixture(autouse=True)
def _quiet_and_small() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft and transformers warn of what is done on purpose
        yield
    torch.set_num_threads(threads)


def qwen3(**changes: Any) -> Any:
    torch.manual_seed(0)
    return transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**TEXT | changes)).eval()


def qwen3_vl() -> Any:
    torch.manual_seed(0)
    rope = {"rope_type": "default", "mrope_section": [2, 2, 2], "mrope_interleaved": True}
    config = transformers.Qwen3VLConfig(
        text_config=TEXT | {"rope_scaling": rope},
        vision_config={
            "depth": 1,
            "hidden_size": 16,
            "intermediate_size": 24,
            "num_heads": 2,
            "out_hidden_size": 24,
            "deepstack_visual_indexes": [0],
            "num_position_embeddings": 16,
        },
    )
    return transformers.Qwen3VLForConditionalGeneration(config).eval()


def saved(model: Any, config: Any, folder: Path, **options: Any) -> Any:
    """Saves a randomised adapter of a model; gives the model with it."""
    wrapped = peft.get_peft_model(model, config)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for weight in wrapped.parameters():
            if weight.requires_grad:
                weight.add_(0.1 * torch.randn(weight.shape, generator=generator))
    wrapped.save_pretrained(folder, **options)
    return wrapped.eval()


def lora(*targets: str, task: str | None = "CAUSAL_LM", **settings: Any) -> Any:
    names = list(targets) if len(targets) != 1 or targets[0].isidentifier() else targets[0]
    return peft.LoraConfig(r=2, lora_alpha=6, target_modules=names, task_type=task, **settings)


def outputs(model: Any, vocabulary: int = 50) -> Any:
    ids = torch.randint(0, vocabulary, (1, 7), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        return model.eval()(input_ids=ids).logits


def deviation(found: Any, wanted: Any) -> float:
    return float((found - wanted).abs().max() / wanted.abs().max())


# --- the class that the base names ---


@pytest.mark.parametrize("to", ["lora", "merged"])
def test_a_model_that_sees_under_a_task_of_text(to: Any, tmp_path: Path) -> None:
    model = qwen3_vl()
    model.save_pretrained(tmp_path / "base")
    wanted = outputs(saved(model, lora(r".*language_model.*\.(q|v)_proj"), tmp_path / "adapter"))
    report = convert(tmp_path / "adapter", base=tmp_path / "base", output=tmp_path / "out", to=to)
    assert report.logits is not None
    assert report.logits.deviation < SAME < report.logits.effect
    kind = transformers.Qwen3VLForConditionalGeneration
    if to == "merged":
        found = outputs(kind.from_pretrained(tmp_path / "out"))
    else:
        fresh = kind.from_pretrained(tmp_path / "base")
        found = outputs(peft.PeftModel.from_pretrained(fresh, str(tmp_path / "out")))
    assert deviation(found, wanted) < SAME


def test_an_adapter_of_the_text_model_alone_moves_into_the_whole(tmp_path: Path) -> None:
    """The delta-W of every layer is that of the text model, patterns of ranks and scales too."""
    qwen3_vl().save_pretrained(tmp_path / "base")
    settings = {
        "rank_pattern": {"model.layers.0.self_attn.q_proj": 5},
        "alpha_pattern": {r"model\.layers\.1\.self_attn\.v_proj": 9},
        "layers_to_transform": [0, 1],
    }
    adapted = saved(qwen3(), lora("q_proj", "v_proj", **settings), tmp_path / "adapter")
    report = convert(tmp_path / "adapter", base=tmp_path / "base", output=tmp_path / "out")
    assert any(
        "part of" in warning and "model.language_model." in warning for warning in report.warnings
    )
    made = load_file(tmp_path / "out" / "adapter_model.safetensors")
    for name, layer in adapted.base_model.model.named_modules():
        if not hasattr(layer, "lora_A"):
            continue
        start = f"base_model.model.{name.replace('model.', 'model.language_model.', 1)}"
        found = made[f"{start}.lora_B.weight"] @ made[f"{start}.lora_A.weight"]
        assert deviation(found, layer.get_delta_weight("default").detach()) < SAME
    assert len(made) == 8


def test_names_of_another_model_are_not_moved(tmp_path: Path) -> None:
    torch.manual_seed(0)
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    bert = transformers.BertConfig(**small, intermediate_size=16, vocab_size=30)
    saved(transformers.BertModel(bert), lora("query", task=None), tmp_path / "adapter")
    roberta = transformers.RobertaConfig(**small, intermediate_size=16, vocab_size=30)
    transformers.RobertaForMaskedLM(roberta).save_pretrained(tmp_path / "base")
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    tensors = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    renamed = {key.replace("model.encoder", "model.bert.encoder"): t for key, t in tensors.items()}
    save_file(renamed, tmp_path / "adapter" / "adapter_model.safetensors")
    assert config["target_modules"] == ["query"]
    with pytest.raises(ConversionError, match="is this the base"):
        convert(tmp_path / "adapter", base=tmp_path / "base", output=tmp_path / "out")


def test_a_classifier_without_a_padding_token(tmp_path: Path) -> None:
    model = qwen3(pad_token_id=None)
    model.save_pretrained(tmp_path / "base")
    kind = transformers.Qwen3ForSequenceClassification
    headed = kind.from_pretrained(tmp_path / "base", num_labels=5)
    wanted = outputs(saved(headed, lora("q_proj", task="SEQ_CLS"), tmp_path / "adapter"))
    for to in ("lora", "merged"):
        out = tmp_path / to
        report = convert(tmp_path / "adapter", base=tmp_path / "base", output=out, to=to)
        assert report.logits is not None
        assert report.logits.deviation < SAME < report.logits.effect
    assert deviation(outputs(kind.from_pretrained(tmp_path / "merged")), wanted) < SAME


def test_a_head_that_nobody_saved_is_told(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = transformers.BertConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        vocab_size=30,
    )
    transformers.BertForMaskedLM(config).save_pretrained(tmp_path / "base")
    headed = transformers.BertForSequenceClassification(config)  # has a pooler, the base has none
    saved(headed, lora("query", task="SEQ_CLS"), tmp_path / "adapter")
    report = convert(tmp_path / "adapter", base=tmp_path / "base", output=tmp_path / "out")
    assert report.within_tolerance
    assert any("bert.pooler.dense" in warning for warning in report.warnings)
    with pytest.raises(ConversionError, match=r"no weights for bert\.pooler"):
        convert(
            tmp_path / "adapter", base=tmp_path / "base", output=tmp_path / "whole", to="merged"
        )


def test_a_model_that_hears(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = transformers.WhisperConfig(
        vocab_size=40,
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        num_mel_bins=4,
        max_source_positions=10,
        max_target_positions=20,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
        suppress_tokens=None,
        begin_suppress_tokens=None,
    )
    model = transformers.WhisperForConditionalGeneration(config)
    model.save_pretrained(tmp_path / "base")
    saved(model, lora("q_proj", task="SEQ_2_SEQ_LM"), tmp_path / "adapter")
    report = convert(tmp_path / "adapter", base=tmp_path / "base", output=tmp_path / "out")
    assert report.logits is not None
    assert report.logits.inputs == "a random sound"
    assert report.logits.deviation < SAME < report.logits.effect


def test_where_outputs_cannot_be_had_the_layers_are_compared(tmp_path: Path) -> None:
    class Odd(torch.nn.Module):  # type: ignore[misc] # torch is not followed by mypy
        main_input_name = "input_ids"

        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.config = transformers.PretrainedConfig()
            self.config.vocab_size = 9
            self.proj = torch.nn.Linear(8, 8)

        def forward(self, waves: Any) -> Any:
            return self.proj(waves)

    saved(Odd(), lora("proj", task=None), tmp_path / "adapter")
    report = convert(tmp_path / "adapter", base=Odd(), output=tmp_path / "out")
    assert report.logits is None
    assert "does not run here" in str(report.logits_because)
    assert report.exact
    with pytest.raises(ConversionError, match="cannot compare the outputs"):
        convert(tmp_path / "adapter", base=Odd(), output=tmp_path / "two", check="logits")


# --- vocabularies, ties, experts ---


@pytest.mark.parametrize("to", ["lora", "merged"])
@pytest.mark.parametrize("whole", [True, False])
def test_a_resized_vocabulary_is_one_sentence(to: Any, whole: bool, tmp_path: Path) -> None:
    model = qwen3(tie_word_embeddings=False)
    model.save_pretrained(tmp_path / "base")
    model.resize_token_embeddings(61)
    config = (
        lora("q_proj", modules_to_save=["embed_tokens", "lm_head"])
        if whole
        else lora("q_proj", "embed_tokens", "lm_head")
    )
    saved(model, config, tmp_path / "adapter", save_embedding_layers=whole)
    with pytest.raises(ConversionError, match="resized to 61 for the training") as caught:
        convert(tmp_path / "adapter", base=tmp_path / "base", output=tmp_path / "out", to=to)
    assert "resize_token_embeddings(61)" in str(caught.value)


@pytest.mark.parametrize("to", ["lora", "merged"])
@pytest.mark.parametrize(
    "settings",
    [
        {"modules_to_save": ["lm_head"]},
        {"modules_to_save": ["embed_tokens"]},
        {"modules_to_save": ["embed_tokens", "lm_head"]},
        {"modules_to_save": ["embed_tokens"], "ensure_weight_tying": True},
    ],
    ids=["head", "embeddings", "both", "kept tied"],
)
def test_whole_modules_of_tied_models(settings: dict[str, Any], to: Any, tmp_path: Path) -> None:
    model = qwen3(tie_word_embeddings=True)
    model.save_pretrained(tmp_path / "base")
    wanted = outputs(saved(model, lora("q_proj", **settings), tmp_path / "adapter"))
    report = convert(tmp_path / "adapter", base=tmp_path / "base", output=tmp_path / "out", to=to)
    assert report.within_tolerance
    kind = transformers.Qwen3ForCausalLM
    if to == "merged":
        found = outputs(kind.from_pretrained(tmp_path / "out"))
        tied = json.loads((tmp_path / "out" / "config.json").read_text())["tie_word_embeddings"]
        assert tied == ("ensure_weight_tying" in settings)
    else:
        fresh = kind.from_pretrained(tmp_path / "base")
        found = outputs(peft.PeftModel.from_pretrained(fresh, str(tmp_path / "out")))
    assert deviation(found, wanted) < SAME


def test_experts_are_merged_as_peft_merges_them(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = transformers.Qwen3MoeConfig(
        **TEXT, num_experts=3, num_experts_per_tok=2, moe_intermediate_size=20
    )
    model = transformers.Qwen3MoeForCausalLM(config)
    model.save_pretrained(tmp_path / "base")
    names = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
    adapted = saved(model, lora("q_proj", "k_proj", target_parameters=names), tmp_path / "adapter")
    wanted = outputs(adapted)
    oracle = adapted.merge_and_unload().state_dict()
    with pytest.raises(ConversionError, match=r"bare parameters .* merge it instead"):
        convert(tmp_path / "adapter", base=tmp_path / "base", output=tmp_path / "lora")
    report = convert(
        tmp_path / "adapter", base=tmp_path / "base", output=tmp_path / "out", to="merged"
    )
    assert report.within_tolerance
    merged = transformers.Qwen3MoeForCausalLM.from_pretrained(tmp_path / "out")
    assert deviation(outputs(merged), wanted) < SAME
    for name, weight in merged.state_dict().items():
        assert torch.allclose(weight, oracle[name], atol=1e-6), name


# --- adapters of other tools, and incomplete names ---


def test_keys_without_their_prefix_are_read_with_it(tmp_path: Path) -> None:
    model = qwen3()
    model.save_pretrained(tmp_path / "base")
    wanted = outputs(saved(model, lora("q_proj", "v_proj"), tmp_path / "adapter"))
    file = tmp_path / "adapter" / "adapter_model.safetensors"
    bare = {key.removeprefix("base_model.model."): t for key, t in load_file(file).items()}
    save_file(bare, file)
    report = convert(tmp_path / "adapter", base=tmp_path / "base", output=tmp_path / "out")
    assert report.logits is not None
    assert report.logits.effect > SAME
    assert any("lack peft's prefix" in warning for warning in report.warnings)
    fresh = transformers.Qwen3ForCausalLM.from_pretrained(tmp_path / "base")
    assert (
        deviation(outputs(peft.PeftModel.from_pretrained(fresh, str(tmp_path / "out"))), wanted)
        < SAME
    )


@pytest.mark.parametrize(
    ("file", "key", "config", "named"),
    [
        ("pytorch_lora_weights.safetensors", "unet.a.lora_A.weight", None, "as diffusers writes"),
        ("x.safetensors", "unet.a.to_q_lora.down.weight", None, "as diffusers writes"),
        ("style.safetensors", "lora_unet_a_to_q.lora_down.weight", None, "kohya"),
        ("style.safetensors", "lora_te1_a.alpha", None, "kohya"),
        ("style.safetensors", "lora_unet_a_to_q.hada_w1_a", None, "LyCORIS"),
        ("style.safetensors", "lycoris_a_to_q.lokr_w1", None, "LyCORIS"),
        ("adapters.safetensors", "model.a.lora_a", {"lora_parameters": {"rank": 8}}, "mlx-lm"),
        ("adapters.safetensors", "model.layers.0.q_proj.lora_a", None, "mlx-lm"),
        ("x.gguf", "", None, "llama.cpp"),
        ("adapter_model.safetensors", "a", {"peft_type": "BONE", "r": 8}, "convert-bone-to-miss"),
    ],
)
def test_files_of_other_tools_are_named(
    file: str, key: str, config: dict[str, Any] | None, named: str, tmp_path: Path
) -> None:
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "README.md").write_text("an adapter")
    save_file({key or "x": torch.zeros(2)}, folder / file)
    if config is not None:
        (folder / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(ConversionError, match=named):
        convert(folder, base="nothing", output=tmp_path / "out")
    if config is None:
        shutil.copy(folder / file, tmp_path / file)
        with pytest.raises(ConversionError, match=named):
            convert(tmp_path / file, base="nothing", output=tmp_path / "out")


def test_whole_numbers_are_no_adapter(tmp_path: Path) -> None:
    model = qwen3()
    saved(model, lora("q_proj"), tmp_path / "adapter")
    model = qwen3()
    file = tmp_path / "adapter" / "adapter_model.safetensors"
    save_file({key: tensor.int() for key, tensor in load_file(file).items()}, file)
    with pytest.raises(ConversionError, match=r"holds whole numbers \(torch.int32\)"):
        convert(tmp_path / "adapter", base=model, output=tmp_path / "out")

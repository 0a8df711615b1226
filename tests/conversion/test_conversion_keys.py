"""Engines of image models get the keys that they read, by their own readers where one can."""

from __future__ import annotations

import json
import warnings
from typing import TYPE_CHECKING, Any, Final

import pytest

from peft_shop import load_catalog
from peft_shop.errors import ConversionError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

torch = pytest.importorskip("torch", reason="needs peft-shop[peft]")
peft = pytest.importorskip("peft", reason="needs peft-shop[peft]")
diffusers = pytest.importorskip("diffusers", reason="needs peft-shop[diffusion]")

from safetensors.torch import load_file  # noqa: E402 - after the checks

from peft_shop import convert  # noqa: E402 - as above
from peft_shop.conversion.keys import ENGINES, Keys, keys_for  # noqa: E402 - as above

SAME: Final = 1e-4
UNET_MODULES: Final = (
    "conv_in",
    "down_blocks.0.resnets.0.conv1",
    "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_out.0",
    "down_blocks.0.downsamplers.0.conv",
    "mid_block.attentions.0.proj_in",
    "mid_block.resnets.1.time_emb_proj",
    "up_blocks.1.attentions.2.transformer_blocks.0.ff.net.0.proj",
    "time_embedding.linear_2",
)


@pytest.fixture(autouse=True)
def _quiet_and_small() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft and diffusers warn of what is done on purpose
        yield
    torch.set_num_threads(threads)


def unet(layers: int = 1) -> Any:
    torch.manual_seed(0)
    return diffusers.UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        layers_per_block=layers,
        cross_attention_dim=12,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=4,
        attention_head_dim=4,
    )


def noise() -> dict[str, Any]:
    generator = torch.Generator().manual_seed(5)
    return {
        "sample": torch.randn(1, 4, 8, 8, generator=generator),
        "timestep": torch.tensor([5]),
        "encoder_hidden_states": torch.randn(1, 3, 12, generator=generator),
    }


def flux() -> Any:
    torch.manual_seed(0)
    return diffusers.FluxTransformer2DModel(
        patch_size=1,
        in_channels=4,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=12,
        pooled_projection_dim=10,
        axes_dims_rope=(2, 2, 4),
    )


def tokens() -> dict[str, Any]:
    generator = torch.Generator().manual_seed(5)
    return {
        "hidden_states": torch.randn(1, 4, 4, generator=generator),
        "encoder_hidden_states": torch.randn(1, 3, 12, generator=generator),
        "pooled_projections": torch.randn(1, 10, generator=generator),
        "timestep": torch.tensor([0.5]),
        "img_ids": torch.zeros(4, 3),
        "txt_ids": torch.zeros(3, 3),
    }


def saved(model: Any, config: Any, folder: Path) -> Any:
    wrapped = peft.get_peft_model(model, config)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for weight in wrapped.parameters():
            if weight.requires_grad:
                weight.add_(0.3 * torch.randn(weight.shape, generator=generator))
    wrapped.save_pretrained(folder)
    return wrapped.eval()


def drawn(model: Any, inputs: dict[str, Any]) -> Any:
    with torch.no_grad():
        return model.eval()(**inputs).sample


def deviation(found: Any, wanted: Any) -> float:
    return float((found - wanted).abs().max() / wanted.abs().max())


def test_what_is_known_of_each_engine() -> None:
    known = {engine.id for engine in load_catalog().engines}
    assert set(ENGINES) <= known
    config = {"_class_name": "UNet2DConditionModel", "layers_per_block": 2}
    for engine in ("comfyui", "a1111"):
        keys = keys_for(engine, config, UNET_MODULES)
        assert isinstance(keys, Keys)
        assert (
            keys.key("mid_block.attentions.0.proj_in") == "lora_unet_mid_block_attentions_0_proj_in"
        )
    assert keys_for("vllm", config, UNET_MODULES) is None
    # the web UI numbers blocks by two layers each, and has no name for some layers
    told = keys_for("a1111", config | {"layers_per_block": 1}, UNET_MODULES)
    assert "two layers" in str(told)
    told = keys_for("a1111", config, ["up_blocks.0.upsamplers.0.conv"])
    assert "no key for up_blocks.0.upsamplers.0.conv" in str(told)
    assert "a WanTransformer3DModel" in str(
        keys_for("comfyui", {"_class_name": "WanTransformer3DModel"}, ["blocks.0.attn1.to_q"])
    )
    flux_keys = keys_for(
        "comfyui",
        {"_class_name": "FluxTransformer2DModel"},
        ["single_transformer_blocks.3.proj_mlp"],
    )
    assert isinstance(flux_keys, Keys)
    assert flux_keys.key("single_transformer_blocks.3.proj_mlp").startswith("transformer.single_")


def test_kohyas_layout_has_the_same_product_and_its_scale(tmp_path: Path) -> None:
    model = unet()
    model.save_pretrained(tmp_path / "base")
    config = peft.LoHaConfig(r=2, alpha=6, target_modules=["to_q", "conv1"])
    saved(model, config, tmp_path / "adapter")
    out = tmp_path / "my_style"
    report = convert(
        tmp_path / "adapter", base=tmp_path / "base", output=out, engine="comfyui", check="layers"
    )
    assert report.engine is not None
    assert report.engine.works == "yes"
    assert any("my_style.safetensors" in condition for condition in report.engine.conditions)
    theirs = load_file(out / "my_style.safetensors")
    ours = load_file(out / "adapter_model.safetensors")
    names = {layer.name for layer in report.layers}
    assert len(theirs) == 3 * len(names)
    for name in names:
        start = f"lora_unet_{name.replace('.', '_')}"
        down, up = theirs[f"{start}.lora_down.weight"], theirs[f"{start}.lora_up.weight"]
        assert torch.equal(down, ours[f"base_model.model.{name}.lora_A.weight"])
        assert torch.equal(up, ours[f"base_model.model.{name}.lora_B.weight"])
        # what ComfyUI and the web UI multiply by
        assert float(theirs[f"{start}.alpha"]) / down.shape[0] == 1


def test_where_no_keys_are_known_none_are_made_up(tmp_path: Path) -> None:
    model = unet(layers=1)
    model.save_pretrained(tmp_path / "base")
    saved(model, peft.LoraConfig(r=2, target_modules=["to_q"]), tmp_path / "adapter")
    try:
        report = convert(
            tmp_path / "adapter",
            base=tmp_path / "base",
            output=tmp_path / "out",
            engine="a1111",
            check="layers",
        )
    except ConversionError as error:
        assert "does not load" in str(error)  # noqa: PT017 - by another rule of the engine
        return
    assert report.engine is not None
    assert report.engine.works == "unknown"
    assert any("two layers each" in condition for condition in report.engine.conditions)
    assert [path.name for path in (tmp_path / "out").glob("*.safetensors")] == [
        "adapter_model.safetensors"
    ]


# --- by their own readers ---


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["comfyui", "a1111", "diffusers"])
def test_diffusers_reads_what_was_written_for_a_unet(engine: str, tmp_path: Path) -> None:
    """diffusers reads kohya's layout too: an oracle for the names that is not ours."""
    from diffusers.loaders.lora_conversion_utils import _convert_non_diffusers_lora_to_diffusers

    model = unet(layers=2)
    model.save_pretrained(tmp_path / "base")
    config = peft.LoraConfig(r=3, lora_alpha=7, target_modules=["to_q", "to_v", "to_out.0"])
    wanted = drawn(saved(model, config, tmp_path / "adapter"), noise())
    out = tmp_path / "style"
    report = convert(tmp_path / "adapter", base=tmp_path / "base", output=out, engine=engine)
    assert report.engine is not None
    assert report.engine.works == "yes"
    if engine == "diffusers":
        state = load_file(out / "pytorch_lora_weights.safetensors")
        alphas = None
    else:
        kohya = load_file(out / "style.safetensors")
        state, alphas = _convert_non_diffusers_lora_to_diffusers(dict(kohya))
    fresh = diffusers.UNet2DConditionModel.from_pretrained(tmp_path / "base")
    plain = drawn(fresh, noise())
    fresh.load_lora_adapter(state, prefix="unet", network_alphas=alphas)
    found = drawn(fresh, noise())
    assert deviation(found, wanted) < SAME < deviation(plain, wanted)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["comfyui", "diffusers"])
def test_diffusers_reads_what_was_written_for_flux(engine: str, tmp_path: Path) -> None:
    model = flux()
    model.save_pretrained(tmp_path / "base")
    config = peft.LoraConfig(
        r=3, lora_alpha=7, target_modules=["to_q", "add_k_proj", "proj_mlp", "to_out.0"]
    )
    wanted = drawn(saved(model, config, tmp_path / "adapter"), tokens())
    out = tmp_path / "style"
    report = convert(
        tmp_path / "adapter", base=tmp_path / "base", output=out, engine=engine, inputs=tokens()
    )
    assert report.exact
    name = "style" if engine == "comfyui" else "pytorch_lora_weights"
    state = load_file(out / f"{name}.safetensors")
    alphas = {key: float(state.pop(key)) for key in list(state) if key.endswith(".alpha")}
    assert set(alphas.values()) <= {float(report.rank or 0)}
    fresh = diffusers.FluxTransformer2DModel.from_pretrained(tmp_path / "base")
    plain = drawn(fresh, tokens())
    fresh.load_lora_adapter(state, prefix="transformer")
    assert deviation(drawn(fresh, tokens()), wanted) < SAME < deviation(plain, wanted)


REFUSED_BY_VLLM: Final = {
    "use_dora": False,
    "bias": "none",
    "lora_bias": False,
    "layer_replication": None,
    "alora_invocation_tokens": None,
    "use_qalora": False,
    "use_bdlora": None,
}
"""What vLLM 0.33 wants of a configuration (lora/peft_helper.py): any other value is an error."""


@pytest.mark.slow
@pytest.mark.parametrize("rank", ["auto", 8])
def test_what_is_made_for_vllm_keeps_its_rules(rank: Any, tmp_path: Path) -> None:
    import transformers

    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=40,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        tie_word_embeddings=False,
    )
    model = transformers.LlamaForCausalLM(config)
    model.save_pretrained(tmp_path / "base")
    adapter = peft.LoraConfig(
        r=6,
        lora_alpha=9,
        use_rslora=True,
        target_modules=["q_proj", "v_proj", "down_proj"],
        rank_pattern={"down_proj": 8},
        task_type="CAUSAL_LM",
    )
    saved(model, adapter, tmp_path / "adapter")
    out = tmp_path / "out"
    convert(tmp_path / "adapter", base=tmp_path / "base", output=out, engine="vllm", rank=rank)
    made = json.loads((out / "adapter_config.json").read_text())
    assert {key: made[key] for key in REFUSED_BY_VLLM if key in made} == {
        key: value for key, value in REFUSED_BY_VLLM.items() if key in made
    }
    assert made["init_lora_weights"] is True
    assert not made["rank_pattern"]
    assert not made["alpha_pattern"]
    assert not made["modules_to_save"]
    # vLLM stacks q, k and v and reads one rank for the whole file
    state = load_file(out / "adapter_model.safetensors")
    ranks = {tensor.shape[0] for key, tensor in state.items() if ".lora_A." in key}
    assert ranks == {made["r"]}
    for key in state:
        assert key.startswith("base_model.model.model.layers.")
        assert key.endswith((".lora_A.weight", ".lora_B.weight"))

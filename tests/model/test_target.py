"""A model is understood without its weights, and left as it is."""

from __future__ import annotations

import copy
import json
import logging
import socket
import sys
import warnings
from typing import TYPE_CHECKING, Any

import huggingface_hub
import pytest
import torch
import transformers
from huggingface_hub.errors import LocalEntryNotFoundError, RepositoryNotFoundError
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from peft_shop.__main__ import main
from peft_shop.errors import MissingExtraError, ModelError
from peft_shop.model.choosing import class_for, diffusers_class
from peft_shop.model.inspection import Target, inspect_model
from peft_shop.model.layers import Layer, find_layers
from peft_shop.model.quantized import backend_of
from peft_shop.model.roles import Roles
from peft_shop.model.structure import Structure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

TINY: dict[str, Any] = {
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "vocab_size": 96,
    "head_dim": 8,
}
VISION = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
    "image_size": 28, "patch_size": 14, "projection_dim": 16,
}  # fmt: skip


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that reaches for the network fails."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the network was touched")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def llama(**changes: Any) -> Any:
    return transformers.LlamaConfig(**TINY | changes)


def flux() -> Any:
    diffusers = pytest.importorskip("diffusers")
    small = {
        "in_channels": 16, "num_layers": 1, "num_single_layers": 2, "attention_head_dim": 16,
        "num_attention_heads": 2, "joint_attention_dim": 24, "axes_dims_rope": (4, 4, 4, 4),
    }  # fmt: skip
    return diffusers.Flux2Transformer2DModel, small


def unet() -> Any:
    diffusers = pytest.importorskip("diffusers")
    small = {
        "block_out_channels": (32, 64), "layers_per_block": 1, "cross_attention_dim": 24,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    }  # fmt: skip
    return diffusers.UNet2DConditionModel, small


def llava() -> Any:
    return transformers.LlavaConfig(
        vision_config=transformers.CLIPVisionConfig(**VISION), text_config=llama()
    )


def clip() -> Any:
    text = {one: VISION[one] for one in VISION if one not in {"image_size", "patch_size"}}
    return transformers.CLIPConfig(text_config=text, vision_config=VISION, projection_dim=16)


def whisper() -> Any:
    return transformers.WhisperConfig(
        d_model=48, encoder_layers=2, decoder_layers=3, encoder_attention_heads=2,
        decoder_attention_heads=3, encoder_ffn_dim=64, decoder_ffn_dim=72, vocab_size=96,
        num_mel_bins=8, pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1,
    )  # fmt: skip


def plainly(structure: Structure) -> Structure:
    """The same without its data type, which an instance has and a configuration need not state."""
    return structure.model_copy(update={"dtype": None, "dtype_stated": True, "notes": ()})


LLAMA = {
    "text:q_proj": "attention_query", "text:k_proj": "attention_key",
    "text:v_proj": "attention_value", "text:o_proj": "attention_output",
    "text:gate_proj": "mlp_gate", "text:up_proj": "mlp_up", "text:down_proj": "mlp_down",
    "text:embed_tokens": "embedding", "text:lm_head": "head", "text:norm": "norm",
    "text:input_layernorm": "norm", "text:post_attention_layernorm": "norm",
}  # fmt: skip
ATTENTION = {key: role for key, role in LLAMA.items() if "attention_" in role}
NORMS = {key: role for key, role in LLAMA.items() if "norm" in role}


def moe(router: str) -> dict[str, str]:
    return (
        {key: role for key, role in LLAMA.items() if not role.startswith("mlp")}
        | {"text:weight": "router", "text:gate_up_proj": "expert_gate_up"}
        | {"text:down_proj": "expert_down"}
    )


def sided(tower: str, **roles: str) -> dict[str, str]:
    return {f"{tower}:{name}": role for name, role in roles.items()}


CASES: dict[str, tuple[Callable[[], Any], dict[str, str]]] = {
    "llama": (llama, LLAMA),
    "mixtral": (
        lambda: transformers.MixtralConfig(**TINY, num_local_experts=4), moe("gate")
    ),
    "gpt_oss": (
        lambda: transformers.GptOssConfig(**TINY, num_local_experts=4), moe("router")
    ),
    "gpt2": (
        lambda: transformers.GPT2Config(n_embd=48, n_layer=2, n_head=2, vocab_size=96),
        sided(
            "text", wte="embedding", wpe="position_embedding", ln_1="norm", ln_2="norm",
            ln_f="norm", c_attn="attention_qkv", c_fc="mlp_up", lm_head="head",
        ),
    ),
    "mamba": (
        lambda: transformers.MambaConfig(hidden_size=48, num_hidden_layers=2, vocab_size=96),
        sided(
            "text", embeddings="embedding", norm="norm", norm_f="norm", in_proj="mixer_in",
            x_proj="mixer_state", dt_proj="mixer_state", conv1d="mixer_state",
            out_proj="mixer_out", lm_head="head",
        ),
    ),
    "t5": (
        lambda: transformers.T5Config(
            d_model=48, d_ff=80, d_kv=8, num_layers=2, num_decoder_layers=2, num_heads=6,
            vocab_size=96, is_gated_act=True, feed_forward_proj="gated-gelu",
        ),
        {
            f"{tower}:{name}": role
            for tower in ("encoder", "decoder")
            for name, role in (
                ("q", "attention_query"), ("k", "attention_key"), ("v", "attention_value"),
                ("o", "attention_output"), ("wi_0", "mlp_gate"), ("wi_1", "mlp_up"),
                ("wo", "mlp_down"), ("embed_tokens", "embedding"), ("layer_norm", "norm"),
                ("relative_attention_bias", "position_embedding"), ("final_layer_norm", "norm"),
            )
        } | {"text:shared": "embedding", "text:lm_head": "head"},
    ),
    "vit": (
        lambda: transformers.ViTConfig(**VISION),
        sided(
            "vision", projection="patch_embedding", q_proj="attention_query",
            k_proj="attention_key", v_proj="attention_value", o_proj="attention_output",
            fc1="mlp_up", fc2="mlp_down", layernorm_before="norm", layernorm_after="norm",
            layernorm="norm",
        ),
    ),
    "clip": (
        clip,
        {
            f"{tower}:{name}": role
            for tower in ("vision", "text")
            for name, role in (
                ("q_proj", "attention_query"), ("k_proj", "attention_key"),
                ("v_proj", "attention_value"), ("out_proj", "attention_output"),
                ("fc1", "mlp_up"), ("fc2", "mlp_down"), ("layer_norm1", "norm"),
                ("layer_norm2", "norm"), ("position_embedding", "position_embedding"),
            )
        }
        | sided(
            "vision", patch_embedding="patch_embedding", pre_layrnorm="norm",
            post_layernorm="norm", visual_projection="projector",
        )
        | sided(
            "text", final_layer_norm="norm", text_projection="projector"
        )
        | {"text:token_embedding": "embedding"},
    ),
    "whisper": (
        whisper,
        {
            f"{tower}:{name}": role
            for tower in ("encoder", "decoder")
            for name, role in (
                ("q_proj", "attention_query"), ("k_proj", "attention_key"),
                ("v_proj", "attention_value"), ("out_proj", "attention_output"),
                ("fc1", "mlp_up"), ("fc2", "mlp_down"), ("self_attn_layer_norm", "norm"),
                ("final_layer_norm", "norm"), ("embed_positions", "position_embedding"),
                ("layer_norm", "norm"),
            )
        }
        | sided("encoder", conv1="convolution", conv2="convolution")
        | sided("decoder", encoder_attn_layer_norm="norm", embed_tokens="embedding")
        | {"text:proj_out": "head"},
    ),
    "llava": (
        llava,
        LLAMA
        | sided(
            "vision", q_proj="attention_query", k_proj="attention_key", v_proj="attention_value",
            out_proj="attention_output", fc1="mlp_up", fc2="mlp_down", layer_norm1="norm",
            layer_norm2="norm", patch_embedding="patch_embedding", pre_layrnorm="norm",
            position_embedding="position_embedding", post_layernorm="norm",
        )
        | sided("other", linear_1="projector", linear_2="projector"),
    ),
    "flux2": (
        flux,
        sided(
            "image", to_q="attention_query", add_q_proj="attention_query", to_k="attention_key",
            add_k_proj="attention_key", to_v="attention_value", add_v_proj="attention_value",
            to_add_out="attention_output", linear_in="mlp_gate_up", linear_out="mlp_down",
            to_qkv_mlp_proj="attention_mlp_in", to_out="attention_mlp_out",
            x_embedder="patch_embedding", context_embedder="projector", proj_out="head",
            linear="modulation", linear_1="time_embedding", linear_2="time_embedding",
        ),
    ),
    "unet": (
        unet,
        sided(
            "image", to_q="attention_query", to_k="attention_key", to_v="attention_value",
            conv1="convolution", conv2="convolution", conv_in="patch_embedding",
            conv_out="head", time_emb_proj="time_embedding", proj_in="projector",
            proj_out="projector", proj="mlp_gate_up",
        ),
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def targets() -> dict[str, Target]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {name: inspect_model(make()) for name, (make, _) in CASES.items()}


@pytest.mark.parametrize("name", CASES)
def test_roles_and_towers_of_known_architectures(targets: dict[str, Target], name: str) -> None:
    found: dict[str, set[str]] = {}
    for group in targets[name].structure.groups:
        found.setdefault(f"{group.tower}:{group.suffix}", set()).add(group.role)
    for place, role in CASES[name][1].items():
        assert found.get(place) == {role}, place
    # where the table is meant to be whole nothing else may be there
    if name in {"llama", "mixtral", "gpt_oss", "mamba", "t5", "clip", "whisper", "llava"}:
        assert set(found) == set(CASES[name][1])


def test_names_that_say_nothing_are_told_by_what_is_around_them() -> None:
    bert = transformers.BertConfig(
        hidden_size=48, intermediate_size=80, num_hidden_layers=2, num_attention_heads=6,
        vocab_size=96, architectures=["BertForSequenceClassification"], num_labels=5,
    )  # fmt: skip
    structure = inspect_model(bert).structure
    roles = {group.pattern: group.role for group in structure.groups}
    layer = "bert.encoder.layer.*"
    assert roles[f"{layer}.attention.output.dense"] == "attention_output"
    assert roles[f"{layer}.intermediate.dense"] == "mlp_up"
    assert roles[f"{layer}.output.dense"] == "mlp_down"
    assert roles["bert.pooler.dense"] == "pooler"
    assert roles["classifier"] == "head"
    assert structure.task_type == "SEQ_CLS"
    assert structure.benchmark is None
    assert "no benchmark on record measures" in structure.benchmark_because


def test_c_proj_is_two_things(targets: dict[str, Target]) -> None:
    roles = {one.pattern: one for one in targets["gpt2"].structure.groups}
    assert roles["transformer.h.*.attn.c_proj"].role == "attention_output"
    assert roles["transformer.h.*.mlp.c_proj"].role == "mlp_down"
    fused = roles["transformer.h.*.attn.c_attn"]
    assert (fused.in_features, fused.out_features, fused.shape) == (48, 144, (48, 144))
    assert fused.kind == "transformers_conv1d"


@pytest.mark.parametrize("name", ["mixtral", "gpt_oss"])
def test_experts_face_the_right_way_however_they_are_held(
    targets: dict[str, Target], name: str
) -> None:
    by_role = {one.role: one for one in targets[name].structure.groups}
    up, down = by_role["expert_gate_up"], by_role["expert_down"]
    assert (up.experts, up.in_features, up.out_features) == (4, 48, 160)
    assert (down.experts, down.in_features, down.out_features) == (4, 80, 48)
    assert up.shape == ((4, 160, 48) if name == "mixtral" else (4, 48, 160))
    assert by_role["router"].out_features == 4
    assert up.names == tuple(f"model.layers.{i}.mlp.experts.gate_up_proj" for i in range(2))


def test_sizes(targets: dict[str, Target]) -> None:
    assert targets["llama"].structure.dimensions.model_dump() == {
        "layers": 2, "encoder_layers": None, "hidden_size": 48, "intermediate_size": 80,
        "attention_heads": 6, "key_value_heads": 2, "head_dim": 8, "vocabulary": 96,
        "max_positions": 2048, "active_experts": None,
    }  # fmt: skip
    assert targets["mixtral"].structure.dimensions.active_experts == 2
    seen = targets["whisper"].structure.dimensions
    assert (seen.layers, seen.encoder_layers) == (3, 2)
    assert (seen.attention_heads, seen.intermediate_size) == (3, 72)
    assert targets["llava"].structure.dimensions == targets["llama"].structure.dimensions
    assert targets["flux2"].structure.dimensions.hidden_size == 32
    falcon = transformers.FalconConfig(
        hidden_size=48, num_hidden_layers=1, num_attention_heads=6, vocab_size=96
    )
    assert inspect_model(falcon).structure.dimensions.key_value_heads == 1


def test_what_is_evidence_for_what(targets: dict[str, Target]) -> None:
    found = {name: one.structure.benchmark for name, one in targets.items()}
    text = {"llama", "gpt2", "mixtral", "gpt_oss", "mamba"}
    assert {name for name, value in found.items() if value == "metamathqa"} == text
    assert {name for name, value in found.items() if value == "image_gen"} == {"flux2", "unet"}
    assert all(one.structure.benchmark_because for one in targets.values())


def test_a_text_model_that_hands_on_what_it_does_not_know_has_no_task_type() -> None:
    config = transformers.CLIPTextConfig(**{k: v for k, v in VISION.items() if "size" not in k})
    assert inspect_model(config).structure.architecture == "CLIPTextModel"
    assert inspect_model(config).structure.task_type is None


def test_task_types_are_those_that_peft_can_wrap(targets: dict[str, Target]) -> None:
    assert {name: one.structure.task_type for name, one in targets.items()} == {
        "llama": "CAUSAL_LM", "mixtral": "CAUSAL_LM", "gpt_oss": "CAUSAL_LM",
        "gpt2": "CAUSAL_LM", "mamba": "CAUSAL_LM", "t5": "SEQ_2_SEQ_LM",
        "vit": "FEATURE_EXTRACTION", "clip": None, "whisper": None, "llava": "CAUSAL_LM",
        "flux2": "IMAGE", "unet": "IMAGE",
    }  # fmt: skip


def test_tied_weights_count_once() -> None:
    apart = inspect_model(llama(tie_word_embeddings=False)).structure
    tied = inspect_model(llama(tie_word_embeddings=True, dtype="bfloat16")).structure
    assert apart.parameters - tied.parameters == 96 * 48
    assert (apart.tied, apart.dtype, apart.dtype_stated) == ((), "bfloat16", False)
    assert tied.tied == (("model.embed_tokens.weight", "lm_head.weight"),)
    assert tied.dtype == "bfloat16"


def test_a_structure_survives_json(targets: dict[str, Target]) -> None:
    for target in targets.values():
        plain = target.structure.model_dump_json()
        assert Structure.model_validate_json(plain) == target.structure


# --- the user's own model ---


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    made = transformers.LlamaForCausalLM(llama(tie_word_embeddings=True))
    made.model.embed_tokens.weight.requires_grad_(requires_grad=False)
    return made.eval()


def test_a_model_with_weights_stays_as_it_is(model: nn.Module) -> None:
    before = {name: (one.data_ptr(), one.clone()) for name, one in model.state_dict().items()}
    config = model.config.to_dict()
    target = inspect_model(model)
    assert config == model.config.to_dict()
    for name, one in model.state_dict().items():
        assert one.data_ptr() == before[name][0]
        assert torch.equal(one, before[name][1])
    made = inspect_model(model.config)
    # the instance has a data type, its configuration states none
    assert plainly(target.structure) == plainly(made.structure)
    assert target.config is not model.config


def test_skeletons_are_whole_independent_and_empty(model: nn.Module) -> None:
    target = inspect_model(model)
    first, second = target.skeleton(), target.skeleton()
    original = dict(model.named_parameters(remove_duplicate=False))
    for one in (first, second):
        got = dict(one.named_parameters(remove_duplicate=False))
        assert {name: (p.shape, p.dtype, p.requires_grad) for name, p in got.items()} == {
            name: (p.shape, p.dtype, p.requires_grad) for name, p in original.items()
        }
        assert all(p.is_meta for p in [*one.parameters(), *one.buffers()])
        assert one.lm_head.weight is one.model.embed_tokens.weight
        assert [m.training for m in one.modules()] == [m.training for m in model.modules()]
        assert type(one) is type(model)
    assert not {id(one) for one in first.modules()} & {id(one) for one in second.modules()}
    assert not {id(one) for one in first.parameters()} & {id(one) for one in second.parameters()}
    first.model.layers[0].self_attn.q_proj = nn.Identity()
    first.config.hidden_size = 1
    assert isinstance(second.model.layers[0].self_attn.q_proj, nn.Linear)
    assert second.config.hidden_size == target.skeleton().config.hidden_size == 48


def test_a_skeleton_runs_forward(model: nn.Module) -> None:
    tokens = torch.zeros(2, 5, dtype=torch.long, device="meta")
    assert inspect_model(model).skeleton()(input_ids=tokens).logits.shape == (2, 5, 96)


class Odd(nn.Module):
    """Tensors in places where no one looks, and things that cannot be copied."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 6)
        self.kept = [torch.ones(3), {"a": torch.ones(2)}]
        self.generator = torch.Generator()
        self.register_buffer("table", torch.ones(7), persistent=False)


def test_hidden_tensors_are_not_copied_either() -> None:
    odd = Odd()
    made = inspect_model(odd).skeleton()
    assert made.kept[0].is_meta
    assert made.kept[1]["a"].is_meta
    assert made.table.is_meta
    assert not odd.kept[0].is_meta


class Packed(nn.Parameter):
    """As quantized layers have it: a parameter of a class of its own, with a state."""


def test_parameters_keep_their_class_and_what_is_written_on_them() -> None:
    layer = nn.Linear(8, 4)
    layer.weight = Packed(torch.zeros(16, 1, dtype=torch.uint8), requires_grad=False)
    layer.weight.quant_type = "nf4"
    layer.weight.state = {"absmax": torch.ones(3)}
    target = inspect_model(nn.Sequential(layer))
    made = target.skeleton()[0].weight
    assert (type(made), made.quant_type, made.is_meta) == (Packed, "nf4", True)
    assert made.state["absmax"].is_meta
    assert not layer.weight.state["absmax"].is_meta
    (group,) = target.structure.groups
    assert (group.in_features, group.out_features) == (8, 4)
    assert group.parameters == target.structure.parameters == 8 * 4 + 4


class GptqLinear(nn.Module):
    """As packages of quantization make linear layers: no subclass, other names."""

    __module__ = "gptqmodel.nn_modules"

    def __init__(self) -> None:
        super().__init__()
        self.infeatures, self.outfeatures = 16, 8
        self.register_buffer("qweight", torch.zeros(2, 8, dtype=torch.int32))


def test_quantized_layers_of_other_classes_are_linear_layers() -> None:
    model = nn.Sequential(GptqLinear(), nn.Linear(8, 2))
    structure = inspect_model(model).structure
    assert structure.quantization == backend_of(model, None) == "gptq"
    assert [(one.kind, one.in_features, one.exact) for one in structure.groups] == [
        ("linear", 16, False),
        ("linear", 8, True),
    ]


@pytest.mark.parametrize(
    ("stated", "backend"),
    [
        ({"quant_method": "gptq", "bits": 4}, "gptq"),
        ({"quant_method": "awq"}, "awq"),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "bnb_8bit"),
        ({"load_in_4bit": True}, "bnb_4bit"),
        ({"quant_method": "mxfp4"}, None),
    ],
)
def test_quantization_that_the_configuration_states(stated: Any, backend: str | None) -> None:
    structure = inspect_model(llama(quantization_config=stated)).structure
    assert structure.quantization == backend
    assert any("quantized" in one or "replaces" in one for one in structure.notes)


def test_an_instance_of_diffusers_is_seen_as_its_configuration() -> None:
    cls, small = flux()
    made = inspect_model((cls, small)).structure
    assert plainly(inspect_model(cls(**small)).structure) == plainly(made)


# --- laws ---

SIZES = st.integers(1, 9)


@st.composite
def layers(draw: st.DrawFn) -> nn.Module:
    a, b = draw(SIZES), draw(SIZES)
    make = draw(
        st.sampled_from(
            [
                lambda: nn.Linear(a, b, bias=draw(st.booleans())),
                lambda: nn.Embedding(a, b),
                lambda: nn.LayerNorm(a),
                lambda: nn.Conv2d(a, b, draw(st.integers(1, 3))),
                lambda: nn.Conv1d(a, b, 1),
                lambda: transformers.pytorch_utils.Conv1D(b, a),
                lambda: nn.GroupNorm(1, a),
                lambda: nn.Sequential(nn.Linear(a, b), nn.ReLU(), nn.Linear(b, a)),
            ]
        )
    )
    return make()


@settings(max_examples=40, deadline=None)
@given(st.lists(layers(), min_size=1, max_size=5), st.integers(1, 3))
def test_every_layer_is_in_one_group_and_every_parameter_is_counted(
    parts: list[nn.Module], times: int
) -> None:
    model = nn.ModuleDict(
        {f"part{i}": nn.ModuleList([copy.deepcopy(one) for _ in range(times)])
         for i, one in enumerate(parts)}
    )  # fmt: skip
    structure = inspect_model(model).structure
    leaves = [
        name for name, one in model.named_modules()
        if next(one.parameters(recurse=False), None) is not None
    ]  # fmt: skip
    names = [name for group in structure.groups for name in group.names]
    assert sorted(names) == sorted(leaves)
    total = sum(one.numel() for one in model.parameters())
    assert structure.parameters == total
    assert sum(one.parameters * one.count for one in structure.groups) == total
    for group in structure.groups:
        for name in group.names:
            weight = model.get_submodule(name).weight
            assert tuple(weight.shape) == group.shape
        assert group.count % times == 0


@given(st.integers(2, 64), st.integers(2, 64))
def test_nothing_is_a_router_without_experts(out: int, experts: int) -> None:
    def layer(name: str) -> Layer:
        return Layer(
            name=name, kind="linear", class_name="Linear", exact=True, in_features=8,
            out_features=out, parameters=8 * out, shape=(out, 8),
        )  # fmt: skip

    classes = dict.fromkeys(("", "model", "model.mlp"), "Block")
    gate = layer("model.mlp.gate")
    assert Roles(classes, [gate]).of(gate) != "router"
    found = Roles(classes, [gate], experts={experts}).of(gate)
    assert (found == "router") == (out == experts)


def test_layers_of_subclasses_are_told_apart() -> None:
    class Mine(nn.Linear):
        pass

    found = list(find_layers(nn.Sequential(Mine(2, 3), nn.Linear(2, 3))))
    assert [(one.exact, one.class_name) for one in found] == [(False, "Mine"), (True, "Linear")]


# --- where a model comes from ---


def test_a_folder_is_read_without_its_weights(tmp_path: Path) -> None:
    config = llama(architectures=["LlamaForCausalLM"])
    config.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"no weights")
    for name in (tmp_path, str(tmp_path)):
        target = inspect_model(name)
        assert target.structure.groups == inspect_model(config).structure.groups
        assert target.structure.name == str(tmp_path)


def test_a_pipeline_gives_its_backbone(tmp_path: Path) -> None:
    cls, small = flux()
    cls(**small).save_config(tmp_path / "transformer")
    index = {"_class_name": "Flux2Pipeline", "transformer": ["diffusers", cls.__name__]}
    (tmp_path / "model_index.json").write_text(json.dumps(index), encoding="utf-8")
    whole = inspect_model(tmp_path)
    assert whole.structure.architecture == cls.__name__
    part = inspect_model(tmp_path / "transformer")
    assert part.structure.groups == whole.structure.groups


def test_a_target_is_given_back() -> None:
    target = inspect_model(nn.Sequential(nn.Linear(2, 3)))
    assert inspect_model(target) is target
    assert "9 parameters" in repr(target)


def test_nothing_outside_is_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    before = dict(os.environ)
    level = logging.getLogger("transformers").level
    config = llama(dtype="bfloat16")
    stated = config.to_dict()
    inspect_model(config)
    with pytest.raises(ModelError):
        inspect_model(llama(hidden_size=-6, dtype="bfloat16"))
    assert torch.get_default_dtype() is torch.float32
    assert torch.empty(1).device.type == "cpu"
    assert dict(os.environ) == before
    assert logging.getLogger("transformers").level == level
    assert config.to_dict() == stated


@pytest.mark.parametrize(
    ("config", "task", "name"),
    [
        (transformers.BertConfig(), None, "BertForMaskedLM"),
        (transformers.BertConfig(is_decoder=True), None, "BertLMHeadModel"),
        (transformers.BertConfig(), "TOKEN_CLS", "BertForTokenClassification"),
        (transformers.BertConfig(architectures=["BertModel"]), None, "BertModel"),
        (transformers.BertConfig(architectures=["BertModel"]), "SEQ_CLS",
         "BertForSequenceClassification"),
        (transformers.BartConfig(), None, "BartForConditionalGeneration"),
        (transformers.ViTConfig(), None, "ViTModel"),
        (transformers.ViTConfig(), "SEQ_CLS", "ViTForImageClassification"),
        (transformers.LlavaConfig(), None, "LlavaForConditionalGeneration"),
        (transformers.WhisperConfig(), None, "WhisperForConditionalGeneration"),
        (transformers.LlamaConfig(), "FEATURE_EXTRACTION", "LlamaModel"),
    ],
)  # fmt: skip
def test_the_class_that_a_configuration_is_for(config: Any, task: Any, name: str) -> None:
    assert class_for(config, task_type=task).__name__ == name


# --- errors ---


def wrapped() -> nn.Module:
    import peft

    base = transformers.LlamaForCausalLM(llama())
    return peft.get_peft_model(base, peft.LoraConfig(target_modules=["q_proj"], r=2))


def part_of_a_wrapped_one() -> nn.Module:
    return wrapped().base_model.model


# peft asks transformers in a way that transformers is about to drop
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.parametrize(
    ("make", "said"),
    [
        (wrapped, "wrapped by peft already"),
        (part_of_a_wrapped_one, r"self_attn.q_proj is a Linear"),
        (nn.ReLU, "no layer that a method of peft adapts"),
        (lambda: 3, "cannot inspect 3"),
        (lambda: (1, 2, 3), r"expected \(class of a model, configuration\)"),
        (lambda: (str, {}), r"expected \(class of a model, configuration\)"),
        (lambda: llama(hidden_size=-6), "hidden_size: -6 is no width"),
        (lambda: llama(pad_token_id=200), "cannot be built from this configuration"),
        (lambda: "./not/there", "no such folder"),
        (lambda: nn.Linear(2, 3), "no layer that a method of peft adapts"),
    ],
)
def test_models_that_cannot_be_inspected(make: Callable[[], Any], said: str) -> None:
    with pytest.raises(ModelError, match=said):
        inspect_model(make())


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "neither config.json nor model_index.json"),
        ({"adapter_config.json": {"base_model_name_or_path": "org/base"}},
         "holds an adapter, not a model.*org/base"),
        ({"config.json": {"model_type": "lama"}}, "does not know 'lama'; nearest: llama"),
        ({"config.json": {}}, "model_type: missing"),
        ({"config.json": "{"}, "not JSON"),
        ({"config.json": []}, "expected an object, got list"),
        ({"config.json": {"model_type": "mine", "auto_map": {"AutoConfig": "code.Config"}}},
         "trust_remote_code=True"),
        ({"config.json": {"_class_name": "Flux2Transfomer2DModel"}},
         "no model class 'Flux2Transfomer2DModel'; nearest: Flux2Transformer2DModel"),
        ({"model_index.json": {"vae": ["diffusers", "AutoencoderKL"]}}, "pass the folder of"),
        ({"config.json": {"model_type": "llama", "hidden_size": "wide"}}, "hidden_size"),
    ],
)  # fmt: skip
def test_folders_that_cannot_be_inspected(tmp_path: Path, files: dict[str, Any], said: str) -> None:
    pytest.importorskip("diffusers")
    for name, content in files.items():
        text = content if isinstance(content, str) else json.dumps(content)
        (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(ModelError, match=said):
        inspect_model(str(tmp_path))


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ModelError, match="is a file; pass the folder"):
        inspect_model(tmp_path / "config.json")


REMOTE = """
from transformers import PretrainedConfig, PreTrainedModel
from torch import nn
class Config(PretrainedConfig):
    model_type = "mine"
class Mine(PreTrainedModel):
    config_class = Config
    def __init__(self, config):
        super().__init__(config)
        self.q_proj = nn.Linear(3, 5)
        self.post_init()
    def forward(self, x):
        return self.q_proj(x)
"""


def test_code_that_comes_with_a_model_runs_only_when_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import dynamic_module_utils

    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "code_of_mine.py").write_text(REMOTE, encoding="utf-8")
    stated = {
        "model_type": "mine",
        "auto_map": {"AutoConfig": "code_of_mine.Config", "AutoModel": "code_of_mine.Mine"},
    }
    (folder / "config.json").write_text(json.dumps(stated), encoding="utf-8")
    with pytest.raises(ModelError, match="read it, and if you trust it"):
        inspect_model(folder)
    structure = inspect_model(folder, trust_remote_code=True).structure
    assert [one.pattern for one in structure.groups] == ["q_proj"]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Exception], None]]:
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: None)

    def fail_with(error: Exception) -> None:
        def download(*_: object) -> str:
            raise error

        monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)

    return fail_with


def test_the_hub_out_of_reach(hub: Callable[[Exception], None]) -> None:
    hub(LocalEntryNotFoundError("offline"))
    with pytest.raises(ModelError, match="cannot be reached; go online, or download"):
        inspect_model("org/model")


def test_no_such_model_on_the_hub(hub: Callable[[Exception], None]) -> None:
    error = RepositoryNotFoundError.__new__(RepositoryNotFoundError)  # its own needs a response
    hub(error)
    with pytest.raises(ModelError, match="the hub has no such model"):
        inspect_model("org/model")


def test_what_is_cached_needs_no_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    llama(architectures=["LlamaForCausalLM"]).save_pretrained(tmp_path)
    monkeypatch.setattr(
        huggingface_hub, "try_to_load_from_cache", lambda _, file: str(tmp_path / file)
    )
    assert inspect_model("org/model").structure.name == "org/model"


def test_without_diffusers_the_install_command_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'peft-shop\[diffusion\]'"):
        diffusers_class("UNet2DConditionModel")


# --- the command ---


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["peft-shop", "inspect", *arguments])
    try:
        return int(main() or 0)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0


def test_the_command_shows_and_writes_the_structure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    llama(architectures=["LlamaForCausalLM"]).save_pretrained(tmp_path)
    assert call(monkeypatch, str(tmp_path)) == 0
    shown = capsys.readouterr().out
    assert max(map(len, shown.replace(str(tmp_path), "").splitlines())) <= 80
    for text in ("attention_query", "self_attn.q_proj", "48 x 48", "metamathqa"):
        assert text in shown
    assert call(monkeypatch, str(tmp_path), "--format", "json") == 0
    assert Structure.model_validate_json(capsys.readouterr().out).architecture == "LlamaForCausalLM"
    assert call(monkeypatch, str(tmp_path), "--format", "csv") == 0
    assert len(capsys.readouterr().out.splitlines()) == 1 + 12
    assert call(monkeypatch, str(tmp_path / "absent")) == 2
    assert "no such folder" in capsys.readouterr().err

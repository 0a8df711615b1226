"""One forward pass without weights says what a real one does: the oracle is the real one."""

from __future__ import annotations

import time
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import pytest
import torch
import transformers
from peft import get_peft_model
from torch import nn

from peft_shop.adapt.records import TargetOptions
from peft_shop.adapt.retarget import retarget
from peft_shop.catalog.store import load
from peft_shop.errors import ConfigError
from peft_shop.model.inspection import Target, inspect_model
from peft_shop.preflight import trying
from peft_shop.preflight.checking import preflight
from peft_shop.preflight.depth import cut, everywhere
from peft_shop.preflight.forward import forward_pass
from peft_shop.preflight.reading import base_name
from peft_shop.preflight.wrapping import inject
from peft_shop.upstream.configs import config_from_dict

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning", "ignore::RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning"),
]

SIZES: Final[dict[str, Any]] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "vocab_size": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def _latent() -> Any:
    """Multi-head latent attention: its inner projection sees four dimensions."""
    return transformers.DeepseekV3Config(
        **SIZES, num_key_value_heads=4, moe_intermediate_size=16, n_routed_experts=4,
        num_experts_per_tok=2, n_group=1, topk_group=1, first_k_dense_replace=1, kv_lora_rank=16,
        q_lora_rank=24, qk_rope_head_dim=8, qk_nope_head_dim=8, v_head_dim=8, n_shared_experts=1,
    )  # fmt: skip


def _hybrid() -> Any:
    """Three of four blocks have linear attention, which keeps no keys and values."""
    return transformers.Qwen3NextConfig(
        **SIZES, num_key_value_heads=2, moe_intermediate_size=16, num_experts=4, head_dim=8,
        shared_expert_intermediate_size=16, num_experts_per_tok=2, linear_num_key_heads=2,
        linear_num_value_heads=4, linear_key_head_dim=8, linear_value_head_dim=8,
    )  # fmt: skip


def _wavlm() -> Any:
    """Hands raw weights to torch's own attention."""
    config = transformers.WavLMConfig(
        hidden_size=32, num_hidden_layers=4, num_attention_heads=4, intermediate_size=48,
        vocab_size=32, conv_dim=(16, 16), conv_stride=(5, 2), conv_kernel=(10, 3),
        num_feat_extract_layers=2, num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=2,
    )  # fmt: skip
    return transformers.WavLMForSequenceClassification, config


def _small_embedding(name: str) -> Any:
    """Token embeddings narrower than what a prompt is made for."""
    config = getattr(transformers, f"{name}Config")(**SIZES, embedding_size=16)
    return getattr(transformers, f"{name}ForSequenceClassification"), config


def _swin() -> Any:
    config = transformers.SwinConfig(
        image_size=32, patch_size=2, embed_dim=16, depths=[2, 2], num_heads=[2, 4], window_size=4
    )
    return transformers.SwinForImageClassification, config


MODELS: Final[dict[str, Callable[[], Any]]] = {
    "latent": _latent,
    "hybrid": _hybrid,
    "wavlm": _wavlm,
    "swin": _swin,
    "albert": lambda: _small_embedding("Albert"),
    "electra": lambda: _small_embedding("Electra"),
    "llama": lambda: transformers.LlamaConfig(**SIZES, num_key_value_heads=2),
    "gpt2": lambda: transformers.GPT2Config(
        n_embd=32, n_layer=3, n_head=4, vocab_size=64, bos_token_id=1, eos_token_id=1
    ),
    "multi_query": lambda: transformers.FalconConfig(
        vocab_size=64, hidden_size=32, num_hidden_layers=3, num_attention_heads=4, multi_query=True
    ),
}


@cache
def target(name: str) -> Target:
    return inspect_model(MODELS[name]())


def real(name: str) -> Any:
    """The same model with weights."""
    torch.manual_seed(0)  # WavLM skips blocks at random
    made = MODELS[name]()
    if isinstance(made, tuple):
        return made[0](made[1])
    return transformers.AutoModelForCausalLM.from_config(made)


def targets(*names: str) -> dict[str, Any]:
    return {"target_modules": list(names)}


CASES: Final[tuple[tuple[str, str, dict[str, Any], bool], ...]] = (
    ("latent", "LORA", targets("kv_b_proj"), True),
    ("latent", "OFT", {**targets("kv_b_proj"), "oft_block_size": 4}, False),
    ("latent", "GRALORA", {**targets("kv_b_proj"), "r": 4}, False),
    ("latent", "PREFIX_TUNING", {"task_type": "CAUSAL_LM", "num_virtual_tokens": 4}, False),
    ("hybrid", "PREFIX_TUNING", {"task_type": "CAUSAL_LM", "num_virtual_tokens": 4}, False),
    ("hybrid", "PROMPT_TUNING", {"task_type": "CAUSAL_LM", "num_virtual_tokens": 4}, True),
    ("hybrid", "LORA", targets("in_proj_qkvz", "q_proj"), True),
    ("wavlm", "LORA", targets("q_proj", "intermediate_dense"), True),
    ("albert", "PROMPT_TUNING", {"task_type": "SEQ_CLS", "num_virtual_tokens": 4}, False),
    ("electra", "P_TUNING", {"task_type": "SEQ_CLS", "num_virtual_tokens": 4}, False),
    (
        "electra",
        "SHADOW",
        {"task_type": "SEQ_CLS", "target_modules": r"electra\.encoder\.layer\.\d+"},
        False,
    ),
    ("swin", "LORA", {**targets("q_proj"), "task_type": "SEQ_CLS"}, False),
    ("swin", "LORA", targets("q_proj"), True),
    ("multi_query", "PREFIX_TUNING", {"task_type": "CAUSAL_LM", "num_virtual_tokens": 4}, False),
    ("llama", "PREFIX_TUNING", {"task_type": "CAUSAL_LM", "num_virtual_tokens": 4}, True),
    ("llama", "SHIRA", {**targets("q_proj"), "r": 2}, True),
    ("llama", "FROD", targets("q_proj"), True),
    ("gpt2", "FROD", targets("c_attn"), True),
    ("llama", "POLY", {**targets("q_proj"), "task_type": "CAUSAL_LM", "n_tasks": 2}, True),
)


def inputs(name: str, method: str) -> dict[str, Any]:
    """A batch of numbers with the shapes of the one that is traced."""
    plain = target(name).skeleton()
    batch = {
        key: torch.ones(value.shape, dtype=value.dtype)
        for key, value in trying.small_batch(target(name), plain).items()
    }
    if method == "POLY":
        batch["task_ids"] = torch.zeros(2, dtype=torch.long)
    return batch


@pytest.mark.parametrize(("name", "method", "fields", "works"), CASES)
def test_the_verdict_is_that_of_a_real_pass(
    name: str, method: str, fields: dict[str, Any], works: bool
) -> None:
    """A refusal fails for real, and what is not refused trains what is not told to be idle."""
    config = {"peft_type": method, **fields}
    if not works:
        with pytest.raises(ConfigError, match=f"{method} cannot work on .* raises"):
            preflight(target(name), config)
        model = get_peft_model(real(name), config_from_dict(config))
        with pytest.raises((RuntimeError, TypeError, ValueError, IndexError)):
            model(**inputs(name, method))
        return
    found = preflight(target(name), config)
    assert (found.forward, found.not_tried_because) == ("passed", None)
    model = get_peft_model(real(name), config_from_dict(config))
    model(**inputs(name, method)).loss.backward()
    idle = {
        base_name(key).partition(".base_model.model.")[2] or base_name(key)
        for key, value in model.named_parameters()
        if value.requires_grad and value.grad is None
    }
    told = [warning for warning in found.warnings if "without calling the layer" in warning]
    assert bool(idle) is bool(told)


def test_blocks_that_were_cut_are_told_as_well() -> None:
    """Two blocks of a kind are run, and what holds for them is said of all."""
    found = preflight(target("wavlm"), {"peft_type": "LORA", **targets("q_proj", "output_dense")})
    told = [warning for warning in found.warnings if "without calling the layer" in warning]
    assert len(told) == 1
    assert "attention.q_proj" in told[0]
    assert "(4 of them)" in told[0]


def test_nothing_that_trains_has_a_part() -> None:
    found = preflight(target("wavlm"), {"peft_type": "LORA", **targets("q_proj")})
    assert "nothing that is trained gets a gradient" in found.warnings


@pytest.mark.parametrize("name", ["llama", "wavlm", "latent"])
def test_a_cut_model_passes_like_the_whole_one(name: str) -> None:
    """Nothing is lost by the cut: each block that went is of a kind that stayed."""
    whole, short = target(name).skeleton(), target(name).skeleton()
    names = {key for key, _ in whole.named_modules()}
    kinds = cut(short)
    assert kinds
    left = {key for key, _ in short.named_modules()}
    assert left < names
    assert {other for key in left for other in everywhere(key, kinds)} == names
    config = target(name).config
    for model in (whole, short):
        assert forward_pass(model, trying.small_batch(target(name), model)).error is None
    assert config.num_hidden_layers == 4


def test_kinds_are_told_apart_by_their_switches() -> None:
    """Blocks of the same layers that differ in an attribute are two kinds."""

    class Block(nn.Module):
        def __init__(self, *, shares: bool) -> None:
            super().__init__()
            self.inner = nn.Linear(2, 2)
            self.shares = shares

    model = nn.Module()
    model.layers = nn.ModuleList(Block(shares=index > 6) for index in range(12))
    kinds = cut(model)
    assert len(model.layers) == 9
    assert everywhere("layers.8.inner", kinds)[0] == "layers.7.inner"
    assert len(everywhere("layers.0.inner", kinds)) == 7
    assert everywhere("head", kinds) == ("head",)


def test_a_model_whose_inputs_are_not_known_is_not_tried() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    found = preflight(inspect_model(model), {"peft_type": "LORA", "target_modules": ["0"]})
    assert found.forward == "not_tried"
    assert "no batch is known for Sequential" in str(found.not_tried_because)


def test_code_that_looks_at_numbers_is_no_verdict() -> None:
    """What is decided by a number that is not there is neither a pass nor a refusal."""

    class Reader(nn.Module):
        def __init__(self, inner: Any) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: Any) -> Any:
            if not bool((x > 0).all()):
                raise ValueError("only positive")
            return self.inner(x)

    model = inject(target("llama").skeleton(), {"peft_type": "LORA", **targets("q_proj")})
    root = model.get_base_model().model

    def wrap() -> Any:
        again = inject(target("llama").skeleton(), {"peft_type": "LORA", **targets("q_proj")})
        again.get_base_model().model.norm = Reader(again.get_base_model().model.norm)
        return again

    root.norm = Reader(root.norm)
    found = trying.tried(target("llama"), model, wrap)
    assert found.passed is None
    assert "looks at numbers (ValueError: only positive)" in found.because


def test_torch_is_as_before_a_pass() -> None:
    autocast = torch.autocast
    state = torch.random.get_rng_state()
    preflight(target("llama"), {"peft_type": "LORA", **targets("q_proj")})
    assert torch.autocast is autocast
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.slow
def test_eight_billion_parameters_are_tried_within_two_seconds() -> None:
    """The budget of one candidate [CPU seconds], whatever it costs to make the model once."""
    whole = inspect_model(
        transformers.Qwen3Config(
            hidden_size=4096,
            intermediate_size=12288,
            num_hidden_layers=36,
            num_attention_heads=32,
            num_key_value_heads=8,
            vocab_size=151936,
        )
    )
    catalog = load()
    for method in ("lora", "prefix_tuning", "boft"):
        fields = retarget(
            catalog, catalog.method_by_id[method], whole.structure, TargetOptions()
        ).config
        start = time.process_time()
        found = preflight(whole, fields)
        assert time.process_time() - start < 2
        assert found.forward == "passed"

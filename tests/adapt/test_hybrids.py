"""Models whose blocks are not all alike: every block that mixes tokens gets an adapter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pytest
import transformers

from peft_shop.adapt.blocks import block_of, share_of_blocks
from peft_shop.adapt.records import TargetOptions
from peft_shop.adapt.retarget import retarget
from peft_shop.adapt.towers import main_towers
from peft_shop.catalog.store import load
from peft_shop.model.inspection import inspect_model
from peft_shop.preflight.checking import preflight
from peft_shop.upstream.targets import Names

if TYPE_CHECKING:
    from collections.abc import Callable

    from peft_shop.adapt.records import Retargeted
    from peft_shop.model.inspection import Target

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

SIZES: Final[dict[str, Any]] = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 64, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2,
}  # fmt: skip
LINEAR: Final = {
    "head_dim": 8, "linear_num_key_heads": 2, "linear_num_value_heads": 4,
    "linear_key_head_dim": 8, "linear_value_head_dim": 8,
}  # fmt: skip
MAMBA: Final = {
    "mamba_n_heads": 4, "mamba_d_head": 16, "mamba_n_groups": 1, "mamba_d_state": 8,
    "mamba_expand": 2, "mamba_chunk_size": 8,
}  # fmt: skip
EXPERTS: Final = {"num_experts": 4, "num_experts_per_tok": 2}

# what is taken where there is no attention, and blocks of how many that have an adapter then
HYBRIDS: Final[dict[str, tuple[Callable[[], Any], set[str], tuple[int, int]]]] = {
    "qwen3_next": (
        lambda: transformers.Qwen3NextConfig(
            **SIZES, **LINEAR, **EXPERTS, moe_intermediate_size=16,
            shared_expert_intermediate_size=16,
        ),
        {"in_proj_qkvz"},
        (4, 4),
    ),
    "qwen3_5": (
        lambda: transformers.Qwen3_5TextConfig(**SIZES, **LINEAR),
        {"in_proj_qkv", "in_proj_z"},
        (4, 4),
    ),
    "jamba": (
        lambda: transformers.JambaConfig(
            **SIZES, **EXPERTS, use_mamba_kernels=False, mamba_d_state=4, mamba_d_conv=2,
            mamba_expand=2, mamba_dt_rank=4, attn_layer_period=4, attn_layer_offset=2,
        ),
        {"in_proj"},
        (4, 4),
    ),
    "bamba": (
        lambda: transformers.BambaConfig(**SIZES, **MAMBA, attn_layer_indices=[1]),
        {"in_proj"},
        (4, 4),
    ),
    "granitemoehybrid": (
        lambda: transformers.GraniteMoeHybridConfig(
            **SIZES, **MAMBA, layer_types=["mamba", "attention", "mamba", "mamba"],
            num_local_experts=4, num_experts_per_tok=2, shared_intermediate_size=24,
        ),
        {"in_proj"},
        (4, 4),
    ),
    "recurrent_gemma": (
        lambda: transformers.RecurrentGemmaConfig(
            **{**SIZES, "num_hidden_layers": 3}, lru_width=32, attention_window_size=16, head_dim=8
        ),
        {"linear_x", "linear_y"},
        (3, 3),
    ),
    "nemotron_h": (
        lambda: transformers.NemotronHConfig(
            **SIZES, hybrid_override_pattern="M*-M", head_dim=8, mamba_num_heads=4,
            mamba_head_dim=16, ssm_state_size=8, n_groups=1, chunk_size=8,
        ),
        {"in_proj"},
        (3, 4),
    ),
    "minimax": (
        lambda: transformers.MiniMaxConfig(
            **SIZES, head_dim=8, num_local_experts=4, block_size=8,
            layer_types=["full_attention", "linear_attention"] * 2,
        ),
        {"qkv_proj"},
        (4, 4),
    ),
}  # fmt: skip


def adapted(target: Target, method: str, **options: Any) -> Retargeted:
    catalog = load()
    subject = catalog.method_by_id[method]
    return retarget(catalog, subject, target.structure, TargetOptions(**options))


@pytest.mark.parametrize("name", HYBRIDS)
def test_blocks_without_attention_are_adapted_where_attention_is_meant(name: str) -> None:
    """Query and value of a hybrid are in few blocks; in the others their work is done by others."""
    config, instead, share = HYBRIDS[name]
    target = inspect_model(config())
    found = adapted(target, "lora")
    named = Names(target.structure).named_by(found.config["target_modules"])
    assert {one.rpartition(".")[2] for one in named} == {"q_proj", "v_proj", *instead}
    towers = main_towers(target.structure)
    assert share_of_blocks(target.structure, towers, named) == share
    told = f"adapters sit in {share[0]} of {share[1]} blocks; the others have none"
    assert (told in found.notes) is (share[0] < share[1])
    checked = preflight(target, found.config)
    assert checked.forward == "passed"
    assert not [one for one in checked.warnings if "gradient" in one or "calling" in one]
    assert (told in checked.warnings) is (share[0] < share[1])


def test_roles_that_are_named_are_taken_at_their_word_where_no_block_lacks_them() -> None:
    """An MLP is in every block of this one, so that nothing stands in for it."""
    target = inspect_model(HYBRIDS["bamba"][0]())
    found = adapted(target, "lora", roles=("mlp_down",))
    assert found.config["target_modules"] == ["down_proj"]
    assert not [note for note in found.notes if "blocks" in note]


def test_attention_beside_a_mixer_in_each_block_is_attention_enough() -> None:
    target = inspect_model(
        transformers.FalconH1Config(
            **SIZES, head_dim=8, mamba_d_ssm=64, mamba_n_heads=4, mamba_d_head=16,
            mamba_n_groups=1, mamba_d_state=8, mamba_chunk_size=8,
        )
    )  # fmt: skip
    assert adapted(target, "lora").config["target_modules"] == ["q_proj", "v_proj"]


@pytest.mark.parametrize(
    ("name", "block"),
    [
        ("model.layers.3.self_attn.q_proj", "model.layers.3"),
        ("transformer_blocks.0.attn.to_out.0", "transformer_blocks.0"),
        ("swin.encoder.layers.1.blocks.0.attention.query", "swin.encoder.layers.1.blocks.0"),
        ("lm_head", None),
        ("head.0", None),
    ],
)
def test_a_module_is_in_the_innermost_block(name: str, block: str | None) -> None:
    assert block_of(name) == block

"""Class defaults of the fields that are looked at here, and what methods need besides them.

Read in the configuration classes of peft 0.21.2; a test compares them with the installed peft.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from peft_shop.records import Json

__all__ = ["CLASS_DEFAULTS", "LENGTH", "STEPS", "class_defaults"]

STEPS: Final = 1000
"""Optimizer steps that a plan is made for where nobody says how many there are [count]."""
LENGTH: Final = 20
"""Virtual tokens of a prompt without a measured recipe [count]."""
CLASS_DEFAULTS: Final[dict[str, dict[str, Json]]] = {
    "ADALORA": {
        "init_r": 12,
        "rank_pattern": None,
        "target_r": 8,
        "tfinal": 0,
        "tinit": 0,
        "total_step": None,
    },
    "ADAMSS": {"num_subspaces": 5, "r": 100, "subspace_rank": 1},
    "ADAPTION_PROMPT": {"adapter_layers": None, "adapter_len": None},
    "BEFT": {},
    "BOFT": {"boft_block_num": 0, "boft_block_size": 4, "boft_n_butterfly_factor": 1},
    "C3A": {"block_size": 256, "block_size_pattern": {}},
    "CARTRIDGE": {
        "num_frozen_tokens": 1,
        "num_layers": None,
        "num_virtual_tokens": None,
        "token_dim": None,
    },
    "CPT": {"cpt_token_ids": None, "token_dim": None},
    "DEFT": {"para": False, "r": 8},
    "DELORA": {"r": 8, "rank_pattern": {}},
    "FOURIERFT": {"n_frequency": 1000, "n_frequency_pattern": {}},
    "FROD": {"runtime_offload_base_weight": False, "save_projection": True, "sparse_rate": 0.01},
    "GLORA": {"config_A_B": "lora", "config_C": "lora", "config_D_E": "constant", "r": 8},
    "GRALORA": {"gralora_k": 2, "hybrid_r": 0, "r": 32},
    "HIRA": {"r": 32, "rank_pattern": {}},
    "HRA": {"r": 8},
    "IA3": {"feedforward_modules": None},
    "LILY": {"num_B": 2, "r": 32, "stride_A": 1},
    "LN_TUNING": {},
    "LOHA": {"r": 8, "rank_pattern": {}},
    "LOKR": {"decompose_both": False, "decompose_factor": -1, "r": 8, "rank_pattern": {}},
    "LORA": {
        "alora_invocation_tokens": None,
        "init_lora_weights": True,
        "kasa_config": None,
        "layer_replication": None,
        "lora_alpha": 8,
        "lora_bias": False,
        "lora_dropout": 0.0,
        "monteclora_config": None,
        "r": 8,
        "rank_pattern": {},
        "target_parameters": None,
        "use_bdlora": None,
        "use_dora": False,
        "use_qalora": False,
        "use_rslora": False,
        "velora_config": None,
    },
    "MISS": {"init_weights": True, "mini_r": 1, "r": 64},
    "MULTITASK_PROMPT_TUNING": {
        "num_ranks": 1,
        "num_tasks": 1,
        "num_transformer_submodules": None,
        "num_virtual_tokens": None,
        "token_dim": None,
    },
    "OFT": {"block_share": False, "oft_block_size": 32, "r": 0, "use_cayley_neumann": True},
    "OSF": {"effective_rank": None, "rank_pattern": None},
    "PEANUT": {"depth": 0, "r": 32},
    "POLY": {"n_skills": 4, "n_splits": 1, "n_tasks": 1, "poly_type": "poly", "r": 8},
    "PREFIX_TUNING": {
        "encoder_hidden_size": None,
        "num_layers": None,
        "num_transformer_submodules": None,
        "num_virtual_tokens": None,
        "prefix_projection": False,
        "token_dim": None,
    },
    "PROMPT_TUNING": {
        "num_transformer_submodules": None,
        "num_virtual_tokens": None,
        "token_dim": None,
    },
    "PSOFT": {
        "psoft_mag_a": True,
        "psoft_mag_b": True,
        "psoft_orth": True,
        "psoft_svd": "full",
        "r": 32,
        "use_cayley_neumann": False,
    },
    "PVERA": {"r": 256, "save_projection": True},
    "P_TUNING": {
        "encoder_hidden_size": None,
        "encoder_num_layers": 2,
        "encoder_reparameterization_type": "MLP",
        "num_transformer_submodules": None,
        "num_virtual_tokens": None,
        "token_dim": None,
    },
    "RANDLORA": {"r": 32, "save_projection": True},
    "ROAD": {"group_size": 64, "variant": "road_1"},
    "SHADOW": {"shadow_model": "mirror"},
    "SHIRA": {"r": 32},
    "SUPERTUNING": {"r": None, "save_precomputed_indices": True, "sparsity": 0.99},
    "TINYLORA": {"r": 2, "save_projection": True, "u": 64, "weight_tying": 0.0},
    "TRAINABLE_TOKENS": {"target_modules": None, "token_indices": []},
    "UNILORA": {"r": 4, "save_indices": False, "theta_d_length": 256},
    "VBLORA": {
        "num_vectors": 256,
        "r": 4,
        "save_only_topk_weights": False,
        "topk": 2,
        "vector_length": 256,
    },
    "VERA": {"r": 256, "save_projection": True},
    "WAVEFT": {"n_frequency": 2592, "n_frequency_pattern": {}, "proportional_parameters": False},
}
"""By method; a field that is not here has the default `None`, `False` for `fan_in_fan_out`."""


def class_defaults(peft_type: str) -> dict[str, Json]:
    """Defaults of a method's configuration class; empty tables are as good as none."""
    known = CLASS_DEFAULTS.get(peft_type, {})
    stated = {name: value for name, value in known.items() if value not in ([], {})}
    return {"fan_in_fan_out": False, **stated}

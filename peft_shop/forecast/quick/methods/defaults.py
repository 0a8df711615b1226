"""Defaults of the configuration fields that a closed form reads, as peft 0.21.2 has them.

A test holds them equal to the installed peft's.
"""

from __future__ import annotations

from typing import Any, Final

__all__ = ["COMMON", "DEFAULTS"]

COMMON: Final[dict[str, Any]] = {
    "target_modules": None,
    "exclude_modules": None,
    "layers_to_transform": None,
    "layers_pattern": None,
    "modules_to_save": None,
    "task_type": None,
    "trainable_token_indices": None,
    "bias": "none",
}
"""Of every class that has them."""

DEFAULTS: Final[dict[str, dict[str, Any]]] = {
    "LORA": {
        "r": 8,
        "rank_pattern": {},
        "init_lora_weights": True,
        "kasa_config": None,
        "layer_replication": None,
        "lora_bias": False,
        "target_parameters": None,
        "use_dora": False,
        "use_bdlora": None,
        "use_qalora": False,
        "monteclora_config": None,
        "alora_invocation_tokens": None,
        "velora_config": None,
    },
    "ADALORA": {"init_r": 12, "target_r": 8, "rank_pattern": None},
    "GRALORA": {"gralora_k": 2, "hybrid_r": 0, "r": 32},
    "DELORA": {"r": 8, "rank_pattern": {}},
    "POLY": {"r": 8, "n_skills": 4, "n_splits": 1, "n_tasks": 1, "poly_type": "poly"},
    "DEFT": {"para": False, "r": 8},
    "PEANUT": {"depth": 0, "r": 32},
    "MISS": {"init_weights": True, "mini_r": 1, "r": 64},
    "ADAMSS": {"num_subspaces": 5, "r": 100, "subspace_rank": 1},
    "LOHA": {"r": 8, "rank_pattern": {}},
    "LOKR": {"r": 8, "rank_pattern": {}, "decompose_both": False, "decompose_factor": -1},
    "HIRA": {"r": 32, "rank_pattern": {}},
    "FOURIERFT": {"n_frequency": 1000, "n_frequency_pattern": {}},
    "WAVEFT": {"n_frequency": 2592, "n_frequency_pattern": {}, "proportional_parameters": False},
    "C3A": {"block_size": 256, "block_size_pattern": {}},
    "GLORA": {"config_A_B": "lora", "config_C": "lora", "config_D_E": "constant", "r": 8},
    "SHIRA": {"r": 32},
    "SUPERTUNING": {"r": None, "save_precomputed_indices": True, "sparsity": 0.99},
    "OSF": {"effective_rank": None, "rank_pattern": None},
    "OFT": {"block_share": False, "oft_block_size": 32, "r": 0, "use_cayley_neumann": True},
    "BOFT": {"boft_block_num": 0, "boft_block_size": 4, "boft_n_butterfly_factor": 1},
    "HRA": {"r": 8},
    "PSOFT": {
        "psoft_orth": True,
        "psoft_svd": "full",
        "psoft_mag_a": True,
        "psoft_mag_b": True,
        "use_cayley_neumann": False,
        "r": 32,
    },
    "ROAD": {"group_size": 64, "variant": "road_1"},
    "BEFT": {},
    "IA3": {"feedforward_modules": None},
    "LN_TUNING": {},
    "TRAINABLE_TOKENS": {"token_indices": [], "target_modules": None},
    "VERA": {"r": 256, "save_projection": True},
    "PVERA": {"r": 256, "save_projection": True},
    "RANDLORA": {"r": 32, "save_projection": True},
    "VBLORA": {
        "r": 4,
        "vector_length": 256,
        "num_vectors": 256,
        "topk": 2,
        "save_only_topk_weights": False,
    },
    "UNILORA": {"r": 4, "save_indices": False, "theta_d_length": 256},
    "TINYLORA": {"r": 2, "save_projection": True, "u": 64, "weight_tying": 0.0},
    "LILY": {"r": 32, "stride_A": 1, "num_B": 2},
    "FROD": {"runtime_offload_base_weight": False, "save_projection": True, "sparse_rate": 0.01},
    "PROMPT_TUNING": {
        "num_virtual_tokens": None,
        "num_transformer_submodules": None,
        "token_dim": None,
    },
    "P_TUNING": {
        "num_virtual_tokens": None,
        "num_transformer_submodules": None,
        "token_dim": None,
        "encoder_hidden_size": None,
        "encoder_num_layers": 2,
        "encoder_reparameterization_type": "MLP",
    },
    "PREFIX_TUNING": {
        "num_virtual_tokens": None,
        "num_transformer_submodules": None,
        "token_dim": None,
        "num_layers": None,
        "encoder_hidden_size": None,
        "prefix_projection": False,
    },
    "MULTITASK_PROMPT_TUNING": {
        "num_virtual_tokens": None,
        "num_transformer_submodules": None,
        "token_dim": None,
        "num_ranks": 1,
        "num_tasks": 1,
    },
    "CPT": {"cpt_token_ids": None, "token_dim": None},
    "CARTRIDGE": {
        "num_virtual_tokens": None,
        "num_frozen_tokens": 1,
        "token_dim": None,
        "num_layers": None,
    },
    "ADAPTION_PROMPT": {"adapter_layers": None, "adapter_len": None},
}

"""Tiny language models: decoders of one stack, with causal heads."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

import torch
import transformers

from peft_shop.curate.readiness.zoo import BATCH, Entry

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["HIDDEN", "INTERMEDIATE", "LENGTH", "TEXT", "VOCABULARY", "decoder", "text_ids"]

HIDDEN: Final = 48
INTERMEDIATE: Final = 80
VOCABULARY: Final = 100
LENGTH: Final = 7
POSITIONS: Final = 640
"""Enough for the longest prompt of virtual tokens on record."""

_LAYOUT: Final[dict[str, Any]] = {
    "vocab_size": VOCABULARY,
    "hidden_size": HIDDEN,
    "intermediate_size": INTERMEDIATE,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": POSITIONS,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
"""Names that most decoders of transformers share: grouped queries, heads of 12."""
_HEADS: Final[dict[str, Any]] = {"head_dim": 12}
_EXPERTS: Final[dict[str, Any]] = {
    "moe_intermediate_size": 40,
    "num_experts": 3,
    "num_experts_per_tok": 2,
}


def text_ids(generator: Any, *, rows: int = BATCH, length: int = LENGTH) -> Any:
    """Token identifiers that begin with 3, 4, 5: those that trained tokens name."""
    ids = torch.randint(6, VOCABULARY, (rows, length), generator=generator)
    ids[:, :3] = torch.tensor([3, 4, 5])
    return ids


def _causal(generator: Any) -> dict[str, Any]:
    ids = text_ids(generator)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids.clone()}


def _loss(output: Any) -> Any:
    return output.loss


def _logits(output: Any) -> Any:
    return output.logits


def _make(class_name: str, config_name: str, options: dict[str, Any]) -> Any:
    config = getattr(transformers, config_name)(**options)
    return getattr(transformers, class_name)(config)


def decoder(
    name: str,
    title: str,
    prefix: str,
    *,
    shared: bool = True,
    head: str = "ForCausalLM",
    config: str = "Config",
    **own: Any,
) -> Entry:
    """A causal language model.

    Args:
        name: id of the entry.
        title: name for people.
        prefix: of its classes in transformers.
        shared: whether the common names of sizes are its names too.
        head: what the class's name ends in.
        config: what its configuration's name ends in.
        own: arguments of its configuration.
    """
    options = {**_LAYOUT, **own} if shared else own
    return Entry(
        id=name,
        title=title,
        modality="text",
        task_type="CAUSAL_LM",
        builder=partial(_make, f"{prefix}{head}", f"{prefix}{config}", options),
        inputs=_causal,
        loss=_loss,
        outputs=_logits,
    )


def _decoders() -> Iterable[Entry]:
    yield decoder("llama", "Llama", "Llama")
    yield decoder("qwen2", "Qwen2", "Qwen2", tie_word_embeddings=True)
    yield decoder("qwen3", "Qwen3", "Qwen3", **_HEADS)
    yield decoder("mistral", "Mistral", "Mistral", sliding_window=4, **_HEADS)
    yield decoder("gemma2", "Gemma 2", "Gemma2", sliding_window=4, head_dim=16)
    yield decoder(
        "gemma3_text",
        "Gemma 3 (text)",
        "Gemma3",
        config="TextConfig",
        sliding_window=4,
        head_dim=16,
    )
    yield decoder("phi3", "Phi-3", "Phi3")
    yield decoder("mixtral", "Mixtral", "Mixtral", num_local_experts=3, num_experts_per_tok=2)
    yield decoder(
        "qwen2_moe",
        "Qwen2-MoE",
        "Qwen2Moe",
        shared_expert_intermediate_size=INTERMEDIATE,
        decoder_sparse_step=1,
        **_EXPERTS,
    )
    yield decoder("qwen3_moe", "Qwen3-MoE", "Qwen3Moe", **_HEADS, **_EXPERTS)
    yield decoder(
        "gpt_oss",
        "gpt-oss",
        "GptOss",
        num_local_experts=3,
        num_experts_per_tok=2,
        sliding_window=4,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
        **_HEADS,
    )
    rare: dict[str, Any] = {"shared": False, "vocab_size": VOCABULARY}
    specials: dict[str, Any] = {"bos_token_id": 1, "eos_token_id": 2}
    yield decoder(
        "gpt2",
        "GPT-2",
        "GPT2",
        head="LMHeadModel",
        n_embd=HIDDEN,
        n_inner=INTERMEDIATE,
        n_layer=2,
        n_head=4,
        n_positions=POSITIONS,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        **rare,
        **specials,
    )
    yield decoder(
        "gpt_neox",
        "GPT-NeoX",
        "GPTNeoX",
        hidden_size=HIDDEN,
        intermediate_size=INTERMEDIATE,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=POSITIONS,
        **rare,
        **specials,
    )
    yield decoder(
        "falcon",
        "Falcon",
        "Falcon",
        hidden_size=HIDDEN,
        ffn_hidden_size=INTERMEDIATE,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_kv_heads=2,
        new_decoder_architecture=True,
        max_position_embeddings=POSITIONS,
        **rare,
        **specials,
    )
    yield decoder(
        "opt",
        "OPT",
        "OPT",
        hidden_size=HIDDEN,
        word_embed_proj_dim=HIDDEN,
        ffn_dim=INTERMEDIATE,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=POSITIONS,
        dropout=0.0,
        pad_token_id=0,
        **rare,
        **specials,
    )
    yield decoder(
        "bloom",
        "BLOOM",
        "Bloom",
        hidden_size=HIDDEN,
        n_layer=2,
        n_head=4,
        hidden_dropout=0.0,
        attention_dropout=0.0,
        **rare,
        **specials,
    )
    yield decoder(
        "mamba",
        "Mamba",
        "Mamba",
        hidden_size=HIDDEN,
        state_size=6,
        num_hidden_layers=2,
        expand=2,
        time_step_rank=5,
        **rare,
        **specials,
    )


TEXT: Final = tuple(_decoders())

"""Tiny text models with an encoder: sequence-to-sequence models and classifiers."""

from __future__ import annotations

from typing import Any, Final

import torch
import transformers

from peft_shop.curate.readiness.zoo import BATCH, Entry
from peft_shop.curate.readiness.zoo_text import HIDDEN, INTERMEDIATE, VOCABULARY, text_ids

__all__ = ["ENCODERS"]

LABELS: Final = 3
_POSITIONS: Final = 640
_NO_DROPOUT: Final = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
_BERT: Final[dict[str, Any]] = {
    "vocab_size": VOCABULARY,
    "hidden_size": HIDDEN,
    "intermediate_size": INTERMEDIATE,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": _POSITIONS,
    "num_labels": LABELS,
    "pad_token_id": 0,
}


def _loss(output: Any) -> Any:
    return output.loss


def _logits(output: Any) -> Any:
    return output.logits


def _pair(generator: Any) -> dict[str, Any]:
    """Source and target; decoder inputs are explicit, so that outputs need no labels."""
    ids = text_ids(generator)
    target = text_ids(generator, length=5)
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "decoder_input_ids": target,
        "labels": target.roll(-1, dims=1),
    }


def _classified(generator: Any) -> dict[str, Any]:
    ids = text_ids(generator)
    labels = torch.arange(BATCH) % LABELS
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}


def _tagged(generator: Any) -> dict[str, Any]:
    ids = text_ids(generator)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids % LABELS}


def _t5() -> Any:
    config = transformers.T5Config(
        vocab_size=VOCABULARY,
        d_model=HIDDEN,
        d_kv=12,
        d_ff=INTERMEDIATE,
        num_layers=2,
        num_heads=4,
        feed_forward_proj="gated-gelu",
        dropout_rate=0.0,
        decoder_start_token_id=0,
    )
    return transformers.T5ForConditionalGeneration(config)


def _bart() -> Any:
    config = transformers.BartConfig(
        vocab_size=VOCABULARY,
        d_model=HIDDEN,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=INTERMEDIATE,
        decoder_ffn_dim=INTERMEDIATE,
        max_position_embeddings=_POSITIONS,
        dropout=0.0,
        forced_eos_token_id=None,
    )
    return transformers.BartForConditionalGeneration(config)


def _bert() -> Any:
    config = transformers.BertConfig(**_BERT, **_NO_DROPOUT)
    return transformers.BertForSequenceClassification(config)


def _roberta() -> Any:
    config = transformers.RobertaConfig(**_BERT, **_NO_DROPOUT)
    return transformers.RobertaForTokenClassification(config)


def _deberta() -> Any:
    config = transformers.DebertaV2Config(
        **_BERT,
        **_NO_DROPOUT,
        relative_attention=True,
        pos_att_type=["p2c", "c2p"],
        position_buckets=8,
        norm_rel_ebd="layer_norm",
        share_att_key=True,
        position_biased_input=False,
        pooler_dropout=0.0,
    )
    return transformers.DebertaV2ForSequenceClassification(config)


def _modernbert() -> Any:
    config = transformers.ModernBertConfig(
        **_BERT,
        local_attention=4,
        global_attn_every_n_layers=2,
        cls_token_id=1,
        sep_token_id=2,
        bos_token_id=1,
        eos_token_id=2,
    )
    return transformers.ModernBertForSequenceClassification(config)


def _entry(name: str, title: str, task_type: Any, builder: Any, inputs: Any) -> Entry:
    return Entry(
        id=name,
        title=title,
        modality="text",
        task_type=task_type,
        builder=builder,
        inputs=inputs,
        loss=_loss,
        outputs=_logits,
    )


ENCODERS: Final = (
    _entry("t5", "T5 (gated)", "SEQ_2_SEQ_LM", _t5, _pair),
    _entry("bart", "BART", "SEQ_2_SEQ_LM", _bart, _pair),
    _entry("bert", "BERT (sequence classification)", "SEQ_CLS", _bert, _classified),
    _entry("roberta", "RoBERTa (token classification)", "TOKEN_CLS", _roberta, _tagged),
    _entry("deberta_v2", "DeBERTa-v2 (sequence classification)", "SEQ_CLS", _deberta, _classified),
    _entry(
        "modernbert", "ModernBERT (sequence classification)", "SEQ_CLS", _modernbert, _classified
    ),
)

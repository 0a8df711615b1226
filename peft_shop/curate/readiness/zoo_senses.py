"""Tiny models of images and sound, alone and with text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import torch
import transformers

from peft_shop.curate.readiness.zoo import BATCH, Entry
from peft_shop.curate.readiness.zoo_text import HIDDEN, INTERMEDIATE, LENGTH, VOCABULARY, text_ids

if TYPE_CHECKING:
    from collections.abc import Callable

    from peft_shop.catalog.features import TaskType
    from peft_shop.curate.readiness.zoo import Modality

__all__ = ["SENSES"]

LABELS: Final = 3
SIZE: Final = 16
"""Height and width of images [pixels]."""
PATCH: Final = 8
PATCHES: Final = (SIZE // PATCH) ** 2
IMAGE_TOKEN: Final = VOCABULARY - 1
VISION_START: Final = VOCABULARY - 2
_LANGUAGE: Final[dict[str, Any]] = {
    "vocab_size": VOCABULARY,
    "hidden_size": HIDDEN,
    "intermediate_size": INTERMEDIATE,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 640,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_VISION: Final[dict[str, Any]] = {
    "hidden_size": 36,
    "intermediate_size": 60,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "image_size": SIZE,
    "patch_size": PATCH,
}


def _loss(output: Any) -> Any:
    return output.loss


def _logits(output: Any) -> Any:
    return output.logits


def _pictures(generator: Any) -> Any:
    return torch.randn((BATCH, 3, SIZE, SIZE), generator=generator)


def _classified(generator: Any) -> dict[str, Any]:
    return {"pixel_values": _pictures(generator), "labels": torch.arange(BATCH) % LABELS}


def _vit() -> Any:
    config = transformers.ViTConfig(**{**_VISION, "hidden_size": HIDDEN}, num_labels=LABELS)
    return transformers.ViTForImageClassification(config)


def _dinov2() -> Any:
    config = transformers.Dinov2Config(
        hidden_size=HIDDEN,
        num_hidden_layers=2,
        num_attention_heads=4,
        mlp_ratio=2,
        image_size=SIZE,
        patch_size=PATCH,
        num_labels=LABELS,
        use_mask_token=False,
    )
    return transformers.Dinov2ForImageClassification(config)


def _resnet() -> Any:
    config = transformers.ResNetConfig(
        embedding_size=12,
        hidden_sizes=[24, 40],
        depths=[1, 1],
        num_labels=LABELS,
    )
    return transformers.ResNetForImageClassification(config)


def _clip() -> Any:
    text = {
        "vocab_size": VOCABULARY,
        "hidden_size": HIDDEN,
        "intermediate_size": INTERMEDIATE,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 640,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    config = transformers.CLIPConfig(
        text_config=text, vision_config=dict(_VISION), projection_dim=20
    )
    return transformers.CLIPModel(config)


def _captioned(generator: Any) -> dict[str, Any]:
    ids = text_ids(generator)
    ids[:, -1] = 2  # the text is pooled where it ends
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "pixel_values": _pictures(generator),
        "return_loss": True,
    }


def _whisper() -> Any:
    config = transformers.WhisperConfig(
        vocab_size=VOCABULARY,
        num_mel_bins=10,
        d_model=HIDDEN,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=INTERMEDIATE,
        decoder_ffn_dim=INTERMEDIATE,
        max_source_positions=12,
        max_target_positions=640,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
        suppress_tokens=None,
        begin_suppress_tokens=None,
    )
    return transformers.WhisperForConditionalGeneration(config)


def _spoken(generator: Any) -> dict[str, Any]:
    target = text_ids(generator, length=5)
    return {
        "input_features": torch.randn((BATCH, 10, 24), generator=generator),
        "decoder_input_ids": target,
        "labels": target.roll(-1, dims=1),
    }


def _wav2vec2() -> Any:
    config = transformers.Wav2Vec2Config(
        vocab_size=20,
        hidden_size=HIDDEN,
        intermediate_size=INTERMEDIATE,
        num_hidden_layers=2,
        num_attention_heads=4,
        conv_dim=[20, 28],
        conv_stride=[5, 4],
        conv_kernel=[10, 4],
        num_feat_extract_layers=2,
        num_conv_pos_embeddings=6,
        num_conv_pos_embedding_groups=4,
        hidden_dropout=0.0,
        activation_dropout=0.0,
        attention_dropout=0.0,
        final_dropout=0.0,
        layerdrop=0.0,
        apply_spec_augment=False,
        ctc_loss_reduction="mean",
        pad_token_id=0,
    )
    return transformers.Wav2Vec2ForCTC(config)


def _recorded(generator: Any) -> dict[str, Any]:
    return {
        "input_values": torch.randn((BATCH, 320), generator=generator),
        "labels": torch.randint(3, 20, (BATCH, 4), generator=generator),
    }


def _llava() -> Any:
    config = transformers.LlavaConfig(
        vision_config=transformers.CLIPVisionConfig(**_VISION),
        text_config=transformers.LlamaConfig(**_LANGUAGE),
        image_token_index=IMAGE_TOKEN,
        image_seq_length=PATCHES,
    )
    return transformers.LlavaForConditionalGeneration(config)


def _illustrated(generator: Any) -> dict[str, Any]:
    ids = text_ids(generator, length=LENGTH + PATCHES).clamp(max=VISION_START - 1)
    ids[:, 3 : 3 + PATCHES] = IMAGE_TOKEN
    labels = torch.where(ids == IMAGE_TOKEN, -100, ids)
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "pixel_values": _pictures(generator),
        "labels": labels,
    }


def _qwen_vl() -> Any:
    text = {**_LANGUAGE, "rope_parameters": {"rope_type": "default", "mrope_section": [2, 2, 2]}}
    vision = {
        "depth": 2,
        "hidden_size": 36,
        "intermediate_size": 60,
        "num_heads": 3,
        "patch_size": PATCH // 2,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "window_size": 2 * PATCH,
        "fullatt_block_indexes": [1],
        "out_hidden_size": HIDDEN,
    }
    config = transformers.Qwen2_5_VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=IMAGE_TOKEN,
        video_token_id=VOCABULARY - 3,
        vision_start_token_id=VISION_START,
        vision_end_token_id=VOCABULARY - 4,
    )
    return transformers.Qwen2_5_VLForConditionalGeneration(config)


def _interleaved(generator: Any) -> dict[str, Any]:
    side = SIZE // (PATCH // 2)
    ids = text_ids(generator, length=LENGTH + PATCHES + 1).clamp(max=VOCABULARY - 5)
    ids[:, 3] = VISION_START
    ids[:, 4 : 4 + PATCHES] = IMAGE_TOKEN
    patches = torch.randn((BATCH * side * side, 3 * 2 * (PATCH // 2) ** 2), generator=generator)
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "mm_token_type_ids": (ids == IMAGE_TOKEN).long(),
        "pixel_values": patches,
        "image_grid_thw": torch.tensor([[1, side, side]] * BATCH),
        "labels": torch.where(ids == IMAGE_TOKEN, -100, ids),
    }


def _entry(
    name: str,
    title: str,
    modality: Modality,
    builder: Callable[[], Any],
    inputs: Callable[[Any], dict[str, Any]],
    *,
    task_type: TaskType | None = None,
    outputs: Callable[[Any], Any] = _logits,
    training_only: tuple[str, ...] = ("labels",),
) -> Entry:
    return Entry(
        id=name,
        title=title,
        modality=modality,
        task_type=task_type,
        builder=builder,
        inputs=inputs,
        loss=_loss,
        outputs=outputs,
        training_only=training_only,
    )


def _matches(output: Any) -> Any:
    return output.logits_per_image


SENSES: Final = (
    _entry("vit", "ViT (image classification)", "vision", _vit, _classified),
    _entry("dinov2", "DINOv2 (image classification)", "vision", _dinov2, _classified),
    _entry("resnet", "ResNet (image classification)", "vision", _resnet, _classified),
    _entry(
        "clip",
        "CLIP",
        "multimodal",
        _clip,
        _captioned,
        outputs=_matches,
        training_only=("return_loss",),
    ),
    _entry("whisper", "Whisper", "audio", _whisper, _spoken),
    _entry("wav2vec2", "wav2vec 2 (CTC)", "audio", _wav2vec2, _recorded),
    _entry("llava", "LLaVA", "multimodal", _llava, _illustrated, task_type="CAUSAL_LM"),
    _entry("qwen2_5_vl", "Qwen2.5-VL", "multimodal", _qwen_vl, _interleaved, task_type="CAUSAL_LM"),
)

"""Tiny backbones of image generators: what diffusers trains adapters on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import diffusers
import torch

from peft_shop.curate.readiness.zoo import BATCH, Entry

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["DIFFUSION"]

TEXT_WIDTH: Final = 40
POOLED: Final = 28
WORDS: Final = 5
SIDE: Final = 8
"""Height and width of latent images."""
TOKENS: Final = 9
"""Latent patches, for the models that take them as a sequence: a square of three."""


def _sample(output: Any) -> Any:
    return output.sample


def _loss(output: Any) -> Any:
    """Distance to seeded noise, which is what such a model learns to predict."""
    generator = torch.Generator().manual_seed(3)
    goal = torch.randn(output.sample.shape, generator=generator)
    return ((output.sample - goal) ** 2).mean()


def _unet() -> Any:
    return diffusers.UNet2DConditionModel(
        sample_size=SIDE,
        in_channels=4,
        out_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(24, 48),
        layers_per_block=1,
        norm_num_groups=4,
        attention_head_dim=4,
        cross_attention_dim=TEXT_WIDTH,
    )


def _latent(generator: Any) -> dict[str, Any]:
    return {
        "sample": torch.randn((BATCH, 4, SIDE, SIDE), generator=generator),
        "timestep": torch.tensor([3, 40]),
        "encoder_hidden_states": torch.randn((BATCH, WORDS, TEXT_WIDTH), generator=generator),
    }


def _sd3() -> Any:
    return diffusers.SD3Transformer2DModel(
        sample_size=SIDE,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        attention_head_dim=12,
        num_attention_heads=4,
        joint_attention_dim=TEXT_WIDTH,
        caption_projection_dim=48,
        pooled_projection_dim=POOLED,
        pos_embed_max_size=SIDE,
        qk_norm="rms_norm",
    )


def _prompted(generator: Any) -> dict[str, Any]:
    return {
        "hidden_states": torch.randn((BATCH, 4, SIDE, SIDE), generator=generator),
        "encoder_hidden_states": torch.randn((BATCH, WORDS, TEXT_WIDTH), generator=generator),
        "pooled_projections": torch.randn((BATCH, POOLED), generator=generator),
        "timestep": torch.tensor([3, 40]),
    }


def _flux() -> Any:
    return diffusers.FluxTransformer2DModel(
        in_channels=20,
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=12,
        num_attention_heads=4,
        joint_attention_dim=TEXT_WIDTH,
        pooled_projection_dim=POOLED,
        guidance_embeds=True,
        axes_dims_rope=(4, 4, 4),
    )


def _places(count: int, axes: int) -> Any:
    """Positions of a sequence along every axis."""
    ids = torch.zeros(count, axes)
    ids[:, 1] = torch.arange(count) // 3
    ids[:, 2] = torch.arange(count) % 3
    return ids


def _sequence(generator: Any, channels: int, axes: int) -> dict[str, Any]:
    return {
        "hidden_states": torch.randn((BATCH, TOKENS, channels), generator=generator),
        "encoder_hidden_states": torch.randn((BATCH, WORDS, TEXT_WIDTH), generator=generator),
        "timestep": torch.tensor([0.3, 0.7]),
        "guidance": torch.tensor([3.5, 3.5]),
        "img_ids": _places(TOKENS, axes),
        "txt_ids": torch.zeros(WORDS, axes),
    }


def _flux_inputs(generator: Any) -> dict[str, Any]:
    inputs = _sequence(generator, 20, 3)
    inputs["pooled_projections"] = torch.randn((BATCH, POOLED), generator=generator)
    return inputs


def _flux2() -> Any:
    return diffusers.Flux2Transformer2DModel(
        in_channels=20,
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=12,
        num_attention_heads=4,
        joint_attention_dim=TEXT_WIDTH,
        timestep_guidance_channels=24,
        mlp_ratio=1.5,
        axes_dims_rope=(2, 4, 4, 2),
    )


def _flux2_inputs(generator: Any) -> dict[str, Any]:
    return _sequence(generator, 20, 4)


def _entry(
    name: str, title: str, builder: Callable[[], Any], inputs: Callable[[Any], dict[str, Any]]
) -> Entry:
    return Entry(
        id=name,
        title=title,
        modality="image",
        task_type=None,
        builder=builder,
        inputs=inputs,
        loss=_loss,
        outputs=_sample,
        training_only=(),
    )


DIFFUSION: Final = (
    _entry("unet2d_condition", "UNet (Stable Diffusion)", _unet, _latent),
    _entry("sd3_transformer", "Stable Diffusion 3", _sd3, _prompted),
    _entry("flux_transformer", "FLUX.1", _flux, _flux_inputs),
    _entry("flux2_transformer", "FLUX.2", _flux2, _flux2_inputs),
)

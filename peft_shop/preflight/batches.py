"""A batch for a model, on the meta device: the inputs that its forward pass asks for."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Final, Protocol

import torch

from peft_shop.errors import ForecastError
from peft_shop.preflight.alternatives import alternatives

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import nn

__all__ = ["Batch", "Sizes", "make_batch", "make_batches"]

Batch = dict[str, Any]
"""Keyword arguments of a model's forward pass."""


class Sizes(Protocol):
    """How large a batch is; settings of a training step are one.

    Attributes:
        batch_size: samples [count].
        sequence_length: of text [tokens].
        dtype: of what is no index, such as `bfloat16`.
        padding: whether a mask says which tokens are padding.
        image_size: side of an image [pixels].
    """

    @property
    def batch_size(self) -> int:
        """Samples [count]."""

    @property
    def sequence_length(self) -> int:
        """Length of text [tokens]."""

    @property
    def dtype(self) -> str:
        """Precision of what is no index."""

    @property
    def padding(self) -> bool:
        """Whether a mask says which tokens are padding."""

    @property
    def image_size(self) -> int:
        """Side of an image [pixels]."""


_META: Final = "meta"
_LATENT_SCALE: Final = 8
"""Pixels that one latent position of an image autoencoder stands for, along a side."""
_TEXT_TOKENS: Final = 512
"""Tokens of a prompt that diffusion backbones are given."""
_TARGET_TOKENS: Final = 64
"""Target tokens of a speech model, which does not follow the length of its input."""


def make_batch(
    model: nn.Module,
    config: Any,
    settings: Sizes,
    *,
    task_type: str | None = None,
    length: int | None = None,
) -> Batch:
    """Inputs of one training step.

    Args:
        model: the model without an adapter.
        config: its configuration of transformers or diffusers.
        settings: batch size, lengths, padding.
        task_type: what its head is for, as peft names it.
        length: tokens, where they differ from the settings'.

    Raises:
        ForecastError: no batch is known for such a model.
    """
    accepts = set(inspect.signature(model.forward).parameters)
    length = length or settings.sequence_length
    size = settings.batch_size
    special = _BY_CLASS.get(type(model).__name__)
    if special is not None:
        return special(config, settings)
    dtype = getattr(torch, settings.dtype)
    if "input_ids" in accepts:
        return _text(model, config, settings, accepts, task_type=task_type, length=length)
    if "pixel_values" in accepts and "decoder_input_ids" not in accepts:
        return _pixels(config, size, accepts, dtype)
    if "input_features" in accepts:
        features = int(getattr(config, "num_mel_bins", 80))
        frames = 2 * int(getattr(config, "max_source_positions", 1500))
        batch = {"input_features": torch.empty(size, features, frames, dtype=dtype, device=_META)}
        if "labels" in accepts:
            batch["labels"] = _tokens(size, min(length, _TARGET_TOKENS))
        return batch
    if "input_values" in accepts:
        # one second of sound at 16 kHz for each 50 positions
        samples = 320 * length
        batch = {"input_values": torch.empty(size, samples, dtype=dtype, device=_META)}
        if (
            "labels" in accepts
            and hasattr(config, "num_labels")
            and "CTC" not in (type(model).__name__)
        ):
            batch["labels"] = _tokens(size)
        return batch
    names = ", ".join(sorted(accepts)[:8])
    msg = (
        f"no batch is known for {type(model).__name__}, whose forward pass takes {names}; "
        "pass one as `batch`: a mapping of these names to tensors on the meta device"
    )
    raise ForecastError(msg)


def make_batches(
    model: nn.Module,
    config: Any,
    settings: Sizes,
    *,
    task_type: str | None = None,
    length: int | None = None,
) -> list[Batch]:
    """The usual batch, and what the model may want where it refuses that, the likeliest first.

    Args:
        model: the model without an adapter.
        config: its configuration of transformers or diffusers.
        settings: batch size, lengths, padding.
        task_type: what its head is for, as peft names it.
        length: tokens, where they differ from the settings'.

    Raises:
        ForecastError: no batch is known for such a model.
    """
    try:
        first = make_batch(model, config, settings, task_type=task_type, length=length)
    except ForecastError:
        others = alternatives(model, config, settings, None)
        if not others:
            raise
        return others
    return [first, *alternatives(model, config, settings, first)]


def _tokens(*shape: int) -> torch.Tensor:
    return torch.zeros(shape, dtype=torch.long, device=_META)


def _text(
    model: nn.Module,
    config: Any,
    settings: Sizes,
    accepts: set[str],
    *,
    task_type: str | None,
    length: int,
) -> Batch:
    dtype = getattr(torch, settings.dtype)
    text = getattr(config, "text_config", None) or config
    stated = getattr(text, "max_position_embeddings", None)
    # some state -1 for no limit
    longest = stated if isinstance(stated, int) and stated > 0 else length
    size, length = settings.batch_size, min(length, longest)
    batch: Batch = {"input_ids": _tokens(size, length)}
    if settings.padding and "attention_mask" in accepts:
        batch["attention_mask"] = torch.ones(size, length, dtype=torch.long, device=_META)
    # packed sequences of a flash kernel are told apart by positions; one sequence needs none
    if "start_positions" in accepts:
        batch["start_positions"], batch["end_positions"] = _tokens(size), _tokens(size)
    elif "labels" in accepts:
        name = type(model).__name__
        if task_type == "SEQ_CLS" or name.endswith("ForSequenceClassification"):
            batch["labels"] = _tokens(size)
        else:
            batch["labels"] = _tokens(size, length)
    if "decoder_input_ids" in accepts:
        batch["decoder_input_ids"] = _tokens(size, length)
    if "pixel_values" in accepts and not _has_language_model(config) and "input_ids" in accepts:
        batch.update(
            {k: v for k, v in _pixels(config, size, accepts, dtype).items() if k != "labels"}
        )
        if "return_loss" in accepts:
            batch["return_loss"] = True
    return batch


def _has_language_model(config: Any) -> bool:
    """Whether text alone is an input (LLaVA, Gemma 3), unlike in CLIP."""
    name = str(getattr(config, "model_type", ""))
    return "clip" not in name and "siglip" not in name and "blip" not in name


def _pixels(config: Any, size: int, accepts: set[str], dtype: torch.dtype) -> Batch:
    vision = getattr(config, "vision_config", None) or config
    side = getattr(vision, "image_size", 224) or 224
    if isinstance(side, dict):
        side = (side.get("height", 224), side.get("width", 224))
    height, width = side if isinstance(side, (list, tuple)) else (side, side)
    channels = int(getattr(vision, "num_channels", 3) or 3)
    batch: Batch = {
        "pixel_values": torch.empty(size, channels, height, width, dtype=dtype, device=_META)
    }
    if "labels" in accepts:
        batch["labels"] = _tokens(size)
    return batch


def _flux2(config: Any, settings: Sizes) -> Batch:
    """Packed latents of 2 x 2 latent positions, and the hidden states of three text layers."""
    size = settings.batch_size
    image = (settings.image_size // (2 * _LATENT_SCALE)) ** 2
    dtype = getattr(torch, settings.dtype)
    batch: Batch = {
        "hidden_states": torch.empty(size, image, config.in_channels, dtype=dtype, device=_META),
        "encoder_hidden_states": torch.empty(
            size, _TEXT_TOKENS, config.joint_attention_dim, dtype=dtype, device=_META
        ),
        "timestep": torch.empty(size, device=_META),
        "img_ids": _tokens(size, image, 4),
        "txt_ids": _tokens(size, _TEXT_TOKENS, 4),
        "guidance": torch.empty(size, device=_META) if config.guidance_embeds else None,
        "return_dict": False,
    }
    return batch


def _flux(config: Any, settings: Sizes) -> Batch:
    size = settings.batch_size
    image = (settings.image_size // (2 * _LATENT_SCALE)) ** 2
    dtype = getattr(torch, settings.dtype)
    return {
        "hidden_states": torch.empty(size, image, config.in_channels, dtype=dtype, device=_META),
        "encoder_hidden_states": torch.empty(
            size, _TEXT_TOKENS, config.joint_attention_dim, dtype=dtype, device=_META
        ),
        "pooled_projections": torch.empty(
            size, config.pooled_projection_dim, dtype=dtype, device=_META
        ),
        "timestep": torch.empty(size, dtype=dtype, device=_META),
        "img_ids": torch.empty(image, 3, dtype=dtype, device=_META),
        "txt_ids": torch.empty(_TEXT_TOKENS, 3, dtype=dtype, device=_META),
        "guidance": torch.empty(size, device=_META) if config.guidance_embeds else None,
        "return_dict": False,
    }


def _sd3(config: Any, settings: Sizes) -> Batch:
    size, side = settings.batch_size, settings.image_size // _LATENT_SCALE
    dtype = getattr(torch, settings.dtype)
    return {
        "hidden_states": torch.empty(
            size, config.in_channels, side, side, dtype=dtype, device=_META
        ),
        "encoder_hidden_states": torch.empty(
            size, 333, config.joint_attention_dim, dtype=dtype, device=_META
        ),
        "pooled_projections": torch.empty(
            size, config.pooled_projection_dim, dtype=dtype, device=_META
        ),
        "timestep": torch.empty(size, device=_META),
        "return_dict": False,
    }


def _unet(config: Any, settings: Sizes) -> Batch:
    size, side = settings.batch_size, settings.image_size // _LATENT_SCALE
    dtype = getattr(torch, settings.dtype)
    width = config.cross_attention_dim
    width = width if isinstance(width, int) else width[-1]
    batch: Batch = {
        "sample": torch.empty(size, config.in_channels, side, side, dtype=dtype, device=_META),
        "timestep": _tokens(size),
        "encoder_hidden_states": torch.empty(size, 77, width, dtype=dtype, device=_META),
        "return_dict": False,
    }
    if getattr(config, "addition_embed_type", None) == "text_time":
        pooled = config.projection_class_embeddings_input_dim - 6 * (config.addition_time_embed_dim)
        batch["added_cond_kwargs"] = {
            "text_embeds": torch.empty(size, pooled, dtype=dtype, device=_META),
            "time_ids": torch.empty(size, 6, dtype=dtype, device=_META),
        }
    return batch


_BY_CLASS: Final[Mapping[str, Callable[[Any, Sizes], Batch]]] = {
    "Flux2Transformer2DModel": _flux2,
    "FluxTransformer2DModel": _flux,
    "SD3Transformer2DModel": _sd3,
    "UNet2DConditionModel": _unet,
}

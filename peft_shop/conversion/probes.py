"""What to feed a model to see what it computes: tokens, images, sounds, noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import torch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from peft_shop.conversion.bases import BaseWeights

__all__ = ["Probe", "probe_of"]

_SEQUENCES: Final = 2
_TOKENS: Final = 16
_CONDITIONS: Final = (
    "addition_embed_type",
    "class_embed_type",
    "encoder_hid_dim",
    "num_class_embeds",
)
"""Settings of a UNet that takes more inputs than the plain one."""
_LARGEST: Final = 2**24
"""Numbers of one input beyond which nobody meant it."""


@dataclass(frozen=True)
class Probe:
    """Inputs of a model.

    Attributes:
        batches: keyword arguments of its forward, one call after the other. Sequences come one at
            a time: a model without a padding token takes no two together.
        described: them in words.
    """

    batches: tuple[dict[str, Any], ...]
    described: str


def probe_of(base: BaseWeights, inputs: Mapping[str, Any] | None) -> Probe | str:
    """What to feed the base, or why nobody knows."""
    if inputs is not None:
        names = ", ".join(
            f"{name} {list(getattr(value, 'shape', ()))}" for name, value in inputs.items()
        )
        return Probe((dict(inputs),), f"the inputs that were given: {names}")
    chance = torch.Generator().manual_seed(0)
    if isinstance(base.config, dict):
        return _unet(base.config, chance)
    kind = getattr(base.skeleton(), "main_input_name", None)
    if not isinstance(kind, str):
        kind = "input_ids"
    if kind == "pixel_values":
        return _images(base.config, chance)
    if kind in {"input_features", "input_values"}:
        return _sounds(base.config, kind, chance)
    return _texts(base.config, chance)


def _texts(config: Any, chance: Any) -> Probe | str:
    vocabulary = _count(_text(config), "vocab_size")
    if vocabulary is None:
        return "the model takes no token identifiers, and no inputs were given"
    batches = []
    for _ in range(_SEQUENCES):
        ids = torch.randint(0, vocabulary, (1, _TOKENS), generator=chance)
        batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        if getattr(config, "is_encoder_decoder", False):
            batch["decoder_input_ids"] = ids.flip(1)
            end = getattr(config, "eos_token_id", None)
            if isinstance(end, int) and 0 <= end < vocabulary:
                ids[ids == end] = (end + 1) % vocabulary
                ids[0, -1] = end  # some heads look for the end, and for one alone
        batches.append(batch)
    return Probe(tuple(batches), f"{_SEQUENCES} sequences of {_TOKENS} random tokens")


def _images(config: Any, chance: Any) -> Probe | str:
    channels, size = _count(config, "num_channels"), _count(config, "image_size")
    if channels is None or size is None or channels * size**2 > _LARGEST:
        return "nobody knows the size of the model's images, and no inputs were given"
    image = torch.randn(1, channels, size, size, generator=chance)
    return Probe(({"pixel_values": image},), f"a random image of {size} x {size}")


def _sounds(config: Any, kind: str, chance: Any) -> Probe | str:
    bins, length = _count(config, "num_mel_bins"), _count(config, "max_source_positions")
    if kind == "input_values":
        batch = {kind: torch.randn(1, 4000, generator=chance)}
    elif bins is not None and length is not None and bins * length <= _LARGEST:
        batch = {kind: torch.randn(1, bins, 2 * length, generator=chance)}
    else:
        return "nobody knows the size of the model's sounds, and no inputs were given"
    vocabulary = _count(_text(config), "vocab_size")
    if getattr(config, "is_encoder_decoder", False) and vocabulary is not None:
        batch["decoder_input_ids"] = torch.randint(0, vocabulary, (1, _TOKENS), generator=chance)
    return Probe((batch,), "a random sound")


def _unet(config: Mapping[str, Any], chance: Any) -> Probe | str:
    """Noise for the plain UNet; other image models take inputs of their own kinds."""
    channels, width = (config.get(name) for name in ("in_channels", "cross_attention_dim"))
    kind = config.get("_class_name")
    plain = kind == "UNet2DConditionModel" and not any(config.get(name) for name in _CONDITIONS)
    levels = config.get("block_out_channels")
    if not plain or not all(isinstance(n, int) for n in (channels, width)):
        return f"nobody knows the inputs of a {kind} from its configuration, and none were given"
    side = 2 ** len(levels) if isinstance(levels, list) else 8
    batch = {
        "sample": torch.randn(1, int(channels or 0), side, side, generator=chance),
        "timestep": torch.tensor([5]),
        "encoder_hidden_states": torch.randn(1, 4, int(width or 0), generator=chance),
    }
    return Probe((batch,), f"random noise of {side} x {side}")


def _text(config: Any) -> Any:
    """The part of a configuration that is about text."""
    try:
        return config.get_text_config()
    except (AttributeError, ValueError):
        return config


def _count(config: Any, name: str) -> int | None:
    value = getattr(config, name, None)
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None

"""Other inputs that a model may want where the usual batch is refused: by the names it asks for.

Models of sound, video, time series and packed images state their shapes in configurations of many
makes. What is made here is a guess each time; a forward pass without weights tells which one holds.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Final

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import nn

    from peft_shop.preflight.batches import Batch, Sizes

__all__ = ["alternatives", "shapes_of"]

_META: Final = "meta"
_FEATURES: Final = (
    "num_mel_bins", "feature_projection_input_dim", "feature_size", "input_feat_per_channel",
    "n_mels", "num_mels", "input_size", "input_dim", "feat_in",
)  # fmt: skip
"""Where configurations state how many features a frame of sound has."""
_SIDES: Final = (224, 256, 512, 640, 64)
"""Sides of images that are tried where the stated one is refused [pixels]."""
_FRAMES: Final = 256
"""Frames of sound; divisible by what encoders fold into one."""
_SAMPLES: Final = 48_000
_GRID: Final = 4
"""Patches along a side of a packed image; models merge two by two."""
_QUERIES: Final = 8
_LABELS: Final = ("labels", "start_positions", "end_positions", "return_loss")


def alternatives(model: nn.Module, config: Any, sizes: Sizes, first: Batch | None) -> list[Batch]:
    """Batches to try after `first`, the likeliest first; none where nothing else is known.

    Args:
        model: the model without an adapter.
        config: its configuration.
        sizes: batch size, lengths, dtype.
        first: the usual batch, which leaves out what a model may demand; `None` without one.
    """
    parameters = inspect.signature(model.forward).parameters
    accepts = [
        name
        for name, parameter in parameters.items()
        if parameter.kind in {parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY}
    ]
    maker = _Maker(config, sizes)
    mains = [name for name in accepts if name in _MAINS]
    starts: list[Batch] = [] if first is None else [dict(first)]
    for name in mains:
        made = [dict(one) for one in getattr(maker, _MAINS[name])(name, accepts)]
        if first is not None and "input_ids" in first:
            made = [{**first, **one} for one in made] + made
        elif first is not None and "labels" in first:
            made += [{**one, "labels": first["labels"]} for one in made]
        starts += made
    batches: list[Batch] = []
    for start in starts:
        needed = [
            name
            for name in accepts
            if name not in start and parameters[name].default is inspect.Parameter.empty
        ]
        more = {name: made for name in needed if (made := maker.beside(name)) is not None}
        also = {
            name: made
            for name in accepts
            if name in _WITH_TEXT and "input_ids" in start and name not in start
            if (made := maker.beside(name)) is not None
        }
        bare = {name: value for name, value in start.items() if name not in _LABELS}
        batches += [{**start, **more}, {**bare, **more}, {**bare, **more, **also}]
    return [batch for batch in batches if batch]


def shapes_of(batch: Batch) -> frozenset[tuple[str, Any]]:
    """What tells two batches apart."""
    return frozenset(
        (name, tuple(value.shape) if isinstance(value, torch.Tensor) else str(value))
        for name, value in batch.items()
    )


_MAINS: Final = {
    "pixel_values": "images",
    "pixel_values_videos": "videos",
    "hidden_states": "packed",
    "input_features": "sound",
    "input_values": "waves",
    "past_values": "series",
    "inputs_embeds": "embedded",
    "query_embeds": "embedded",
    "noise_embeds": "embedded",
    "latents": "embedded",
    "states": "decisions",
}
"""Main inputs, and what makes them."""
_WITH_TEXT: Final = frozenset({"bbox", "pixel_values"})


class _Maker:
    """Tensors for the names that forward passes have."""

    def __init__(self, config: Any, sizes: Sizes) -> None:
        self._configs = list(_parts(config))
        self._size = sizes.batch_size
        self._length = min(sizes.sequence_length, 512)
        self._dtype = getattr(torch, sizes.dtype)

    def _stated(self, *names: str) -> list[int]:
        """What the configuration or a part of it states under any of these names."""
        found: dict[int, None] = {}
        for name in names:
            for config in self._configs:
                value = config.get(name)
                if type(value) is int and value > 0:
                    found[value] = None
        return list(found)

    def _one(self, default: int, *names: str) -> int:
        return next(iter(self._stated(*names)), default)

    def _floats(self, *shape: int) -> torch.Tensor:
        return torch.empty(shape, dtype=self._dtype, device=_META)

    def _indices(self, *shape: int) -> torch.Tensor:
        return torch.zeros(shape, dtype=torch.long, device=_META)

    def images(self, name: str, accepts: Sequence[str]) -> Iterator[Batch]:
        size, channels = self._size, self._one(3, "num_channels", "in_channels", "in_chans")
        if "grid_thw" in accepts or "spatial_shapes" in accepts:
            yield from self.packed(name, accepts)
        frames = (self._one(8, "num_frames", "frames"), 2)
        sides = [*self._stated("image_size"), *_SIDES]
        for side in dict.fromkeys(sides):
            yield {name: self._floats(size, channels, side, side)}
        for count in frames:
            yield {name: self._floats(size, count, channels, sides[0], sides[0])}

    def videos(self, name: str, _: Sequence[str]) -> Iterator[Batch]:
        frames = self._one(8, "num_frames", "frames_per_clip")
        channels = self._one(3, "num_channels")
        side = self._one(224, "image_size", "crop_size")
        yield {name: self._floats(self._size, frames, channels, side, side)}

    def packed(self, name: str, accepts: Sequence[str]) -> Iterator[Batch]:
        """Patches of images in one row, and how many along each side."""
        patch = self._one(14, "patch_size")
        channels = self._one(3, "num_channels", "in_channels", "in_chans")
        flat = channels * patch * patch
        count = _GRID * _GRID
        if "grid_thw" in accepts:
            grid = torch.tensor([[1, _GRID, _GRID]] * self._size)
            for times in dict.fromkeys((*self._stated("temporal_patch_size"), 1, 2)):
                yield {name: self._floats(self._size * count, flat * times), "grid_thw": grid}
            yield {name: self._floats(self._size * count, channels, patch, patch), "grid_thw": grid}
        if "spatial_shapes" in accepts:
            shapes = torch.tensor([[_GRID, _GRID]] * self._size)
            mask = torch.ones(self._size, count, dtype=torch.long, device=_META)
            batch: Batch = {name: self._floats(self._size, count, flat), "spatial_shapes": shapes}
            for one in ("pixel_attention_mask", "attention_mask"):
                if one in accepts:
                    yield batch | {one: mask}
        if name == "hidden_states":
            yield from self.embedded(name, accepts)

    def sound(self, name: str, accepts: Sequence[str]) -> Iterator[Batch]:
        masks = [one for one in ("input_features_mask", "feature_attention_mask", "attention_mask")
                 if one in accepts]  # fmt: skip
        long = self._stated("max_source_positions")
        for features in (*self._stated(*_FEATURES), 80, 128):
            for frames in (_FRAMES, *(2 * one for one in long)):
                for shape in ((frames, features), (features, frames)):
                    batch: Batch = {name: self._floats(self._size, *shape)}
                    yield batch
                    mask = torch.ones(self._size, frames, dtype=torch.long, device=_META)
                    for one in masks:
                        yield batch | {one: mask}

    def waves(self, name: str, _: Sequence[str]) -> Iterator[Batch]:
        channels = self._one(1, "audio_channels", "num_channels")
        yield {name: self._floats(self._size, channels, _SAMPLES)}
        for features in self._stated(*_FEATURES):
            for frames in self._stated("max_length"):
                yield {name: self._floats(self._size, frames, features)}

    def series(self, name: str, accepts: Sequence[str]) -> Iterator[Batch]:
        size, length = self._size, self._one(64, "context_length")
        ahead = self._one(8, "prediction_length", "horizon_length")
        stated = [config.get("lags_sequence") for config in self._configs]
        lags = max((max(one) for one in stated if isinstance(one, list) and one), default=0)
        times = self._one(1, "num_time_features")
        channels = self._one(1, "num_input_channels", "input_size")
        for shape in ((size, length, channels), (size, length), (size, length + lags)):
            batch: Batch = {name: self._floats(*shape)}
            if "past_values_padding" in accepts:
                batch["past_values_padding"] = self._indices(*shape)
            if "past_time_features" in accepts:
                batch["past_time_features"] = self._floats(size, shape[1], times)
                batch["past_observed_mask"] = self._floats(*shape)
                batch["future_values"] = self._floats(size, ahead, *shape[2:])
                batch["future_time_features"] = self._floats(size, ahead, times)
            yield batch

    def embedded(self, name: str, accepts: Sequence[str]) -> Iterator[Batch]:
        count = _QUERIES if name == "query_embeds" else self._length
        for width in self._stated("hidden_size", "d_model", "embed_dim", "codebook_dim"):
            batch: Batch = {name: self._floats(self._size, count, width)}
            if "encoder_hidden_states" in accepts:
                for other in self._stated("encoder_hidden_size", "hidden_size"):
                    yield batch | {"encoder_hidden_states": self._floats(self._size, 16, other)}
            if "context_hidden_states" in accepts:
                yield batch | {"context_hidden_states": self._floats(self._size, 16, width)}
            yield batch

    def decisions(self, name: str, _: Sequence[str]) -> Iterator[Batch]:
        size, length = self._size, self._length
        states, actions = self._one(17, "state_dim"), self._one(4, "act_dim")
        yield {
            name: self._floats(size, length, states),
            "actions": self._floats(size, length, actions),
            "rewards": self._floats(size, length, 1),
            "returns_to_go": self._floats(size, length, 1),
            "timesteps": self._indices(size, length),
        }

    def beside(self, name: str) -> Any:
        """What else a forward pass demands; `None` where it is not known."""
        size = self._size
        if name == "bbox":
            return self._indices(size, self._length, 4)
        if name == "pixel_values":
            side = self._one(224, "image_size")
            return self._floats(size, self._one(3, "num_channels"), side, side)
        if name == "freq":
            return self._indices(size, 1)
        if name == "merge_sizes":
            return torch.ones(size, dtype=torch.long)
        if name in {"input_ids", "decoder_input_ids"}:
            return self._indices(size, self._length)
        return None


def _parts(config: Any) -> Iterator[dict[str, Any]]:
    """The configuration and the parts that it is made of, as plain values."""
    content = config if isinstance(config, dict) else vars(config) if config is not None else {}
    yield content
    for name, value in content.items():
        if name.endswith("config") and hasattr(value, "to_dict"):
            yield from _parts(value)

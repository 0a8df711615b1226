"""Tiny seeded models that the probe adapts: one for each layer type, and a Llama.

Widths are 32 and 48 so that every target but an embedding comes square and non-square, and every
block size, group size and rank of the set-ups divides them.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.pytorch_utils import Conv1D as TransformersConv1D

if TYPE_CHECKING:
    from collections.abc import Callable

    from peft_shop.catalog.features import LayerType

__all__ = ["WIDTH", "Host", "language_host", "layer_host"]

WIDTH: Final = 32
OTHER: Final = 48
VOCABULARY: Final = 64
BATCH: Final = 4
LENGTH: Final = 6
EXPERTS: Final = 3
CLASSES: Final = 6
CONVOLUTIONS: Final = {"conv1d": nn.Conv1d, "conv2d": nn.Conv2d, "conv3d": nn.Conv3d}


@dataclass
class Host:
    """A model and what to feed it.

    Attributes:
        model: the base model, on its device, in training mode.
        inputs: keyword arguments of its forward.
        targets: names of the modules (or parameters) to adapt.
        targets_are_parameters: whether `targets` name parameters.
    """

    model: Any
    inputs: dict[str, Any]
    targets: tuple[str, ...]
    targets_are_parameters: bool = False


class _Experts(nn.Module):  # type: ignore[misc] # torch is not followed by mypy
    """Mixture of experts whose weights are bare parameters, as in transformers 5."""

    def __init__(self) -> None:
        super().__init__()
        self.router = nn.Linear(WIDTH, EXPERTS)
        self.gate_up = nn.Parameter(torch.randn(EXPERTS, WIDTH, OTHER) / WIDTH**0.5)
        self.down = nn.Parameter(torch.randn(EXPERTS, OTHER, WIDTH) / OTHER**0.5)

    def forward(self, x: Any) -> Any:
        share = torch.softmax(self.router(x), dim=-1)
        hidden = torch.nn.functional.gelu(torch.einsum("bsd,edh->ebsh", x, self.gate_up))
        return torch.einsum("ebsh,ehd,bse->bsd", hidden, self.down, share)


class _Attention(nn.Module):  # type: ignore[misc] # torch is not followed by mypy
    def __init__(self, *, bias: bool) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(WIDTH, 4, batch_first=True, bias=bias)

    def forward(self, x: Any) -> Any:
        return self.attn(x, x, x, need_weights=False)[0]


class _LayerHost(nn.Module):  # type: ignore[misc] # torch is not followed by mypy
    """Layers of one type, a pooling and a head; its output looks like that of a transformer.

    X-LoRA reads `config` and `hidden_states`, and expects the layers under `model`.
    """

    def __init__(self, layers: dict[str, Any], *, channels_first: bool) -> None:
        super().__init__()
        self.config = SimpleNamespace(model_type="custom", use_cache=False)
        self.config.to_dict = lambda: {"model_type": "custom", "use_cache": False}
        self.model = nn.ModuleDict(layers)
        self.head = nn.Linear(WIDTH, CLASSES)
        self.channels_first = channels_first

    def forward(self, input_ids: Any = None, inputs_embeds: Any = None, **_: Any) -> Any:
        x = inputs_embeds if input_ids is None else input_ids
        length = x.shape[1]
        for number, layer in enumerate(self.model.values()):
            x = layer(x if number == 0 else torch.nn.functional.gelu(x))
        if self.channels_first:
            x = x.flatten(2).mean(-1).unsqueeze(1).expand(-1, length, -1)
        pooled = x.flatten(1, -2).mean(1) if x.dim() > 2 else x
        return SimpleNamespace(logits=self.head(pooled), hidden_states=(x,), loss=None)


def _layers(layer: LayerType, shapes: str, *, bias: bool) -> dict[str, Any]:
    """Modules of one layer type that map the host's input to width 32."""
    sizes = {"square": (WIDTH, WIDTH), "wide": (WIDTH, OTHER), "narrow": (OTHER, WIDTH)}
    chosen = {
        "both": ("square", "wide", "narrow"),
        "square": ("square",),
        "other": ("wide", "narrow"),
    }[shapes]
    if layer == "linear":
        return {name: nn.Linear(*sizes[name], bias=bias) for name in chosen}
    if layer == "transformers_conv1d":  # its arguments are (out, in)
        return {name: TransformersConv1D(*reversed(sizes[name])) for name in chosen}
    if layer in CONVOLUTIONS:
        conv = CONVOLUTIONS[layer]
        return {
            "square": conv(16, 16, 3, padding=1, bias=bias),
            "wide": conv(16, WIDTH, 3, padding=1, bias=bias),
        }
    makers: dict[str, tuple[str, Callable[[], Any]]] = {
        "embedding": ("embed", lambda: nn.Embedding(VOCABULARY, WIDTH)),
        "layer_norm": ("norm", lambda: nn.LayerNorm(WIDTH, bias=bias)),
        "multihead_attention": ("block", lambda: _Attention(bias=bias)),
        "parameter": ("experts", _Experts),
    }
    name, make = makers[layer]
    return {name: make()}


def layer_host(
    layer: LayerType,
    *,
    shapes: str = "both",
    bias: bool = True,
    inputs: int = 3,
    device: str = "cpu",
    task_ids: bool = False,
) -> Host:
    """A seeded host with layers of one type.

    Args:
        layer: type of the layers to adapt.
        shapes: `both`, `square` or `other`, where the type comes in several shapes.
        bias: whether the layers have one, where the type can do without.
        inputs: dimensions of what linear layers get.
        device: where to put it.
        task_ids: whether the forward also gets task identifiers.
    """
    torch.manual_seed(0)
    layers = _layers(layer, shapes, bias=bias)
    model = _LayerHost(layers, channels_first=layer in CONVOLUTIONS)
    _vary(model)
    if layer == "embedding":
        given = {"input_ids": torch.randint(0, VOCABULARY, (BATCH, LENGTH))}
        given["input_ids"][:, :3] = torch.tensor([1, 2, 3])  # tokens that set-ups train
    else:
        size = {
            "conv1d": (BATCH, 16, 8),
            "conv2d": (BATCH, 16, 5, 5),
            "conv3d": (BATCH, 16, 3, 3, 3),
        }.get(layer)
        if size is None:
            first = OTHER if shapes == "narrow" else WIDTH
            size = {2: (BATCH * LENGTH,), 3: (BATCH, LENGTH), 4: (BATCH, 2, LENGTH)}[inputs] + (
                first,
            )
        given = {"inputs_embeds": torch.randn(*size)}
    targets = {
        "multihead_attention": ("attn",),
        "parameter": ("experts.gate_up", "experts.down"),
    }.get(layer, tuple(layers))
    return _placed(Host(model, given, targets, layer == "parameter"), device, task_ids=task_ids)


def language_host(
    *,
    device: str = "cpu",
    dtype: Any = torch.float32,
    task_ids: bool = False,
    targets: tuple[str, ...] = (),
    tie: bool = False,
    width: int = WIDTH,
    other: int = OTHER,
    bias: bool = False,
    device_map: bool = False,
) -> Host:
    """A seeded Llama of two layers with grouped key and value heads.

    The inputs are token identifiers, a mask without padding and labels.

    Args:
        device: where to put it.
        dtype: of its weights.
        task_ids: whether the forward also gets task identifiers.
        targets: names of the modules to adapt.
        tie: whether the head is the embedding.
        width: of the residual stream.
        other: of the MLP.
        bias: whether all its linear layers but the head have one.
        device_map: whether it says that a device map placed it.
    """
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=width,
        intermediate_size=other,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        attention_bias=bias,
        mlp_bias=bias,
        use_cache=False,
        tie_word_embeddings=tie,
        # wide enough for the layers to matter: with 0.02 the residual stream is all there is
        initializer_range=0.2,
        pad_token_id=0,
        attn_implementation="eager",
    )
    model = LlamaForCausalLM(config)
    _vary(model)
    if device_map:
        model.hf_device_map = {"": device}
    ids = torch.randint(4, VOCABULARY, (BATCH, LENGTH))
    ids[:, :3] = torch.tensor([1, 2, 3])
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids.clone()}
    return _placed(Host(model.to(dtype), inputs, targets), device, task_ids=task_ids)


def _vary(model: Any) -> None:
    """Move biases and norms off their initial zeros and ones, which hide mistakes."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))


def _placed(host: Host, device: str, *, task_ids: bool) -> Host:
    host.model.to(device).train()
    if task_ids:
        samples = len(next(iter(host.inputs.values())))
        host.inputs["task_ids"] = torch.zeros(samples, dtype=torch.long)
        host.inputs["task_ids"][1:] = 1
    host.inputs = {name: value.to(device) for name, value in host.inputs.items()}
    return host

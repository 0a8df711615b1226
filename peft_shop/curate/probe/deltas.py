"""What an adapter does to one layer, seen from outside: outputs for unit vectors, nothing else.

The oracle behind fidelity. It knows neither peft's merging nor its conversion, so that both can be
judged by it.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D as TransformersConv1D

from peft_shop.curate.probe.bench import randomise, trainable
from peft_shop.curate.probe.hosts import WIDTH, Host

if TYPE_CHECKING:
    from peft_shop.catalog.features import LayerType
    from peft_shop.curate.probe.bench import Bench

__all__ = [
    "LINEAR",
    "Delta",
    "delta_of",
    "numerical_rank",
    "single_host",
    "singular_values",
    "tail_errors",
]

BATCH: Final = 2
TOKENS: Final = 64
EFFECT: Final = 0.1
"""Relative change of the outputs to aim at: of the size that training brings, and far above the
rounding of fp32, which would pass for small singular values."""
LINEAR: Final = 1e-3
"""Largest deviation [1] from the matrix that counts as linear, relative to the effect."""
SAME: Final = 1e-5
"""Relative change of a weight or bias that is rounding."""
RELATIVE: Final = 1e-5
"""Singular values below this part of the largest are rounding."""
KERNEL: Final = 3


class _Single(nn.Module):  # type: ignore[misc] # torch is not followed by mypy
    """One layer whose output is the model's; X-LoRA reads `config` and `hidden_states`."""

    def __init__(self, name: str, layer: Any) -> None:
        super().__init__()
        self.config = SimpleNamespace(model_type="custom", use_cache=False, to_dict=dict)
        self.model = nn.ModuleDict({name: layer})

    def forward(self, input_ids: Any = None, inputs_embeds: Any = None, **_: Any) -> Any:
        x = inputs_embeds if input_ids is None else input_ids
        for layer in self.model.values():
            x = layer(x)
        return SimpleNamespace(logits=x, hidden_states=(x[..., :WIDTH],), loss=None)


def single_host(
    bench: Bench, layer: LayerType, shape: tuple[int, int], *, bias: bool = True
) -> Host:
    """A seeded host with one layer of a type.

    Args:
        bench: whose method it is for.
        layer: `linear`, `transformers_conv1d`, `embedding` or `conv2d`.
        shape: inputs (rows of an embedding, channels) and outputs.
        bias: whether a linear layer has a bias.
    """
    torch.manual_seed(0)
    inputs, outputs = shape
    name = "narrow" if outputs < inputs else "wide" if inputs < outputs else "square"
    made: dict[str, Any] = {
        "linear": lambda: nn.Linear(inputs, outputs, bias=bias),
        "transformers_conv1d": lambda: TransformersConv1D(outputs, inputs),
        "embedding": lambda: nn.Embedding(inputs, outputs),
        "conv2d": lambda: nn.Conv2d(inputs, outputs, KERNEL, padding=KERNEL // 2),
    }
    if layer == "embedding":
        name = "embed"
    model = _Single(name, made[layer]())
    if layer == "embedding":
        fed = {"input_ids": torch.randint(0, inputs, (BATCH, TOKENS))}
        fed["input_ids"][:, :3] = torch.tensor([1, 2, 3])  # tokens that set-ups train
    elif layer == "conv2d":
        fed = {"inputs_embeds": torch.randn(BATCH, inputs, 5, 5)}
    else:
        fed = {"inputs_embeds": torch.randn(BATCH, TOKENS, inputs)}
    if bench.setup.task_ids:
        fed["task_ids"] = torch.arange(BATCH)
    host = Host(model.train(), fed, (name,))
    if "alora_invocation_tokens" in bench.overrides:
        host.inputs["alora_offsets"] = [TOKENS // 2] * BATCH
    return host


def _config(bench: Bench, layer: LayerType, host: Host) -> Any:
    """The layer's configuration; lists of modules name those that are there."""
    there = dict(bench.setup.layer_args.get(layer, {}))
    for name, value in there.items():
        if name.endswith("_modules"):
            there[name] = [item for item in value if item in host.targets]
    setup = bench.setup.model_copy(update={"layer_args": {layer: there}})
    return dataclasses.replace(bench, setup=setup).layer_config(layer, host)


@dataclass(frozen=True)
class Delta:
    """What an adapter changes on one layer.

    Attributes:
        weight: change of the weight, (out, in), (out, in * k * k) of convolutions, (rows, width)
            of embeddings; fp64.
        size: its Frobenius norm relative to that of the weight.
        bias: whether the bias changes.
        unexplained: part of the adapter's effect [1] on other inputs, places and tasks that
            weight and bias do not explain.
        base_changed: whether wrapping alone changed the weight or bias of the base.
    """

    weight: Any
    size: float
    bias: bool
    unexplained: float
    base_changed: bool

    @property
    def fixed(self) -> bool:
        """Whether weight and bias are all there is."""
        return self.unexplained <= LINEAR


def delta_of(
    bench: Bench,
    layer: LayerType,
    shape: tuple[int, int],
    *,
    bias: bool = True,
    least: float = EFFECT,
) -> tuple[Delta, Host, Any]:
    """The change by a randomised adapter of the bench, with its host and model.

    Args:
        bench: the method and its settings.
        layer: type of the layer.
        shape: its inputs and outputs.
        bias: whether a linear layer has a bias.
        least: relative change of the outputs to aim at.

    Raises:
        ProbeError: the set-up is wrong, or the adapter has no effect.
    """
    host = single_host(bench, layer, shape, bias=bias)
    (inner,) = host.model.model.values()
    weight = inner.weight.detach().clone()
    own = getattr(inner, "bias", None)
    own = None if own is None else own.detach().clone()
    model = bench.wrap(host, _config(bench, layer, host))
    if trainable(model):
        randomise(model, host, least=least)
    model.eval()
    changed = _base_changed(model, weight, own)
    seen = _observed(model, host, layer, weight, own)
    change = seen.weight - weight.double()
    moved = False
    if seen.shift is not None:
        before = torch.zeros_like(seen.shift) if own is None else own.double()
        moved = _differs(seen.shift, before)
    effect = float((seen.outputs - seen.plain).norm()) or 1.0
    missed = float((seen.outputs - seen.expected).norm()) / effect if seen.alike else 1.0
    flat = change.reshape(change.shape[0], -1)
    size = float(flat.norm() / weight.double().norm())
    return Delta(flat, size, moved, missed, changed), host, model


def _base_changed(model: Any, weight: Any, bias: Any) -> bool:
    """Whether no frozen parameter of the wrapped model is the base's weight (or bias) any more."""
    for wanted in (weight, bias):
        if wanted is None:
            continue
        kept = [
            parameter
            for parameter in (*model.parameters(), *model.buffers())
            if parameter.shape == wanted.shape and not parameter.requires_grad
        ]
        if not any(torch.equal(parameter.float(), wanted) for parameter in kept):
            return True
    return False


def _outputs(model: Any, host: Host, name: str, values: Any) -> Any:
    """Outputs for `values` as each element of a batch, in fp64: the elements may differ."""
    inputs = dict(host.inputs)
    inputs[name] = torch.stack([values] * BATCH)
    if "alora_offsets" in inputs:
        inputs["alora_offsets"] = [values.shape[0] // 2] * BATCH
    if "task_ids" in inputs:
        model = model.base_model  # peft passes them on for its task types only
    with torch.no_grad():
        return model(**inputs).logits.detach().double()


@dataclass(frozen=True)
class _Seen:
    """A layer's answers: its weight and bias as they act, and outputs for other inputs.

    Attributes:
        weight: as the outputs for unit vectors tell it, in the shape of the base's weight.
        shift: output for zeros; `None` of embeddings.
        outputs: for inputs that were not used to find them.
        expected: what weight and shift predict for these.
        plain: what the base gave for them.
        alike: whether all elements of a batch got the same.
    """

    weight: Any
    shift: Any
    outputs: Any
    expected: Any
    plain: Any
    alike: bool


def _observed(model: Any, host: Host, layer: LayerType, weight: Any, bias: Any) -> _Seen:
    look = {"embedding": _embedded, "conv2d": _convolved}.get(layer)
    if look is not None:
        return look(model, host, weight, bias)
    turned = layer == "transformers_conv1d"  # which holds (in, out)
    own = (weight.T if turned else weight).double()
    rows = torch.cat([torch.eye(own.shape[1]), torch.zeros(1, own.shape[1])])
    out = _outputs(model, host, "inputs_embeds", rows)
    shift = out[0, -1]
    delta = (out[0, :-1] - shift).T
    probes = 3.0 * torch.randn(TOKENS, own.shape[1], generator=_generator())
    expected = probes.double() @ delta.T + shift
    plain = probes.double() @ own.T + (0.0 if bias is None else bias.double())
    seen = _outputs(model, host, "inputs_embeds", probes)
    return _Seen(delta.T if turned else delta, shift, seen, expected, plain, _alike(out))


def _embedded(model: Any, host: Host, weight: Any, _: Any) -> _Seen:
    out = _outputs(model, host, "input_ids", torch.arange(weight.shape[0]))
    ids = torch.randperm(weight.shape[0], generator=_generator())[:9]
    seen = _outputs(model, host, "input_ids", ids)
    return _Seen(out[0], None, seen, out[0][ids], weight.double()[ids], _alike(out))


def _convolved(model: Any, host: Host, weight: Any, bias: Any) -> _Seen:
    """A convolution answers an impulse in the middle with its kernel, turned around."""
    channels, size = weight.shape[1], 2 * KERNEL - 1
    impulses = torch.zeros(channels + 1, channels, size, size)
    for channel in range(channels):
        impulses[channel, channel, KERNEL - 1, KERNEL - 1] = 1.0
    probes = 3.0 * torch.randn(4, channels, size, size, generator=_generator())
    with torch.no_grad():
        out = model(**{**host.inputs, "inputs_embeds": impulses}).logits.double()
        seen = model(**{**host.inputs, "inputs_embeds": probes}).logits.double()
    half = KERNEL // 2
    middle = slice(KERNEL - 1 - half, KERNEL + half)
    shift = out[-1, :, KERNEL - 1, KERNEL - 1]
    answers = out[:-1, :, middle, middle] - shift.reshape(1, -1, 1, 1)
    kernel = answers.flip(2, 3).transpose(0, 1)  # (out, in, k, k)
    own = None if bias is None else bias.double()
    convolve = nn.functional.conv2d
    expected = convolve(probes.double(), kernel, shift, padding=half)
    plain = convolve(probes.double(), weight.double(), own, padding=half)
    return _Seen(kernel, shift, seen, expected, plain, alike=True)


def _generator() -> Any:
    return torch.Generator().manual_seed(11)


def _alike(out: Any) -> bool:
    """Whether all elements of a batch got the same outputs."""
    return not _differs(out[1:], out[:1].expand_as(out[1:]))


def _differs(found: Any, expected: Any) -> bool:
    scale = float(expected.abs().max()) or 1.0
    return float((found - expected).abs().max()) > SAME * scale


def singular_values(matrix: Any) -> Any:
    """Singular values of a change, largest first, fp64."""
    return torch.linalg.svdvals(matrix.double())


def numerical_rank(values: Any) -> int:
    """Singular values above 1e-5 of the largest; 0 where all are zero."""
    return int((values > RELATIVE * values[0]).sum()) if float(values[0]) > 0 else 0


def tail_errors(values: Any, ranks: tuple[int, ...]) -> tuple[float, ...]:
    """Relative Frobenius error of the best approximation at each rank."""
    energy = values.square()
    whole = float(energy.sum()) or 1.0
    return tuple((float(energy[rank:].sum()) / whole) ** 0.5 for rank in ranks)

"""How well a LoRA holds what a method changes: rank, error at lower ranks, layers that survive."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from peft_shop.catalog.conditions import Circumstances
from peft_shop.catalog.methods import FIDELITY_RANKS, Fidelity, MeasuredRank
from peft_shop.curate.probe.bench import deviation, logits, randomise
from peft_shop.curate.probe.deltas import (
    LINEAR,
    delta_of,
    numerical_rank,
    single_host,
    singular_values,
    tail_errors,
)
from peft_shop.curate.probe.judgement import attempt, found, order

if TYPE_CHECKING:
    from peft_shop.catalog.features import LayerType
    from peft_shop.catalog.methods import Capability, DeltaKind
    from peft_shop.curate.probe.bench import Bench
    from peft_shop.curate.probe.deltas import Delta
    from peft_shop.curate.probe.hosts import Host

__all__ = ["EXTRACTABLE", "probe_fidelity"]

EXTRACTABLE: Final = "extractable_to_lora"
SHAPE: Final = (128, 160)
"""Inputs and outputs of the layer on which errors are told: wide enough for rank 64."""
SMALL: Final = (48, 40)
GRID_SHAPES: Final = (SMALL, (40, 48), (48, 48))
GRID_EFFECT: Final = 1.0
"""As `EFFECT`; larger, since the grid looks for ranks alone, and rounding must not pass for one."""
LAYER_SHAPES: Final[dict[LayerType, tuple[int, int]]] = {
    "linear": (48, 32),
    "embedding": (64, 32),
    "conv2d": (16, 32),
    "transformers_conv1d": (32, 48),
}
"""Layer types that a LoRA can be on, each with a small shape."""
NOTHING: Final = 1e-4
"""Size [1] of a change of the weight below which it is rounding."""
REPRODUCED: Final = 1e-4
"""Largest deviation [1] of a LoRA of full rank from the adapter that it was made of."""
DIGITS: Final = 2


@dataclasses.dataclass(frozen=True)
class _Seen:
    """One layer: what changes, its singular values, how far a LoRA of its rank is off."""

    delta: Delta
    values: Any
    deviation: float

    @property
    def rank(self) -> int:
        return numerical_rank(self.values)


def probe_fidelity(bench: Bench) -> dict[str, Capability]:
    """Whether a LoRA holds what the method changes; leaves what was measured on the bench."""
    bench.fidelity, answer = _fidelity(bench)
    return {EXTRACTABLE: answer}


def _fidelity(bench: Bench) -> tuple[Fidelity, Capability]:
    if bench.prompt:
        note = "learns virtual tokens: no weight to write as a LoRA"
        return Fidelity(delta=("prompt",)), found("no", "declared", note)
    if bench.setup.blocks is not None:
        note = f"wraps {bench.setup.blocks}: what it adds is no weight of a layer"
        return Fidelity(delta=("activation",)), found("no", "declared", note)
    layer = _target(bench)
    if layer is None:
        note = "trains norms, for which a LoRA has no place"
        return Fidelity(delta=("norm",)), found("no", "declared", note)
    return _measured(bench, layer)


def _target(bench: Bench) -> LayerType | None:
    """Type of the layers that the set-up targets on the language model; `None` for norms."""
    host = bench.language_host()
    kinds = {
        type(module)
        for name, module in host.model.named_modules()
        if name.rpartition(".")[2] in host.targets
    }
    if nn.Linear in kinds:
        return "linear"
    return "embedding" if nn.Embedding in kinds else None


def _measured(bench: Bench, layer: LayerType) -> tuple[Fidelity, Capability]:
    seen = [_seen(bench, layer, shape, bias=False) for shape in (SHAPE, SHAPE[::-1], SMALL)]
    kinds = _kinds(bench, layer, seen)
    changed = any(one.delta.base_changed for one in seen)
    if "input_dependent" in kinds:
        part = max(one.delta.unexplained for one in seen)
        note = "acts differently on other inputs, positions or tasks: no fixed matrix does that"
        answer = found("no", "verified", note, measured={"unexplained": order(part)})
        return Fidelity(delta=kinds, base_changed=changed), answer
    if not {"weight", "embedding"} & set(kinds):
        note = "trains biases, for which a LoRA has no place"
        size = max(one.delta.size for one in seen)
        answer = found("no", "verified", note, measured={"weight": order(size)})
        return Fidelity(delta=kinds, base_changed=changed), answer
    ranks = {one.rank for one in seen}
    exact = len(ranks) == 1 and max(ranks) <= max(FIDELITY_RANKS)
    errors: tuple[float, ...] = ()
    if not exact:
        each = [tail_errors(one.values, FIDELITY_RANKS) for one in seen[:2]]
        errors = tuple(round(max(pair), DIGITS) for pair in zip(*each, strict=True))
    fidelity = Fidelity(
        delta=kinds,
        base_changed=changed,
        rank=seen[0].rank,
        errors=errors,
        shape=SHAPE,
        layers=tuple(_survivors(bench)),
        grid=tuple(_grid(bench, layer)),
    )
    answer = _judged(fidelity, max(one.deviation for one in seen))
    if layer == "embedding" and answer.support == "yes" and _moves_tied_head(bench):
        note = "only where the head is not tied to the embedding, which it changes as well"
        untied = (Circumstances(tied=False),)
        answer = found("partial", "verified", note, measured=answer.measured, conditions=untied)
    return fidelity, answer


def _moves_tied_head(bench: Bench) -> bool:
    """Whether an adapter on the embedding changes a head that shares its weight."""
    host = bench.language_host(tie=True)
    states = torch.eye(host.model.config.hidden_size)
    with torch.no_grad():
        before = host.model.get_output_embeddings()(states).clone()
        model = bench.language_model(host)
        randomise(model, host)
        after = model.eval().get_base_model().get_output_embeddings()(states)
    return deviation(after, before) > REPRODUCED


def _judged(fidelity: Fidelity, off: float) -> Capability:
    """What the numbers make of the feature."""
    measured = {"deviation": order(off)}
    if "bias" in fidelity.delta:
        note = "trains biases beside the weight, for which a LoRA has no place"
        return found("no", "verified", note, measured=measured)
    if order(off) > REPRODUCED:
        return found("no", "verified", "a LoRA of full rank gives other outputs", measured=measured)
    notes = []
    if fidelity.errors:
        low, high = FIDELITY_RANKS[0], FIDELITY_RANKS[-1]
        first, last = (f"{100 * fidelity.errors[place]:.0f} %" for place in (0, -1))
        notes.append(
            f"loses {first} of the update at rank {low} and {last} at rank {high}, measured on "
            f"{SHAPE[0]} x {SHAPE[1]}"
        )
    if "base_bias" in fidelity.delta:
        notes.append("only on layers without a bias, which it would change as well")
    alone = "base_bias" in fidelity.delta and not fidelity.errors
    return found(
        "partial" if notes else "yes",
        "verified",
        "; ".join(notes) or None,
        measured=measured,
        conditions=(Circumstances(bias=False),) if alone else (),
    )


def _kinds(bench: Bench, layer: LayerType, seen: list[_Seen]) -> tuple[DeltaKind, ...]:
    if any(one.delta.unexplained > LINEAR for one in seen):
        return ("input_dependent",)
    kinds: list[DeltaKind] = []
    if any(one.delta.size > NOTHING for one in seen):
        kinds.append("embedding" if layer == "embedding" else "weight")
    if any(one.delta.bias for one in seen):
        kinds.append("bias")
    elif layer == "linear" and delta_of(bench, layer, SHAPE)[0].bias:
        kinds.append("base_bias")
    return tuple(kinds)


def _seen(bench: Bench, layer: LayerType, shape: tuple[int, int], *, bias: bool = True) -> _Seen:
    delta, host, model = delta_of(bench, layer, shape, bias=bias)
    values = singular_values(delta.weight)
    off = 0.0
    if delta.size > NOTHING:
        rank = numerical_rank(values)
        off = deviation(
            _extracted(bench, layer, shape, delta, rank, bias=bias), logits(model, host)
        )
    return _Seen(delta, values, off)


def _extracted(
    bench: Bench, layer: LayerType, shape: tuple[int, int], delta: Delta, rank: int, *, bias: bool
) -> Any:
    """Outputs of the base with a LoRA of the leading singular vectors, made by peft."""
    host = single_host(bench, layer, shape, bias=bias)
    host.inputs.pop("task_ids", None)
    host.inputs.pop("alora_offsets", None)
    config = LoraConfig(
        r=rank,
        lora_alpha=rank,
        target_modules=list(host.targets),
        fan_in_fan_out=layer == "transformers_conv1d",
    )
    model = get_peft_model(host.model, config)
    flat = delta.weight.T if layer in {"transformers_conv1d", "embedding"} else delta.weight
    left, values, right = torch.linalg.svd(flat, full_matrices=False)
    b, a = left[:, :rank] * values[:rank], right[:rank]
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.copy_((a if "_A" in name else b).reshape(parameter.shape))
    return logits(model, _without_tasks(host))


def _without_tasks(host: Host) -> Host:
    inputs = {name: value for name, value in host.inputs.items() if name != "task_ids"}
    return dataclasses.replace(host, inputs=inputs)


def _survivors(bench: Bench) -> list[LayerType]:
    """Layer types on which a LoRA of the update's rank gives the adapter's outputs."""
    alive: list[LayerType] = []
    for layer, shape in LAYER_SHAPES.items():
        outcome = attempt(partial(_seen, bench, layer, shape, bias=layer == "conv2d"))
        if not outcome.done:
            continue
        seen: _Seen = outcome.value
        fixed = seen.delta.fixed and (layer == "conv2d" or not seen.delta.bias)
        if fixed and seen.delta.size > NOTHING and order(seen.deviation) <= REPRODUCED:
            alive.append(layer)
    return alive


def _grid(bench: Bench, layer: LayerType) -> list[MeasuredRank]:
    """The rank under every setting of the set-up's grid, on layers of several shapes."""
    if bench.overrides:
        return []  # the method's own grid has the settings of variants too
    points = []
    for settings in bench.setup.grid:
        there = dataclasses.replace(bench, overrides=settings)
        ranks = {}
        for shape in GRID_SHAPES:
            delta, _, _ = delta_of(there, layer, shape, bias=False, least=GRID_EFFECT)
            name = "x".join(map(str, shape))
            ranks[name] = numerical_rank(singular_values(delta.weight))
        points.append(MeasuredRank(config=settings, ranks=ranks))
    return points

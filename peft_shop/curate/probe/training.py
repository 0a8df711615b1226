"""One optimizer step on the adapter: do all its weights learn, and does the base stay as it was?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import torch

from peft_shop.curate.probe.bench import deviation, forward, logits, trainable

if TYPE_CHECKING:
    from peft_shop.curate.probe.hosts import Host

__all__ = ["Trained", "base_weights", "train"]

LEARNING_RATE: Final = 1e-2
CHANGED: Final = 1e-5
"""Least relative change of the outputs that a step must make: ten times fp32's rounding here."""
STEPS: Final = 3
"""Zero-initialised factors let gradients through to the others from the second step on."""


@dataclass(frozen=True, slots=True)
class Trained:
    """What the steps did.

    Attributes:
        tensors: trainable tensors.
        parameters: trainable numbers.
        silent: trainable tensors without any gradient in all steps.
        effect: relative change of the outputs by the first step.
        problems: why this does not count as training; empty when it does.
    """

    tensors: int
    parameters: int
    silent: tuple[str, ...]
    effect: float
    problems: tuple[str, ...]


def base_weights(host: Host) -> dict[int, tuple[str, Any]]:
    """The model's own parameters by identity: name and parameter."""
    return {id(p): (name, p) for name, p in host.model.named_parameters()}


def _loss(model: Any, host: Host) -> Any:
    out = forward(model, host)
    if "labels" in host.inputs:
        return out.loss
    generator = torch.Generator().manual_seed(3)
    goal = torch.randn(out.logits.shape, generator=generator).to(out.logits)
    return ((out.logits - goal) ** 2).mean()


def train(
    model: Any, host: Host, base: dict[int, tuple[str, Any]], *, steps: int = STEPS
) -> Trained:
    """Take optimizer steps on `model` and report.

    Args:
        model: the wrapped model.
        host: what to feed it.
        base: `base_weights` of the host before it was wrapped.
        steps: how many; the first one's effect is measured.
    """
    problems: list[str] = []
    learning = trainable(model)
    if not learning:
        return Trained(0, 0, (), 0.0, ("adapts nothing: no trainable weight",))
    opened = [base[id(p)][0] for p in learning.values() if id(p) in base]
    if opened:
        problems.append(f"trains the base's own {opened[0]}")
    kept = {key: parameter.detach().clone() for key, (_, parameter) in base.items()}
    model.train()
    optimizer = torch.optim.AdamW(learning.values(), lr=LEARNING_RATE)
    heard: set[str] = set()
    before = logits(model, host)
    effect = 0.0
    for step in range(steps):
        optimizer.zero_grad()
        _loss(model, host).backward()
        heard |= _heard(learning, problems)
        optimizer.step()
        if step == 0:
            effect = deviation(logits(model, host), before)
    if not heard:
        problems.append("no gradient reaches the adapter")
    elif not effect > CHANGED:
        problems.append("a step does not change the outputs")
    for key, (name, parameter) in base.items():
        if not opened and not torch.equal(parameter.detach(), kept[key]):
            problems.append(f"the base's own {name} changes")
            break
    silent = tuple(_short(name) for name in learning if name not in heard)
    count = sum(p.numel() for p in learning.values())
    return Trained(len(learning), count, silent, effect, tuple(dict.fromkeys(problems)))


def _heard(learning: dict[str, Any], problems: list[str]) -> set[str]:
    """Names of the parameters with a gradient other than zero; adds those that are not finite."""
    heard = set()
    for name, parameter in learning.items():
        if parameter.grad is None:
            continue
        if not bool(torch.isfinite(parameter.grad).all()):
            problems.append(f"the gradient of {_short(name)} is not finite")
        elif bool(parameter.grad.abs().max() > 0):
            heard.add(name)
    return heard


def _short(name: str) -> str:
    return name.removeprefix("base_model.").removeprefix("model.")

"""A model of a few real layers of the true widths, and what it says of the whole one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import peft
import torch
from torch import nn

from peft_shop.errors import ConfigError
from peft_shop.preflight.reading import pattern_of, read_wrapped
from peft_shop.preflight.wrapping import REFUSALS, refusal

if TYPE_CHECKING:
    from collections.abc import Callable

    from peft_shop.preflight.reading import Seen

__all__ = ["Scaled", "scale_up"]

_SCALE: Final = 0.02
"""Standard deviation of the stand-in's weights; small layers of transformers start with it."""


@dataclass(frozen=True)
class Scaled:
    """What follows for the whole model.

    Attributes:
        trainable: trainable parameters [count].
        total: all parameters [count].
        seen: what was found on the smallest stand-in.
        parameters: trainable parameters by pattern of a module [count].
        config: the configuration as peft filled it in.
    """

    trainable: int
    total: int
    seen: Seen
    parameters: dict[str, int]
    config: Any


def scale_up(skeleton: Callable[[], Any], config: Callable[[], Any]) -> Scaled:
    """Wrap stand-ins whose stacks of layers have one layer, or one of them two, with real weights.

    Every figure is linear in the number of layers of each stack where layers are alike, so that
    these say what it is for all of them.

    Args:
        skeleton: gives a new instance of the model on meta.
        config: gives a new configuration.

    Raises:
        ConfigError: peft refuses the configuration, or the model has no stack of layers.
    """
    depths = {name: len(stack) for name, stack in _stacks(skeleton()).items()}
    if not depths:
        msg = "the model has no stack of layers that a smaller stand-in could be made from"
        raise ConfigError(msg)
    shallow = dict.fromkeys(depths, 1)
    one = _measure(skeleton(), shallow, config())
    trainable, total, parameters = one.trainable, one.total, dict(one.parameters)
    for name, depth in depths.items():
        if depth == 1:
            continue
        two = _measure(skeleton(), {**shallow, name: 2}, config())
        more = depth - 1
        trainable += more * (two.trainable - one.trainable)
        total += more * (two.total - one.total)
        for pattern, count in two.parameters.items():
            before = one.parameters.get(pattern, 0)
            parameters[pattern] = parameters.get(pattern, before) + more * (count - before)
    return Scaled(trainable, total, one.seen, parameters, one.config)


def _stacks(model: Any) -> dict[str, Any]:
    """The outermost lists of layers by name."""
    stacks: dict[str, Any] = {}
    for name, module in model.named_modules():
        inside = any(name.startswith(f"{outer}.") for outer in stacks)
        if isinstance(module, nn.ModuleList) and len(module) and not inside:
            stacks[name] = module
    return stacks


def _measure(model: Any, depths: dict[str, int], config: Any) -> Scaled:
    """The model, cut to `depths` layers by stack and filled, wrapped for real."""
    generator = torch.Generator().manual_seed(0)
    for name, stack in _stacks(model).items():
        del stack[depths[name] :]
        stack.to_empty(device="cpu")
        for value in [*stack.parameters(), *stack.buffers()]:
            if value.is_floating_point():
                value.data.normal_(0.0, _SCALE, generator=generator)
            else:
                value.data.zero_()
    before = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    try:
        with torch.random.fork_rng(devices=[]):
            wrapped = peft.get_peft_model(model, config)
    except REFUSALS as error:
        raise refusal(error, config, model) from error
    trainable, total = wrapped.get_nb_trainable_parameters()
    seen = read_wrapped(wrapped, before)
    parameters: dict[str, int] = {}
    for name, count in {**seen.adapted, **seen.whole}.items():
        pattern = pattern_of(name)
        parameters[pattern] = parameters.get(pattern, 0) + count
    return Scaled(trainable, total, seen, parameters, wrapped.peft_config["default"])

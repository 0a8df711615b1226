"""Runs training steps on the meta device and records them."""

from __future__ import annotations

import gc
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch.autograd import Variable
from torch.distributions import Distribution
from torch.fx.experimental import _config as meta_config

from peft_shop.errors import ForecastError, PeftShopError
from peft_shop.forecast.dry_run.kernels import AcceleratorKernels
from peft_shop.forecast.dry_run.kinds import attach, head_of
from peft_shop.forecast.dry_run.optimizers import clip, make_optimizer
from peft_shop.forecast.dry_run.tracing import Recorder
from peft_shop.preflight.wrapping import REFUSALS

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from torch import nn

    from peft_shop.forecast.dry_run.trace import Trace
    from peft_shop.forecast.records import Settings
    from peft_shop.preflight.batches import Batch

__all__ = ["TracedStep", "trace"]


@dataclass(frozen=True, slots=True)
class TracedStep:
    """One training step.

    Attributes:
        batch: makes its inputs; called when it begins.
        empty_cache: whether the allocator's cache is emptied before it.
    """

    batch: Callable[[], Batch]
    empty_cache: bool = False


def trace(
    model: nn.Module,
    steps: Sequence[TracedStep],
    settings: Settings,
    *,
    base: Sequence[torch.Tensor] | None = None,
    sizes: Mapping[int, int] | None = None,
    away: Collection[int] = (),
    loss: Callable[[Any, Batch], torch.Tensor] | None = None,
    after: Callable[[nn.Module, int], None] | None = None,
) -> Trace:
    """What training steps of `model` allocate, release and run.

    Args:
        model: on the meta device, with its adapter; trained in place.
        steps: at least one; the kernels of the last one are recorded.
        settings: attention kernel and optimizer.
        base: tensors that were there before the adapter; by default everything is the base's.
        sizes: bytes of tensors, by `id`, that are stored in another form than the model's own.
        away: `id` of base tensors that leave the accelerator before the first step.
        loss: from the outputs and the batch; by default the loss that the model returns, else the
            mean square of its first output.
        after: called after each step with the model and the number of the step, from 1.

    Raises:
        ForecastError: the model cannot take such a step on the meta device.
    """
    head = head_of(model)
    rows = getattr(getattr(head, "weight", None), "shape", (None,))[0]
    recorder = Recorder(rows)
    model.train()
    attach(model, recorder)
    recorder.weights = _weights(model)
    sizes = {} if sizes is None else sizes
    host = _on_host(model, moved=settings.moved_after_injection)
    if base is not None:
        recorder.hold(base, "base", sizes)
    recorder.hold(
        (tensor for tensor in _tensors(model) if id(tensor) not in host),
        "base" if base is None else "adapter",
        sizes,
    )
    recorder.send_away(one for one in base or () if id(one) in away)
    try:
        made = make_optimizer(model, settings)
        _run(model, made, steps, recorder, host=host, loss=loss or _loss, after=after)
    except PeftShopError:
        raise
    except REFUSALS as error:
        said = str(error).strip().splitlines()
        msg = (
            f"a training step of {type(model).__name__} cannot be run on the meta device: "
            f"{type(error).__name__}: {said[0] if said else ''}; measure it on an accelerator"
        )
        raise ForecastError(msg) from error
    return recorder.trace


def _run(
    model: nn.Module,
    made: Any,
    steps: Sequence[TracedStep],
    recorder: Recorder,
    *,
    host: Collection[int],
    loss: Callable[[Any, Batch], torch.Tensor],
    after: Callable[[nn.Module, int], None] | None,
) -> None:
    """Run the steps inside the recorder, as a training loop would."""
    trainable = [p for p in model.parameters() if p.requires_grad]
    outputs: Any = None
    value: Any = None
    # which entries of a mask are set is not known: all of them, which is the most there can be
    everything = meta_config.patch(meta_nonzero_assume_all_nonzero=True)
    with _undisturbed(), everything, AcceleratorKernels(host), recorder:
        for number, step in enumerate(steps, start=1):
            recorder.begin(empty_cache=step.empty_cache, measuring=number == len(steps))
            batch = step.batch()
            made.zero_grad()
            recorder.phase = "forward"
            # names that a training loop holds until it sets them again: the last step's outputs
            # are there while the next forward pass runs
            outputs = model(**batch)
            value = loss(outputs, batch)
            recorder.phase, recorder.kind, recorder.site = "backward", "temporary", ""
            _backward(value)
            recorder.relabel((p.grad for p in trainable if p.grad is not None), "gradients")
            recorder.phase = "clip"
            clip(trainable)
            recorder.phase = "optimizer"
            made.step()
            recorder.relabel(_states(made), "optimizer")
            if after is not None:
                after(model, number)
            recorder.kind = "other"
        recorder.finish()
    del outputs, value


def _loss(outputs: Any, _: Batch) -> torch.Tensor:
    """The loss that the model returned; without one, the mean square of the first output."""
    found = getattr(outputs, "loss", None)
    if isinstance(found, torch.Tensor):
        return found
    first = outputs
    while not isinstance(first, torch.Tensor):
        values = list(first.values()) if hasattr(first, "values") else list(first)
        if not values:
            msg = "the model returns no tensor to make a loss of; pass `loss`"
            raise ForecastError(msg)
        first = values[0]
    return first.float().pow(2).mean()


def _backward(loss: torch.Tensor) -> None:
    """As `loss.backward()`, which would leave the function mode: blocks are run again in here."""
    Variable._execution_engine.run_backward(  # noqa: SLF001 - what `backward` itself calls
        (loss,),
        (torch.ones_like(loss),),
        False,  # noqa: FBT003 - keep_graph, positional only
        False,  # noqa: FBT003 - create_graph, positional only
        (),
        allow_unreachable=True,
        accumulate_grad=True,
    )


def _tensors(model: nn.Module) -> Iterator[torch.Tensor]:
    for parameter in (*model.parameters(), *model.buffers()):
        if parameter.device.type == "meta":
            yield parameter


def _on_host(model: nn.Module, *, moved: bool) -> frozenset[int]:
    """`id` of adapters' tensors that peft leaves in the host's memory.

    peft moves what a layer names as its own to the base layer's device. A buffer without a name
    there stays where it was made, unless the whole model is moved later; a tensor that is no
    buffer stays in any case.
    """
    found: list[torch.Tensor | None] = []
    for module in model.modules():
        if not isinstance(module, BaseTunerLayer):
            continue
        named = {*module.adapter_layer_names, *module.other_param_names}
        if not moved:
            found += [buffer for name, buffer in module._buffers.items() if name not in named]  # noqa: SLF001 - torch has no other way to ask
        for name, value in vars(module).items():
            if type(value) is dict and not name.startswith("_"):
                found += [one for one in value.values() if type(one) is torch.Tensor]
    return frozenset(id(one) for one in found if one is not None)


def _states(optimizer: Any) -> Iterator[torch.Tensor]:
    for state in optimizer.state.values():
        for one in state.values():
            if isinstance(one, torch.Tensor) and one.device.type == "meta":
                yield one


def _weights(model: nn.Module) -> frozenset[int]:
    """Sizes of the weights that adapters are beside [elements]."""
    sizes = set()
    for module in model.modules():
        if isinstance(module, BaseTunerLayer):
            weight = getattr(module.get_base_layer(), "weight", None)
            if isinstance(weight, torch.Tensor) and weight.dim() > 1:
                sizes.add(weight.numel())
    return frozenset(sizes)


_real_autocast = torch.autocast


def _autocast(device_type: str, *args: Any, **named: Any) -> Any:
    """As `torch.autocast`; nothing for the meta device, where peft switches it off for sums."""
    return nullcontext() if device_type == "meta" else _real_autocast(device_type, *args, **named)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """No garbage collection, no checks of values.

    Cycles are collected at moments that have nothing to do with the model, distributions look at
    numbers that are not there, and torch has no autocast for the meta device.
    """
    was, checks = gc.isenabled(), Distribution._validate_args  # noqa: SLF001 - it can only be set
    gc.disable()
    Distribution.set_default_validate_args(False)
    try:
        with patch.object(torch, "autocast", _autocast):
            yield
    finally:
        Distribution.set_default_validate_args(checks)
        if was:
            gc.enable()

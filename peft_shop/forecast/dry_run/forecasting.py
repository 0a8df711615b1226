"""A target and a configuration -> a forecast, by a dry run on the meta device."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import torch

from peft_shop.catalog.features import FULL_FINETUNING
from peft_shop.errors import ConfigError, PeftShopError
from peft_shop.forecast.checkpoint import checkpoint_bytes
from peft_shop.forecast.dry_run.chunked import ChunkedLoss
from peft_shop.forecast.dry_run.constants import constants
from peft_shop.forecast.dry_run.extrapolation import depth_of, extrapolated, few_layers
from peft_shop.forecast.dry_run.preparing import prepare
from peft_shop.forecast.dry_run.replay import replay
from peft_shop.forecast.dry_run.steps import TracedStep, trace
from peft_shop.forecast.dry_run.timing import step_times, work_of
from peft_shop.forecast.intervals import memory_interval
from peft_shop.forecast.ladder import chunkable
from peft_shop.forecast.records import Forecast, Term
from peft_shop.forecast.reference import plain_lora
from peft_shop.preflight.batches import make_batch, make_batches
from peft_shop.preflight.saving import saved_state
from peft_shop.preflight.trying import TASKS, choice_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import nn

    from peft_shop.forecast.dry_run.preparing import PreparedModel
    from peft_shop.forecast.dry_run.replay import Replay
    from peft_shop.forecast.dry_run.timing import Work
    from peft_shop.forecast.dry_run.trace import Trace
    from peft_shop.forecast.records import Settings, StepTime
    from peft_shop.model.inspection import Target
    from peft_shop.model.structure import Structure
    from peft_shop.preflight.batches import Batch
    from peft_shop.records import Json

__all__ = ["DryRunFigures", "after_step", "batch_of", "dry_run", "measure", "peak_of"]

_SHORT_TOKENS: Final = 100
"""Tokens of the step before the one that is forecast: a short batch of the measured suite.
It leaves the optimizer's states where they lie in training, and its logits to the next step."""
_DEEP: Final = 48
"""Layers above which few are traced and the rest is extrapolated."""


@dataclass(frozen=True, slots=True)
class DryRunFigures:
    """What a dry run found.

    Attributes:
        prepared: the model.
        memory: of the step.
        work: of the step.
        notes: what a reader should know of how it was found.
    """

    prepared: PreparedModel
    memory: Replay
    work: Work
    notes: tuple[str, ...] = ()


def dry_run(
    target: Target,
    config: Mapping[str, Json] | Any | None,
    settings: Settings,
    *,
    batch: Callable[[nn.Module, int | None], Batch] | None = None,
    method: str | None = None,
    brief: bool = False,
) -> Forecast:
    """What a training step of the target with the adapter of `config` takes.

    The model's own code, the installed peft and the optimizer run on the meta device; what they
    allocate and release is served by a model of torch's caching allocator.

    Args:
        target: the model.
        config: a configuration of peft; `None` for full fine-tuning.
        settings: the training step.
        batch: makes the inputs from the model and a length in tokens (`None` for the settings');
            needed where no batch is known for such a model.
        method: identifier of the method; by default from the configuration.
        brief: whether few of a model's equal layers are enough whatever its depth, and no step
            time is asked for: one of many runs, of which each is to take a second.

    Raises:
        ForecastError: the step cannot be run without an accelerator.
        ConfigError: peft refuses the configuration.
    """
    found = measure(target, config, settings, batch=batch, brief=brief)
    name = method or _method(config)
    known = constants()
    regime = known.checkpointed if settings.gradient_checkpointing else known.whole
    structure = target.structure
    warnings = [*found.notes, *_warnings(structure, settings)]
    times: tuple[StepTime, ...] = ()
    try:
        plain = None if brief else _plain_lora(target, settings, batch)
    except PeftShopError as error:
        warnings.append(f"no step time: plain LoRA cannot be traced on this model: {error}")
    else:
        times = () if plain is None else step_times(found.work, plain, settings, known, name)
    size = None
    if config is not None:
        size = checkpoint_bytes(saved_state(found.prepared.model))
    return Forecast(
        method=name,
        way="dry_run",
        settings=settings,
        trainable_parameters=found.prepared.trainable,
        total_parameters=found.prepared.total,
        checkpoint_bytes=size,
        peak_memory=memory_interval(
            float(found.memory.peak_reserved), name, structure, settings, regime
        ),
        terms=tuple(
            Term(name=term, bytes=size) for term, size in found.memory.terms.items() if size
        ),
        step_time=times,
        warnings=tuple(warnings),
    )


def measure(
    target: Target,
    config: Mapping[str, Json] | Any | None,
    settings: Settings,
    *,
    batch: Callable[[nn.Module, int | None], Batch] | None = None,
    layers: tuple[int, int] | None = None,
    brief: bool = False,
) -> DryRunFigures:
    """Trace the step and replay it.

    Args:
        target: the model.
        config: a configuration of peft; `None` for full fine-tuning.
        settings: the training step.
        batch: as in `dry_run`.
        layers: two depths to trace and extrapolate from; by default of deep models only.
        brief: whether to do so by default of any model.

    Raises:
        ForecastError: the step cannot be run without an accelerator.
        ConfigError: peft refuses the configuration.
    """
    make = batch or _batches_of(target, settings)
    prepared = prepare(target, config, settings)
    notes = prepared.notes
    depth = depth_of(prepared.plain)
    chunked = chunkable(target.structure)
    few = layers
    if few is None and (brief or depth > _DEEP):
        few = few_layers(prepared.plain, recomputed=settings.gradient_checkpointing)
    if few is not None:
        try:
            shorter = [prepare(target, config, settings, layers=count) for count in few]
        except ConfigError as error:
            if layers is not None:
                raise
            # the configuration speaks of single layers: all of them then
            notes += (f"all {depth} layers were traced: {error}",)
        else:
            results = [_run(one, settings, make, chunked=chunked) for one in shorter]
            memory, work = extrapolated(
                results, few, depth, recomputed=settings.gradient_checkpointing
            )
            note = (
                f"{few[0]} and {few[1]} of {depth} layers were traced, the rest follows from them"
            )
            return DryRunFigures(prepared, memory, work, (*notes, note))
    memory, work = _run(prepared, settings, make, chunked=chunked)
    return DryRunFigures(prepared, memory, work, notes)


def peak_of(
    targets: Sequence[Target],
    config: Mapping[str, Json],
    settings: Settings,
    *,
    layers: tuple[int, int] | None,
    depth: int,
) -> int:
    """What the allocator reserves in a step [B], without the rest of a forecast.

    Args:
        targets: the model itself, or as left with each of the two depths.
        config: a configuration of peft.
        settings: the training step.
        layers: the two depths; `None` for the model itself.
        depth: of the whole model.

    Raises:
        ForecastError: the step cannot be run without an accelerator.
        ConfigError: peft refuses the configuration.
    """
    results = []
    for target in targets:
        chunked = chunkable(target.structure)
        prepared = prepare(target, config, settings)
        results.append(_run(prepared, settings, _batches_of(target, settings), chunked=chunked))
    if layers is None:
        return results[0][0].peak_reserved
    again = settings.gradient_checkpointing
    return extrapolated(results, layers, depth, recomputed=again)[0].peak_reserved


def _run(
    prepared: PreparedModel,
    settings: Settings,
    make: Callable[[nn.Module, int | None], Batch],
    *,
    chunked: bool,
) -> tuple[Replay, Work]:
    traced = _trace(prepared, settings, make, chunked=chunked)
    memory = replay(
        traced,
        arena=not settings.moved_after_injection,
        checkpointing=settings.gradient_checkpointing,
    )
    return memory, work_of(traced)


def _trace(
    prepared: PreparedModel,
    settings: Settings,
    make: Callable[[nn.Module, int | None], Batch],
    *,
    chunked: bool,
) -> Trace:
    plain = prepared.plain
    short = min(settings.sequence_length, _SHORT_TOKENS)
    more = _more_inputs(prepared.model, settings)
    loss = ChunkedLoss(plain) if settings.fused_loss and chunked else None

    def batch(length: int | None) -> Batch:
        inputs = {**make(plain, length), **more}
        return inputs if loss is None else loss.without_labels(inputs)

    steps = [TracedStep(lambda: batch(short)), TracedStep(lambda: batch(None), empty_cache=True)]
    return trace(
        prepared.model,
        steps,
        settings,
        base=prepared.base,
        sizes=prepared.sizes,
        away=prepared.away,
        loss=loss,
        after=after_step,
    )


def _more_inputs(model: Any, settings: Settings) -> Batch:
    """What a method asks for at every forward pass, beside the model's own inputs."""
    for one in getattr(model, "peft_config", {}).values():
        place = TASKS.get(str(one.peft_type.value))
        if place is not None:
            return {"task_ids": torch.zeros(settings.batch_size, dtype=torch.long, device=place)}
    return {}


def after_step(model: Any, number: int) -> None:
    """AdaLoRA's training loop moves its budget after each step."""
    update = getattr(getattr(model, "base_model", None), "update_and_allocate", None)
    if callable(update):
        update(number)


def batch_of(target: Target, model: nn.Module, settings: Settings, length: int | None) -> Batch:
    """Inputs of a step of `length` tokens; `None` for the settings'."""
    config = getattr(model, "config", target.config)
    return make_batch(model, config, settings, task_type=target.structure.task_type, length=length)


def _batches_of(target: Target, settings: Settings) -> Callable[[nn.Module, int | None], Batch]:
    """What makes the inputs of a step, which are recorded: nothing else may be made then.

    A model that refuses the usual batch gets copies of one that was made before.
    """
    choice = choice_of(target)
    if choice == 0:
        return partial(_usual, target, settings)
    model = target.skeleton()
    config = getattr(model, "config", target.config)
    short = min(settings.sequence_length, _SHORT_TOKENS)
    made = {
        length: make_batches(
            model, config, settings, task_type=target.structure.task_type, length=length
        )[choice]
        for length in (None, short)
    }
    return lambda _, length: {name: _fresh(value) for name, value in made[length].items()}


def _usual(target: Target, settings: Settings, model: nn.Module, length: int | None) -> Batch:
    return batch_of(target, model, settings, length)


def _fresh(value: Any) -> Any:
    """A tensor of its own for one on meta; anything else as it is."""
    meta = isinstance(value, torch.Tensor) and value.device.type == "meta"
    return torch.empty_like(value) if meta else value


def _method(config: Any) -> str:
    if config is None:
        return FULL_FINETUNING
    kind = config.get("peft_type") if hasattr(config, "get") else config.peft_type
    return str(getattr(kind, "value", kind)).lower()


# one model under one setting is asked about for many methods
_cache: dict[tuple[int, Settings], tuple[Any, Work]] = {}
_CACHED: Final = 8


def _plain_lora(
    target: Target, settings: Settings, batch: Callable[[nn.Module, int | None], Batch] | None
) -> Work:
    key = (id(target), settings)
    found = _cache.get(key)
    if found is not None and found[0] is target:
        return found[1]
    work = measure(target, plain_lora(target.structure), settings, batch=batch).work
    if len(_cache) >= _CACHED:
        _cache.pop(next(iter(_cache)))
    # the target is kept, so that its identity stays its own
    _cache[key] = (target, work)
    return work


def _warnings(structure: Structure, settings: Settings) -> list[str]:
    warnings = []
    if structure.modality == "multimodal":
        warnings.append("the step was traced on text alone: images and sound come on top")
    if settings.fused_loss and not chunkable(structure):
        warnings.append("the dry run runs the model's own loss: no chunked one is known for it")
    packed = settings.quantization or structure.quantization
    if packed in {"bnb_4bit", "bnb_8bit"} and any(group.experts for group in structure.groups):
        kept = "float32, as prepared" if settings.prepare_kbit else "16 bit"
        warnings.append(f"bitsandbytes packs no fused experts: their weights stay in {kept}")
    if settings.quantization is not None:
        warnings.append(
            "quantized layers were stood for by plain ones that expand their weight for each "
            "product"
        )
    return warnings

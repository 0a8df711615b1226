"""A target and a configuration -> a model on the meta device that is ready for a training step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer

from peft_shop.errors import ConfigError, ForecastError
from peft_shop.forecast.dry_run.extrapolation import shorten
from peft_shop.forecast.dry_run.quantized import quantize, stored_sizes
from peft_shop.preflight.wrapping import REFUSALS, give_values, inject

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

    from peft_shop.forecast.records import Settings
    from peft_shop.model.inspection import Target
    from peft_shop.model.structure import Structure
    from peft_shop.records import Json

__all__ = ["PreparedModel", "prepare"]


@dataclass(frozen=True, slots=True)
class PreparedModel:
    """A model to train.

    Attributes:
        model: with its adapter.
        plain: the model inside.
        base: tensors that were there before the adapter; `None` for full fine-tuning.
        sizes: bytes of tensors, by `id`, that are stored in another form than the model's own.
        away: `id` of base weights that leave the accelerator before the first step.
        trainable: parameters that train, as peft counts them.
        total: all parameters, as peft counts them.
        notes: what could not be set up as the settings say.
    """

    model: nn.Module
    plain: nn.Module
    base: tuple[torch.Tensor, ...] | None
    sizes: dict[int, int]
    away: frozenset[int]
    trainable: int
    total: int
    notes: tuple[str, ...] = ()


def prepare(
    target: Target,
    config: Mapping[str, Json] | Any | None,
    settings: Settings,
    *,
    layers: int | None = None,
) -> PreparedModel:
    """New instance of the target with the adapter of `config`, set up as `settings` say.

    Args:
        target: the model.
        config: a configuration of peft; `None` for full fine-tuning.
        settings: dtype, quantization, attention kernel, checkpointing.
        layers: number of blocks to leave in the model; by default all.

    Raises:
        ForecastError: the settings do not fit the model.
        ConfigError: peft refuses the configuration.
    """
    plain = target.skeleton()
    if layers is not None:
        shorten(plain, layers)
    _set_dtype(plain, getattr(torch, settings.dtype))
    notes = _set_attention(plain, settings)
    if settings.gradient_checkpointing:
        _checkpoint(plain)
    sizes = _sizes(plain, target.structure, settings, whole=config is None)
    if config is None:
        if sizes:
            msg = "a quantized base cannot be trained in full"
            raise ForecastError(msg)
        for parameter in plain.parameters():
            parameter.requires_grad = parameter.is_floating_point()
        total = sum(p.numel() for p in plain.parameters())
        return PreparedModel(plain, plain, None, sizes, frozenset(), total, total, notes)
    base = tuple(
        one for one in (*plain.parameters(), *plain.buffers()) if one.device.type == "meta"
    )
    model = _wrap(plain, config, settings)
    give_values(model)
    if settings.optimizer == "lora_fa":
        for name, parameter in model.named_parameters():
            if ".lora_A." in name:
                parameter.requires_grad = False
    trainable, total = model.get_nb_trainable_parameters()
    if settings.moved_after_injection:
        # moving copies what a buffer shows, not the larger tensor that it may be a part of
        sizes |= {id(b): b.numel() * b.element_size() for b in model.buffers() if b.is_meta}
    return PreparedModel(model, plain, base, sizes, _away(model), int(trainable), int(total), notes)


def _sizes(
    plain: nn.Module, structure: Structure, settings: Settings, *, whole: bool
) -> dict[int, int]:
    """Bytes of what is stored in few bits; gives quantized layers their behaviour.

    Full fine-tuning turns what the checkpoint stores so into plain weights first.
    """
    if settings.quantization is None:
        return {} if whole else stored_sizes(plain, structure)
    if structure.quantization is not None:
        msg = (
            f"{structure.name} is quantized already, and its kernels do not run without "
            "an accelerator; inspect the unquantized model and name the backend in the settings"
        )
        raise ForecastError(msg)
    return quantize(plain, structure, settings)


def _wrap(plain: nn.Module, config: Any, settings: Settings) -> Any:
    try:
        return inject(plain, config, autocast_adapter_dtype=settings.autocast_adapter_dtype)
    except ConfigError:
        raise
    except REFUSALS as error:
        name = type(plain).__name__
        msg = f"peft cannot put this configuration on {name}: {type(error).__name__}: {error}"
        raise ConfigError(msg) from error


def _away(model: nn.Module) -> frozenset[int]:
    """`id` of base weights that a method keeps in the host's memory while it trains.

    FRoD (peft 0.21.2) replaces the base weight by its factors and can send it away.
    """
    found = set()
    for module in model.modules():
        if isinstance(module, BaseTunerLayer):
            sent = getattr(module, "runtime_offload_base_weight", None)
            if isinstance(sent, dict) and any(sent.values()):
                found.add(id(module.get_base_layer().weight))
    return frozenset(found)


def _set_dtype(model: nn.Module, dtype: torch.dtype) -> None:
    # parameter by parameter: models that keep some in float32 do so when they are loaded as well
    keep = tuple(getattr(model, "_keep_in_fp32_modules", None) or ())
    for name, parameter in model.named_parameters():
        if parameter.is_floating_point() and not any(one in name.split(".") for one in keep):
            parameter.data = parameter.data.to(dtype)


def _set_attention(model: nn.Module, settings: Settings) -> tuple[str, ...]:
    config = getattr(model, "config", None)
    if config is None or not hasattr(config, "_attn_implementation"):
        return ()
    # flash kernels of another package are traced as torch's own, which allocates the same
    name = "eager" if settings.attention == "eager" else "sdpa"
    try:
        model.set_attn_implementation(name)
    except (ValueError, ImportError):
        own = config._attn_implementation  # noqa: SLF001 - where transformers keeps it
        return (f"{type(model).__name__} has no {name} attention: traced with its own ({own})",)
    return ()


def _checkpoint(model: nn.Module) -> None:
    names = (
        "activation_checkpointing_enable",  # transformers from 5.2x on
        "gradient_checkpointing_enable",
        "enable_gradient_checkpointing",  # diffusers
    )
    enable = next((found for name in names if (found := getattr(model, name, None))), None)
    if enable is None:
        msg = f"{type(model).__name__} has no gradient checkpointing to switch on"
        raise ForecastError(msg)
    config = getattr(model, "config", None)
    if config is not None and hasattr(config, "use_cache"):
        # what transformers sets by itself at the first step, with a word about it
        config.use_cache = False
    try:
        enable()
    except ValueError as error:
        msg = f"{type(model).__name__} cannot checkpoint: {error}"
        raise ForecastError(msg) from error

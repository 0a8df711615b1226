"""Forecast from shapes alone: parameters, checkpoint and peak memory, without torch or peft."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from peft_shop.forecast.checkpoint import checkpoint_bytes
from peft_shop.forecast.constants import constants
from peft_shop.forecast.intervals import memory_interval
from peft_shop.forecast.quick.full import full_parts
from peft_shop.forecast.quick.kept import adapter_size
from peft_shop.forecast.quick.memory import Parts, parts_of
from peft_shop.forecast.quick.methods.registry import adapter_of
from peft_shop.forecast.records import Forecast, Settings, Term

if TYPE_CHECKING:
    from collections.abc import Mapping

    from peft_shop.forecast.constants import Constants, Regime
    from peft_shop.forecast.quick.methods.parts import Additions
    from peft_shop.forecast.records import TermName
    from peft_shop.model.structure import Structure
    from peft_shop.records import Json

__all__ = ["EQUATIONS", "closed_form", "counted", "memory_terms", "saved_bytes"]

_FULL: Final = "full_finetuning"
EQUATIONS: Final[dict[TermName, str]] = {
    "base": "parameters x bytes of dtype, tied ones once; or as the backend packs them",
    "adapter": "parameters and buffers that the method adds",
    "optimizer": "two moments per trained parameter, in its own dtype (AdamW)",
    "gradients": "fitted factor x bytes of trained parameters: gradients and temporaries",
    "activations_norm": "4 h per token and RMS norm (its float32 input), 2 h per layer norm",
    "activations_attention": (
        "4 q + 4 (q or kv) per token for query, key, value, output; 4 kv cached; mask 2 B S^2"
    ),
    "activations_mlp": "6 i per token (gate, activation, product), 2 i without a gate",
    "activations_adapter": "per target and token: 4 in for a float32 copy of the input, and more",
    "activations_other": "inputs of trained layers: 2 (h + h + i) per token, 2 h per norm",
    "activations_checkpoint": "2 h per token and block and after the last: inputs of blocks",
    "weights_materialized": "4 in x out per target where a method computes a whole weight",
    "logits": "2 V per token",
    "loss": "12 V per token: float32 log-probabilities and two gradients",
    "temporary": (
        "6 i + 6 h per token and the largest quantized weight in 16 bit: backward pass of one "
        "block, where it takes more than the loss; image models: fitted factor x what one block "
        "keeps"
    ),
    "allocator": "fitted factor x everything that the step allocates",
}


def closed_form(
    structure: Structure, config: Mapping[str, Json] | None, settings: Settings
) -> Forecast:
    """What training `config` on a model of this structure costs.

    Args:
        structure: of the base model, as `inspect_model` gives it.
        config: a peft configuration as JSON: `peft_type`, `target_modules` and what differs from
            the defaults of its class; `None` for full fine-tuning.
        settings: the training step.

    Raises:
        ConfigError: the configuration does not fit the model, or there is no closed form for the
            method or the model; a dry run, which needs torch, may still work.
        UnknownNameError: no such method.
    """
    if config is None:
        return _full(structure, settings)
    adapter = adapter_of(structure, config)
    method = str(config["peft_type"]).lower()
    parts = parts_of(structure, adapter, settings)
    trained, total = counted(structure, adapter)
    return _forecast(
        structure,
        settings,
        method,
        parts,
        trained=trained,
        total=total,
        checkpoint=saved_bytes(adapter, settings),
        notes=list(dict.fromkeys(adapter.notes)),
    )


def counted(structure: Structure, adapter: Additions) -> tuple[int, int]:
    """Parameters that train, and all with the base's, as peft counts them [count]."""
    trained = sum(tensor.elements for tensor in adapter.tensors if tensor.trained)
    parameters = sum(tensor.elements for tensor in adapter.tensors if tensor.parameter)
    return trained, structure.parameters + parameters


def saved_bytes(adapter: Additions, settings: Settings) -> int:
    """Size of the checkpoint that holds `adapter` [B]."""
    names = {4: "float32", 2: settings.dtype}
    dtypes = {"adapter": names[adapter_size(settings)], "base": settings.dtype}
    return checkpoint_bytes(
        {
            tensor.name: (tensor.shape, dtypes.get(tensor.dtype, tensor.dtype))
            for tensor in adapter.tensors
            if tensor.saved
        }
    )


def _full(structure: Structure, settings: Settings) -> Forecast:
    parts = full_parts(structure, settings)
    return _forecast(
        structure,
        settings,
        _FULL,
        parts,
        trained=structure.parameters,
        total=structure.parameters,
        checkpoint=None,
        notes=["the checkpoint of full fine-tuning is the model's own and may be split in files"],
    )


def memory_terms(
    parts: Parts, settings: Settings, fitted: Constants
) -> tuple[dict[TermName, float], Regime]:
    """Terms of the peak [B] with what the fitted constants add, and the regime they are from."""
    regime = fitted.checkpointed if settings.gradient_checkpointing else fitted.whole
    found: dict[TermName, float] = {**parts.static}
    found["gradients"] = found.get("gradients", 0.0) + regime.trained * parts.trained
    found |= parts.dynamic
    if parts.block:
        found["temporary"] = regime.activations * parts.block
    elif parts.dynamic:
        reserve = parts.reserve or fitted.whole.activations
        found["allocator"] = (reserve - 1) * sum(parts.dynamic.values()) + parts.stranded
    return found, regime


def _forecast(
    structure: Structure,
    settings: Settings,
    method: str,
    parts: Parts,
    *,
    trained: int,
    total: int,
    checkpoint: int | None,
    notes: list[str],
) -> Forecast:
    sizes, regime = memory_terms(parts, settings, constants())
    terms = tuple(
        Term(name=name, bytes=round(size), equation=EQUATIONS[name])
        for name, size in sizes.items()
        if round(size)
    )
    value = float(sum(term.bytes for term in terms))
    return Forecast(
        method=method,
        way="closed_form",
        settings=settings,
        trainable_parameters=trained,
        total_parameters=total,
        checkpoint_bytes=checkpoint,
        peak_memory=memory_interval(value, method, structure, settings, regime, way="closed_form"),
        terms=terms,
        warnings=tuple(notes),
    )

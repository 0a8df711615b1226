"""Command line for ms-swift."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from peft_shop.scripts.trainers.order import OPTIMIZERS, commented, common, names_of, unwritten
from peft_shop.scripts.trainers.statements import flags

if TYPE_CHECKING:
    from collections.abc import Mapping

    from peft_shop.records import Json
    from peft_shop.scripts.trainers.order import Order

__all__ = ["swift_file"]

_FIELDS: Final[Mapping[str, Mapping[str, tuple[str, Json]]]] = {
    "adalora": {
        "target_r": ("adalora_target_r", 8),
        "init_r": ("adalora_init_r", 12),
        "tinit": ("adalora_tinit", 0),
        "tfinal": ("adalora_tfinal", 0),
        "deltaT": ("adalora_deltaT", 1),
        "beta1": ("adalora_beta1", 0.85),
        "beta2": ("adalora_beta2", 0.85),
        "orth_reg_weight": ("adalora_orth_reg_weight", 0.5),
        "lora_alpha": ("lora_alpha", 8),
        "lora_dropout": ("lora_dropout", 0.0),
    },
    "boft": {
        "boft_block_size": ("boft_block_size", 4),
        "boft_block_num": ("boft_block_num", 0),
        "boft_n_butterfly_factor": ("boft_n_butterfly_factor", 1),
        "boft_dropout": ("boft_dropout", 0.0),
    },
    "fourierft": {
        "n_frequency": ("fourier_n_frequency", 1000),
        "scaling": ("fourier_scaling", 150.0),
    },
    "ia3": {},
    "vera": {
        "r": ("vera_rank", 256),
        "projection_prng_key": ("vera_projection_prng_key", 0),
        "vera_dropout": ("vera_dropout", 0.0),
        "d_initial": ("vera_d_initial", 0.1),
    },
}
"""Fields of peft's configurations: its flag, and peft's own default."""
_OTHER: Final = {"task_type", "target_modules", "total_step", "modules_to_save"}
_SHELL: Final = "#!/bin/sh\n"


def swift_file(order: Order) -> str:
    """Whole command for one recipe.

    Raises:
        ConfigError: the recipe has an optimizer, a base or modules that it cannot name.
    """
    step, training, keys = order.step, order.recipe.training, order.trainer.keys
    entries: dict[str, Json] = {
        keys["model"]: training.model_id,
        "use_hf": "true",
        keys["data"]: "meta-math/MetaMathQA",
        "columns": '{"query": "query", "response": "response"}',
        keys["method"]: order.method.id,
    }
    if order.is_lora:
        written = order.lora()
        entries |= _lora(order, written)
        left = unwritten(order, written)
    else:
        fields = _FIELDS[order.method.id]
        entries |= {flag: order.config.get(name, usual) for name, (flag, usual) in fields.items()}
        left = [
            f"{name} = {value!r}"
            for name, value in order.config.items()
            if name not in {*fields, *_OTHER}
        ]
        written = {**order.recipe.resolved, **order.config}
    entries |= _targets(order, written)
    if order.bits is not None:  # a base in another format is loaded as it comes
        entries |= {"quant_method": "bnb", keys["quantization"]: order.bits}
    entries |= common(order, OPTIMIZERS, truth=_truth)
    entries |= {
        keys["dtype"]: step.dtype,
        "adam_beta2": 0.999,
        keys["max_length"]: step.max_length,
        keys["packing"]: "false",
        keys["completion_only"]: "all",
        keys["checkpointing"]: _truth(step.checkpointing),
        keys["chunked_loss"]: _truth(step.chunked),
    }
    told = order.told(
        "not written: the benchmark's words Question: ... Answer: ... around the columns; the "
        "model's own template applies",
        unwritten=left,
    )
    return _SHELL + commented(told) + flags("swift sft", entries)


def _truth(value: bool) -> Json:
    return "true" if value else "false"


def _lora(order: Order, lora: Mapping[str, Json]) -> dict[str, Json]:
    keys = order.trainer.keys
    start = lora.get("init_lora_weights", True)
    found: dict[str, Json] = {
        keys["r"]: lora["r"],
        keys["lora_alpha"]: lora["lora_alpha"],
        keys["lora_dropout"]: lora["lora_dropout"],
        keys["use_rslora"]: _truth(bool(lora.get("use_rslora"))),
        keys["use_dora"]: _truth(bool(lora.get("use_dora"))),
        keys["init_lora_weights"]: _truth(start) if isinstance(start, bool) else start,
        keys["modules_to_save"]: lora.get("modules_to_save"),
        keys["target_parameters"]: lora.get("target_parameters"),
        "lora_bias": lora.get("bias"),
        keys["loraplus"]: order.step.optimizer_options.get("loraplus_lr_ratio"),
    }
    return {key: value for key, value in found.items() if value is not None}


def _targets(order: Order, config: Mapping[str, Json]) -> dict[str, Json]:
    """Its flags for adapted modules, by names or by a pattern."""
    targets = config.get("target_modules")
    if isinstance(targets, str):
        return {"target_regex": targets}
    return {order.trainer.keys["target_modules"]: names_of(order, config)}

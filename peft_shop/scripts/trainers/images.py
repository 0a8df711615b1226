"""Command lines for the image trainers: diffusers' scripts and kohya's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from peft_shop.catalog.methods import PLAIN
from peft_shop.errors import ConfigError
from peft_shop.scripts.trainers.order import commented, names_of, unwritten
from peft_shop.scripts.trainers.statements import flags

if TYPE_CHECKING:
    from collections.abc import Mapping

    from peft_shop.records import Json
    from peft_shop.scripts.trainers.order import Order

__all__ = ["diffusers_file", "kohya_file"]

_SHELL: Final = "#!/bin/sh\n"
_MEASURED: Final = "Flux2Transformer2DModel"
"""Class of the backbone that the runs on images are about."""
_DIFFUSERS: Final = {
    "Flux2Transformer2DModel": "train_dreambooth_lora_flux2_klein.py",
    "FluxTransformer2DModel": "train_dreambooth_lora_flux.py",
    "UNet2DConditionModel": "train_dreambooth_lora_sdxl.py",
}
"""Scripts of diffusers by the backbone that they train."""
_NO_ALPHA: Final = "train_dreambooth_lora_sdxl.py"
"""The script that refuses `--lora_alpha`: alpha is the rank there."""
_KOHYA: Final = {
    "FluxTransformer2DModel": "flux_train_network.py",
    "UNet2DConditionModel": "sdxl_train_network.py",
}
"""Scripts of kohya by the backbone that they train."""
_OLDER: Final = {
    "sdxl_train_network.py": "train_network.py",
    "train_dreambooth_lora_sdxl.py": "train_dreambooth_lora.py",
}
"""Scripts for a UNet of Stable Diffusion 1.5, by that for one of SDXL: both have one class."""
_FROZEN: Final = "lora-fa"
"""The optimizer that leaves A as it is."""
_ALPHAS: Final = {PLAIN: 8, "loha": 8, "lokr": 8, "glora": None}
"""Methods whose rank and alpha mean there what they mean to peft, with peft's own alpha; without
one the scale is 1, as where alpha is the rank."""
_PLAIN_NETWORK: Final = "networks.lora"
_LYCORIS: Final = {"use_dora": "dora_wd=True", "use_rslora": "rs_lora=True"}
"""Fields of LoRA for which LyCORIS has an argument and sd-scripts none."""
_PRECISION: Final = {"bfloat16": "bf16", "float16": "fp16", "float32": "no"}


def diffusers_file(order: Order) -> str:
    """Whole command for one recipe.

    Raises:
        ConfigError: no script trains the model, or it has no words for the method or optimizer.
    """
    script = _script(order, _DIFFUSERS)
    step, training, keys = order.step, order.recipe.training, order.trainer.keys
    lora = order.lora()
    left = unwritten(order, lora)
    alpha = _whole(order, lora["lora_alpha"])
    if script == _NO_ALPHA and alpha != lora["r"]:
        left.append(f"lora_alpha = {alpha}: alpha is the rank in this script, {lora['r']}")
    order.optimizer({"AdamW": "AdamW", "AdamW_8bit": "AdamW"})
    entries: dict[str, Json] = {
        keys["model"]: training.model_id,
        keys["data"]: "images",
        "instance_prompt": "a photo of sks cat",
        keys["r"]: lora["r"],
        keys["lora_alpha"]: None if script == _NO_ALPHA else alpha,
        keys["lora_dropout"]: lora["lora_dropout"],
        keys["target_modules"]: ",".join(names_of(order, lora)),
        keys["max_length"]: step.max_length,
        "center_crop": True,
        keys["batch_size"]: step.batch_size,
        keys["accumulation"]: step.accumulation,
        keys["learning_rate"]: training.learning_rate,
        keys["lr_scheduler"]: order.scheduler,
        keys["warmup"]: order.warmup,
        keys["max_steps"]: training.max_steps,
        keys["optimizer"]: "AdamW",
        "use_8bit_adam": True if step.eight_bit else None,
        keys["weight_decay"]: order.weight_decay,
        keys["grad_norm_clip"]: training.grad_norm_clip or None,
        keys["dtype"]: _PRECISION[step.dtype],
        keys["checkpointing"]: True if step.checkpointing else None,
        keys["quantization"]: "bnb.json" if step.backend is not None else None,
        "cache_latents": True,
        keys["seed"]: training.seed,
        keys["output"]: "adapter",
    }
    more = [f"the script is examples/dreambooth/{script} of diffusers", *_older(script)]
    if step.backend is not None:
        more.append(f'and bnb.json holds {{"load_in_{order.bits}bit": true}}')
    program = f"accelerate launch {script}"
    return _SHELL + commented(order.told(*more, unwritten=left)) + flags(program, entries)


def kohya_file(order: Order) -> str:
    """Whole command for one recipe.

    Raises:
        ConfigError: no script trains the model, or it has no words for the method or optimizer.
    """
    script = _script(order, _KOHYA)
    step, training, keys = order.step, order.recipe.training, order.trainer.keys
    if order.method.id not in _ALPHAS:
        msg = (
            f"no file for {order.trainer.title}: rank and alpha mean something else in its "
            f"network for {order.method.title}, so that the recipe cannot be said in its words"
        )
        raise ConfigError(msg)
    config = {"r": 8, **order.recipe.resolved, **order.config}
    module, arguments = _network(order, config)
    usual = _ALPHAS[order.method.id] or config["r"]
    alpha = config.get("lora_alpha", config.get("alpha", usual))
    names = {"AdamW": "AdamW", "AdamW_8bit": "AdamW8bit", "lora+": "AdamW"}
    if module == _PLAIN_NETWORK and order.step.optimizer == _FROZEN:
        module, names = "networks.lora_fa", {**names, _FROZEN: "AdamW"}
    entries: dict[str, Json] = {
        keys["model"]: training.model_id,
        keys["data"]: "dataset.toml",
        keys["method"]: module,
        keys["r"]: config["r"],
        keys["lora_alpha"]: alpha,
        keys["lora_dropout"]: config.get("lora_dropout") or None,
        "network_args": list(arguments) or None,
        "network_train_unet_only": True,
        keys["learning_rate"]: training.learning_rate,
        keys["lr_scheduler"]: order.scheduler,
        keys["warmup"]: order.warmup,
        keys["optimizer"]: order.optimizer(names),
        keys["weight_decay"]: [f"weight_decay={order.weight_decay}"],
        keys["grad_norm_clip"]: training.grad_norm_clip or 0.0,
        keys["max_steps"]: training.max_steps,
        keys["accumulation"]: step.accumulation,
        keys["dtype"]: _PRECISION[step.dtype],
        keys["checkpointing"]: True if step.checkpointing else None,
        "fp8_base": True if step.backend is not None else None,
        "cache_latents": True,
        "save_model_as": "safetensors",
        keys["seed"]: training.seed,
        keys["output"]: "adapter",
    }
    sizes = f"[general] resolution = {step.max_length}; [[datasets]] batch_size = {step.batch_size}"
    subset = "[[datasets.subsets]] image_dir = images, class_tokens = sks cat"
    more = [f"and dataset.toml holds: {sizes}; {subset}", *_older(script)]
    if order.step.optimizer == _FROZEN:
        more.append("networks.lora_fa freezes A; peft's optimizer corrects gradients of B besides")
    if step.backend is not None:
        more.append("the base is in fp8 here, not in 4 or 8 bit as in the setup")
    written = {"r", "lora_alpha", "alpha", "lora_dropout", "decompose_factor", *_LYCORIS}
    left = [
        f"{name} = {value!r}: the network module says which layers and how"
        for name, value in config.items()
        if name not in written and value not in (None, [], {}, False)
    ]
    program = f"accelerate launch {script}"
    return _SHELL + commented(order.told(*more, unwritten=left)) + flags(program, entries)


def _script(order: Order, scripts: Mapping[str, str]) -> str:
    """The script that trains the order's model.

    Raises:
        ConfigError: there is none; says for which there are.
    """
    architecture = order.architecture or _MEASURED
    if architecture not in scripts:
        msg = (
            f"no file for {order.trainer.title}: it has no script on record that trains "
            f"{architecture}; there are for {', '.join(scripts)} (name one with --model)"
        )
        raise ConfigError(msg)
    return scripts[architecture]


def _older(script: str) -> list[str]:
    """What to know of a script whose model's class does not tell which one it is."""
    if script not in _OLDER:
        return []
    return [f"{script} is for SDXL; a model of Stable Diffusion 1.5 needs {_OLDER[script]}"]


def _network(order: Order, config: Mapping[str, Json]) -> tuple[str, list[str]]:
    """Network module and its arguments."""
    method = order.method.id
    ratio = order.step.optimizer_options.get("loraplus_lr_ratio")
    faster = [] if ratio is None else [f"loraplus_lr_ratio={ratio}"]
    if method == PLAIN and not any(config.get(field) for field in _LYCORIS):
        return _PLAIN_NETWORK, faster
    if method == PLAIN:
        options = [argument for field, argument in _LYCORIS.items() if config.get(field)]
        return "lycoris.kohya", ["algo=lora", *options, *faster]
    arguments = [f"algo={method}"]
    factor = config.get("decompose_factor")
    if method == "lokr" and factor is not None:
        arguments.append(f"factor={factor}")
    return "lycoris.kohya", arguments


def _whole(order: Order, alpha: Json) -> int:
    """Alpha as the whole number that diffusers' scripts take.

    Raises:
        ConfigError: it is none.
    """
    if isinstance(alpha, int | float) and alpha == int(alpha):
        return int(alpha)
    msg = f"no file for {order.trainer.title}: --lora_alpha takes whole numbers, not {alpha}"
    raise ConfigError(msg)

"""Configuration file for axolotl."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from peft_shop.catalog.methods import PLAIN
from peft_shop.scripts.trainers.order import OPTIMIZERS, commented, unwritten
from peft_shop.scripts.trainers.statements import yaml_lines

if TYPE_CHECKING:
    from peft_shop.records import Json
    from peft_shop.scripts.trainers.order import Order

__all__ = ["axolotl_file"]

_DATA: Final[dict[str, Json]] = {
    "path": "meta-math/MetaMathQA",
    "split": "train",
    "type": {
        "field_instruction": "query",
        "field_output": "response",
        "format": "Question: {instruction}\nAnswer: ",
        "no_input_format": "Question: {instruction}\nAnswer: ",
    },
}
"""The benchmark's texts in axolotl's words for prompts of one's own."""
_FOUR: Final = 4
_GPTQ: Final = "gptq"
"""A format in which a base comes, and its key."""


def axolotl_file(order: Order) -> str:
    """Whole configuration for one recipe.

    Raises:
        ConfigError: the recipe has an optimizer, a base or modules that it cannot name.
    """
    step, training, keys = order.step, order.recipe.training, order.trainer.keys
    lora = order.lora()
    bits = order.bits
    entries: dict[str, Json] = {
        keys["model"]: training.model_id,
        keys["data"]: [_DATA],
        keys["completion_only"]: True,
        keys["max_length"]: step.max_length,
        keys["packing"]: False,
        keys["method"]: f"q{PLAIN}" if bits == _FOUR else PLAIN,
    }
    if step.backend == _GPTQ:
        entries[_GPTQ] = True
    elif bits is not None:
        entries[f"load_in_{bits}bit"] = True
    entries |= {keys[name]: value for name, value in lora.items() if name in keys}
    ratio = step.optimizer_options.get("loraplus_lr_ratio")
    if ratio is not None:
        entries[keys["loraplus"]] = ratio
    entries |= {
        keys["batch_size"]: step.batch_size,
        keys["accumulation"]: step.accumulation,
        keys["max_steps"]: training.max_steps,
        keys["learning_rate"]: training.learning_rate,
        keys["optimizer"]: order.optimizer(OPTIMIZERS),
        keys["lr_scheduler"]: order.scheduler,
        keys["warmup"]: order.warmup,
        keys["weight_decay"]: order.weight_decay,
        keys["grad_norm_clip"]: training.grad_norm_clip or 0.0,
        keys["dtype"]: step.dtype == "bfloat16",
        "fp16": step.half,
        keys["checkpointing"]: step.checkpointing,
        keys["chunked_loss"]: step.chunked,
        keys["seed"]: training.seed,
        keys["output"]: "adapter",
    }
    told = order.told(
        "run: axolotl train FILE",
        unwritten=unwritten(order, lora),
    )
    return commented(told) + yaml_lines(entries)

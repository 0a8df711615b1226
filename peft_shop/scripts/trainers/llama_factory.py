"""Configuration file for LLaMA-Factory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from peft_shop.scripts.trainers.order import OPTIMIZERS, commented, common, names_of, unwritten
from peft_shop.scripts.trainers.statements import yaml_lines

if TYPE_CHECKING:
    from peft_shop.records import Json
    from peft_shop.scripts.trainers.order import Order

__all__ = ["llama_factory_file"]

_DATA: Final = (
    "its templates cannot write the benchmark's texts; make the data of it:",
    "data/dataset_info.json: {metamathqa: {file_name: metamathqa.json}}",
    "data/metamathqa.json: a list of {instruction: PROMPT, output: RESPONSE}, PROMPT being",
    "Question: QUERY (new line) Answer: , and RESPONSE with the tokenizer's eos_token at its end,",
    "since template: empty adds none",
)
_EXACT: Final = -1
"""`pissa_iter` of an exact decomposition."""
_OFT: Final[dict[str, Json]] = {"r": 0, "oft_block_size": 32, "module_dropout": 0.0}
"""Fields of peft's `OFTConfig` that its keys cover, with their defaults."""


def llama_factory_file(order: Order) -> str:
    """Whole configuration for one recipe.

    Raises:
        ConfigError: the recipe has an optimizer, a base or modules that it cannot name.
    """
    step, training, keys = order.step, order.recipe.training, order.trainer.keys
    entries: dict[str, Json] = {
        keys["model"]: training.model_id,
        "stage": "sft",
        "do_train": True,
        keys["data"]: "metamathqa",
        "dataset_dir": "data",
        "template": "empty",
        keys["completion_only"]: True,
        keys["max_length"]: step.max_length,
        keys["packing"]: False,
        keys["method"]: order.method.id,
    }
    if order.is_lora:
        written = order.lora()
        entries |= _lora(order, written)
    else:
        written = {**_OFT, **order.recipe.resolved, **order.config}
        entries |= {
            "oft_rank": written["r"],
            "oft_block_size": written["oft_block_size"],
            "module_dropout": written["module_dropout"],
            keys["target_modules"]: ",".join(names_of(order, written)),
        }
    if order.bits is not None:  # a base in another format is loaded as it comes
        entries |= {keys["quantization"]: order.bits, "quantization_method": "bnb"}
    entries |= common(order, OPTIMIZERS)
    entries |= {
        # its key asks for the contrary
        keys["checkpointing"]: not step.checkpointing,
        keys["chunked_loss"]: step.chunked,
        "fp16": step.half,
        "logging_steps": 50,
        "report_to": "none",
        "overwrite_output_dir": True,
    }
    told = order.told(
        *_DATA,
        "run: llamafactory-cli train FILE",
        unwritten=unwritten(order, written) if order.is_lora else _left(order),
    )
    return commented(told) + yaml_lines(entries)


def _lora(order: Order, lora: dict[str, Json]) -> dict[str, Json]:
    keys = order.trainer.keys
    found: dict[str, Json] = {
        keys["r"]: lora["r"],
        keys["lora_alpha"]: lora["lora_alpha"],
        keys["lora_dropout"]: lora["lora_dropout"],
        keys["target_modules"]: ",".join(names_of(order, lora)),
        keys["use_rslora"]: bool(lora.get("use_rslora")),
        keys["use_dora"]: bool(lora.get("use_dora")),
    }
    saved = lora.get("modules_to_save")
    if isinstance(saved, list | tuple):
        found[keys["modules_to_save"]] = ",".join(map(str, saved))
    start = str(lora.get("init_lora_weights", ""))
    if start.startswith("pissa"):
        iterations = start.rpartition("_")[2]
        found[keys["init_lora_weights"]] = True
        found["pissa_iter"] = int(iterations) if iterations.isdecimal() else _EXACT
    ratio = order.step.optimizer_options.get("loraplus_lr_ratio")
    if ratio is not None:
        found[keys["loraplus"]] = ratio
    return found


def _left(order: Order) -> list[str]:
    """What an OFT recipe says besides what its keys cover."""
    kept = {*_OFT, "target_modules", "task_type"}
    return [f"{name} = {value!r}" for name, value in order.config.items() if name not in kept]

"""Script that trains with Unsloth, on TRL's `SFTTrainer`."""

from __future__ import annotations

from string import Template
from typing import TYPE_CHECKING, Final

from peft_shop.scripts.header import docstring
from peft_shop.scripts.source import Raw, call, literal
from peft_shop.scripts.trainers.order import OPTIMIZERS, PROMPT, names_of, unwritten
from peft_shop.scripts.trainers.trl import DATA, TEXT

if TYPE_CHECKING:
    from peft_shop.records import Json
    from peft_shop.scripts.trainers.order import Order

__all__ = ["unsloth_file"]

_FOUR: Final = 4
_EIGHT: Final = 8
_SCRIPT: Final = Template("""\
$header
from unsloth import FastLanguageModel$more  # first: it changes what comes after

import torch
from datasets import load_dataset
from trl import SFTConfig, SFTTrainer

# --- yours to change ---
MODEL_ID = $model_id
DATASET_ID = "meta-math/MetaMathQA"
PROMPT = "$prompt"  # names in braces are columns of the data set
ANSWER = "response"  # the column that follows the prompt
OUTPUT_DIR = "adapter"

# --- as measured, where the lines above say nothing else ---
STEPS = $steps
LEARNING_RATE = $learning_rate
BATCH_SIZE = $batch_size
ACCUMULATION = $accumulation  # batches of one step
MAX_LENGTH = $max_length  # tokens; longer texts are cut
SEED = $seed

model, tokenizer = $base
model = $model


$text


$data

arguments = $arguments
trainer = SFTTrainer(model=model, args=arguments, train_dataset=data, processing_class=tokenizer)
trainer.train()
model.save_pretrained(OUTPUT_DIR)
tokenizer.save_pretrained(OUTPUT_DIR)
""")


def unsloth_file(order: Order) -> str:
    """Whole script for one recipe.

    Raises:
        ConfigError: the recipe has an optimizer, a base, modules or a value that it cannot name.
    """
    step, training = order.step, order.recipe.training
    lora, bits = order.lora(), order.bits
    loading: dict[str, Json] = {
        "model_name": Raw("MODEL_ID"),
        "max_seq_length": Raw("MAX_LENGTH"),
        "dtype": Raw(f"torch.{step.dtype}"),
        "load_in_4bit": bits == _FOUR,
        "load_in_8bit": bits == _EIGHT,
    }
    ratio = step.optimizer_options.get("loraplus_lr_ratio")
    arguments = "UnslothTrainingArguments" if ratio is not None else "SFTConfig"
    settings: dict[str, Json] = {
        "output_dir": Raw("OUTPUT_DIR"),
        "max_steps": Raw("STEPS"),
        "learning_rate": Raw("LEARNING_RATE"),
        "lr_scheduler_type": order.scheduler,
        "warmup_steps": order.warmup,
        "per_device_train_batch_size": Raw("BATCH_SIZE"),
        "gradient_accumulation_steps": Raw("ACCUMULATION"),
        "optim": order.optimizer(OPTIMIZERS),
        "weight_decay": order.weight_decay,
        "max_grad_norm": training.grad_norm_clip or 0.0,
        "max_length": Raw("MAX_LENGTH"),
        "packing": False,
        "bf16": step.dtype == "bfloat16",
        "fp16": step.half,
        "seed": Raw("SEED"),
        "logging_steps": 50,
        "save_strategy": "no",
        "report_to": "none",
    }
    if ratio is not None:
        settings["loraplus_lr_ratio"] = ratio
    told = order.told(
        "not tried: every name is in its signatures, nothing ran here",
        unwritten=unwritten(order, lora),
    )
    needed = f"pip install unsloth=={order.trainer.version} datasets"
    return _SCRIPT.substitute(
        header=docstring([*told, "", needed]),
        more=", UnslothTrainingArguments" if ratio is not None else "",
        model_id=literal(training.model_id),
        prompt=PROMPT,
        steps=literal(training.max_steps),
        learning_rate=literal(training.learning_rate),
        batch_size=literal(step.batch_size),
        accumulation=literal(step.accumulation),
        max_length=literal(step.max_length),
        seed=literal(training.seed),
        base=call("FastLanguageModel.from_pretrained", loading, used=19),
        model=call("FastLanguageModel.get_peft_model", _adapter(order, lora), "model", used=8),
        text=TEXT,
        data=DATA,
        arguments=call(arguments, settings, used=12),
    )


def _adapter(order: Order, lora: dict[str, Json]) -> dict[str, Json]:
    """Arguments of `get_peft_model`, every one that changes a recipe written out."""
    keys: dict[str, Json] = {
        "r": lora["r"],
        "lora_alpha": lora["lora_alpha"],
        "lora_dropout": lora["lora_dropout"],
        "target_modules": names_of(order, lora),
        "bias": lora.get("bias", "none"),
        "use_rslora": bool(lora.get("use_rslora")),
        "use_dora": bool(lora.get("use_dora")),
        "init_lora_weights": lora.get("init_lora_weights", True),
        "use_gradient_checkpointing": order.step.checkpointing,
        "random_state": Raw("SEED"),
    }
    for name in ("modules_to_save", "layers_to_transform", "rank_pattern", "alpha_pattern"):
        if name in lora:
            keys[name] = lora[name]
    return keys

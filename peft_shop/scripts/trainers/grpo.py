"""Script that repeats a run of reinforcement learning with TRL's `GRPOTrainer`.

What the answers are asked in, which data they are about and every setting that a run does not state
come from its benchmark's record.
"""

from __future__ import annotations

import math
from string import Template
from typing import TYPE_CHECKING, Any, Final

from peft_shop.errors import ConfigError
from peft_shop.scripts.header import docstring
from peft_shop.scripts.source import Raw, call, comment, imports, literal
from peft_shop.scripts.trainers.trl import sections

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peft_shop.catalog.benchmarks import Benchmark
    from peft_shop.catalog.runs import Recipe
    from peft_shop.records import Json

__all__ = ["grpo_script"]

_HANDED_ON: Final = (
    *("temperature", "top_p", "top_k", "min_p", "repetition_penalty"),
    *("beta", "epsilon", "epsilon_high", "delta", "loss_type", "scale_rewards"),
    *("importance_sampling_level", "mask_truncated_completions", "num_iterations"),
)
"""Settings that `GRPOConfig` has under the same name."""
_DTYPES: Final = frozenset({"bfloat16", "float16", "float32"})
_ENGINE: Final = (
    "Not in this script: generation with vLLM. Measured with it, whose weights stayed those of the "
    "base model: every answer learned from was the base model's. Here the model answers itself, "
    "so that it learns from what it has become. Expect other scores, and a slower run."
)
_SYMBOLS: Final = (
    "Not in this script: rewards by symbolic equality. Here a boxed number is compared."
)

_CONSTANTS: Final = Template("""\
# --- yours to change ---
MODEL_ID = $model_id
DATASET_ID = $dataset
DATASET_CONFIG = $dataset_config
QUESTION = $question  # a column of the data set
ANSWER = $answer  # its right answer; what follows the last #### counts, where there is any
INSTRUCTION = $instruction
OUTPUT_DIR = "adapter"

# --- as measured ---
STEPS = $steps
LEARNING_RATE = $learning_rate
BATCH_SIZE = $batch_size  # completions of one forward pass
ACCUMULATION = $accumulation  # forward passes of one step
GENERATIONS = $generations  # answers to each question
MAX_LENGTH = $max_length  # tokens of an answer
ROWS = $rows  # questions that are drawn from
SEED = $seed""")

_REWARD: Final = '''\
def boxed(text):
    """What stands in the last \\\\boxed{...} of a text, braces inside it included; None without."""
    start = text.rfind("\\\\boxed{")
    if start < 0:
        return None
    depth, begin = 1, start + len("\\\\boxed{")
    for place in range(begin, len(text)):
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if depth == 0:
            return text[begin:place]
    return None


def number(text):
    """A number without signs of money, percent and thousands; the text where it is none."""
    plain = text.replace(",", "").replace("$", "").replace("%", "").replace("\\\\", "").strip()
    try:
        return float(plain)
    except ValueError:
        return plain


def reward(completions, right, **columns):
    """1 for a boxed answer that is right, 0 for every other."""
    answers = [boxed(completion) for completion in completions]
    return [
        float(answer is not None and number(answer) == number(expected))
        for answer, expected in zip(answers, right, strict=True)
    ]'''

_DATA: Final = '''\
def row(one):
    """The prompt, without a chat template, and the right answer."""
    return {
        "prompt": one[QUESTION] + INSTRUCTION,
        "right": str(one[ANSWER]).rpartition("####")[2].strip(),
    }'''
_LOADING: Final = """\
data = load_dataset(DATASET_ID, DATASET_CONFIG, split="train")
data = data.map(row, remove_columns=data.column_names).shuffle(seed=SEED)
data = data.select(range(min(ROWS, len(data))))"""
_BASE: Final = Template("""\
set_seed(SEED)
tokenizer = AutoTokenizer.from_pretrained(MODEL_ID, padding_side="left")
if tokenizer.pad_token is None:
    tokenizer.pad_token = tokenizer.eos_token
base = AutoModelForCausalLM.from_pretrained(MODEL_ID, dtype=torch.$dtype)""")
_END: Final = """\
trainer.train()
trainer.save_model(OUTPUT_DIR)
# To use it: load the base model anew, then peft.PeftModel.from_pretrained(base, OUTPUT_DIR)"""


def grpo_script(
    recipe: Recipe,
    benchmark: Benchmark,
    *,
    about: Sequence[str],
    config: str,
    config_class: str | None,
    packages: Sequence[str],
    version: str,
) -> str:
    """Whole script for one recipe; full fine-tuning where there is no configuration.

    Args:
        recipe: what is repeated.
        benchmark: owns the texts and the settings that the recipe does not state.
        about: lines about the run.
        config: statement that makes the configuration.
        config_class: its class; `None` for full fine-tuning.
        packages: what must be installed besides TRL.
        version: of TRL, which the script is for.

    Raises:
        ConfigError: a value of the recipe cannot be written as source, or is none that TRL has.
    """
    training = recipe.training
    settings: dict[str, Any] = {**benchmark.settings, **training.options}
    if training.dtype not in _DTYPES:
        raise ConfigError(f"no script for training.dtype {training.dtype!r}")
    each = settings["per_device_train_batch_size"]
    generations = settings["num_generations"]
    constants = _CONSTANTS.substitute(
        model_id=literal(training.model_id),
        dataset=literal(benchmark.dataset or "path-or-id-of-your-data"),
        dataset_config=literal(settings["dataset_config"]),
        question=literal(settings["question"]),
        answer=literal(settings["answer"]),
        instruction=literal(settings["instruction"]),
        steps=literal(training.max_steps),
        learning_rate=literal(training.learning_rate),
        batch_size=literal(each),
        accumulation=literal(training.batch_size // each),
        generations=literal(generations),
        max_length=literal(training.max_length),
        rows=literal(settings["train_subset_size"]),
        seed=literal(training.seed),
    )
    wrapped = "model = base" if config_class is None else "model = get_peft_model(base, config)"
    needed = " ".join([*packages, f"'trl=={version}'"])
    trainer: dict[str, Json] = {
        "reward_funcs": Raw("reward"),
        "args": Raw("arguments"),
        "train_dataset": Raw("data"),
        "processing_class": Raw("tokenizer"),
    }
    modules = {
        "datasets": ["load_dataset"],
        "transformers": ["AutoModelForCausalLM", "AutoTokenizer", "set_seed"],
        "trl": ["GRPOConfig", "GRPOTrainer"],
    }
    if config_class is not None:
        modules["peft"] = [config_class, "get_peft_model"]
    return sections(
        docstring([*about, *_told(settings), "", f"pip install {needed}"]).rstrip(),
        f"import torch\n{imports(modules)}",
        constants,
        _BASE.substitute(dtype=training.dtype),
        f"{config}\n{wrapped}",
        *_REWARD.split("\n\n\n"),
        _DATA,
        _LOADING,
        f"arguments = {call('GRPOConfig', _arguments(recipe, settings), used=12)}",
        f"trainer = {call('GRPOTrainer', trainer, 'model', used=10)}",
        _END,
    )


def _arguments(recipe: Recipe, settings: Mapping[str, Any]) -> dict[str, Json]:
    """Arguments of `GRPOConfig`, every one that the measured runs set."""
    training = recipe.training
    generations = settings["num_generations"]
    # whole groups of answers: a group may feed several steps, or a step take several groups
    answers = settings.get("generation_batch_size") or math.lcm(training.batch_size, generations)
    stated = {name: settings[name] for name in _HANDED_ON if settings.get(name) is not None}
    return {
        "output_dir": Raw("OUTPUT_DIR"),
        "max_steps": Raw("STEPS"),
        "learning_rate": Raw("LEARNING_RATE"),
        "lr_scheduler_type": training.lr_scheduler or "constant",
        "warmup_steps": settings.get("warmup_ratio") or 0,  # below 1 it is a share of the steps
        "per_device_train_batch_size": Raw("BATCH_SIZE"),
        "gradient_accumulation_steps": Raw("ACCUMULATION"),
        "num_generations": Raw("GENERATIONS"),
        "generation_batch_size": answers,
        "max_completion_length": Raw("MAX_LENGTH"),
        **stated,
        "use_vllm": False,
        "optim": "adamw_torch",
        "weight_decay": training.optimizer_options.get("weight_decay", 0.0),
        "max_grad_norm": training.grad_norm_clip or 0.0,
        "bf16": training.dtype == "bfloat16",
        "gradient_checkpointing": training.gradient_checkpointing,
        "seed": Raw("SEED"),
        "logging_steps": 5,
        "save_strategy": "no",
        "report_to": "none",
    }


def _told(settings: Mapping[str, Any]) -> list[str]:
    """What was measured and the script cannot repeat."""
    longest = settings.get("max_prompt_length")
    return [
        *([_ENGINE] if settings.get("use_vllm") else []),
        _SYMBOLS,
        *(
            [f"Not in this script: prompts cut at {comment(str(longest))} tokens."]
            if longest
            else []
        ),
    ]

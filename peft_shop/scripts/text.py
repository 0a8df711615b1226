"""Script that trains an adapter of a language model, as the MetaMathQA runs did it.

The loop keeps what decides the result: optimizer, cosine schedule with 10 % of warm-up, clipped
gradients, loss over question and answer, and an end-of-text token that counts.
"""

from __future__ import annotations

from string import Template
from typing import TYPE_CHECKING, Final

from peft_shop.scripts.source import Raw, call, imports

if TYPE_CHECKING:
    from peft_shop.catalog.runs import Recipe
    from peft_shop.records import Json
    from peft_shop.scripts.source import Parts

__all__ = ["text_script"]

_SCRIPT: Final = Template("""\
$header
import itertools

import torch
from datasets import load_dataset
$imports
from torch.utils.data import DataLoader
$from_transformers

# --- yours to change ---
MODEL_ID = $model_id
DATASET_ID = "meta-math/MetaMathQA"
PROMPT = "Question: {query}\\nAnswer: "  # names in braces are columns of the data set
ANSWER = "response"  # the column that follows the prompt
OUTPUT_DIR = "adapter"

# --- as measured ---
STEPS = $steps
BATCH_SIZE = $batch_size
MAX_LENGTH = $max_length  # tokens; longer texts are cut
SEED = $seed

set_seed(SEED)
device = "cuda" if torch.cuda.is_available() else "cpu"

tokenizer = AutoTokenizer.from_pretrained(MODEL_ID)
if tokenizer.pad_token is None:
    tokenizer.pad_token = tokenizer.eos_token
base = $base.to(device)

$config
model = $model
model.print_trainable_parameters()
$preparation

def collate(rows):
    texts = [PROMPT.format(**row) + row[ANSWER] + tokenizer.eos_token for row in rows]
    batch = tokenizer(
        texts, padding=True, truncation=True, max_length=MAX_LENGTH, return_tensors="pt"
    )
    batch["labels"] = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    return batch


data = load_dataset(DATASET_ID, split="train")
loader = DataLoader(data, batch_size=BATCH_SIZE, shuffle=True, collate_fn=collate)
batches = itertools.chain.from_iterable(itertools.repeat(loader))  # as many epochs as it takes

$optimizer

model.train()
for step, batch in enumerate(itertools.islice(batches, STEPS), start=1):
    loss = model(**batch.to(device)).loss
$update
    if step % 50 == 0 or step == STEPS:
        print(f"step {step}: loss {loss.item():.4f}")

model.save_pretrained(OUTPUT_DIR)
tokenizer.save_pretrained(OUTPUT_DIR)
# To use it: load the base model anew, then peft.PeftModel.from_pretrained(base, OUTPUT_DIR)
""")


def text_script(recipe: Recipe, parts: Parts) -> str:
    """Whole script for one recipe.

    Raises:
        ConfigError: a value of the recipe cannot be written as source.
    """
    training = recipe.training
    loading: dict[str, Json] = {"dtype": Raw(f"torch.{parts.dtype}")}
    if training.options.get("attn_implementation") is not None:
        loading["attn_implementation"] = training.options["attn_implementation"]
    preparation: list[str] = []
    if training.gradient_checkpointing:
        # gradients must pass the frozen embeddings, which only this kind of checkpointing allows
        preparation.append(
            call(
                "model.gradient_checkpointing_enable",
                {"gradient_checkpointing_kwargs": {"use_reentrant": False}},
            )
        )
    peft_names = [*parts.peft_names, "get_peft_model"]
    prefix = training.options.get("init_kv_cache_prefix")
    if prefix is not None:
        peft_names.append("initialize_kv_prefix_from_text")
        preparation += [
            "# The prefix starts as the model's own cache of a text instead of random numbers.",
            call(
                "initialize_kv_prefix_from_text",
                {"text": prefix, "use_chat_template": False},
                "model",
                "tokenizer",
            ),
        ]
    return _SCRIPT.substitute(
        parts.shared,
        imports="\n".join([imports("peft", *peft_names), *parts.optimizer_imports]),
        from_transformers=imports(
            "transformers",
            "AutoModelForCausalLM",
            "AutoTokenizer",
            "set_seed",
            *parts.transformers_names,
        ),
        max_length=training.max_length,
        base=call("AutoModelForCausalLM.from_pretrained", loading, "MODEL_ID", used=18),
        model=parts.wrap("base"),
        preparation="".join(f"{line}\n" for line in preparation),
    )

"""Script that trains an adapter of a language model on questions and answers, as measured.

The loop keeps what decides the result: optimizer, cosine schedule with 10 % of warm-up, clipped
gradients, loss over question and answer, and an end-of-text token that counts. On data of the
user's own the same loop reads the rows of a file, and predicts the completion alone where a row has
a prompt, or the class of a text by a new head whose weights are those of the seed, whatever the
method; a trial adds the lines that measure.
"""

from __future__ import annotations

from string import Template
from textwrap import indent
from typing import TYPE_CHECKING, Final

from peft_shop.errors import ConfigError
from peft_shop.scripts.data import reading_of
from peft_shop.scripts.loading import loading_options, preparation
from peft_shop.scripts.loop import backward, check, chunked_loss, precise
from peft_shop.scripts.source import Raw, call, imports, literal

if TYPE_CHECKING:
    from peft_shop.scripts.data import Reading
    from peft_shop.scripts.parts import ScriptParts

__all__ = ["text_script"]

_SCRIPT: Final = Template("""\
$header
$plain_imports

import torch
$imports

# --- yours to change ---
MODEL_ID = $model_id
$dataset
OUTPUT_DIR = "adapter"

# --- $origin ---
STEPS = $steps
LEARNING_RATE = $learning_rate
BATCH_SIZE = $batch_size
ACCUMULATION = $accumulation  # batches of one step
MAX_LENGTH = $max_length  # tokens; longer texts are cut
SEED = $seed

set_seed(SEED)
device = "cuda" if torch.cuda.is_available() else "cpu"

tokenizer = AutoTokenizer.from_pretrained(MODEL_ID)
if tokenizer.pad_token is None:
    tokenizer.pad_token = tokenizer.eos_token
$base

$config
model = $model
$told$preparation

def collate(rows):
    \"""The batches of one step.\"""
    return [encode(rows[start : start + BATCH_SIZE]) for start in range(0, len(rows), BATCH_SIZE)]


$encoding


$loader
steps = itertools.chain.from_iterable(itertools.repeat(loader))  # as many epochs as it takes

$optimizer

$check
${meter}
model.train()
for step, batches in enumerate(itertools.islice(steps, STEPS), start=1):
${begin}\
$counted
    tokens = [int(($predicted != -100).sum()) for batch in batches]
    loss = 0.0
    for batch, count in zip(batches, tokens, strict=True):
$forward
        part_loss = part_loss * (count / sum(tokens))
        $backward
        loss = loss + part_loss.detach()
$update
${end}    if step % 50 == 0 or step == STEPS:
        print(f"step {step}: loss {loss.item():.4f}")

${finish}$saving""")


_TOKENS_COUNT: Final = """\
    # Every token of a step counts alike, as with `num_items_in_batch`: a mean of the batches' means
    # would favour short texts. Unlike that, shares also fit what a method adds to its loss.\
"""
_TEXTS_COUNT: Final = "    # Every text of a step counts alike, also where batches differ in size."
_MADE: Final = "model.print_trainable_parameters()\n"
_SAVING: Final = """\
model.save_pretrained(OUTPUT_DIR)
tokenizer.save_pretrained(OUTPUT_DIR)
# To use it: load the base model anew, then peft.PeftModel.from_pretrained(base, OUTPUT_DIR)
"""
_SAVING_WHOLE: Final = """\
model.save_pretrained(OUTPUT_DIR)
tokenizer.save_pretrained(OUTPUT_DIR)
"""
_METER: Final = Template("""\

# --- what a trial measures ---
meter = Meter($watch, model, encode, device, tokenizer)
""")
"""Lines that only a trial's own copy of the script has; they change no weight and no batch."""


def text_script(parts: ScriptParts) -> str:
    """Whole script for one recipe.

    Raises:
        ConfigError: a value of the recipe cannot be written as source.
    """
    step = parts.step
    reading = reading_of(parts.recipe.training, parts.shared["dataset"])
    needed = {
        "torch.utils.data": ["DataLoader"],
        "transformers": [_model_class(reading), "AutoTokenizer", "set_seed"],
    }
    for module, names in reading.modules.items():
        needed[module] = [*needed.get(module, ()), *names]
    modules = parts.modules(needed)
    if step.quantize:
        modules["transformers"].append("BitsAndBytesConfig")
    loss = "part_loss = model(**batch.to(device)).loss"
    if step.chunked and reading.classes:
        raise ConfigError("no script with a chunked loss (fused_loss): classes have few logits")
    if step.chunked:
        modules["torch.utils.checkpoint"] = ["checkpoint"]
        loss = "part_loss = chunked_loss(batch.to(device))"
    in_front = parts.method is not None and parts.method.prompt == "input"
    saving = _SAVING if parts.adapts else _SAVING_WHOLE
    if parts.watch is not None:
        modules["peft_shop.trial.measure"] = ["Meter"]
        saving = f"meter.finish({'OUTPUT_DIR' if parts.adapts else ''})\n"
    return _SCRIPT.substitute(
        parts.shared,
        plain_imports="\n".join(f"import {module}" for module in reading.plain_imports),
        imports=imports(modules),
        dataset=reading.dataset,
        encoding=reading.encoding,
        loader=reading.loader,
        max_length=literal(step.max_length),
        base=_base(parts, reading),
        told=_MADE if parts.adapts else "",
        preparation="".join(f"{line}\n" for line in _preparation(parts)),
        check=(f"{chunked_loss(parts.method)}\n\n" if step.chunked else "") + check(step),
        counted=_TEXTS_COUNT if reading.classes else _TOKENS_COUNT,
        # virtual tokens in front of the input make even its first token a predicted one
        predicted='batch["labels"]' + ("" if in_front or reading.classes else "[:, 1:]"),
        forward=indent(precise(step, loss), " " * 8),
        backward=backward(step),
        update=indent(parts.update, " " * 4),
        finish="hook.remove()\n" if step.chunked else "",
        saving=saving,
        **_measuring(parts.watch),
    )


def _measuring(watch: str | None) -> dict[str, str]:
    """What a trial adds to the loop; nothing where `watch` names no order to a meter."""
    if watch is None:
        return {"meter": "", "begin": "", "end": ""}
    return {
        "meter": _METER.substitute(watch=literal(watch)),
        "begin": "    meter.begin()\n",
        "end": "    meter.end(step, loss, sum(tokens))\n",
    }


def _model_class(reading: Reading) -> str:
    """Name in transformers of what loads the base."""
    return "AutoModelForSequenceClassification" if reading.classes else "AutoModelForCausalLM"


def _base(parts: ScriptParts, reading: Reading) -> str:
    """Statements that load the base, on its device."""
    step = parts.step
    loading = loading_options(step)
    if reading.classes:
        loading["num_labels"] = Raw("len(LABELS)")
    if step.attention is not None:
        loading["attn_implementation"] = step.attention
    moved = "" if step.backend is not None else ".to(device)"
    used = len("base = ") + len(moved)
    made = call(f"{_model_class(reading)}.from_pretrained", loading, "MODEL_ID", used=used)
    lines = [f"base = {made}{moved}"]
    if reading.classes:
        lines.append(
            "base.config.pad_token_id = tokenizer.pad_token_id  # the class is told behind the text"
        )
    return "\n".join([*lines, *preparation(step)])


def _preparation(parts: ScriptParts) -> list[str]:
    """Statements between wrapping and training."""
    lines: list[str] = []
    if parts.step.checkpointing:
        # gradients must pass the frozen embeddings, and reach what is trained in every block
        enabled = {"gradient_checkpointing_kwargs": {"use_reentrant": False}}
        lines += [
            "model.enable_input_require_grads()",
            call("model.gradient_checkpointing_enable", enabled),
        ]
    return [*lines, *parts.prefix]

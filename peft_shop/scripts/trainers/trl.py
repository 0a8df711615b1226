"""Script that trains with TRL's `SFTTrainer`, as the MetaMathQA runs did it."""

from __future__ import annotations

from string import Template
from typing import TYPE_CHECKING, Final

from peft_shop.scripts.header import docstring
from peft_shop.scripts.loading import loading_options, preparation
from peft_shop.scripts.loop import FACTORIES, gradient_check, optimizer
from peft_shop.scripts.source import Raw, call, imports, literal
from peft_shop.scripts.trainers.order import OPTIMIZERS, PROMPT

if TYPE_CHECKING:
    from peft_shop.records import Json
    from peft_shop.scripts.parts import ScriptParts
    from peft_shop.scripts.trainers.order import Order

__all__ = ["DATA", "TEXT", "sections", "trl_file"]

_TRANSFORMERS: Final = ("AutoModelForCausalLM", "AutoTokenizer", "TrainerCallback", "set_seed")
_MODEL_LOSS: Final = {"adaption_prompt"}
"""Methods besides those that add to the loss with which TRL's own loss does not work."""

_CONSTANTS: Final = Template("""\
# --- yours to change ---
MODEL_ID = $model_id
DATASET_ID = "meta-math/MetaMathQA"
PROMPT = "$prompt"  # names in braces are columns of the data set
ANSWER = "response"  # the column that follows the prompt
OUTPUT_DIR = "adapter"

# --- $origin ---
STEPS = $steps
LEARNING_RATE = $learning_rate
BATCH_SIZE = $batch_size
ACCUMULATION = $accumulation  # batches of one step
MAX_LENGTH = $max_length  # tokens; longer texts are cut
SEED = $seed""")

_TOKENIZER: Final = """\
set_seed(SEED)
device = "cuda" if torch.cuda.is_available() else "cpu"

tokenizer = AutoTokenizer.from_pretrained(MODEL_ID)
if tokenizer.pad_token is None:
    tokenizer.pad_token = tokenizer.eos_token"""

TEXT: Final = '''\
def text(row):
    """The prompt and its answer as one text, every token of which counts, as measured."""
    return {"text": PROMPT.format(**row) + row[ANSWER] + tokenizer.eos_token}'''
DATA: Final = """\
data = load_dataset(DATASET_ID, split="train")
data = data.map(text, remove_columns=data.column_names)"""

_LOSS: Final = '''\
class ModelLoss(SFTTrainer):
    """TRL with the model's own loss, which this method needs, instead of its own."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        outputs = model(**inputs)
        loss = outputs.loss
        if num_items_in_batch is not None:  # every token of a step counts alike
            loss = loss * ((inputs["labels"][:, 1:] != -100).sum() / num_items_in_batch)
        return (loss, outputs) if return_outputs else loss'''

_ALLOCATE: Final = '''\
class Allocate(TrainerCallback):
    """Decides after each step, by its gradients, what is trained on."""

    def on_optimizer_step(self, args, state, control, **kwargs):
        model.base_model.update_and_allocate(state.global_step + 1)'''

_CALLBACK: Final = '''\
class CheckTraining(TrainerCallback):
    """Looks once whether anything trains, when gradients are there and the step was made."""

    def on_optimizer_step(self, args, state, control, **kwargs):
        if state.global_step + 1 == CHECK_STEP:
            check_training()'''

_RESTORE: Final = """\
# TRL casts what trains on a quantized base to bfloat16, which rounds small steps away.
for name, weight in model.named_parameters():
    if weight.requires_grad:
        weight.data = weight.data.to(dtypes[name])"""
_REMEMBER: Final = """\
trainable = [(name, one) for name, one in model.named_parameters() if one.requires_grad]
dtypes = {name: weight.dtype for name, weight in trainable}"""
_FLOATS: Final = """\
# In half precision small steps of weights near 1 are rounded away.
for weight in model.parameters():
    if weight.requires_grad:
        weight.data = weight.data.float()"""
_END: Final = """\
trainer.train()
trainer.save_model(OUTPUT_DIR)
# To use it: load the base model anew, then peft.PeftModel.from_pretrained(base, OUTPUT_DIR)"""


def trl_file(order: Order, parts: ScriptParts) -> str:
    """Whole script for one recipe.

    Raises:
        ConfigError: a value of the recipe cannot be written as source.
    """
    step, training = order.step, order.recipe.training
    own_loss = _needs_model_loss(order)
    optimizer_name = f"{step.optimizer}_8bit" if step.eight_bit else step.optimizer
    handed = step.optimizer in FACTORIES or optimizer_name not in OPTIMIZERS
    floats = _floats(order)
    told = [*order.about, *order.remarks()]
    told += _remarks(order, own_loss=own_loss, floats=floats, handed=handed)
    needed = " ".join([*parts.packages, f"trl=={order.trainer.version}"])
    arguments = call("SFTConfig", _arguments(order, floats=floats, handed=handed), used=12)
    constants = _CONSTANTS.substitute(
        parts.shared, prompt=PROMPT, max_length=literal(step.max_length)
    )
    wrapping = [parts.shared["config"], f"model = {parts.shared['model']}"]
    wrapping += ["model.print_trainable_parameters()", *parts.prefix]
    quantized = step.backend is not None
    trainer = [
        *([_LOSS] if own_loss else []),
        *([_REMEMBER] if quantized else []),
        f"trainer = {_trainer('ModelLoss' if own_loss else 'SFTTrainer', handed=handed)}",
        *([_RESTORE] if quantized else [_FLOATS] if floats else []),
    ]
    callbacks = [_CALLBACK, *([_ALLOCATE] if order.allocates else [])]
    adding = ["trainer.add_callback(CheckTraining())"]
    adding += ["trainer.add_callback(Allocate())"] if order.allocates else []
    return sections(
        docstring([*told, "", f"pip install {needed}"]).rstrip(),
        f"import torch\n{imports(_modules(order, parts, handed=handed))}",
        constants,
        f"{_TOKENIZER}\n{_base(order)}",
        "\n".join(wrapping),
        TEXT,
        DATA,
        f"arguments = {arguments}",
        optimizer(step, training, schedules=False) if handed else "",
        *trainer,
        *gradient_check(step).rstrip().split("\n\n\n"),
        *callbacks,
        "\n".join([*adding, _END]),
    )


def _needs_model_loss(order: Order) -> bool:
    """Whether TRL's own loss leaves something out, or counts virtual tokens otherwise."""
    method = order.method
    adds = method.own_loss is not None or method.id in _MODEL_LOSS
    return adds or method.prompt == "input"


def sections(*texts: str) -> str:
    """Source of the parts of a script, as far apart as formatters have them."""
    found = ""
    for text in filter(None, texts):
        both = (found.rpartition("\n\n\n")[2], text)
        apart = "\n\n\n" if any(one.startswith(("def ", "class ")) for one in both) else "\n\n"
        found = f"{found}{apart}{text}" if found else text
    return f"{found}\n"


def _modules(order: Order, parts: ScriptParts, *, handed: bool) -> dict[str, list[str]]:
    modules = parts.modules(
        {
            "datasets": ["load_dataset"],
            "transformers": list(_TRANSFORMERS),
            "trl": ["SFTConfig", "SFTTrainer"],
        },
        handed=handed,
    )
    if order.step.quantize:
        modules["transformers"].append("BitsAndBytesConfig")
    return modules


def _trainer(name: str, *, handed: bool) -> str:
    """Source of the call that makes the trainer."""
    handing: dict[str, Json] = {
        "args": Raw("arguments"),
        "train_dataset": Raw("data"),
        "processing_class": Raw("tokenizer"),
    }
    if handed:
        handing["optimizers"] = Raw("(optimizer, None)")
    return call(name, handing, "model", used=10)


def _floats(order: Order) -> bool:
    """Whether what trains has to be cast to float32."""
    if order.step.backend is not None:
        return False
    return order.step.half or any(
        rule.when == "half" and rule.written and order.method.id in rule.topics
        for rule in order.trainer.rules
        if order.step.dtype != "float32"
    )


def _base(order: Order) -> str:
    """Statements that load the base, on its device."""
    step = order.step
    loading = loading_options(step)
    if step.attention is not None:
        loading["attn_implementation"] = step.attention
    moved = "" if step.backend is not None else ".to(device)"
    used = len("base = ") + len(moved)
    made = call("AutoModelForCausalLM.from_pretrained", loading, "MODEL_ID", used=used)
    return "\n".join([f"base = {made}{moved}", *preparation(step)])


def _arguments(order: Order, *, floats: bool, handed: bool) -> dict[str, Json]:
    """Arguments of `SFTConfig`, every one that changes a recipe written out."""
    step, training = order.step, order.recipe.training
    found: dict[str, Json] = {
        "output_dir": Raw("OUTPUT_DIR"),
        "max_steps": Raw("STEPS"),
        "learning_rate": Raw("LEARNING_RATE"),
        "lr_scheduler_type": order.scheduler,
        "warmup_steps": Raw("STEPS // 10") if training.lr_scheduler else 0,
        "per_device_train_batch_size": Raw("BATCH_SIZE"),
        "gradient_accumulation_steps": Raw("ACCUMULATION"),
    }
    if not handed:
        found |= {"optim": order.optimizer(OPTIMIZERS), "weight_decay": order.weight_decay}
    found |= {
        "max_grad_norm": training.grad_norm_clip or 0.0,
        "max_length": Raw("MAX_LENGTH"),
        "packing": False,
        # base and adapters have their types already: as measured, nothing is cast on the way
        "bf16": floats and step.dtype == "bfloat16",
        "fp16": step.half,
        "gradient_checkpointing": step.checkpointing,
        "seed": Raw("SEED"),
        "logging_steps": 50,
        "save_strategy": "no",
        "report_to": "none",
    }
    if step.checkpointing:
        found["gradient_checkpointing_kwargs"] = {"use_reentrant": False}
    return found


def _remarks(order: Order, *, own_loss: bool, floats: bool, handed: bool) -> list[str]:
    remarks = ["TRL shuffles by its own seed: other batches than the plain loop, the same recipe."]
    if not handed and order.weight_decay:
        remarks.append(
            "transformers leaves biases and norms out of weight decay; measured: all decay"
        )
    if order.step.chunked and not own_loss:
        remarks.append("The loss is reckoned in chunks by TRL itself.")
    if order.step.chunked and own_loss:
        remarks.append("not in this script: a loss in chunks, since the model's own loss is needed")
    if floats and order.step.dtype == "bfloat16":
        remarks.append("What trains is in float32 and runs under autocast; measured: in bfloat16")
    return remarks

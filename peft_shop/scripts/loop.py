"""Source of what happens between wrapping and saving: optimizer, losses, steps, a look at them."""

from __future__ import annotations

import re
from string import Template
from textwrap import indent
from typing import TYPE_CHECKING, Final

from peft_shop.errors import ConfigError
from peft_shop.scripts.source import Raw, call, literal

if TYPE_CHECKING:
    from peft_shop.catalog.methods import Method
    from peft_shop.catalog.runs import Training
    from peft_shop.scripts.step import Step

__all__ = [
    "FACTORIES",
    "backward",
    "check",
    "chunked_loss",
    "gradient_check",
    "optimizer",
    "precise",
    "update",
]

FACTORIES: Final = {
    "lora-fa": ("create_lorafa_optimizer", ()),
    "lora+": ("create_loraplus_optimizer", ("torch.optim.AdamW",)),
    "riemannian": ("create_riemannian_optimizer", ("torch.optim.AdamW",)),
}
"""Optimizers of peft: function of `peft.optimizers` and what it takes besides the model."""
_TORCH_OPTIMIZER: Final = re.compile(r"[A-Z][A-Za-z]*")
_TRAINABLE: Final = "trainable = [weight for weight in model.parameters() if weight.requires_grad]"
_CHECKED: Final = 3
"""Step after which weights are looked at: the second with a rate, since warm-up starts from 0."""
_CHECKED_HALF: Final = 20
"""The same in float16, where steps are left out until the scale of the gradients is found."""

_HALVES: Final = """\
halves = [weight for weight in trainable if weight.dtype == torch.float16]
for weight in halves:  # gradients can only be scaled in float32
    weight.data = weight.data.float()"""

_CHECK: Final = Template('''\
# Nothing trained is a result too: it is found in the first steps, and its cause is told.
initial = {
    name: weight.detach().to("cpu", copy=True)
    for name, weight in model.named_parameters()
    if weight.requires_grad
}


def check_training($argument):
    """Stops where nothing trains; tells which weights stay as they are, and why."""
$broken
    still = {}
    for name, weight in model.named_parameters():
        if name not in initial:
            continue
        if not LEARNING_RATE:
            still[name] = "the learning rate is 0"
        elif weight.grad is None or not weight.grad.any():
            still[name] = "no gradient reaches them"
        elif not torch.equal(weight.detach().cpu(), initial[name]):
            continue
        elif weight.equal(weight + LEARNING_RATE) and weight.equal(weight - LEARNING_RATE):
            still[name] = f"{weight.dtype} rounds steps of {LEARNING_RATE} away; float32 would not"
        elif weight.dtype == torch.float32:
            still[name] = "the optimizer leaves them as they are"
    for cause in sorted(set(still.values())):
        names = [name for name in still if still[name] == cause]
        print(f"{len(names)} of {len(initial)} trainable tensors stay: {cause} ({names[0]}, ...)")
    if len(still) == len(initial):
        raise SystemExit("stopped: nothing trains, for the causes above")
''')
_BROKEN_LOSS: Final = """\
    if not torch.isfinite(loss):
        raise SystemExit(f"stopped: the loss is {loss.item()}")"""
_BROKEN_GRADIENTS: Final = """\
    gradients = [weight.grad for weight in model.parameters() if weight.grad is not None]
    if not all(torch.isfinite(gradient).all() for gradient in gradients):
        raise SystemExit("stopped: gradients are not finite")"""

_CHUNKED: Final = Template('''\
# The loss in chunks: logits of so many tokens exist at a time, never all of them.
CHUNK = 128
head = model.get_output_embeddings()
states = []


def keep_states(_, inputs):
    states[:] = inputs[:1]
    return (inputs[0][:, -1:],)  # the model itself makes the logits of one position


hook = head.register_forward_pre_hook(keep_states)


def chunk_loss(hidden, labels):
    logits = head.forward(hidden).float()  # past the hook, which a call would run again
    return torch.nn.functional.cross_entropy(logits, labels, reduction="sum")


def chunked_loss(part):
    """The model's loss on one part, and what the method adds to it."""
    labels = part.pop("labels")
    output = model(**part$asked)
    hidden = states.pop()
    with torch.no_grad():
        if not torch.equal(head.forward(hidden[:, -1:]).float(), output.logits.float()):
            raise SystemExit("stopped: this model changes its logits behind the head; see CHUNK")
    # virtual tokens in front have no labels
    labels = torch.nn.functional.pad(labels, (hidden.shape[1] - labels.shape[1], 0), value=-100)
    chunks = zip(
        hidden[:, :-1].flatten(0, 1).split(CHUNK), labels[:, 1:].flatten().split(CHUNK), strict=True
    )
    summed = sum(checkpoint(chunk_loss, *chunk, use_reentrant=False) for chunk in chunks)
    return summed / (labels[:, 1:] != -100).sum()$added
''')
"""Source of `chunked_loss`; loss and gradient are those of whole logits."""
_NO_LABELS: Final = ", labels=torch.full_like(labels[:, :1], -100), num_items_in_batch=1"
"""Makes the model's own loss 0, so that what it returns is what the method adds."""


def chunked_loss(method: Method | None) -> str:
    """Definitions that reckon the loss without whole logits."""
    adds = method is not None and method.own_loss == "weights"
    return _CHUNKED.substitute(
        asked=_NO_LABELS if adds else "", added=" + output.loss" if adds else ""
    )


def optimizer(step: Step, training: Training, *, schedules: bool = True) -> str:
    """Statements that make the optimizer and, where there is one, the schedule.

    Args:
        step: how the training step runs.
        training: what was measured.
        schedules: whether the schedule and the scaling of gradients are the loop's to make.

    Raises:
        ConfigError: no script knows the optimizer.
    """
    options = {"lr": Raw("LEARNING_RATE"), **step.optimizer_options}
    options["lr"] = Raw("LEARNING_RATE")
    factory = FACTORIES.get(step.optimizer)
    lines = [_TRAINABLE] if factory is None or step.half else []
    if step.half:
        lines.append(_HALVES)
    if factory is not None:
        name, first = factory
        lines.append("optimizer = " + call(name, options, "model", *first, used=12))
    elif _TORCH_OPTIMIZER.fullmatch(step.optimizer):
        name = "AdamW8bit" if step.eight_bit else f"torch.optim.{step.optimizer}"
        lines.append("optimizer = " + call(name, options, "trainable", used=12))
    else:
        known = ", ".join(["a class of torch.optim", *FACTORIES])
        msg = f"no script for training.optimizer {step.optimizer!r}; known: {known}"
        raise ConfigError(msg)
    if training.lr_scheduler == "cosine" and schedules:
        schedule = {"num_warmup_steps": Raw("STEPS // 10"), "num_training_steps": Raw("STEPS")}
        made = call("get_cosine_schedule_with_warmup", schedule, "optimizer", used=12)
        lines.append(f"scheduler = {made}")
    if step.half and schedules:
        lines.append("scaler = torch.amp.GradScaler(device)")
    return "\n".join(lines)


def check(step: Step) -> str:
    """Definition of the function that looks whether anything trains."""
    number = _CHECKED_HALF if step.half else _CHECKED
    source = _CHECK.substitute(argument="loss", broken=_BROKEN_LOSS)
    return f"CHECK_STEP = min(STEPS, {number})\n{source}"


def gradient_check(step: Step) -> str:
    """The same for a trainer that keeps its loss to itself."""
    number = _CHECKED_HALF if step.half else _CHECKED
    source = _CHECK.substitute(argument="", broken=_BROKEN_GRADIENTS)
    return f"CHECK_STEP = min(STEPS, {number})\n{source}"


def precise(step: Step, statements: str) -> str:
    """The forward pass; in float16 with float32 where a method trains weights of the base."""
    if not step.half:
        return statements
    opening = "with torch.autocast(device, torch.float16, enabled=bool(halves)):"
    return f"{opening}\n{indent(statements, '    ')}"


def backward(step: Step) -> str:
    """Statement of the backward pass of one part."""
    return "scaler.scale(part_loss).backward()" if step.half else "part_loss.backward()"


def update(step: Step, training: Training, *, allocates: bool) -> str:
    """Statements of the loop once all gradients of a step are there."""
    lines = ["scaler.unscale_(optimizer)"] if step.half else []
    if training.grad_norm_clip:
        clip = literal(training.grad_norm_clip)
        lines.append(f"torch.nn.utils.clip_grad_norm_(model.parameters(), {clip})")
    if step.half:
        lines += ["scaler.step(optimizer)", "scaler.update()"]
    else:
        lines.append("optimizer.step()")
    if training.lr_scheduler:
        lines.append("scheduler.step()")
    if allocates:  # by the gradients of this step
        lines.append("model.base_model.update_and_allocate(step)")
    lines += ["if step == CHECK_STEP:", "    check_training(loss)", "optimizer.zero_grad()"]
    return "\n".join(lines)

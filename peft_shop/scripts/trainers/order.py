"""What a trainer's file is written from, and what must be told above it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from peft_shop.catalog.methods import PLAIN
from peft_shop.catalog.trainers import RECIPE_FIELDS
from peft_shop.errors import ConfigError
from peft_shop.scripts.source import WIDTH, comment, wrapped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from peft_shop.catalog.benchmarks import Benchmark
    from peft_shop.catalog.methods import Method
    from peft_shop.catalog.runs import Recipe
    from peft_shop.catalog.trainers import Trainer
    from peft_shop.records import Json
    from peft_shop.scripts.step import Step
    from peft_shop.serve.trainers import Acceptance

__all__ = ["OPTIMIZERS", "PROMPT", "Order", "commented", "common", "names_of", "unwritten"]

PROMPT: Final = "Question: {query}\\nAnswer: "
"""What the benchmark put before an answer, as source."""
OPTIMIZERS: Final = {
    "AdamW": "adamw_torch",
    "AdamW_8bit": "adamw_bnb_8bit",
    "SGD": "sgd",
    "lora+": "adamw_torch",
}
"""Optimizers by their name in transformers, and so in tools that build on it."""
_BITS: Final = {"bnb_4bit": 4, "bnb_8bit": 8}
_NO_WARMUP: Final = 0
_WARMUP_SHARE: Final = 10
"""A cosine schedule warms up over one tenth of the steps."""
_TORCH_DECAY: Final = 0.01
"""Weight decay of `torch.optim.AdamW` where a recipe states none."""
_LORA_DEFAULTS: Final[dict[str, Json]] = {"r": 8, "lora_alpha": 8, "lora_dropout": 0.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What a trainer's file is written from.

    Attributes:
        trainer: the tool.
        acceptance: what it takes of the recipe in this step.
        recipe: what is trained.
        config: the peft configuration without its type.
        benchmark: what the run was measured on.
        step: how the training step runs.
        method: what the catalog knows of the method; `None` where it knows nothing.
        architecture: class of the base, where it is known.
        allocates: whether a loop must call `update_and_allocate` after each step.
        about: lines about the run, the setup and the device.
    """

    trainer: Trainer
    acceptance: Acceptance
    recipe: Recipe
    config: Mapping[str, Json]
    benchmark: Benchmark
    step: Step
    method: Method
    architecture: str | None
    allocates: bool
    about: tuple[str, ...]

    @property
    def is_lora(self) -> bool:
        """Whether the method is LoRA."""
        return self.method.id == PLAIN

    @property
    def warmup(self) -> int:
        """Steps of warm-up."""
        scheduler = self.recipe.training.lr_scheduler
        return self.recipe.training.max_steps // _WARMUP_SHARE if scheduler else _NO_WARMUP

    @property
    def scheduler(self) -> str:
        """Name of the schedule in transformers and diffusers."""
        return self.recipe.training.lr_scheduler or "constant"

    @property
    def weight_decay(self) -> float:
        """Weight decay of the optimizer; torch's own where the recipe states none."""
        stated = self.step.optimizer_options.get("weight_decay")
        return float(stated) if isinstance(stated, int | float) else _TORCH_DECAY

    @property
    def bits(self) -> int | None:
        """Bits in which bitsandbytes holds the base; `None` for plain ones, or as they come."""
        backend = self.step.backend
        return None if backend is None else _BITS.get(backend)

    @property
    def lost(self) -> set[str]:
        """Options that the trainer does not carry out."""
        return {one.option for one in self.acceptance.lost}

    def optimizer(self, names: Mapping[str, str]) -> str:
        """The optimizer by its name in the tool; `names` are those of torch with `_8bit` if so.

        Raises:
            ConfigError: the tool has no such optimizer.
        """
        wanted = f"{self.step.optimizer}_8bit" if self.step.eight_bit else self.step.optimizer
        if wanted not in names:
            known = ", ".join(names)
            msg = (
                f"no file for {self.trainer.title}: the recipe has optimizer {wanted}, of which it "
                f"has no name on record; known: {known}"
            )
            raise ConfigError(msg)
        return names[wanted]

    def lora(self) -> dict[str, Json]:
        """Fields of the configuration of LoRA that decide, with what applies by default.

        Raises:
            ConfigError: nobody knows which modules it adapts.
        """
        chosen = {**_LORA_DEFAULTS, **self.recipe.resolved, **self.config}
        if not chosen.get("target_modules"):
            msg = (
                f"no file for {self.trainer.title}: which modules the recipe adapts is not on "
                "record; name the model with --model"
            )
            raise ConfigError(msg)
        return {
            name: chosen[name]
            for name in RECIPE_FIELDS
            if name in chosen and chosen[name] not in (None, [], {}, ()) and name not in self.lost
        }

    def told(self, *more: str, unwritten: Iterable[str] = ()) -> tuple[str, ...]:
        """Everything that a reader of a file without a loop of its own must know, line by line.

        Args:
            *more: what only this file says of itself.
            unwritten: what the recipe has and the file does not, in words.
        """
        left = (*unwritten, *self._left_of_step())
        return (*self.about, *self.remarks(), *more, *(f"not written: {one}" for one in left))

    def _left_of_step(self) -> Iterator[str]:
        """What the setup says and only a loop of one's own can carry out, in words."""
        step = self.step
        if step.attention is not None:
            yield f"attention = {step.attention!r}: the tool chooses"
        if self.bits is not None and not step.double_quantization:
            yield "double_quantization = False: the tool chooses"
        if step.backend is not None and step.prepare:
            yield "how the base is prepared for k-bit training: the tool does it in its own way"
        if not step.autocast_adapter_dtype and step.dtype != "float32":
            yield f"adapters in {step.dtype}: the tool chooses their type"

    def remarks(self) -> Iterator[str]:
        """What the catalog knows of the trainer and the recipe, line by line."""
        trainer, found = self.trainer, self.acceptance
        yield f"Facts about {trainer.title} {trainer.version}, read on {trainer.checked}."
        if found.own:
            yield "It trains this with code of its own, not with peft's."
        for one in found.lost:
            yield f"lost: {one.option}: {one.change}"
        for need in found.needs:
            yield f"{'done here' if need in found.written else 'do first'}: {need}"
        yield from (f"careful: {text}" for text in found.cautions)
        if trainer.file != "script":
            yield from (f"careful: {hazard.text}" for hazard in trainer.hazards)
        for topic in ("whole_text", "completion_only", "chat_template", "packing"):
            fact = trainer.facts.get(topic)
            if "text" in trainer.models and fact is not None and fact.value != "no":
                key = f" ({fact.key})" if fact.key else ""
                yield f"{_DATA[topic]}{key}: {fact.note or fact.value}"


_DATA: Final = {
    "whole_text": "loss over question and answer, as measured",
    "completion_only": "loss on the answer alone, which was not measured",
    "chat_template": "chat template, which the benchmark had none of",
    "packing": "packing, which was not measured",
}


def commented(lines: Iterable[str]) -> str:
    """Lines as comments of a YAML or shell file, folded; harmless whatever they hold."""
    folded = [
        part
        for line in lines
        for part in (wrapped(comment(line), WIDTH - 2).splitlines() if line else [""])
    ]
    return "".join(f"# {part}".rstrip() + "\n" for part in folded)


def common(
    order: Order, optimizers: Mapping[str, str], *, truth: Callable[[bool], Json] = bool
) -> dict[str, Json]:
    """Settings that tools on top of transformers share, by the order's trainer's keys.

    Args:
        order: what is written.
        optimizers: the tool's names of optimizers.
        truth: how the tool writes yes and no.

    Raises:
        ConfigError: the tool has no such optimizer.
    """
    step, training, keys = order.step, order.recipe.training, order.trainer.keys
    return {
        keys["learning_rate"]: training.learning_rate,
        keys["lr_scheduler"]: order.scheduler,
        keys["warmup"]: order.warmup,
        keys["max_steps"]: training.max_steps,
        keys["batch_size"]: step.batch_size,
        keys["accumulation"]: step.accumulation,
        keys["optimizer"]: order.optimizer(optimizers),
        keys["weight_decay"]: order.weight_decay,
        keys["grad_norm_clip"]: training.grad_norm_clip or 0.0,
        keys["seed"]: training.seed,
        keys["dtype"]: truth(step.dtype == "bfloat16"),
        keys["output"]: "adapter",
    }


def names_of(order: Order, config: Mapping[str, Json]) -> list[Json]:
    """Names of the adapted modules.

    Raises:
        ConfigError: a pattern stands for them, or nothing.
    """
    targets = config.get("target_modules")
    if isinstance(targets, list | tuple) and targets:
        return list(targets)
    what = "a pattern stands for them" if targets else "nothing tells them"
    msg = (
        f"no file for {order.trainer.title}: it wants the names of the adapted modules, and "
        f"{what}; name the model with --model"
    )
    raise ConfigError(msg)


def unwritten(order: Order, written: Mapping[str, Json]) -> list[str]:
    """Fields of the configuration that the tool has no key for, or loses, in words."""
    return [
        f"{name} = {value!r}"
        for name, value in order.config.items()
        if name != "task_type"
        and value not in (None, [], {}, (), False)
        and (name not in written or name not in order.trainer.keys)
    ]

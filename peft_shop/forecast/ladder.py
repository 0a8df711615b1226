"""The setups that are tried on a device, and what each costs beside memory.

Rungs differ in the precision of the base, in gradient checkpointing, in the kernel of the loss, in
how a batch is split and in the optimizer's states. All but the base's precision leave the result as
it is; what changes the task, such as shorter sequences, is no rung.
"""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeAlias

from peft_shop.forecast.dry_run.constants import constants
from peft_shop.forecast.quick.base_memory import DTYPE_SIZE, stream_dtype
from peft_shop.forecast.quick.frozen import blocks_of, tokens_of
from peft_shop.forecast.quick.remembered import remembered

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from peft_shop.catalog.features import QuantizationBackend
    from peft_shop.forecast.records import Settings
    from peft_shop.model.structure import ModuleGroup, Structure

__all__ = [
    "QuantizedTraining",
    "Rung",
    "chunkable",
    "ladder",
    "micro_batches",
    "time_factor",
]

QuantizedTraining: TypeAlias = Literal["yes", "prepared", "as_loaded", "no"]
"""How a method trains on a quantized base: in any way, only after
`prepare_model_for_kbit_training`, only without it, or not as far as is known."""

_SUITE: Final = "metamathqa"
"""Whose constants order the setups."""
_FORWARD_AND_BACK: Final = 4.0
"""Operations per weight and token: two forward, two back to the input of a frozen layer."""
_AGAIN: Final = 1.26
"""More of them per weight of a block that is run again, which skips what is not needed."""
_TRAFFIC: Final = 874.0
"""Bytes read and written per token, layer and unit of width."""
_TRAFFIC_AGAIN: Final = 1.32
_TRAFFIC_UPCAST: Final = 1.33
"""Of a float32 stream on a base in half precision."""
_KERNELS: Final = (184, 249)
"""Kernels started per layer and micro-batch, without and with checkpointing."""
_PASSES: Final = (2, 3)
"""Times that the weights are read, without and with checkpointing."""
_UNPACKED: Final = 2.5
"""Bytes per weight of a 4-bit block that each pass writes and reads to expand it."""
_TIME_STEP: Final = 0.05
"""Differences in time below this are no reason to prefer a setup."""

_CHANGED_LOGITS: Final = (
    "beam",
    "cohere",
    "diffusion_gemma",
    "gemma2",
    "gemma3n",
    "gemma4",
    "granite",
    "grok",
    "hyperclovax",
    "inkling",
    "jev",
    "minicpm",
    "nanochat",
    "recurrent_gemma",
    "t5gemma",
    "vaultgemma",
)
"""Beginnings of model types of transformers 5.23 that cap or scale their logits after the head."""


class Rung(NamedTuple):
    """One setup.

    Attributes:
        settings: the training step.
        slight: whether it changes the result a little (a quantized base).
        time: of the effective batch, against the base in 16 bit in one piece without
            checkpointing.
        changes: settings that differ from those that were asked for.
    """

    settings: Settings
    slight: bool
    time: float
    changes: tuple[str, ...]

    @property
    def cost(self) -> tuple[bool, bool, int, int]:
        """What makes one setup cheaper than another, bytes apart."""
        return (
            self.slight,
            self.settings.fused_loss,
            round(self.time / _TIME_STEP),
            len(self.changes),
        )

    @property
    def alike(self) -> tuple[object, ...]:
        """What two methods' setups have in common though each prepares its base in its own way."""
        one = self.settings
        return (
            one.quantization is not None,
            one.gradient_checkpointing,
            one.fused_loss,
            one.optimizer == "adamw_8bit",
            one.batch_size,
        )


def chunkable(structure: Structure) -> bool:
    """Whether a chunked cross-entropy can stand for the model's own loss.

    It needs a causal language model with a linear head that neither caps nor scales its logits.
    """
    head = any(
        group.kind == "linear" and group.out_features == structure.dimensions.vocabulary
        for group in structure.of(["head"])
    )
    changed = (structure.model_type or "").startswith(_CHANGED_LOGITS)
    return structure.task_type == "CAUSAL_LM" and head and not changed


def micro_batches(
    settings: Settings, fixed: Collection[str], effective: int
) -> list[tuple[int, int]]:
    """Ways to split an effective batch: sequences at a time, and how often; largest first.

    What is fixed is kept; where it does not divide the effective batch, one more micro-batch is
    taken than would be too few.
    """
    if "batch_size" in fixed:
        times = settings.accumulation if "accumulation" in fixed else 0
        return [(settings.batch_size, times or -(-effective // settings.batch_size))]
    if "accumulation" in fixed:
        return [(-(-effective // settings.accumulation), settings.accumulation)]
    sizes = [size for size in range(effective, 0, -1) if effective % size == 0]
    return [(size, effective // size) for size in sizes]


def ladder(
    structure: Structure,
    settings: Settings,
    fixed: Collection[str],
    *,
    effective: int,
    bfloat16: bool,
    backends: Collection[QuantizationBackend] = ("bnb_4bit", "bnb_8bit"),
) -> list[Rung]:
    """Every setup that leaves the `fixed` fields of `settings` as they are, the cheapest first.

    Args:
        structure: of the base model.
        settings: the training step that was asked for.
        fixed: its fields that stay.
        effective: batch behind one step of the optimizer.
        bfloat16: whether the device computes in it.
        backends: with which an unquantized base may be quantized.
    """
    if not bfloat16 and settings.dtype == "bfloat16" and "dtype" not in fixed:
        settings = settings.model_copy(update={"dtype": "float16"})
    checkpointing = _switch(settings, fixed, "gradient_checkpointing")
    fused = _switch(settings, fixed, "fused_loss") if chunkable(structure) else ()
    optimizers = {settings.optimizer}
    if "optimizer" not in fixed and settings.optimizer == "adamw":
        optimizers.add("adamw_8bit")
    bases = list(_bases(structure, settings, fixed, backends))
    splits = micro_batches(settings, fixed, effective)
    rungs = []
    for base, again, loss, optimizer, (size, times) in product(
        bases,
        checkpointing,
        fused or (settings.fused_loss,),
        sorted(optimizers),
        splits,
    ):
        step = base.model_copy(
            update={
                "gradient_checkpointing": again,
                "fused_loss": loss,
                "optimizer": optimizer,
                "batch_size": size,
                "accumulation": times,
            }
        )
        rungs.append(
            Rung(
                step,
                base.quantization != settings.quantization,
                time_factor(structure, step),
                _changes(settings, step, splits),
            )
        )
    return sorted(rungs, key=lambda rung: rung.cost)


def _switch(settings: Settings, fixed: Collection[str], name: str) -> tuple[bool, ...]:
    """A setting that may be switched on."""
    now = getattr(settings, name)
    return (now,) if now or name in fixed else (False, True)


def _bases(
    structure: Structure,
    settings: Settings,
    fixed: Collection[str],
    backends: Collection[QuantizationBackend],
) -> Iterator[Settings]:
    """Precisions of the base, each as loaded and prepared where that makes a difference."""
    choices: list[QuantizationBackend | None] = [settings.quantization]
    free = settings.quantization is None and structure.quantization is None
    if free and "quantization" not in fixed:
        choices += backends
    for backend in choices:
        base = settings.model_copy(update={"quantization": backend})
        if (backend or structure.quantization) is None or "prepare_kbit" in fixed:
            yield base
            continue
        for prepared in (False, True):
            yield base.model_copy(update={"prepare_kbit": prepared})


def _changes(
    asked: Settings, step: Settings, splits: Collection[tuple[int, int]]
) -> tuple[str, ...]:
    names = ["quantization", "gradient_checkpointing", "fused_loss", "optimizer"]
    changes = [name for name in names if getattr(step, name) != getattr(asked, name)]
    if step.batch_size != max(size for size, _ in splits):
        changes.append("accumulation")
    return tuple(changes)


class _Work(NamedTuple):
    """Sizes that the time of a step follows.

    Attributes:
        blocks: weights of all blocks [count].
        active: of those, what one token goes through; of experts those that are chosen.
        head: weights of the head [count].
        layers: number of blocks.
        hidden: width of the residual stream.
    """

    blocks: int
    active: float
    head: int
    layers: int
    hidden: int


def _work_of(structure: Structure) -> _Work:
    blocks = blocks_of(structure)
    inside, active = 0, 0.0
    for block in blocks:
        for group in block.groups:
            if group.role != "norm":
                weights = group.parameters * group.count
                inside += weights
                active += weights * _active_share(structure, group)
    heads = list(structure.of(["head"]))
    widths = [group.out_features for block in blocks for group in block.groups]
    return _Work(
        inside,
        active,
        sum(group.in_features * group.out_features * group.count for group in heads),
        sum(block.count for block in blocks),
        structure.dimensions.hidden_size or min(widths, default=0),
    )


def _active_share(structure: Structure, group: ModuleGroup) -> float:
    """Share of a group's weights that one token goes through."""
    chosen = structure.dimensions.active_experts
    if chosen is None or not group.role.startswith("expert"):
        return 1.0
    # held in one parameter, or a list of modules in each block
    experts = group.experts or _listed(structure, group)
    return min(1.0, chosen / experts) if experts > 1 else 1.0


def _listed(structure: Structure, group: ModuleGroup) -> int:
    """Experts in one block that are modules of their own [count]."""
    routers = [one.count for one in structure.of(["router"])]
    return group.count // max(routers) if routers else 1


def time_factor(structure: Structure, settings: Settings) -> float:
    """Time of an effective batch against 16 bit, one piece and no checkpointing; orders setups."""
    effective = settings.batch_size * settings.accumulation
    reference = settings.model_copy(
        update={
            "quantization": None,
            "gradient_checkpointing": False,
            "batch_size": effective,
            "accumulation": 1,
        }
    )
    whole = _seconds(structure, reference)
    return _seconds(structure, settings) / whole if whole else 1.0


def _seconds(structure: Structure, settings: Settings) -> float:
    costs = next(step for step in constants().steps if step.benchmark == _SUITE)
    work = remembered(structure, "work", lambda: _work_of(structure))
    again = settings.gradient_checkpointing
    times = settings.accumulation
    tokens = times * settings.batch_size * tokens_of(structure, settings)
    products = _FORWARD_AND_BACK * (work.active + work.head) + _AGAIN * again * work.active
    traffic = tokens * work.layers * _TRAFFIC * work.hidden * (_TRAFFIC_AGAIN if again else 1.0)
    if stream_dtype(structure, settings) != settings.dtype:
        traffic *= _TRAFFIC_UPCAST
    passes = times * _PASSES[again]
    # a quantized weight is read and written once more in 16 bit for each product
    traffic += passes * structure.parameters * DTYPE_SIZE[settings.dtype]
    if (settings.quantization or structure.quantization) is not None:
        traffic += passes * _UNPACKED * work.blocks
    kernels = times * work.layers * _KERNELS[again]
    return tokens * products * costs.half_flop + traffic * costs.byte + kernels * costs.launch

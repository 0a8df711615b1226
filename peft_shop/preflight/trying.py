"""A wrapped model, tried: one forward pass without weights, beside one of the bare model."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

import torch
from peft import PeftModel
from peft.tuners.trainable_tokens.layer import TrainableTokensLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from peft_shop.errors import ForecastError
from peft_shop.preflight.alternatives import shapes_of
from peft_shop.preflight.batches import make_batches
from peft_shop.preflight.depth import cut, everywhere
from peft_shop.preflight.forward import forward_pass
from peft_shop.preflight.reading import target_of
from peft_shop.preflight.wrapping import REFUSALS, give_values

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from peft_shop.model.inspection import Target
    from peft_shop.preflight.batches import Batch
    from peft_shop.preflight.forward import Pass

__all__ = ["TASKS", "Bare", "Tried", "bare_of", "choice_of", "small_batch", "tried"]

TASKS: Final = {"POLY": "cpu", "MULTITASK_PROMPT_TUNING": "meta"}
"""Methods that are told which task each sample is of; Poly looks whether there is such a task."""
_SHIFTS: Final = {"MULTITASK_PROMPT_TUNING"}
"""Methods that make a decoder's inputs from the labels themselves."""


@dataclass(frozen=True, slots=True)
class _Small:
    """A batch that shows shapes: two samples of a few tokens or a small image."""

    batch_size: int = 2
    sequence_length: int = 16
    dtype: str = "float32"
    padding: bool = True
    image_size: int = 64


_SMALL: Final = _Small()


@dataclass(frozen=True, slots=True)
class Tried:
    """What one forward pass of a wrapped model showed.

    Attributes:
        passed: whether it went through; `None` where it cannot be told without weights.
        because: why it did not, or why that cannot be told; empty where it went through.
        silent: adapters that get no gradient, by the base's name of what they wrap, and whether
            the model calls them.
        reached: whether anything that trains gets a gradient.
    """

    passed: bool | None
    because: str = ""
    silent: Mapping[str, bool] = field(default_factory=dict)
    reached: bool = True


@dataclass(frozen=True, slots=True)
class Bare:
    """How the model without an adapter fared; `because` says why that cannot be told.

    Attributes:
        reads: how often it read a number [count].
        whole: whether it had to be tried with all of its blocks.
        choice: place of the batch that it takes among those that were made.
        because: why none could be told to pass.
    """

    reads: int = 0
    whole: bool = False
    choice: int = 0
    because: str = ""


_bare: WeakKeyDictionary[Target, Bare] = WeakKeyDictionary()
"""The same for every configuration of one model."""


def tried(target: Target, model: Any, again: Callable[[], Any]) -> Tried:
    """Whether `model` can take a forward pass, and which of its adapters have a part in it.

    Deep models are cut to two blocks of each kind; where a pass fails so, it is made again with
    all of them.

    Args:
        target: what was wrapped.
        model: the wrapped model, on meta; of no use afterwards.
        again: wraps another instance in the same way.
    """
    bare = bare_of(target)
    if bare.because:
        return Tried(None, bare.because)
    kinds = {} if bare.whole else cut(model.get_base_model())
    shown = _run(target, model)
    if shown.error is not None and kinds:
        model, kinds = again(), {}
        shown = _run(target, model)
    if shown.error is None:
        return _heard(model, shown, kinds)
    words = _words(shown.error)
    unknown = isinstance(shown.error, NotImplementedError) or "meta" in words.lower()
    if not unknown and shown.reads > bare.reads:
        # numbers that are not known were looked at: a failure counts where they do not matter
        other = _run(target, again(), answer=True)
        unknown = other.error is None or _words(other.error) != words
    if unknown:
        return Tried(None, f"its forward pass looks at numbers ({words})")
    return Tried(passed=False, because=words)


def _words(error: Exception) -> str:
    """What was raised, in one line; of a long message its first line, or its last where that says
    what is wrong and the first only shows a module.
    """
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    said = lines[-1] if lines[0].endswith("(") else lines[0]
    return f"{type(error).__name__}: {said.removeprefix(') ')}"


def bare_of(target: Target) -> Bare:
    """How the model without an adapter fares; worked out once."""
    bare = _bare.get(target)
    if bare is None:
        bare = _bare[target] = _run_bare(target)
    return bare


def _run_bare(target: Target) -> Bare:
    """The first batch that goes through the model, cut where that is enough."""
    first: Exception | None = None
    for whole in (False, True):
        model = target.skeleton()
        if not (whole or cut(model)):
            continue
        try:
            batches = _batches(target, model)
        except ForecastError as error:
            return Bare(because=str(error))
        except REFUSALS as error:
            name = target.structure.architecture
            return Bare(because=f"no batch can be made for {name}: {_words(error)}")
        tried: set[object] = set()
        for choice, batch in enumerate(batches):
            shapes = shapes_of(batch)
            if shapes in tried:
                continue
            tried.add(shapes)
            shown = forward_pass(model, batch)
            if shown.error is None:
                return Bare(shown.reads, whole, choice)
            first = first or shown.error
    assert first is not None  # noqa: S101 - tells mypy that the last round always runs
    return Bare(
        because=f"the bare {target.structure.architecture} takes no forward pass without weights: "
        f"{_words(first)}"
    )


def choice_of(target: Target) -> int:
    """Place, among the batches that can be made for a model, of the one that it takes.

    The usual one where it is of text and nothing was tried, or where none goes through.
    """
    if target not in _bare:
        try:
            usual = _batches(target, target.skeleton())[0]
        except ForecastError:
            return 0
        if "input_ids" in usual:
            return 0
    return bare_of(target).choice


def small_batch(target: Target, model: nn.Module) -> Batch:
    """Two samples, as small as shows shapes.

    Raises:
        ForecastError: no batch is known for such a model.
    """
    return _batches(target, model)[bare_of(target).choice]


def _batches(target: Target, model: nn.Module) -> list[Batch]:
    config = getattr(model, "config", target.config)
    return make_batches(model, config, _SMALL, task_type=target.structure.task_type)


def _run(target: Target, model: Any, *, answer: bool = False) -> Pass:
    """The pass of a wrapped model, with what its method asks for beside the model's inputs.

    Args:
        target: what was wrapped.
        model: the wrapped model.
        answer: what code is told that asks whether something about numbers is so.
    """
    give_values(model)
    batch = small_batch(target, model.get_base_model())
    method = str(next(iter(model.peft_config.values())).peft_type.value)
    place = TASKS.get(method)
    if place is not None:
        batch["task_ids"] = torch.zeros(_SMALL.batch_size, dtype=torch.long, device=place)
        if type(model) is PeftModel:
            # peft hands task identifiers on in its classes for task types only
            model = model.base_model
    if method in _SHIFTS:
        batch.pop("decoder_input_ids", None)
    return forward_pass(model, batch, answer=answer)


def _heard(model: Any, shown: Pass, kinds: Mapping[str, tuple[str, ...]]) -> Tried:
    """Which adapters have no part in what the outputs are made of."""
    root = model.get_base_model()
    prefix = next(name for name, one in model.named_modules() if one is root)
    adapters = {
        name: module for name, module in root.named_modules() if isinstance(module, BaseTunerLayer)
    }
    learning = {
        name: [id(parameter) for parameter in module.parameters() if parameter.requires_grad]
        for name, module in adapters.items()
    }
    owners = Counter(one for several in learning.values() for one in several)
    silent: dict[str, bool] = {}
    speaking: set[str] = set()
    for name, module in adapters.items():
        called = f"{prefix}.{name}" in shown.called
        # what several share gets its gradient from any of them; rows of a tied embedding are
        # trained at one of its names and used at all
        own = [one for one in learning[name] if owners[one] == 1]
        if not learning[name] or (not own and isinstance(module, TrainableTokensLayer)):
            continue
        if (not shown.reached.isdisjoint(own)) if own else called:
            speaking.add(target_of(name, module))
        else:
            silent[target_of(name, module)] = called
    found: dict[str, bool] = {}
    for name, called in silent.items():
        alike = everywhere(name, kinds)
        # where the kept blocks differ, nothing follows for the others
        names = alike if speaking.isdisjoint(alike) else (name,)
        found |= dict.fromkeys(names, called)
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    reached = not trainable or any(id(one) in shown.reached for one in trainable)
    return Tried(passed=True, silent=found, reached=reached)

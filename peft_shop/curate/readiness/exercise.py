"""Trains, saves and reloads one configuration on one architecture, stage by stage."""

from __future__ import annotations

import copy
import dataclasses
import re
import tempfile
import warnings
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, get_args

import torch
from peft import PeftModel, get_peft_model
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from torch import nn

from peft_shop.curate.probe.bench import deviation, trainable
from peft_shop.curate.probe.hosts import Host
from peft_shop.curate.probe.judgement import attempt
from peft_shop.curate.probe.starting import started
from peft_shop.curate.readiness.needs import NEEDS, Need
from peft_shop.curate.readiness.zoo import BATCH, seeded
from peft_shop.errors import UnknownNameError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from peft_shop.curate.readiness.zoo import Entry
    from peft_shop.records import Json

__all__ = ["STAGES", "Outcome", "Stage", "exercise"]

Stage: TypeAlias = Literal[
    "config", "wrap", "forward", "backward", "gradient", "step", "save", "reload", "compare"
]
STAGES: Final[tuple[Stage, ...]] = get_args(Stage)
"""In this order; what works gets through the last one."""

SAME: Final = 1e-5
"""Largest deviation [1] of outputs that are the same numbers computed the same way."""
CHANGED: Final = 1e-6
"""Least relative change of the outputs that training must make."""
LEARNING_RATE: Final = 1e-2
NOISE: Final = 0.05
"""Spread of what moves every weight after the step. A step alone leaves a factor behind a zero
as it was, and a saved file without that factor would go unnoticed."""
LOST: Final = "missing adapter keys"
"""Words of peft's warning about weights that a saved adapter should have."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How far a configuration came.

    Attributes:
        stage: the stage that failed, or the last one.
        ok: whether all stages passed.
        detail: what was raised or found; empty when all is well.
    """

    stage: Stage
    ok: bool
    detail: str = ""


class _FoundError(Exception):
    """Something that a stage checks is not as it should be."""


def _save(model: Any, folder: str) -> None:
    # a card for people, a fifth of the time: what is loaded again is what counts
    model.create_or_update_model_card = lambda *_: None
    model.save_pretrained(folder)


def exercise(
    entry: Entry,
    config: Mapping[str, Json],
    *,
    experts: Mapping[str, Json] | None = None,
    wrap: Callable[[Any, Any], Any] = get_peft_model,
    save: Callable[[Any, str], Any] = _save,
    load: Callable[[Any, str], Any] = PeftModel.from_pretrained,
) -> Outcome:
    """Use `config` on the entry as a user would, until something fails or the end is reached.

    Every trainable weight must get a finite gradient, a step must move weights and outputs, and
    the adapter, saved and loaded on a fresh base, must give the outputs of the trained one.
    Statistics of batch norms are kept still, because no adapter holds them.

    Args:
        entry: the architecture.
        config: `peft_type` and fields of the configuration.
        experts: the same of the LoRA adapters that X-LoRA mixes: they are made first, and their
            folders replace the ones that `config` names.
        wrap: (base, configuration) -> wrapped model.
        save: (wrapped model, folder) -> anything; writes the adapter.
        load: (fresh base, folder) -> wrapped model.

    Returns:
        The stage reached. What peft or the model raises is recorded, not passed on.

    Raises:
        UnknownNameError: peft has no such `peft_type`.
    """
    kind = str(config.get("peft_type"))
    if kind not in PEFT_TYPE_TO_CONFIG_MAPPING:
        raise UnknownNameError("peft_type", kind, map(str, PEFT_TYPE_TO_CONFIG_MAPPING))
    with (
        seeded(2),
        warnings.catch_warnings(record=True) as heard,
        tempfile.TemporaryDirectory(prefix="readiness-") as folder,
    ):
        warnings.simplefilter("always")
        course = _Course(entry, config, Path(folder), experts, NEEDS.get(kind, Need()), heard)
        return course.run(wrap, save, load)


@dataclass
class _Course:
    """One configuration's way through the stages."""

    entry: Entry
    fields: Mapping[str, Json]
    folder: Path
    experts: Mapping[str, Json] | None
    need: Need
    heard: list[warnings.WarningMessage]
    config: Any = None
    model: Any = None
    loss: Any = None
    trained: Any = None
    learning: dict[str, Any] = dataclasses.field(default_factory=dict)

    def run(
        self,
        wrap: Callable[[Any, Any], Any],
        save: Callable[[Any, str], Any],
        load: Callable[[Any, str], Any],
    ) -> Outcome:
        target = str(self.folder / "adapter")
        stages: dict[Stage, Callable[[], object]] = {
            "config": self._configure,
            "wrap": lambda: self._wrap(wrap),
            "forward": self._forward,
            "backward": self._backward,
            "gradient": self._gradient,
            "step": self._step,
            "save": lambda: save(self.model, target),
            "reload": lambda: self._reload(load, target),
            "compare": self._compare,
        }
        for stage, call in stages.items():
            problem = _problem(call)
            if problem:
                return Outcome(stage, ok=False, detail=problem)
        return Outcome(STAGES[-1], ok=True)

    def _configure(self) -> None:
        fields = dict(self.fields)
        if self.need.experts and self.experts is not None:
            fields["adapters"] = self._make_experts(self.experts)
        self.config = _config(fields)

    def _make_experts(self, fields: Mapping[str, Json]) -> dict[str, str]:
        """Folders of two LoRA adapters that differ."""
        folders = {}
        for number in range(2):
            folder = str(self.folder / f"expert{number}")
            expert = get_peft_model(_fresh(self.entry), _config(fields))
            _shake(trainable(expert), seed=10 + number)
            expert.save_pretrained(folder)
            folders[str(number)] = folder
        return folders

    def _base(self) -> Any:
        model = _fresh(self.entry)
        for name, value in self.need.model_config.items():
            setattr(model.config, name, value)
        return model

    def _wrap(self, wrap: Callable[[Any, Any], Any]) -> None:
        host = Host(self._base(), self.entry.batch(), ())
        self.model = started(host, self.config, wrap).train()
        for module in self.model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):  # noqa: SLF001 - of all widths
                module.eval()
        self.learning = trainable(self.model)
        if not self.learning:
            raise _FoundError("adapts nothing: no trainable weight")

    def _run(self, model: Any, *, training: bool = False) -> Any:
        """What the wrapped model returns for the entry's batch."""
        inputs = self.entry.batch()
        if self.need.shifts and "decoder_input_ids" in inputs:
            del inputs["decoder_input_ids"]
        elif not training:
            inputs = {k: v for k, v in inputs.items() if k not in self.entry.training_only}
        if self.need.tasks:
            inputs["task_ids"] = torch.arange(BATCH) % getattr(self.config, self.need.tasks)
            if type(model) is PeftModel:
                # it passes task identifiers on in its classes for task types only
                model = model.base_model
        return model(**inputs)

    def _outputs(self, model: Any) -> Any:
        model.eval()
        with torch.no_grad():
            return self.entry.outputs(self._run(model)).float()

    def _forward(self) -> None:
        output = self._run(self.model, training=True)
        loss = self.entry.loss(output)
        if not isinstance(loss, torch.Tensor):
            raise _FoundError("forward returns no loss")
        if not bool(torch.isfinite(loss)):
            raise _FoundError("the loss is not finite")
        self.loss = loss

    def _backward(self) -> None:
        self.loss.backward()

    def _gradient(self) -> None:
        given = {name: w.grad for name, w in self.learning.items() if w.grad is not None}
        # where silence is by design, it must not be all of the weights of that name
        excused = [part for part in self.need.silent if any(part in name for name in given)]
        missing = [
            name
            for name in self.learning
            if name not in given and not any(part in name for part in excused)
        ]
        if missing:
            raise _FoundError(f"no gradient for {_some(missing)}")
        wild = [name for name, grad in given.items() if not bool(torch.isfinite(grad).all())]
        if wild:
            raise _FoundError(f"the gradient is not finite for {_some(wild)}")
        if not any(bool(grad.any()) for grad in given.values()):
            raise _FoundError("every gradient is zero")

    def _step(self) -> None:
        before = {name: weight.detach().clone() for name, weight in self.learning.items()}
        torch.optim.AdamW(self.learning.values(), lr=LEARNING_RATE).step()
        if all(torch.equal(before[name], weight) for name, weight in self.learning.items()):
            raise _FoundError("a step changes no weight")
        _shake(self.learning, seed=1)
        if self.need.after_step is not None:
            self.need.after_step(self.model)
        self.trained = self._outputs(self.model)
        if not bool(torch.isfinite(self.trained).all()):
            raise _FoundError("the trained outputs are not finite")
        untouched = _pristine(self.entry)[1]
        same_shape = untouched.shape == self.trained.shape  # virtual tokens lengthen it
        if same_shape and not deviation(self.trained, untouched) > CHANGED:
            raise _FoundError("the adapter does not change the outputs")

    def _reload(self, load: Callable[[Any, str], Any], folder: str) -> None:
        count = len(self.heard)
        self.model = load(self._base(), folder)
        if any(LOST in str(one.message) for one in self.heard[count:]):
            raise _FoundError("weights are missing from the saved adapter")

    def _compare(self) -> None:
        found = self._outputs(self.model)
        if found.shape != self.trained.shape:
            shapes = f"{tuple(found.shape)} instead of {tuple(self.trained.shape)}"
            raise _FoundError(f"the reloaded outputs have the shape {shapes}")
        if not deviation(found, self.trained) <= SAME:
            raise _FoundError("the reloaded adapter gives other outputs")


def _problem(call: Callable[[], object]) -> str:
    """What went wrong in a stage; empty when nothing did."""
    try:
        outcome = attempt(call, proven=True)
    except _FoundError as found:
        return str(found)
    # sets are printed in any order
    return "" if outcome.done else re.sub(r"\{'.*", "{...}", outcome.message)


def _config(fields: Mapping[str, Json]) -> Any:
    arguments = copy.deepcopy(dict(fields))
    cls = PEFT_TYPE_TO_CONFIG_MAPPING[arguments.pop("peft_type")]
    unknown = sorted(set(arguments) - {field.name for field in dataclasses.fields(cls)})
    if unknown:
        raise _FoundError(f"{cls.__name__} has no {', '.join(unknown)}")
    return cls(**arguments)


@lru_cache(maxsize=1)
def _pristine(entry: Entry) -> tuple[Any, Any]:
    """The entry's model, to be copied, and its outputs for the entry's batch."""
    model = entry.build().eval()
    inputs = {k: v for k, v in entry.batch().items() if k not in entry.training_only}
    with torch.no_grad():
        return model, entry.outputs(model(**inputs)).float()


def _fresh(entry: Entry) -> Any:
    """A base that shares nothing with others."""
    return copy.deepcopy(_pristine(entry)[0])


def _shake(weights: Mapping[str, Any], *, seed: int) -> None:
    """Add noise to every weight, in proportion to its spread where it has any."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in weights.values():
            noise = torch.randn(weight.shape, generator=generator)
            weight.add_((NOISE * noise).to(weight))


def _some(names: list[str]) -> str:
    """The first names, without their indices' repetition, and how many there are."""
    short = [name.removeprefix("base_model.").removeprefix("model.") for name in names]
    return ", ".join(short[:2]) + (f" and {len(short) - 2} more" if len(short) > 2 else "")

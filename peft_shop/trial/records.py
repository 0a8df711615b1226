"""What a trial is, as frozen records: what was asked, its protocol, its runs."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping  # noqa: TC003 - pydantic reads it
from functools import cached_property
from typing import Annotated, Any, Final, Literal, Self, TypeAlias

from pydantic import Field, model_validator

from peft_shop.catalog.features import ExperimentName, Timestamp
from peft_shop.catalog.runs import Recipe
from peft_shop.records import Finite, Frozen, Name, Record, Text, compact_json

__all__ = [
    "BASE",
    "Asked",
    "Code",
    "Contestant",
    "Job",
    "Protocol",
    "Split",
    "Stage",
    "Task",
]

Stage: TypeAlias = Literal["base", "rates", "seeds"]
Task: TypeAlias = Literal["causal_lm", "seq_cls"]
BASE: Final = "base"
"""Name of the run of the model as it is."""
_SCORES: Final = {
    "causal_lm": ("loss", "exact_match", "choice"),
    "seq_cls": ("loss", "accuracy"),
}
_SCORE_METRICS: Final = {
    "exact_match": "exact_match",
    "choice": "choice_accuracy",
    "accuracy": "test_accuracy",
}
_POSITIVE: Final = Field(ge=1, le=10**9)
Count: TypeAlias = Annotated[int, _POSITIVE]


class Asked(Record):
    """What a user asks of a trial: the fields of `trial.toml`, which people may edit.

    Attributes:
        model: folder of the base model.
        train: file of examples.
        valid: file that chooses the rate; else a tenth of `train`.
        test: file that is scored once a run, at its end; else a tenth of `train`.
        general: text on which forgetting is measured; `None` measures none.
        candidates: how many, or names of runs and methods.
        steps: optimizer steps of every run.
        batch_size: examples of one step.
        accumulation: forward passes that a step is divided into; `None` for one, or for what the
            candidates need to fit `device`.
        max_length: of an example [tokens]; longer ones are cut.
        rates: learning rates that every candidate is tried at.
        seeds: seeds at the chosen rate; `auto` is three, and more for those that stay tied.
        halving: whether runs of the sweep that are significantly worse than plain LoRA after half
            the steps stop there.
        dtype: of the base; `auto` is bfloat16 on an accelerator and float32 without.
        gradient_checkpointing: whether blocks are run again in the backward pass; `None` for no,
            or where a candidate needs it to fit `device`.
        full_finetuning: whether training all weights is measured too.
        device: accelerator that candidates must fit on.
        test_examples: of the test set, at most [count].
        valid_examples: of the validation set, at most [count].
        task: `causal_lm` predicts text, `seq_cls` the class of a text.
        score: what test examples are scored by besides the loss: `loss` for nothing more,
            `exact_match`, `choice`, `accuracy`, or a function of one's own as `FILE.py:FUNCTION`;
            `None` is `accuracy` for classes and else `loss`.
        max_new_tokens: of a generated answer, at most [count].
        stop: strings that a generated answer ends before.
    """

    model: Text
    train: Text
    valid: Text | None = None
    test: Text | None = None
    general: Text | None = None
    candidates: Annotated[int, Field(ge=1, le=45)] | tuple[Text, ...] = 6
    steps: Count = 500
    batch_size: Count = 8
    accumulation: Count | None = None
    max_length: Count = 512
    rates: Annotated[int, Field(ge=1, le=9)] = 3
    seeds: Annotated[int, Field(ge=1, le=50)] | Literal["auto"] = 3
    halving: bool = False
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    gradient_checkpointing: bool | None = None
    full_finetuning: bool = False
    device: Text | None = None
    test_examples: Count = 1000
    valid_examples: Count = 300
    task: Task = "causal_lm"
    score: Text | None = None
    max_new_tokens: Count = 64
    stop: tuple[Annotated[str, Field(min_length=1)], ...] = ()

    @model_validator(mode="after")
    def _accumulation_divides(self) -> Self:
        if self.batch_size % (self.accumulation or 1):
            msg = f"batch_size {self.batch_size} is no multiple of accumulation {self.accumulation}"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _score_fits_the_task(self) -> Self:
        known = _SCORES[self.task]
        file, _, function = self.scored_by.rpartition(":")
        if self.scored_by not in known and not (file.endswith(".py") and function.isidentifier()):
            listed = ", ".join((*known, "FILE.py:FUNCTION"))
            msg = f"score {self.scored_by!r} of {self.task}: known are {listed}"
            raise ValueError(msg)
        if self.task == "seq_cls" and self.general is not None:
            raise ValueError("general: a model that names classes has no loss on general text")
        return self

    @property
    def scored_by(self) -> str:
        """What test examples are scored by."""
        return self.score or ("accuracy" if self.task == "seq_cls" else "loss")


class Split(Record):
    """One part of the data, as it is used.

    Attributes:
        file: name inside the trial's folder.
        sha256: of its bytes.
        examples: rows [count].
    """

    file: Text
    sha256: Text
    examples: int


class Code(Record):
    """A score function of the user's own.

    Attributes:
        file: name of its copy inside the trial's folder.
        sha256: of its bytes.
        function: name in it.
    """

    file: Text
    sha256: Text
    function: Text


class Contestant(Record):
    """One candidate of a trial.

    Attributes:
        name: what it is called in answers, such as `lora/rank32`.
        published: the published run that its configuration comes from; `None` for the base and for
            full fine-tuning.
        recipe: the configuration for the user's model; the rate in it is the published one.
        rates: learning rates of the sweep, ascending.
        trainable_parameters: forecast; `None` where it cannot be told.
        peak: forecast of the peak memory, low, estimate and high [B]; likewise.
        pace: published time of a step over that of plain LoRA; `None` where it was not measured.
        notes: what was changed for this model.
    """

    name: ExperimentName
    title: Text
    method: Name
    variants: tuple[Name, ...] = ()
    published: str | None = None
    recipe: Recipe
    rates: tuple[Finite, ...]
    trainable_parameters: int | None = None
    peak: tuple[Finite, Finite, Finite] | None = None
    pace: Finite | None = None
    notes: tuple[Text, ...] = ()

    @property
    def slug(self) -> str:
        """Its name as part of a file's name."""
        return re.sub(r"[^A-Za-z0-9_.+=-]+", "-", self.name)


class Protocol(Record):
    """Everything that is equal for all runs of a trial; frozen at its first start.

    Attributes:
        benchmark: identifier of the trial's own benchmark.
        asked: what the user asked for.
        frozen_at: when.
        model_files: sha256 by name of every file of the model's folder.
        chat: whether the texts bring the special tokens of a chat template.
        train, valid, test, general: the data.
        device: what trains: `cpu`, or the accelerator's name.
        dtype: of the base.
        accumulation: forward passes of every step.
        gradient_checkpointing: whether blocks are run again in the backward pass.
        threads: of the processor, for each run.
        versions: of the packages that decide results.
        contestants: candidates, the base first.
        left_out: candidates that cannot take part, with the reason.
        notes: what to know of the data.
        labels: classes of a classification, in order.
        majority: share of the test examples that have the most frequent class of the training
            examples; `None` without classes.
        choices: completions that rows without choices of their own choose from.
        code: the score function of the user's own; `None` without one.
    """

    benchmark: Name
    asked: Asked
    frozen_at: Timestamp
    model_files: Frozen[dict[str, str]]
    chat: bool = False
    train: Split
    valid: Split
    test: Split
    general: Split | None = None
    device: Text
    dtype: Text
    accumulation: Count = 1
    gradient_checkpointing: bool = False
    threads: Count = 1
    versions: Frozen[dict[str, str]]
    contestants: tuple[Contestant, ...]
    left_out: Frozen[dict[str, str]] = Field(default_factory=dict)
    notes: tuple[Text, ...] = ()
    labels: tuple[Text, ...] = ()
    majority: Finite | None = None
    choices: tuple[str, ...] = ()
    code: Code | None = None

    @property
    def score_metric(self) -> str | None:
        """Metric that the score of test examples becomes; `None` where only their loss counts."""
        if self.code is not None:
            return f"score_{re.sub('[^a-z0-9_]', '_', self.code.function.lower())}"
        return _SCORE_METRICS.get(self.asked.scored_by)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Copy with `update`; what was worked out from this protocol is worked out anew."""
        copied = super().model_copy(update=update, deep=deep)
        for name in set(vars(copied)) - set(type(self).model_fields):
            del vars(copied)[name]
        return copied

    @cached_property
    def ids(self) -> dict[tuple[str, str, float, int], str]:
        """Identifiers of runs that were worked out already, by stage, candidate, rate and seed."""
        return {}

    @cached_property
    def digest(self) -> str:
        """What tells one protocol from another; when it was frozen does not count."""
        # without defaults: a field that a later version adds changes no digest
        whole = self.model_dump(mode="json", exclude={"frozen_at"}, exclude_defaults=True)
        # nor does the order of candidates
        whole["contestants"] = sorted(whole["contestants"], key=lambda each: str(each["name"]))
        if isinstance(self.asked.candidates, tuple):
            whole["asked"]["candidates"] = sorted(self.asked.candidates)
        return hashlib.sha256(compact_json(whole).encode()).hexdigest()

    @property
    def base(self) -> Contestant:
        """The model as it is."""
        return self.contestants[0]

    def contestant(self, name: str) -> Contestant:
        """The candidate called `name`."""
        return next(each for each in self.contestants if each.name == name)


class Job(Record):
    """One training that a trial has to do.

    Attributes:
        stage: what it is for.
        contestant: name of the candidate.
        learning_rate: its rate; 0 for the base.
        seed: 0 in the sweep; 1 and more afterwards.
    """

    stage: Stage
    contestant: ExperimentName
    learning_rate: Finite
    seed: int

    def recipe(self, protocol: Protocol) -> Recipe:
        """What is trained, whole."""
        recipe = protocol.contestant(self.contestant).recipe
        update = {"learning_rate": self.learning_rate, "seed": self.seed}
        return recipe.model_copy(update={"training": recipe.training.model_copy(update=update)})

    def id(self, protocol: Protocol) -> str:
        """Name of its folder: the same recipe under the same protocol has the same one."""
        key = (self.stage, self.contestant, self.learning_rate, self.seed)
        if key not in protocol.ids:
            recipe = self.recipe(protocol).model_dump(mode="json")
            text = compact_json([protocol.digest, self.stage, recipe])
            mark = hashlib.sha256(text.encode()).hexdigest()[:8]
            slug = protocol.contestant(self.contestant).slug
            protocol.ids[key] = f"{slug}--r{self.learning_rate:.3g}--s{self.seed}--{mark}"
        return protocol.ids[key]

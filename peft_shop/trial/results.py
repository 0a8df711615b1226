"""How a run of a trial ended, as frozen records: the outcome and the figures."""

from __future__ import annotations

from typing import Literal, Self, TypeAlias

from pydantic import model_validator

from peft_shop.catalog.features import FULL_FINETUNING, Timestamp
from peft_shop.records import Finite, Record, Text
from peft_shop.trial.records import Job

__all__ = ["Measured", "Outcome", "Result"]

Outcome: TypeAlias = Literal["finished", "halved", "diverged", "out_of_memory", "timeout", "failed"]


class Measured(Record):
    """What the meter of one training found.

    Attributes:
        test_loss: mean negative log-likelihood of the predicted tokens of the test set [nats].
        valid_loss: likewise, of the validation set, at the end.
        general_loss: likewise, of the general text; `None` without one.
        curve: validation loss after so many steps.
        train_loss: mean over the last tenth of the steps, by tokens.
        tokens: predicted tokens that were trained on [count].
        trainable_parameters, total_parameters: [count].
        step_seconds: sum of all steps, by the clock after the device came to rest.
        step_median_seconds: median of one step, the first three left out.
        cpu_seconds: of the process, in all steps.
        peak_memory_bytes: reserved while training; `None` without an accelerator.
        eval_peak_memory_bytes: reserved while scoring; likewise.
        checkpoint_bytes: of the saved weights; `None` where nothing is saved.
        device: what trained.
        test_items, valid_items: loss and predicted tokens of every example.
        half_items: likewise of the validation set after half the steps; empty without halving.
        score: mean over the test examples of what they are scored by; `None` for the loss alone.
        score_items: of every test example.
    """

    test_loss: Finite
    valid_loss: Finite
    general_loss: Finite | None = None
    curve: tuple[tuple[int, Finite], ...] = ()
    train_loss: Finite | None = None
    tokens: int = 0
    trainable_parameters: int
    total_parameters: int
    step_seconds: Finite
    step_median_seconds: Finite | None = None
    cpu_seconds: Finite
    peak_memory_bytes: int | None = None
    eval_peak_memory_bytes: int | None = None
    checkpoint_bytes: int | None = None
    device: Text
    test_items: tuple[tuple[Finite, int], ...]
    valid_items: tuple[tuple[Finite, int], ...]
    half_items: tuple[tuple[Finite, int], ...] = ()
    score: Finite | None = None
    score_items: tuple[Finite, ...] = ()


class Result(Record):
    """The one file that says how a run ended.

    Attributes:
        id: of the run; the name of its folder.
        protocol: digest of the protocol.
        job: what was done.
        outcome: how it ended.
        detail: why, where it did not finish.
        measured: `None` where it did not finish.
        half_valid_loss: validation loss where a run was halved; else `None`.
        shared: whether others ran on its accelerator: its memory and time are no evidence.
        created_at: when it ended.
    """

    id: Text
    protocol: Text
    job: Job
    outcome: Outcome
    detail: str = ""
    measured: Measured | None = None
    half_valid_loss: Finite | None = None
    shared: bool = False
    created_at: Timestamp

    @model_validator(mode="after")
    def _finished_means_measured(self) -> Self:
        if (self.outcome == "finished") != (self.measured is not None):
            raise ValueError("a run that finished was measured, and no other one was")
        if (self.outcome == "halved") != (self.half_valid_loss is not None):
            raise ValueError("a run that was halved has its validation loss there, no other one")
        return self

    @property
    def method_is_full(self) -> bool:
        """Whether all weights were trained."""
        return self.job.contestant == FULL_FINETUNING

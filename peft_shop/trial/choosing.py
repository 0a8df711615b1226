"""Who takes part in a trial: candidates of an answer, with their configuration for the model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from peft_shop.ask.meanings import Meaning, meaning_of
from peft_shop.catalog.features import FULL_FINETUNING
from peft_shop.catalog.methods import PLAIN
from peft_shop.catalog.runs import Recipe, Training
from peft_shop.catalog.short_names import shortened
from peft_shop.records import Record
from peft_shop.scripts.data import CHAT, LABELS, TRAIN_FILE
from peft_shop.scripts.step import ACCUMULATION
from peft_shop.trial.records import BASE, Asked, Contestant
from peft_shop.trial.stages import SPACING, at_two_digits

if TYPE_CHECKING:
    from collections.abc import Mapping

    from peft_shop.ask.candidates import Candidate
    from peft_shop.ask.places import Dropped
    from peft_shop.ask.query import Failure
    from peft_shop.ask.recommendation import Recommendation
    from peft_shop.catalog.catalog import Catalog

__all__ = ["Conditions", "base_contestant", "contestants", "full_contestant"]

_KEPT_OPTIONS: Final = ("init_kv_cache_prefix",)
"""Options of a published run that belong to its recipe and not to its benchmark."""
_FULL_RATE: Final = 1e-5
"""Rate around which full fine-tuning is tried, where no published run of it is known."""


class Conditions(Record):
    """What is equal for all candidates of one trial.

    Attributes:
        asked: what the user asked for.
        train_file: the examples that are trained on.
        chat: whether the texts bring the special tokens of a chat template.
        dtype: of the base.
        accumulation: forward passes of every step.
        gradient_checkpointing: whether blocks are run again in the backward pass.
        labels: classes of a classification, in order.
    """

    asked: Asked
    train_file: str
    chat: bool
    dtype: str
    accumulation: int = 1
    gradient_checkpointing: bool = False
    labels: tuple[str, ...] = ()

    def training(self, published: Training) -> Training:
        """The settings of a published run under these conditions."""
        kept = (name for name in _KEPT_OPTIONS if name in published.options)
        options = {name: published.options[name] for name in kept}
        options[TRAIN_FILE] = self.train_file
        if self.chat:
            options[CHAT] = True
        if self.accumulation > 1:
            options[ACCUMULATION] = self.accumulation
        if self.labels:
            options[LABELS] = list(self.labels)
        return published.model_copy(
            update={
                "model_id": self.asked.model,
                "max_steps": self.asked.steps,
                "batch_size": self.asked.batch_size,
                "max_length": self.asked.max_length,
                "dtype": self.dtype,
                "gradient_checkpointing": self.gradient_checkpointing,
                "mixed_precision": False,
                "compile": False,
                "seed": 0,
                "options": options,
            }
        )

    def rates(self, centre: float) -> tuple[float, ...]:
        """Rates of the sweep around a published one, ascending."""
        number = self.asked.rates
        return tuple(
            at_two_digits(centre * SPACING ** (place - (number - 1) // 2))
            for place in range(number)
        )


def contestants(
    answer: Recommendation, conditions: Conditions, catalog: Catalog
) -> tuple[list[Contestant], dict[str, str]]:
    """Candidates of a trial, and what was left out with the reason.

    By number: the front, then the ties, then the rest by rank, one a method, plain LoRA always.

    Args:
        answer: whose candidates stand for selection.
        conditions: equal for all.
        catalog: that the answer is from, for names.

    Raises:
        UnknownNameError: a name that stands for nothing.
    """
    asked = conditions.asked.candidates
    # the yardstick first, so that `lora` means it
    too_large = {each.run.id for each in answer.dropped if each.run and _memory_failures(each)}
    yardstick = [
        each for each in answer.baselines if each.is_yardstick and each.run.id not in too_large
    ]
    everyone: dict[str, Candidate] = {
        shortened(catalog, candidate.run, candidate.name): candidate
        for candidate in (
            *yardstick,
            *answer.front,
            *answer.ties,
            *answer.dominated,
            *answer.too_close,
        )
    }
    plain = next(iter(yardstick), None)
    if isinstance(asked, int):
        chosen = _by_number(everyone, asked)
        made = [_contestant(name, everyone[name], conditions, plain) for name in chosen]
        return made, _too_large(answer)
    made = []
    left_out: dict[str, str] = {}
    for wanted in dict.fromkeys(asked):
        meaning = meaning_of(catalog, wanted, benchmarks=[answer.benchmark.id], kind="candidate")
        name = _named(everyone, meaning)
        if name is not None:
            made.append(_contestant(name, everyone[name], conditions, plain))
        else:
            left_out[wanted] = _why_not(catalog, answer, meaning)
    return list({contestant.name: contestant for contestant in made}.values()), left_out


def base_contestant(conditions: Conditions) -> Contestant:
    """The model as it is: no step is trained."""
    training = conditions.training(_plain_training())
    return Contestant(
        name=BASE,
        title="The model as it is",
        method=FULL_FINETUNING,
        recipe=Recipe(
            peft_type=None,
            config_source="experiment",
            training=training.model_copy(update={"max_steps": 0, "lr_scheduler": None}),
        ),
        rates=(0.0,),
    )


def full_contestant(answer: Recommendation, conditions: Conditions) -> Contestant:
    """Training of all weights, around the rate of the published baseline."""
    published = next(
        (each.run for each in answer.baselines if each.run.method == FULL_FINETUNING), None
    )
    training = _plain_training() if published is None else published.recipe.training
    return Contestant(
        name=FULL_FINETUNING,
        title="Full fine-tuning",
        method=FULL_FINETUNING,
        published=None if published is None else published.id,
        recipe=Recipe(
            peft_type=None, config_source="experiment", training=conditions.training(training)
        ),
        rates=conditions.rates(training.learning_rate),
    )


def _plain_training() -> Training:
    """Settings where no published run gives them."""
    return Training(
        model_id="",
        optimizer="AdamW",
        learning_rate=_FULL_RATE,
        lr_scheduler="cosine",
        max_steps=1,
        batch_size=1,
        max_length=1,
        grad_norm_clip=1.0,
        dtype="float32",
    )


def _why_not(catalog: Catalog, answer: Recommendation, meaning: Meaning) -> str:
    """Why no candidate of the answer is what is meant."""
    method = next((each for each in catalog.methods if each.id == meaning.method), None)
    needs = None if method is None else method.loop_needs
    reasons = [] if needs is None else [f"this loop does not train it: it needs {needs}"]
    covered = [each for each in answer.dropped if each.run is not None and meaning.covers(each.run)]
    for dropped in covered or [each for each in answer.dropped if each.method == meaning.method]:
        reasons += [failure.reason for failure in dropped.failures]
        break
    if not reasons:
        what = "no published run of it"
        reasons = [f"{what} on {answer.benchmark.title} gives a configuration and a rate"]
    return "; ".join(reasons)


def _too_large(answer: Recommendation) -> dict[str, str]:
    """Candidates that do not fit the device, with the reason."""
    return {
        dropped.name: failure.reason
        for dropped in answer.dropped
        for failure in _memory_failures(dropped)
    }


def _memory_failures(dropped: Dropped) -> list[Failure]:
    return [failure for failure in dropped.failures if "memory" in failure.constraint]


def _pace(candidate: Candidate, yardstick: Candidate | None) -> float | None:
    """Published time of a step over that of plain LoRA."""
    key = "step_seconds"
    theirs = None if yardstick is None else yardstick.run.metrics.get(key)
    own = candidate.run.metrics.get(key)
    return None if own is None or not theirs else own / theirs


def _by_number(everyone: Mapping[str, Candidate], number: int) -> list[str]:
    """The best candidate of each method, plain LoRA always among them."""
    best: dict[str, str] = {}
    for name, candidate in everyone.items():
        if candidate.method != PLAIN:
            best.setdefault(candidate.method, name)
    plain = _named(everyone, Meaning(PLAIN, PLAIN))
    if plain is None:
        return list(best.values())[:number]
    return [*list(best.values())[: number - 1], plain]


def _named(everyone: Mapping[str, Candidate], meaning: Meaning) -> str | None:
    """The best candidate that is meant; a method's own run without variants goes first."""
    covered = [name for name, each in everyone.items() if meaning.covers(each.run)]
    plain = [name for name in covered if not everyone[name].variants]
    return next(iter(covered if meaning.variant else plain + covered), None)


def _contestant(
    name: str, candidate: Candidate, conditions: Conditions, yardstick: Candidate | None
) -> Contestant:
    pace = _pace(candidate, yardstick)
    recipe = candidate.recipe
    forecast = candidate.forecasted
    peak = None if forecast is None else forecast.peak_memory
    changes = () if candidate.retargeted is None else candidate.retargeted.changes
    return Contestant(
        name=name,
        title=candidate.title,
        method=candidate.method,
        variants=candidate.variants,
        published=candidate.run.id,
        recipe=recipe.model_copy(update={"training": conditions.training(recipe.training)}),
        rates=conditions.rates(recipe.training.learning_rate),
        trainable_parameters=None if forecast is None else forecast.trainable_parameters,
        peak=None if peak is None else (peak.low, peak.value, peak.high),
        pace=pace,
        notes=tuple(f"{change.field}: {change.because}" for change in changes),
    )

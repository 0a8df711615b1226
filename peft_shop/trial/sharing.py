"""The setup that all candidates of a trial share: as stated, or as the neediest of them has it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from peft_shop.ask.recommend import recommend
from peft_shop.catalog.store import load
from peft_shop.model.inspection import inspect_model
from peft_shop.trial.choosing import contestants

if TYPE_CHECKING:
    from collections.abc import Mapping

    from peft_shop.ask.recommendation import Recommendation
    from peft_shop.catalog.features import TaskType
    from peft_shop.forecast.records import Settings
    from peft_shop.trial.choosing import Conditions
    from peft_shop.trial.records import Asked, Task

__all__ = ["PEFT_TASKS", "answer_for", "shared_setup"]

PEFT_TASKS: Final[dict[Task, TaskType | None]] = {"causal_lm": None, "seq_cls": "SEQ_CLS"}
"""What configurations are asked to be for, where the model's own head does not tell it."""


def shared_setup(
    conditions: Conditions, answer: Recommendation | None = None
) -> tuple[Conditions, tuple[str, ...]]:
    """Conditions with a setup under which the candidates fit the device, and what to say of it.

    Another setup is another condition for memory and time, so all have the same one: as many
    forward passes a step, and blocks run again, as any of the candidates needs. What was stated
    stays; without a device nothing is looked for.

    Args:
        conditions: equal for all, with the setup as stated.
        answer: whose candidates take part; the published order for the model by default.
    """
    asked = conditions.asked
    stated = (asked.accumulation, asked.gradient_checkpointing)
    if asked.device is None or None not in stated:
        return conditions, ()
    planned = answer or answer_for(conditions, plan=True)
    chosen, _ = contestants(planned, conditions, load())
    setups = {each.run.id: each.setup for each in (*planned.candidates, *planned.baselines)}
    needs: dict[str, Settings] = {
        each.name: setup.settings
        for each in chosen
        if each.published is not None and (setup := setups.get(each.published)) is not None
    }
    accumulation, checkpointing = stated
    if accumulation is None:
        most = max((need.accumulation for need in needs.values()), default=1)
        accumulation = _divisor(asked.batch_size, most)
    if checkpointing is None:
        checkpointing = any(need.gradient_checkpointing for need in needs.values())
    update = {"accumulation": accumulation, "gradient_checkpointing": checkpointing}
    return conditions.model_copy(update=update), _notes(asked, needs, stated, update)


def answer_for(conditions: Conditions, *, plan: bool = False) -> Recommendation:
    """The published order for the model of a trial.

    Args:
        conditions: equal for all.
        plan: whether each candidate may have a setup of its own that fits the device; else the
            conditions' setup is forecast for all.
    """
    asked = conditions.asked
    training: dict[str, object] = {
        "sequence_length": asked.max_length,
        "dtype": conditions.dtype,
        "quantization": None,
        "optimizer": "adamw",
        "fused_loss": False,
    }
    if plan:
        training["effective_batch"] = asked.batch_size
        if asked.accumulation is not None:
            training["accumulation"] = asked.accumulation
        if asked.gradient_checkpointing is not None:
            training["gradient_checkpointing"] = asked.gradient_checkpointing
    else:
        training["batch_size"] = asked.batch_size // conditions.accumulation
        training["accumulation"] = conditions.accumulation
        training["gradient_checkpointing"] = conditions.gradient_checkpointing
    task = PEFT_TASKS[asked.task]
    return recommend(
        # with the head that it is trained with: names of its layers depend on it
        model=inspect_model(asked.model, task_type=task),
        device=asked.device,
        fit=None if asked.device is None else "auto" if plan else "off",
        training=training,
        adapt={"total_steps": asked.steps, **({} if task is None else {"task_type": task})},
        floor=0,
    )


def _divisor(batch_size: int, least: int) -> int:
    """The smallest divisor of a batch that is not below `least`.

    >>> _divisor(8, 3)
    4
    """
    parts = (part for part in range(least, batch_size + 1) if batch_size % part == 0)
    return next(parts, batch_size)


def _notes(
    asked: Asked,
    needs: Mapping[str, Settings],
    stated: tuple[int | None, bool | None],
    shared: Mapping[str, int | bool],
) -> tuple[str, ...]:
    """What was chosen for all because some need it."""
    notes = []
    if stated[0] is None and shared["accumulation"] > 1:
        names = [name for name, need in needs.items() if need.accumulation > 1]
        what = f"every step is divided into {shared['accumulation']} forward passes"
        notes.append(f"{what}, for all alike: {', '.join(names)} would not fit {asked.device} else")
    if stated[1] is None and shared["gradient_checkpointing"]:
        names = [name for name, need in needs.items() if need.gradient_checkpointing]
        what = "blocks are run again in the backward pass"
        notes.append(f"{what}, for all alike: {', '.join(names)} would not fit {asked.device} else")
    return tuple(notes)

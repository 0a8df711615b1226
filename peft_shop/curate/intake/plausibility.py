"""What a result file cannot truly say: figures in another unit, a run of tomorrow, another rank.

A figure of a thousandth or a hundredfold passes every check of form. Here each is held against what
it is a figure of; what cannot be is a mistake of the file, with its place.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from peft_shop.errors import Problem

if TYPE_CHECKING:
    from collections.abc import Iterable

    from peft_shop.catalog.runs import Recipe
    from peft_shop.curate.intake.conventions import Conventions
    from peft_shop.curate.intake.results import Result

__all__ = ["implausible"]

_LEAST_MEMORY: Final = 2**20
"""Least memory of a training run on an accelerator [B]; a figure in MB or GB is below it."""
_CLOCKS: Final = timedelta(hours=1)
"""By how much the clock of another machine may be ahead."""
_DEFAULT_RANK: Final = 8
_PLAIN: Final = frozenset(
    {"r", "lora_alpha", "lora_dropout", "target_modules", "task_type", "use_rslora"}
)
"""Fields with which a LoRA is no more than two matrices beside each layer."""


def implausible(
    result: Result, recipe: Recipe, conventions: Conventions, *, now: datetime | None = None
) -> list[Problem]:
    """Every figure of a result that cannot be what it says.

    Args:
        result: what the file states.
        recipe: what ran.
        conventions: units of the figures, and where they stand.
        now: the time of reading; the clock's by default.
    """
    path = str(result.origin.path)
    return [
        Problem(path, place, message, hint)
        for place, message, hint in (
            *_units(result, conventions),
            *_future(result, now or datetime.now(UTC)),
            *_rank(result, recipe, conventions),
        )
    ]


def _units(result: Result, conventions: Conventions) -> Iterable[tuple[str, str, str]]:
    for field, value in result.metrics.items():
        metric = conventions.metrics[field]
        place = conventions.place_of(field, result.benchmark.id, result.created_at)
        if metric.scope == "memory" and 0 < value < _LEAST_MEMORY:
            message = f"{value} bytes is no memory of a training run"
            yield place, message, "was it meant in MB? write bytes: 1 MB is 1000000"
        elif metric.unit == "fraction" and value > 1:
            message = f"{value} is no share of the questions, which is between 0 and 1"
            hint = f"was it meant in percent? write {value / 100:g}" if value <= 100 else ""
            yield place, message, hint


def _future(result: Result, now: datetime) -> Iterable[tuple[str, str, str]]:
    if result.created_at and datetime.fromisoformat(result.created_at) > now + _CLOCKS:
        message = f"{result.created_at} is in the future"
        yield "run_info.created_at", message, "set the clock of the machine that ran it"


def _rank(
    result: Result, recipe: Recipe, conventions: Conventions
) -> Iterable[tuple[str, str, str]]:
    """A count of plain LoRA's parameters that its rank does not divide, or that another one gives.

    Every layer adds rank x (inputs + outputs), so that the count is a multiple of the rank; on a
    model of known sizes it is one number.
    """
    count = result.metrics.get("trainable_parameters")
    config = {**recipe.resolved, **recipe.config}
    rank = config.get("r", _DEFAULT_RANK)
    if recipe.peft_type != "LORA" or type(count) is not int or type(rank) is not int:
        return
    if rank < 1 or set(config) - _PLAIN or recipe.training.optimizer != "AdamW":
        return
    place = conventions.place_of("trainable_parameters", result.benchmark.id, result.created_at)
    if count % rank:
        message = f"{count} trainable parameters cannot be of rank {rank}, which does not divide it"
        yield place, message, "is it the count of another run?"
        return
    single = _of_rank_one(conventions, result.benchmark.id, config.get("target_modules"))
    if single and count != single * rank:
        other = f"; they are of rank {count // single}" if count % single == 0 else ""
        message = f"{count} trainable parameters contradict rank {rank}, which has {single * rank}"
        yield place, f"{message}{other}", "is it the count of another run?"


def _of_rank_one(conventions: Conventions, benchmark: str, targets: object) -> int:
    """Parameters of a LoRA of rank 1 on the benchmark's model; 0 where they are not known."""
    if not isinstance(targets, list):
        return 0
    return sum(
        inputs_and_outputs
        for name, inputs_and_outputs in conventions.layers.get(benchmark, {}).items()
        if any(name == target or name.endswith(f".{target}") for target in targets)
    )

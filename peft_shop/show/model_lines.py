"""What a first screen says of the user's model, device and engine: forecast, setup, changes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from peft_shop.ask.places import Unmeasured
from peft_shop.show.serving import routes_of
from peft_shop.show.setups import answer_setup
from peft_shop.show.trainers import acceptance_sentence

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from peft_shop.ask.recommendation import Recommendation
    from peft_shop.show.overview import Entry

__all__ = ["model_lines", "serving_lines", "training_lines"]


def model_lines(recommendation: Recommendation, shown: Sequence[Entry]) -> Iterable[str]:
    """What is forecast, which setup fits, what changed for the model; nothing without a model."""
    query = recommendation.query
    if query.model is None:
        return
    yield from answer_setup(recommendation)
    told = []
    if query.training is not None:
        told.append("Memory and file are forecasts")
    if query.ranked:
        whose = recommendation.benchmark.model_id.rpartition("/")[2]
        told.append(f"scores are those of {whose}: yours will differ, the order may too")
    changed = _changed(shown)
    if changed:
        told.append(changed)
    if told:
        text = "; ".join(told)
        yield f"{text[0].upper()}{text[1:]}."


def _changed(shown: Sequence[Entry]) -> str:
    """Fields of the configurations that differ from the measured ones, and in how many."""
    counts: dict[str, int] = {}
    total = 0
    for entry in shown:
        one = entry.one
        if isinstance(one, Unmeasured) or one.retargeted is None:
            continue
        total += 1
        for change in one.retargeted.changes:
            if change.before != change.after:
                counts[change.field] = counts.get(change.field, 0) + 1
    if not total:
        return ""
    if not counts:
        return "configurations as measured"
    listed = ", ".join(f"{name} ({count} of {total})" for name, count in counts.items())
    return f"changed: {listed}"


def serving_lines(recommendation: Recommendation, best: Entry | None) -> Iterable[str]:
    """What to do so that the demanded trainers and engines take the entry to go on with."""
    if best is None:
        return
    for taken in getattr(best.one, "trainers", {}).values():
        who = best.rank if best.rank is not None else best.title
        yield f"{who} in {acceptance_sentence(taken)}"
    if not any(requirement.name == "serve" for requirement in recommendation.query.requirements):
        return
    for route in routes_of(recommendation, best.one):
        if route.best is not None and (route.best.conditions or route.best.warnings):
            what = " ".join((*route.best.conditions, *route.best.warnings))
            who = best.rank if best.rank is not None else best.title
            yield f"{who} to {route.engine}: {what}"


def training_lines(best: Entry | None) -> Iterable[str]:
    """What to do so that the demanded trainers train the entry to go on with as it was measured."""
    if best is None or isinstance(best.one, Unmeasured):
        return
    who = best.rank if best.rank is not None else best.title
    for acceptance in best.one.trainers.values():
        left = [
            *(need for need in acceptance.needs if need not in acceptance.written),
            *acceptance.cautions,
        ]
        if acceptance.lost:
            left.insert(0, f"{acceptance.obstacles}.")
        if acceptance.written:
            left.append("What else it needs is in the file of the next command.")
        if left:
            yield f"{who} in {acceptance.trainer}: {' '.join(left)}"

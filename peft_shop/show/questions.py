"""The question of an answer in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from peft_shop.ask.demanding import ATTRIBUTES, GROUPS, SERVE, TRAINER
from peft_shop.units import format_quantity

if TYPE_CHECKING:
    from collections.abc import Iterable

    from peft_shop.ask.query import Query
    from peft_shop.ask.recommendation import Recommendation

__all__ = ["demands", "provenance"]


def demands(recommendation: Recommendation) -> list[str]:
    """What was asked for beyond the defaults, in words."""
    query = recommendation.query
    metrics = {metric.id: metric for metric in recommendation.metrics}
    found = [f"configurations for {query.model.name}"] if query.model is not None else []
    if query.memory is not None:
        found.append(f"memory at most {query.memory.text}")
    found += _requirements(query)
    found += [
        f"{metrics[bound.metric].label} "
        f"{'at most' if bound.kind == 'max' else 'at least'} {bound.text}"
        for bound in query.bounds
    ]
    if query.methods:
        parts = {text.partition(":")[0] for text in query.variants}
        whole = [method for method in query.methods if method not in parts]
        found.append(f"only {', '.join((*whole, *query.variants))}")
    if query.exclude or query.excluded_variants:
        found.append(f"not {', '.join((*query.exclude, *query.excluded_variants))}")
    if query.min_evidence:
        found.append(f"capabilities at least {query.min_evidence}")
    if query.floor != recommendation.benchmark.floor:
        headline = metrics[recommendation.benchmark.headline]
        found.append(f"floor {format_quantity(query.floor, headline.unit)}")
    if query.accelerator:
        found.append(f"measured on {query.accelerator}")
    if query.rank_by == "weights":
        shares = ", ".join(f"{name}={weight:g}" for name, weight in query.weights.items())
        found.append(f"ordered by weights {shares}")
    elif query.rank_by != "headline":
        found.append(f"ordered by {query.rank_by}")
    return found


def _requirements(query: Query) -> Iterable[str]:
    for requirement in query.requirements:
        name = requirement.name.replace("_", " ")
        if requirement.name == SERVE:
            yield f"served on {_joined(requirement.values, requirement.mode)}"
        elif requirement.name == TRAINER:
            yield f"trained with {_joined(requirement.values, requirement.mode)}"
        elif requirement.name in {*GROUPS, *ATTRIBUTES}:
            values = [
                value.replace(":partial", ", at least partial") for value in requirement.values
            ]
            yield f"{name} {_joined(values, requirement.mode)}"
        elif requirement.values == ("no",):
            yield f"no {name}"
        else:
            yield f"{name}, at least partial" if requirement.values == ("partial",) else name


def _joined(values: Iterable[str], mode: str) -> str:
    return (" or " if mode == "any" else " and ").join(values)


def provenance(recommendation: Recommendation) -> str:
    """Which evidence and which versions the answer rests on."""
    query = recommendation.query
    eras = {era.id: era.title for era in recommendation.benchmark.eras}
    if not query.ranked:
        parts = ["none"]
        parts.append(
            f"catalog {recommendation.catalog_version} (peft {recommendation.peft_version})"
        )
        return f"Evidence: {', '.join(parts)}."
    parts = [f"snapshot {query.snapshot}" if query.snapshot else "all runs on file"]
    if query.era is not None:
        parts.append(f"era: {eras.get(query.era, query.era)}")
    if query.evidence == "pooled":
        parts.append("pooled runs")
    parts.append(f"catalog {recommendation.catalog_version} (peft {recommendation.peft_version})")
    wanted = query.peft_version
    parts.append(f"for peft {wanted}" if wanted else "for any peft")
    return f"Evidence: {', '.join(parts)}."

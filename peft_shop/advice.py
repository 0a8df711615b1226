"""What to do about an answer: constraints to relax, and what to know before trusting it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from peft_shop import reasons
from peft_shop.answer import Relaxation
from peft_shop.units import format_quantity

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from peft_shop.evidence import Contender
    from peft_shop.schema import Catalog, Metric, Query, Verdict

__all__ = ["relaxations", "warnings"]


def relaxations(
    catalog: Catalog,
    query: Query,
    contenders: Sequence[Contender],
    verdicts: Sequence[Verdict],
) -> tuple[Relaxation, ...]:
    """For each constraint, or smallest set of them, what giving it up would admit."""
    failing = {
        one.name: tuple(dict.fromkeys(failure.constraint for failure in verdict.failures))
        for one, verdict in zip(contenders, verdicts, strict=True)
        if one.run is not None and verdict.failures
    }
    by_name = {one.name: one for one in contenders}
    headline = catalog.metric_by_id[catalog.benchmark_by_id[query.benchmark].headline]

    def preference(name: str) -> tuple[float, str]:
        one = by_name[name]
        score = reasons.cost(one, headline) if headline.id in one.values else math.inf
        return score, name

    fewest = min((len(set(names)) for names in failing.values()), default=0)
    groups: dict[tuple[str, ...], list[str]] = {}
    for name, names in failing.items():
        if len(names) == fewest:
            groups.setdefault(tuple(sorted(names)), []).append(name)
    found = [
        Relaxation(
            constraint=" + ".join(constraints),
            admits=len(names),
            example=min(names, key=preference),
            suggestion=" and ".join(
                _suggestion(catalog, query, constraint, [by_name[name] for name in names])
                for constraint in constraints
            )
            + f" (admits {len(names)}: {min(names, key=preference)}"
            + (", ...)" if len(names) > 1 else ")"),
        )
        for constraints, names in groups.items()
    ]
    return tuple(sorted(found, key=lambda one: (-one.admits, one.constraint)))


def _suggestion(
    catalog: Catalog, query: Query, constraint: str, admitted: Sequence[Contender]
) -> str:
    kind, _, name = constraint.partition("_")
    if kind in {"max", "min"} and name in catalog.metric_by_id:
        metric = catalog.metric_by_id[name]
        values = [one.values[name] for one in admitted if name in one.values]
        if not values:
            return f"give up {constraint}: it was not measured"
        nearest = min(values) if kind == "max" else max(values)
        verb = "raise" if kind == "max" else "lower"
        return f"{verb} {constraint} to {format_quantity(nearest, metric.unit)}"
    words = {
        "floor": "lower floor",
        "flagged": "allow flagged runs",
        "peft_version": f"upgrade peft from {query.peft_version}",
        "era": "choose another era",
    }
    return words.get(constraint, f"give up {constraint}")


def warnings(
    catalog: Catalog,
    query: Query,
    verdicts: Sequence[Verdict],
    objectives: Sequence[Metric],
    kept: Sequence[Contender],
) -> Iterable[str]:
    """What a reader must know before trusting the order, one sentence each."""
    flagged = [
        verdict.candidate
        for verdict in verdicts
        if any(failure.constraint == "flagged" for failure in verdict.failures)
    ]
    if flagged:
        yield f"left out as flagged: {', '.join(flagged)} (`why` tells the reason)"
    if query.include_flagged:
        yield "flagged runs are ranked because you asked for it"
    unsure = [
        metric.title.lower()
        for metric in objectives
        if metric.scope == "score" and kept and not any(metric.id in one.sds for one in kept)
    ]
    if unsure:
        yield f"the re-run noise of {', '.join(unsure)} is unknown: small leads may mean nothing"
    if len(objectives) > 3 and kept:
        yield (
            f"{len(objectives)} objectives hardly filter: the more there are, the more runs are "
            "on the front; three are plenty"
        )
    late = [
        verdict.candidate
        for verdict in verdicts
        if any(failure.constraint == "peft_version" for failure in verdict.failures)
    ]
    if late:
        yield (
            f"{len(late)} candidates need a newer peft than {query.peft_version}; "
            f"the catalog describes {catalog.peft_version}"
        )

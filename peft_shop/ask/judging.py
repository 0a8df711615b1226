"""Query -> a Verdict per candidate.

`judge` says of each contender which constraints it fails, all of them. An unknown value never
satisfies a requirement, and a figure that is missing or not comparable never meets a bound.
"""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Final

from peft_shop.ask.contenders import ANY_ERA, SHIFTED_ERAS
from peft_shop.ask.query import Failure, Verdict
from peft_shop.catalog.features import EVIDENCE_LEVELS, FULL_FINETUNING
from peft_shop.errors import InputError
from peft_shop.serve.routes import candidate_route, demanded
from peft_shop.units import format_quantity

if TYPE_CHECKING:
    from collections.abc import Iterable

    from peft_shop.adapt.records import Retargeted
    from peft_shop.ask.contenders import Contender
    from peft_shop.ask.query import Bound, MemoryLimit, Query, Requirement
    from peft_shop.catalog.catalog import Catalog
    from peft_shop.catalog.methods import Method
    from peft_shop.catalog.runs import Benchmark, Metric, Run
    from peft_shop.serve.routes import Route

__all__ = [
    "ATTRIBUTES",
    "GROUPS",
    "MEMORY",
    "MODEL",
    "SERVE",
    "judge",
    "retargeted",
    "routed",
    "version_key",
]

GROUPS: Final = ("layer_types", "quantization")
"""Options whose values are features `<group>.<value>`."""
ATTRIBUTES: Final = ("category", "family", "task_types", "options")
"""Options that a method's own fields answer."""
SERVE: Final = "serve"
"""Option whose values are engines, or `<engine>:<kind of way>`."""
MODEL: Final = "model"
"""Option whose value is the model that the configurations are for."""
MEMORY: Final = "max_memory"
"""Option whose value the forecast of peak memory must meet."""
_RANK: Final = {"no": 0, "unknown": 0, "partial": 1, "yes": 2}


def judge(catalog: Catalog, query: Query, contenders: Iterable[Contender]) -> list[Verdict]:
    """A verdict for every contender, in their order, with every constraint that it fails."""
    benchmark = catalog.benchmark_by_id[query.benchmark]
    return [
        Verdict(candidate=one.name, failures=tuple(_failures(catalog, benchmark, query, one)))
        for one in contenders
    ]


def _failures(
    catalog: Catalog, benchmark: Benchmark, query: Query, one: Contender
) -> Iterable[Failure]:
    method = catalog.method_by_id[one.method]
    if query.methods and one.method not in query.methods:
        yield Failure(constraint="methods", reason=f"{one.method} is not among those asked for")
    if one.method in query.exclude:
        yield Failure(constraint="exclude", reason=f"{one.method} is excluded")
    yield from _variant_failures(one, query)
    if query.peft_version is not None:
        yield from _version_failures(catalog, method, one, query.peft_version)
    for requirement in query.requirements:
        if requirement.name == SERVE:
            yield from _serve_failures(catalog, query, one, requirement)
        else:
            yield from _requirement_failures(method, one, requirement, query)
    found = retargeted(catalog, query, one)
    if found is not None and found.problems:
        yield Failure(constraint=MODEL, reason="; ".join(found.problems))
    if query.memory is not None:
        yield from _memory_failures(query.memory, one)
    if one.run is not None:
        yield from _run_failures(catalog, benchmark, query, one, one.run)


def retargeted(catalog: Catalog, query: Query, one: Contender) -> Retargeted | None:
    """The contender's configuration for the question's model; `None` where it names none.

    Worked out once per catalog and model; a run of full fine-tuning has none.
    """
    if query.model is None or one.method == FULL_FINETUNING:
        return None
    options = query.adapt
    if options.peft_version is None:
        options = options.model_copy(update={"peft_version": query.peft_version})
    subject = one.run or catalog.method_by_id[one.method]
    key = ("retargeted", query.benchmark, subject.id, options, query.model)
    if key not in catalog.derived:
        from peft_shop.adapt.retarget import retarget  # noqa: PLC0415 - only where a model is named

        catalog.derived[key] = retarget(catalog, subject, query.model, options)
    found: Retargeted = catalog.derived[key]
    return found


def routed(catalog: Catalog, query: Query, one: Contender, engine: str) -> Route:
    """The contender's route to an engine, on the question's model where it names one."""
    adapted = retargeted(catalog, query, one)
    return candidate_route(
        catalog,
        engine,
        query.benchmark,
        one.run or one.method,
        model=query.model,
        config=None if adapted is None else adapted.config,
    )


def _run_failures(
    catalog: Catalog, benchmark: Benchmark, query: Query, one: Contender, run: Run
) -> Iterable[Failure]:
    if query.era not in {None, ANY_ERA, SHIFTED_ERAS} and run.era != query.era:
        yield Failure(
            constraint="era", reason=f"scored in the {run.era!r} era, not in {query.era!r}"
        )
    if not query.include_flagged:
        for flag in run.flags:
            if flag.code in {"broken_config", "artefact"}:
                yield Failure(constraint="flagged", reason=f"{flag.code}: {flag.reason}")
    for name in query.objectives:
        if name not in one.values:
            reason = f"{name}: {one.unusable.get(name, 'not measured')}"
            yield Failure(constraint="objectives", reason=reason)
    for bound in query.bounds:
        yield from _bound_failures(catalog, one, bound)
    score = one.values.get(benchmark.headline)
    unit = catalog.metric_by_id[benchmark.headline].unit
    if score is None:
        if query.floor > 0:
            reason = one.unusable.get(benchmark.headline, "not measured")
            yield Failure(constraint="floor", reason=f"{benchmark.headline}: {reason}")
    elif _worse(catalog.metric_by_id[benchmark.headline], score, query.floor):
        yield Failure(
            constraint="floor",
            reason=f"{benchmark.headline} {format_quantity(score, unit)} is below "
            f"{format_quantity(query.floor, unit)}: it learned nothing",
        )


def _worse(metric: Metric, value: float, limit: float) -> bool:
    return value < limit if metric.better == "higher" else value > limit


def _bound_failures(catalog: Catalog, one: Contender, bound: Bound) -> Iterable[Failure]:
    name = f"{bound.kind}_{bound.metric}"
    value = one.values.get(bound.metric)
    if value is None:
        reason = f"{bound.metric}: {one.unusable.get(bound.metric, 'not measured')}"
        yield Failure(constraint=name, reason=reason)
    elif value > bound.value if bound.kind == "max" else value < bound.value:
        unit = catalog.metric_by_id[bound.metric].unit
        side = "above" if bound.kind == "max" else "below"
        shown = format_quantity(value, unit)
        yield Failure(constraint=name, reason=f"{bound.metric} {shown} is {side} {bound.text}")


def _memory_failures(limit: MemoryLimit, one: Contender) -> Iterable[Failure]:
    """A forecast whose whole interval lies above the limit; one that straddles it is kept."""
    if one.forecast is None:
        reason = one.unusable.get("peak_memory", "no forecast")
        yield Failure(constraint=MEMORY, reason=f"peak memory: {reason}")
    elif one.forecast.peak_memory.low > limit.bytes:
        low, high = (
            format_quantity(value, "bytes")
            for value in (one.forecast.peak_memory.low, one.forecast.peak_memory.high)
        )
        yield Failure(
            constraint=MEMORY, reason=f"the forecast, {low} to {high}, is above {limit.text}"
        )


def _requirement_failures(
    method: Method, one: Contender, requirement: Requirement, query: Query
) -> Iterable[Failure]:
    name = requirement.name
    wanted = tuple(dict.fromkeys(requirement.values))
    if name in ATTRIBUTES:
        mine = getattr(method, name)
        have = {mine} if isinstance(mine, str) else set(mine)
        lacking = [value for value in wanted if value not in have]
    elif name in GROUPS:
        faults = {value: _fault(method, one, f"{name}.{value}", "yes", query) for value in wanted}
        lacking = [f"{value}: {fault}" for value, fault in faults.items() if fault]
    else:
        fault = _fault(method, one, name, wanted[0], query)
        lacking = [fault] if fault else []
    if requirement.mode == "any" and len(lacking) < len(wanted):
        return
    if lacking:
        missing = f"lacks {', '.join(lacking)}" if name in ATTRIBUTES else "; ".join(lacking)
        yield Failure(constraint=name, reason=missing)


def _serve_failures(
    catalog: Catalog, query: Query, one: Contender, requirement: Requirement
) -> Iterable[Failure]:
    """A route that rests on something unknown reaches nothing."""
    lacking = []
    for text in requirement.values:
        engine, kinds = demanded(text)
        found = routed(catalog, query, one, engine)
        if not found.reaches(kinds):
            lacking.append(f"{text}: {found.obstacles(kinds)}")
    if requirement.mode == "any" and len(lacking) < len(requirement.values):
        return
    if lacking:
        yield Failure(constraint=SERVE, reason=". ".join(lacking))


def _fault(method: Method, one: Contender, feature: str, demanded: str, query: Query) -> str | None:
    """Why a capability does not satisfy a demand; `None` when it does."""
    capability = method.capability(feature, one.variants)
    support, level = capability.support, capability.level
    satisfied = support == "no" if demanded == "no" else _RANK[support] >= _RANK[demanded]
    note = f" ({capability.note})" if capability.note else ""
    if not satisfied:
        return f"{support}, {level}{note}"
    least = query.min_evidence
    if least is not None and EVIDENCE_LEVELS.index(level) < EVIDENCE_LEVELS.index(least):
        return f"{support}, but only {level}; {least} is demanded"
    return None


def _variant_failures(one: Contender, query: Query) -> Iterable[Failure]:
    """A run of none of the variants that alone are wanted, or of one that is not."""
    if one.run is None:
        return
    own = {f"{one.method}:{variant}" for variant in one.variants}
    wanted = [text for text in query.variants if text.partition(":")[0] == one.method]
    if wanted and not own.intersection(wanted):
        reason = f"{one.name} is not {' or '.join(text.partition(':')[2] for text in wanted)}"
        yield Failure(constraint="methods", reason=reason)
    if unwanted := own.intersection(query.excluded_variants):
        names = " and ".join(sorted(text.partition(":")[2] for text in unwanted))
        yield Failure(constraint="exclude", reason=f"{names} is excluded")


@cache
def version_key(version: str) -> tuple[int, ...]:
    """Comparable form of a peft version; a development release counts as its release.

    >>> version_key("0.21.2") > version_key("0.9.0")
    True
    """
    parts = re.match(r"\d+(?:\.\d+)*", version)
    if parts is None:
        raise InputError(f"cannot read {version!r} as a version such as 0.21.2")
    return tuple(int(part) for part in parts[0].split("."))


def _version_failures(
    catalog: Catalog, method: Method, one: Contender, version: str
) -> Iterable[Failure]:
    have = version_key(version)

    def late(since: str | None) -> bool:
        return version_key(since or catalog.peft_version) > have

    if late(method.since):
        since = method.since or catalog.peft_version
        yield Failure(
            constraint="peft_version", reason=f"needs peft {since} or newer, not {version}"
        )
        return
    for variant in method.variants:
        if variant.id in one.variants and variant.since and late(variant.since):
            yield Failure(
                constraint="peft_version",
                reason=f"{variant.title} needs peft {variant.since} or newer, not {version}",
            )
    if one.run is None or not method.fields:
        return
    for key in one.run.recipe.config:
        first = method.fields.get(key)
        if first is None or version_key(first) > have:
            needed = f"needs peft {first} or newer" if first else "is not known to any release"
            yield Failure(
                constraint="peft_version", reason=f"the option {key!r} {needed}, not {version}"
            )

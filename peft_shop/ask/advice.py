"""What to do about an answer: constraints to relax, and what to know before trusting it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from peft_shop.ask import reasons
from peft_shop.ask.bases import quantized_base
from peft_shop.ask.judging import FORECAST_METRICS
from peft_shop.ask.places import Relaxation
from peft_shop.units import format_quantity, parse_quantity

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from peft_shop.ask.contenders import Contender
    from peft_shop.ask.query import Query, Verdict
    from peft_shop.catalog.benchmarks import Metric
    from peft_shop.catalog.catalog import Catalog
    from peft_shop.model.structure import Structure
    from peft_shop.units import Unit

__all__ = ["FLAGGED", "relaxations", "warnings"]

FLAGGED: Final = "left out as flagged: "
"""How the warning begins that names the runs left out for their flags."""


def relaxations(
    catalog: Catalog,
    query: Query,
    contenders: Sequence[Contender],
    verdicts: Sequence[Verdict],
) -> tuple[Relaxation, ...]:
    """For each constraint, or smallest set of them, what giving it up would admit."""
    failing = {
        contender.name: tuple(dict.fromkeys(failure.constraint for failure in verdict.failures))
        for contender, verdict in zip(contenders, verdicts, strict=True)
        if contender.run is not None and verdict.failures
    }
    by_name = {contender.name: contender for contender in contenders}
    headline = catalog.metric_by_id[catalog.benchmark_by_id[query.benchmark].headline]

    def preference(name: str) -> tuple[float, str]:
        one = by_name[name]
        score = reasons.cost(one, headline) if headline.id in one.values else math.inf
        return score, name

    fewest = min(map(len, failing.values()), default=0)
    groups: dict[tuple[str, ...], list[str]] = {}
    for name, names in failing.items():
        if len(names) == fewest:
            groups.setdefault(tuple(sorted(names)), []).append(name)
    found = [
        Relaxation(
            constraint=" + ".join(constraints),
            admits=len(names),
            example=min(names, key=preference),
            suggestion=_suggestion(
                catalog,
                query,
                constraints,
                [by_name[name] for name in sorted(names, key=preference)],
            ),
        )
        for constraints, names in groups.items()
    ]
    return tuple(sorted(found, key=lambda one: (-one.admits, one.constraint)))


def _suggestion(
    catalog: Catalog, query: Query, constraints: Sequence[str], admitted: Sequence[Contender]
) -> str:
    """What to write instead, and whom that admits.

    Args:
        catalog: for the metrics.
        query: the question.
        constraints: what every one of `admitted` fails.
        admitted: the contenders, the best first.
    """
    limits = {name: _limit(catalog, query, name) for name in constraints}
    bounds = {
        name: limit
        for name, limit in limits.items()
        if limit is not None and all(limit[0].id in contender.values for contender in admitted)
    }
    # with one limit in the way the smallest step is the best advice; with several it is not
    # defined, so they go where the best of the admitted needs them
    target = admitted[0]
    if len(constraints) == 1 and bounds:
        ((metric, kind),) = bounds.values()
        sign = 1 if kind == "max" else -1
        target = min(admitted, key=lambda contender: sign * contender.values[metric.id])
    words, reached = [], list(admitted)
    for name in constraints:
        if name not in bounds:
            words.append(_words(catalog, query, name))
            continue
        metric, kind = bounds[name]
        text = _just_met(target.values[metric.id], metric.unit, kind)
        limit = parse_quantity(text, metric.unit)
        words.append(f"{'raise' if kind == 'max' else 'lower'} {name} to {text}")
        reached = [
            one
            for one in reached
            if (one.values[metric.id] <= limit if kind == "max" else one.values[metric.id] >= limit)
        ]
    text = f"{' and '.join(words)} (admits {_listed(reached)}"
    if len(reached) < len(admitted):
        text += f"; without {'this limit' if len(bounds) == 1 else 'these limits'} "
        text += _listed(admitted)
    return text + ")"


def _listed(admitted: Sequence[Contender]) -> str:
    rest = ", ..." if len(admitted) > 1 else ""
    return f"{len(admitted)}: {admitted[0].name}{rest}"


def _limit(catalog: Catalog, query: Query, constraint: str) -> tuple[Metric, str] | None:
    """Metric that a constraint limits and the side on which it does; `None` for other kinds."""
    if constraint == "floor":
        headline = catalog.metric_by_id[catalog.benchmark_by_id[query.benchmark].headline]
        return headline, "min" if headline.better == "higher" else "max"
    kind, _, name = constraint.partition("_")
    if kind in {"max", "min"} and name in catalog.metric_by_id:
        return catalog.metric_by_id[name], kind
    return None


def _words(catalog: Catalog, query: Query, constraint: str) -> str:
    words = {
        "era": "mix the eras (era 'any')",
        "flagged": "allow flagged runs",
        "objectives": "choose objectives that were measured",
        "max_memory": "allow more memory",
        "training": "train a base that is not quantized",
        "model": "choose another model, or adapt it otherwise (adapt)",
        "serve": "serve it on another engine, or accept another kind of way to it",
        "trainer": "train with another tool, or accept what it takes in part (NAME:partly)",
        "peft_version": f"upgrade peft from {query.peft_version} to {catalog.peft_version}",
    }
    return words.get(constraint, f"give up {constraint}")


_FINEST: Final = 100
"""A limit in words has at least this many steps of its last figure."""


def _just_met(value: float, unit: Unit, kind: str) -> str:
    """Short text of a limit that `value` meets: rounded up for a `max`, down for a `min`."""
    text = format_quantity(value, unit)
    number, _, suffix = text.partition(" ")
    decimals = len(number.partition(".")[2])
    if suffix and 10**-decimals * _FINEST > abs(float(number)):
        # one more figure than people are shown: a step of 0.1 min is a tenth of a minute's limit
        text = format_quantity(value, unit, digits=decimals + 1)
        number, decimals = text.partition(" ")[0], decimals + 1
    step = 10**-decimals if kind == "max" else -(10**-decimals)
    limit = parse_quantity(text, unit)
    if limit < value if kind == "max" else limit > value:
        text = f"{float(number) + step:.{decimals}f} {suffix}".rstrip()
    return text


def _about_procedure(catalog: Catalog, query: Query) -> Iterable[str]:
    """What forecasts of a training step leave out where answers are generated in between."""
    if query.training is not None and catalog.benchmark_by_id[query.benchmark].procedure == "grpo":
        yield (
            "forecasts are of a supervised step: what generating answers needs, and the reference "
            "that they are compared with, comes on top and is not known"
        )


def warnings(
    catalog: Catalog,
    query: Query,
    contenders: Sequence[Contender],
    verdicts: Sequence[Verdict],
    objectives: Sequence[Metric],
) -> Iterable[str]:
    """What a reader must know before trusting the order, one sentence each."""
    kept = [
        contender
        for contender, verdict in zip(contenders, verdicts, strict=True)
        if verdict.kept and contender.run is not None
    ]
    flagged = [
        verdict.candidate
        for verdict in verdicts
        if any(failure.constraint == "flagged" for failure in verdict.failures)
    ]
    if query.model is not None:
        yield from _about_model(query, query.model)
    for text in query.variants:
        method, _, variant = text.partition(":")
        if not any(
            contender.method == method and variant in contender.variants for contender in contenders
        ):
            known = catalog.method_by_id[method].variants
            title = next(one.title for one in known if one.id == variant)
            yield f"no run of {title} is on file for {query.benchmark}"
    if query.memory is not None:
        yield from (f"{query.memory.text}: {caution}" for caution in query.memory.cautions)
    unknown = [contender for contender in kept if "peak_memory" not in contender.values]
    if query.training is not None and unknown:
        yield _unknown_memory(unknown, len(kept))
    yield from _about_procedure(catalog, query)
    if flagged:
        yield f"{FLAGGED}{', '.join(flagged)} (`why` tells the reason)"
    if query.include_flagged:
        yield "flagged runs are ranked because you asked for it"
    demanded = {requirement.name for requirement in query.requirements}
    yield from _about_base(catalog, query)
    if {"quantization", "merging"} <= demanded:
        yield (
            "merging into a quantized base rounds the update away in part: merge into the base "
            "loaded in bf16 or fp32, then quantize again"
        )
    unsure = [
        metric.label
        for metric in objectives
        if metric.scope == "score"
        and kept
        and not any(contender.rerun_sds.get(metric.id) for contender in kept)
    ]
    if unsure:
        yield f"the re-run noise of {', '.join(unsure)} is unknown: small leads may mean nothing"
    if len(objectives) > 3 and kept:
        yield (
            f"{len(objectives)} objectives hardly filter: the more there are, the more runs are "
            "on the front; three are plenty"
        )
    late = [
        contender
        for contender, verdict in zip(contenders, verdicts, strict=True)
        if any(failure.constraint == "peft_version" for failure in verdict.failures)
    ]
    if late:
        gained = sorted({contender.method for contender in late})
        yield (
            f"{len(late)} candidates need a newer peft than {query.peft_version}: upgrading to "
            f"{catalog.peft_version} would bring configurations of {', '.join(gained)}"
        )


def _unknown_memory(unknown: Sequence[Contender], total: int) -> str:
    """Whose memory is not known, and how it can be told."""
    names = ", ".join(contender.name for contender in unknown[:3]) + (
        ", ..." if unknown[3:] else ""
    )
    text = f"the memory of {names} is not known, which is not counted as too much"
    if 2 * len(unknown) > total:
        reason = unknown[0].unusable.get("peak_memory", "no forecast")
        text = f"the memory of {len(unknown)} of {total} ({names}) is not known: {reason}"
    return f"{text}; dry runs tell it, given time (--within 10min, within='10min')"


def _about_base(catalog: Catalog, query: Query) -> Iterable[str]:
    """Figures beside a quantized base are those of runs on one in 16 bit."""
    quantized = quantized_base(query) is not None or any(
        requirement.name == "quantization" for requirement in query.requirements
    )
    replaced = FORECAST_METRICS if query.training is not None else ()
    bounds = [
        f"{bound.kind}_{bound.metric}"
        for bound in query.bounds
        if bound.metric not in replaced and catalog.metric_by_id[bound.metric].scope != "count"
    ]
    if quantized and bounds:
        yield (
            f"{' and '.join(bounds)}: held against runs whose base was not quantized; on a "
            "quantized one these figures differ"
        )
    elif quantized and query.training is not None:
        yield "scores and times were measured in 16 bit; on a quantized base they differ"


def _about_model(query: Query, model: Structure) -> Iterable[str]:
    if query.fit == "auto":
        yield (
            f"peak memory, checkpoint size and parameter counts are forecasts for {model.name}, "
            "not measured; memory is compared under one setup for all"
        )
    elif query.training is not None:
        step = query.training
        told = f"batch {step.batch_size}, {step.dtype}"
        told += f", {step.quantization}" if step.quantization else ""
        told += ", gradient checkpointing" if step.gradient_checkpointing else ""
        told += f", {step.sequence_length} tokens" if model.modality != "image" else ""
        yield (
            f"peak memory, checkpoint size and parameter counts are forecasts for {model.name} "
            f"({told}), not measured"
        )
    if not query.ranked:
        yield (
            f"nothing is ranked: {model.benchmark_because}; what is told are capabilities, "
            "configurations and forecasts, with plain LoRA first as the usual first choice"
        )
    elif model.benchmark == query.benchmark:
        which = "scores and times" if query.training is not None else "figures"
        yield (
            f"{which} are those of the benchmark's own model; on {model.name} they will differ, "
            "the order may too"
        )
    else:
        yield (
            f"no run of {query.benchmark} is evidence for {model.name}: {model.benchmark_because}; "
            "take the order as a guess"
        )
    yield from model.notes

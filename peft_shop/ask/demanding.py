"""What a question demands of a method by itself: capabilities, ways to engines, versions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from peft_shop.ask.adapted import routed, trained_by
from peft_shop.ask.bases import (
    circumstances,
    fixed_loading,
    quantized_base,
    trains_on,
    weakest,
)
from peft_shop.ask.query import Failure
from peft_shop.catalog.features import EVIDENCE_LEVELS, FULL_FINETUNING
from peft_shop.serve.routes import demanded
from peft_shop.serve.trainers import demanded_trainer
from peft_shop.upstream.versions import version_key

if TYPE_CHECKING:
    from collections.abc import Iterable

    from peft_shop.ask.contenders import Contender
    from peft_shop.ask.query import Query, Requirement
    from peft_shop.catalog.catalog import Catalog
    from peft_shop.catalog.conditions import Given
    from peft_shop.catalog.methods import Method

__all__ = ["ATTRIBUTES", "GROUPS", "SERVE", "TRAINER", "demand_failures"]

GROUPS: Final = ("layer_types", "quantization")
"""Options whose values are features `<group>.<value>`."""
ATTRIBUTES: Final = ("category", "family", "task_types", "options")
"""Options that a method's own fields answer."""
SERVE: Final = "serve"
"""Option whose values are engines, or `<engine>:<kind of way>`."""
TRAINER: Final = "trainer"
"""Option whose values are trainers, or `<trainer>==<version>`, or either with `:partly`."""
_RANK: Final = {"no": 0, "unknown": 0, "partial": 1, "yes": 2}


def demand_failures(
    catalog: Catalog, method: Method, contender: Contender, query: Query
) -> Iterable[Failure]:
    """Every demand on the method that it does not meet."""
    if query.methods and contender.method not in query.methods:
        yield Failure(
            constraint="methods",
            reason=f"{contender.method} is not among those asked for",
            demanded=" or ".join(query.methods),
            found=contender.method,
        )
    if contender.method in query.exclude:
        yield Failure(
            constraint="exclude",
            reason=f"{contender.method} is excluded",
            demanded=f"not {contender.method}",
            found=contender.method,
        )
    yield from _variant_failures(contender, query)
    if query.peft_version is not None:
        yield from _version_failures(catalog, method, contender, query.peft_version)
    asked = query.requirements or quantized_base(query) is not None
    given = circumstances(catalog, query, contender) if asked else {}
    for requirement in query.requirements:
        if requirement.name == SERVE:
            yield from _serve_failures(catalog, query, contender, requirement)
        elif requirement.name == TRAINER:
            yield from _trainer_failures(catalog, query, contender, requirement)
        else:
            yield from _requirement_failures(method, contender, requirement, query, given)
    yield from _base_failures(method, contender, query, given)


def _requirement_failures(
    method: Method, contender: Contender, requirement: Requirement, query: Query, given: Given
) -> Iterable[Failure]:
    name = requirement.name
    wanted = tuple(dict.fromkeys(requirement.values))
    if name in ATTRIBUTES:
        mine = getattr(method, name)
        have = {mine} if isinstance(mine, str) else set(mine)
        lacking = [value for value in wanted if value not in have]
    elif name in GROUPS:
        faults = {
            value: _fault(method, contender, f"{name}.{value}", query, given) for value in wanted
        }
        lacking = [f"{value}: {fault}" for value, fault in faults.items() if fault]
    else:
        fault = _fault(method, contender, f"{name}:{wanted[0]}", query, given)
        lacking = [fault] if fault else []
    if requirement.mode == "any" and len(lacking) < len(wanted):
        return
    if lacking:
        missing = f"lacks {', '.join(lacking)}" if name in ATTRIBUTES else "; ".join(lacking)
        yield Failure(
            constraint=name, reason=missing, demanded=_told(requirement), found="; ".join(lacking)
        )


def _serve_failures(
    catalog: Catalog, query: Query, contender: Contender, requirement: Requirement
) -> Iterable[Failure]:
    """A route that rests on something unknown reaches nothing."""
    lacking = []
    for text in requirement.values:
        engine, kinds = demanded(text)
        route = routed(catalog, query, contender, engine)
        if not route.reaches(kinds):
            lacking.append(f"{text}: {route.obstacles(kinds)}")
    if requirement.mode == "any" and len(lacking) < len(requirement.values):
        return
    if lacking:
        yield Failure(
            constraint=SERVE,
            reason=". ".join(lacking),
            demanded=_told(requirement),
            found=". ".join(lacking),
        )


def _trainer_failures(
    catalog: Catalog, query: Query, contender: Contender, requirement: Requirement
) -> Iterable[Failure]:
    """What a trainer loses, refuses, or of which nobody knows, is not taken."""
    lacking = []
    for text in requirement.values:
        acceptance = trained_by(catalog, query, contender, text)
        if not acceptance.satisfies(partly=demanded_trainer(text)[2]):
            lacking.append(f"{text}: {acceptance.verdict}: {acceptance.obstacles}")
    if requirement.mode == "any" and len(lacking) < len(requirement.values):
        return
    if lacking:
        yield Failure(
            constraint=TRAINER,
            reason=". ".join(lacking),
            demanded=_told(requirement),
            found=". ".join(lacking),
        )


def _told(requirement: Requirement) -> str:
    return (" or " if requirement.mode == "any" else " and ").join(requirement.values)


def _base_failures(
    method: Method, contender: Contender, query: Query, given: Given
) -> Iterable[Failure]:
    """A method that was seen not to train on the base that the question is about."""
    base = quantized_base(query)
    if base is None or contender.method == FULL_FINETUNING:
        return
    backend, option = base
    capability = weakest(method, contender.variants, backend)
    if trains_on(capability, given, fixed=fixed_loading(query)) == "no":
        note = f" ({capability.note})" if capability.note else ""
        yield Failure(
            constraint=option,
            reason=f"does not train on a {backend} base: {capability.support}, "
            f"{capability.level}{note}",
            demanded=f"trains on a {backend} base",
            found=f"{capability.support}, {capability.level}",
        )


def _fault(
    method: Method, contender: Contender, demand: str, query: Query, given: Given
) -> str | None:
    """Why a capability does not satisfy a demand, such as `merging:partial`; `None` when it does.

    Conditions that the script or the model meets are met.
    """
    feature, _, least_support = demand.partition(":")
    demanded = least_support or "yes"
    capability = method.capability(feature, contender.variants)
    level = capability.level
    support = trains_on(capability, given, fixed=fixed_loading(query))
    satisfied = support == "no" if demanded == "no" else _RANK[support] >= _RANK[demanded]
    note = f" ({capability.note})" if capability.note else ""
    if not satisfied:
        return f"{support}, {level}{note}"
    least = query.min_evidence
    if least is not None and EVIDENCE_LEVELS.index(level) < EVIDENCE_LEVELS.index(least):
        return f"{support}, but only {level}; {least} is demanded"
    return None


def _variant_failures(contender: Contender, query: Query) -> Iterable[Failure]:
    """A run of none of the variants that alone are wanted, or of one that is not."""
    if contender.run is None:
        return
    own = {f"{contender.method}:{variant}" for variant in contender.variants}
    found = ", ".join(sorted(contender.variants)) or None
    wanted = [text for text in query.variants if text.partition(":")[0] == contender.method]
    if wanted and not own.intersection(wanted):
        names = " or ".join(text.partition(":")[2] for text in wanted)
        reason = f"{contender.name} is not {names}"
        yield Failure(constraint="methods", reason=reason, demanded=names, found=found)
    if unwanted := own.intersection(query.excluded_variants):
        names = " and ".join(sorted(text.partition(":")[2] for text in unwanted))
        yield Failure(
            constraint="exclude",
            reason=f"{names} is excluded",
            demanded=f"not {names}",
            found=found,
        )


def _version_failures(
    catalog: Catalog, method: Method, contender: Contender, version: str
) -> Iterable[Failure]:
    have = version_key(version)

    def late(since: str | None) -> bool:
        return version_key(since or catalog.peft_version) > have

    if late(method.since):
        since = method.since or catalog.peft_version
        yield Failure(
            constraint="peft_version",
            reason=f"needs peft {since} or newer, not {version}",
            demanded=version,
            found=since,
        )
        return
    for variant in method.variants:
        if variant.id in contender.variants and variant.since and late(variant.since):
            yield Failure(
                constraint="peft_version",
                reason=f"{variant.title} needs peft {variant.since} or newer, not {version}",
                demanded=version,
                found=variant.since,
            )
    if contender.run is None or not method.fields:
        return
    for key in contender.run.recipe.config:
        first = method.fields.get(key)
        if first is None or version_key(first) > have:
            needed = f"needs peft {first} or newer" if first else "is not known to any release"
            yield Failure(
                constraint="peft_version",
                reason=f"the option {key!r} {needed}, not {version}",
                demanded=version,
                found=first,
            )

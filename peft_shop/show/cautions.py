"""What must be known before an answer is trusted, the gravest first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from peft_shop.ask.advice import FLAGGED
from peft_shop.ask.candidates import Candidate
from peft_shop.ask.places import FrontMember
from peft_shop.ask.reasons import amount, lead
from peft_shop.show.rates import rates_of
from peft_shop.show.serving import routes_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from peft_shop.ask.recommendation import Recommendation
    from peft_shop.catalog.benchmarks import Metric
    from peft_shop.show.overview import Entry

__all__ = ["USUAL", "Caution", "cautions"]

_SILENT: Final = 0
_UNUSABLE: Final = 1
_LUCK: Final = 2
_FLAGGED: Final = 3
_EVIDENCE: Final = 4
USUAL: Final = 5
"""True of every answer of its kind, and told by the lines above."""


@dataclass(frozen=True, slots=True)
class Caution:
    """One thing to know.

    Attributes:
        gravity: less is graver.
        text: a clause without a full stop.
        about: names of the candidates that it is about.
    """

    gravity: int
    text: str
    about: tuple[str, ...] = ()


def cautions(
    recommendation: Recommendation, shown: Sequence[Entry], objectives: Sequence[Metric]
) -> tuple[Caution, ...]:
    """All that speaks against the answer or its entries: wrong in silence before all else.

    Args:
        recommendation: the answer.
        shown: the entries that people see.
        objectives: the metrics optimised, the one to argue with first.
    """
    found = [
        *_silent(recommendation, shown),
        *_lost(shown),
        *_of_model(recommendation),
        *_unserved(recommendation, shown),
        *_on_model(shown),
        *_lucky(recommendation, shown, objectives),
        *_flagged(recommendation, shown),
        *_untuned(recommendation, shown),
        *_rest(recommendation),
    ]
    return tuple(sorted(found, key=lambda caution: caution.gravity))


def _numbers(entries: Sequence[Entry]) -> str:
    """Ranks in words, such as `1, 2 and 4`; titles where there are no ranks."""
    names = [str(entry.rank) if entry.rank is not None else entry.title for entry in entries]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _about(entries: Iterable[Entry]) -> tuple[str, ...]:
    return tuple(entry.name for entry in entries)


def _silent(recommendation: Recommendation, shown: Sequence[Entry]) -> Iterable[Caution]:
    """Engines that load an adapter as it is and answer with something else."""
    if not any(requirement.name == "serve" for requirement in recommendation.query.requirements):
        return
    by_engine: dict[str, list[Entry]] = {}
    for entry in shown:
        for route in routes_of(recommendation, entry.one):
            if route.silent and route.kind != "native":
                by_engine.setdefault(route.engine, []).append(entry)
    for engine, several in by_engine.items():
        ways = " or ".join(dict.fromkeys(entry.serving for entry in several))
        text = (
            f"{engine} loads {_numbers(several)} as it is without a word and computes something "
            f"else: {ways} first"
        )
        yield Caution(_SILENT, text)


def _lost(shown: Sequence[Entry]) -> Iterable[Caution]:
    """Trainers that run a recipe without some of it, and say nothing."""
    by_loss: dict[tuple[str, tuple[str, ...]], list[Entry]] = {}
    for entry in shown:
        for taken in getattr(entry.one, "trainers", {}).values():
            if taken.verdict == "partly":
                key = taken.trainer, tuple(map(str, taken.lost))
                by_loss.setdefault(key, []).append(entry)
    for (trainer, lost), several in by_loss.items():
        text = f"{trainer} trains {_numbers(several)} without {', '.join(lost)}"
        yield Caution(_SILENT, text, _about(several))


def _of_model(recommendation: Recommendation) -> Iterable[Caution]:
    """What is known against the user's own model and device, and what has no evidence at all."""
    query = recommendation.query
    known = {} if query.model is None else dict.fromkeys(query.model.notes)
    if query.memory is not None:
        known |= {f"{query.memory.text}: {text}": None for text in query.memory.cautions}
    for text in recommendation.warnings:
        if text in known or text.startswith(("no run of", "nothing is ranked")):
            yield Caution(_UNUSABLE, text.rstrip("."))


def _unserved(recommendation: Recommendation, shown: Sequence[Entry]) -> Iterable[Caution]:
    named = any(requirement.name == "serve" for requirement in recommendation.query.requirements)
    nowhere = [entry for entry in shown if entry.serving == "none"]
    unknown = [entry for entry in shown if entry.serving == "unknown"]
    if named or not recommendation.catalog.engines:
        return
    merging = [entry for entry in nowhere if _merges(recommendation, entry)]
    lost = [entry for entry in nowhere if entry not in merging]
    if lost:
        it = "it does" if len(lost) == 1 else "they do"
        text = f"no engine serves {_numbers(lost)}, and {it} not merge"
        yield Caution(_UNUSABLE, text, _about(lost))
    if merging:
        text = (
            f"no engine on record serves such a model; {_numbers(merging)} can be merged into it "
            "and run as the model itself is"
        )
        yield Caution(_UNUSABLE, text)
    if unknown:
        text = f"no engine is known to serve {_numbers(unknown)}"
        yield Caution(_UNUSABLE, text, _about(unknown))


def _merges(recommendation: Recommendation, entry: Entry) -> bool:
    """Whether what is trained can become part of the base's own weights."""
    one = entry.one
    method = recommendation.catalog.method_by_id[one.method]
    variants = one.variants if isinstance(one, Candidate) else ()
    return method.capability("merging", variants).support in {"yes", "partial"}


def _on_model(shown: Sequence[Entry]) -> Iterable[Caution]:
    """What a trial on the model without its weights found, alike ones together."""
    by_text: dict[str, list[Entry]] = {}
    for entry in shown:
        tried = getattr(entry.one, "preflighted", None)
        for text in () if tried is None else tried.warnings:
            by_text.setdefault(text.rstrip("."), []).append(entry)
    for text, several in by_text.items():
        yield Caution(_UNUSABLE, f"{_numbers(several)}: {text}", _about(several))


def _lucky(
    recommendation: Recommendation, shown: Sequence[Entry], objectives: Sequence[Metric]
) -> Iterable[Caution]:
    ranks = {entry.name: entry.rank for entry in shown}
    named = any(requirement.name == "serve" for requirement in recommendation.query.requirements)
    for entry in shown:
        one = entry.one
        if not isinstance(one, FrontMember) or one.warning is None:
            continue
        text = f"{entry.rank} is the best of {one.configurations} tries of {one.method}"
        rival = _rival(recommendation, one, objectives)
        if rival is not None:
            ahead = amount(lead(one, rival, objectives[0]), objectives[0])
            whom = ranks.get(rival.name) or recommendation.short(rival)
            text += f" and leads {whom} by {ahead}, which luck explains"
        # who names an engine wants to serve: luck is told, and no reason to go on with another
        yield Caution(_LUCK, text, () if named else (one.name,))


def _rival(
    recommendation: Recommendation, front_member: FrontMember, objectives: Sequence[Metric]
) -> FrontMember | None:
    """The member of another method with the best score among those that cost no more."""
    first, others = objectives[0], objectives[1:]

    def no_worse(other: FrontMember) -> bool:
        return all(
            metric.id in other.values
            and metric.id in front_member.values
            and lead(other, front_member, metric) >= 0
            for metric in others
        )

    rivals = [
        other
        for other in recommendation.front
        if other.method != front_member.method
        and first.id in other.values
        and first.id in front_member.values
        and no_worse(other)
    ]
    return min(rivals, key=lambda other: lead(front_member, other, first), default=None)


def _flagged(recommendation: Recommendation, shown: Sequence[Entry]) -> Iterable[Caution]:
    for entry in shown:
        run = getattr(entry.one, "run", None)
        codes = dict.fromkeys(flag.code for flag in (() if run is None else run.flags))
        if codes:
            words = " and ".join(code.replace("_", " ") for code in codes)
            who = entry.rank if entry.rank is not None else entry.title
            yield Caution(_FLAGGED, f"{who} is flagged: {words}", (entry.name,))
    for text in recommendation.warnings:
        if text.startswith(FLAGGED):
            yield Caution(_FLAGGED, text.partition(" (`why`")[0])


def _untuned(recommendation: Recommendation, shown: Sequence[Entry]) -> Iterable[Caution]:
    """Entries whose learning rate is the only one that was tried, or at the edge of those."""
    rates = rates_of(recommendation)
    by_edge: dict[str, list[Entry]] = {}
    for entry in shown:
        run = getattr(entry.one, "run", None)
        tried = None if run is None else rates.get((run.method, run.variants))
        if tried is not None and tried.edge is not None:
            by_edge.setdefault(tried.edge, []).append(entry)
    for edge, several in by_edge.items():
        what = "the only one" if edge == "only" else f"the {edge} of those"
        yield Caution(_EVIDENCE, f"of {_numbers(several)} the best learning rate is {what} tried")


def _rest(recommendation: Recommendation) -> Iterable[Caution]:
    query = recommendation.query
    told = {caution.text for caution in _of_model(recommendation)}
    usual = ("peak memory, checkpoint size", "scores and times are those", "figures are those")
    for text in recommendation.warnings:
        if text.rstrip(".") in told or text.startswith(FLAGGED):
            continue
        common = query.model is not None and text.startswith(usual)
        yield Caution(USUAL if common else _EVIDENCE, text.rstrip("."))

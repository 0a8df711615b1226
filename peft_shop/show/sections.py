"""What stands behind the first screen, a section at a time: why, ties, left out, how sure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from peft_shop.ask.reasons import amount, certainty, lead
from peft_shop.show.answer_notes import footnotes
from peft_shop.show.cautions import cautions
from peft_shop.show.documents import Document, Item, Listing
from peft_shop.show.figures import chance
from peft_shop.show.naming import briefly
from peft_shop.show.overview import entries, figure_text, objectives_of
from peft_shop.show.serving import serving_word

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from peft_shop.ask.candidates import Candidate
    from peft_shop.ask.places import FrontMember
    from peft_shop.ask.recommendation import Recommendation
    from peft_shop.catalog.benchmarks import Metric

__all__ = ["SECTIONS", "sections_document"]


def sections_document(recommendation: Recommendation, names: Sequence[str]) -> Document:
    """The sections of these names, in the usual order; keys of `SECTIONS`."""
    parts = [SECTIONS[name](recommendation) for name in SECTIONS if name in names]
    document = Document(title="", parts=tuple(part for part in parts if part.items))
    return briefly(recommendation.catalog, document)


def _why(recommendation: Recommendation) -> Listing:
    """One line for each member: whom it leads, and by how much."""
    objectives = objectives_of(recommendation)
    if not recommendation.query.ranked:
        return Listing("Why", ())
    items = [
        Item(f"{rank} {member.title}:", (_lead(recommendation, member, objectives),))
        for rank, member in enumerate(recommendation.front, start=1)
    ]
    return Listing("Why these (`peft-shop why NAME` tells all of one)", tuple(items))


def _lead(
    recommendation: Recommendation, front_member: FrontMember, objectives: Sequence[Metric]
) -> str:
    first, others = objectives[0], objectives[1:]
    if first.id not in front_member.values:
        return front_member.why
    kept = [
        other
        for group in (recommendation.front, recommendation.ties, recommendation.dominated)
        for other in group
    ]
    rivals = [
        other
        for other in kept
        if other is not front_member and _cheaper(other, front_member, first, others)
    ]
    if not rivals:
        return f"least {' and '.join(metric.label for metric in others) or first.label} of all"
    rival = max(rivals, key=lambda other: (-lead(front_member, other, first), other.name))
    ahead = lead(front_member, rival, first)
    if ahead == 0:
        return f"level with {rival.name}, nothing as cheap is better"
    sure = certainty(front_member, rival, first)
    tail = f" ({sure})" if sure else ""
    return f"{amount(ahead, first)} ahead of {rival.name} at no more cost{tail}"


def _cheaper(
    other: Candidate, candidate: Candidate, first: Metric, others: Sequence[Metric]
) -> bool:
    return first.id in other.values and all(
        metric.id in other.values
        and metric.id in candidate.values
        and lead(other, candidate, metric) >= 0
        for metric in others
    )


def _ties(recommendation: Recommendation) -> Listing:
    metrics = objectives_of(recommendation)

    def item(candidate: Candidate, note: str) -> Item:
        texts = [figure_text(candidate, metric) for metric in metrics]
        if candidate.front_probability is not None:
            texts.append(f"again {chance(candidate.front_probability).text}")
        texts.append(serving_word(recommendation, candidate))
        return Item(candidate.name, (", ".join(texts) + note,))

    items = [item(tie, "") for tie in recommendation.ties]
    items += [item(one, "; may fit or may not") for one in recommendation.too_close]
    share = recommendation.query.confidence * 100
    return Listing(
        f"As good within noise: nothing is better beyond doubt (one-sided {share:g} %)",
        tuple(items),
    )


def _left_out(recommendation: Recommendation) -> Listing:
    """Every constraint with those that fail it; whoever fails several stands at each."""
    by_constraint: dict[str, list[str]] = {}
    for dropped in recommendation.dropped:
        for name in dict.fromkeys(failure.constraint for failure in dropped.failures):
            by_constraint.setdefault(name, []).append(dropped.name)
    ordered = sorted(by_constraint.items(), key=lambda pair: (-len(pair[1]), pair[0]))
    items = [Item(f"{name} ({len(names)}):", (", ".join(names),)) for name, names in ordered]
    if recommendation.unmeasured and recommendation.query.ranked:
        names = [unmeasured.method for unmeasured in recommendation.unmeasured]
        head = f"never measured here ({len(names)}):"
        items.append(Item(head, (", ".join(names),)))
    items += [
        Item("To let more in:", (relaxation.suggestion,))
        for relaxation in recommendation.relaxations
    ]
    return Listing("Left out, by constraint (`peft-shop why NAME` tells the figures)", tuple(items))


def _sure(recommendation: Recommendation) -> Listing:
    objectives = objectives_of(recommendation)
    warnings = cautions(recommendation, entries(recommendation), objectives)
    items = [Item("Careful:", (f"{one.text.rstrip('.')}.",)) for one in warnings]
    items += [
        Item("Careful:", (f"{rank} {member.title}: {member.warning}",))
        for rank, member in enumerate(recommendation.front, start=1)
        if member.warning
    ]
    items += [Item("-", (text,)) for text in footnotes(recommendation, objectives)]
    return Listing("How sure this is", tuple(items))


SECTIONS: Final[dict[str, Callable[[Recommendation], Listing]]] = {
    "why": _why,
    "ties": _ties,
    "left-out": _left_out,
    "sure": _sure,
}
"""Sections by the names of their flags."""

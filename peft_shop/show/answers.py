"""An answer as a document: everything that it holds, in the order in which it is argued."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from peft_shop.show.adaptations import adaptation_sentences
from peft_shop.show.answer_notes import failures, footnotes
from peft_shop.show.documents import Cell, Column, Document, Item, Listing, Row, Table, label
from peft_shop.show.doubts import again
from peft_shop.show.figures import chance, figure, heading, metric_column, signed
from peft_shop.show.questions import demands
from peft_shop.show.rates import rates_sentence
from peft_shop.show.routes import route_sentence
from peft_shop.show.setups import answer_setup, interval, setup_sentences
from peft_shop.show.trainers import acceptance_sentence
from peft_shop.units import format_quantity

if TYPE_CHECKING:
    from collections.abc import Sequence

    from peft_shop.ask.candidates import Candidate
    from peft_shop.ask.places import Baseline, Dropped, FrontMember, Unmeasured
    from peft_shop.ask.recommendation import Recommendation
    from peft_shop.catalog.benchmarks import Metric

__all__ = ["answer_document"]

_FURTHER: Final = ("train_time", "checkpoint_size", "trainable_parameters")
"""Metrics shown beside the objectives where the width allows."""
_TIES_SHOWN: Final = 8


def answer_document(recommendation: Recommendation, *, everything: bool = False) -> Document:
    """The answer: front, reasons, ties, baselines, and what to know before trusting it.

    Args:
        recommendation: the answer.
        everything: also list what is dominated and what was dropped.
    """
    objectives, further = _metrics(recommendation)
    asked = demands(recommendation)
    paragraphs = [f"Asked for: {'; '.join(asked)}."] if asked else []
    paragraphs.append(_counts(recommendation))
    paragraphs += recommendation.benchmark.caveats
    paragraphs += answer_setup(recommendation)
    parts: list[Table | Listing] = []
    if recommendation.front:
        parts += [
            _front_table(recommendation, objectives, further),
            _reasons(recommendation),
        ]
    if recommendation.relaxations:
        parts.append(
            Listing(
                "Nothing meets the constraints. What to relax",
                tuple(
                    Item("", (relaxation.suggestion,)) for relaxation in recommendation.relaxations
                ),
            )
        )
    if recommendation.ties:
        shown = None if everything else _TIES_SHOWN
        parts.append(_ties_table(recommendation, objectives, further, shown))
    if recommendation.too_close:
        shown = None if everything else _TIES_SHOWN
        parts.append(_too_close_table(recommendation, objectives, further, shown))
    if recommendation.baselines:
        parts.append(_baseline_table(recommendation, objectives, further))
    if recommendation.unmeasured:
        parts.append(_unmeasured(recommendation))
    if everything:
        parts += [
            _dominated_table(recommendation, objectives, further),
            _dropped_table(recommendation),
        ]
    title = f"{recommendation.benchmark.title}: {' and '.join(map(heading, objectives))}"
    if not recommendation.query.ranked and recommendation.query.model is not None:
        title = f"{recommendation.query.model.name}: methods that work on it, without a ranking"
    return Document(
        title=title,
        paragraphs=tuple(paragraphs),
        parts=tuple(parts),
        warnings=recommendation.warnings,
        footnotes=footnotes(recommendation, objectives),
    )


def _metrics(recommendation: Recommendation) -> tuple[list[Metric], list[Metric]]:
    """Objectives, the headline first, and what else is worth showing."""
    by_id = {metric.id: metric for metric in recommendation.metrics}
    headline = recommendation.benchmark.headline
    names = sorted(recommendation.query.objectives, key=lambda name: name != headline)
    bounded = [bound.metric for bound in recommendation.query.bounds]
    others = dict.fromkeys([headline, *bounded, *_FURTHER])
    return (
        [by_id[name] for name in names],
        [by_id[name] for name in others if name in by_id and name not in names],
    )


def _counts(recommendation: Recommendation) -> str:
    places = (
        (len(recommendation.front), "on the front"),
        (len(recommendation.ties), "tied with it"),
        (len(recommendation.dominated), "dominated"),
        (len(recommendation.too_close), "too close to call"),
    )
    kept = sum(count for count, _ in places)
    out = len(recommendation.dropped)
    unmeasured = len(recommendation.unmeasured)
    total = kept + out + unmeasured
    text = f"{kept} of {total} candidates were measured and meet every constraint"
    if not recommendation.query.ranked:
        text = f"{unmeasured} of {total} methods meet every constraint"
    if kept:
        text += f": {', '.join(f'{count} {place}' for count, place in places if count)}"
    if unmeasured and recommendation.query.ranked:
        text += f"; {unmeasured} more {'methods qualify' if unmeasured > 1 else 'method qualifies'}"
        text += " without a run here"
    if out:
        reasons = Counter(
            name
            for dropped in recommendation.dropped
            for name in dict.fromkeys(failure.constraint for failure in dropped.failures)
        )
        listed = ", ".join(f"{name} {count}" for name, count in reasons.most_common())
        text += f"; {out} dropped ({listed})"
    return text + "."


# --- tables ---


def _name(candidate: Candidate | Dropped) -> Cell:
    return Cell(candidate.title, candidate.name, candidate.name)


def _shared_columns(
    objectives: Sequence[Metric], further: Sequence[Metric], *, probability: bool = True
) -> tuple[Column, ...]:
    columns = [Column("name", "Configuration", least=30), Column("method", hidden=True)]
    columns += [metric_column(metric) for metric in objectives]
    if probability:
        columns.append(Column("front_probability", "P(front)", right=True))
    columns += [metric_column(metric, 2 + place) for place, metric in enumerate(further)]
    return tuple(columns)


def _shared_cells(
    candidate: Candidate,
    objectives: Sequence[Metric],
    further: Sequence[Metric],
    *,
    place: bool = True,
) -> tuple[Cell, ...]:
    found = [
        _name(candidate),
        label(candidate.method),
        *(figure(candidate, metric) for metric in objectives),
    ]
    if place:
        found.append(chance(candidate.front_probability))
    return (*found, *(figure(candidate, metric) for metric in further))


def _front_table(
    recommendation: Recommendation, objectives: Sequence[Metric], further: Sequence[Metric]
) -> Table:
    def row(rank: int, front_member: FrontMember) -> Row:
        name, *others = _shared_cells(front_member, objectives, further)
        # the rank has no column of its own: names need the width
        ranked = replace(name, text=f"{rank}. {name.text}")
        return Row((Cell(str(rank), rank), ranked, *others))

    return Table(
        key="front",
        title="Best configurations: nothing measured is better in one without being worse in "
        "another",
        columns=(Column("rank", hidden=True), *_shared_columns(objectives, further)),
        rows=tuple(row(rank, member) for rank, member in enumerate(recommendation.front, start=1)),
    )


def _reasons(recommendation: Recommendation) -> Listing:
    front = recommendation.front

    def texts(front_member: FrontMember) -> tuple[str, ...]:
        found = [
            *setup_sentences(recommendation, front_member),
            front_member.why,
            f"Gives up: {front_member.gives_up}",
        ]
        if front_member.warning:
            found.append(f"Careful: {front_member.warning}")
        if front_member.notes:
            found.append(f"Note: {'; '.join(front_member.notes).rstrip('.')}.")
        rates = rates_sentence(recommendation, front_member)
        found += [] if rates is None else [rates]
        found += [route_sentence(route) for route in front_member.routes.values()]
        found += [acceptance_sentence(taken) for taken in front_member.trainers.values()]
        found += adaptation_sentences(front_member)
        return tuple(found)

    return Listing(
        "Why these",
        tuple(
            Item(f"{rank}. {member.title}:", texts(member))
            for rank, member in enumerate(front, start=1)
        ),
    )


def _ties_table(
    recommendation: Recommendation,
    objectives: Sequence[Metric],
    further: Sequence[Metric],
    shown: int | None,
) -> Table:
    ties = recommendation.ties
    title = (
        "Ties: no run is better than these beyond doubt "
        f"(one-sided {recommendation.query.confidence * 100:g} %, {again(recommendation.query)})"
    )
    if shown is not None and len(ties) > shown:
        title += f"; the {shown} likeliest of {len(ties)}"
    return Table(
        key="ties",
        title=title,
        columns=(*_shared_columns(objectives, further), Column("because", hidden=True)),
        rows=tuple(
            Row((*_shared_cells(tie, objectives, further), label(tie.because)), note=tie.because)
            for tie in ties[:shown]
        ),
    )


def _too_close_table(
    recommendation: Recommendation,
    objectives: Sequence[Metric],
    further: Sequence[Metric],
    shown: int | None,
) -> Table:
    close = recommendation.too_close
    title = "Too close to call: these may fit or may not, and are compared with nothing"
    if shown is not None and len(close) > shown:
        title += f"; the first {shown} of {len(close)}"
    return Table(
        key="too_close",
        title=title,
        columns=(*_shared_columns(objectives, further), Column("because", hidden=True)),
        rows=tuple(
            Row(
                (*_shared_cells(one, objectives, further), label(one.because)),
                note=" ".join(setup_sentences(recommendation, one)),
            )
            for one in close[:shown]
        ),
    )


def _baseline_table(
    recommendation: Recommendation, objectives: Sequence[Metric], further: Sequence[Metric]
) -> Table:
    return Table(
        key="baselines",
        title="For orientation",
        columns=_shared_columns(objectives, further, probability=False),
        rows=tuple(
            Row(
                _shared_cells(baseline, objectives, further, place=False),
                note=_versus(recommendation, baseline, objectives),
            )
            for baseline in recommendation.baselines
        ),
    )


def _versus(
    recommendation: Recommendation, baseline: Baseline, objectives: Sequence[Metric]
) -> str:
    """Differences of the front members to one baseline: "Against it: #1 +3.2 points, ..."."""
    found = []
    for rank, member in enumerate(recommendation.front, start=1):
        for versus in member.versus:
            if versus.baseline != baseline.name or member.name == baseline.name:
                continue
            parts = [
                signed(versus.values[metric.id], metric)
                for metric in objectives
                if metric.id in versus.values
            ]
            if parts:
                found.append(f"#{rank} {', '.join(parts)}")
    return f"Against it: {'; '.join(found)}." if found else ""


def _unmeasured(recommendation: Recommendation) -> Listing | Table:
    if not recommendation.query.ranked:
        return _capable_table(recommendation)
    names = ", ".join(unmeasured.method for unmeasured in recommendation.unmeasured)
    return Listing("Meet every demand, but have no run on this benchmark", (Item("", (names,)),))


def _capable_table(recommendation: Recommendation) -> Table:
    """Methods that work on a model of which no benchmark tells anything."""

    def row(unmeasured: Unmeasured) -> Row:
        known = unmeasured.forecasted
        none = Cell("-")
        size = None if known is None else known.checkpoint_bytes
        texts = [*setup_sentences(recommendation, unmeasured), *unmeasured.notes]
        return Row(
            (
                Cell(unmeasured.title, unmeasured.method, unmeasured.method),
                Cell("not known") if known is None else label(interval(known.peak_memory)),
                none
                if known is None
                else Cell(f"{known.trainable_parameters:,}", known.trainable_parameters),
                none if size is None else Cell(format_quantity(size, "bytes"), size),
            ),
            note=" ".join(texts),
        )

    asked = recommendation.query.training is not None
    columns = (
        Column("name", "Method", least=24),
        Column("peak_memory", "Peak memory", right=True, hidden=not asked),
        Column("trainable_parameters", "Trainable", right=True, hidden=not asked),
        Column("checkpoint_bytes", "Checkpoint", right=True, hidden=not asked),
    )
    return Table(
        key="unmeasured",
        title="Work on it, as far as is known; the order says nothing",
        columns=columns,
        rows=tuple(map(row, recommendation.unmeasured)),
    )


def _dominated_table(
    recommendation: Recommendation, objectives: Sequence[Metric], further: Sequence[Metric]
) -> Table:
    return Table(
        key="dominated",
        title="Dominated",
        columns=(*_shared_columns(objectives, further), Column("dominated_by", hidden=True)),
        rows=tuple(
            Row(
                (*_shared_cells(candidate, objectives, further), label(candidate.dominated_by)),
                note=f"dominated by {candidate.dominated_by}",
            )
            for candidate in recommendation.dominated
        ),
    )


def _dropped_table(recommendation: Recommendation) -> Table:
    return Table(
        key="dropped",
        title="Dropped, with every constraint that each fails",
        columns=(Column("name", "Configuration", least=24), Column("reasons", "Fails", least=30)),
        rows=tuple(
            Row((_name(dropped), label(failures(dropped)))) for dropped in recommendation.dropped
        ),
    )

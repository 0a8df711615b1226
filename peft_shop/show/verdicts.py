"""Why one candidate stands where it stands in an answer, all constraints included."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peft_shop.ask.beside import orders_of
from peft_shop.ask.places import Unmeasured
from peft_shop.catalog.samples import sample_addresses
from peft_shop.errors import UnknownNameError
from peft_shop.show.adaptations import adaptation_sentences
from peft_shop.show.beside import agreement, beside_sentence
from peft_shop.show.documents import Cell, Column, Document, Item, Listing, Row, Table, label
from peft_shop.show.figures import chance, comparison, figures, quantity, signed
from peft_shop.show.questions import demands, provenance
from peft_shop.show.rates import rates_sentence
from peft_shop.show.routes import route_sentence
from peft_shop.show.samples import samples_sentence
from peft_shop.show.setups import setup_sentences
from peft_shop.show.trainers import acceptance_sentence

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from peft_shop.ask.candidates import Candidate
    from peft_shop.ask.places import (
        Baseline,
        Dominated,
        Dropped,
        FrontMember,
        Tied,
        TooClose,
    )
    from peft_shop.ask.recommendation import Recommendation
    from peft_shop.catalog.benchmarks import Metric
    from peft_shop.catalog.runs import Run

__all__ = ["why_document"]


def why_document(recommendation: Recommendation, name: str, *, hint: str | None = None) -> Document:
    """Where a candidate stands in the answer and why; for a method, where all its runs stand.

    Args:
        recommendation: the answer.
        name: a candidate, its run's id, a method, a variant, or `full_finetuning`.
        hint: added to the error when the name is unknown.

    Raises:
        UnknownNameError: nothing in the answer is called so; names the nearest.
    """
    explained = _Explanations(recommendation, name)
    if not explained.listings:
        valid = [*explained.seen, *(unmeasured.method for unmeasured in recommendation.unmeasured)]
        where = f"this asks about {recommendation.benchmark.id}"
        if recommendation.query.snapshot:
            where += f", snapshot {recommendation.query.snapshot}"
        raise UnknownNameError("candidate", name, valid, hint=hint or where)
    asked = demands(recommendation)
    return Document(
        title=f"{name} on {_where(recommendation)}",
        paragraphs=(
            *([f"Asked for: {'; '.join(asked)}."] if asked else []),
            *recommendation.benchmark.caveats,
        ),
        parts=(*explained.listings, explained.table()),
        footnotes=(provenance(recommendation),),
    )


class _Explanations:
    """One listing and one row per candidate that a name stands for."""

    def __init__(self, recommendation: Recommendation, name: str) -> None:
        by_id = {metric.id: metric for metric in recommendation.metrics}
        headline = recommendation.benchmark.headline
        self.metrics: list[Metric] = [
            by_id[one]
            for one in sorted(
                recommendation.query.objectives, key=lambda objective: objective != headline
            )
        ]
        self.recommendation = recommendation
        self.orders = orders_of(recommendation.catalog, recommendation.benchmark)
        self.listings: list[Listing] = []
        self.rows: list[Row] = []
        self.seen: dict[str, None] = {}
        self.name = name
        self.folded = name.lower().replace("-", "_")
        for rank, member in enumerate(recommendation.front, start=1):
            if self._is_meant(member.name, member.method, member.run):
                self._front(rank, member)
        groups: tuple[tuple[Iterable[Any], Callable[[Any], None]], ...] = (
            (recommendation.ties, self._tie),
            (recommendation.dominated, self._dominated),
            (recommendation.too_close, self._too_close),
            (recommendation.dropped, self._dropped),
            (
                (baseline for baseline in recommendation.baselines if _is_no_candidate(baseline)),
                self._baseline,
            ),
        )
        for group, explain in groups:
            for one in group:
                if self._is_meant(one.name, one.method, one.run):
                    explain(one)
        for absent in recommendation.unmeasured:
            if self._is_meant(absent.method, absent.method, None):
                self._unmeasured(absent)

    def table(self) -> Table:
        """The same for programs: a row per candidate."""
        keys = ("place", "name", "method", "front_probability", "reasons", "samples")
        return Table(
            "why",
            "",
            tuple(Column(key, hidden=True) for key in keys),
            tuple(self.rows),
        )

    def _is_meant(self, name: str, method: str, run: Run | None) -> bool:
        self.seen |= dict.fromkeys((name, method, *(run.variants if run is not None else ())))
        names = {name, method}
        if run is not None:
            names |= {run.experiment, run.id, *run.variants}
        return self.name in names or self.folded in names

    def _add(
        self,
        place: str,
        one: Candidate | Dropped | Unmeasured,
        name: str,
        texts: Sequence[tuple[str, str]],
        probability: float | None = None,
    ) -> None:
        title = one.title if one.title == name else f"{one.title}, {name}"
        addresses = self._samples(one)
        shown = [*texts]
        if addresses and (samples := self.recommendation.benchmark.samples):
            text = f"{addresses[0]} to _{len(addresses):02}, {samples_sentence(samples)}"
            shown.append(("Sample images", text))
        self.listings.append(
            Listing(
                f"{title}: {place}",
                tuple(Item(f"{head}:", (text,)) for head, text in shown if text),
            )
        )
        reasons = " | ".join(f"{head}: {text}" for head, text in texts if text)
        cells = (label(place), label(name), label(one.method), chance(probability), label(reasons))
        self.rows.append(Row((*cells, Cell("", " ".join(addresses) or None))))

    def _samples(self, one: Candidate | Dropped | Unmeasured) -> tuple[str, ...]:
        run = None if isinstance(one, Unmeasured) else one.run
        return () if run is None else sample_addresses(self.recommendation.benchmark, run)

    def _figures(self, candidate: Candidate) -> list[tuple[str, str]]:
        found = [("Figures", figures(candidate, self.metrics))]
        if candidate.front_probability is not None:
            found.append(("P(front)", chance(candidate.front_probability).text))
        if candidate.configurations > 1:
            found.append(
                ("Tried", f"{candidate.configurations} configurations of {candidate.method}")
            )
        row = None if self.orders is None else self.orders.row_of(candidate.run)
        if self.orders is not None and row is not None:
            text = f"{beside_sentence(self.orders, row)}. {agreement(self.orders)}"
            found.append(("Published beside yours", text))
        rates = rates_sentence(self.recommendation, candidate)
        found += [] if rates is None else [("Rates", rates)]
        found += [("Setup", text) for text in setup_sentences(self.recommendation, candidate)]
        if candidate.notes:
            found.append(("Notes", "; ".join(candidate.notes)))
        if candidate.retargeted is not None:
            found.append(("Your model", " ".join(adaptation_sentences(candidate))))
            if candidate.retargeted.tried:
                found.append(("On such a model", candidate.retargeted.tried))
        return found

    def _front(self, rank: int, front_member: FrontMember) -> None:
        texts = [
            *self._figures(front_member),
            ("Why", front_member.why),
            ("Gives up", front_member.gives_up),
        ]
        if front_member.warning:
            texts.append(("Careful", front_member.warning))
        texts += [("Serving", route_sentence(route)) for route in front_member.routes.values()]
        texts += [
            ("Training", acceptance_sentence(taken)) for taken in front_member.trainers.values()
        ]
        for difference in front_member.versus:
            if difference.baseline == front_member.name:
                continue
            parts = [
                f"{signed(difference.values[metric.id], metric)} of {metric.label}"
                for metric in self.metrics
                if metric.id in difference.values
            ]
            texts.append((f"Against {difference.baseline}", ", ".join(parts)))
        self._add(
            f"on the front, place {rank}",
            front_member,
            front_member.name,
            texts,
            front_member.front_probability,
        )

    def _tie(self, tied: Tied) -> None:
        texts = [*self._figures(tied), ("Tied because", tied.because)]
        self._add("tied with the front", tied, tied.name, texts, tied.front_probability)

    def _dominated(self, dominated: Dominated) -> None:
        winner = self.recommendation[dominated.dominated_by]
        text = f"{winner.name} is {comparison(winner, dominated, self.metrics)}"
        texts = [*self._figures(dominated), ("Dominated by", text)]
        self._add("dominated", dominated, dominated.name, texts, dominated.front_probability)

    def _too_close(self, too_close: TooClose) -> None:
        texts = [*self._figures(too_close), ("Why", too_close.because)]
        self._add("too close to call", too_close, too_close.name, texts)

    def _unmeasured(self, unmeasured: Unmeasured) -> None:
        text = (
            f"meets every demand, but no run of it on {_where(self.recommendation)} is on "
            "file, so it cannot be ranked"
        )
        texts = [("Why", text), ("What it is", unmeasured.summary)]
        texts += [
            ("Setup", sentence) for sentence in setup_sentences(self.recommendation, unmeasured)
        ]
        self._add("not measured", unmeasured, unmeasured.method, texts)

    def _dropped(self, dropped: Dropped) -> None:
        texts = [(failure.constraint, failure.reason) for failure in dropped.failures]
        if dropped.run is not None:
            values = [
                f"{metric.label} {quantity(dropped.run.metrics[metric.field], metric).text}"
                for metric in self.metrics
                if metric.field in dropped.run.metrics
            ]
            texts.append(("As measured", ", ".join(values)))
        count = len(dropped.failures)
        self._add(
            f"dropped, fails {count} constraint{'s' if count > 1 else ''}",
            dropped,
            dropped.name,
            texts,
        )

    def _baseline(self, baseline: Baseline) -> None:
        texts = [
            *self._figures(baseline),
            ("Why", "full fine-tuning is shown for orientation and is never a candidate"),
        ]
        self._add("baseline", baseline, baseline.name, texts)


def _where(recommendation: Recommendation) -> str:
    """What the answer is about: a benchmark, or the model where none is evidence."""
    model = recommendation.query.model
    if recommendation.query.ranked or model is None:
        return recommendation.benchmark.title
    return model.name


def _is_no_candidate(baseline: Baseline) -> bool:
    return baseline.kind == "full_finetuning"

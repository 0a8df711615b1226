"""A trial as documents: what it will do, and how far it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

from peft_shop.ask.reasons import amount
from peft_shop.show.documents import Cell, Column, Document, Item, Listing, Row, Table, label
from peft_shop.trial.costing import span
from peft_shop.trial.halving import half_of, yardstick_of
from peft_shop.trial.seeding import ROUNDS
from peft_shop.units import format_quantity

if TYPE_CHECKING:
    from peft_shop.catalog.benchmarks import Metric
    from peft_shop.trial.costing import Estimate
    from peft_shop.trial.records import Contestant, Protocol
    from peft_shop.trial.status import Progress, Status

__all__ = ["plan_document", "status_document"]

_OUTCOMES: Final = {
    "finished": "finished",
    "halved": "halved",
    "diverged": "diverged",
    "out_of_memory": "out of memory",
    "timeout": "too slow",
    "failed": "failed",
}


def plan_document(protocol: Protocol, left: Estimate) -> Document:
    """What a trial will do: data, candidates, rates, runs, and what they take."""
    asked = protocol.asked
    sizes = ", ".join(
        f"{split.examples} {name}"
        for name, split in (
            ("to train on", protocol.train),
            ("to choose rates", protocol.valid),
            ("to test", protocol.test),
            ("of general text", protocol.general),
        )
        if split is not None
    )
    candidates = len(protocol.contestants) - 1
    runs = (
        f"1 of the base, {candidates} x {asked.rates} rates, {candidates} x {_seeds(asked.seeds)}; "
        "up to 2 rates more for a candidate whose best rate is the outermost"
    )
    length = (
        f"{asked.steps} steps of {asked.batch_size} examples of at most {asked.max_length} tokens"
    )
    if protocol.accumulation > 1:
        length += f" in {protocol.accumulation} forward passes"
    if protocol.gradient_checkpointing:
        length += ", blocks run again in the backward pass"
    return Document(
        title=f"Trial {protocol.benchmark}: {candidates} candidates on {asked.model}",
        paragraphs=(
            f"Examples: {sizes}.",
            f"Every run: {length}, on {protocol.device} in {protocol.dtype}.",
            f"Scored by: {_scored(protocol)}.",
            f"Runs: {runs}.{_halving(protocol)}",
            f"Time, one run after another: {_time(left)}.",
        ),
        parts=(
            Table(
                key="candidates",
                title="Candidates",
                columns=(
                    Column("name", "Candidate", least=24),
                    Column("title", "Method"),
                    Column("rates", "Learning rates"),
                    Column("trainable_parameters", "Trainable", right=True, priority=1),
                    Column("peak_memory_bytes", "Peak memory", right=True, priority=1),
                ),
                rows=tuple(_candidate(each) for each in protocol.contestants[1:]),
            ),
            *_left_out(protocol.left_out),
        ),
        warnings=protocol.notes,
        footnotes=("Peak memory is a forecast with its 90 % interval.",),
    )


def status_document(status: Status, left: Estimate | None = None) -> Document:
    """How far a trial is, what failed and what is open."""
    outcomes = ", ".join(
        f"{number} {_OUTCOMES.get(name, name)}" for name, number in status.outcomes.items()
    )
    metric = status.score_metric
    paragraphs = [
        f"{status.done} of {status.total} runs have an outcome: {outcomes or 'none yet'}."
    ]
    if status.base_test_loss is not None:
        scored = "" if metric is None else f", {metric.label} {_figure(status.base_score, metric)}"
        paragraphs.append(f"The model as it is: test loss {status.base_test_loss:.4f}{scored}.")
    if status.smallest_difference is not None:
        shown = amount(status.smallest_difference, metric) if metric else None
        shown = shown or f"{status.smallest_difference:.4f} of test loss"
        paragraphs.append(f"Seeds and test examples can show differences from {shown} on.")
    if left is not None and left.runs:
        paragraphs.append(f"Time for what is left: {_time(left)}.")
    failed = tuple(
        Item(f"{each.run}: {_OUTCOMES.get(each.outcome, each.outcome)}", (each.detail[-600:],))
        for each in status.failed
    )
    kept = tuple(Item(folder, ()) for folder in status.adapters)
    return Document(
        title=f"Trial {status.benchmark}",
        paragraphs=tuple(paragraphs),
        parts=(
            Table(
                key="candidates",
                title=f"Candidates, best mean {metric.label if metric else 'test loss'} first",
                columns=(
                    Column("name", "Candidate", least=24),
                    Column("rates", "Validation loss by learning rate", least=20),
                    Column("chosen", "Chosen", right=True),
                    Column("seeds", "Seeds", right=True),
                    Column("test_loss", "Test loss", right=True),
                    *(() if metric is None else (Column("score", metric.title, right=True),)),
                ),
                rows=tuple(_progress(each, metric) for each in status.candidates),
            ),
            *_undecided(status),
            *((Listing("Without figures", failed),) if failed else ()),
            *((Listing("Adapters, in the trial's folder", kept),) if kept else ()),
            *_left_out(status.left_out),
        ),
        warnings=status.notes,
    )


def _scored(protocol: Protocol) -> str:
    """What test examples are scored by."""
    asked = protocol.asked
    texts = {
        "loss": "the loss of the test examples",
        "exact_match": "answers that are generated and equal to the reference, and the loss",
        "choice": "whether the right completion is the likeliest choice, and the loss",
        "accuracy": f"whether the likeliest of {len(protocol.labels)} classes is right, and the "
        "loss",
    }
    if protocol.code is None:
        return texts[asked.scored_by]
    return f"{protocol.code.function} of your own file, and the loss"


def _candidate(contestant: Contestant) -> Row:
    count, peak = contestant.trainable_parameters, contestant.peak
    shown = "-"
    if peak is not None:
        low, value, high = (format_quantity(each, "bytes") for each in peak)
        shown = f"{value} ({low} to {high})"
    return Row(
        (
            label(contestant.name),
            label(contestant.title),
            label(", ".join(f"{rate:g}" for rate in contestant.rates)),
            Cell("-" if count is None else f"{count:,}", count),
            Cell(shown, None if peak is None else peak[1]),
        )
    )


def _figure(value: float | None, metric: Metric) -> str:
    return "-" if value is None else format_quantity(value, metric.unit)


def _progress(progress: Progress, metric: Metric | None) -> Row:
    rates = ", ".join(
        f"{rate}: {'-' if loss is None else f'{loss:.4f}'}" for rate, loss in progress.rates.items()
    )
    chosen = "-" if progress.chosen is None else f"{progress.chosen:g}"
    return Row(
        (
            label(progress.name),
            label(rates or "-"),
            Cell(chosen + (" (edge)" if progress.at_edge else ""), progress.chosen),
            Cell(str(progress.seeds), progress.seeds),
            Cell(
                "-" if progress.test_loss is None else f"{progress.test_loss:.4f}",
                progress.test_loss,
            ),
            *(() if metric is None else (Cell(_figure(progress.score, metric), progress.score),)),
        )
    )


def _undecided(status: Status) -> tuple[Listing, ...]:
    """Which pairs are open, and what would decide them."""
    items = []
    for pair in status.undecided:
        cures = []
        if pair.seeds is not None:
            cures.append(f"{pair.seeds} seeds")
        if pair.examples is not None:
            cures.append(f"{pair.examples} test examples")
        what = " or ".join(cures) if cures else "more seeds and more test examples together"
        text = f"not significantly worse than {pair.best}, by {pair.difference:.4f}; {what} would"
        items.append(Item(pair.other, (f"{text} decide",)))
    return (Listing("Undecided", tuple(items)),) if items else ()


def _halving(protocol: Protocol) -> str:
    half = half_of(protocol)
    if half is None:
        return ""
    return (
        f" Runs of the rates that are significantly worse at step {half} than those of "
        f"{yardstick_of(protocol).name} stop there."
    )


def _seeds(asked: int | Literal["auto"]) -> str:
    if asked == "auto":
        return f"{ROUNDS[0]} seeds, up to {ROUNDS[-1]} for those that stay tied"
    return f"{asked} seeds"


def _left_out(reasons: dict[str, str]) -> tuple[Listing, ...]:
    if not reasons:
        return ()
    items = tuple(Item(name, (reason,)) for name, reason in reasons.items())
    return (Listing("Left out", items),)


def _time(left: Estimate) -> str:
    if left.low is None or left.high is None:
        return f"not known ({left.because}; `trial plan --calibrate` tells)"
    return f"about {span(left.low, left.high)} ({left.because})"

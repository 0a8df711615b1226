"""How far a trial is: what ended how, what is left, how long that takes."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from peft_shop.catalog.benchmarks import Metric
from peft_shop.records import Finite, Frozen, Record, Text
from peft_shop.trial.evidence import catalog_of, edge_notes, halving_notes, sharing_notes
from peft_shop.trial.keeping import ADAPTER
from peft_shop.trial.metrics import metrics_of
from peft_shop.trial.stages import expected_jobs, next_jobs, seed_notes, sweep_of
from peft_shop.trial.undecided import Undecided, smallest_difference, undecided_pairs
from peft_shop.units import format_quantity

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peft_shop.trial.records import Protocol
    from peft_shop.trial.results import Result

__all__ = ["Failed", "Progress", "Status", "status_of"]


class Failed(Record):
    """A run that ended without figures.

    Attributes:
        run: its identifier.
        outcome: how it ended.
        detail: why.
    """

    run: Text
    outcome: Text
    detail: str


class Progress(Record):
    """How far one candidate is.

    Attributes:
        name: of the candidate.
        title: for people.
        rates: learning rates by validation loss after training; `None` where it did not finish.
        chosen: the rate for the seeds; `None` while it is not known.
        at_edge: whether it is the outermost that was tried.
        seeds: runs at that rate that finished [count].
        test_loss: their mean; `None` without one.
        score: mean of what their test examples were scored by; `None` for the loss alone.
    """

    name: Text
    title: Text
    rates: Frozen[dict[str, float | None]]
    chosen: Finite | None = None
    at_edge: bool = False
    seeds: int = 0
    test_loss: Finite | None = None
    score: Finite | None = None


class Status(Record):
    """How far a trial is.

    Attributes:
        benchmark: of the trial.
        done: runs with an outcome [count].
        total: runs of the whole trial, as far as can be told now [count].
        outcomes: runs by how they ended.
        seconds_left: training time of what is left, from the runs that finished, one at a time
            [s]; `None` while none has.
        base_test_loss: of the model as it is.
        score_metric: what test examples are scored by besides; `None` for the loss alone.
        base_score: of the model as it is, by that metric.
        candidates: how far each is, best first.
        failed: runs without figures.
        left_out: candidates that could not take part, with the reason.
        undecided: candidates that may be as good as the best one.
        smallest_difference: of two candidates that seeds and test examples can show, in the base
            unit of the score metric, or of the test loss where there is none; `None` while it is
            not known.
        notes: what to know of the data and the rates.
        adapters: folders of the adapters that were kept, inside the trial's.
    """

    benchmark: Text
    done: int
    total: int
    outcomes: Frozen[dict[str, int]]
    seconds_left: Finite | None = None
    base_test_loss: Finite | None = None
    score_metric: Metric | None = None
    base_score: Finite | None = None
    candidates: tuple[Progress, ...]
    failed: tuple[Failed, ...] = ()
    left_out: Frozen[dict[str, str]]
    undecided: tuple[Undecided, ...] = ()
    smallest_difference: Finite | None = None
    notes: tuple[str, ...] = ()
    adapters: tuple[Text, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether nothing is left to do."""
        return self.done >= self.total


def status_of(
    protocol: Protocol,
    results: Mapping[str, Result],
    *,
    foreign: int = 0,
    adapters: Sequence[str] = (),
) -> Status:
    """How far a trial is.

    Args:
        protocol: of the trial.
        results: by identifier of the run.
        foreign: result files that do not belong to the protocol [count].
        adapters: runs whose adapter was kept.
    """
    strangers = (
        (f"{foreign} result files are broken or of another protocol: they do not count",)
        if foreign
        else ()
    )
    base = next((each.measured for each in results.values() if each.job.stage == "base"), None)
    jobs = next_jobs(protocol, results)
    total = expected_jobs(protocol, results) if jobs or base is not None else len(results)
    spent = [
        each.measured.step_seconds
        for each in results.values()
        if each.measured is not None and each.job.stage != "base"
    ]
    left = total - len(results)
    failed = [
        each for each in results.values() if each.measured is None and each.outcome != "halved"
    ]
    catalog = catalog_of(protocol, results)
    names = [each.name for each in protocol.contestants[1:]]
    order = {contestant.name: place for place, contestant in enumerate(protocol.contestants)}
    return Status(
        benchmark=protocol.benchmark,
        done=len(results),
        total=total,
        outcomes=dict(sorted(Counter(each.outcome for each in results.values()).items())),
        seconds_left=left * sum(spent) / len(spent) if spent else None,
        base_test_loss=None if base is None else base.test_loss,
        score_metric=next(
            (each for each in metrics_of(protocol) if each.id == protocol.score_metric), None
        ),
        base_score=None if base is None else base.score,
        candidates=_candidates(protocol, results),
        failed=tuple(
            Failed(run=each.id, outcome=each.outcome, detail=each.detail)
            for each in sorted(failed, key=lambda each: (order[each.job.contestant], each.id))
        ),
        left_out=dict(protocol.left_out),
        undecided=undecided_pairs(catalog, names),
        smallest_difference=smallest_difference(catalog, names),
        notes=(
            *strangers,
            *protocol.notes,
            *edge_notes(protocol, results),
            *seed_notes(protocol, results),
            *halving_notes(protocol, results),
            *sharing_notes(results),
            *_memory_notes(protocol, results),
        ),
        adapters=tuple(f"runs/{name}/{ADAPTER}" for name in adapters),
    )


def _memory_notes(protocol: Protocol, results: Mapping[str, Result]) -> tuple[str, ...]:
    """What would let all fit, where some ran out of memory."""
    lost = {each.job.contestant for each in results.values() if each.outcome == "out_of_memory"}
    if not lost:
        return ()
    names = [
        each.name
        if each.peak is None
        else f"{each.name} (forecast {format_quantity(each.peak[1], 'bytes')})"
        for each in protocol.contestants
        if each.name in lost
    ]
    cures = []
    rest = protocol.asked.batch_size // protocol.accumulation
    if rest > 1:
        least = next(part for part in range(2, rest + 1) if rest % part == 0)
        cures.append(f"--accumulation {protocol.accumulation * least}")
    if not protocol.gradient_checkpointing:
        cures.append("--gradient-checkpointing")
    cures.append(f"less than --max-length {protocol.asked.max_length}")
    cure = f"a new trial with {' or '.join(cures)} needs less, for all candidates alike"
    return (f"out of memory: {', '.join(names)}; {cure}",)


def _candidates(protocol: Protocol, results: Mapping[str, Result]) -> tuple[Progress, ...]:
    progress = []
    for contestant in protocol.contestants[1:]:
        own = [each for each in results.values() if each.job.contestant == contestant.name]
        sweep = sweep_of(protocol, contestant, results)
        tests = [
            each.measured for each in own if each.job.stage == "seeds" and each.measured is not None
        ]
        scores = [measured.score for measured in tests if measured.score is not None]
        progress.append(
            Progress(
                name=contestant.name,
                title=contestant.title,
                rates={
                    f"{each.job.learning_rate:g}": (
                        None if each.measured is None else each.measured.valid_loss
                    )
                    for each in sorted(own, key=lambda each: each.job.learning_rate)
                    if each.job.stage == "rates"
                },
                chosen=sweep.chosen,
                at_edge=sweep.at_edge,
                seeds=len(tests),
                test_loss=sum(each.test_loss for each in tests) / len(tests) if tests else None,
                score=sum(scores) / len(scores) if scores else None,
            )
        )
    progress.sort(
        key=lambda each: (each.test_loss is None, -(each.score or 0.0), each.test_loss, each.name)
    )
    return tuple(progress)

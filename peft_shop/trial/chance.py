"""What chance adds to a trial's scores: seeds, and the choice of test examples."""

from __future__ import annotations

import math
from itertools import combinations
from typing import TYPE_CHECKING, Final

from peft_shop.ask.repeats import noise_of_seeds
from peft_shop.catalog.features import FULL_FINETUNING
from peft_shop.catalog.noise import Noise, Pairing
from peft_shop.trial.sampling import standard_error

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from peft_shop.catalog.benchmarks import Benchmark
    from peft_shop.catalog.runs import Run
    from peft_shop.trial.records import Job, Protocol
    from peft_shop.trial.results import Result

__all__ = ["experiment_of", "noise_of", "pairings_of"]

_NOISY: Final = ("test_loss", "valid_loss", "forgetting", "gain_over_base")
"""Losses that differ from seed to seed; the score does too."""


def experiment_of(job: Job) -> str:
    """Runs of the sweep are experiments of their own; those of the seeds are replicates of one."""
    if job.stage == "rates":
        return f"{job.contestant}-lr{job.learning_rate:g}"
    return job.contestant


def noise_of(protocol: Protocol, benchmark: Benchmark, runs: Sequence[Run]) -> list[Noise]:
    """Noise of the scores, from the seeds of all recipes but full fine-tuning."""
    names = {each.name for each in protocol.contestants}
    repeated = [run for run in runs if run.experiment in names and run.method != FULL_FINETUNING]
    noise: list[Noise] = []
    for name in dict.fromkeys((*_NOISY, benchmark.headline)):
        if name not in benchmark.metrics:
            continue
        observations = [
            (run.experiment, run.provenance.seed, run.metrics[name])
            for run in repeated
            if name in run.metrics
        ]
        noise += noise_of_seeds(
            observations,
            [experiment for experiment, _, _ in observations],
            benchmark=benchmark.id,
            metric=name,
        )
    return noise


def pairings_of(protocol: Protocol, results: Iterable[Result]) -> list[Pairing]:
    """What the choice of test examples adds to every difference of two experiments."""
    losses: dict[str, list[tuple[tuple[float, int], ...]]] = {}
    scores: dict[str, list[tuple[tuple[float, int], ...]]] = {}
    for result in sorted(results, key=lambda each: each.id):
        if result.measured is None or result.job.stage == "base":
            continue
        experiment = experiment_of(result.job)
        losses.setdefault(experiment, []).append(result.measured.test_items)
        if result.measured.score_items:
            items = tuple((score, 1) for score in result.measured.score_items)
            scores.setdefault(experiment, []).append(items)
    pairings = _paired(protocol, losses, ("test_loss", "gain_over_base"))
    if protocol.score_metric is not None:
        pairings += _paired(protocol, scores, (protocol.score_metric,))
    return pairings


def _paired(
    protocol: Protocol,
    items: Mapping[str, Sequence[tuple[tuple[float, int], ...]]],
    metrics: Sequence[str],
) -> list[Pairing]:
    """Pairings from what each example gave, and its weight, in every run of an experiment."""
    means = {
        name: [_mean_of(each) for each in zip(*runs, strict=True)] for name, runs in items.items()
    }
    counts = [weight for _, weight in next(iter(items.values()))[0]] if items else []
    if len(counts) < 2 or not sum(counts):
        return []
    pairings = []
    for a, b in combinations(sorted(means), 2):
        gaps = [mine - other for mine, other in zip(means[a], means[b], strict=True)]
        sd = standard_error(gaps, counts)
        pairings += [
            Pairing(benchmark=protocol.benchmark, a=a, b=b, metric=metric, sd=sd, items=len(counts))
            for metric in metrics
        ]
    return pairings


def _mean_of(items: Sequence[tuple[float, int]]) -> float:
    """Mean of what one example gave over some runs."""
    return math.fsum(value for value, _ in items) / len(items)

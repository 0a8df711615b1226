"""Results of a trial -> runs of its own benchmark, with their noise, in a catalog."""

from __future__ import annotations

import math
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Final

from peft_shop.ask.repeats import two_way
from peft_shop.catalog.catalog import SCHEMA_VERSION
from peft_shop.catalog.features import FULL_FINETUNING
from peft_shop.catalog.runs import (
    Benchmark,
    Curve,
    Metric,
    Noise,
    Pairing,
    Provenance,
    Run,
    Snapshot,
    Source,
)
from peft_shop.catalog.store import load
from peft_shop.scripts.data import TRAIN_FILE
from peft_shop.trial.records import BASE
from peft_shop.trial.sampling import standard_error
from peft_shop.trial.stages import next_jobs, sweep_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from peft_shop.catalog.catalog import Catalog
    from peft_shop.trial.records import Job, Measured, Protocol, Result

__all__ = ["OWN_METRICS", "benchmark_of", "catalog_of", "edge_notes", "without_paths"]

_UNSCORED: Final = 1e9
"""Floor of a benchmark whose base was not scored yet: nothing is below it."""
_NOISY: Final = ("test_loss", "valid_loss", "forgetting", "gain_over_base")
"""Metrics that differ from seed to seed."""
_LEAST_DEGREES: Final = 3
"""Degrees of freedom without which no noise is claimed."""
OWN_METRICS: Final = (
    Metric(
        id="test_loss",
        field="test_loss",
        title="Test loss",
        unit="score",
        better="lower",
        scope="score",
        description="Mean negative log-likelihood of the predicted tokens of the user's test "
        "examples [nats a token].",
    ),
    Metric(
        id="valid_loss",
        field="valid_loss",
        title="Validation loss",
        unit="score",
        better="lower",
        scope="score",
        description="The same on the validation examples, which choose the learning rate.",
    ),
    Metric(
        id="gain_over_base",
        field="gain_over_base",
        title="Gain over the base",
        unit="score",
        better="higher",
        scope="score",
        description="Test loss of the model as it is, less that of the trained one [nats a token].",
    ),
    Metric(
        id="cpu_time",
        field="cpu_seconds",
        title="Processor time of the steps",
        unit="seconds",
        better="lower",
        scope="time",
        tie_relative=0.05,
        description="Time that the processor worked in all training steps of a trial on the CPU; "
        "unlike the clock it hardly depends on what else the machine does.",
    ),
    Metric(
        id="eval_peak_memory",
        field="eval_peak_memory_bytes",
        title="Peak memory of scoring",
        unit="bytes",
        better="lower",
        scope="memory",
        tie=107374182.4,
        description="Largest amount of accelerator memory reserved while the trial scored a run.",
    ),
)
"""Metrics that only trials have."""
_SHARED: Final = (
    "forgetting",
    "peak_memory",
    "step_time",
    "checkpoint_size",
    "trainable_parameters",
    "total_parameters",
    "train_loss",
)
"""Metrics of the published benchmarks that trials have too, in the order of interest."""


def benchmark_of(
    protocol: Protocol, base: Measured | None = None, caveats: tuple[str, ...] = ()
) -> Benchmark:
    """The trial's own benchmark.

    Args:
        protocol: of the trial.
        base: what the model as it is scored: the floor. `None` before it was scored.
        caveats: what every answer from it must say.
    """
    asked = protocol.asked
    on_accelerator = protocol.device != "cpu"
    absent = {"forgetting"} if protocol.general is None else set()
    absent |= {"cpu_time"} if on_accelerator else {"peak_memory", "eval_peak_memory", "step_time"}
    other = "trainable_parameters" if protocol.general is None else "forgetting"
    own = [metric.id for metric in OWN_METRICS]
    names = [own[0], *_SHARED, *own[1:]]
    return Benchmark(
        id=protocol.benchmark,
        title=f"Trial {protocol.benchmark.removeprefix('trial_')}",
        model_id=asked.model,
        modality="text",
        description=(
            f"{protocol.train.examples} training examples, {asked.steps} steps of "
            f"{asked.batch_size} examples of at most {asked.max_length} tokens, on "
            f"{protocol.device} in {protocol.dtype}; scored on {protocol.test.examples} examples. "
            "Every candidate has the same steps, batches and number of learning rates."
        ),
        headline="test_loss",
        score="nats a token",
        objectives=("test_loss", other),
        caveats=caveats,
        metrics=tuple(name for name in names if name not in absent),
        floor=_UNSCORED if base is None else base.test_loss,
        floor_because="the test loss of the model as it is: what is above it learned nothing",
        protocol=protocol.digest,
    )


def catalog_of(
    protocol: Protocol, results: Mapping[str, Result], published: Catalog | None = None
) -> Catalog:
    """The trial as a catalog: its benchmark first, then the published ones.

    Args:
        protocol: of the trial.
        results: by identifier of the run.
        published: what else there is; the embedded catalog by default.
    """
    source = load() if published is None else published
    base = next(
        (result.measured for result in results.values() if result.job.stage == "base"), None
    )
    benchmark = benchmark_of(protocol, base, _caveats(protocol, results))
    finished = [result for result in results.values() if result.job.contestant != BASE]
    runs = [_run(protocol, result, base) for result in finished if result.measured is not None]
    runs.sort(key=lambda run: (run.experiment, run.provenance.seed, run.id))
    snapshot = Snapshot(
        id=protocol.benchmark,
        date=protocol.frozen_at[:10],
        source=protocol.benchmark,
        note="measured by the user's own trial",
    )
    own = Source(
        id=protocol.benchmark,
        project=f"the user's own trial {protocol.benchmark}",
        licence="whatever licence its owner gives it",
        date=protocol.frozen_at[:10],
        taken="Figures, recipes and versions of every run that finished; no text of the data.",
    )
    known = source.metric_by_id
    return source.model_copy(
        update={
            "schema_version": SCHEMA_VERSION,
            "metrics": (
                *source.metrics,
                *(metric for metric in OWN_METRICS if metric.id not in known),
            ),
            "benchmarks": (benchmark, *source.benchmarks),
            "sources": (*source.sources, own),
            "snapshots": (*source.snapshots, snapshot),
            "runs": (*runs, *source.runs),
            "pairings": (*_pairings(protocol, results.values()), *source.pairings),
            "noise": (*_noise(protocol, benchmark, runs), *source.noise),
        }
    )


def without_paths(catalog: Catalog) -> Catalog:
    """The catalog of a trial with the last name of every folder and file alone."""
    own = catalog.benchmarks[0]

    def bare(run: Run) -> Run:
        if run.benchmark != own.id:
            return run
        training = run.recipe.training
        options = {
            **training.options,
            TRAIN_FILE: Path(str(training.options[TRAIN_FILE])).name,
        }
        update = {"model_id": Path(training.model_id).name, "options": options}
        recipe = {"training": training.model_copy(update=update)}
        return run.model_copy(update={"recipe": run.recipe.model_copy(update=recipe)})

    benchmark = own.model_copy(update={"model_id": Path(own.model_id).name})
    return catalog.model_copy(
        update={
            "benchmarks": (benchmark, *catalog.benchmarks[1:]),
            "runs": tuple(map(bare, catalog.runs)),
        }
    )


def edge_notes(protocol: Protocol, results: Mapping[str, Result]) -> tuple[str, ...]:
    """Candidates whose chosen rate is the outermost that was tried."""
    names = [
        f"{contestant.name} ({sweep.chosen:g})"
        for contestant in protocol.contestants[1:]
        if (sweep := sweep_of(protocol, contestant, results)).at_edge
    ]
    if not names:
        return ()
    text = "the chosen learning rate is the outermost of those tried, a better one may lie beyond"
    return (f"{text}: {', '.join(names)}",)


def _caveats(protocol: Protocol, results: Mapping[str, Result]) -> tuple[str, ...]:
    """What an answer from these results must say."""
    failed: dict[str, set[str]] = {}
    for result in results.values():
        if result.measured is None:
            failed.setdefault(result.outcome.replace("_", " "), set()).add(result.job.contestant)
    lost = tuple(
        f"{outcome}: runs of {', '.join(sorted(names))}; `peft-shop trial status` tells why"
        for outcome, names in sorted(failed.items())
    )
    left = next_jobs(protocol, results)
    unfinished = ("the trial is not complete: what is missing may change the order",)
    return (*edge_notes(protocol, results), *lost, *(unfinished if left else ()))


def _run(protocol: Protocol, result: Result, base: Measured | None) -> Run:
    """A result as a run.

    Raises:
        ValueError: it did not finish.
    """
    measured, job = result.measured, result.job
    if measured is None:
        raise ValueError(f"{result.id} was not measured")
    contestant = protocol.contestant(job.contestant)
    return Run(
        benchmark=protocol.benchmark,
        experiment=_experiment(job),
        created_at=result.created_at,
        method=contestant.method,
        variants=contestant.variants,
        snapshots=(protocol.benchmark,),
        metrics=_metrics(protocol, measured, base),
        curve=Curve(
            steps=tuple(step for step, _ in measured.curve),
            scores=tuple(score for _, score in measured.curve),
        )
        if measured.curve
        else None,
        recipe=job.recipe(protocol),
        provenance=Provenance(
            source=protocol.benchmark,
            file=f"runs/{result.id}/result.json",
            packages=protocol.versions,
            accelerator=measured.device,
            seed=job.seed,
        ),
    )


def _experiment(job: Job) -> str:
    """Runs of the sweep are experiments of their own; those of the seeds are replicates of one."""
    if job.stage == "rates":
        return f"{job.contestant}-lr{job.learning_rate:g}"
    return job.contestant


def _metrics(protocol: Protocol, measured: Measured, base: Measured | None) -> dict[str, float]:
    figures: dict[str, float | None] = {
        "test_loss": measured.test_loss,
        "valid_loss": measured.valid_loss,
        "train_loss": measured.train_loss,
        "trainable_parameters": measured.trainable_parameters,
        "total_parameters": measured.total_parameters,
        "checkpoint_bytes": measured.checkpoint_bytes,
    }
    if base is not None:
        figures["gain_over_base"] = base.test_loss - measured.test_loss
        if measured.general_loss is not None and base.general_loss is not None:
            figures["forgetting"] = measured.general_loss - base.general_loss
    if protocol.device == "cpu":
        figures["cpu_seconds"] = measured.cpu_seconds
    else:
        figures["step_seconds"] = measured.step_seconds
        figures["peak_memory_bytes"] = measured.peak_memory_bytes
        figures["eval_peak_memory_bytes"] = measured.eval_peak_memory_bytes
    return {name: value for name, value in figures.items() if value is not None}


def _noise(protocol: Protocol, benchmark: Benchmark, runs: Sequence[Run]) -> list[Noise]:
    """Noise of the scores, from the seeds: what recipe and seed together leave open.

    What all recipes share of a seed says nothing of which one is better.
    """
    names = {each.name for each in protocol.contestants}
    repeated = [run for run in runs if run.experiment in names and run.method != FULL_FINETUNING]
    noise = []
    for name in _NOISY:
        if name not in benchmark.metrics:
            continue
        observations = [
            (run.experiment, run.provenance.seed, run.metrics[name])
            for run in repeated
            if name in run.metrics
        ]
        fit = two_way(observations) if observations else None
        if fit is None or fit.degrees < _LEAST_DEGREES:
            continue
        recipes = {observations[place][0] for place in fit.used}
        seeds = {observations[place][1] for place in fit.used}
        noise.append(
            Noise(
                benchmark=benchmark.id,
                metric=name,
                sd=fit.sd,
                degrees=fit.degrees,
                covers=("rerun", "seed"),
                method=f"{len(seeds)} seeds of {len(recipes)} recipes, two-way model",
            )
        )
    return noise


def _pairings(protocol: Protocol, results: Iterable[Result]) -> list[Pairing]:
    """What the choice of test examples adds to every difference of two experiments."""
    items: dict[str, list[tuple[tuple[float, int], ...]]] = {}
    for result in sorted(results, key=lambda each: each.id):
        if result.measured is not None and result.job.stage != "base":
            items.setdefault(_experiment(result.job), []).append(result.measured.test_items)
    means = {
        name: [_mean_of(each) for each in zip(*runs, strict=True)] for name, runs in items.items()
    }
    counts = [tokens for _, tokens in next(iter(items.values()))[0]] if items else []
    if len(counts) < 2 or not sum(counts):
        return []
    return [
        Pairing(
            benchmark=protocol.benchmark,
            a=a,
            b=b,
            metric=metric,
            sd=standard_error(
                [one - other for one, other in zip(means[a], means[b], strict=True)], counts
            ),
            items=len(counts),
        )
        for a, b in combinations(sorted(means), 2)
        for metric in ("test_loss", "gain_over_base")
    ]


def _mean_of(items: Sequence[tuple[float, int]]) -> float:
    """Mean loss of one example over some runs."""
    return math.fsum(loss for loss, _ in items) / len(items)

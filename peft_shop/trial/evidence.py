"""Results of a trial -> runs of its own benchmark, with their noise, in a catalog."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from peft_shop.catalog.catalog import SCHEMA_VERSION
from peft_shop.catalog.runs import Curve, Flag, Provenance, Run, Snapshot, Source
from peft_shop.catalog.store import load
from peft_shop.errors import PeftShopError
from peft_shop.records import compact_json
from peft_shop.scripts.data import LABELS, TRAIN_FILE
from peft_shop.trial.chance import experiment_of, noise_of, pairings_of
from peft_shop.trial.common_rate import common_rate_notes
from peft_shop.trial.halving import half_of, yardstick_of
from peft_shop.trial.metrics import benchmark_of, figures_of, metrics_of
from peft_shop.trial.records import BASE
from peft_shop.trial.stages import every_rate_job, next_jobs, seed_notes, sweep_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peft_shop.catalog.catalog import Catalog
    from peft_shop.catalog.noise import Noise, Pairing
    from peft_shop.trial.records import Protocol
    from peft_shop.trial.results import Measured, Result

__all__ = ["catalog_of", "edge_notes", "halving_notes", "sharing_notes", "without_paths"]

_PICKED: Final = Flag(
    code="artefact",
    reason="its own figures chose this learning rate and flatter it: the fresh seeds stand for it",
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
    shared = any(result.shared for result in results.values())
    benchmark = benchmark_of(protocol, base, shared=shared)
    finished = [result for result in results.values() if result.job.contestant != BASE]
    picked = _picked(results)
    runs = [
        _run(protocol, result, base, picked=result.id in picked, shared=shared)
        for result in finished
        if result.measured is not None
    ]
    runs += [_halved_run(protocol, result) for result in finished if result.outcome == "halved"]
    runs.sort(key=lambda run: (run.experiment, run.provenance.seed, run.id))
    noise = noise_of(protocol, benchmark, runs)
    pairings = pairings_of(protocol, results.values())
    caveats = (*_rate_notes(protocol, runs, noise, pairings), *_caveats(protocol, results))
    benchmark = benchmark.model_copy(update={"caveats": caveats})
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
                *(metric for metric in metrics_of(protocol) if metric.id not in known),
            ),
            "benchmarks": (benchmark, *source.benchmarks),
            "sources": (*source.sources, own),
            "snapshots": (*source.snapshots, snapshot),
            "runs": (*runs, *source.runs),
            "pairings": (*pairings, *source.pairings),
            "noise": (*noise, *source.noise),
        }
    )


def without_paths(catalog: Catalog) -> Catalog:
    """The catalog of a trial as it may be given away: last names of folders and files, no texts.

    Classes are numbered instead of named.

    Raises:
        PeftShopError: a path is left over somewhere; nothing may be given away then.
    """
    own = catalog.benchmarks[0]

    def bare(run: Run) -> Run:
        if run.benchmark != own.id:
            return run
        training = run.recipe.training
        options = {
            **training.options,
            TRAIN_FILE: Path(str(training.options[TRAIN_FILE])).name,
        }
        if LABELS in options:
            options[LABELS] = [f"class {place}" for place, _ in enumerate(options[LABELS])]
        update = {"model_id": Path(training.model_id).name, "options": options}
        recipe = {"training": training.model_copy(update=update)}
        return run.model_copy(update={"recipe": run.recipe.model_copy(update=recipe)})

    update = {"model_id": Path(own.model_id).name, "private": False}
    benchmark = own.model_copy(update=update)
    runs = tuple(map(bare, catalog.runs))
    secrets = {own.model_id} | {
        str(Path(str(run.recipe.training.options[TRAIN_FILE])).parent)
        for run in catalog.runs_by_benchmark[own.id]
    }
    mine = [benchmark, *(run for run in runs if run.benchmark == own.id)]
    given_away = compact_json([record.model_dump(mode="json") for record in mine])
    left = [
        path for path in sorted(secrets) if f'"{path}"' in given_away or f"{path}/" in given_away
    ]
    if left:
        raise PeftShopError(f"not given away: {left[0]} still stands in it")
    return catalog.model_copy(
        update={"benchmarks": (benchmark, *catalog.benchmarks[1:]), "runs": runs}
    )


def edge_notes(protocol: Protocol, results: Mapping[str, Result]) -> tuple[str, ...]:
    """Candidates whose chosen rate is the outermost that was tried."""
    names = [
        f"{contestant.name} ({sweep.chosen:g})"
        for contestant in sorted(protocol.contestants[1:], key=lambda each: each.name)
        if (sweep := sweep_of(protocol, contestant, results)).at_edge
    ]
    if not names:
        return ()
    text = "the chosen learning rate is the outermost of those tried, a better one may lie beyond"
    return (f"{text}: {', '.join(names)}",)


def _rate_notes(
    protocol: Protocol, runs: Sequence[Run], noise: Sequence[Noise], pairings: Sequence[Pairing]
) -> tuple[str, ...]:
    """Where one learning rate for all would have given another order."""
    headline = next(
        metric
        for metric in metrics_of(protocol)
        if metric.id == (protocol.score_metric or "test_loss")
    )
    swept = {
        experiment_of(job): contestant.name
        for contestant in protocol.contestants[1:]
        for job in every_rate_job(contestant)
    }
    return common_rate_notes(
        runs,
        swept,
        headline,
        [item for item in noise if item.metric == headline.id],
        {frozenset((pair.a, pair.b)): pair.sd for pair in pairings if pair.metric == headline.id},
    )


def halving_notes(protocol: Protocol, results: Mapping[str, Result]) -> tuple[str, ...]:
    """Who stopped at half the steps, and what that may hide."""
    rates: dict[str, list[float]] = {}
    for result in results.values():
        if result.outcome == "halved":
            rates.setdefault(result.job.contestant, []).append(result.job.learning_rate)
    if not rates:
        return ()
    names = []
    for name in sorted(rates):
        sweep = sweep_of(protocol, protocol.contestant(name), results)
        whole = sweep.chosen is None and not sweep.waiting
        listed = ", ".join(f"{rate:g}" for rate in sorted(rates[name]))
        names.append(f"{name} (out)" if whole else f"{name} ({listed})")
    than = f"significantly worse there than {yardstick_of(protocol).name}"
    text = f"halved at step {half_of(protocol)}, {than}: {', '.join(names)}"
    return (f"{text}; a method whose loss falls late is misjudged so",)


def sharing_notes(results: Mapping[str, Result]) -> tuple[str, ...]:
    """That runs went at the same time, and what is no evidence for that reason."""
    if not any(result.shared for result in results.values()):
        return ()
    return (
        "several runs at the same time (--share): memory and time are no metrics of this trial",
    )


def _caveats(protocol: Protocol, results: Mapping[str, Result]) -> tuple[str, ...]:
    """What an answer from these results must say."""
    failed: dict[str, set[str]] = {}
    for result in results.values():
        if result.measured is None and result.outcome != "halved":
            failed.setdefault(result.outcome.replace("_", " "), set()).add(result.job.contestant)
    lost = tuple(
        f"{outcome}: runs of {', '.join(sorted(names))}; `peft-shop trial status` tells why"
        for outcome, names in sorted(failed.items())
    )
    left = next_jobs(protocol, results)
    unfinished = ("the trial is not complete: what is missing may change the order",)
    notes = (*edge_notes(protocol, results), *seed_notes(protocol, results))
    halved = halving_notes(protocol, results)
    spoiled = sharing_notes(results)
    return (*notes, *halved, *spoiled, *lost, *(unfinished if left else ()))


def _picked(results: Mapping[str, Result]) -> set[str]:
    """Runs of the sweep at a rate that they chose themselves, where fresh seeds stand for it."""
    fresh = {
        (result.job.contestant, result.job.learning_rate)
        for result in results.values()
        if result.job.stage == "seeds" and result.measured is not None
    }
    return {
        result.id
        for result in results.values()
        if result.job.stage == "rates"
        and (result.job.contestant, result.job.learning_rate) in fresh
    }


def _run(
    protocol: Protocol,
    result: Result,
    base: Measured | None,
    *,
    picked: bool = False,
    shared: bool = False,
) -> Run:
    """A result as a run; one that was `picked` for its own figures is flagged.

    Raises:
        ValueError: it did not finish.
    """
    measured, job = result.measured, result.job
    if measured is None:
        raise ValueError(f"{result.id} was not measured")
    contestant = protocol.contestant(job.contestant)
    return Run(
        benchmark=protocol.benchmark,
        experiment=experiment_of(job),
        created_at=result.created_at,
        method=contestant.method,
        variants=contestant.variants,
        snapshots=(protocol.benchmark,),
        metrics=figures_of(protocol, measured, base, shared=shared),
        curve=Curve(
            steps=tuple(step for step, _ in measured.curve),
            scores=tuple(score for _, score in measured.curve),
        )
        if measured.curve
        else None,
        recipe=job.recipe(protocol),
        flags=(_PICKED,) if picked else (),
        provenance=Provenance(
            source=protocol.benchmark,
            file=f"runs/{result.id}/result.json",
            packages=protocol.versions,
            accelerator=measured.device,
            seed=job.seed,
            published=contestant.published if job.stage == "seeds" else None,
        ),
    )


def _halved_run(protocol: Protocol, result: Result) -> Run:
    """A run that stopped at half its steps: it stays, with the reason why it is not ranked."""
    contestant = protocol.contestant(result.job.contestant)
    steps, loss = half_of(protocol), result.half_valid_loss
    flag = Flag(code="artefact", reason=result.detail or "halved")
    return Run(
        benchmark=protocol.benchmark,
        experiment=experiment_of(result.job),
        created_at=result.created_at,
        method=contestant.method,
        variants=contestant.variants,
        snapshots=(protocol.benchmark,),
        metrics={},
        curve=None if steps is None or loss is None else Curve(steps=(steps,), scores=(loss,)),
        recipe=result.job.recipe(protocol),
        flags=(flag,),
        provenance=Provenance(
            source=protocol.benchmark,
            file=f"runs/{result.id}/result.json",
            packages=protocol.versions,
            accelerator=protocol.device,
            seed=result.job.seed,
        ),
    )

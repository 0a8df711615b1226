"""Re-estimates the run-to-run noise of every metric from the runs on file.

Model, for one benchmark, metric and era: figure = experiment + batch + error, where an experiment
is one recipe and a batch is one combination of torch and transformers versions (for memory and
time, of one snapshot: the rented machine differs from batch to batch). The residual
variance of the least-squares fit is the noise; its 95 % interval comes from the chi-square
distribution. Only recipes that ran more than once count; runs that are flagged or below the floor
are left out. Where candidates are told by their settings, a recipe that ran under several names is
one, and is left out only where all its runs are below the floor. A method whose own variance is
significantly larger, be it that it trains less steadily or that its implementation changed in
between, gets an estimate of its own and does not enter that of the others.

Runs of one seed give a lower bound: another seed may move figures more.
"""

from __future__ import annotations

import json
import math
import tomllib
from collections import defaultdict
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import TYPE_CHECKING

from pydantic import ValidationError

from peft_shop.ask.quantiles import chi_square_quantile
from peft_shop.ask.repeats import separated
from peft_shop.catalog.diagnosis import problems_of
from peft_shop.catalog.features import FULL_FINETUNING
from peft_shop.catalog.noise import EraShift, Noise
from peft_shop.errors import CatalogError, Problem
from peft_shop.records import Record

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from peft_shop.ask.repeats import RunDeviation
    from peft_shop.catalog.benchmarks import Benchmark, Metric
    from peft_shop.catalog.catalog import Catalog
    from peft_shop.catalog.runs import Run

__all__ = ["NoiseModel", "dump", "estimate", "read_reported"]

_LEAST_DEGREES = 3
_SIGNIFICANT = 3


@dataclass(frozen=True, slots=True)
class NoiseModel:
    """Estimates by metric, and the shifts between eras."""

    noise: tuple[Noise, ...]
    era_shifts: tuple[EraShift, ...]


def read_reported(path: Path) -> tuple[Noise, ...]:
    """Noise that others reported, from `data/noise_reported.toml`; empty when there is no file.

    Raises:
        CatalogError: the file breaks its format; lists every mistake.
    """
    if not path.is_file():
        return ()
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        problem = Problem(str(path), "", f"not a TOML file: {error}")
        raise CatalogError("cannot read the reported noise", [problem]) from error
    try:
        return _Reported.model_validate(table).noise
    except ValidationError as error:
        problems = problems_of(error, _Reported, table, str(path))
        raise CatalogError("cannot read the reported noise", problems) from error


class _Reported(Record):
    noise: tuple[Noise, ...]


def estimate(catalog: Catalog, reported: Iterable[Noise] = ()) -> NoiseModel:
    """Noise of every metric that is neither a count nor a size, and the shifts between eras.

    Args:
        catalog: the runs.
        reported: used for metrics that the runs give no estimate of.
    """
    noise: list[Noise] = []
    shifts: list[EraShift] = []
    for benchmark in catalog.benchmarks:
        headline = catalog.metric_by_id[benchmark.headline]
        runs = _comparable(catalog.runs_by_benchmark[benchmark.id], benchmark, headline)
        for name in benchmark.metrics:
            metric = catalog.metric_by_id[name]
            if metric.retired or metric.scope not in {"score", "memory", "time"}:
                continue
            eras: list[str | None] = [None]
            if metric.scope == "score" and benchmark.eras:
                eras = [era.id for era in benchmark.eras]
            for era in eras:
                noise += _noise(benchmark, metric, era, runs)
        for older, newer in zip(benchmark.eras, benchmark.eras[1:], strict=False):
            shift = _shift(benchmark, headline, runs, older.id, newer.id)
            if shift is not None:
                shifts.append(shift)
    known = {(one.benchmark, one.metric) for one in noise}
    noise += [one for one in reported if (one.benchmark, one.metric) not in known]
    return NoiseModel(tuple(noise), tuple(shifts))


def dump(model: NoiseModel) -> bytes:
    """The model as `data/noise.json` holds it."""
    document = {
        "noise": [one.model_dump(mode="json", exclude_defaults=True) for one in model.noise],
        "era_shifts": [era_shift.model_dump(mode="json") for era_shift in model.era_shifts],
    }
    return (json.dumps(document, indent=1, ensure_ascii=False) + "\n").encode()


def _comparable(runs: Iterable[Run], benchmark: Benchmark, headline: Metric) -> list[Run]:
    """Runs that show what a recipe does: unflagged, measured, and not below the floor.

    Where runs are told by their settings, a recipe that reached the floor once stays with all its
    runs: to leave out those that failed would make it steadier than it is.
    """
    sound = [
        run
        for run in runs
        if run.method != FULL_FINETUNING and not run.flags and headline.field in run.metrics
    ]
    learned = [run for run in sound if run.metrics[headline.field] >= benchmark.floor]
    if not benchmark.told_by:
        return learned
    recipes = {_recipe(run, benchmark) for run in learned}
    return [run for run in sound if _recipe(run, benchmark) in recipes]


def _recipe(run: Run, benchmark: Benchmark) -> str:
    name = run.method if benchmark.told_by else run.experiment
    training = run.recipe.training.model_dump_json()
    return f"{name} {json.dumps(run.recipe.config, sort_keys=True)} {training}"


def _software(run: Run) -> str:
    packages = run.provenance.packages
    return f"{packages.get('torch')} {packages.get('transformers')}"


def _batch(run: Run, metric: Metric) -> str:
    """What runs share besides their recipe: software, and for speed the machine of that day too."""
    if metric.scope == "score":
        return _software(run)
    return f"{_software(run)} {run.snapshots[0] if run.snapshots else run.created_at[:10]}"


def _rounded(value: float) -> float:
    return float(f"{value:.{_SIGNIFICANT}g}")


def _noise(
    benchmark: Benchmark, metric: Metric, era: str | None, runs: Sequence[Run]
) -> Iterable[Noise]:
    """Noise of one metric: of most methods, then of those that have their own."""
    chosen = [run for run in runs if metric.field in run.metrics and era in {None, run.era}]
    relative = metric.scope == "time"
    estimates = separated(
        [
            (
                _recipe(run, benchmark),
                _batch(run, metric),
                math.log(run.metrics[metric.field]) if relative else run.metrics[metric.field],
            )
            for run in chosen
        ],
        [run.method for run in chosen],
    )
    if estimates.common is None or estimates.common.degrees < _LEAST_DEGREES:
        return
    groups: list[tuple[tuple[str, ...], RunDeviation]] = [((), estimates.common)]
    groups += [((method,), own) for method, own in sorted(estimates.own.items())]
    for methods, fit in groups:
        used = [chosen[i] for i in fit.used]
        software = len({_software(run) for run in used})
        same = "of the same software" if software == 1 else f"over {software} software versions"
        low, high = (
            _rounded(fit.sd * math.sqrt(fit.degrees / chi_square_quantile(end, fit.degrees)))
            for end in (0.975, 0.025)
        )
        yield Noise(
            benchmark=benchmark.id,
            metric=metric.id,
            era=era,
            sd=_rounded(fit.sd),
            low=low,
            high=high,
            degrees=fit.degrees,
            relative=relative,
            methods=methods,
            method=f"two-way model of re-runs {same}, one seed",
            runs=tuple(sorted(run.id for run in used)),
        )


def _shift(
    benchmark: Benchmark, metric: Metric, runs: Sequence[Run], older: str, newer: str
) -> EraShift | None:
    """Mean change of the score of recipes that ran in both eras, newest run against newest run."""
    groups: dict[str, dict[str | None, Run]] = defaultdict(dict)
    for run in sorted(runs, key=lambda run: run.created_at):
        groups[_recipe(run, benchmark)][run.era] = run
    changes = [
        group[newer].metrics[metric.field] - group[older].metrics[metric.field]
        for group in groups.values()
        if older in group and newer in group
    ]
    if len(changes) < 2:
        return None
    return EraShift(
        benchmark=benchmark.id,
        metric=metric.id,
        older=older,
        newer=newer,
        shift=_rounded(fmean(changes)),
        standard_error=_rounded(stdev(changes) / math.sqrt(len(changes))),
        pairs=len(changes),
    )

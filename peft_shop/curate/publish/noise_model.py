"""Re-estimates the run-to-run noise of every metric from the runs on file.

Model, for one benchmark, metric and era: figure = experiment + batch + error, where an experiment
is one recipe and a batch is one combination of torch and transformers versions (for memory and
time, of one snapshot: the rented machine differs from batch to batch). The residual
variance of the least-squares fit is the noise; its 95 % interval comes from the chi-square
distribution (Wilson-Hilferty approximation, within 1 % from five degrees on). Only
recipes that ran more than once count; runs that are flagged, below the floor or whose memory
shows that the method's implementation changed in between are left out.

All runs have one seed, so this noise is a lower bound: another seed may move figures more.
"""

from __future__ import annotations

import json
import math
import tomllib
from collections import defaultdict
from dataclasses import dataclass
from statistics import NormalDist, fmean, stdev
from typing import TYPE_CHECKING

from pydantic import ValidationError

from peft_shop.catalog.diagnosis import problems_of
from peft_shop.catalog.features import FULL_FINETUNING
from peft_shop.catalog.runs import EraShift, Noise
from peft_shop.errors import CatalogError, Problem
from peft_shop.records import Record

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from peft_shop.catalog.catalog import Catalog
    from peft_shop.catalog.runs import Benchmark, Metric, Run

__all__ = ["NoiseModel", "chi_square_quantile", "dump", "estimate", "read_reported", "two_way"]

_CHANGED_MEMORY = 0.25 * 2**30
"""Bytes by which peak memory of one recipe may differ between runs of one implementation: twenty
times the noise of that metric."""
_LEAST_DEGREES = 3
_SIGNIFICANT = 3


@dataclass(frozen=True, slots=True)
class NoiseModel:
    """Estimates by metric, and the shifts between eras."""

    noise: tuple[Noise, ...]
    era_shifts: tuple[EraShift, ...]


@dataclass(frozen=True, slots=True)
class Fit:
    """Result of a two-way fit.

    Attributes:
        sd: residual standard deviation.
        degrees: degrees of freedom.
        used: indices of the observations that entered.
    """

    sd: float
    degrees: int
    used: tuple[int, ...]


def chi_square_quantile(probability: float, degrees: float) -> float:
    """Quantile of the chi-square distribution (Wilson and Hilferty, 1931).

    >>> round(chi_square_quantile(0.975, 10), 1)
    20.5
    """
    width = 2 / (9 * degrees)
    z = NormalDist().inv_cdf(probability)
    return degrees * max(0.0, 1 - width + z * math.sqrt(width)) ** 3


def two_way(observations: Sequence[tuple[str, str, float]]) -> Fit | None:
    """Least-squares fit of value = row + column, or `None` with no degree of freedom left.

    Args:
        observations: (row, column, value); rows that occur once carry no information.
    """
    import numpy as np

    counts: dict[str, int] = defaultdict(int)
    for row, _, _ in observations:
        counts[row] += 1
    used = tuple(i for i, (row, _, _) in enumerate(observations) if counts[row] > 1)
    if not used:
        return None
    rows = sorted({observations[i][0] for i in used})
    columns = sorted({observations[i][1] for i in used})
    design = np.zeros((len(used), len(rows) + len(columns)))
    for k, i in enumerate(used):
        design[k, rows.index(observations[i][0])] = 1
        design[k, len(rows) + columns.index(observations[i][1])] = 1
    values = np.array([observations[i][2] for i in used])
    solution, _, rank, _ = np.linalg.lstsq(design, values)
    degrees = len(used) - int(rank)
    if degrees <= 0:
        return None
    residuals = values - design @ solution
    return Fit(math.sqrt(float(residuals @ residuals) / degrees), degrees, used)


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
            found = [_noise(benchmark, metric, era, runs) for era in eras]
            noise += [one for one in found if one is not None]
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
        "era_shifts": [one.model_dump(mode="json") for one in model.era_shifts],
    }
    return (json.dumps(document, indent=1, ensure_ascii=False) + "\n").encode()


def _comparable(runs: Iterable[Run], benchmark: Benchmark, headline: Metric) -> list[Run]:
    """Runs that show what a recipe does: unflagged, measured, and not below the floor."""
    return [
        run
        for run in runs
        if run.method != FULL_FINETUNING
        and not run.flags
        and headline.field in run.metrics
        and run.metrics[headline.field] >= benchmark.floor
    ]


def _recipe(run: Run) -> str:
    training = run.recipe.training.model_dump_json()
    return f"{run.experiment} {json.dumps(run.recipe.config, sort_keys=True)} {training}"


def _software(run: Run) -> str:
    packages = run.provenance.packages
    return f"{packages.get('torch')} {packages.get('transformers')}"


def _batch(run: Run, metric: Metric) -> str:
    """What runs share besides their recipe: software, and for speed the machine of that day too."""
    if metric.scope == "score":
        return _software(run)
    return f"{_software(run)} {run.snapshots[0] if run.snapshots else run.created_at[:10]}"


def _one_implementation(runs: Sequence[Run]) -> list[Run]:
    """Runs without the recipes whose memory changed: their method was rewritten in between."""
    groups: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        groups[_recipe(run)].append(run)
    kept: list[Run] = []
    for group in groups.values():
        memory = [run.metrics["peak_memory_bytes"] for run in group]
        if max(memory) - min(memory) <= _CHANGED_MEMORY:
            kept += group
    return kept


def _rounded(value: float) -> float:
    return float(f"{value:.{_SIGNIFICANT}g}")


def _noise(
    benchmark: Benchmark, metric: Metric, era: str | None, runs: Sequence[Run]
) -> Noise | None:
    chosen = _one_implementation(
        [run for run in runs if metric.field in run.metrics and era in {None, run.era}]
    )
    relative = metric.scope == "time"
    fit = two_way(
        [
            (
                _recipe(run),
                _batch(run, metric),
                math.log(run.metrics[metric.field]) if relative else run.metrics[metric.field],
            )
            for run in chosen
        ]
    )
    if fit is None or fit.degrees < _LEAST_DEGREES:
        return None
    used = [chosen[i] for i in fit.used]
    versions = {_software(run) for run in used}
    same = (
        "of the same software" if len(versions) == 1 else f"over {len(versions)} software versions"
    )
    return Noise(
        benchmark=benchmark.id,
        metric=metric.id,
        era=era,
        sd=_rounded(fit.sd),
        low=_rounded(fit.sd * math.sqrt(fit.degrees / chi_square_quantile(0.975, fit.degrees))),
        high=_rounded(fit.sd * math.sqrt(fit.degrees / chi_square_quantile(0.025, fit.degrees))),
        degrees=fit.degrees,
        relative=relative,
        method=f"two-way model of re-runs {same}, one seed",
        runs=tuple(sorted(run.id for run in used)),
    )


def _shift(
    benchmark: Benchmark, metric: Metric, runs: Sequence[Run], older: str, newer: str
) -> EraShift | None:
    """Mean change of the score of recipes that ran in both eras, newest run against newest run."""
    groups: dict[str, dict[str | None, Run]] = defaultdict(dict)
    for run in sorted(_one_implementation(runs), key=lambda run: run.created_at):
        groups[_recipe(run)][run.era] = run
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

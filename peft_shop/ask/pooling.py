"""Which runs stand for one recipe, and what their scores would read in another era."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from peft_shop.ask.replicates import UNFIT, alike

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from peft_shop.catalog.benchmarks import Benchmark, Metric
    from peft_shop.catalog.catalog import Catalog
    from peft_shop.catalog.noise import EraShift
    from peft_shop.catalog.runs import Run

__all__ = ["ALL_SNAPSHOTS", "Shifts", "runs_until", "same_recipe"]

ALL_SNAPSHOTS: Final = "all"


def runs_until(catalog: Catalog, on_file: Sequence[Run], snapshot: str | None) -> list[Run]:
    """Runs that were on file by the day of the snapshot: no answer looks past it.

    A run that was never current counts by its own day; the newest snapshot has nothing after it.
    """
    if snapshot in {None, ALL_SNAPSHOTS}:
        return list(on_file)
    dates = {one.id: one.date for one in catalog.snapshots}
    last = dates[snapshot]
    if last == max(dates.values()):
        return list(on_file)
    return [
        run
        for run in on_file
        if min((dates[name] for name in run.snapshots), default=run.created_at[:10]) <= last
    ]


def same_recipe(run: Run, on_file: Sequence[Run], *, any_era: bool) -> list[Run]:
    """Unflagged runs of the recipe of `run`, of any seed, itself first; of its era, or of any."""
    others = [
        other
        for other in on_file
        if other is not run
        and other.experiment == run.experiment
        and (any_era or other.era == run.era)
        and alike(other.recipe, run.recipe)
        and not any(flag.code in UNFIT for flag in other.flags)
    ]
    return [run, *sorted(others, key=lambda one: one.created_at)]


class Shifts:
    """Moves scores of older eras to the newest one."""

    def __init__(self, benchmark: Benchmark, shifts: Sequence[EraShift], catalog: Catalog) -> None:
        self.order = [era.id for era in benchmark.eras]
        self.shifts = shifts
        self.catalog = catalog

    def _steps(self, run: Run, metric: str) -> Iterable[tuple[str, EraShift]]:
        """Eras from that of `run` up to the newest, each with the shift to the next."""
        for step, era in enumerate(self.order[:-1]):
            if run.era is None or self.order.index(run.era) > step:
                continue
            for shift in self.shifts:
                if shift.older == era and shift.metric == metric:
                    yield era, shift

    def figure(self, run: Run, metric: Metric) -> float:
        """The figure of `run` as it would read in the newest era."""
        value = run.metrics[metric.field]
        for _, shift in self._steps(run, metric.id):
            value += shift.shift
            if metric.unit == "fraction":
                value = min(max(value, 0.0), 1.0)  # no share of the questions is negative
        return value

    def notes(self, values: Iterable[str], pool: Sequence[Run]) -> list[str]:
        """What was moved, once for every shift."""
        said = {
            f"{shift.metric} was measured in the {era!r} era and is shown shifted by "
            f"{shift.shift:+.4f} (standard error {shift.standard_error:.4f})": None
            for run in pool
            for metric in values
            for era, shift in self._steps(run, metric)
        }
        return list(said)

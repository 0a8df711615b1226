"""Runs of one recipe that differ in the seed alone: one candidate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from peft_shop.catalog.runs import Recipe, Run

__all__ = ["UNFIT", "alike", "is_unfit", "replicates"]

UNFIT: Final = frozenset({"broken_config", "artefact"})
"""Flags of runs whose figures are not what they seem."""


def is_unfit(run: Run | None) -> bool:
    """Whether a flag says that a run as a whole is not what it seems."""
    flags = () if run is None else run.flags
    return any(flag.code in UNFIT and not flag.metrics for flag in flags)


def alike(recipe: Recipe, other: Recipe) -> bool:
    """Whether two recipes differ in nothing but the seed."""
    if recipe.config != other.config:
        return False
    mine, theirs = recipe.training, other.training
    return mine == theirs or mine.model_copy(update={"seed": theirs.seed}) == theirs


def replicates(runs: Iterable[Run]) -> list[tuple[Run, ...]]:
    """Runs grouped by experiment, snapshots, era and recipe, each group by seed.

    A seed that stands twice in a group makes repeats, of which one is no better than another: such
    runs stand each for itself. Replicates that are flagged as unfit stand behind the others.
    """
    found: list[list[Run]] = []
    places: dict[tuple[str, tuple[str, ...], str | None], list[list[Run]]] = {}
    for run in runs:
        groups = places.setdefault((run.experiment, run.snapshots, run.era), [])
        for group in groups:
            if alike(group[0].recipe, run.recipe):
                group.append(run)
                break
        else:
            groups.append([run])
            found.append(groups[-1])
    return [group for runs_alike in found for group in _by_seed(runs_alike)]


def _by_seed(runs: Sequence[Run]) -> list[tuple[Run, ...]]:
    seeds = [run.recipe.training.seed for run in runs]
    if len(set(seeds)) < len(seeds):
        return [(run,) for run in runs]
    return [tuple(sorted(runs, key=_preference))]


def _preference(run: Run) -> tuple[bool, int]:
    return any(flag.code in UNFIT for flag in run.flags), run.recipe.training.seed

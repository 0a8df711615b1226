"""Adapters that a trial keeps: beside the result of their run, whole, and never in the catalog."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, get_args

from peft_shop.errors import UnknownNameError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from peft_shop.trial.records import Job
    from peft_shop.trial.results import Result

__all__ = ["ADAPTER", "Keep", "drop", "drop_worse", "keeps", "kept", "known", "settle"]

Keep: TypeAlias = Literal["best", "all"]
ADAPTER: Final = "adapter"
"""Where a training saves its adapter, inside the run's folder."""
_GOING: Final = "adapter.going"
_WEIGHTS: Final = "adapter_model.safetensors"


def known(keep: str | None) -> str | None:
    """The choice of adapters, where there is one.

    Raises:
        UnknownNameError: there is no such choice.
    """
    if keep is not None and keep not in get_args(Keep):
        raise UnknownNameError("choice of adapters", keep, get_args(Keep))
    return keep


def keeps(keep: str | None, job: Job) -> bool:
    """Whether the adapter of a run may have to stay: of `best` those of the seeds."""
    return keep == "all" or (keep == "best" and job.stage == "seeds")


def settle(place: Path) -> None:
    """Brings the adapter of a run onto the disk, so that its result may be written.

    Args:
        place: folder of the run.

    Raises:
        OSError: the disk refuses.
    """
    for path in sorted((place / ADAPTER).rglob("*")):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def drop(place: Path) -> None:
    """Takes the adapter of a run away: what has its name is whole at any time.

    Args:
        place: folder of the run.
    """
    shutil.rmtree(place / _GOING, ignore_errors=True)
    if (place / ADAPTER).is_dir():
        (place / ADAPTER).rename(place / _GOING)
        shutil.rmtree(place / _GOING, ignore_errors=True)


def kept(folder: Path, results: Mapping[str, Result]) -> tuple[str, ...]:
    """Identifiers of the runs whose adapter the trial in `folder` has, in order."""
    return tuple(
        name
        for name, result in sorted(results.items())
        if result.measured is not None and (folder / "runs" / name / ADAPTER / _WEIGHTS).is_file()
    )


def drop_worse(folder: Path, results: Mapping[str, Result]) -> None:
    """Leaves each candidate the adapter of its seeds with the best validation loss."""
    best: dict[str, tuple[float, str]] = {}
    for name in kept(folder, results):
        result = results[name]
        if result.measured is None or result.job.stage != "seeds":
            continue
        rank = (result.measured.valid_loss, name)
        held = best.setdefault(result.job.contestant, rank)
        if held != rank:
            best[result.job.contestant] = min(held, rank)
            drop(folder / "runs" / max(held, rank)[1])

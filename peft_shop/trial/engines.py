"""Where the runs of a trial happen: on this machine, or in a Ray cluster."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

from peft_shop.errors import QueryError, UnknownNameError
from peft_shop.trial.keeping import keeps, known
from peft_shop.trial.ray import cluster
from peft_shop.trial.running import Running

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from peft_shop.trial.driver import Attempt
    from peft_shop.trial.halving import Briefing
    from peft_shop.trial.records import Job, Protocol

__all__ = ["Engine", "demand_exclusive", "opened", "slots_of"]

Engine: TypeAlias = Literal["local", "ray"]
Start: TypeAlias = "Callable[[Job, Briefing], Attempt]"


def slots_of(engine: str, slots: int | None) -> int | None:
    """Runs at the same time: as asked, or one on this machine, or `None` for all that can be done.

    Raises:
        QueryError: no such number.
    """
    if slots is not None and slots < 1:
        raise QueryError(f"slots must be a whole number from 1 on, got {slots}")
    return 1 if slots is None and engine == "local" else slots


def demand_exclusive(
    protocol: Protocol, engine: str, slots: int | None, *, share: bool = False
) -> bool:
    """That each run has an accelerator of its own, or that the user does without memory and time.

    Args:
        protocol: what is equal for all.
        engine: where the runs happen.
        slots: runs at the same time.
        share: whether the user does.

    Returns:
        Whether runs may meet on an accelerator, so that their memory and time are no evidence.

    Raises:
        QueryError: they would, and the user did not say so; or a cluster, whose runs never do.
    """
    if engine != "local":
        if share:
            raise QueryError("in a cluster each run has a whole accelerator: leave out --share")
        return False
    together = slots is not None and slots > 1
    if together and protocol.device != "cpu" and not share:
        raise QueryError(
            f"{slots} runs at the same time on one {protocol.device} spoil each other's memory and "
            "time: say --share to do without those metrics, or leave out --slots"
        )
    return together and share


@contextlib.contextmanager
def opened(
    engine: str,
    folder: Path,
    protocol: Protocol,
    *,
    address: str | None = None,
    timeout: float | None = None,
    within: float | None = None,
    keep: str | None = None,
    shared: bool = False,
) -> Iterator[Start]:
    """Gives the function that begins a job; leaves nothing running behind.

    Args:
        engine: which one.
        folder: of the trial.
        protocol: what is equal for all.
        address: of a Ray cluster.
        timeout: after which a run is ended [s].
        within: time after which a run that still waits for its place is not begun [s].
        keep: which adapters stay: `best`, `all` or none.
        shared: whether runs may meet on an accelerator.

    Raises:
        UnknownNameError: there is no such engine.
        QueryError: an address for an engine that has none, or adapters from one that brings none.
        MissingExtraError: the engine is not installed.
        PeftShopError: it cannot be reached.
    """
    if engine not in get_args(Engine):
        raise UnknownNameError("engine", engine, get_args(Engine))
    if engine == "local":
        if address is not None:
            raise QueryError("an address belongs to a cluster: give the engine `ray` with it")
        stays = known(keep)
        yield lambda job, briefing: Running(
            folder,
            protocol,
            job,
            briefing,
            timeout=timeout,
            keep=keeps(stays, job),
            shared=shared,
        )
        return
    if known(keep) is not None:
        raise QueryError(
            "adapters stay where they were trained, and a cluster brings results alone: keep them "
            "with the engine `local`, or with `peft-shop trial run-one --keep` on a shared disk"
        )
    with cluster(folder, protocol, address=address, timeout=timeout, within=within) as start:
        yield start

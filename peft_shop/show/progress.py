"""What a command is doing, on the standard error while it takes long, for people or a log."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.progress import Progress

__all__ = ["progress_bar", "progress_bars", "waiting"]

_PATIENCE: Final = 0.7
"""How long nothing is said [s]."""


@contextlib.contextmanager
def waiting(what: str, *, shown: bool = True) -> Iterator[None]:
    """Tells what is being done, once it has taken a moment, if it is to be `shown` at all."""
    if not shown or not sys.stderr.isatty():
        yield
        return
    over = threading.Event()

    def tell() -> None:
        if over.wait(_PATIENCE):
            return
        from rich.console import Console
        from rich.text import Text

        with Console(stderr=True).status(Text(what)):
            over.wait()

    teller = threading.Thread(target=tell, daemon=True)
    teller.start()
    try:
        yield
    finally:
        over.set()
        teller.join()


@contextlib.contextmanager
def progress_bar(
    title: str, *, shown: bool = True, every: float | None = None
) -> Iterator[Callable[[int, int, str], None]]:
    """A function that is told the number of steps done, of all, and the next one's name.

    Args:
        title: what the steps are.
        shown: whether anything is.
        every: where there is no terminal, time between lines that say the same [s]; `None` for
            no lines.
    """
    if not shown or not sys.stderr.isatty():
        yield _lines(title, every if shown else None)
        return
    with _progress(remaining=True) as bar:
        yield _row(bar, title)


@contextlib.contextmanager
def progress_bars(
    title: str, part: str, *, every: float | None = None
) -> Iterator[tuple[Callable[[int, int, str], None], Callable[[int, int, str], None] | None]]:
    """Two functions as of `progress_bar`: for the whole, and for the part of it that is being done.

    Args:
        title: what the steps of the whole are.
        part: what the steps of the part are.
        every: where there is no terminal, time between lines about the whole [s]; nothing is told
            of the part then, and its function is `None`.
    """
    if not sys.stderr.isatty():
        yield _lines(title, every), None
        return
    with _progress(remaining=False) as bar:
        yield _row(bar, title), _row(bar, part)


def _progress(*, remaining: bool) -> Progress:
    """Bars on a terminal; `remaining`: with the time left, from the pace of the steps so far."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        *((TimeRemainingColumn(),) if remaining else ()),
        TextColumn("{task.fields[step]}", markup=False),
        console=Console(stderr=True),
        transient=True,
    )


def _row(bar: Progress, title: str) -> Callable[[int, int, str], None]:
    task = bar.add_task(title, total=None, step="")

    def tell(done: int, total: int, name: str) -> None:
        bar.update(task, completed=done, total=total, step=name)

    return tell


def _lines(title: str, every: float | None) -> Callable[[int, int, str], None]:
    """Writes a line from time to time, for a log."""
    last = time.monotonic()

    def tell(done: int, total: int, name: str) -> None:
        nonlocal last
        if every is not None and time.monotonic() - last >= every:
            last = time.monotonic()
            sys.stderr.write(f"{title}: {done} of {total}; {name}\n")
            sys.stderr.flush()

    return tell

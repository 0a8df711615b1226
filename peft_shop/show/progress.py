"""What a command is doing, on the standard error while it takes long; none without a terminal."""

from __future__ import annotations

import contextlib
import sys
import threading
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["progress_bar", "waiting"]

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
def progress_bar(title: str, *, shown: bool = True) -> Iterator[Callable[[int, int, str], None]]:
    """A function that is told the number of steps done, of all, and the next one's name."""
    if not shown or not sys.stderr.isatty():
        yield lambda _done, _total, _name: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[step]}", markup=False),
        console=Console(stderr=True),
        transient=True,
    ) as bar:
        task = bar.add_task(title, total=None, step="")

        def tell(done: int, total: int, name: str) -> None:
            bar.update(task, completed=done, total=total, step=name)

        yield tell

"""Who is told of work that takes long: a bar on the terminal, or nobody."""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Tell: TypeAlias = Callable[[int, int, str], None]

__all__ = ["told", "watched"]

_WATCHER: Final[ContextVar[Tell | None]] = ContextVar("watcher", default=None)


@contextmanager
def watched(tell: Tell) -> Iterator[None]:
    """Within it `tell` hears the number of steps done, of all, and the next one's name."""
    token = _WATCHER.set(tell)
    try:
        yield
    finally:
        _WATCHER.reset(token)


def told(done: int, total: int, name: str) -> None:
    """Tells whoever watches."""
    tell = _WATCHER.get()
    if tell is not None:
        tell(done, total, name)

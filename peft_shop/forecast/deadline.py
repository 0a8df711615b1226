"""When dry runs are to end, whatever they are at: without its kernels a model steps slowly."""

from __future__ import annotations

import time
from contextlib import contextmanager
from contextvars import ContextVar
from math import inf
from typing import TYPE_CHECKING, Final

from peft_shop.errors import ForecastError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["OutOfTimeError", "check_time", "until"]

_END: Final[ContextVar[float]] = ContextVar("end", default=inf)


class OutOfTimeError(ForecastError):
    """A dry run that was ended: it says nothing of the model."""


@contextmanager
def until(end: float) -> Iterator[None]:
    """Within it dry runs are ended at a time of the monotonic clock [s]."""
    token = _END.set(end)
    try:
        yield
    finally:
        _END.reset(token)


def check_time() -> None:
    """Raise where the time is up.

    Raises:
        OutOfTimeError: it is.
    """
    if time.monotonic() > _END.get():
        msg = "the time for dry runs was up"
        raise OutOfTimeError(msg)

"""Other libraries keep still: their advice about training and generation is no answer to anyone."""

from __future__ import annotations

import contextlib
import logging
import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["quiet", "quiet_loggers"]

_LOGGERS = ("transformers", "diffusers")


@contextlib.contextmanager
def quiet_loggers() -> Iterator[None]:
    """Within it the libraries log errors alone; warnings of Python still pass."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        yield
    finally:
        for one, level in zip(loggers, levels, strict=True):
            one.setLevel(level)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Within it neither logs nor warnings of Python are heard."""
    with quiet_loggers(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield

"""Standard streams that may be closed, full, left by their reader or of a narrow encoding."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING, Any, Final

from peft_shop.errors import PeftShopError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["READER_GONE", "guarded_streams", "in_encoding"]

READER_GONE: Final = 141
"""128 + SIGPIPE, as shells report it."""
# for terminals that cannot show the originals
_PLAIN: Final = str.maketrans({"↑": "^", "↓": "v", "─": "-", "±": "+-", "\xa0": " ", "³": "3"})
_MODES: Final = (os.O_RDONLY, os.O_RDONLY, os.O_WRONLY)
"""For closed streams: whoever writes an answer to a closed output is told so."""


def in_encoding(text: str, encoding: str | None) -> str:
    """The text as `encoding` can show it."""
    name = encoding or "utf-8"
    try:
        text.encode(name)
    except UnicodeEncodeError:
        return text.translate(_PLAIN).encode(name, "replace").decode(name)
    return text


class _Guarded:
    """A text stream whose failures are an exit code or an error of our own."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Writes text as the stream can show it."""
        with self._guard():
            self._stream.write(in_encoding(text, self._stream.encoding))
        return len(text)

    def flush(self) -> None:
        """Writes what is held back."""
        with self._guard():
            self._stream.flush()

    @contextlib.contextmanager
    def _guard(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            self._silence()
            raise SystemExit(READER_GONE) from None
        except OSError as error:
            self._silence()
            reason = error.strerror or error
            raise PeftShopError(f"cannot write to the standard output: {reason}") from None

    def _silence(self) -> None:
        """Lets what is still held back go nowhere: the interpreter flushes when it ends."""
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)


class _Quiet(_Guarded):
    """The error stream: where it cannot be written to there is nobody to be told."""

    @contextlib.contextmanager
    def _guard(self) -> Iterator[None]:
        try:
            yield
        except OSError:
            self._silence()


@contextlib.contextmanager
def guarded_streams() -> Iterator[None]:
    """Standard output and error that fail without a traceback, while the context lasts.

    Closed descriptors are taken first, so that no file of ours becomes the standard output.
    """
    for number, mode in enumerate(_MODES):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, mode)  # the lowest that is free: this one
    before = sys.stdout, sys.stderr
    opened = [
        os.fdopen(number, "w", encoding="utf-8", closefd=False) if stream is None else stream
        for number, stream in enumerate(before, start=1)
    ]
    sys.stdout, sys.stderr = _Guarded(opened[0]), _Quiet(opened[1])
    try:
        yield
    finally:
        sys.stdout, sys.stderr = (opened[0], opened[1])

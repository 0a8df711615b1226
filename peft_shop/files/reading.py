"""Regular files read with a bound, and JSON from outside."""

from __future__ import annotations

import errno
import json
import math
import os
import re
import stat
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["compact_json", "no_file", "parse_json", "read_bounded", "regular_size"]

_DEPTH: Final = 100
_DIGITS: Final = 400
_MAYBE_HALF: Final = re.compile(rb"\\u[dD]|\xed[\xa0-\xbf]|\x00")
"""Escaped, as bytes of UTF-8, or in a text whose characters take more than one byte."""
_KINDS: Final = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISLNK, "a link that leads nowhere"),
)


def compact_json(value: Any) -> str:
    """One line of ASCII JSON that depends on the value alone: sorted keys, no spaces, no NaN.

    >>> compact_json({"b": [1, 2.5], "a": None})
    '{"a":null,"b":[1,2.5]}'
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def regular_size(path: Path) -> int:
    """Bytes of a regular file; never waits for a pipe and never opens a device.

    Raises:
        OSError: it is none, or cannot be looked at; `strerror` is fit for people.
    """
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise no_file(path, found.st_mode)
    return found.st_size


def read_bounded(path: Path, limit: int, what: str) -> bytes:
    """The bytes of a regular file that has at most `limit` of them.

    Args:
        path: the file; links are followed.
        limit: largest size [bytes].
        what: that it should be, such as `a configuration`, for the message.

    Raises:
        OSError: it is no regular file, is larger, or cannot be read; `strerror` is fit for people.
    """
    regular_size(path)
    # what lies there may have become a pipe since: then this does not wait for a writer
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with os.fdopen(handle, "rb") as stream:
        mode = os.fstat(stream.fileno()).st_mode
        if not stat.S_ISREG(mode):
            raise no_file(path, mode)
        content = stream.read(limit + 1)
    if len(content) > limit:
        size = f"{limit / 2**20:.3g} MiB" if limit >= 2**20 else f"{limit} bytes"
        raise OSError(errno.EFBIG, f"larger than {size}: too large for {what}", str(path))
    return content


def parse_json(content: bytes | str, *, infinite: bool = False) -> Any:
    """The JSON value of a text from outside, with bounds that no honest file reaches.

    Args:
        content: the text.
        infinite: whether Infinity and NaN may be there, as Python writes them; configurations of
            models have them.

    Raises:
        ValueError: it is not JSON, is nested deeper than 100, has a number of more than 400
            digits or one that is not finite, or half a character (a surrogate without its pair).
    """
    constant = float if infinite else _no_number
    try:
        value = json.loads(
            content, parse_constant=constant, parse_int=_whole_number, parse_float=_fraction
        )
    except RecursionError:
        msg = f"nested deeper than {_DEPTH}"
        raise ValueError(msg) from None
    level, depth = [value], 0
    while level := [inner for inner in level if isinstance(inner, dict | list)]:
        depth += 1
        if depth > _DEPTH:
            msg = f"nested deeper than {_DEPTH}"
            raise ValueError(msg)
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
    _refuse_half_characters(content, value)
    return value


def _refuse_half_characters(content: bytes | str, value: Any) -> None:
    """Texts that no file and no screen can take; few honest files have such an escape at all."""
    text = content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass")
    if not _MAYBE_HALF.search(text):
        return
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        msg = f"half a character, {error.object[error.start]!a}: a surrogate without its pair"
        raise ValueError(msg) from None


def _no_number(constant: str) -> float:
    msg = f"{constant} is not a number"
    raise ValueError(msg)


def _whole_number(text: str) -> int:
    if len(text) > _DIGITS:
        msg = f"a number of more than {_DIGITS} digits"
        raise ValueError(msg)
    return int(text)


def _fraction(text: str) -> float:
    if len(text) > _DIGITS:
        msg = f"a number of more than {_DIGITS} digits"
        raise ValueError(msg)
    value = float(text)
    return value if math.isfinite(value) else _no_number(text)


def no_file(path: Path, mode: int) -> OSError:
    """The error that says what lies at `path` instead of a regular file."""
    kind = next((name for is_kind, name in _KINDS if is_kind(mode)), "no file")
    code = errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
    return OSError(code, f"is {kind}, not a regular file", str(path))

"""What a call into peft tells: it worked, peft refused, it failed, or our set-up is wrong.

Refusals and mistakes of ours are matched by peft's own words; everything else that is raised
counts as a failure, with the error's last line kept. An exception whose origin is this package
is a programming error and propagates.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from peft_shop.catalog.methods import Capability
from peft_shop.errors import PeftShopError, ProbeError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from peft_shop.catalog.conditions import Circumstances
    from peft_shop.catalog.features import EvidenceLevel, Support
    from peft_shop.records import Number

__all__ = ["Outcome", "attempt", "found", "judge", "last_line", "order", "span"]

Kind: TypeAlias = Literal["done", "refused", "failed"]

_PACKAGE: Final = Path(__file__).resolve().parents[2]

MISCONFIGURED: Final = tuple(
    re.compile(pattern)
    for pattern in (
        r"should be a positive integer",
        r"must be a positive integer",
        r"must be (an even number|divisible|greater|positive|between)",
        r"should be (between|greater|divisible|a non-negative)",
        r"[Pp]lease specify",
        r"not found in the base model",
        r"`use_cache` must be False",
        r"Invalid combination of",
        r"task_ids (should not|cannot) be None",
        r"model has '\d+'",
        r"must be specified",
    )
)
"""Words with which peft complains of arguments: the probe's set-up is to blame."""

REFUSED: Final = tuple(
    re.compile(pattern, re.DOTALL)
    for pattern in (
        r"Target module .*not supported",
        r"Unsupported layer type",
        r"No layers? types? compatible",
        r"[Uu]nsupported .*(layer|module)",
        r"currently only adapters for",
        r"(does|do) not (support|work|allow)",
        r"(is|are) not supported",
        r"not supported for",
        r"not compatible with",
        r"not yet supported",
        r"currently only supports",
        r"[Oo]nly (supports|works|support)\b",
        r"supports only",
        r"only (allows|supported)",
        r"[Cc]annot (be merged|merge|combine|add|set)",
        r"cannot handle",
        r"[Ii]mpossible to merge",
        r"not possible to merge",
        r"[Mm]erging .*not",
        r"is not implemented",
        r"not implemented for",
        r"requires exactly one",
        r"Invalid or unsupported variant",
        r"Unknown initialization",
        r"Cannot pass `adapter_names` when",
    )
)
"""Words with which peft refuses a feature."""

_SHORTER: Final = tuple(
    (re.compile(pattern, re.DOTALL), words)
    for pattern, words in (
        # peft prints the whole module: its class says as much
        (
            r"Target module (?:of type )?(\w+)\(.*\) is not (?:supported|a plain).*",
            r"\1 is not supported",
        ),
        (
            r"(?:Target module|.*target modules) of type <class '[\w.]*?(\w+)'> .*",
            r"\1 is not supported",
        ),
        (r"No layers? types compatible with .*", "none of these layers is supported"),
        (r"The provided `peft_type` .* is not compatible with.*", "not a mixable type"),
        (r"Hotswapping only supports (\w+) but .*", r"only \1 is supported"),
        (r"When using multiple adapters,.*", ""),
        (r"(\w+) dispatch: attempting to run unimplemented.*?op='([\w.]+)'.*", r"\1 has no \2"),
    )
)
"""Long refusals and what they come to."""

SMALLEST: Final = 1e-6
"""Deviations below it are fp32 rounding and differ among machines."""

_REFUSING: Final = (ValueError, TypeError, NotImplementedError, RuntimeError, AttributeError)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one attempt came to.

    Attributes:
        kind: `done`, `refused` (peft says so) or `failed` (a crash).
        value: what the call returned, when done.
        message: the matched refusal or the crash's last line.
    """

    kind: Kind
    value: Any = None
    message: str = ""

    @property
    def done(self) -> bool:
        """Whether the call returned."""
        return self.kind == "done"

    @property
    def level(self) -> EvidenceLevel:
        """Evidence behind a refusal, which peft declares, or a crash on the way."""
        return "declared" if self.kind == "refused" else "injected"

    @property
    def note(self) -> str:
        """Words for a capability's note."""
        if self.kind == "failed":
            return f"failed: {self.message}"
        return f"refused: {self.message}" if self.kind == "refused" else ""


def last_line(error: BaseException, *, limit: int = 160) -> str:
    """The line that closes an error's traceback, shortened, free of addresses and folders."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else ""
    if text.endswith("(") and len(lines) > 1:  # a module printed whole: what is said comes last
        text = f"{text}...{lines[-1]}"
    return _clean(f"{type(error).__name__}: {text}" if text else type(error).__name__, limit)


def _clean(text: str, limit: int) -> str:
    text = re.sub(r"0x[0-9a-f]+", "0x...", text)
    text = re.sub(r"(?<![\w.<])(/[\w.+-]+){2,}/?", "<path>", text)
    text = " ".join(text.split())
    for pattern, words in _SHORTER:
        text = pattern.sub(words, text)
    return text if len(text) <= limit else text[: limit - 3].rstrip() + "..."


def _origin(error: BaseException) -> tuple[str, Path | None]:
    """Module and file of the innermost frame of the traceback: who raised."""
    trace = error.__traceback__
    if trace is None:
        return "", None
    while trace.tb_next is not None:
        trace = trace.tb_next
    module = str(trace.tb_frame.f_globals.get("__name__", ""))
    return module, Path(trace.tb_frame.f_code.co_filename).resolve()


def judge(error: Exception, *, proven: bool = False) -> Outcome:
    """The outcome that an error raised by peft stands for.

    Args:
        error: what was raised.
        proven: whether the same set-up worked before: then it is not to blame.

    Raises:
        ProbeError: the error complains of the probe's own arguments.
        Exception: `error` itself, when it comes from this package.
    """
    module, file = _origin(error)
    if isinstance(error, PeftShopError) or file is None or file.is_relative_to(_PACKAGE):
        raise error
    text = " ".join(str(error).split())
    if isinstance(error, _REFUSING) and module.split(".")[0] == "peft":
        if isinstance(error, NotImplementedError):
            return Outcome("refused", message=_clean(text, 160) or "NotImplementedError")
        if any(pattern.search(text) for pattern in REFUSED):
            return Outcome("refused", message=_clean(text, 160))
        if not proven and any(pattern.search(text) for pattern in MISCONFIGURED):
            msg = f"the set-up is wrong: {_clean(text, 300)}"
            raise ProbeError(msg) from error
    return Outcome("failed", message=last_line(error))


def attempt(call: Callable[[], Any], *, proven: bool = False) -> Outcome:
    """Outcome of `call`, which must do nothing but use peft and the host model.

    This is the one place that catches any error: a method's crash is a fact to record, whatever
    its type. Errors that begin in this package are not caught. `proven` says that the same
    set-up worked before, and so cannot be what peft complains of.

    Raises:
        ProbeError: peft complains of the probe's own arguments.
    """
    try:
        return Outcome("done", value=call())
    except Exception as error:  # noqa: BLE001 - a crash of any type is what is being observed
        return judge(error, proven=proven)


def found(
    support: Support,
    level: EvidenceLevel,
    note: str | None = None,
    *,
    environment: str = "cpu",
    measured: Mapping[str, Number] | None = None,
    conditions: tuple[Circumstances, ...] = (),
) -> Capability:
    """A capability as the probe observed it."""
    return Capability(
        support=support,
        level=level,
        note=note,
        environment=environment,
        measured=dict(measured or {}),
        conditions=conditions,
    )


_NOT_FINITE: Final = 1e9
"""Stands for an infinite deviation in `measured`, which holds finite numbers."""


def order(value: float) -> float:
    """Power of ten that `value` does not exceed, at least 1e-6: the same on every machine."""
    if not math.isfinite(value):
        return _NOT_FINITE
    return float(f"1e{math.ceil(math.log10(max(value, SMALLEST)) - 1e-9)}")


def span(value: float) -> str:
    """The decade that a deviation lies in, in words: `order` alone would read as the figure.

    >>> span(0.3)
    '0.1 to 1 of the largest output'
    """
    top = order(value)
    if top == _NOT_FINITE:
        return "more than any number: they are not finite"
    return f"{top / 10:g} to {top:g} of the largest output"

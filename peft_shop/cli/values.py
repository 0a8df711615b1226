"""What people type as the value of an option -> arguments of a question."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from peft_shop.ask.requirements import AnyOf, any_of
from peft_shop.catalog.features import SINGLES
from peft_shop.errors import QueryError, UnknownNameError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["limits", "names", "partial", "ranking", "settings", "split", "supported"]


def split(given: Sequence[str] | None) -> list[str]:
    """Names of an option that can be repeated and can hold lists with commas.

    Raises:
        QueryError: the option is there without a name: no demand would silently be made.
    """
    found = [name for text in given or () for name in re.split(r"[,\s]+", text) if name]
    if given and not found:
        raise QueryError(f"expected a name, got {given[0]!r}")
    return found


def names(option: str, given: Sequence[str] | None) -> list[str] | AnyOf | None:
    """All of the names, or one of those between bars; `None` when nothing is asked.

    Raises:
        QueryError: both forms at once, or no name.
    """
    found = split(given)
    if not any("|" in name for name in found):
        return found or None
    if len(found) > 1:
        raise QueryError(
            f"--{option}: a comma means all of these and a bar means one of these; use one of "
            f"them, not both in {', '.join(found)}"
        )
    return any_of(*(name for name in found[0].split("|") if name))


def limits(kind: str, given: Sequence[str] | None) -> dict[str, str]:
    """Bounds by `max_<metric>` or `min_<metric>`.

    Raises:
        QueryError: not METRIC=VALUE, or a metric twice.
    """
    found: dict[str, str] = {}
    for text in given or ():
        name, equals, value = text.partition("=")
        key = f"{kind}_{name.strip()}"
        if not equals or not name.strip() or not value.strip():
            raise QueryError(
                f"--{kind} {text}: expected METRIC=VALUE, such as --{kind} peak_memory=24GiB"
            )
        if key in found:
            raise QueryError(f"--{kind} {name.strip()} is given twice: {found[key]} and {value}")
        found[key] = value.strip()
    return found


_NEXT_NAME: Final = re.compile(r",(?=\s*[A-Za-z_-]+=)")
"""A comma before another NAME=; those inside a list of values stay."""


def settings(option: str, given: Sequence[str] | None) -> dict[str, str]:
    """Values by name, from NAME=VALUE; several in one option where a comma parts them.

    Raises:
        QueryError: not NAME=VALUE, or a name twice.
    """
    found: dict[str, str] = {}
    for text in (part for one in given or () for part in _NEXT_NAME.split(one)):
        name, equals, value = text.partition("=")
        if not equals or not name.strip() or not value.strip():
            raise QueryError(f"--{option} {text}: expected NAME=VALUE")
        if name.strip() in found:
            raise QueryError(f"--{option} {name.strip()} is given twice")
        found[name.strip()] = value.strip()
    return found


def ranking(text: str | None) -> str | dict[str, str] | None:
    """The name of an order, or weights: `test_accuracy=2,peak_memory=1`."""
    if text is None or "=" not in text:
        return text
    weights: dict[str, str] = {}
    for part in split([text]):
        name, equals, weight = part.partition("=")
        if not equals or not name or not weight:
            raise QueryError(f"--rank-by {text}: expected METRIC=WEIGHT, got {part!r}")
        if name in weights:
            raise QueryError(f"--rank-by: the weight of {name} is given twice")
        weights[name] = weight
    return weights


_GROUPS: Final = {"quantization": "quantization", "layer-type": "layer_type"}
"""Options whose values are capabilities, as written and as `--accept-partial` folds them."""


def supported(
    option: str, given: Sequence[str] | None, accepted: Sequence[str] | None
) -> list[str] | AnyOf | None:
    """Names whose capability must be there, or at least in part where `accepted` names the option.

    Raises:
        QueryError: both forms of lists at once, or no name.
    """
    found = names(option, given)
    folded = {name.replace("-", "_").lower() for name in split(accepted)}
    if found is None or _GROUPS[option] not in folded:
        return found
    if isinstance(found, AnyOf):
        return any_of(*(f"{name}:partial" for name in found.values))
    return [f"{name}:partial" for name in found]


def partial(singles: dict[str, bool | None], given: Sequence[str] | None) -> dict[str, str]:
    """Demands that partial support meets.

    Raises:
        UnknownNameError: not a capability with an option of its own.
        QueryError: the capability must also be absent.
    """
    valid = [single.id for single in SINGLES]
    found: dict[str, str] = {}
    for name in split(given):
        key = name.replace("-", "_").lower()
        if key in _GROUPS.values():
            continue
        if key not in valid:
            raise UnknownNameError("capability of --accept-partial", name, valid)
        if singles[key] is False:
            raise QueryError(f"--no-{name} and --accept-partial {name} contradict each other")
        found[key] = "partial"
    return found

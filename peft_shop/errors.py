"""Every deliberate failure of peft-shop.

PeftShopError
├── InputError              the question is malformed (exit code 2)
│   ├── UnknownNameError    a name that the catalog does not know, with the nearest ones
│   │   └── AmbiguousNameError  a name that several things have, with all of them
│   ├── QuantityError       a number or unit that cannot be read
│   └── QueryError          options that contradict each other or ask for the impossible
├── CatalogError            a catalog or data file breaks its format, all mistakes at once
│   └── CatalogVersionError the file was written for another schema
├── AdapterError            an adapter folder that cannot be read, all mistakes at once
├── IngestError             raw result files that cannot be taken in, all mistakes at once
├── ConversionError         an adapter that cannot be converted or merged
│   └── InexactError        it can, with a larger error than was allowed (exit code 1)
├── ConfigError             a recipe cannot become a configuration
│   ├── UnknownConfigKeyError  the installed peft does not know a key of the recipe
│   └── WeightsNeededError  its adapter cannot be made on a model without weights
├── ModelError              a model that cannot be inspected
├── ForecastError           a training step that cannot be forecast
├── ProbeError              a probe's own set-up is wrong
└── MissingExtraError       an optional dependency is absent; also an ImportError
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

__all__ = [
    "AdapterError",
    "AmbiguousNameError",
    "CatalogError",
    "CatalogVersionError",
    "ConfigError",
    "ConversionError",
    "ForecastError",
    "InexactError",
    "IngestError",
    "InputError",
    "Keyword",
    "MissingExtraError",
    "ModelError",
    "PeftShopError",
    "ProbeError",
    "Problem",
    "QuantityError",
    "QueryError",
    "UnknownConfigKeyError",
    "UnknownNameError",
    "WeightsNeededError",
    "nearest_names",
    "shown",
]

_LONGEST = 100
"""Characters of a value that a message shows."""


def nearest_names(name: str, valid: Iterable[str], *, limit: int = 3) -> tuple[str, ...]:
    """Valid names that look most like `name`, best first, at most `limit`."""
    options = sorted(set(valid))
    folded = {option.lower().replace("-", "_"): option for option in reversed(options)}
    key = name.lower().replace("-", "_")
    key = key[:_LONGEST]  # longer than any name, and the search takes the square of it
    close = difflib.get_close_matches(key, folded, n=limit, cutoff=0.5)
    inside = [option for option in folded if key and (key in option or option in key)]
    ranked = dict.fromkeys([*close, *sorted(inside, key=lambda o: (abs(len(o) - len(key)), o))])
    return tuple(folded[option] for option in list(ranked)[:limit])


def shown(value: object) -> str:
    """What was given, as a message shows it: its `repr`, cut, or its type where it has none.

    >>> shown("24GiB"), shown(10**9)
    ("'24GiB'", '1000000000')
    """
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 - a message must not fail over what it is about
        return f"a value of type {type(value).__name__}"
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}... (cut)"


@dataclass(frozen=True, slots=True)
class Keyword:
    """An argument named in a message, which every place spells in its own way.

    Attributes:
        name: as `recommend` has it, such as `max_peak_memory`.
        value: what it should be or was given as; `None` where only the argument is named.
    """

    name: str
    value: str | None = None

    def __str__(self) -> str:
        """The spelling of Python."""
        return f"{self.name}={'' if self.value is None else repr(self.value)}"


class PeftShopError(Exception):
    """Base of every failure that peft-shop raises on purpose."""


class InputError(PeftShopError):
    """The caller asked for something that cannot be asked.

    Attributes:
        parts: the message, with the arguments that it names as keywords.
        keyword: the argument that cannot be taken; `None` where it is about none or several.
    """

    _headed = True  # whether a message begins with its keyword

    def __init__(self, *parts: str | Keyword, keyword: str | None = None) -> None:
        self.parts = parts
        self.keyword = keyword
        super().__init__(self.spelt(str, keyword if keyword and self._headed else ""))

    def spelt(self, spell: Callable[[Keyword], str], head: str) -> str:
        """The message with every keyword as `spell` writes it.

        Args:
            spell: spelling of an argument inside the message.
            head: spelling of the argument that the message is about; may be empty.
        """
        text = "".join(part if isinstance(part, str) else spell(part) for part in self.parts)
        return f"{head}: {text}" if head else text


class UnknownNameError(InputError):
    """A name that is not in the vocabulary.

    Attributes:
        kind: what was expected, for example "metric".
        name: what was given.
        nearest: valid names that look like it, best first.
    """

    _headed = False  # the kind says it

    def __init__(
        self,
        kind: str,
        name: str,
        valid: Iterable[str],
        *,
        hint: str | None = None,
        keyword: str | None = None,
        usual: Iterable[str] = (),
    ) -> None:
        options = sorted(set(valid))
        self.kind = kind
        self.name = name
        self.nearest = nearest_names(name, options)
        message = f"unknown {kind} {shown(name)}"
        if self.nearest:
            message += "; did you mean " + " or ".join(repr(n) for n in self.nearest) + "?"
        elif options:
            first = [*usual] or options
            message += f"; valid are: {', '.join(first[:12])}" + (", ..." if first[12:] else "")
        if hint:
            message += f" ({hint})"
        super().__init__(message, keyword=keyword)


class AmbiguousNameError(UnknownNameError):
    """A name that may mean several things; `nearest` holds all of them."""

    _headed = True

    def __init__(
        self,
        kind: str,
        name: str,
        several: Iterable[str],
        *,
        hint: str | None = None,
        keyword: str | None = None,
    ) -> None:
        self.kind = kind
        self.name = name
        self.nearest = tuple(dict.fromkeys(several))
        message = f"{shown(name)} may be {', '.join(self.nearest)}: say which {kind} is meant"
        InputError.__init__(self, message + (f" ({hint})" if hint else ""), keyword=keyword)


class QuantityError(InputError):
    """A quantity such as "24GiB" or "45%" cannot be read, or has the wrong unit."""


class QueryError(InputError):
    """Options of one query contradict each other."""


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One mistake in one file.

    Attributes:
        path: the file, as the user named it.
        where: dotted place inside the file, such as `train_info.metrics[3].step`; may be empty.
        message: what is wrong and what was expected.
        hint: what to do next; may be empty.
    """

    path: str
    where: str
    message: str
    hint: str = ""

    def __str__(self) -> str:
        place = f"{self.path}: {self.where}" if self.where else self.path
        tail = f" ({self.hint})" if self.hint else ""
        return f"{place}: {self.message}{tail}"


_MOST_SHOWN: Final = 20
"""Mistakes that a message lists; whoever mends these runs again."""
_LONGEST_PROBLEM: Final = 300
"""Characters of one of them."""


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_PROBLEM else text[: _LONGEST_PROBLEM - 3] + "..."


class _ProblemsError(PeftShopError):
    """A failure that lists every mistake found, not only the first."""

    def __init__(self, summary: str, problems: Sequence[Problem] = ()) -> None:
        self.summary = summary
        self.problems = tuple(problems)
        lines = [f"  {_cut(str(problem))}" for problem in self.problems[:_MOST_SHOWN]]
        if len(self.problems) > _MOST_SHOWN:
            lines.append(f"  ... and {len(self.problems) - _MOST_SHOWN} more")
        super().__init__("\n".join([_cut(summary), *lines]))


class CatalogError(_ProblemsError):
    """A catalog or data file does not keep its format."""


class CatalogVersionError(CatalogError):
    """A catalog file was written for a schema that this version cannot read."""


class AdapterError(_ProblemsError):
    """The configuration of a saved adapter that cannot be read."""


class IngestError(_ProblemsError):
    """Raw result files that cannot be taken in."""


class ConfigError(PeftShopError):
    """A recipe cannot become a configuration of the installed peft."""


class UnknownConfigKeyError(ConfigError):
    """The installed peft does not know a key that the recipe needs."""


class WeightsNeededError(ConfigError):
    """A method's set-up reads weights, so that it cannot be wrapped around a model without any."""


class ConversionError(PeftShopError):
    """An adapter that cannot become a LoRA or be merged: what is wrong, and what to do instead."""


class InexactError(ConversionError):
    """What came out is further from the original than was allowed, so nothing was written.

    Attributes:
        report: a `ConversionReport` with everything that was measured.
    """

    def __init__(self, message: str, report: object) -> None:
        self.report = report
        super().__init__(message)


class ModelError(PeftShopError):
    """A model that cannot be inspected, or a name, folder or configuration that gives none."""


class ForecastError(PeftShopError):
    """A training step that cannot be forecast: why, and what to do instead."""


class ProbeError(PeftShopError):
    """The set-up of a capability probe is wrong; says nothing about the method."""


class MissingExtraError(PeftShopError, ImportError):
    """An optional dependency is not installed; the message has the install command."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        self.package = package
        self.extra = extra
        super().__init__(
            f"{purpose} needs {package}, which is not installed; "
            f"run: pip install 'peft-shop[{extra}]'"
        )

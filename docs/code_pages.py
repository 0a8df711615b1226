"""Reference pages made from the code: the Python interface, the command line, the errors."""

from __future__ import annotations

import inspect
import re
from dataclasses import fields as dataclass_fields
from dataclasses import is_dataclass
from enum import Enum
from functools import cached_property
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Union, get_args, get_origin

import peft_shop
from peft_shop import errors
from peft_shop.ask import candidates, places, query, recommend, recommendation, requirements
from peft_shop.catalog.catalog import Catalog
from peft_shop.conversion import report
from peft_shop.model import structure
from peft_shop.names import Bounds
from peft_shop.records import Record
from peft_shop.serve import cases, routes, trainers
from peft_shop.trial import costing, proposing, status
from peft_shop.trial import records as trial_records

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

GENERATED = "<!-- written by docs/generate.py: change the source it names, not this page -->"
SECTIONS = ("Args", "Attributes", "Raises", "Example")
_ENTRY = re.compile(r"^(\*{0,2}[\w`.]+): ?(.*)$")

# what an answer is made of, in the order in which a reader meets it
ANSWER_RECORDS: tuple[type[Record], ...] = (
    recommendation.Recommendation,
    candidates.Candidate,
    places.FrontMember,
    places.Tied,
    places.Dominated,
    places.Unmeasured,
    places.Dropped,
    places.Baseline,
    places.Difference,
    places.Relaxation,
    routes.Route,
    cases.Way,
    trainers.Acceptance,
    trainers.Lost,
)
CONVERSION_RECORDS: tuple[type[Record], ...] = (
    report.ConversionReport,
    report.LayerReport,
    report.LogitsCheck,
)
MODEL_RECORDS: tuple[type[Record], ...] = (
    structure.Structure,
    structure.ModuleGroup,
    structure.Dimensions,
)
TRIAL_RECORDS: tuple[type[Record], ...] = (
    trial_records.Asked,
    status.Status,
    status.Progress,
    status.Failed,
    costing.Estimate,
    proposing.TrialPlan,
    proposing.Proposal,
)
QUESTION_RECORDS: tuple[type[Record], ...] = (
    query.Query,
    query.Requirement,
    query.Bound,
    query.Failure,
)


def catalog_records() -> tuple[type[Record], ...]:
    """Every record of the vocabulary that a catalog file holds, the catalog first."""
    found: list[type[Record]] = []

    def visit(cls: type[Record]) -> None:
        if cls in found:
            return
        found.append(cls)
        for field in cls.model_fields.values():
            for inner in _records_in(field.annotation):
                visit(inner)

    visit(Catalog)
    return tuple(found)


def _records_in(annotation: Any) -> Iterable[type[Record]]:
    if isinstance(annotation, type) and issubclass(annotation, Record):
        yield annotation
    for argument in getattr(annotation, "__args__", ()):
        yield from _records_in(argument)


# --- docstrings ---


def sections(text: str | None) -> tuple[str, dict[str, dict[str, str]], str]:
    """A Google docstring as prose, entries by section, and the example."""
    prose: list[str] = []
    entries: dict[str, dict[str, str]] = {}
    example: list[str] = []
    section, entry = "", ""
    for line in inspect.cleandoc(text or "").split("\n"):
        if line.rstrip(":") in SECTIONS and line.endswith(":"):
            section, entry = line[:-1], ""
            entries.setdefault(section, {})
        elif section == "Example":
            example.append(line.removeprefix("    "))
        elif section and line.strip():
            match = _ENTRY.match(line.removeprefix("    "))
            if match and not line.startswith("     "):
                entry = match[1].lstrip("*")
                entries[section][entry] = match[2]
            else:
                entries[section][entry] += " " + line.strip()
        elif line.startswith(">>> ") or example:
            example.append(line)
        elif not section:
            prose.append(line)
    return "\n".join(prose).strip(), entries, "\n".join(example).strip()


def one_line(text: str | None) -> str:
    """The first paragraph of a docstring on one line."""
    return " ".join(sections(text)[0].split("\n\n", maxsplit=1)[0].split())


def cell(text: object) -> str:
    """Text that fits into a cell of a table."""
    return re.sub(r"\s+", " ", str(text)).replace("|", "\\|").strip()


def table(columns: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """A Markdown table."""
    head = list(columns)
    lines = [head, ["---"] * len(head), *([cell(value) for value in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


# --- the Python interface ---


def api() -> str:
    """`reference/api.md`."""
    parts = [
        "# Python interface",
        GENERATED,
        (
            "Everything here is imported from `peft_shop`; the records of an answer need no "
            "import. Records are frozen, and unknown fields are forbidden. Bytes, seconds and "
            "fractions are plain numbers in base units."
        ),
        _contents(),
        "## Functions",
        _function("recommend", recommend.recommend),
        _bounds(),
        _function("any_of", requirements.any_of),
        _function("convert", peft_shop.convert),
        _function("load_catalog", peft_shop.load_catalog),
        _function("inspect_model", peft_shop.inspect_model),
        "## The answer",
        *(_record(cls, bases=True) for cls in ANSWER_RECORDS),
        "## The conversion",
        *(_record(cls) for cls in CONVERSION_RECORDS),
        "## A model of your own",
        _class("Target", peft_shop.Target),
        *(_record(cls) for cls in MODEL_RECORDS),
        "## A trial of your own",
        _class("Trial", peft_shop.Trial),
        *(_record(cls) for cls in TRIAL_RECORDS),
        "## The question, as the answer repeats it",
        *(_record(cls) for cls in QUESTION_RECORDS),
        "## The catalog",
        (
            "What `load_catalog()` returns and what the file holds. `catalog/README.md` and "
            "`data/README.md` tell the decisions behind the fields."
        ),
        *(_record(cls) for cls in catalog_records()),
        "## Failures",
        "See [errors](errors.md).",
    ]
    return "\n\n".join(parts) + "\n"


def _contents() -> str:
    return table(
        ("name", "what it is"),
        ((f"`{name}`", one_line(getattr(peft_shop, name).__doc__)) for name in peft_shop.__all__),
    )


def _signature(name: str, function: Callable[..., object]) -> str:
    lines, starred = [], False
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and not starred:
            lines.append("*")
            starred = True
        lines.append(_parameter(parameter))
    result = inspect.signature(function).return_annotation
    if len(lines) < 3:
        return f"{name}({', '.join(lines)}) -> {result}"
    return f"{name}(\n" + "".join(f"    {line},\n" for line in lines) + f") -> {result}"


def _parameter(parameter: inspect.Parameter) -> str:
    kind = parameter.kind
    stars = "*" if kind is parameter.VAR_POSITIONAL else ""
    stars = "**" if kind is parameter.VAR_KEYWORD else stars
    # annotations are text as written: every room postpones their evaluation
    typed = "" if parameter.annotation is parameter.empty else f": {parameter.annotation}"
    if parameter.default is parameter.empty:
        return f"{stars}{parameter.name}{typed}"
    return f"{stars}{parameter.name}{typed}{' = ' if typed else '='}{parameter.default!r}"


def _call(function: Callable[..., object]) -> str:
    parameters = list(inspect.signature(function).parameters.values())
    own = parameters[1:] if parameters and parameters[0].name in {"self", "cls"} else parameters
    parts, starred = [], False
    for parameter in own:
        if parameter.kind is parameter.KEYWORD_ONLY and not starred:
            parts.append("*")
            starred = True
        parts.append(_parameter(parameter))
    return f"({', '.join(parts)})"


def _function(name: str, function: Callable[..., object]) -> str:
    prose, entries, example = sections(function.__doc__)
    parts = [f"### `{name}`", f"```py\n{_signature(name, function)}\n```", prose]
    if "Args" in entries:
        rows = [
            (f"`{'**' if argument == 'bounds' else ''}{argument}`", text)
            for argument, text in entries["Args"].items()
        ]
        parts.append(table(("argument", "meaning"), rows))
    if "Raises" in entries:
        parts.append(_raises(entries["Raises"]))
    if example:
        parts.append(f"```pycon\n{example}\n```")
    return "\n\n".join(parts)


def _class(name: str, cls: type) -> str:
    """A class that is no record: its attributes and public methods."""
    prose, entries, _ = sections(cls.__doc__)
    rows = [(f"`{field}`", text) for field, text in entries.get("Attributes", {}).items()]
    for own, member in vars(cls).items():
        if isinstance(member, property) and not own.startswith("_"):
            rows.append((f"`{own}`", one_line(member.__doc__)))
        elif inspect.isfunction(member) and not own.startswith("_"):
            rows.append((f"`{own}()`", one_line(member.__doc__)))
        elif isinstance(member, classmethod):
            rows.append((f"`{own}()`", one_line(member.__func__.__doc__)))
    return "\n\n".join([f"### `{name}`", prose, table(("member", "meaning"), rows)])


def _raises(entries: dict[str, str]) -> str:
    return "Raises: " + " ".join(f"`{name}`: {text}" for name, text in entries.items())


def _bounds() -> str:
    metrics = dict.fromkeys(name.partition("_")[2] for name in Bounds.__annotations__)
    rows = [
        (f"`{metric}`", *(f"`{side}_{metric}`" for side in ("max", "min"))) for metric in metrics
    ]
    return (
        "#### Bounds\n\nA most and a least value for every metric; [metrics](metrics.md) says "
        "which benchmark has which.\n\n" + table(("metric", "at most", "at least"), rows)
    )


def _record(cls: type[Record], *, bases: bool = False) -> str:
    prose, entries, _ = sections(cls.__doc__)
    head = f"### `{cls.__name__}`"
    parent = cls.__mro__[1]
    if bases and parent is not Record:
        head += f"\n\nA `{parent.__name__}` with more fields."
    told = {
        name: text
        for base in reversed(cls.__mro__)
        for name, text in sections(base.__doc__)[1].get("Attributes", {}).items()
        if issubclass(base, Record)
    }
    told |= entries.get("Attributes", {})
    own = [
        name
        for name in cls.model_fields
        if parent is Record or name in inspect.get_annotations(cls)
    ]
    rows = [
        (f"`{name}`", f"`{inspect.get_annotations(_home(cls, name))[name]}`", told.get(name, ""))
        for name in own
    ]
    parts = [head, prose]
    if rows:
        parts.append(table(("field", "type", "meaning"), rows))
    members = [
        (f"`{name}{signature}`", text + _failures(member))
        for name, signature, text, member in _members(cls)
    ]
    if members:
        parts.append(table(("member", "what it gives"), members))
    return "\n\n".join(part for part in parts if part)


def _home(cls: type[Record], name: str) -> type:
    return next(base for base in cls.__mro__ if name in inspect.get_annotations(base))


def _failures(member: object) -> str:
    raises = sections(getattr(member, "__doc__", None))[1].get("Raises")
    return f" {_raises(raises)}" if raises else ""


def _members(cls: type) -> Iterable[tuple[str, str, str, object]]:
    for name, member in vars(cls).items():
        if name.startswith(("_", "model_")):
            continue
        inner = member.__func__ if isinstance(member, classmethod | staticmethod) else member
        if inspect.isfunction(inner):
            yield f".{name}", _call(inner), one_line(inner.__doc__), inner
        elif isinstance(inner, property | cached_property) and name != "derived":
            # `derived` is room for the package's own use
            yield f".{name}", "", one_line(inner.__doc__), inner


# --- errors ---


def error_classes() -> list[type[Exception]]:
    """Every deliberate failure, the base first, children behind their parents."""
    found: list[type[Exception]] = []

    def visit(cls: type[Exception]) -> None:
        if not cls.__name__.startswith("_") and cls not in found:
            found.append(cls)
        for child in sorted(cls.__subclasses__(), key=lambda one: one.__name__):
            if child.__module__ == errors.__name__:
                visit(child)

    visit(errors.PeftShopError)
    return found


def errors_page() -> str:
    """`reference/errors.md`."""
    tree = inspect.cleandoc(errors.__doc__ or "").split("\n\n", maxsplit=1)[1]
    parts = [
        "# Errors",
        GENERATED,
        (
            "Every failure that peft-shop raises on purpose. A message says what is wrong, where, "
            "the nearest valid names and the next step. On the command line it goes to standard "
            "error and the exit code is 2; a file with several mistakes is reported whole."
        ),
        f"```text\n{tree}\n```",
        "Exit codes: 0 an answer, 1 nothing meets the constraints, 2 bad input or a broken file.",
    ]
    for cls in error_classes():
        prose, entries, _ = sections(cls.__doc__)
        parents = ", ".join(f"`{base.__name__}`" for base in _public_bases(cls))
        public = " Importable from `peft_shop`." if cls.__name__ in peft_shop.__all__ else ""
        parts += [f"## `{cls.__name__}`", f"{prose} A kind of {parents}.{public}"]
        if "Attributes" in entries:
            rows = [(f"`{name}`", text) for name, text in entries["Attributes"].items()]
            parts.append(table(("attribute", "meaning"), rows))
    parts += [
        "## `Keyword`",
        (
            "An argument named in a message, which every place spells in its own way: "
            "`max_peak_memory='24GiB'` in Python, `--max peak_memory=24GiB` in a shell."
        ),
        table(
            ("attribute", "meaning"),
            (
                (f"`{name}`", text)
                for name, text in sections(errors.Keyword.__doc__)[1]["Attributes"].items()
            ),
        ),
        "## `Problem`",
        "One mistake in one file; `CatalogError` and `IngestError` list them in `.problems`.",
        table(
            ("attribute", "meaning"),
            (
                (f"`{field.name}`", sections(errors.Problem.__doc__)[1]["Attributes"][field.name])
                for field in dataclass_fields(errors.Problem)
            ),
        ),
    ]
    assert is_dataclass(errors.Problem)  # noqa: S101 - its fields are the page's last table
    return "\n\n".join(parts) + "\n"


def _public_bases(cls: type) -> list[type]:
    found: list[type] = []
    for base in cls.__bases__:
        found += _public_bases(base) if base.__name__.startswith("_") else [base]
    return found


# --- the command line ---


def commands(app: Any) -> Iterable[tuple[str, Any, dict[str, Any]]]:
    """Every command of a typer application, the program itself first.

    Yields its full name, the command, and what its parameters take, by name.
    """
    import typer  # noqa: PLC0415 - only this page needs the CLI

    def walk(name: str, command: Any) -> Iterable[tuple[str, Any, dict[str, Any]]]:
        yield name, command, _takes(command.callback)
        for known, one in getattr(command, "commands", {}).items():
            yield from walk(f"{name} {known}", one)

    yield from walk("peft-shop", typer.main.get_command(app))


def _takes(callback: Callable[..., object] | None) -> dict[str, Any]:
    """Types of a command's parameters; typer's own objects differ from version to version."""
    if callback is None:
        return {}
    found = {}
    for name, parameter in inspect.signature(callback).parameters.items():
        kind = parameter.annotation
        while get_origin(kind) in {Annotated, list, Union, UnionType}:
            inner = [one for one in get_args(kind) if one is not type(None)]
            kind = inner[0]
        found[name] = kind
    return found


def cli() -> str:
    """`reference/cli.md`."""
    from peft_shop.cli.app import app  # noqa: PLC0415 - only this page needs the CLI

    parts = [
        "# Command line",
        GENERATED,
        (
            "Exit codes: 0 an answer, 1 nothing meets the constraints (the answer still prints, "
            "with what to relax), 2 bad input, a broken file or an output that cannot be written "
            "(message on standard error, nothing on standard output), 130 interrupted, 141 nobody "
            "reads the output any more. Colours only on a terminal."
        ),
    ]
    listed = list(commands(app))
    parts.append(
        table(
            ("command", "what it does"),
            (
                (f"[`{name}`](#{name.replace(' ', '-')})", _summary(command))
                for name, command, _ in listed
                if not getattr(command, "commands", None)
            ),
        )
    )
    for name, command, types in listed:
        parts += [f"## {name}", _help(command)]
        arguments, options = [], []
        for parameter in command.params:
            if getattr(parameter, "hidden", False) or parameter.name == "help":
                continue
            kind = types.get(parameter.name)
            if parameter.param_type_name == "argument":
                arguments.append((_flags(parameter), _meaning(parameter)))
            else:
                row = (_flags(parameter), _values(parameter, kind), _meaning(parameter))
                options.append(row)
        if arguments:
            parts.append(table(("argument", "meaning"), arguments))
        if options:
            parts.append(table(("option", "value", "meaning"), options))
    return "\n\n".join(part for part in parts if part) + "\n"


def _help(command: Any) -> str:
    # click marks paragraphs that it must not wrap with a line of \b
    return inspect.cleandoc(command.help or "").replace("\b\n", "").replace("\f", "").strip()


def _summary(command: Any) -> str:
    return " ".join(_help(command).split("\n\n", maxsplit=1)[0].split())


def _flags(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return f"`{parameter.metavar or parameter.name.upper()}`"
    return ", ".join(f"`{flag}`" for flag in [*parameter.opts, *parameter.secondary_opts])


def _values(parameter: Any, kind: Any) -> str:
    if kind is bool or parameter.is_flag:
        return ""
    if isinstance(kind, type) and issubclass(kind, Enum):
        return " ".join(f"`{choice.value}`" for choice in kind)
    names = {Path: "path", int: "integer", float: "number", str: "text"}
    return f"`{parameter.metavar}`" if parameter.metavar else names[kind]


def _meaning(parameter: Any) -> str:
    text = parameter.help or ""
    if getattr(parameter, "multiple", False):
        text += " Repeatable."
    default = getattr(parameter.default, "value", parameter.default)
    shown = isinstance(default, str | int | float) and not isinstance(default, bool)
    if shown and default != "":
        text += f" Default: `{default}`."
    return text

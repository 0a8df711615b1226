"""Commands that are imported only when they are called, and the program's help without them."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar, Final

import typer
from typer.core import TyperCommand, TyperGroup

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["CommandEntry", "Group", "HelpfulCommand"]


_FIRST: Final = (
    *("--benchmark", "--model", "--device", "--serve", "--max"),
    *("--min", "--quantization", "--merging", "--method", "--objective"),
)
"""Options of a question that people use first, in the order of the help."""
_FIRST_PANEL: Final = "The options that are used first"


class HelpfulCommand(TyperCommand):
    """A command whose help names the flags whole: with their opposites they would be cut off.

    Of a question, the options that people use first stand in a panel above all others.
    """

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Writes the help with the positive half of every pair of flags."""
        before = list(self.params)
        kept: dict[int, tuple[Any, Any]] = {
            id(one): (one.secondary_opts, getattr(one, "rich_help_panel", None)) for one in before
        }
        try:
            for parameter in before:
                parameter.secondary_opts = []
            first = [one for name in _FIRST for one in before if name in one.opts]
            if len(first) == len(_FIRST):
                for one in first:
                    setattr(one, "rich_help_panel", _FIRST_PANEL)  # noqa: B010 - typer's own, untyped
                self.params = [*first, *(one for one in before if one not in first)]
            super().format_help(ctx, formatter)
        finally:
            self.params = before
            for parameter in before:
                parameter.secondary_opts, panel = kept[id(parameter)]
                setattr(parameter, "rich_help_panel", panel)  # noqa: B010 - as above


@dataclass(frozen=True, slots=True)
class CommandEntry:
    """Where a command is, and what the list of commands says of it.

    Attributes:
        function: `module:function`.
        summary: first paragraph of the function's documentation.
        refusal: stands in for the function where the package lacks its module.
    """

    function: str
    summary: str
    refusal: Callable[[], None] | None = None

    def load(self) -> Callable[..., Any]:
        """The function itself, or its stand-in."""
        if self.refusal is not None:
            return self.refusal
        module, _, name = self.function.partition(":")
        from peft_shop.records import uncollected  # noqa: PLC0415 - pydantic comes with it

        with uncollected():
            function: Callable[..., Any] = getattr(import_module(module), name)
        return function


class _Commands(MutableMapping[str, Any]):
    """Commands by name, each made when it is first taken."""

    def __init__(self, table: Mapping[str, CommandEntry], made: Mapping[str, Any]) -> None:
        self._table = table
        self._made = dict(made)

    def __getitem__(self, name: str) -> Any:
        if name not in self._made:
            entry = self._table[name]
            lone = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
            anything = {"allow_extra_args": True, "ignore_unknown_options": True}
            settings = None if entry.refusal is None else anything
            lone.command(name, cls=HelpfulCommand, context_settings=settings)(entry.load())
            self._made[name] = typer.main.get_command(lone)
        return self._made[name]

    def __setitem__(self, name: str, command: Any) -> None:
        self._made[name] = command

    def __delitem__(self, name: str) -> None:
        del self._made[name]

    def __iter__(self) -> Iterator[str]:
        yield from dict.fromkeys((*self._table, *self._made))

    def __len__(self) -> int:
        return len(dict.fromkeys((*self._table, *self._made)))


class Group(TyperGroup):
    """A group whose commands are those of a table, then those that it was given."""

    table: ClassVar[Mapping[str, CommandEntry]] = {}

    def __init__(self, *, commands: Any = None, **attrs: Any) -> None:
        super().__init__(commands={}, **attrs)
        self.commands: Any = _Commands(self.table, commands or {})
        self._tells_summaries = False

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - click's signature
        """Names of all commands, none of which is loaded."""
        return list(self.commands)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of this name; while help is written, only its summary."""
        if self._tells_summaries and cmd_name in self.table:
            return HelpfulCommand(cmd_name, help=self.table[cmd_name].summary)
        return super().get_command(ctx, cmd_name)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Writes the help without loading the commands."""
        self._tells_summaries = True
        try:
            super().format_help(ctx, formatter)
        finally:
            self._tells_summaries = False

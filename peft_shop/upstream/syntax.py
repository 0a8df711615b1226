"""What the source of any peft states, from its syntax alone: methods, classes, their arguments.

One reader for a folder and for a wheel; nothing is imported or executed.
"""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

__all__ = [
    "Modules",
    "Registration",
    "assigned",
    "last_name",
    "members",
    "registrations",
    "stated_name",
    "top_level",
]

_REGISTER: Final = "register_peft_method"


class Registration(NamedTuple):
    """One call of `register_peft_method`.

    Attributes:
        method: the name that it gives; `None` where that is computed or left out.
        config: name of the configuration class; empty where that is left out.
        line: of the call.
    """

    method: str | None
    config: str
    line: int


class Modules:
    """The modules of one peft, by dotted name.

    Attributes:
        tree: syntax tree of a module; `None` for one that this peft does not have.
        is_package: whether a module is the `__init__` of a folder.
    """

    def __init__(
        self, tree: Callable[[str], ast.Module | None], is_package: Callable[[str], bool]
    ) -> None:
        self.tree = tree
        self.is_package = is_package

    def find_class(
        self, module: str, name: str, seen: frozenset[tuple[str, str]] = frozenset()
    ) -> tuple[str, ast.ClassDef] | None:
        """Module and definition of class `name` as seen from `module`; `None` if not in peft."""
        tree = None if (module, name) in seen else self.tree(module)
        if tree is None:
            return None
        seen |= {(module, name)}
        for statement in top_level(tree.body):
            if isinstance(statement, ast.ClassDef) and statement.name == name:
                return module, statement
            if not isinstance(statement, ast.ImportFrom):
                continue
            for alias in statement.names:
                if alias.name == "*":
                    wanted = name
                elif name == (alias.asname or alias.name):
                    wanted = alias.name
                else:
                    continue
                found = self.find_class(self._origin(module, statement), wanted, seen)
                if found is not None:
                    return found
        return None

    def arguments(self, module: str, name: str) -> frozenset[str]:
        """What the constructor of a dataclass of peft takes, inherited fields included."""
        return frozenset(
            field for field, accepted in self._fields(module, name).items() if accepted
        )

    def _fields(self, module: str, name: str) -> dict[str, bool]:
        """Fields of a dataclass, and whether its constructor takes each."""
        place = self.find_class(module, name)
        if place is None:  # a base class from another package; none of them is a dataclass
            return {}
        home, definition = place
        fields: dict[str, bool] = {}
        for base in reversed(definition.bases):
            fields.update(self._fields(home, last_name(base)))
        if not any(last_name(decorator) == "dataclass" for decorator in definition.decorator_list):
            return fields
        for statement in definition.body:
            if not isinstance(statement, ast.AnnAssign):
                continue
            if not isinstance(statement.target, ast.Name):
                continue
            if last_name(statement.annotation) not in {"ClassVar", "InitVar"}:
                fields[statement.target.id] = not _is_excluded(statement.value)
        return fields

    def _origin(self, module: str, statement: ast.ImportFrom) -> str:
        """Absolute name of the module that `statement` in `module` imports from."""
        if not statement.level:
            return statement.module or ""
        parts = module.split(".")
        up = statement.level - self.is_package(module)
        base = parts[: len(parts) - up]
        return ".".join([*base, *([statement.module] if statement.module else [])])


def members(definition: ast.ClassDef) -> tuple[str, ...]:
    """Values of an enumeration's members that are text, in its order."""
    return tuple(
        statement.value.value
        for statement in definition.body
        if isinstance(statement, ast.Assign)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


def registrations(tree: ast.Module) -> Iterator[Registration]:
    """Every registration of a method in a module of peft 0.15 or later."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and last_name(node.func) == _REGISTER:
            given = {keyword.arg: keyword.value for keyword in node.keywords}
            config = given.get("config_cls")
            yield Registration(
                stated_name(given.get("name")), last_name(config) if config else "", node.lineno
            )


def stated_name(node: ast.expr | None) -> str | None:
    """A method as text or as a member (`PeftType.LORA`); `None` where it is computed."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    return node.attr if isinstance(node, ast.Attribute) else None


def top_level(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements that run on import, also those inside `if` and `try`."""
    for statement in body:
        yield statement
        if isinstance(statement, ast.If):
            yield from top_level([*statement.body, *statement.orelse])
        elif isinstance(statement, ast.Try):
            handlers = [inner for handler in statement.handlers for inner in handler.body]
            yield from top_level([*statement.body, *handlers, *statement.orelse])


def assigned(statement: ast.stmt) -> tuple[str, ast.expr] | None:
    """Name and value of a plain or annotated assignment to one name."""
    if isinstance(statement, ast.AnnAssign) and statement.value is not None:
        return last_name(statement.target), statement.value
    if isinstance(statement, ast.Assign) and len(statement.targets) == 1:
        return last_name(statement.targets[0]), statement.value
    return None


def last_name(node: ast.expr) -> str:
    """Last part of a dotted name, also when called or subscripted; empty for anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return node.attr
    if isinstance(node, ast.Call):
        return last_name(node.func)
    if isinstance(node, ast.Subscript):
        return last_name(node.value)
    return ""


def _is_excluded(default: ast.expr | None) -> bool:
    """Whether a field's default is `field(..., init=False)`."""
    return isinstance(default, ast.Call) and any(
        keyword.arg == "init"
        and isinstance(keyword.value, ast.Constant)
        and keyword.value.value is False
        for keyword in default.keywords
    )

"""What the installed peft can be configured with, read from its source.

Importing peft takes seconds; reading the few files that matter takes milliseconds.
"""

from __future__ import annotations

import ast
import importlib.util
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

from peft_shop.errors import ConfigError, nearest_names

if TYPE_CHECKING:
    from collections.abc import Iterable

    from peft_shop.catalog.runs import Recipe

__all__ = [
    "UPGRADE",
    "InstalledPeft",
    "find_peft",
    "installed_peft",
    "source_text",
    "source_tree",
    "unknown_method",
]

UPGRADE: Final = "pip install -U peft"
_VERSION: Final = re.compile(r"""^__version__\s*=\s*["']([^"']+)["']""", re.MULTILINE)
_Class: TypeAlias = tuple[Path, ast.ClassDef]


@dataclass(frozen=True, slots=True)
class InstalledPeft:
    """The installed peft as its source states it.

    Attributes:
        version: its version, such as `0.21.2`.
        methods: members of its `PeftType`, in its order.
        folder: the package's folder.
    """

    version: str
    methods: tuple[str, ...]
    folder: Path

    def config_class(self, peft_type: str) -> str:
        """Name of the configuration class of a method.

        Raises:
            ConfigError: this peft does not have the method, or its source cannot be read.
        """
        return _config_class(self.folder, self._known(peft_type))[1].name

    def config_fields(self, peft_type: str) -> frozenset[str]:
        """Arguments that the configuration class of a method takes, inherited ones included.

        Raises:
            ConfigError: this peft does not have the method, or its source cannot be read.
        """
        return _config_fields(self.folder, self._known(peft_type))

    def lacks(self, recipe: Recipe) -> tuple[str, ...]:
        """What `recipe` needs and this peft does not have; empty when it can build it.

        Entries are `METHOD` or `METHOD.field`, sorted. Full fine-tuning needs nothing.

        Raises:
            ConfigError: the source of this peft cannot be read.
        """
        if recipe.peft_type is None:
            return ()
        if recipe.peft_type not in self.methods:
            return (recipe.peft_type,)
        unknown = set(recipe.config) - self.config_fields(recipe.peft_type)
        return tuple(f"{recipe.peft_type}.{key}" for key in sorted(unknown))

    def _known(self, peft_type: str) -> str:
        if peft_type not in self.methods:
            raise unknown_method(peft_type, self.version, self.methods)
        return peft_type


def installed_peft() -> InstalledPeft | None:
    """What the installed peft knows, or `None` when there is none. Does not import it.

    Raises:
        ConfigError: something named peft is there, but it is not a peft that can be read.
    """
    folder = find_peft()
    return None if folder is None else _read_peft(folder)


def find_peft() -> Path | None:
    """Folder of the installed peft, or `None`; imports nothing.

    Raises:
        ConfigError: a file named peft hides it.
    """
    try:
        spec = importlib.util.find_spec("peft")
    except ValueError:  # an entry of sys.modules that has no spec stands in for peft
        return None
    if spec is None:
        return None
    # A folder without __init__.py that happens to be named peft is not an installed peft.
    if spec.origin is None:
        return None
    if Path(spec.origin).name != "__init__.py":
        msg = (
            f"{spec.origin} hides the peft package: a file of that name comes first on the import "
            "path; rename it"
        )
        raise ConfigError(msg)
    return Path(spec.origin).parent


@lru_cache(maxsize=8)
def _read_peft(folder: Path) -> InstalledPeft:
    match = _VERSION.search(source_text(folder / "__init__.py"))
    # The source states the version that an import would run; package metadata, slower to read,
    # can be left over from another one.
    version = match[1] if match else _metadata_version()
    source = folder / "utils" / "peft_types.py"
    for node in source_tree(source).body:
        if isinstance(node, ast.ClassDef) and node.name == "PeftType":
            methods = tuple(
                statement.value.value
                for statement in node.body
                if isinstance(statement, ast.Assign)
                and isinstance(statement.value, ast.Constant)
                and isinstance(statement.value.value, str)
            )
            return InstalledPeft(version=version, methods=methods, folder=folder)
    raise _unreadable(source, "it has no class PeftType")


def _metadata_version() -> str:
    from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415 (30 ms)

    try:
        return version("peft")
    except PackageNotFoundError:
        return "of unknown version"


@lru_cache(maxsize=256)
def _config_class(folder: Path, peft_type: str) -> _Class:
    """Where the class that `register_peft_method` names for a method is defined."""
    own = folder / "tuners" / peft_type.lower() / "__init__.py"
    others = sorted((folder / "tuners").glob("*/__init__.py"))
    for source in dict.fromkeys([own, *others]):  # the folder is named like the method, so far
        if not source.is_file():
            continue
        for node in ast.walk(source_tree(source)):
            if not (isinstance(node, ast.Call) and _name(node.func) == "register_peft_method"):
                continue
            given = {keyword.arg: keyword.value for keyword in node.keywords}
            name, cls = given.get("name"), given.get("config_cls")
            if isinstance(name, ast.Constant) and name.value == peft_type.lower() and cls:
                found = _find_class(folder, source, _name(cls))
                if found is None:
                    raise _unreadable(source, f"the class {_name(cls)} is not defined or imported")
                return found
    raise _unreadable(folder / "tuners", f"no method is registered as {peft_type.lower()!r}")


@lru_cache(maxsize=256)
def _config_fields(folder: Path, peft_type: str) -> frozenset[str]:
    return frozenset(_fields(folder, _config_class(folder, peft_type)))


def _fields(folder: Path, found: _Class) -> set[str]:
    """Arguments of a dataclass: its annotated names and those of its bases inside peft."""
    source, node = found
    names: set[str] = set()
    for base in node.bases:
        parent = _find_class(folder, source, _name(base))
        if parent is not None:  # a base from another package adds no field
            names |= _fields(folder, parent)
    for statement in node.body:
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            if "ClassVar" in ast.unparse(statement.annotation) or _not_an_argument(statement.value):
                names.discard(statement.target.id)
            else:
                names.add(statement.target.id)
    return names


def _not_an_argument(value: ast.expr | None) -> bool:
    """Whether a field is declared as `field(init=False)`."""
    return isinstance(value, ast.Call) and any(
        keyword.arg == "init"
        and isinstance(keyword.value, ast.Constant)
        and keyword.value.value is False
        for keyword in value.keywords
    )


def _find_class(folder: Path, source: Path, name: str) -> _Class | None:
    """The definition of `name` as seen from `source`, followed through imports inside peft."""
    for node in ast.walk(source_tree(source)):
        if isinstance(node, ast.ClassDef) and node.name == name:
            return source, node
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    target = _module_file(folder, source, node)
                    return None if target is None else _find_class(folder, target, alias.name)
    return None


def _module_file(folder: Path, source: Path, node: ast.ImportFrom) -> Path | None:
    """File of the module that an import names; `None` outside peft."""
    parts = (node.module or "").split(".") if node.module else []
    if node.level:
        base = source.parents[node.level - 1]
    elif parts[:1] == ["peft"]:
        base, parts = folder, parts[1:]
    else:
        return None
    module = base.joinpath(*parts)
    candidates = (module.with_name(f"{module.name}.py"), module / "__init__.py")
    return next((file for file in candidates if file.is_file()), None)


def _name(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


@lru_cache(maxsize=128)
def source_tree(source: Path) -> ast.Module:
    """Syntax tree of a file of peft; the last ones are kept.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        return ast.parse(source_text(source))
    except (SyntaxError, ValueError) as error:  # ValueError: null bytes
        raise _unreadable(source, str(error)) from error


def source_text(source: Path) -> str:
    """Text of a file of peft.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        return source.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(source, str(error)) from error


def _unreadable(source: Path, reason: str) -> ConfigError:
    return ConfigError(
        f"cannot read the installed peft: {source}: {reason}; "
        "install it again with: pip install --force-reinstall peft"
    )


def unknown_method(peft_type: str, version: str, known: Iterable[str]) -> ConfigError:
    """The error that says which method the installed peft does not have, and what to do."""
    near = nearest_names(peft_type, known)
    hint = f"; nearest: {', '.join(near)}" if near else ""
    return ConfigError(
        f"the installed peft {version} has no method {peft_type!r}{hint}. "
        f"A newer peft may: {UPGRADE}"
    )

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
from typing import TYPE_CHECKING, Final

from peft_shop.errors import ConfigError, nearest_names
from peft_shop.upstream.syntax import Modules, members, registrations

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
        return _config_class(self.folder, self._known(peft_type))[1]

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
            return InstalledPeft(version=version, methods=members(node), folder=folder)
    raise _unreadable(source, "it has no class PeftType")


def _metadata_version() -> str:
    from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415 (30 ms)

    try:
        return version("peft")
    except PackageNotFoundError:
        return "of unknown version"


@lru_cache(maxsize=256)
def _config_class(folder: Path, peft_type: str) -> tuple[str, str]:
    """Module and name of the class that `register_peft_method` names for a method."""
    own = folder / "tuners" / peft_type.lower() / "__init__.py"
    others = sorted((folder / "tuners").glob("*/__init__.py"))
    for source in dict.fromkeys([own, *others]):  # the folder is named like the method, so far
        if not source.is_file():
            continue
        for method, config, _ in registrations(source_tree(source)):
            if method != peft_type.lower() or not config:
                continue
            found = _modules(folder).find_class(f"peft.tuners.{source.parent.name}", config)
            if found is None:
                raise _unreadable(source, f"the class {config} is not defined or imported")
            return found[0], found[1].name
    raise _unreadable(folder / "tuners", f"no method is registered as {peft_type.lower()!r}")


@lru_cache(maxsize=256)
def _config_fields(folder: Path, peft_type: str) -> frozenset[str]:
    return _modules(folder).arguments(*_config_class(folder, peft_type))


def _modules(folder: Path) -> Modules:
    """The modules below `folder`; each file is read when it is asked for."""

    def file(module: str) -> Path | None:
        first, *parts = module.split(".")
        place = folder.joinpath(*parts)
        candidates = [place / "__init__.py", *([place.with_suffix(".py")] if parts else [])]
        files = (candidate for candidate in candidates if candidate.is_file())
        return next(files, None) if first == "peft" else None

    def tree(module: str) -> ast.Module | None:
        source = file(module)
        return None if source is None else source_tree(source)

    def is_package(module: str) -> bool:
        source = file(module)
        return source is not None and source.name == "__init__.py"

    return Modules(tree, is_package)


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

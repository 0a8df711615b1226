"""A peft wheel as text: its methods, their configuration fields, the values they know.

Nothing is installed, imported or executed: the wheel is a zip file, its modules are parsed. So
one process can read every release, whatever Python, torch or transformers each of them needs.
"""

from __future__ import annotations

import ast
import re
import warnings
import zipfile
from functools import cached_property
from typing import TYPE_CHECKING, Final

from peft_shop.errors import CatalogError, Problem
from peft_shop.upstream.syntax import (
    Modules,
    assigned,
    last_name,
    members,
    registrations,
    stated_name,
    top_level,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["Wheel"]

_TUNERS: Final = "peft.tuners."
_OPTIMIZERS: Final = "peft.optimizers."
_MAPPING: Final = "PEFT_TYPE_TO_CONFIG_MAPPING"
_REGISTER: Final = "register_peft_method"
_HINT: Final = (
    "download the release again, or teach peft_shop/curate/releases/wheels.py the new layout"
)


class Wheel:
    """One release of peft, read from its wheel.

    Attributes:
        path: the file.
        version: as the wheel's metadata states it, whatever the file is called.
    """

    def __init__(self, path: Path) -> None:
        """Reads every module's text from `path`.

        Raises:
            CatalogError: the file is not a wheel of peft.
        """
        self.path = path
        packages: dict[str, str] = {}
        modules: dict[str, str] = {}
        try:
            with zipfile.ZipFile(path) as archive:
                names = archive.namelist()
                self.version = self._stated_version(archive, names)
                for name in names:
                    if not (name.startswith("peft/") and name.endswith(".py")):
                        continue
                    dotted = name.removesuffix(".py").replace("/", ".")
                    text = archive.read(name).decode("utf-8")
                    if dotted.endswith(".__init__"):
                        packages[dotted.removesuffix(".__init__")] = text
                    else:
                        modules[dotted] = text
        except (OSError, zipfile.BadZipFile, UnicodeDecodeError) as error:
            raise self._error("", f"cannot be read as a wheel: {error}") from error
        self._packages = frozenset(packages)
        # Python prefers a package to a module of the same name; peft 0.6.2 ships both, the
        # modules being leftovers of 0.5
        self._sources = {**modules, **packages}
        self._trees: dict[str, ast.Module] = {}
        self._modules = Modules(
            lambda module: self._tree(module) if module in self._sources else None,
            self._packages.__contains__,
        )
        self._strings: dict[str, frozenset[str]] = {}

    def _error(self, where: str, message: str) -> CatalogError:
        problem = Problem(str(self.path), where, message, _HINT)
        return CatalogError("a peft wheel cannot be read", [problem])

    def _stated_version(self, archive: zipfile.ZipFile, names: list[str]) -> str:
        metadata = [name for name in names if re.fullmatch(r"peft-[^/]+\.dist-info/METADATA", name)]
        if len(metadata) != 1:
            raise self._error("", "holds no metadata of peft, so it is not a wheel of peft")
        header = archive.read(metadata[0]).decode("utf-8").split("\n\n", 1)[0]
        match = re.search(r"^Version: *(\S+)", header, re.MULTILINE)
        if match is None:
            raise self._error(metadata[0], "states no version")
        return match[1]

    # --- what it offers ---

    @cached_property
    def methods(self) -> dict[str, str]:
        """Configuration class, as `module:Class`, of each method that can be used.

        A method is a member of `PeftType` for which a configuration class is registered; its key
        is the member in lower case.
        """
        members = self._peft_types()
        methods: dict[str, str] = {}
        for module, name, value in self._registrations():
            if name.upper() not in members:
                continue
            place = self._modules.find_class(module, value)
            if place is None:
                raise self._error(module, f"the configuration class {value!r} is nowhere defined")
            methods[name.lower()] = f"{place[0]}:{place[1].name}"
        return methods

    @cached_property
    def optimizers(self) -> frozenset[str]:
        """Names of the modules of `peft.optimizers`, such as `lorafa`."""
        return frozenset(
            name.removeprefix(_OPTIMIZERS)
            for name in self._sources
            if name.startswith(_OPTIMIZERS) and name not in self._packages
        )

    def fields(self, method: str) -> frozenset[str]:
        """Arguments that the configuration class of `method` accepts, inherited ones included."""
        return self._modules.arguments(*self.methods[method].split(":"))

    def strings(self, method: str) -> frozenset[str]:
        """Every string literal in the source of `method`: the values that its code can compare.

        The source is the method's folder under `peft/tuners`, or its one file there in releases
        that had no folders.
        """
        if method not in self._strings:
            module = self.methods[method].split(":")[0]
            if not module.startswith(_TUNERS):
                raise self._error(module, f"the configuration of {method!r} is not in {_TUNERS}")
            root = ".".join(module.split(".")[:3])
            self._strings[method] = frozenset(
                node.value
                for name in self._sources
                if name == root or name.startswith(f"{root}.")
                for node in ast.walk(self._parse(name))
                if isinstance(node, ast.Constant) and isinstance(node.value, str)
            )
        return self._strings[method]

    def defines(self, name: str) -> bool:
        """Whether a function or class `name` is defined at the top of any module."""
        pattern = re.compile(rf"^(def|class) {re.escape(name)}\b", re.MULTILINE)
        return any(pattern.search(text) for text in self._sources.values())

    # --- how it is found ---

    def _tree(self, module: str) -> ast.Module:
        if module not in self._trees:
            self._trees[module] = self._parse(module)
        return self._trees[module]

    def _parse(self, module: str) -> ast.Module:
        """Tree of a module that is needed once: kept, they would fill memory."""
        try:
            with warnings.catch_warnings():
                # peft 0.4 has an escape that Python now warns of; it is not ours to mend
                warnings.simplefilter("ignore")
                return ast.parse(self._sources[module])
        except SyntaxError as error:
            raise self._error(module, f"cannot be parsed: {error}") from error

    def _peft_types(self) -> tuple[str, ...]:
        place = self._modules.find_class("peft", "PeftType")
        if place is None:
            raise self._error("peft", "has no PeftType")
        return members(place[1])

    def _registrations(self) -> Iterator[tuple[str, str, str]]:
        """Module, method and class name of every registration, old form and new.

        Up to 0.14 one dictionary in `peft/mapping.py` lists all; since 0.15 each method's package
        calls `register_peft_method`.
        """
        for statement in top_level(self._tree("peft.mapping").body):
            target = assigned(statement)
            if target is None or target[0] != _MAPPING or not isinstance(target[1], ast.Dict):
                continue
            for key, value in zip(target[1].keys, target[1].values, strict=True):
                line = 0 if key is None else key.lineno
                yield (
                    "peft.mapping",
                    self._stated("peft.mapping", stated_name(key), line),
                    (last_name(value)),
                )
        for module, text in sorted(self._sources.items()):
            if f"{_REGISTER}(" not in text:
                continue
            for method, config, line in registrations(self._tree(module)):
                if not config:
                    raise self._error(f"{module}:{line}", f"{_REGISTER} without names")
                yield module, self._stated(module, method, line), config

    def _stated(self, module: str, method: str | None, line: int) -> str:
        if method is None:
            message = "a method is registered under a computed name"
            raise self._error(f"{module}:{line}", message)
        return method

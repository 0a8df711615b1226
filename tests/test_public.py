"""The public names: one sorted list, lazy, visible to type checkers, complete and documented."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

import peft_shop
from peft_shop import load_catalog, recommend
from peft_shop.ask.demanding import ATTRIBUTES, GROUPS
from peft_shop.ask.reading import build_query
from peft_shop.catalog.features import FEATURES
from peft_shop.names import Bounds
from peft_shop.records import Record

if TYPE_CHECKING:
    from types import ModuleType

    from pydantic import BaseModel

ROOT: Final = Path(peft_shop.__file__).parent
CATALOG = load_catalog()
PARAMETERS = inspect.signature(recommend).parameters


def rooms() -> list[str]:
    """Modules of the query side."""
    found = [path.relative_to(ROOT).with_suffix("") for path in sorted(ROOT.rglob("*.py"))]
    names = [".".join(path.parts) for path in found]
    return [
        name.removesuffix(".__init__")
        for name in names
        if not name.startswith("curate.") and name not in {"__init__", "__main__"}
    ]


def room(name: str) -> ModuleType:
    return importlib.import_module(f"peft_shop.{name}")


# --- the list ---


def test_the_list_is_sorted_and_everything_in_it_is_there() -> None:
    assert peft_shop.__all__ == sorted(set(peft_shop.__all__))
    for name in peft_shop.__all__:
        value = getattr(peft_shop, name)
        assert value is getattr(peft_shop, name)
        assert value.__doc__


def test_a_star_import_takes_exactly_the_list() -> None:
    code = "from peft_shop import *; print(sorted(n for n in globals() if n[0] != '_'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ast.literal_eval(done.stdout) == peft_shop.__all__


def test_dir_shows_the_list_and_the_version() -> None:
    assert dir(peft_shop) == sorted([*peft_shop.__all__, "__version__"])
    assert re.match(r"\d+\.\d+", peft_shop.__version__)


def test_type_checkers_see_the_same_names_in_the_same_places() -> None:
    tree = ast.parse((ROOT / "__init__.py").read_text(encoding="utf-8"))
    (seen,) = [
        node
        for node in tree.body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    ]
    homes = {}
    for node in seen.body:
        if isinstance(node, ast.AnnAssign):
            assert ast.unparse(node) == "__version__: str"
            continue
        assert isinstance(node, ast.ImportFrom)
        for alias in node.names:
            module = str(node.module).removeprefix("peft_shop.")
            homes[alias.asname or alias.name] = (module, alias.name)
    assert homes == vars(peft_shop)["_HOMES"]
    assert sorted(homes) == peft_shop.__all__


@pytest.mark.parametrize("name", ["recomend", "Recommendations", "errors_", "__path"])
def test_a_misspelt_name_is_an_attribute_error(name: str) -> None:
    message = f"module 'peft_shop' has no attribute '{name}'"
    with pytest.raises(AttributeError, match=message):
        getattr(peft_shop, name)
    code = f"from peft_shop import {name}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "ImportError" in done.stderr
    assert name in done.stderr


# --- the verb ---


def test_every_capability_can_be_demanded_by_keyword() -> None:
    singles = {feature.id for feature in FEATURES if feature.group is None}
    groups = {feature.group for feature in FEATURES if feature.group}
    assert groups == set(GROUPS)
    assert singles | groups | set(ATTRIBUTES) <= set(PARAMETERS)
    for name in singles | groups | set(ATTRIBUTES):
        assert PARAMETERS[name].kind is inspect.Parameter.KEYWORD_ONLY
        assert PARAMETERS[name].default is None
    assert {feature.id for feature in CATALOG.features} == {feature.id for feature in FEATURES}


def test_the_literals_of_a_group_are_its_features() -> None:
    for group in GROUPS:
        written = str(PARAMETERS[group].annotation)
        alias = re.match(r"\w+", written)
        assert alias
        literal = getattr(room("catalog.features"), alias[0])
        names = [feature.title for feature in FEATURES if feature.group == group]
        assert list(literal.__args__) == names


def test_there_is_a_least_and_a_greatest_value_for_every_metric() -> None:
    wanted = {
        f"{side}_{metric.id}"
        for metric in CATALOG.metrics
        if not metric.retired
        for side in ("min", "max")
    }
    assert set(Bounds.__annotations__) == wanted
    assert Bounds.__total__ is False
    assert PARAMETERS["bounds"].kind is inspect.Parameter.VAR_KEYWORD


def test_every_bound_reaches_the_query() -> None:
    for benchmark in CATALOG.benchmarks:
        for name in benchmark.metrics:
            if CATALOG.metric_by_id[name].retired:
                continue
            value = 4096 if CATALOG.metric_by_id[name].unit == "bytes" else 0.125
            for side in ("min", "max"):
                options: dict[str, Any] = {f"{side}_{name}": value}
                (bound,) = recommend(benchmark.id, peft_version="any", **options).query.bounds
                assert (bound.metric, bound.kind, bound.value) == (name, side, value)


@pytest.mark.parametrize("function", [recommend, build_query])
def test_every_parameter_is_documented(function: Any) -> None:
    text = inspect.getdoc(function) or ""
    documented = re.findall(
        r"^    (?:\*\*)?(\w+): ", text.partition("Args:")[2].partition("Raises:")[0], re.MULTILINE
    )
    assert documented == list(inspect.signature(function).parameters)


# --- documentation ---


@pytest.mark.parametrize("name", rooms())
def test_every_public_name_of_a_room_is_there_and_documented(name: str) -> None:
    module = room(name)
    assert module.__doc__
    for public in getattr(module, "__all__", ()):
        value = getattr(module, public)
        if inspect.isroutine(value) or inspect.isclass(value):
            assert inspect.getdoc(value), public


def records() -> list[type[BaseModel]]:
    found: list[type[BaseModel]] = []
    for module in map(room, rooms()):
        found += [
            value
            for value in vars(module).values()
            if inspect.isclass(value)
            and issubclass(value, Record)
            and value.__module__ == module.__name__
        ]
    return found


@pytest.mark.parametrize("record", records(), ids=lambda record: record.__name__)
def test_every_record_is_frozen_strict_and_documented(record: type[BaseModel]) -> None:
    assert record.model_config["frozen"] is True
    assert record.model_config["extra"] == "forbid"
    assert record.model_config["allow_inf_nan"] is False
    own = record.__dict__["__doc__"]
    assert own
    # whoever documents members documents only those that exist
    for attribute in re.findall(r"^        (\w+): ", own.partition("Attributes:")[2], re.MULTILINE):
        assert attribute in record.model_fields
    for name, value in vars(record).items():
        if not name.startswith("_") and (inspect.isfunction(value) or isinstance(value, property)):
            assert value.__doc__ or name == "model_post_init", name

"""Imports go downward only, and each room imports only the packages it may."""

from __future__ import annotations

import ast
import re
import statistics
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Final, get_args

import pytest

import peft_shop
from peft_shop.names import MethodName

ROOT = Path(peft_shop.__file__).parent

# top to bottom; a room imports rooms of lower rows, and files of its own folder
ORDER: Final = (
    ("__main__",),
    ("cli",),
    ("__init__",),
    ("show",),
    ("trial",),
    ("ask",),
    ("conversion", "scripts"),
    ("forecast",),
    ("serve", "preflight"),
    ("adapt",),
    ("upstream",),
    ("model",),
    ("catalog",),
    ("pareto", "files"),
    ("records",),
    ("units", "names"),
    ("errors",),
)
WORKSHOP: Final = "curate"
# what presents an answer is loaded only when one is shown
SHOWN_ON_DEMAND: Final = {
    ("ask.recommendation", "show"),
    ("ask.candidates", "show"),
    ("ask.comparison", "show"),
    ("forecast.records", "show"),
}

# rooms that work on a model: nothing loads them before a model is looked at
ON_DEMAND: Final = {"model", "preflight", "conversion", "forecast"}

THIRD_PARTY: Final = {
    "pydantic": {"ask", "trial", "catalog", "records", "adapt", "serve", *ON_DEMAND},
    "pydantic_core": {"catalog"},
    "packaging": {"upstream"},
    "numpy": {"pareto", "ask", "conversion", "forecast"},
    "moocore": {"pareto"},
    "pandas": {"ask", "trial"},
    "matplotlib": {"show"},
    "rich": {"show", "ask"},
    "typer": {"__main__", "cli"},
    "click": {"__main__", "cli"},
    "peft": {"upstream", *ON_DEMAND},
    "torch": {"trial", *ON_DEMAND},
    "transformers": {"trial", *ON_DEMAND},
    "datasets": {"trial"},
    "ray": {"trial"},
    "diffusers": ON_DEMAND,
    "safetensors": ON_DEMAND,
}


def rooms() -> dict[str, Path]:
    return {
        path.relative_to(ROOT).with_suffix("").as_posix().replace("/", "."): path
        for path in sorted(ROOT.rglob("*.py"))
    }


def query_side() -> dict[str, Path]:
    return {name: path for name, path in rooms().items() if not name.startswith(f"{WORKSHOP}.")}


def row(room: str) -> int:
    top = room.partition(".")[0]
    return next(i for i, names in enumerate(ORDER) if top in names)


class Imports(ast.NodeVisitor):
    """Modules imported at run time, and whether at the top of the file; type-only ones are free."""

    def __init__(self) -> None:
        self.found: list[tuple[str, bool]] = []
        self.depth = 0

    def visit_If(self, node: ast.If) -> None:
        test = ast.unparse(node.test)
        if test == "TYPE_CHECKING":
            for child in node.orelse:
                self.visit(child)
            return
        self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self.depth += 1
        self.generic_visit(node)
        self.depth -= 1

    def visit_Import(self, node: ast.Import) -> None:
        self.found += [(alias.name, self.depth == 0) for alias in node.names]

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        assert node.level == 0, "relative imports hide where a name comes from"
        module = node.module or ""
        if module == "peft_shop":
            self.found += [(f"peft_shop.{alias.name}", self.depth == 0) for alias in node.names]
        else:
            self.found.append((module, self.depth == 0))


def imports(path: Path) -> list[tuple[str, bool]]:
    visitor = Imports()
    visitor.visit(ast.parse(path.read_text(encoding="utf-8")))
    return visitor.found


def test_every_room_has_a_row() -> None:
    known = {name for names in ORDER for name in names}
    tops = {name.partition(".")[0] for name in query_side()} - {WORKSHOP}
    assert tops == known
    assert len(ORDER) <= 18


def test_the_top_of_the_house_stays_small() -> None:
    assert len(list(ROOT.glob("*.py"))) <= 8
    folders = [path for path in ROOT.iterdir() if path.is_dir() and path.name != "__pycache__"]
    assert len(folders) <= 14


def test_nothing_imports_itself_by_a_detour() -> None:
    sorter: TopologicalSorter[str] = TopologicalSorter()
    names = query_side()
    for room, path in names.items():
        for module, at_top in imports(path):
            target = module.removeprefix("peft_shop.")
            if at_top and target in names:
                sorter.add(room, target)
    sorter.prepare()  # raises CycleError, which names the way round


def test_a_class_name_means_one_thing() -> None:
    homes: dict[str, list[str]] = {}
    for room, path in query_side().items():
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes.setdefault(node.name, []).append(room)
    assert {name: rooms for name, rooms in homes.items() if len(rooms) > 1} == {}


def test_few_files_name_a_method() -> None:
    texts = [path.read_text(encoding="utf-8") for path in query_side().values()]
    naming = {
        method: sum(
            bool(re.search(f"[\"'](?:{method}|{method.upper()})[\"']", text)) for text in texts
        )
        for method in get_args(MethodName)
    }
    assert naming["lora"] <= 12
    assert statistics.median(naming.values()) <= 6


@pytest.mark.parametrize("room", sorted(query_side()))
def test_imports_go_downward(room: str) -> None:
    top = room.partition(".")[0]
    for module, _ in imports(query_side()[room]):
        if not module.startswith("peft_shop."):
            continue
        target = module.removeprefix("peft_shop.").partition(".")[0]
        if target == top or (room, target) in SHOWN_ON_DEMAND:
            continue
        assert target != WORKSHOP, f"{room} imports {module}"
        assert row(target) > row(room), f"{room} imports {module}, which is not below it"


@pytest.mark.parametrize("room", sorted(query_side()))
def test_packages_stay_in_their_rooms(room: str) -> None:
    for module, at_top in imports(query_side()[room]):
        package = module.partition(".")[0]
        if package in THIRD_PARTY:
            assert room.partition(".")[0] in THIRD_PARTY[package], f"{room} imports {module}"
        if (
            package in {"matplotlib", "moocore", "numpy", "pandas", "peft"}
            and room.partition(".")[0] not in ON_DEMAND
        ):
            assert not at_top, f"{room} imports {module} at its top: only where it is needed"


def loaded_by(code: str) -> set[str]:
    script = f"{code}\nimport sys\nprint(*sorted({{m.split('.')[0] for m in sys.modules}}))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split("\n")[-2].split())


HEAVY = {
    "pydantic",
    "matplotlib",
    "numpy",
    "pandas",
    "rich",
    "typer",
    "click",
    "torch",
    "peft",
    "transformers",
}


def test_importing_the_package_loads_nothing_else() -> None:
    assert not loaded_by("import peft_shop") & HEAVY


def test_querying_loads_pydantic_only() -> None:
    code = "import peft_shop\npeft_shop.recommend('metamathqa', max_peak_memory='24GiB').to_json()"
    assert loaded_by(code) & HEAVY == {"pydantic"}

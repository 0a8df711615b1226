"""Do the tests bite? Changes one place of a room at a time and counts what a test notices.

    python benchmarks/mutation.py pareto.py tests/ground/test_pareto.py --count 30 --seed 1

The room is given by its path inside `peft_shop/`; the tests run against a copy of the package.
Prints each survivor and the score. Every mutant gets a process of its own, forked from one that
has loaded what the tests need besides the package. Tests that enter the changed function come
first, those that noticed a mutant before even sooner; what they let pass meets all the others.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import copy
import importlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

ROOT = Path(__file__).resolve().parents[1]
SECONDS = 300
"""What takes longer hangs, and is noticed."""

SWAPPED: dict[type[ast.AST], type[ast.AST]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.And: ast.Or,
    ast.Or: ast.And,
}


@dataclass(frozen=True)
class Mutant:
    """One changed place.

    Attributes:
        line: where.
        what: the change in words.
        text: the whole room with it.
    """

    line: int
    what: str
    text: str


def mutants(source: str) -> list[Mutant]:
    """Every mutant of a room, in the order of its lines."""
    tree = ast.parse(source)
    made = []
    for index, node in enumerate(ast.walk(tree)):
        for what, change in _changes(node):
            changed = copy.deepcopy(tree)
            target = next(other for at, other in enumerate(ast.walk(changed)) if at == index)
            change(target)
            line = getattr(node, "lineno", 0)
            made.append(Mutant(line, what, ast.unparse(ast.fix_missing_locations(changed))))
    return sorted(made, key=lambda mutant: (mutant.line, mutant.what))


def _changes(  # noqa: C901, PLR0912 - one branch a kind of node
    node: ast.AST,
) -> Iterator[tuple[str, Callable[[Any], None]]]:
    """What can be changed at a node: the change in words, and a function that makes it."""
    if isinstance(node, ast.Compare):
        for place, operator in enumerate(node.ops):
            other = SWAPPED.get(type(operator))
            if other is not None:
                yield f"{type(operator).__name__} -> {other.__name__}", _setter("ops", place, other)
    elif isinstance(node, ast.BinOp | ast.BoolOp):
        other = SWAPPED.get(type(node.op))
        if other is not None:
            yield f"{type(node.op).__name__} -> {other.__name__}", _setter("op", None, other)
    elif isinstance(node, ast.If | ast.IfExp | ast.While):
        yield "negated condition", _negate
    elif isinstance(node, ast.Constant) and type(node.value) in {int, float}:
        yield "constant + 1", _raised
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield "flipped", _flipped
    elif isinstance(node, ast.Dict | ast.Set) and _entries(node) > 1:
        for place in range(_entries(node)):
            yield f"dropped entry {place + 1}", _dropped(place)
    if isinstance(node, ast.FunctionDef | ast.If | ast.For | ast.With):
        for place, statement in enumerate(node.body):
            if isinstance(statement, ast.Expr | ast.Assign | ast.AugAssign) and not (
                isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
            ):
                yield f"removed line {statement.lineno}", _removed(place)


def _setter(field: str, place: int | None, kind: type[ast.AST]) -> Callable[[Any], None]:
    def change(node: ast.AST) -> None:
        if place is None:
            setattr(node, field, kind())
        else:
            getattr(node, field)[place] = kind()

    return change


def _negate(node: ast.If | ast.IfExp | ast.While) -> None:
    node.test = ast.UnaryOp(ast.Not(), node.test)


def _raised(node: ast.Constant) -> None:
    node.value = node.value + 1  # type: ignore[operator] # a number


def _flipped(node: ast.Constant) -> None:
    node.value = not node.value


def _entries(node: ast.Dict | ast.Set) -> int:
    return len(node.values if isinstance(node, ast.Dict) else node.elts)


def _dropped(place: int) -> Callable[[Any], None]:
    def change(node: ast.Dict | ast.Set) -> None:
        if isinstance(node, ast.Dict):
            del node.keys[place]
            del node.values[place]
        else:
            del node.elts[place]

    return change


def _removed(place: int) -> Callable[[Any], None]:
    def change(node: ast.FunctionDef) -> None:
        node.body[place] = ast.Pass()

    return change


@dataclass
class Entered:
    """What the tests did without any change.

    Attributes:
        functions: by test the first lines of the functions of the room that it enters.
        seconds: by test how long it takes.
        modules: what was loaded besides the package and the tests.
    """

    functions: dict[str, list[int]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    modules: list[str] = field(default_factory=list)


class Watch:
    """Plugin of pytest that fills an `Entered`."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.entered = Entered()

    def pytest_runtest_protocol(self, item: Any, nextitem: Any) -> None:
        """Notes which functions a test enters, its fixtures included."""
        del nextitem
        lines: set[int] = set()

        def trace(frame: FrameType, event: str, _: object) -> None:
            if event == "call" and frame.f_code.co_filename == self.file:
                lines.add(frame.f_code.co_firstlineno)

        self.lines, self.start = lines, time.perf_counter()
        sys.settrace(trace)
        self.test = item.nodeid

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        """Keeps what the test entered."""
        sys.settrace(None)
        self.entered.functions[nodeid] = sorted(self.lines)
        self.entered.seconds[nodeid] = time.perf_counter() - self.start


class Order:
    """Plugin of pytest that runs some tests alone, in this order, and tells who failed."""

    def __init__(self, tests: list[str]) -> None:
        self.place = {name: place for place, name in enumerate(tests)}
        self.failed = ""

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        """Sorts the tests and leaves the others out."""
        items[:] = sorted(
            (item for item in items if item.nodeid in self.place),
            key=lambda item: self.place[item.nodeid],
        )

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Keeps the name of the test that failed."""
        if report.failed:
            self.failed = report.nodeid


class Room:
    """One room in a copy of the repository, with the tests that should notice its changes."""

    def __init__(self, room: str, tests: list[str], folder: Path) -> None:
        self.file = folder / "peft_shop" / room
        self.source = self.file.read_text(encoding="utf-8")
        self.tests = tests
        self.folder = folder
        self.entered = Entered()
        self.noticed: dict[str, int] = {}

    def prepare(self) -> bool:
        """Runs all tests without any change; says whether they pass."""
        told = self._forked(self._watched, SECONDS * 4)
        if told is None or told.get("code") != 0:
            return False
        self.entered = Entered(**told["entered"])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for name in self.entered.modules:
                with contextlib.suppress(Exception):
                    importlib.import_module(name)
        return self._pass(list(self.entered.functions))

    def survives(self, mutant: Mutant) -> bool:
        """Whether the tests pass all the same."""
        start, end = _function_at(self.source, mutant.line)
        near = [
            name
            for name, lines in self.entered.functions.items()
            if not start or any(start <= line <= end for line in lines)
        ]
        far = [name for name in self.entered.functions if name not in set(near)]
        self.file.write_text(mutant.text, encoding="utf-8")
        try:
            return all(self._pass(tests) for tests in (near, far) if tests)
        finally:
            self.file.write_text(self.source, encoding="utf-8")

    def _pass(self, tests: list[str]) -> bool:
        """Whether some tests pass; those that noticed a mutant before and the fast come first."""
        seconds = self.entered.seconds
        ordered = sorted(tests, key=lambda name: (-self.noticed.get(name, 0), seconds[name]))
        limit = min(SECONDS, 30 + 10 * sum(seconds[name] for name in tests))
        told = self._forked(lambda: self._run(ordered), limit)
        if told is None:
            return False
        if told["failed"]:
            self.noticed[told["failed"]] = self.noticed.get(told["failed"], 0) + 1
        return bool(told["code"] == 0)

    def _watched(self) -> dict[str, Any]:
        import pytest

        watch = Watch(str(self.file))
        code = pytest.main([*ARGUMENTS, *self.tests], plugins=[watch])
        sys.settrace(None)
        own = str(self.folder)
        modules = [
            name
            for name, module in list(sys.modules.items())
            if not (getattr(module, "__file__", None) or own).startswith(own)
        ]
        return {
            "code": int(code),
            "entered": {
                "functions": watch.entered.functions,
                "seconds": watch.entered.seconds,
                "modules": modules,
            },
        }

    def _run(self, tests: list[str]) -> dict[str, Any]:
        import pytest

        sys.dont_write_bytecode = True
        order = Order(tests)
        files = sorted({name.partition("::")[0] for name in tests})
        code = pytest.main([*ARGUMENTS, *files], plugins=[order])
        return {"code": int(code), "failed": order.failed}

    def _forked(self, action: Callable[[], dict[str, Any]], limit: float) -> dict[str, Any] | None:
        """What `action` tells in a process of its own; `None` where it takes longer or breaks."""
        for stale in self.file.parent.glob(f"__pycache__/{self.file.stem}.*.pyc"):
            stale.unlink()
        told = self.folder / "told.json"
        told.unlink(missing_ok=True)
        child = os.fork()
        if child == 0:
            self._act(action, told)
        deadline = time.monotonic() + limit
        while os.waitpid(child, os.WNOHANG) == (0, 0):
            if time.monotonic() > deadline:
                os.killpg(child, signal.SIGKILL)
                os.waitpid(child, 0)
                break
            time.sleep(0.02)
        return json.loads(told.read_text()) if told.exists() else None

    def _act(self, action: Callable[[], dict[str, Any]], told: Path) -> None:
        """The forked process: acts without a word, and ends."""
        os.setpgid(0, 0)
        silent = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silent, 1)
        os.dup2(silent, 2)
        os.chdir(self.folder)
        os.environ["PYTHONPATH"] = str(self.folder)
        sys.path[:] = [str(self.folder), *(one for one in sys.path if one and one != str(ROOT))]
        try:
            written = json.dumps(action())
            told.with_suffix(".part").write_text(written)
            told.with_suffix(".part").rename(told)
        finally:
            os._exit(0)


ARGUMENTS = ["-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist"]
ARGUMENTS += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # plugins are loaded already


def _function_at(source: str, line: int) -> tuple[int, int]:
    """First and last line of the outermost function around a line; zeros outside of any."""
    found = (0, 0)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            start = min([node.lineno, *(one.lineno for one in node.decorator_list)])
            end = node.end_lineno or start
            if start <= line <= end and (not found[0] or start < found[0]):
                found = start, end
    return found


def main() -> int:
    """Exit code: 1 where the score is below `--least`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("room", help="path inside peft_shop/")
    parser.add_argument("tests", nargs="+", help="tests that should notice")
    parser.add_argument("--count", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--least", type=float, default=0.0, help="share that must be noticed")
    options = parser.parse_args()
    source = (ROOT / "peft_shop" / options.room).read_text(encoding="utf-8")
    every = mutants(source)
    chosen = random.Random(options.seed).sample(every, min(options.count, len(every)))
    with tempfile.TemporaryDirectory(prefix="mutation-") as name:
        folder = Path(name).resolve()
        ignore = shutil.ignore_patterns(".git", ".venv", "__pycache__", ".hypothesis", "*_cache")
        shutil.copytree(ROOT, folder, dirs_exist_ok=True, ignore=ignore)
        room = Room(options.room, options.tests, folder)
        if not room.prepare():
            print("the tests fail without any change")
            return 2
        alive = [mutant for mutant in chosen if room.survives(mutant)]
    for mutant in alive:
        print(f"survived: {options.room}:{mutant.line}: {mutant.what}")
    score = 1 - len(alive) / max(len(chosen), 1)
    print(f"{options.room}: {len(chosen) - len(alive)} of {len(chosen)} noticed, {score:.0%}")
    return 1 if score < options.least else 0


if __name__ == "__main__":
    sys.exit(main())

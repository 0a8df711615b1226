"""Do the tests bite? Changes one place of a room at a time and counts what a test notices.

    python benchmarks/mutation.py pareto.py units.py --count 25 --seed 1

Rooms are given by their paths inside `peft_shop/`; without any, all of `mutants.ROOMS` take their
turns. The tests run against a copy of the package. Prints each survivor and the score. Every mutant
gets a process of its own, forked from one that has loaded what the tests need besides the package.
Tests that enter the changed function come first, those that noticed a mutant before even sooner;
what they let pass meets all the others. The first test that fails ends it.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
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

import mutants

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from mutants import Mutant

ROOT = Path(__file__).resolve().parents[1]
SECONDS = 1500
"""What all tests of a room may take."""


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
    """Plugin of pytest that runs some tests alone, in this order, and tells who failed.

    A test that takes much longer than without any change ends the process: it hangs.
    """

    def __init__(self, tests: list[str], seconds: dict[str, float]) -> None:
        self.place = {name: place for place, name in enumerate(tests)}
        self.seconds = seconds
        self.failed = ""

    def pytest_runtest_protocol(self, item: Any, nextitem: Any) -> None:
        """Sets the clock."""
        del nextitem
        signal.alarm(int(15 + 5 * self.seconds[item.nodeid]))

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
        told = self._forked(self._watched, SECONDS)
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
            return all(self._pass(tests) for tests in (*self._staged(near), far) if tests)
        finally:
            self.file.write_text(self.source, encoding="utf-8")

    def _ordered(self, tests: list[str]) -> list[str]:
        """Those that noticed a mutant before and the fast come first."""
        seconds = self.entered.seconds
        return sorted(tests, key=lambda name: (-self.noticed.get(name, 0), seconds[name]))

    def _staged(self, tests: list[str]) -> tuple[list[str], list[str]]:
        """The likeliest file alone, since to collect all tests takes longer than to run some."""
        noticing = [name for name in self._ordered(tests) if self.noticed.get(name)]
        file = noticing[0].partition("::")[0] if noticing else ""
        likely = [name for name in tests if name.partition("::")[0] == file]
        return likely, [name for name in tests if name not in set(likely)]

    def _pass(self, tests: list[str]) -> bool:
        """Whether some tests pass."""
        ordered = self._ordered(tests)
        told = self._forked(lambda: self._run(ordered), SECONDS)
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
        order = Order(tests, self.entered.seconds)
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


def measured(room: str, tests: list[str], count: int, seed: int) -> tuple[int, int]:
    """How many mutants of a room there were, and how many a test noticed; prints the others.

    Raises:
        RuntimeError: the tests fail without any change.
    """
    source = (ROOT / "peft_shop" / room).read_text(encoding="utf-8")
    every = mutants.chosen(room, source, count, random.Random(f"{seed} {room}"))
    with tempfile.TemporaryDirectory(prefix="mutation-") as name:
        folder = Path(name).resolve()
        ignore = shutil.ignore_patterns(".git", ".venv", "__pycache__", ".hypothesis", "*_cache")
        shutil.copytree(ROOT, folder, dirs_exist_ok=True, ignore=ignore)
        tried = Room(room, tests, folder)
        if not tried.prepare():
            msg = f"{room}: the tests fail without any change"
            raise RuntimeError(msg)
        alive = [mutant for mutant in every if tried.survives(mutant)]
    for mutant in alive:
        print(f"survived: {room}:{mutant.line}: {mutant.what}")
    noticed = len(every) - len(alive)
    print(f"{room}: {noticed} of {len(every)} noticed, {noticed / len(every):.0%}", flush=True)
    return len(every), noticed


def main() -> int:
    """Exit code: 1 where the score is below `--least`, 2 where a room cannot be measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rooms", nargs="*", help="paths inside peft_shop/; all that are watched")
    parser.add_argument("--tests", nargs="+", help="tests that should notice, instead of its own")
    parser.add_argument("--count", type=int, default=25, help="mutants of a room")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--least", type=float, default=0.0, help="share that must be noticed")
    options = parser.parse_args()
    every = noticed = 0
    unmeasured: list[str] = []
    for room in options.rooms or mutants.ROOMS:
        tests = options.tests or [f"tests/{name}" for name in mutants.ROOMS.get(room, (room,))]
        start = time.monotonic()
        try:
            counts = measured(room, tests, options.count, options.seed)
        except RuntimeError as error:
            print(error, flush=True)
            unmeasured.append(room)
            continue
        every, noticed = every + counts[0], noticed + counts[1]
        print(f"  {time.monotonic() - start:.0f} s", flush=True)
    if every:
        print(f"seed {options.seed}: {noticed} of {every} noticed, {noticed / every:.1%}")
    if unmeasured:
        return 2
    return 1 if noticed / every < options.least else 0


if __name__ == "__main__":
    sys.exit(main())

"""Do the tests bite? Changes one place of a room at a time and counts what a test notices.

    python benchmarks/mutation.py pareto.py tests/ground/test_pareto.py --count 30 --seed 1

The room is given by its path inside `peft_shop/`; the tests run against a copy of the package.
Prints each survivor and the score.
"""

from __future__ import annotations

import argparse
import ast
import copy
import os
import random
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

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


def _changes(node: ast.AST) -> Iterator[tuple[str, object]]:
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
    elif isinstance(node, ast.FunctionDef):
        for place, statement in enumerate(node.body):
            if isinstance(statement, ast.Expr | ast.Assign | ast.AugAssign) and not (
                isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
            ):
                yield f"removed line {statement.lineno}", _removed(place)


def _setter(field: str, place: int | None, kind: type[ast.AST]) -> object:
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


def _removed(place: int) -> object:
    def change(node: ast.FunctionDef) -> None:
        node.body[place] = ast.Pass()

    return change


def survives(mutant: Mutant, room: str, tests: list[str], folder: Path) -> bool:
    """Whether the tests pass all the same."""
    (folder / "peft_shop" / room).write_text(mutant.text, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests]
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            capture_output=True,
            timeout=SECONDS,
            env=os.environ | {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"},
            check=False,
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


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
        folder = Path(name)
        ignore = shutil.ignore_patterns(".git", ".venv", "__pycache__", ".hypothesis")
        shutil.copytree(ROOT, folder, dirs_exist_ok=True, ignore=ignore)
        if not survives(Mutant(0, "nothing", source), options.room, options.tests, folder):
            print("the tests fail without any change")
            return 2
        alive = [
            mutant for mutant in chosen if survives(mutant, options.room, options.tests, folder)
        ]
    for mutant in alive:
        print(f"survived: {options.room}:{mutant.line}: {mutant.what}")
    score = 1 - len(alive) / max(len(chosen), 1)
    print(f"{options.room}: {len(chosen) - len(alive)} of {len(chosen)} noticed, {score:.0%}")
    return 1 if score < options.least else 0


if __name__ == "__main__":
    sys.exit(main())

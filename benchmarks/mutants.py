"""The mutants of a room: one changed place each, in places where a change can matter.

Left alone are annotations, what is only for type checkers, `__all__`, texts, switches that no
result depends on (`strict` of `zip`, `slots`, the size of a cache) and changes after which Python
compiles the same code. `EQUIVALENT` names the few others that no test could notice, and why.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator

ROOMS: Final[dict[str, tuple[str, ...]]] = {
    "ask/advice.py": ("ask/test_advice.py", "ask/test_judging.py", "ask/test_laws.py"),
    "ask/contenders.py": ("ask/test_evidence.py", "ask/test_certainty.py", "ask/test_noise.py"),
    "ask/figures.py": ("ask/test_evidence.py", "ask/test_certainty.py", "ask/test_noise.py"),
    "ask/judging.py": (
        *("ask/test_failures.py", "ask/test_judging.py", "ask/test_fronts.py", "ask/test_laws.py"),
        *("ask/test_question.py", "ask/test_golden.py", "ask/test_recommend_model.py"),
    ),
    "ask/lattice.py": ("ask/test_noise.py", "ask/test_many.py", "ask/test_calibration.py"),
    "ask/noise.py": (
        *("ask/test_noise.py", "ask/test_many.py", "ask/test_calibration.py"),
        *("ask/test_certainty.py", "ask/test_fronts.py", "ask/test_settling.py"),
    ),
    "ask/ranking.py": (
        *("ask/test_judging.py", "ask/test_fronts.py", "ask/test_laws.py", "ask/test_golden.py"),
        "ask/test_question.py",
    ),
    "ask/reading.py": (
        *("ask/test_question.py", "ask/test_keywords.py", "ask/test_meanings.py"),
        *("ask/test_fronts.py", "ask/test_evidence.py", "ask/test_circumstances.py"),
        *("test_public.py", "show/test_views.py", "ask/test_plans.py"),
    ),
    "adapt/limits.py": ("adapt",),
    "catalog/store.py": ("catalog", "ground/test_records.py"),
    "conversion/lora.py": (
        *("conversion/test_lora_parts.py", "conversion/test_conversion.py"),
        *("conversion/test_conversion_keys.py", "conversion/test_conversion_safety.py"),
    ),
    "forecast/quick/memory.py": (
        *("forecast/test_parts.py", "forecast/test_forecast.py"),
        "forecast/test_forecast_layouts.py",
    ),
    "serve/routes.py": ("serve", "cli/test_cli_route.py"),
    "serve/ways.py": ("serve",),
    "show/terminal.py": (
        *("show/test_terminal.py", "show/test_render.py", "show/test_screen.py"),
        "cli/test_screens.py",
    ),
    "upstream/configs.py": ("upstream", "serve/test_serving.py"),
    "pareto.py": ("ground/test_pareto.py",),
    "units.py": ("ground/test_units.py",),
}
"""The rooms that are watched, and the narrowest tests that should notice; below `tests/`."""

EQUIVALENT: Final[dict[tuple[str, str, str], str]] = {
    (
        "ask/ranking.py",
        "weights = query.weights or {metric.id: 1.0 for metric in objectives}",
        "constant + 1: 1.0",
    ): "any weight that is the same for all gives the same order",
    (
        "ask/noise.py",
        "total = math.fsum(density(index * step) for index in range(-half, half + 1)) * step",
        "Add -> Sub: half + 1",
    ): "the density vanishes at both ends",
    (
        "ask/lattice.py",
        "def on_lattice(",
        "removed: part = part.astype(np.float32)",
    ): "single precision saves time, and no figure that is shown shows it",
    (
        "serve/routes.py",
        (
            "place = json.dumps(dict(config), sort_keys=True, default=list) "
            "if config is not None else None"
        ),
        "flipped: True",
    ): "a key: another order of the same fields is worked out once more",
    (
        "show/terminal.py",
        "while width_of(rest) > width:",
        "Gt -> GtE: width_of(rest) > width",
    ): "a part that fills the line is followed by an empty one, which goes",
}
"""By room, line and change: why nothing that a user gets depends on it."""

SWAPPED: Final[dict[type[ast.AST], type[ast.AST]]] = {
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
_NEVER_RUN: Final = ("if TYPE_CHECKING:", "if __name__ == '__main__':", "__all__ =")
_SWITCHES: Final = {"strict", "slots", "maxsize", "stacklevel"}
"""Arguments that no result depends on."""


@dataclass(frozen=True)
class Mutant:
    """One changed place.

    Attributes:
        line: where, from 1.
        what: the change in words.
        text: the whole room with it.
    """

    line: int
    what: str
    text: str


def chosen(room: str, source: str, count: int, rng: random.Random) -> list[Mutant]:
    """At most `count` mutants of a room that could be noticed, in the order of their lines."""
    lines = source.splitlines()
    places = list(_places(ast.parse(source)))
    rng.shuffle(places)
    plain = compile(ast.unparse(ast.parse(source)), room, "exec")
    made: list[Mutant] = []
    for place in places:
        if len(made) == count:
            break
        mutant = _made(source, *place)
        known = (room, lines[mutant.line - 1].strip(), mutant.what) in EQUIVALENT
        if not known and compile(mutant.text, room, "exec") != plain:
            made.append(mutant)
    return sorted(made, key=lambda mutant: (mutant.line, mutant.what))


def named(source: str) -> set[tuple[str, str]]:
    """Line and change of every mutant of a room."""
    lines, tree = source.splitlines(), ast.parse(source)
    nodes = list(ast.walk(tree))
    found = set()
    for index, number in _places(tree):
        what, _ = list(_changes(nodes[index]))[number]
        found.add((lines[_line(nodes[index]) - 1].strip(), what))
    return found


def _places(tree: ast.AST) -> Iterator[tuple[int, int]]:
    """Number of each node that can be changed, and number of the change at it."""
    idle = {id(inner) for node in ast.walk(tree) for inner in _idle(node)}
    for index, node in enumerate(ast.walk(tree)):
        if id(node) not in idle:
            for number, _ in enumerate(_changes(node)):
                yield index, number


def _idle(node: ast.AST) -> Iterator[ast.AST]:
    """Nodes below one in which a change cannot matter."""
    parts: list[ast.AST | None] = []
    if isinstance(node, ast.AnnAssign | ast.arg):
        parts = [node.annotation]
    elif isinstance(node, ast.FunctionDef):
        parts = [node.returns]
    elif isinstance(node, ast.If | ast.Assign) and ast.unparse(node).startswith(_NEVER_RUN):
        parts = [node]
    elif isinstance(node, ast.keyword) and node.arg in _SWITCHES:
        parts = [node.value]
    for part in parts:
        if part is not None:
            yield from ast.walk(part)


def _line(node: ast.AST) -> int:
    return int(getattr(node, "lineno", 1))


def _made(source: str, index: int, number: int) -> Mutant:
    tree = ast.parse(source)
    node = list(ast.walk(tree))[index]
    what, change = list(_changes(node))[number]
    line = _line(node)
    change(node)
    return Mutant(line, what, ast.unparse(ast.fix_missing_locations(tree)))


def _changes(  # noqa: C901, PLR0912 - one branch a kind of node
    node: ast.AST,
) -> Iterator[tuple[str, Callable[[Any], None]]]:
    """What can be changed at a node: the change in words, and a function that makes it."""
    if isinstance(node, ast.Compare):
        for place, operator in enumerate(node.ops):
            other = SWAPPED.get(type(operator))
            if other is not None:
                what = f"{type(operator).__name__} -> {other.__name__}"
                yield _told(what, node), _setter("ops", place, other)
    elif isinstance(node, ast.BinOp | ast.BoolOp):
        other = SWAPPED.get(type(node.op))
        if other is not None:
            what = f"{type(node.op).__name__} -> {other.__name__}"
            yield _told(what, node), _setter("op", None, other)
    elif isinstance(node, ast.If | ast.IfExp | ast.While):
        yield _told("negated condition", node.test), _negate
    elif isinstance(node, ast.Constant) and type(node.value) in {int, float}:
        yield _told("constant + 1", node), _raised
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield _told("flipped", node), _flipped
    elif isinstance(node, ast.Dict | ast.Set) and _entries(node) > 1:
        for place in range(_entries(node)):
            yield _told(f"dropped entry {place + 1}", node), _dropped(place)
    if isinstance(node, ast.FunctionDef | ast.If | ast.For | ast.With):
        for place, statement in enumerate(node.body):
            if isinstance(statement, ast.Expr | ast.Assign | ast.AugAssign) and not (
                isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
            ):
                yield _told("removed", statement), _removed(place)


def _told(what: str, node: ast.AST) -> str:
    """A change with the beginning of what it changes."""
    text = " ".join(ast.unparse(node).split())
    return f"{what}: {text if len(text) <= 60 else text[:57] + '...'}"


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

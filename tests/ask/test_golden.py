"""Golden cases: one statement about the evidence a file, checked on the committed catalog.

A file has `because` (where the statement comes from), `query` (options of `recommend`; peft's
version is left open) and `expect`. Unknown keys are errors, and so is a case that expects nothing.
`printed` is a figure as somebody printed it: the measured one must round to exactly that.

Not here, because the catalog has no data on it: what the article says of converting a GraLoRA
adapter to LoRA, and of how often each method is used.
"""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import BaseModel, ConfigDict, ValidationError

from peft_shop import errors, load_catalog, recommend
from peft_shop.ask.candidates import Candidate
from peft_shop.ask.contenders import in_snapshot
from peft_shop.catalog.features import FULL_FINETUNING
from peft_shop.pareto import dominates
from peft_shop.units import format_quantity, parse_quantity

if TYPE_CHECKING:
    from peft_shop.ask.places import Dropped
    from peft_shop.ask.recommendation import Recommendation
    from peft_shop.catalog.benchmarks import Metric
    from peft_shop.catalog.runs import Run

FOLDER = Path(__file__).parent / "golden"
CATALOG = load_catalog()


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Value(Strict):
    """A figure of one run: as printed elsewhere, and as this project shows it."""

    of: str
    metric: str
    printed: str
    shown: str | None = None


class Missing(Strict):
    """A figure that is not there, and a part of the reason."""

    of: str
    metric: str
    because: str


class Beats(Strict):
    """One run that is nowhere worse than another and somewhere better."""

    winner: str
    loser: str


class Fails(Strict):
    """A dropped run with one constraint that it fails and a part of the reason."""

    name: str
    constraint: str
    because: str


class Chance(Strict):
    """Probability of being on the front, to the accuracy with which it was stated."""

    of: str
    printed: str


class Expect(Strict):
    """What must hold; absent is not checked.

    Attributes:
        error: class and part of the message of the error that the query raises.
        front: the whole front in order.
        undecided: size of the front and its ties together.
        noted: part of a note of a run.
        runs: runs of the snapshot, full fine-tuning included.
        candidates: runs that stand for selection.
        eras: runs of the snapshot by era, full fine-tuning included.
        methods: methods in the catalog.
        measured_methods: methods with a run among the candidates.
    """

    error: tuple[str, str] | None = None
    best: str | None = None
    front: tuple[str, ...] | None = None
    front_size: int | None = None
    on_front: tuple[str, ...] = ()
    not_on_front: tuple[str, ...] = ()
    ties: tuple[str, ...] = ()
    undecided: int | None = None
    dominance: tuple[Beats, ...] = ()
    values: tuple[Value, ...] = ()
    missing: tuple[Missing, ...] = ()
    dropped: tuple[Fails, ...] = ()
    chances: tuple[Chance, ...] = ()
    warnings: tuple[str, ...] = ()
    baselines: tuple[str, ...] | None = None
    noted: dict[str, str] = {}
    runs: int | None = None
    candidates: int | None = None
    eras: dict[str, int] | None = None
    methods: int | None = None
    measured_methods: int | None = None


class Case(Strict):
    because: str
    query: dict[str, Any]
    expect: Expect


def read(text: str) -> Case:
    case = Case.model_validate(tomllib.loads(text))
    if not case.expect.model_fields_set:
        raise ValueError("the case expects nothing")
    return case


def rounds_to(value: float, printed: str, metric: Metric) -> bool:
    """Whether `value` in base units is printed as `printed`, to the digits given there."""
    match = re.fullmatch(r"(-?\d+(?:\.(\d+))?) ?([A-Za-z%]*)", printed)
    assert match, printed
    number, decimals, unit = match[1], len(match[2] or ""), match[3]
    scale = parse_quantity(f"1{unit}", metric.unit)
    return f"{value / scale:.{decimals}f}" == number


class Check:
    """One answer and what a case expects of it."""

    def __init__(self, case: Case) -> None:
        self.expect = case.expect
        self.answer: Recommendation = recommend(peft_version="any", **case.query)

    @cached_property
    def places(self) -> dict[str, Candidate | Dropped]:
        rec = self.answer
        groups = (rec.baselines, rec.dropped, rec.dominated, rec.ties, rec.front)
        return {one.name: one for group in groups for one in group}

    @cached_property
    def runs(self) -> list[Run]:
        query = self.answer.query
        everything = CATALOG.runs_by_benchmark[query.benchmark]
        return [run for run in everything if in_snapshot(run, query.snapshot)]

    def run(self, name: str) -> Run:
        run = self.places[name].run
        assert run is not None, name
        return run

    def costs(self, name: str) -> list[float]:
        """Figures of the objectives, turned so that less is better."""
        metrics = [CATALOG.metric_by_id[one] for one in self.answer.query.objectives]
        figures = [(self.run(name).metrics[metric.field], metric.better) for metric in metrics]
        return [value if better == "lower" else -value for value, better in figures]

    def everything(self) -> None:
        self.check_front()
        self.check_values()
        self.check_verdicts()
        self.check_counts()

    def check_front(self) -> None:
        expect, rec = self.expect, self.answer
        front = [member.name for member in rec.front]
        assert expect.front is None or front == list(expect.front)
        assert expect.front_size is None or len(rec) == expect.front_size
        assert expect.best is None or rec.best.name == expect.best
        assert set(expect.on_front) <= set(front)
        for name in expect.not_on_front:
            assert name in self.places
            assert name not in front
        assert set(expect.ties) <= {one.name for one in rec.ties}
        assert expect.undecided is None or len(rec.front) + len(rec.ties) == expect.undecided
        for pair in expect.dominance:
            assert dominates(self.costs(pair.winner), self.costs(pair.loser))
            assert pair.loser not in front
        for chance in expect.chances:
            one = self.places[chance.of]
            assert isinstance(one, Candidate)
            assert one.front_probability is not None
            decimals = len(chance.printed.partition(".")[2])
            assert f"{one.front_probability:.{decimals}f}" == chance.printed

    def check_values(self) -> None:
        for value in self.expect.values:
            metric = CATALOG.metric_by_id[value.metric]
            figure = self.run(value.of).metrics[metric.field]
            assert rounds_to(figure, value.printed, metric), (value, figure)
            assert value.shown is None or format_quantity(figure, metric.unit) == value.shown
        for gap in self.expect.missing:
            one = self.places[gap.of]
            assert isinstance(one, Candidate)
            assert gap.metric not in one.values
            assert gap.because in one.unusable[gap.metric]

    def check_verdicts(self) -> None:
        expect, rec = self.expect, self.answer
        dropped = {one.name: one for one in rec.dropped}
        for fails in expect.dropped:
            reasons = [
                failure.reason
                for failure in dropped[fails.name].failures
                if failure.constraint == fails.constraint
            ]
            assert any(fails.because in reason for reason in reasons), reasons
        for text in expect.warnings:
            assert any(text in warning for warning in rec.warnings), rec.warnings
        baselines = tuple(one.name for one in rec.baselines)
        assert expect.baselines is None or baselines == expect.baselines
        for name, text in expect.noted.items():
            one = self.places[name]
            assert isinstance(one, Candidate)
            assert any(text in note for note in one.notes), one.notes

    def check_counts(self) -> None:
        expect = self.expect
        candidates = [run for run in self.runs if run.method != FULL_FINETUNING]
        eras = Counter(run.era for run in self.runs)
        methods = {run.method for run in candidates}
        assert expect.runs is None or len(self.runs) == expect.runs
        assert expect.candidates is None or len(candidates) == expect.candidates
        assert expect.eras is None or eras == expect.eras
        assert expect.measured_methods is None or len(methods) == expect.measured_methods
        assert expect.methods is None or len(CATALOG.methods) == expect.methods


FILES = sorted(FOLDER.glob("*.toml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_statement_holds(path: Path) -> None:
    case = read(path.read_text(encoding="utf-8"))
    if case.expect.error is not None:
        name, text = case.expect.error
        with pytest.raises(getattr(errors, name), match=re.escape(text)):
            Check(case)
        return
    Check(case).everything()


def test_every_file_here_is_a_case() -> None:
    assert len(FILES) >= 20
    assert {path.name for path in FOLDER.iterdir()} == {path.name for path in FILES}


@pytest.mark.parametrize(
    "text",
    [
        "because = 'x'\n[query]\n[expect]\n",
        "because = 'x'\n[query]\n[expect]\nfrnot = []\n",
        "because = 'x'\nnote = 'y'\n[query]\n[expect]\nruns = 1\n",
        "[query]\n[expect]\nruns = 1\n",
        "because = 'x'\n[query]\n[[expect.values]]\nof = 'a'\nmetric = 'b'\nprintd = '1'\n",
    ],
)
def test_a_case_that_says_nothing_or_something_unknown_is_refused(text: str) -> None:
    with pytest.raises((ValidationError, ValueError)):
        read(text)


CORRECT = """\
because = "x"
[query]
benchmark = "image_gen"
snapshot = "2026-08-14"
[expect]
"""


@pytest.mark.parametrize(
    "line",
    [
        'best = "oft/flux2-klein-default"',
        "front = []",
        "front_size = 4",
        'on_front = ["lora/flux2-klein-default"]',
        'not_on_front = ["oft/flux2-klein-default"]',
        'ties = ["oft/flux2-klein-default"]',
        "undecided = 3",
        'dominance = [{ winner = "lora/flux2-klein-default", loser = "oft/flux2-klein-default" }]',
        'values = [{ of = "oft/flux2-klein-default", metric = "drift", printed = "0.261" }]',
        'missing = [{ of = "oft/flux2-klein-default", metric = "drift", because = "not" }]',
        'dropped = [{ name = "ln_tuning/flux2-klein-default", constraint = "era", because = "" }]',
        'chances = [{ of = "oft/flux2-klein-default", printed = "0.95" }]',
        'warnings = ["mixes"]',
        "baselines = []",
        'noted = { "oft/flux2-klein-default" = "broken" }',
        "runs = 30",
        "candidates = 31",
        "eras = { greedy = 31 }",
        "methods = 44",
        "measured_methods = 1",
    ],
)
def test_the_runner_notices_what_is_wrong(line: str) -> None:
    check = Check(read(CORRECT + line))
    with pytest.raises((AssertionError, KeyError)):
        check.everything()

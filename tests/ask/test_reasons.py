"""What is said in words is true: every name, figure and certainty in a sentence is checked."""

from __future__ import annotations

import math
import re
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peft_shop import load_catalog, recommend
from peft_shop.ask.contenders import Contender
from peft_shop.ask.quantiles import student_below
from peft_shop.ask.reasons import amount, certainty, cost, gives_up, lead, luck, tie_reason, why
from peft_shop.ask.rivals import Rivals
from peft_shop.ask.spread import between, factor
from peft_shop.ask.ties import rival_counts
from peft_shop.pareto import dominates
from peft_shop.units import format_quantity

if TYPE_CHECKING:
    from peft_shop.ask.candidates import Candidate
    from peft_shop.ask.recommendation import Recommendation
    from peft_shop.catalog.benchmarks import Metric

CATALOG = load_catalog()
ACCURACY = CATALOG.metric_by_id["test_accuracy"]
MEMORY = CATALOG.metric_by_id["peak_memory"]
LOSS = CATALOG.metric_by_id["train_loss"]
GIB = 2**30
QUESTIONS: list[dict[str, Any]] = [
    {"benchmark": "metamathqa"},
    {"benchmark": "metamathqa", "floor": 0},
    {"benchmark": "metamathqa", "snapshot": "2026-06-10", "era": "any"},
    {"benchmark": "metamathqa", "evidence": "pooled", "snapshot": "2025-06-24"},
    {"benchmark": "metamathqa", "objectives": ["train_loss", "checkpoint_size", "step_time"]},
    {"benchmark": "metamathqa", "objectives": ["peak_memory", "train_time"]},
    {"benchmark": "metamathqa", "objectives": ["test_accuracy"]},
    {"benchmark": "metamathqa", "objectives": ["peak_memory"]},
    {"benchmark": "image_gen"},
    {"benchmark": "image_gen", "objectives": ["dino_similarity", "checkpoint_size", "step_time"]},
    {"benchmark": "image_gen", "objectives": ["drift", "trainable_parameters"], "floor": 0},
    {"benchmark": "image_gen", "methods": "oft"},
]
questions = pytest.mark.parametrize("asked", QUESTIONS, ids=str)


def contender(name: str, sd: float = 0.0, method: str = "lora", **values: float) -> Contender:
    sds = {"test_accuracy": sd} if sd else {}
    return Contender(name=name, method=method, variants=(), run=None, values=values, sds=sds)


def ask(asked: dict[str, Any]) -> Recommendation:
    return recommend(peft_version="any", **asked)


def kept(answer: Recommendation) -> dict[str, Candidate]:
    return {one.name: one for one in (*answer.front, *answer.ties, *answer.dominated)}


def argued(answer: Recommendation) -> list[Metric]:
    """Objectives in the order of the argument: the headline first."""
    metrics = [CATALOG.metric_by_id[name] for name in answer.query.objectives]
    return sorted(metrics, key=lambda metric: metric.id != answer.benchmark.headline)


def row(one: Candidate, metrics: list[Metric]) -> list[float]:
    return [cost(one, metric) for metric in metrics]


def likelihood(one: Candidate, other: Candidate, metric: Metric) -> str:
    """The certainty of an order, as it must stand in the text; empty for exact figures."""
    spread = between(one, other, metric.id)
    if not spread.sd:
        return ""
    ahead = abs(one.values[metric.id] - other.values[metric.id])
    real = student_below(ahead / spread.sd, spread.degrees)
    shown = "over 99 %" if real > 0.995 else f"{100 * real:.0f} %"
    if one.sds[metric.id] == one.rerun_sds[metric.id]:
        return f"{shown} likely to happen again in a re-run"
    least = "" if real > 0.995 else "at least "
    return f"{least}{shown} likely to hold on other questions like these"


# --- parts ---


def test_differences_have_the_unit_of_their_metric() -> None:
    assert amount(-0.0128, ACCURACY) == "1.3 points"
    assert amount(2.85 * GIB, MEMORY) == "2.85 GiB"
    assert amount(-0.5, LOSS) == "0.500"


@given(st.floats(0, 1), st.floats(0, 1))
@settings(max_examples=50, deadline=None, derandomize=True)
def test_a_lead_is_the_lag_of_the_other(a: float, b: float) -> None:
    one, other = (
        contender("a", test_accuracy=a, peak_memory=a),
        contender("b", test_accuracy=b, peak_memory=b),
    )
    assert lead(one, other, ACCURACY) == -lead(other, one, ACCURACY) == pytest.approx(a - b)
    assert lead(one, other, MEMORY) == pytest.approx(b - a)


@given(st.floats(-0.2, 0.2), st.floats(0.001, 0.1), st.floats(0.001, 0.1))
@settings(max_examples=50, deadline=None, derandomize=True)
def test_certainty_has_a_closed_form(ahead: float, sd: float, other_sd: float) -> None:
    one = contender("a", sd, test_accuracy=0.5 + ahead)
    other = contender("b", other_sd, test_accuracy=0.5)
    spread = math.hypot(sd, other_sd)
    real = NormalDist().cdf(abs(one.values["test_accuracy"] - 0.5) / spread)
    shown = "over 99" if real > 0.995 else f"{100 * real:.0f}"
    assert certainty(one, other, ACCURACY) == f"{shown} % likely to happen again in a re-run"
    assert certainty(one, other, ACCURACY) == certainty(other, one, ACCURACY)


def test_exact_figures_have_no_certainty_to_tell() -> None:
    assert certainty(contender("a", peak_memory=1), contender("b", peak_memory=2), MEMORY) == ""


# --- why ---

LEADS = re.compile(
    r"(?:Best|Equal best) [^(]+ \((?P<mine>[^)]*)\).*?"
    r"(?:leads (?P<rival>\S+) \((?P<figure>[^)]*)\) by (?P<lead>.+?)(?: \((?P<sure>[^)]*)\))?"
    r"|, with (?P<equal>\S+))\. It dominates (?P<beaten>\d+) of the (?P<kept>\d+) kept runs\."
)
ALONE = re.compile(r".*It dominates (?P<beaten>\d+) of the (?P<kept>\d+) kept runs\.")


@questions
def test_why_a_member_is_on_the_front_is_true(asked: dict[str, Any]) -> None:
    answer = ask(asked)
    everyone, metrics = kept(answer), argued(answer)
    assert answer.front
    for one in answer:
        mine = row(one, metrics)
        rivals = [
            other
            for other in everyone.values()
            if other is not everyone[one.name]
            and all(a <= b for a, b in zip(row(other, metrics)[1:], mine[1:], strict=True))
        ]
        found = LEADS.fullmatch(one.why) if rivals else ALONE.fullmatch(one.why)
        assert found, one.why
        assert int(found["kept"]) == len(everyone)
        beaten = sum(dominates(mine, row(other, metrics)) for other in everyone.values())
        assert int(found["beaten"]) == beaten
        if not rivals:
            for metric in metrics[1:]:
                assert format_quantity(one.values[metric.id], metric.unit) in one.why
            continue
        first = metrics[0]
        assert found["mine"] == format_quantity(one.values[first.id], first.unit)
        named = everyone[found["rival"] or found["equal"]]
        best = min(row(other, metrics)[0] for other in rivals)
        assert named.name in {other.name for other in rivals}
        assert cost(named, first) == best
        if found["equal"]:
            assert mine[0] == best
            continue
        assert found["figure"] == format_quantity(named.values[first.id], first.unit)
        assert best > mine[0]
        assert found["lead"] == amount(best - mine[0], first)
        assert likelihood(one, named, first) in (found["sure"] or "")


def test_equal_rivals_are_called_equal() -> None:
    two = [
        contender("a", test_accuracy=0.5, peak_memory=1),
        contender("b", test_accuracy=0.5, peak_memory=1),
    ]
    text = why(0, Rivals(two, [(-0.5, 1), (-0.5, 1)]), [ACCURACY, MEMORY])
    assert text.startswith("Equal best ")
    assert "with b." in text


def test_a_sole_candidate_is_called_so() -> None:
    one = contender("a", test_accuracy=0.5, peak_memory=1.0)
    assert why(0, Rivals([one], [(-0.5,)]), [ACCURACY]).startswith("The only kept run")
    assert gives_up(one, [one], [ACCURACY]) == "Nothing: it is the whole front."


# --- what one gives up ---


@questions
def test_what_a_member_gives_up_is_true(asked: dict[str, Any]) -> None:
    answer = ask(asked)
    metrics = argued(answer)
    first = metrics[0]
    front = {one.name: one for one in answer}
    for one in answer:
        if len(front) == 1:
            assert one.gives_up == "Nothing: it is the whole front."
            continue
        better = [other for other in front.values() if cost(other, first) < cost(one, first)]
        if not better and one.gives_up.startswith("Nothing"):
            continue
        other = front[one.gives_up.split()[0]]
        if better:
            assert cost(other, first) == max(cost(rival, first) for rival in better)
        else:
            rest = [rival for rival in front.values() if rival is not one]
            assert cost(other, first) == min(cost(rival, first) for rival in rest)
        for metric in metrics:
            difference = cost(one, metric) - cost(other, metric)
            # every side of the bargain stands there: what is gained and what it costs
            wanted = difference != 0 and (metric is first or (difference < 0) == bool(better))
            assert (amount(difference, metric) in one.gives_up) or not wanted
        assert likelihood(one, other, first) in one.gives_up


# --- ties ---


@questions
def test_why_a_dominated_run_is_a_tie_is_true(asked: dict[str, Any]) -> None:
    answer = ask(asked)
    everyone, metrics = kept(answer), argued(answer)
    counts = rival_counts(
        [tuple(row(one, metrics)) for one in everyone.values()],
        [tuple(one.sds.get(metric.id, 0.0) for metric in metrics) for one in everyone.values()],
    )
    rivals = dict(zip(everyone, counts, strict=True))
    for one in answer.ties:
        other = everyone[one.dominated_by]
        assert one.because.startswith(other.name)
        spreads = {
            metric.id: between(one, other, metric.id) for metric in metrics if metric.id in one.sds
        }
        noisy = {
            name: factor(answer.query.confidence, spread.degrees, rivals[one.name]) * spread.sd
            for name, spread in spreads.items()
        }
        small = {
            name: needed
            for name, needed in noisy.items()
            if cost(one, CATALOG.metric_by_id[name]) - cost(other, CATALOG.metric_by_id[name])
            <= needed
        }
        assert bool(small) == bool(noisy)
        for name, needed in small.items():
            metric = CATALOG.metric_by_id[name]
            ahead = cost(one, metric) - cost(other, metric)
            words = f"leads by {amount(ahead, metric)} of" if ahead else "is level in"
            assert words in one.because
            assert f"only a lead over {amount(needed, metric)} would count" in one.because
        if not noisy:
            assert "within what counts as equal" in one.because
            for metric in metrics:
                ahead = cost(one, metric) - cost(other, metric)
                width = max(metric.tie or 0, (metric.tie_relative or 0) * other.values[metric.id])
                assert ahead <= width


def test_there_are_ties_of_every_sort_to_check() -> None:
    answers = [ask(asked) for asked in QUESTIONS]
    texts = [one.because for answer in answers for one in answer.ties]
    for part in ("leads by", "is level in", "within what counts as equal"):
        assert any(part in text for text in texts), part


def test_a_lead_that_counts_is_not_called_small() -> None:
    # one noisy figure is far behind, the other level: only the level one makes it a tie
    one = Contender(
        "a",
        "lora",
        (),
        None,
        {"test_accuracy": 0.4, "train_loss": 0.5},
        {},
        {"test_accuracy": 0.01, "train_loss": 0.01},
    )
    top = Contender(
        "b",
        "lora",
        (),
        None,
        {"test_accuracy": 0.6, "train_loss": 0.5},
        {},
        {"test_accuracy": 0.01, "train_loss": 0.01},
    )
    text = tie_reason(one, top, [ACCURACY, LOSS], 0.95)
    assert "20.0 points" not in text
    assert "is level in" in text


# --- luck ---


@given(st.integers(1, 12), st.floats(0.001, 0.05), st.floats(0.0, 0.1))
@settings(max_examples=80, deadline=None, derandomize=True)
def test_luck_is_told_when_the_best_of_many_would_be_that_far_ahead(
    count: int, sd: float, ahead: float
) -> None:
    one = contender("lora/best", sd, test_accuracy=0.5 + ahead, peak_memory=1)
    rival = contender("oft/x", sd, "oft", test_accuracy=0.5, peak_memory=1)
    own = contender("lora/other", sd, test_accuracy=0.5 + ahead, peak_memory=1)
    group = [one, rival, own]
    costs = [tuple(cost(each, metric) for metric in (ACCURACY, MEMORY)) for each in group]
    text = luck(0, Rivals(group, costs), [ACCURACY, MEMORY], count)
    expected = sd * NormalDist().inv_cdf((count - 0.375) / (count + 0.25))
    told = count >= 3 and one.values["test_accuracy"] - 0.5 <= expected
    assert (text is not None) == told
    if text is not None:
        assert text.startswith(f"{count} configurations of ")
        assert f"ahead by {amount(expected, ACCURACY)} by luck alone" in text
        assert "oft/x" in text  # the runs of one method are no rivals of each other
        # the lead as it is reckoned: half a tenth of a point must round the same way
        assert f"is {amount((0.5 + ahead) - 0.5, ACCURACY)}." in text


def test_expected_luck_is_near_what_simulation_gives() -> None:
    # Blom's formula against the expected maximum of n normal variables (Tippett, 1925)
    known = {3: 0.8463, 5: 1.1630, 8: 1.4236, 10: 1.5388}
    for count, value in known.items():
        formula = NormalDist().inv_cdf((count - 0.375) / (count + 0.25))
        assert formula == pytest.approx(value, abs=0.03)


@pytest.mark.parametrize("case", ["exact", "alone"])
def test_without_noise_or_rival_there_is_no_luck(case: str) -> None:
    sd = 0.0 if case == "exact" else 0.01
    group = [contender("lora/best", sd, test_accuracy=0.5, peak_memory=1)]
    if case == "exact":
        group.append(contender("oft/x", sd, "oft", test_accuracy=0.5, peak_memory=1))
    costs = [tuple(cost(each, metric) for metric in (ACCURACY, MEMORY)) for each in group]
    assert luck(0, Rivals(group, costs), [ACCURACY, MEMORY], 9) is None


def test_members_of_the_front_count_the_configurations_that_were_tried() -> None:
    answer = recommend(peft_version="any")
    runs = [run for run in CATALOG.runs if answer.query.snapshot in run.snapshots]
    for one in kept(answer).values():
        tried = sum(run.method == one.method and run.benchmark == "metamathqa" for run in runs)
        assert one.configurations == tried

"""Laws of the answer, for whatever may be asked of the committed catalog."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from itertools import pairwise, product
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from peft_shop import any_of, load_catalog, recommend
from peft_shop.ask.contenders import in_snapshot
from peft_shop.ask.recommendation import Recommendation
from peft_shop.ask.spread import between, factor
from peft_shop.catalog.features import EVIDENCE_LEVELS, FEATURES, FULL_FINETUNING
from peft_shop.catalog.store import parse
from peft_shop.errors import UnknownNameError
from peft_shop.pareto import dominates

if TYPE_CHECKING:
    from collections.abc import Callable

    from peft_shop.ask.candidates import Candidate
    from peft_shop.ask.places import Dominated, Tied
    from peft_shop.catalog.benchmarks import Metric
    from peft_shop.catalog.catalog import Catalog
    from peft_shop.catalog.runs import Run

# one noisy objective at most: probabilities for more are sampled, which takes time
laws = settings(max_examples=30, deadline=None, derandomize=True)

CATALOG = load_catalog()
NOISY = {item.metric for item in CATALOG.noise if CATALOG.metric_by_id[item.metric].tie is None}
METHODS = [method.id for method in CATALOG.methods]
GROUPS = {
    group: [feature.title for feature in FEATURES if feature.group == group]
    for group in ("quantization", "layer_types")
}
DEMANDS = [True, False, "partial"]
SINGLES = [feature.id for feature in FEATURES if feature.group is None]
OPTIONS = sorted({option for method in CATALOG.methods for option in method.options})
RELEASES = ["0.10.0", "0.15.0", "0.18.1", "0.20.0", "0.21.2"]
Options = dict[str, Any]


def rankable(benchmark: str) -> list[Metric]:
    names = CATALOG.benchmark_by_id[benchmark].metrics
    return [metric for metric in map(CATALOG.metric_by_id.__getitem__, names) if not metric.retired]


def values_of(benchmark: str, metric: Metric) -> list[float]:
    return sorted(
        {
            run.metrics[metric.field]
            for run in CATALOG.runs_by_benchmark[benchmark]
            if metric.field in run.metrics
        }
    )


def snapshots(benchmark: str) -> list[str]:
    runs = CATALOG.runs_by_benchmark[benchmark]
    return sorted({name for run in runs for name in run.snapshots})


@st.composite
def objectives(draw: st.DrawFn, benchmark: str) -> list[str]:
    names = [metric.id for metric in rankable(benchmark)]
    chosen = draw(st.lists(st.sampled_from(names), min_size=1, max_size=4, unique=True))
    noisy = [name for name in chosen if name in NOISY]
    return [name for name in chosen if name not in noisy[1:]]


def constraint(benchmark: str) -> st.SearchStrategy[tuple[str, Any]]:
    """One option that can only leave candidates out."""
    bounds = [
        st.tuples(st.just(f"{side}_{metric.id}"), st.sampled_from(values_of(benchmark, metric)))
        for metric in rankable(benchmark)
        for side in ("min", "max")
    ]
    groups = [
        st.tuples(
            st.just(group),
            st.lists(st.sampled_from(names), min_size=1, max_size=3)
            | st.lists(st.sampled_from(names), min_size=1, max_size=4).map(lambda n: any_of(*n)),
        )
        for group, names in GROUPS.items()
    ]
    singles = st.tuples(st.sampled_from(SINGLES), st.sampled_from(DEMANDS))
    some = st.lists(st.sampled_from(METHODS), min_size=1, max_size=20)
    attributes = [
        st.tuples(st.just("category"), st.sampled_from(["adapter", "prompt_learning", "other"])),
        st.tuples(st.just("family"), st.sampled_from(sorted({m.family for m in CATALOG.methods}))),
        st.tuples(st.just("task_types"), st.sampled_from(["CAUSAL_LM", "SEQ_CLS", "IMAGE"])),
        st.tuples(st.just("options"), st.sampled_from(OPTIONS)),
    ]
    others = [
        st.tuples(st.just("methods"), some),
        st.tuples(st.just("exclude"), some),
        st.tuples(st.just("min_evidence"), st.sampled_from(EVIDENCE_LEVELS)),
        st.tuples(st.just("floor"), st.floats(0, 0.8)),
        st.tuples(st.just("peft_version"), st.sampled_from(RELEASES)),
    ]
    return st.one_of(st.one_of(bounds), st.one_of(groups), singles, st.one_of(attributes + others))


@st.composite
def questions(draw: st.DrawFn, most: int = 4) -> Options:
    """Options of `recommend` that do not contradict each other."""
    benchmark = draw(st.sampled_from(["metamathqa", "image_gen", "rlmath"]))
    asked: Options = {
        "benchmark": benchmark,
        "objectives": draw(objectives(benchmark)),
        "snapshot": draw(st.sampled_from([None, "all", *snapshots(benchmark)])),
        "evidence": draw(st.sampled_from(["snapshot", "snapshot", "pooled"])),
        "include_flagged": draw(st.booleans()),
        "confidence": draw(st.sampled_from([0.5, 0.8, 0.95, 0.99])),
    }
    if benchmark == "metamathqa":
        asked["era"] = draw(st.sampled_from([None, "any", "shifted", "greedy", "sampled"]))
    asked |= dict(draw(st.lists(constraint(benchmark), max_size=most)))
    drop_contradictions(asked)
    return asked


def drop_contradictions(asked: Options) -> None:
    for name in [name for name in asked if name.startswith("min_")]:
        high = asked.get(f"max_{name.removeprefix('min_')}")
        if high is not None and asked[name] > high:
            del asked[name]


def ask(asked: Options, catalog: Catalog = CATALOG) -> Recommendation:
    return recommend(**{"peft_version": "any", "catalog": catalog, **asked})


def measured(answer: Recommendation) -> list[Candidate]:
    return [*answer.front, *answer.ties, *answer.dominated]


def kept(answer: Recommendation) -> set[str]:
    return {one.name for one in measured(answer)} | {one.method for one in answer.unmeasured}


def costs(one: Candidate, names: tuple[str, ...]) -> list[float]:
    metrics = [CATALOG.metric_by_id[name] for name in names]
    return [one.values[metric.id] * (1 if metric.better == "lower" else -1) for metric in metrics]


# --- constraints ---


@laws
@given(st.data())
def test_one_more_constraint_never_adds_a_result(data: st.DataObject) -> None:
    asked = data.draw(questions())
    name, value = data.draw(constraint(asked["benchmark"]))
    assume(name not in asked)
    if name == "floor":
        value += CATALOG.benchmark_by_id[asked["benchmark"]].floor
    more = asked | {name: value}
    drop_contradictions(more)
    assume(name in more)
    assert kept(ask(more)) <= kept(ask(asked))


@laws
@given(st.data())
def test_one_more_objective_never_adds_a_result(data: st.DataObject) -> None:
    asked = data.draw(questions())
    more = data.draw(st.sampled_from([m.id for m in rankable(asked["benchmark"])]))
    assume(more not in NOISY)
    both = asked | {"objectives": [*asked["objectives"], more]}
    assert kept(ask(both)) <= kept(ask(asked))


@laws
@given(questions())
def test_every_candidate_is_in_exactly_one_place(asked: Options) -> None:
    answer = ask(asked)
    places = [one.name for one in measured(answer)]
    places += [one.method for one in answer.unmeasured]
    places += [one.name for one in answer.dropped]
    runs = [
        run
        for run in CATALOG.runs_by_benchmark[asked["benchmark"]]
        if in_snapshot(run, answer.query.snapshot) and run.method != FULL_FINETUNING
    ]
    experiments = [run.experiment for run in runs]
    everyone = [
        run.experiment if experiments.count(run.experiment) == 1 else run.id for run in runs
    ]
    everyone += sorted(set(METHODS) - {run.method for run in runs})
    assert sorted(places) == sorted(everyone)


def relaxed(asked: Options, constraints: set[str]) -> Options:
    """The question without `constraints`."""
    instead: Options = {
        "era": "any",
        "flagged": True,
        "floor": 0,
        "peft_version": "any",
        "objectives": ["train_loss"],  # every run has it
    }
    changed = dict(asked)
    for name in constraints:
        if name in instead:
            changed["include_flagged" if name == "flagged" else name] = instead[name]
        else:
            del changed[name]  # a KeyError here: the constraint is not in the question
    return changed


def comparable(run: Run | None) -> bool:
    """Whether any figure of a run may be compared at all."""
    return run is None or not any(f.code == "environment" and not f.metrics for f in run.flags)


@laws
@given(st.data())
def test_a_dropped_one_comes_back_without_the_constraints_it_fails(data: st.DataObject) -> None:
    asked = data.draw(questions())
    answer = ask(asked)
    assume(answer.dropped)
    for one in answer.dropped:
        assert one.failures
    one = data.draw(st.sampled_from([one for one in answer.dropped if comparable(one.run)]))
    failed = {failure.constraint for failure in one.failures}
    assert one.name in kept(ask(relaxed(asked, failed)))


@laws
@given(
    questions(most=1),
    st.dictionaries(st.sampled_from(SINGLES), st.sampled_from(DEMANDS), min_size=1, max_size=2),
)
def test_an_unknown_value_never_satisfies(asked: Options, demanded: Options) -> None:
    asked |= demanded
    answer = ask(asked)
    kept_ones = [(one.method, one.variants) for one in measured(answer)]
    kept_ones += [(one.method, ()) for one in answer.unmeasured]
    allowed = {True: {"yes"}, False: {"no"}, "partial": {"yes", "partial"}}
    for (method, variants), (name, demand) in product(kept_ones, demanded.items()):
        found = CATALOG.method_by_id[method].capability(name, variants)
        # what all measured models have in common decides a condition, either way
        conditional = found.support == "partial" and bool(found.conditions)
        assert found.support in allowed[demand] or conditional
        if "min_evidence" in asked:
            least = EVIDENCE_LEVELS.index(asked["min_evidence"])
            assert EVIDENCE_LEVELS.index(found.level) >= least


@laws
@given(st.data(), st.sampled_from(sorted(GROUPS)))
def test_a_list_is_the_intersection_and_any_of_the_union(data: st.DataObject, group: str) -> None:
    asked = data.draw(questions(most=1))
    asked.pop(group, None)
    names = data.draw(st.lists(st.sampled_from(GROUPS[group]), min_size=1, max_size=4))
    single = [kept(ask(asked | {group: name})) for name in names]
    assert kept(ask(asked | {group: names})) == set.intersection(*single)
    assert kept(ask(asked | {group: any_of(*names)})) == set.union(*single)


@laws
@given(questions())
def test_stronger_evidence_is_a_stronger_demand(asked: Options) -> None:
    asked.pop("min_evidence", None)
    asked["merging"] = True
    sets = [kept(ask(asked | {"min_evidence": level})) for level in EVIDENCE_LEVELS]
    assert sets[0] == kept(ask(asked))
    for weaker, stronger in pairwise(sets):
        assert stronger <= weaker


@laws
@given(questions(), st.floats(0, 1), st.floats(0, 1))
def test_a_higher_floor_is_a_stronger_demand(asked: Options, one: float, two: float) -> None:
    low, high = sorted([one, two])
    assert kept(ask(asked | {"floor": high})) <= kept(ask(asked | {"floor": low}))


# --- the front ---


@laws
@given(questions())
def test_the_front_dominates_the_rest_and_not_itself(asked: Options) -> None:
    answer = ask(asked)
    names = answer.query.objectives
    assert bool(answer.front) == bool(measured(answer))
    front = {one.name: costs(one, names) for one in answer.front}
    assert not any(dominates(a, b) for a in front.values() for b in front.values())
    behind: list[Tied | Dominated] = [*answer.ties, *answer.dominated]
    for loser in behind:
        assert dominates(front[loser.dominated_by], costs(loser, names))
    for one in measured(answer):
        assert one.front_probability is not None
        assert 0 <= one.front_probability <= 1


@laws
@given(questions())
def test_nothing_broken_missing_or_full_is_ranked(asked: Options) -> None:
    answer = ask(asked)
    for one in measured(answer):
        assert one.method != FULL_FINETUNING
        assert all(math.isfinite(value) for value in one.values.values())
        assert 99_999_999 not in one.values.values()
        assert set(answer.query.objectives) <= set(one.values)
        codes = {flag.code for flag in one.run.flags}
        assert asked["include_flagged"] or not codes & {"broken_config", "artefact"}
        assert comparable(one.run)
    assert all(one.method != FULL_FINETUNING for one in answer.dropped)
    assert {one.kind for one in answer.baselines} <= {"lora", "full_finetuning"}


@laws
@given(questions(most=1), st.integers(0, 100))
def test_a_dominated_run_more_changes_nothing(
    alter: Callable[..., Catalog], asked: Options, place: int
) -> None:
    asked["evidence"] = "snapshot"
    answer = ask(asked)
    assume(answer.front)
    model = answer.front[place % len(answer.front)].run
    worse: dict[str, float] = {}
    for metric in rankable(asked["benchmark"]):
        if metric.field in model.metrics:
            size = 1e-9 * (1 + abs(model.metrics[metric.field]))
            worse[metric.field] = model.metrics[metric.field] + (
                size if metric.better == "lower" else -size
            )
    double = model.model_copy(update={"experiment": "zz/double", "metrics": worse})
    more = ask(asked, alter(CATALOG, runs=(*CATALOG.runs, double)))
    assert [one.name for one in more.front] == [one.name for one in answer.front]


# --- what must not matter ---


@laws
@given(questions(), st.randoms(use_true_random=False))
def test_the_order_of_the_runs_does_not_matter(
    alter: Callable[..., Catalog], asked: Options, random: Any
) -> None:
    shuffled = list(CATALOG.runs)
    random.shuffle(shuffled)
    assert ask(asked, alter(CATALOG, runs=tuple(shuffled))) == ask(asked)


@laws
@given(questions(), st.sampled_from([2**-30, 0.001, 1000, 2**20]))
def test_the_size_of_a_byte_does_not_matter(
    alter: Callable[..., Catalog], asked: Options, factor: float
) -> None:
    sized = {metric.id: metric for metric in CATALOG.metrics if metric.unit == "bytes"}
    fields = {metric.field for metric in sized.values()}

    def scaled(run: Run) -> Run:
        metrics = {
            field: value * factor if field in fields else value
            for field, value in run.metrics.items()
        }
        return run.model_copy(update={"metrics": metrics})

    metrics = tuple(
        metric.model_copy(update={"tie": metric.tie * factor})
        if metric.id in sized and metric.tie is not None
        else metric
        for metric in CATALOG.metrics
    )
    scaled_catalog = alter(CATALOG, runs=tuple(map(scaled, CATALOG.runs)), metrics=metrics)
    scaled_question = {
        name: value * factor if name.partition("_")[2] in sized else value
        for name, value in asked.items()
    }
    answer, other = ask(asked), ask(scaled_question, scaled_catalog)
    for group in ("front", "ties", "dominated", "dropped"):
        assert [one.name for one in getattr(other, group)] == [
            one.name for one in getattr(answer, group)
        ]


@laws
@given(questions())
def test_written_and_read_it_is_the_same_answer(asked: Options) -> None:
    answer = ask(asked)
    text = answer.to_json()
    again = Recommendation.from_json(text)
    assert again == answer
    assert again.to_json() == text
    assert Recommendation.from_json(answer.to_json(indent=1)) == answer


def test_a_catalog_read_anew_gives_the_same_answers() -> None:
    fresh = parse(CATALOG.model_dump_json().encode())
    for benchmark in ("metamathqa", "image_gen"):
        asked = {"benchmark": benchmark, "evidence": "pooled", "rank_by": "knee"}
        assert ask(asked, fresh).to_json() == ask(asked).to_json()


def test_the_seed_of_hashing_does_not_matter() -> None:
    code = (
        "from peft_shop import recommend, any_of; print(recommend('metamathqa', "
        "['test_accuracy', 'train_loss', 'peak_memory'], snapshot='all', era='shifted', "
        "quantization=any_of('gptq', 'bnb_4bit'), max_peak_memory='24GiB', peft_version='any'"
        ").to_json())"
    )
    texts = {
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(texts) == 1


# --- orders of the front ---


def orders(benchmark: str) -> st.SearchStrategy[Any]:
    names = [metric.id for metric in rankable(benchmark)]
    weights = st.dictionaries(st.sampled_from(names), st.floats(0.1, 9), min_size=1, max_size=3)
    return st.sampled_from(["headline", "knee", "cheapest-tie", *names]) | weights


def scaled_costs(answer: Recommendation, names: list[str]) -> list[list[float]]:
    """For each front member its costs, 0 at the best member and 1 at the worst or if missing."""
    columns = []
    for name in names:
        sign = 1 if CATALOG.metric_by_id[name].better == "lower" else -1
        column = [sign * one.values[name] if name in one.values else None for one in answer]
        present = [value for value in column if value is not None]
        low, high = (min(present), max(present)) if present else (0, 0)
        columns.append(
            [
                1.0 if value is None else (value - low) / (high - low) if high > low else 0.0
                for value in column
            ]
        )
    return [list(row) for row in zip(*columns, strict=True)]


@laws
@given(st.data())
def test_every_order_is_one_of_the_same_front(data: st.DataObject) -> None:
    asked = data.draw(questions(most=1))
    order = data.draw(orders(asked["benchmark"]))
    answer = ask(asked | {"rank_by": order})
    assert {one.name for one in answer} == {one.name for one in ask(asked)}
    headline = CATALOG.benchmark_by_id[asked["benchmark"]].headline
    if order == "headline":
        scores = [one.values[headline] for one in answer if headline in one.values]
        assert scores == sorted(scores, reverse=True)
    elif order == "knee":
        rows = scaled_costs(answer, list(answer.query.objectives))
        distances = [math.hypot(*row) for row in rows]
        assert distances == pytest.approx(sorted(distances))
    elif isinstance(order, dict):
        rows = scaled_costs(answer, list(order))
        sums = [
            sum(weight * cost for weight, cost in zip(order.values(), row, strict=True))
            for row in rows
        ]
        assert sums == pytest.approx(sorted(sums))
    elif order in CATALOG.metric_by_id:
        rows = [costs(one, (order,)) for one in answer if order in one.values]
        assert rows == sorted(rows)
        missing = [order not in one.values for one in answer]
        assert missing == sorted(missing)


@laws
@given(questions(most=1))
def test_the_cheapest_tie_is_the_cheapest_of_those_that_may_be_best(asked: Options) -> None:
    headline, cost = CATALOG.benchmark_by_id[asked["benchmark"]].default_objectives
    asked["objectives"] = [headline, cost]
    answer = ask(asked | {"rank_by": "cheapest-tie"})
    assume(answer.front)
    top = max(answer, key=lambda one: one.values[headline])
    spreads = {one.name: between(one, top, headline) for one in answer}
    equal = [
        one
        for one in answer
        if top.values[headline] - one.values[headline]
        <= factor(asked["confidence"], spreads[one.name].degrees, len(answer) - 1)
        * spreads[one.name].sd
    ]
    costly = [one.values[cost] for one in answer][: len(equal)]
    assert {one.name for one in list(answer)[: len(equal)]} == {one.name for one in equal}
    assert costly == sorted(costly)
    rest = [one.values[headline] for one in answer][len(equal) :]
    assert rest == sorted(rest, reverse=True)


def test_equal_members_of_a_front_are_ordered_by_name(alter: Callable[..., Catalog]) -> None:
    best = ask({"benchmark": "metamathqa"}).best.run
    names = ["zz/a", "aa/z", "mm/m"]
    doubles = [best.model_copy(update={"experiment": name}) for name in names]
    doubled = alter(CATALOG, runs=(*doubles, *CATALOG.runs))
    for order in ("headline", "peak_memory", "test_accuracy"):
        answer = ask({"benchmark": "metamathqa", "rank_by": order}, doubled)
        found = [one.name for one in answer if one.name in {*names, best.experiment}]
        assert found == sorted([*names, best.experiment])


# --- looking one up ---


@laws
@given(questions())
def test_a_candidate_is_found_by_its_name_and_place(asked: Options) -> None:
    answer = ask(asked)
    assert len(answer) == len(list(answer)) == len(answer.front)
    assert [answer[i] for i in range(len(answer))] == list(answer)
    for one in measured(answer):  # a baseline that is a candidate too is found as a candidate
        assert answer[one.name] is one
    for baseline in answer.baselines:
        assert answer[baseline.name].run == baseline.run
    for dropped in answer.dropped:
        if dropped.name not in {one.name for one in answer.baselines}:
            with pytest.raises(UnknownNameError, match="dropped"):
                answer[dropped.name]

"""What a run fails, against the definition of every constraint, on made runs."""

from __future__ import annotations

from typing import Any, Final

from hypothesis import example, given, settings
from hypothesis import strategies as st

from peft_shop import load_catalog
from peft_shop.ask.contenders import Contender
from peft_shop.ask.judging import judge
from peft_shop.ask.query import Bound, Query
from peft_shop.catalog.runs import Flag
from peft_shop.forecast.records import Settings

CATALOG = load_catalog()
RUN = next(run for run in CATALOG.runs if run.benchmark == "metamathqa" and run.method == "lora")
METRICS: Final = ("test_accuracy", "peak_memory", "train_time", "checkpoint_size")
FIELDS: Final = {
    "test_accuracy": "test_accuracy",
    "peak_memory": "peak_memory_bytes",
    "train_time": "train_seconds",
    "checkpoint_size": "checkpoint_bytes",
}
FORECAST: Final = {"peak_memory", "checkpoint_size"}
"""Of these metrics, those that a forecast replaces where a training step is asked about."""

flags = st.lists(
    st.tuples(
        st.sampled_from(["broken_config", "artefact", "sentinel", "environment"]),
        st.sets(st.sampled_from(METRICS), max_size=2),
    ),
    max_size=2,
)
bounds = st.lists(
    st.tuples(st.sampled_from(["min", "max"]), st.sampled_from(METRICS), st.integers(0, 4)),
    max_size=3,
)
questions = st.fixed_dictionaries(
    {
        "objectives": st.lists(st.sampled_from(METRICS), min_size=1, max_size=3, unique=True),
        "rank_by": st.sampled_from(["headline", "knee", *METRICS]),
        "weights": st.dictionaries(st.sampled_from(METRICS), st.just(1.0), max_size=2),
        "floor": st.integers(0, 4),
        "include_flagged": st.booleans(),
        "training": st.sampled_from([None, Settings()]),
    }
)
figures = st.dictionaries(st.sampled_from(METRICS), st.integers(0, 4))


@settings(max_examples=150, deadline=None)
@given(figures, flags, bounds, questions)
# a flag on what only the order, only a weight, or only a limit asks for
@example(
    dict.fromkeys(METRICS, 2), [("artefact", {"train_time"})], [],
    {"objectives": ["test_accuracy"], "rank_by": "train_time", "weights": {}, "floor": 0,
     "include_flagged": False, "training": None},
)  # fmt: skip
@example(
    dict.fromkeys(METRICS, 2), [("artefact", {"train_time"})], [],
    {"objectives": ["test_accuracy"], "rank_by": "weights", "weights": {"train_time": 1.0},
     "floor": 0, "include_flagged": False, "training": None},
)  # fmt: skip
@example(
    dict.fromkeys(METRICS, 2), [("artefact", {"peak_memory"})], [("max", "peak_memory", 4)],
    {"objectives": ["test_accuracy"], "rank_by": "headline", "weights": {}, "floor": 0,
     "include_flagged": False, "training": Settings()},
)  # fmt: skip
def test_a_run_fails_what_the_definitions_say_and_nothing_else(
    values: dict[str, int],
    flagged: list[tuple[Any, set[str]]],
    limits: list[tuple[Any, str, int]],
    asked: dict[str, Any],
) -> None:
    query = Query(
        benchmark="metamathqa",
        bounds=tuple(
            Bound(metric=metric, kind=kind, value=value, text=str(value))
            for kind, metric, value in limits
        ),
        **asked,
    )
    run = RUN.model_copy(
        update={
            "flags": tuple(
                Flag(code=code, metrics=tuple(FIELDS[name] for name in names), reason="because")
                for code, names in flagged
            )
        }
    )
    contender = Contender("made", "lora", (), run, values=dict(values), sds={})
    replaced = FORECAST if asked["training"] else set()
    decisive = {*asked["objectives"], *(metric for _, metric, _ in limits)}
    decisive |= {asked["rank_by"], *asked["weights"]}
    expected: list[str] = []
    if not asked["include_flagged"]:
        expected += [
            "flagged"
            for code, names in flagged
            if code in {"broken_config", "artefact"}
            and (not names or names & (decisive - replaced))
        ]
    expected += [
        "objectives" for name in asked["objectives"] if name not in values and name not in replaced
    ]
    for kind, metric, limit in limits:
        name = f"{kind}_{metric}"
        if metric not in values:
            expected += [] if kind == "max" and metric in replaced else [name]
        elif (kind == "max" and values[metric] > limit) or (
            kind == "min" and values[metric] < limit
        ):
            expected.append(name)
    score = values.get("test_accuracy")
    if (score is None and asked["floor"] > 0) or (score is not None and score < asked["floor"]):
        expected.append("floor")
    (verdict,) = judge(CATALOG, query, [contender])
    assert sorted(failure.constraint for failure in verdict.failures) == sorted(expected)
    for failure in verdict.failures:
        if failure.constraint.startswith("max_") and failure.found is not None:
            assert " is above " in failure.reason
        if failure.constraint.startswith("min_") and failure.found is not None:
            assert " is below " in failure.reason

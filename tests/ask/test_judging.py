"""Verdicts and orders, each against its definition on made contenders."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from peft_shop import load_catalog, recommend
from peft_shop.adapt.records import TargetOptions
from peft_shop.ask.adapted import retargeted
from peft_shop.ask.advice import _about_model, _just_met, _suggestion, _words, warnings
from peft_shop.ask.contenders import Contender, field_of_play
from peft_shop.ask.judging import judge
from peft_shop.ask.query import Bound, MemoryLimit, Query, Requirement
from peft_shop.ask.ranking import best_first, epsilons
from peft_shop.ask.spread import factor
from peft_shop.forecast.records import Settings
from peft_shop.model.structure import Structure
from peft_shop.units import format_quantity, parse_quantity

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

CATALOG = load_catalog()
ACCURACY, MEMORY, LOSS, TIME = (
    CATALOG.metric_by_id[name] for name in ("test_accuracy", "peak_memory", "train_loss",
                                            "train_time")
)  # fmt: skip
RUN = next(run for run in CATALOG.runs if run.benchmark == "metamathqa" and run.method == "lora")
LAWS = settings(max_examples=60, deadline=None)


def question(**more: Any) -> Query:
    start = {"benchmark": "metamathqa", "objectives": ("test_accuracy", "peak_memory"), "floor": 0}
    return Query(**(start | more))


def contender(name: str, sds: Mapping[str, float] | None = None, **values: float) -> Contender:
    return Contender(name, "lora", (), RUN, values=dict(values), sds=dict(sds or {}))


# --- the order ---

figures = st.lists(
    st.tuples(st.one_of(st.none(), st.integers(0, 6)), st.one_of(st.none(), st.integers(1, 6))),
    min_size=1,
    max_size=7,
)


def drawn(rows: list[tuple[int | None, int | None]]) -> list[Contender]:
    return [
        contender(
            f"run {place}",
            **({} if score is None else {"test_accuracy": score / 8}),
            **({} if memory is None else {"peak_memory": memory}),
        )
        for place, (score, memory) in enumerate(rows)
    ]


def costs(one: Contender) -> tuple[float, float]:
    """Score turned, and memory; what is not known is worse than all."""
    return (
        -one.values.get("test_accuracy", -math.inf),
        one.values.get("peak_memory", math.inf),
    )


@LAWS
@given(
    figures,
    st.sampled_from(
        [(None, "headline"), (None, "peak_memory"), (None, "knee"), ((2.0, 1.0), "weights"),
         ((0.0, 1.0), "weights")]
    ),
)  # fmt: skip
def test_the_order_is_that_of_its_definition(
    rows: list[tuple[int | None, int | None]], order: tuple[tuple[float, float] | None, str]
) -> None:
    everyone = drawn(rows)
    weights = dict(zip(("test_accuracy", "peak_memory"), order[0] or (), strict=False))
    asked = question(rank_by=order[1], weights=weights)
    usual = {one.name: (*costs(one)[:1], *costs(one), one.name) for one in everyone}

    def shares(column: int) -> dict[str, float]:
        known = [costs(one)[column] for one in everyone if math.isfinite(costs(one)[column])]
        span = max(known) - min(known) if known else 0.0
        return {
            one.name: 1.0
            if not math.isfinite(costs(one)[column])
            else 0.0
            if span == 0
            else (costs(one)[column] - min(known)) / span
            for one in everyone
        }

    first, second = shares(0), shares(1)
    leading = {
        "headline": lambda name: 0.0,  # noqa: ARG005 - decided by the usual order
        "peak_memory": lambda name: next(costs(one)[1] for one in everyone if one.name == name),
        "knee": lambda name: math.hypot(first[name], second[name]),
        "weights": lambda name: (
            (order[0] or (0, 0))[0] * first[name] + (order[0] or (0, 0))[1] * second[name]
        ),
    }[order[1]]
    wanted = sorted(usual, key=lambda name: (leading(name), *usual[name]))
    found = best_first(CATALOG, asked, everyone, [ACCURACY, MEMORY])
    assert [one.name for one in found] == wanted


@LAWS
@given(
    st.lists(
        st.tuples(st.integers(0, 40), st.integers(1, 4), st.sampled_from([0.0, 1.0, 3.0])),
        min_size=1,
        max_size=7,
    )
)
# two deviations behind: more than two rivals need, less than four
@example([(40, 2, 1.0), (38, 1, 0.0), (0, 4, 0.0)])
def test_the_cheapest_of_those_that_noise_cannot_tell_from_the_best_comes_first(
    rows: list[tuple[int, int, float]],
) -> None:
    everyone = [
        contender(
            f"run {place}",
            {"test_accuracy": sd / 100} if sd else {},
            test_accuracy=score / 100,
            peak_memory=memory,
        )
        for place, (score, memory, sd) in enumerate(rows)
    ]
    found = best_first(CATALOG, question(rank_by="cheapest-tie"), everyone, [ACCURACY, MEMORY])
    top = min(everyone, key=lambda one: (*costs(one), one.name))
    z = factor(0.95, math.inf, len(everyone) - 1)

    def equal(one: Contender) -> bool:
        noise = math.hypot(*(each.sds.get("test_accuracy", 0.0) for each in (one, top)))
        return top.values["test_accuracy"] - one.values["test_accuracy"] <= z * noise

    ties = sorted(filter(equal, everyone), key=lambda one: (one.values["peak_memory"], one.name))
    rest = sorted(
        (one for one in everyone if not equal(one)), key=lambda one: (*costs(one), one.name)
    )
    assert found == ties + rest


@LAWS
@given(
    st.lists(st.one_of(st.none(), st.floats(-9, 9)), min_size=1, max_size=5),
    st.sampled_from([None, 0.5, 4.0]),
    st.sampled_from([None, 0.1, 0.5]),
)
def test_the_width_of_a_tie_is_a_share_of_the_smallest_figure(
    values: list[float | None], tie: float | None, relative: float | None
) -> None:
    metric = TIME.model_copy(update={"tie": tie, "tie_relative": relative})
    kept = [
        contender("run", **({} if value is None else {"train_time": value})) for value in values
    ]
    sizes = [abs(value) for value in values if value is not None]
    (width,) = epsilons(kept, [metric])
    assert width == max(tie or 0.0, relative * min(sizes) if relative and sizes else 0.0)


# --- verdicts ---


def interval(low: float, high: float) -> Any:
    return SimpleNamespace(peak_memory=SimpleNamespace(low=low, high=high))


def failing(one: Contender, query: Query, catalog: Any = CATALOG) -> dict[str, str]:
    (verdict,) = judge(catalog, query, [one])
    assert verdict.kept == (not verdict.failures)
    return {failure.constraint: failure.reason for failure in verdict.failures}


GIB = 2**30
LIMIT = MemoryLimit(bytes=8 * GIB, text="8GiB")


@pytest.mark.parametrize(
    ("more", "fails"),
    [
        ({"forecast": interval(8 * GIB, 9 * GIB)}, None),
        ({"forecast": interval(8 * GIB + 1, 9 * GIB)}, "the forecast, 8.00 GiB to 9.00 GiB, is"),
        ({"forecast": interval(1, 2)}, None),
        ({"forecast": interval(8 * GIB + 1, 9 * GIB), "setup": SimpleNamespace()}, None),
        ({}, None),
        ({"misfit": "no setup fits"}, "no setup fits"),
        ({"misfit": "no setup fits", "forecast": interval(1, 2)}, "no setup fits"),
    ],
)
def test_only_what_is_surely_too_large_fails(more: dict[str, Any], fails: str | None) -> None:
    one = Contender("run", "lora", (), None, **more)
    found = failing(one, question(memory=LIMIT)).get("max_memory")
    assert found is None if fails is None else found is not None and found.startswith(fails)
    assert "max_memory" not in failing(one, question())


def versions(one: Contender, version: str, **fields: str | None) -> list[str]:
    method = CATALOG.method_by_id["lora"]
    known = method.model_copy(update={"fields": {**method.fields, **fields}})
    catalog = CATALOG.model_copy(
        update={"methods": tuple(known if each.id == "lora" else each for each in CATALOG.methods)}
    )
    (verdict,) = judge(catalog, question(peft_version=version), [one])
    return [failure.reason for failure in verdict.failures if "option" in failure.reason]


@pytest.mark.parametrize(
    ("since", "version", "told"),
    [
        ("0.9.0", "0.9.0", None),
        ("0.9.0", "0.10.0", None),
        ("0.10.0", "0.9.0", "the option 'novel' needs peft 0.10.0 or newer, not 0.9.0"),
        (None, "0.9.0", "the option 'novel' is not known to any release, not 0.9.0"),
    ],
)
def test_an_option_that_is_newer_drops_the_run(
    since: str | None, version: str, told: str | None
) -> None:
    recipe = RUN.recipe.model_copy(update={"config": {"novel": 1}})
    run = RUN.model_copy(update={"recipe": recipe})
    one = Contender("run", "lora", (), run, values={"test_accuracy": 0.5, "peak_memory": 1})
    assert versions(one, version, novel=since) == ([] if told is None else [told])


STRUCTURE = Structure(
    name="mine",
    architecture="MineForCausalLM",
    model_type="mine",
    library="transformers",
    modality="text",
    task_type="CAUSAL_LM",
    benchmark="metamathqa",
    benchmark_because="because of this",
    groups=(),
    parameters=0,
)


def test_the_version_to_adapt_to_is_the_one_that_is_stated_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[str | None] = []

    def watch(_: object, __: object, ___: object, options: TargetOptions) -> Any:
        told.append(options.peft_version)
        return SimpleNamespace(problems=("no",), config={})

    monkeypatch.setattr("peft_shop.adapt.retarget.retarget", watch)
    fresh = CATALOG.model_copy()
    one = Contender("run", "lora", (), RUN)
    for options in (TargetOptions(peft_version="0.11.0"), TargetOptions()):
        asked = question(model=STRUCTURE, adapt=options, peft_version="0.15.0")
        assert retargeted(fresh, asked, one) is not None
    assert told == ["0.11.0", "0.15.0"]


# --- advice ---

words = st.sampled_from(["max", "min"])


@LAWS
@given(
    st.lists(
        st.tuples(st.integers(1, 99), st.integers(1, 999)), min_size=1, max_size=6, unique=True
    ),
    st.lists(st.sampled_from(["max_train_loss", "min_test_accuracy", "category"]), min_size=1,
             unique=True),
)  # fmt: skip
def test_the_advice_is_the_smallest_step_that_admits_someone(
    rows: list[tuple[int, int]], constraints: list[str]
) -> None:
    """With one limit in the way; with several they go where the best of the admitted needs them."""
    admitted = [
        contender(f"run-{place}", test_accuracy=score / 100, train_loss=loss / 1000)
        for place, (score, loss) in enumerate(rows)
    ]
    text = _suggestion(CATALOG, question(), constraints, admitted)
    sides = {"max_train_loss": ("raise", LOSS, min), "min_test_accuracy": ("lower", ACCURACY, max)}
    limits = {}
    for name in constraints:
        if name not in sides:
            assert f"give up {name}" in text
            continue
        verb, metric, easiest = sides[name]
        target = admitted[0].values[metric.id]
        if len(constraints) == 1:
            target = easiest(one.values[metric.id] for one in admitted)
        assert f"{verb} {name} to " in text
        written = text.partition(f"{verb} {name} to ")[2].partition(" (admits")[0]
        written = written.partition(" and ")[0]
        limits[metric.id] = parse_quantity(written, metric.unit)
        # rounded away from the figure by one unit of its last place at most
        off = limits[metric.id] - target
        assert -1e-9 <= (off if name.startswith("max") else -off) <= 0.001 + 1e-9
    reached = [
        one
        for one in admitted
        if one.values["train_loss"] <= limits.get("train_loss", math.inf)
        and one.values["test_accuracy"] >= limits.get("test_accuracy", -math.inf)
    ]
    assert f"(admits {len(reached)}: {reached[0].name}{', ...' if len(reached) > 1 else ''}" in text
    assert ("; without" in text) == (len(reached) < len(admitted))
    if len(reached) < len(admitted):
        which = "this limit" if len(limits) == 1 else "these limits"
        assert f"; without {which} {len(admitted)}: {admitted[0].name}" in text


@LAWS
@given(
    st.sampled_from(["bytes", "seconds", "fraction", "count", "score"]),
    st.floats(1e-2, 1e13),
    st.sampled_from(["max", "min"]),
)
def test_a_limit_in_words_is_one_unit_of_its_last_figure_away(
    unit: Any, value: float, kind: str
) -> None:
    if unit in {"bytes", "count"}:
        value = max(100.0, round(value))  # whole ones
    text = _just_met(value, unit, kind)
    number, _, suffix = text.partition(" ")
    last = 10.0 ** -len(number.partition(".")[2])
    step = parse_quantity(f"{last:.12f}{suffix}", unit) if suffix else last
    off = parse_quantity(text.replace(" ", ""), unit) - value
    slack = 1e-9 * value
    assert -slack <= (off if kind == "max" else -off) <= step + slack
    if suffix and suffix != "%":
        assert step <= value / 100 * (1 + 1e-9) or format_quantity(value, unit) == text


def test_what_is_no_limit_is_given_up_in_words_of_its_own() -> None:
    asked = question(peft_version="0.15.0")
    told = {
        name: _words(CATALOG, asked, name)
        for name in ("era", "flagged", "objectives", "max_memory", "training", "model", "serve",
                     "peft_version", "category")
    }  # fmt: skip
    assert len(set(told.values())) == len(told)
    assert told["category"] == "give up category"
    assert not any("give up" in text for name, text in told.items() if name != "category")
    assert told["peft_version"] == f"upgrade peft from 0.15.0 to {CATALOG.peft_version}"


@pytest.mark.parametrize("training", [None, Settings()])
@pytest.mark.parametrize("ranked", [True, False])
@pytest.mark.parametrize("evidence", ["metamathqa", "image_gen", None])
def test_it_is_said_what_the_evidence_is_worth_on_the_model(
    training: Settings | None, ranked: bool, evidence: str | None
) -> None:
    model = STRUCTURE.model_copy(update={"benchmark": evidence, "notes": ("look twice",)})
    told = list(_about_model(question(model=model, training=training, ranked=ranked), model))
    own = [text for text in told if "the benchmark's own model" in text]
    none = [text for text in told if "no run of metamathqa is evidence for mine" in text]
    nothing = [text for text in told if text.startswith("nothing is ranked: because of this")]
    assert (len(own), len(none), len(nothing)) == (
        ranked and evidence == "metamathqa",
        ranked and evidence != "metamathqa",
        not ranked,
    )
    assert all(
        text.startswith("figures are" if training is None else "scores and times are")
        for text in own
    )
    assert all("because of this" in text for text in none)
    assert len([text for text in told if "forecasts for mine" in text]) == (training is not None)
    assert told[-1] == "look twice"


def test_nothing_is_said_of_nobody() -> None:
    """Warnings about noise and many objectives are about runs that are kept."""
    names = ["test_accuracy", "forgetting", "peak_memory", "train_time"]
    for asked, there in (({}, True), ({"max_peak_memory": "1GiB"}, False)):
        told = recommend("metamathqa", names, peft_version="any", **asked).warnings
        assert any("re-run noise" in text for text in told) == there
        assert any("hardly filter" in text for text in told) == there


def test_every_contender_is_judged_once() -> None:
    answer = recommend("metamathqa", peft_version="any")
    field = field_of_play(CATALOG, answer.query)
    verdicts = judge(CATALOG, answer.query, field.contenders)
    assert [one.candidate for one in verdicts] == [one.name for one in field.contenders]


# --- warnings ---


def warned(asked: Query, contenders: Sequence[Contender] = ()) -> list[str]:
    verdicts = judge(CATALOG, asked, contenders)
    metrics = [CATALOG.metric_by_id[name] for name in asked.objectives]
    return list(warnings(CATALOG, asked, contenders, verdicts, metrics))


@pytest.mark.parametrize(
    ("settings_", "told"),
    [
        ({}, "(batch 4, bfloat16, 512 tokens)"),
        ({"batch_size": 1, "dtype": "float32"}, "(batch 1, float32, 512 tokens)"),
        ({"quantization": "bnb_4bit"}, "(batch 4, bfloat16, bnb_4bit, 512 tokens)"),
        (
            {"gradient_checkpointing": True, "sequence_length": 64},
            "(batch 4, bfloat16, gradient checkpointing, 64 tokens)",
        ),
    ],
)
def test_it_is_said_of_which_step_a_forecast_is(settings_: dict[str, Any], told: str) -> None:
    step = Settings(**settings_)
    text = f"peak memory, checkpoint size and parameter counts are forecasts for mine {told}"
    assert f"{text}, not measured" in _about_model(question(training=step), STRUCTURE)
    image = STRUCTURE.model_copy(update={"modality": "image"})
    shorter = text.replace(f", {step.sequence_length} tokens", "")
    assert f"{shorter}, not measured" in _about_model(question(training=step), image)
    auto = list(_about_model(question(training=step, fit="auto"), STRUCTURE))
    assert "under one setup for all" in auto[0]
    assert not any(told in one for one in auto)


@pytest.mark.parametrize("unknown", [1, 2, 3, 4])
@pytest.mark.parametrize("known", [0, 1, 2, 3, 4])
def test_a_memory_that_is_not_known_is_told(unknown: int, known: int) -> None:
    runs = [contender(f"run {place}", test_accuracy=0.4) for place in range(unknown)]
    runs += [contender(f"run 1{place}", test_accuracy=0.4, peak_memory=1) for place in range(known)]
    asked = question(training=Settings(), objectives=("test_accuracy",))
    (text,) = [text for text in warned(asked, runs) if text.startswith("the memory of ")]
    names = ", ".join(["run 0", "run 1", "run 2"][:unknown]) + (", ..." if unknown > 3 else "")
    if unknown > known:
        start = f"the memory of {unknown} of {unknown + known} ({names}) is not known: no forecast"
    else:
        start = f"the memory of {names} is not known, which is not counted as too much"
    assert text == f"{start}; dry runs tell it, given time (--within 10min, within='10min')"
    untold = warned(asked.model_copy(update={"training": None}), runs)
    assert not any("dry runs" in text for text in untold)


BOUNDS = (
    Bound(metric="peak_memory", kind="max", value=1.0, text="1 B"),
    Bound(metric="test_accuracy", kind="min", value=0.1, text="10%"),
    Bound(metric="trainable_parameters", kind="max", value=1.0, text="1"),
)
FOUR_BIT = Requirement(name="quantization", values=("bnb_4bit",))


@pytest.mark.parametrize("training", [None, Settings(), Settings(quantization="bnb_4bit")])
@pytest.mark.parametrize("demanded", [(), (FOUR_BIT,)])
@pytest.mark.parametrize("bounds", [(), BOUNDS, BOUNDS[:1], BOUNDS[2:]])
def test_figures_beside_a_quantized_base_are_those_of_16_bit(
    training: Settings | None, demanded: tuple[Requirement, ...], bounds: tuple[Bound, ...]
) -> None:
    asked = question(training=training, requirements=demanded, bounds=bounds)
    quantized = bool(demanded) or (training is not None and training.quantization is not None)
    # a forecast knows the base; a count does not depend on it
    held = [
        f"{bound.kind}_{bound.metric}"
        for bound in bounds
        if bound.metric == "test_accuracy" or (bound.metric == "peak_memory" and training is None)
    ]
    told = [text for text in warned(asked) if "on a quantized" in text]
    if quantized and held:
        assert [text.partition(":")[0] for text in told] == [" and ".join(held)]
    elif quantized and training is not None:
        assert told == ["scores and times were measured in 16 bit; on a quantized base they differ"]
    else:
        assert told == []


@pytest.mark.parametrize(
    "names", [(), ("quantization",), ("merging",), ("quantization", "merging")]
)
def test_merging_into_a_quantized_base_is_warned_of(names: tuple[str, ...]) -> None:
    known = {"quantization": FOUR_BIT, "merging": Requirement(name="merging", values=("yes",))}
    told = warned(question(requirements=tuple(known[name] for name in names)))
    assert any("rounds the update away" in text for text in told) == (len(names) == 2)


def test_a_variant_without_a_run_is_told_by_its_title() -> None:
    everyone = field_of_play(CATALOG, recommend("metamathqa", peft_version="any").query).contenders
    measured = {(one.method, variant) for one in everyone for variant in one.variants}
    for method in CATALOG.methods:
        for variant in method.variants:
            asked = question(variants=(f"{method.id}:{variant.id}",))
            told = [text for text in warned(asked, everyone) if text.startswith("no run of ")]
            missing = f"no run of {variant.title} is on file for metamathqa"
            assert told == ([] if (method.id, variant.id) in measured else [missing])


def test_what_must_be_known_of_a_device_is_told() -> None:
    limit = MemoryLimit(bytes=1, text="the card", cautions=("it is shared", "it is old"))
    assert warned(question(memory=limit))[:2] == ["the card: it is shared", "the card: it is old"]

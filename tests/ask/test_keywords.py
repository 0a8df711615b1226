"""Whatever is given for a keyword: an answer, or an error that names it."""

from __future__ import annotations

import contextlib
import inspect
import math
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peft_shop import Recommendation, any_of, recommend
from peft_shop.adapt.records import TargetOptions
from peft_shop.ask.keywords import KEYWORDS
from peft_shop.errors import (
    CatalogError,
    InputError,
    PeftShopError,
    QuantityError,
    QueryError,
    UnknownNameError,
    shown,
)
from peft_shop.forecast.records import Settings
from peft_shop.model.structure import Structure
from peft_shop.names import Bounds

NAMED: Final = sorted(set(KEYWORDS) - {"model"})
ODD: Final = [
    10**400,
    -(10**400),
    10**5000,
    "9" * 5000,
    "x" * 5000,
    "\ud800",
    "\0",
    "",
    b"x",
    object(),
    math.nan,
    math.inf,
    any_of("\ud800"),
    [],
    [[]],
    {},
    {5: []},
    {"x": object()},
    print,
]
JUNK: Final = st.one_of(
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.lists(st.integers() | st.text(max_size=3) | st.none(), max_size=3),
    st.dictionaries(st.text(max_size=3) | st.integers(), st.integers() | st.text(max_size=3)),
    st.booleans(),
)


def test_every_keyword_has_a_row() -> None:
    assert set(KEYWORDS) == set(inspect.signature(recommend).parameters) - {"bounds"}


@pytest.mark.parametrize("name", [*NAMED, "max_peak_memory", "min_test_accuracy"])
def test_odd_values_are_an_answer_or_an_error_of_our_own(name: str) -> None:
    for odd in ODD:
        with contextlib.suppress(PeftShopError):
            recommend(**{"peft_version": "any", "methods": "oft", name: odd})


@given(st.sampled_from([*NAMED, *Bounds.__annotations__, "max_", "min_x", "quantisation"]), JUNK)
@settings(max_examples=100)
def test_junk_is_an_answer_or_an_error_of_our_own(name: str, junk: Any) -> None:
    with contextlib.suppress(PeftShopError):
        recommend(**{"peft_version": "any", name: junk})


@pytest.mark.parametrize("junk", ODD, ids=range(len(ODD)))
def test_what_is_shown_of_a_value_is_short(junk: Any) -> None:
    assert len(shown(junk)) < 120
    assert len(str(UnknownNameError("name", repr(type(junk)) * 9, ["x"] * 3))) < 300


@pytest.mark.parametrize("name", [*NAMED, "max_peak_memory", "min_test_accuracy"])
def test_a_value_of_a_wrong_kind_is_an_error_that_names_the_keyword(name: str) -> None:
    with pytest.raises(InputError) as caught:
        recommend(**{name: object()})
    assert caught.value.keyword == name
    assert str(caught.value).startswith(f"{name}: expected ")


@pytest.mark.parametrize("junk", [5, [], {"model_type": "x"}, "", "\0", "\ud800", object()])
def test_a_model_that_is_none_is_an_error_of_our_own(junk: Any) -> None:
    with pytest.raises(PeftShopError):
        recommend(model=junk)


@pytest.mark.parametrize(
    ("keyword", "field"),
    [
        *(("training", field) for field in Settings.model_fields),
        *(("adapt", field) for field in TargetOptions.model_fields),
        ("device", None),
        ("max_memory", None),
        ("fit", None),
        ("within", None),
    ],
)
def test_odd_values_about_a_model_are_errors_of_our_own(keyword: str, field: str | None) -> None:
    file = Path(__file__).parents[2] / "data" / "structures" / "llama-3.2-3b.json"
    model = Structure.model_validate_json(file.read_bytes())
    beside = {"device": "T4"} if keyword in {"fit", "within"} else {}
    for odd in ODD:
        asked = {**beside, keyword: odd if field is None else {field: odd}}
        with contextlib.suppress(PeftShopError):
            recommend(model=model, methods="shira", **asked)


def test_a_misspelt_keyword_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="unknown keyword 'quantisation'; did"):
        recommend(quantisation="gptq")  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("asked", "meant"),
    [
        ({"max_peak_memory": 24}, "max_peak_memory='24GiB'"),
        ({"max_peak_memory": "24"}, "max_peak_memory='24GiB'"),
        ({"max_peak_memory": "24576"}, "max_peak_memory='24576GiB'"),
        ({"max_memory": "24"}, "max_memory='24GiB'"),
        ({"max_train_time": "20"}, "max_train_time='20min'"),
        ({"min_test_accuracy": 50}, "min_test_accuracy='50%', or 0.5"),
        ({"min_test_accuracy": "50"}, "min_test_accuracy='50%', or 0.5"),
        ({"floor": 30}, "floor='30%', or 0.3"),
        ({"min_test_accuracy": "150%"}, "above 100 %"),
        ({"max_peak_memory": "-3GiB"}, "negative"),
        ({"max_trainable_parameters": -1}, "negative"),
        ({"max_train_time": -0.5}, "negative"),
    ],
)
def test_a_slip_says_what_may_be_meant(asked: dict[str, Any], meant: str) -> None:
    with pytest.raises(QuantityError) as caught:
        recommend(**asked)
    assert meant in str(caught.value)
    assert caught.value.keyword in asked


def test_what_cannot_be_a_slip_is_taken() -> None:
    found = recommend(
        peft_version="any",
        max_peak_memory="25769803776",
        min_peak_memory="0",
        max_train_time=7200,
        min_test_accuracy="30%",
        max_train_loss=3,
    )
    assert [bound.value for bound in found.query.bounds] == [25769803776, 0, 7200, 0.3, 3]


def test_names_that_can_be_read_once_are_read_once() -> None:
    assert recommend(methods=iter(["lora", "oft"])).query.methods == ("lora", "oft")
    (one,) = recommend(quantization=iter(["gptq"])).query.requirements
    assert one.values == ("gptq",)


def test_device_and_memory_are_spelt_as_arguments() -> None:
    with pytest.raises(QueryError, match="device= and max_memory= limit the memory"):
        recommend(device="T4", max_memory="3GiB")


@pytest.mark.parametrize(
    "text", [None, 5, [], "\ud800", '"\ud800"', "null", "[]", b"\xff", "9" * 5000, '{"a":' * 5000]
)
def test_what_is_no_answer_is_an_error_of_our_own(text: Any) -> None:
    with pytest.raises(CatalogError, match="cannot read the recommendation"):
        Recommendation.from_json(text)

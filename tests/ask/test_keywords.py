"""Whatever is given for a keyword: an answer, or an error that names it."""

from __future__ import annotations

import contextlib
import inspect
import math
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peft_shop import any_of, recommend
from peft_shop.ask.keywords import KEYWORDS
from peft_shop.errors import (
    InputError,
    PeftShopError,
    QuantityError,
    QueryError,
    UnknownNameError,
    shown,
)
from peft_shop.names import Bounds

NAMED: Final = sorted(set(KEYWORDS) - {"model"})
JUNK: Final = st.one_of(
    st.sampled_from(
        [
            10**400,
            -(10**400),
            10**5000,
            "9" * 5000,
            "x" * 5000,
            "\ud800",
            "\0",
            "",
            " ",
            b"x",
            object(),
            math.nan,
            math.inf,
            any_of("\ud800"),
            type,
            print,
        ]
    ),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.lists(st.integers() | st.text(max_size=3) | st.none(), max_size=3),
    st.dictionaries(st.text(max_size=3) | st.integers(), st.integers() | st.text(max_size=3)),
    st.booleans(),
)


def test_every_keyword_has_a_row() -> None:
    assert set(KEYWORDS) == set(inspect.signature(recommend).parameters) - {"bounds"}


@given(st.sampled_from([*NAMED, *Bounds.__annotations__, "max_", "min_x", "quantisation"]), JUNK)
@settings(max_examples=150)
def test_junk_is_an_answer_or_an_error_of_our_own(name: str, junk: Any) -> None:
    with contextlib.suppress(PeftShopError):
        recommend(**{"peft_version": "any", name: junk})


@given(JUNK)
@settings(max_examples=50)
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


def test_device_and_memory_are_spelt_as_arguments() -> None:
    with pytest.raises(QueryError, match="device= and max_memory= limit the memory"):
        recommend(device="T4", max_memory="3GiB")

"""Frozen means frozen: nothing that an answer or a catalog holds can be changed in place."""

from __future__ import annotations

import copy
import importlib
import json
import pkgutil
from collections.abc import Iterator, Mapping, MutableMapping, MutableSequence, MutableSet
from typing import TYPE_CHECKING, Any, get_args, get_origin

import pytest
from hypothesis import given
from hypothesis import strategies as st

import peft_shop
from peft_shop import load_catalog, recommend
from peft_shop.records import (
    FrozenDict,
    FrozenList,
    Record,
    compact_json,
    frozen,
    parse_json,
)

if TYPE_CHECKING:
    from collections.abc import Callable

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=12,
)


def containers(value: Any, seen: set[int]) -> Iterator[Any]:
    """Every container that can be reached from a record through its fields."""
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, Record):
        for name in type(value).model_fields:
            yield from containers(getattr(value, name), seen)
    elif isinstance(value, Mapping):
        yield value
        for inner in value.values():
            yield from containers(inner, seen)
    elif isinstance(value, list | tuple | set | frozenset):
        yield value
        for inner in value:
            yield from containers(inner, seen)


def attempts(value: Any) -> Iterator[Callable[[], object]]:
    """Every way in which a container could be changed."""
    if isinstance(value, dict):
        yield lambda: value.__setitem__("r", 999)
        yield lambda: value.update(r=999)
        yield lambda: value.setdefault("added by the test", 1)
        yield value.clear
        yield value.popitem
        yield lambda: value.pop("r", None)
        yield lambda: value.__delitem__("r")
        yield lambda: value.__ior__({"r": 999})
    elif isinstance(value, list):
        yield lambda: value.append(999)
        yield lambda: value.extend([999])
        yield lambda: value.insert(0, 999)
        yield lambda: value.__iadd__([999])
        yield lambda: value.__imul__(2)
        yield lambda: value.__setitem__(slice(None), [])
        yield lambda: value.__delitem__(slice(None))
        yield value.clear
        yield value.reverse
        yield value.sort
        yield value.pop
        yield lambda: value.remove(value[0])


def test_no_container_of_an_answer_or_the_catalog_can_be_changed() -> None:
    catalog = load_catalog()
    before = recommend("metamathqa", catalog=catalog, peft_version="any").to_json()
    answer = recommend("metamathqa", catalog=catalog, peft_version="any")
    seen: set[int] = set()
    tried = 0
    for value in [*containers(answer, seen), *containers(catalog, seen)]:
        if not isinstance(value, MutableMapping | MutableSequence | MutableSet):
            continue
        for attempt in attempts(value):
            tried += 1
            try:
                attempt()
            except TypeError as error:
                assert "belongs to a record" in str(error)  # noqa: PT017 - 30,000 of them
            else:
                pytest.fail(f"{value!r} was changed")
    assert tried > 10_000
    assert answer.to_json() == before
    assert recommend("metamathqa", catalog=catalog, peft_version="any").to_json() == before


def test_the_indexes_of_a_catalog_are_views() -> None:
    catalog = load_catalog()
    for name in ("method_by_id", "metric_by_id", "benchmark_by_id", "engine_by_id"):
        with pytest.raises(TypeError):
            getattr(catalog, name)["added"] = None


def records() -> list[type[Record]]:
    """Every record of the query side that can be imported without torch."""
    for module in pkgutil.walk_packages(peft_shop.__path__, "peft_shop."):
        if ".curate" not in module.name and not module.name.endswith("__main__"):
            importlib.import_module(module.name)

    def below(cls: type[Record]) -> Iterator[type[Record]]:
        for child in cls.__subclasses__():
            yield child
            yield from below(child)

    return [
        cls
        for cls in dict.fromkeys(below(Record))
        if cls.__module__.startswith("peft_shop.") and ".curate." not in cls.__module__
    ]


def holds_container(annotation: Any) -> bool:
    if get_origin(annotation) in {dict, list, set} or annotation in {dict, list, set}:
        return True
    return any(holds_container(part) for part in get_args(annotation))


def test_every_field_that_holds_a_container_is_frozen() -> None:
    loose = [
        f"{cls.__name__}.{name}"
        for cls in records()
        for name, field in cls.model_fields.items()
        if holds_container(field.annotation)
        and not any(getattr(part, "func", None) is frozen for part in field.metadata)
    ]
    assert loose == []


@given(JSON)
def test_what_is_frozen_equals_what_it_was_and_a_copy_is_plain(value: Any) -> None:
    made = frozen(value)
    assert made == value
    assert json.dumps(made) == json.dumps(value)
    assert frozen(made) is made
    plain = copy.deepcopy(made)
    assert plain == value
    assert type(plain) is type(value)
    assert not any(isinstance(part, FrozenDict | FrozenList) for part in parts(plain))


def parts(value: Any) -> Iterator[Any]:
    yield value
    for inner in (
        value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    ):
        yield from parts(inner)


# --- JSON ---


@given(st.dictionaries(st.text(), JSON), st.randoms(use_true_random=False))
def test_the_order_of_keys_does_not_show(value: dict[str, Any], random: Any) -> None:
    keys = list(value)
    random.shuffle(keys)
    text = compact_json({key: value[key] for key in keys})
    assert text == compact_json(value)
    assert len(text.splitlines()) == 1


def test_nan_is_no_json() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        compact_json({"a": float("nan")})


@given(st.integers(0, 300))
def test_depth(depth: int) -> None:
    text = "[" * depth + "]" * depth
    if not depth:
        return
    if depth <= 100:
        value = parse_json(text)
        for _ in range(depth - 1):
            (value,) = value
        assert value == []
    else:
        with pytest.raises(ValueError, match="nested deeper than 100"):
            parse_json(text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[" * 10**6, "nested deeper"),
        ("9" * 401, "more than 400 digits"),
        ("0." + "9" * 400, "more than 400 digits"),
        ("1e400", "not a number"),
        ("NaN", "not a number"),
        ("-Infinity", "not a number"),
        ("{", "."),
        (b"\xff", "."),
        ('{"name": "\\ud800"}', "half a character"),
        (b'{"\\uDCFF": 1}', "half a character"),
        ('["\ud800"]', "half a character"),
        (b'["\xed\xa0\x80"]', "half a character"),
        ('["\\udc00"]'.encode("utf-16"), "half a character"),
    ],
)
def test_what_no_honest_file_holds(text: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_json(text)


def test_whole_characters_may_be_escaped() -> None:
    assert parse_json('["\\ud83d\\ude00 \\\\ud800"]') == ["\N{GRINNING FACE} \\ud800"]


def test_numbers_of_many_digits() -> None:
    assert parse_json("9" * 400) == int("9" * 400)

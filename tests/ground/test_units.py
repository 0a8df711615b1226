"""Quantities read and written."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peft_shop.errors import QuantityError
from peft_shop.units import _SCALES, Unit, format_quantity, parse_quantity, read_quantity

UNITS: tuple[Unit, ...] = ("bytes", "seconds", "fraction", "count", "score")


@pytest.mark.parametrize(
    ("text", "unit", "value"),
    [
        ("24GB", "bytes", 24e9),
        ("24GiB", "bytes", 24 * 2**30),
        ("24 gib", "bytes", 24 * 2**30),
        ("50MB", "bytes", 50e6),
        ("1_000", "bytes", 1000),
        ("45%", "fraction", 0.45),
        ("0.45", "fraction", 0.45),
        ("20min", "seconds", 1200),
        ("1.5h", "seconds", 5400),
        ("10M", "count", 10_000_000),
        ("-0.25", "score", -0.25),
        (".5", "score", 0.5),
        ("1e3", "score", 1000),
        ("2b", "bytes", 2),
        ("1kB", "bytes", 1000),
        ("1TB", "bytes", 10**12),
        ("3KiB", "bytes", 3 * 2**10),
        ("3MiB", "bytes", 3 * 2**20),
        ("1TiB", "bytes", 2**40),
        ("250ms", "seconds", 0.25),
        ("7s", "seconds", 7),
        ("7sec", "seconds", 7),
        ("1hour", "seconds", 3600),
        ("2hours", "seconds", 7200),
        ("1d", "seconds", 86400),
        ("3k", "count", 3000),
        ("2B", "count", 2 * 10**9),
    ],
)
def test_reads(text: str, unit: Unit, value: float) -> None:
    assert parse_quantity(text, unit) == value


@pytest.mark.parametrize(
    ("bad", "unit", "match"),
    [
        ("24", "bytes", None),
        ("24 parsecs", "bytes", "not a unit of bytes"),
        ("24GiB", "seconds", "not a unit of seconds"),
        ("45%", "score", "not a unit of score"),
        ("", "score", "cannot read"),
        ("GiB", "bytes", "cannot read"),
        ("1..2", "score", "cannot read"),
        ("nan", "score", "cannot read"),
        ("1e999", "score", "finite"),
        (math.nan, "score", "finite"),
        (math.inf, "bytes", "finite"),
        (True, "count", "expected"),
        (None, "count", "expected"),
        ("٣", "count", "cannot read"),
    ],
)
def test_refuses(bad: object, unit: Unit, match: str | None) -> None:
    if match is None:
        assert parse_quantity(bad, unit) == 24  # type: ignore[arg-type]
        return
    with pytest.raises(QuantityError, match=match) as error:
        parse_quantity(bad, unit, name="max_peak_memory")  # type: ignore[arg-type]
    assert "max_peak_memory" in str(error.value)


def test_a_percentage_is_the_number_that_its_decimals_are() -> None:
    # 57 * 0.01 is none of them
    for hundredths in range(101):
        assert parse_quantity(f"{hundredths}%", "fraction") == float(f"{hundredths / 100:.2f}")


@given(st.sampled_from(UNITS), st.floats(0, 1e13))
def test_what_is_written_reads_back(unit: Unit, value: float) -> None:
    text = format_quantity(value, unit, digits=9)
    back = parse_quantity(text.replace(" ", ""), unit)
    assert back == pytest.approx(value, rel=1e-6, abs=1 if unit in {"bytes", "count"} else 0.1)


def test_every_suffix_is_read_by_a_test() -> None:
    source = Path(__file__).read_text(encoding="utf-8")
    for unit, scales in _SCALES.items():
        for suffix in scales:
            assert re.search(rf'\("[\d.]+ ?{suffix}", "{unit}"', source, re.IGNORECASE), suffix


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.052, "52.0 ms"),
        (0.5, "500.0 ms"),
        (1.5, "1.5 s"),
        (61.0, "1.0 min"),
        (5400.0, "1.50 h"),
        (0.0, "0.0 s"),
    ],
)
def test_short_times_keep_their_figures(seconds: float, text: str) -> None:
    assert format_quantity(seconds, "seconds") == text


def test_binary_and_decimal_bytes_are_told_apart() -> None:
    assert format_quantity(22_561_161_216, "bytes") == "21.01 GiB"
    assert parse_quantity("21.01GiB", "bytes") > parse_quantity("21.01GB", "bytes")


@pytest.mark.parametrize(
    ("text", "unit"),
    [
        ("1.00 GiB", "bytes"), ("1.0 MiB", "bytes"), ("1.0 KiB", "bytes"), ("1 B", "bytes"),
        ("1.00 h", "seconds"), ("1.0 min", "seconds"), ("1.0 s", "seconds"), ("1.0 ms", "seconds"),
        ("1.00 B", "count"), ("1.00 M", "count"), ("1.00 k", "count"), ("999", "count"),
        ("0.250", "score"), ("50.0 %", "fraction"),
    ],
)  # fmt: skip
def test_every_step_is_written_from_its_size_on(text: str, unit: Unit) -> None:
    assert format_quantity(parse_quantity(text.replace(" ", ""), unit), unit) == text


@pytest.mark.parametrize(
    ("value", "unit", "meant"),
    [
        ("0", "bytes", 0), (0, "bytes", 0), ("0", "seconds", 0), ("100%", "fraction", 1),
        (1, "fraction", 1), ("1GiB", "bytes", 2**30), ("3000000000", "bytes", 3e9),
        (90, "seconds", 90),
        ("-1", "score", -1), (1024, "bytes", 1024), ("1.5min", "seconds", 90),
        ("1000000", "bytes", 10**6), ("0.5s", "seconds", 0.5), (0.5, "seconds", 0.5),
        ("0", "count", 0), ("0", "fraction", 0), ("1.0", "fraction", 1),
    ],
)  # fmt: skip
def test_what_is_meant_is_read(value: object, unit: Unit, meant: float) -> None:
    assert read_quantity(value, unit) == meant  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("value", "unit", "said"),
    [
        ("-1GiB", "bytes", "is negative"), (-1, "seconds", "is negative"),
        (-0.1, "fraction", "is negative"), (-1, "count", "is negative"),
        ("999999", "bytes", "no unit"), ("1", "bytes", "1GiB"), (0.5, "bytes", "0.5MiB"),
        ("1", "seconds", "1min"), ("0.5", "seconds", "0.5s"), ("100", "fraction", "100%"),
        ("24", "bytes", "24GiB"), (24, "bytes", "24MiB"), (1023, "bytes", "no unit"),
        ("24.", "bytes", "no unit"), ("20", "seconds", "20min"), ("20", "seconds", "20s"),
        ("101%", "fraction", "above 100 %"), (101, "fraction", "above 100 %"),
        (45, "fraction", "45%"), (45, "fraction", "0.45"), ("45", "fraction", "or 0.45"),
    ],
)  # fmt: skip
def test_a_slip_of_the_pen_is_told_with_what_may_be_meant(
    value: object, unit: Unit, said: str
) -> None:
    with pytest.raises(QuantityError) as error:
        read_quantity(value, unit, name="max_it")  # type: ignore[arg-type]
    assert said in str(error.value)
    assert "max_it" in str(error.value) or "max-it" in str(error.value)

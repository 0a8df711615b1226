"""Accelerators by the names that people write, and what is said where a name says too little."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peft_shop.errors import AmbiguousNameError, InputError, QuantityError
from peft_shop.forecast.device_names import base_name, read_name, spellings
from peft_shop.forecast.devices import Device, device_of, devices

GIB = 2**30


def meant(text: Any) -> Device | InputError:
    """The device, or the mistake that the name is."""
    try:
        return device_of(text)
    except InputError as error:
        return error


@pytest.mark.parametrize(
    ("text", "name", "count"),
    [
        ("4090", "RTX 4090", 1),
        (4090, "RTX 4090", 1),
        ("rtx4090", "RTX 4090", 1),
        ("RTX 4090 24GB", "RTX 4090", 1),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", "RTX 4090 Laptop", 1),
        ("4090 mobile", "RTX 4090 Laptop", 1),
        ("laptop 4090", "RTX 4090 Laptop", 1),
        ("3070m", "RTX 3070 Laptop", 1),
        ("RTX 3080 Max-Q 16GB", "RTX 3080 Laptop-16GB", 1),
        ("1080ti", "GTX 1080 Ti", 1),
        ("4070 ti super", "RTX 4070 Ti Super", 1),
        ("RTX 3060", "RTX 3060", 1),
        ("3060 8GB", "RTX 3060-8GB", 1),
        ("A6000", "RTX A6000", 1),
        ("NVIDIA RTX 6000 Ada Generation", "RTX 6000 Ada", 1),
        ("NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition", "RTX PRO 6000", 1),
        ("NVIDIA A100-SXM4-80GB", "A100-80GB", 1),
        ("A100 81559MiB", "A100-80GB", 1),
        ("A100 40G", "A100-40GB", 1),
        ("RTX 3090 (24GB)", "RTX 3090", 1),
        ("V100-32G", "V100-32GB", 1),
        ("T4x2", "T4", 2),
        ("NVIDIA H100 80GB HBM3", "H100", 1),
        ("T4 15GB", "T4", 1),
        ("L40S 48GB", "L40S", 1),
        ("Colab T4", "T4", 1),
        ("kaggle 2xT4", "T4", 2),
        ("4x3090", "RTX 3090", 4),
        ("2 A100 80GB", "A100-80GB", 2),
        ("A100 80GB x2", "A100-80GB", 2),
        ("dual 4090", "RTX 4090", 2),
        ("MacBook Pro M3 Max 36GB", "M3 Max-36GB", 1),
        ("AMD Instinct MI300X", "MI300X", 1),
        ("7900 XTX", "RX 7900 XTX", 1),
        ("Intel(R) Arc(TM) A770 Graphics 16GB", "Arc A770-16GB", 1),
    ],
)
def test_a_card_is_found_by_what_people_call_it(text: Any, name: str, count: int) -> None:
    found = device_of(text)
    own = next(row for row in devices() if row.name == name)
    assert (found.name, found.count) == (name, count)
    assert found.memory_bytes == own.memory_bytes


@pytest.mark.parametrize(
    ("text", "some"),
    [
        ("A100", {"A100-40GB", "A100-80GB"}),
        ("M3 Max", {"M3 Max-36GB", "M3 Max-128GB"}),
        ("6000", {"Quadro RTX 6000", "RTX 6000 Ada", "RTX PRO 6000"}),
        ("4060 Ti", {"RTX 4060 Ti-8GB", "RTX 4060 Ti-16GB"}),
        ("titan", {"Titan RTX", "Titan V"}),
    ],
)
def test_a_name_of_several_cards_lists_them(text: str, some: set[str]) -> None:
    with pytest.raises(AmbiguousNameError) as caught:
        device_of(text)
    assert some <= set(caught.value.nearest)
    assert all(name in str(caught.value) for name in some)
    # and each of them says enough
    assert {device_of(name).name for name in caught.value.nearest} == set(caught.value.nearest)


@pytest.mark.parametrize("text", ["24", "8", 24, "80", "2x24", "24.5", "24G", "24 G"])
def test_a_small_number_is_neither_a_card_nor_a_size(text: Any) -> None:
    with pytest.raises(QuantityError, match="has no unit") as caught:
        device_of(text)
    assert caught.value.keyword == "device"
    assert "GiB" in str(caught.value)
    assert "RTX 4090" in str(caught.value)


@pytest.mark.parametrize("text", ["-3GiB", "-5", -5, "0GiB", "0x4090"])
def test_less_than_nothing_is_refused(text: Any) -> None:
    with pytest.raises(QuantityError):
        device_of(text)


def test_a_size_that_no_such_card_has_is_taken_with_a_caution() -> None:
    modified = device_of("RTX 4090 48GB")
    assert modified.memory_bytes == 48 * GIB
    assert any("sold with 24 GiB" in caution for caution in modified.cautions)
    relative = device_of("RTX 4090 16GB")
    assert relative.name == "RTX 4090 Laptop"
    assert any("taken for the RTX 4090 Laptop" in caution for caution in relative.cautions)
    assert not device_of("RTX 4090 24GB").cautions


def test_whose_allocator_and_memory_it_is_is_told() -> None:
    for card in devices():
        told = " ".join(device_of(card.name).cautions)
        assert ("CUDA" in told) == (card.platform != "cuda")
        assert ("same memory" in told) == card.shared


def test_a_card_without_bfloat16_is_told_where_it_is_asked_to() -> None:
    for card in devices():
        told = set(card.cautions_in("bfloat16")) - set(card.cautions_in("float16"))
        assert bool(told) == (not card.bfloat16)
    assert any("bfloat16" in caution for caution in device_of("T4").cautions_in("bfloat16"))


def test_every_key_leads_to_its_card() -> None:
    for card in devices():
        for key in spellings(card.name):
            found = meant(f"{key} {card.sold_gib:g}GiB")
            if isinstance(found, Device):
                assert found.sold_gib == pytest.approx(card.sold_gib)
            else:
                assert isinstance(found, AmbiguousNameError)
                assert card.name in found.nearest


@given(st.sampled_from(devices()), st.integers(1, 64))
def test_a_count_changes_nothing_else(card: Device, count: int) -> None:
    one, many = device_of(card.name), device_of(f"{count}x {card.name}")
    assert many == one.model_copy(update={"count": count})
    assert base_name(card.name) == card.name.rpartition("-")[0] or "GB" not in card.name


@given(
    st.text(max_size=12)
    | st.from_regex(r"[0-9]{0,4}[ x]?[A-Za-z]{0,4} ?[0-9]{0,5} ?(GB|GiB|MiB)?", fullmatch=True)
    | st.integers()
    | st.floats()
)
@settings(max_examples=200)
def test_any_text_is_a_device_or_a_clear_mistake(text: Any) -> None:
    found = meant(text)
    if isinstance(found, Device):
        assert found.memory_bytes > 0
        assert found.count > 0
    else:
        assert found.keyword == "device"


def test_a_spoken_name_has_three_parts() -> None:
    assert read_name("4x NVIDIA A100-SXM4-80GB").count == 4
    assert read_name("24GiB").key == ""
    assert read_name("24 GB VRAM").size == "24 GB"

"""One order of releases, for every place that asks since when something is there."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peft_shop.errors import InputError
from peft_shop.upstream.versions import is_final, version_key

releases = st.lists(st.integers(0, 30), min_size=1, max_size=3)
tails = st.sampled_from(["", ".dev0", "rc1", "a2", ".post1", "+local"])


@given(releases, releases)
def test_releases_are_ordered_by_their_numbers(one: list[int], other: list[int]) -> None:
    """Numbers and not text, and a number that is left out is 0."""
    keys = [version_key(".".join(map(str, numbers))) for numbers in (one, other)]
    padded = [[*numbers, 0, 0][:3] for numbers in (one, other)]
    assert (keys[0] < keys[1]) is (padded[0] < padded[1])
    assert (keys[0] == keys[1]) is (padded[0] == padded[1])


@given(releases, tails)
def test_what_leads_to_a_release_counts_as_it(numbers: list[int], tail: str) -> None:
    text = ".".join(map(str, numbers))
    assert version_key(text + tail) == version_key(text)
    assert is_final(text + tail) is (tail == "")


@pytest.mark.parametrize("text", ["", "latest", "any", "new.1"])
def test_what_is_no_version_is_said(text: str) -> None:
    with pytest.raises(InputError, match="as a version such as"):
        version_key(text)
    assert not is_final(text)

"""What would decide is what the same rule then finds decided."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from peft_shop.catalog.noise import Noise, Pairing
from peft_shop.trial.evidence import catalog_of
from peft_shop.trial.undecided import smallest_difference, undecided_pairs

if TYPE_CHECKING:
    from types import SimpleNamespace

    from peft_shop.catalog.catalog import Catalog

NAMES = ("lora/a", "miss/b")


def measured(
    made: SimpleNamespace, gap: float, *, sd: float, sampling: float, items: int, seeds: int
) -> Catalog:
    """A trial of two candidates that differ by `gap`, with noise as stated."""
    protocol = made.protocol(NAMES, seeds=seeds)
    results = made.carried_out(
        protocol,
        lambda job: 9.0 if job.stage == "base" else 2.0 + gap * (job.contestant == NAMES[1]),
    )
    catalog = catalog_of(protocol, results)
    noise = Noise(benchmark="trial_made", metric="test_loss", sd=sd, degrees=8, method="made")
    pair = Pairing(
        benchmark="trial_made", a=NAMES[0], b=NAMES[1], metric="test_loss", sd=sampling, items=items
    )
    return catalog.model_copy(update={"noise": (noise,), "pairings": (pair,)})


@settings(max_examples=30)
@given(st.floats(0.001, 1), st.floats(0.001, 1), st.floats(0.001, 1), st.integers(2, 6))
def test_so_many_seeds_or_examples_decide(
    made: SimpleNamespace, gap: float, sd: float, sampling: float, seeds: int
) -> None:
    items = 100
    open_pairs = undecided_pairs(
        measured(made, gap, sd=sd, sampling=sampling, items=items, seeds=seeds), NAMES
    )
    assume(open_pairs)
    (pair,) = open_pairs
    assert (pair.best, pair.other) == NAMES
    if pair.seeds is not None and pair.seeds <= 12:
        assert not undecided_pairs(
            measured(made, gap, sd=sd, sampling=sampling, items=items, seeds=pair.seeds), NAMES
        )
        fewer = measured(made, gap, sd=sd, sampling=sampling, items=items, seeds=pair.seeds - 1)
        assert undecided_pairs(fewer, NAMES)
    if pair.examples is not None:
        less = sampling * math.sqrt(items / pair.examples)
        assert not undecided_pairs(
            measured(made, gap, sd=sd, sampling=less, items=pair.examples, seeds=seeds), NAMES
        )


@settings(max_examples=10)
@given(st.floats(0.001, 1), st.floats(0.001, 1), st.integers(2, 6))
def test_the_smallest_difference_is_where_a_pair_is_decided(
    made: SimpleNamespace, sd: float, sampling: float, seeds: int
) -> None:
    stated = {"sd": sd, "sampling": sampling, "items": 100, "seeds": seeds}
    least = smallest_difference(measured(made, 0.0, **stated), NAMES)
    assert least is not None
    assert undecided_pairs(measured(made, least * 0.99, **stated), NAMES)
    assert not undecided_pairs(measured(made, least * 1.01, **stated), NAMES)


def test_without_noise_nothing_is_claimed(made: SimpleNamespace) -> None:
    catalog = measured(made, 0.001, sd=1, sampling=1, items=100, seeds=3).model_copy(
        update={"noise": ()}
    )
    assert undecided_pairs(catalog, NAMES) == ()

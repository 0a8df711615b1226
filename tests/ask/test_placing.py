"""Places on several benchmarks: of what was named, never of another."""

from __future__ import annotations

import pytest

from peft_shop.ask.lookup import resolve_subjects
from peft_shop.ask.placing import places
from peft_shop.ask.reading import build_query
from peft_shop.catalog.store import load

CATALOG = load()


@pytest.mark.parametrize("variant", [None, "dora", "rslora", "pissa"])
def test_the_place_of_a_variant_is_that_of_its_own_runs(variant: str | None) -> None:
    own = places(CATALOG, "lora", *([variant] if variant else []))
    for place in own:
        runs = [
            run
            for run in CATALOG.runs
            if run.benchmark == place.benchmark.id
            and run.method == "lora"
            and (variant is None or variant in run.variants)
        ]
        field = CATALOG.metric_by_id[place.benchmark.headline].field
        assert place.score in {run.metrics.get(field) for run in runs}
        assert place.runs <= len(runs)
    whole = {place.benchmark.id: place for place in places(CATALOG, "lora")}
    assert all(place.rank >= whole[place.benchmark.id].rank for place in own)


def test_a_variant_without_a_run_is_not_shown_as_its_method() -> None:
    query = build_query(CATALOG, benchmark="metamathqa")
    subjects = resolve_subjects(CATALOG, query, ["pissa", "dora"])
    assert [subject.variants for subject in subjects] == [("pissa",), ("dora",)]
    assert subjects[0].contender is None

"""Every catalog file that was ever shipped keeps loading."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from peft_shop.catalog.catalog import SCHEMA_VERSION
from peft_shop.catalog.features import FEATURE_IDS
from peft_shop.catalog.store import load
from peft_shop.errors import CatalogVersionError

SHIPPED = sorted((Path(__file__).parent / "history").glob("catalog-*.json"))


def test_every_schema_version_has_a_file() -> None:
    versions = [re.fullmatch(r"catalog-(\d+\.\d+)\.json", path.name) for path in SHIPPED]
    assert all(versions)
    assert f"catalog-{SCHEMA_VERSION}.json" in {path.name for path in SHIPPED}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_it_loads_with_everything_in_it(path: Path) -> None:
    document = json.loads(path.read_bytes())
    catalog = load(path)
    assert catalog.schema_version == path.stem.partition("-")[2]
    assert len(catalog.methods) == len(document["methods"]) > 0
    assert len(catalog.runs) == len(document["runs"]) > 0
    for method in catalog.methods:
        assert set(method.capabilities) <= set(FEATURE_IDS)
    for run, raw in zip(catalog.runs, document["runs"], strict=True):
        assert run.metrics == raw["metrics"]


def test_a_file_of_a_later_schema_is_refused_with_advice(tmp_path: Path) -> None:
    document = json.loads(SHIPPED[-1].read_bytes())
    later = f"{int(SCHEMA_VERSION.partition('.')[0]) + 1}.0"
    path = tmp_path / "later.json"
    path.write_text(json.dumps(document | {"schema_version": later}), encoding="utf-8")
    with pytest.raises(CatalogVersionError, match=f"schema {later}.*upgrade"):
        load(path)


@pytest.mark.parametrize(
    "kind", ["metrics", "benchmarks", "sources", "snapshots", "runs", "methods"]
)
def test_a_reader_of_the_first_schema_finds_all_that_it_relies_on(kind: str) -> None:
    """Whoever ignores what it does not know reads a later file of the same major version."""
    first, last = (json.loads(path.read_bytes()) for path in (SHIPPED[0], SHIPPED[-1]))
    assert first["schema_version"].partition(".")[0] == last["schema_version"].partition(".")[0]
    assert set(first) <= set(last)
    always = set.intersection(*(set(record) for record in first[kind]))
    assert always
    for record in last[kind]:
        assert always <= set(record), sorted(always - set(record))


def test_a_file_with_what_this_release_does_not_know_says_that_it_is_newer(tmp_path: Path) -> None:
    document = json.loads(SHIPPED[-1].read_bytes())
    major, _, minor = SCHEMA_VERSION.partition(".")
    document["schema_version"] = f"{major}.{int(minor) + 1}"
    document["benchmarks"][0]["unheard_of"] = 1
    path = tmp_path / "newer.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(CatalogVersionError, match=rf"{major}\.{int(minor) + 1}"):
        load(path)

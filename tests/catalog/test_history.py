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

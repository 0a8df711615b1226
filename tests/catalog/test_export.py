"""Schema, flat tables and CSV of the catalog."""

from __future__ import annotations

import copy
import csv
import io
import json
from typing import Any

import jsonschema
import pandas as pd
import pytest

from peft_shop.catalog.catalog import SCHEMA_VERSION, Catalog
from peft_shop.catalog.export import TABLES, as_csv, as_json, dump, schema_json, tables
from peft_shop.catalog.features import FEATURE_IDS
from peft_shop.curate.publish.compile import compile_catalog


@pytest.fixture
def catalog(folders: Any) -> Catalog:
    return compile_catalog(folders.catalog, folders.data)


class TestSchema:
    def test_it_is_a_schema_with_a_name(self) -> None:
        schema = json.loads(schema_json())
        jsonschema.Draft202012Validator.check_schema(schema)
        assert schema["$schema"].endswith("2020-12/schema")
        assert schema["$id"] == f"urn:peft-shop:catalog:{SCHEMA_VERSION}"
        assert SCHEMA_VERSION in schema["title"]

    def test_a_catalog_keeps_it(self, catalog: Catalog) -> None:
        jsonschema.Draft202012Validator(json.loads(schema_json())).validate(
            json.loads(dump(catalog))
        )

    @pytest.mark.parametrize(
        ("place", "value"),
        [
            (("schema_version",), None),
            (("surplus",), 1),
            (("methods", 0, "capabilities", "merging", "support"), "maybe"),
            (("runs", 0, "metrics", "test_accuracy"), "0.4"),
            (("runs", 0, "created_at"), "yesterday"),
            (("metrics", 0, "better"), None),
        ],
    )
    def test_what_breaks_the_records_breaks_it(
        self, catalog: Catalog, place: tuple[Any, ...], value: Any
    ) -> None:
        document = json.loads(dump(catalog))
        here: Any = document
        for key in place[:-1]:
            here = here[key]
        if value is None:
            del here[place[-1]]
        else:
            here[place[-1]] = value
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.Draft202012Validator(json.loads(schema_json())).validate(document)


class TestTables:
    def test_rows_are_flat_and_alike(self, catalog: Catalog) -> None:
        found = tables(catalog)
        assert tuple(found) == TABLES
        for rows in found.values():
            assert rows
            assert {tuple(row) for row in rows} == {tuple(rows[0])}
            for row in rows:
                assert all(isinstance(c, str | int | float | bool | None) for c in row.values())

    def test_a_method_has_a_column_for_every_feature(self, catalog: Catalog) -> None:
        _, lora = tables(catalog)["methods"]
        assert set(FEATURE_IDS) <= set(lora)
        assert lora["quantization.bnb_4bit"] == "unknown"
        assert lora["variants"] == "rslora lora_fa"

    def test_capabilities_have_their_evidence(self, catalog: Catalog) -> None:
        rows = {
            (r["method"], r["variant"], r["feature"]): r for r in tables(catalog)["capabilities"]
        }
        assert len(rows) == 2 * len(FEATURE_IDS) + 1
        assert rows["lora", "rslora", "hot_swapping"]["support"] == "yes"
        override = rows["cpt", None, "merging"]
        assert (override["source"], override["peft"]) == ("curated", "0.9.0")
        assert json.loads(str(rows["lora", None, "merging"]["measured"])) == {"deviation": 1e-06}

    def test_a_run_has_its_figures_under_their_units(self, folders: Any) -> None:
        folders.edit_run(0, "metrics", value={"test_accuracy": 0.4})
        rows = tables(compile_catalog(folders.catalog, folders.data))["runs"]
        thin = next(row for row in rows if row["experiment"] == "lora/thin")
        assert thin["test_accuracy"] == 0.4
        assert thin["peak_memory_bytes"] is None
        assert json.loads(str(thin["config"])) == {"r": 8, "bias": None}
        full = next(row for row in rows if row["experiment"] == "full")
        assert full["method"] == "full_finetuning"

    def test_csv_reads_back(self, catalog: Catalog) -> None:
        for rows in tables(catalog).values():
            text = as_csv(rows)
            back = list(csv.DictReader(io.StringIO(text)))
            assert len(back) == len(rows)
            assert list(back[0]) == list(rows[0])
            for cells, row in zip(back, rows, strict=True):
                for column, cell in row.items():
                    assert cells[column] == ("" if cell is None else str(cell))
            assert len(pd.read_csv(io.StringIO(text))) == len(rows)

    def test_csv_has_no_formulas(self) -> None:
        text = as_csv([{"a": "=1+1", "b": "-x", "c": -1, "d": 'say "x", y'}])
        assert list(csv.reader(io.StringIO(text)))[1] == ["'=1+1", "'-x", "-1", 'say "x", y']
        assert as_csv([]) == ""

    def test_json_reads_back(self, catalog: Catalog) -> None:
        for rows in tables(catalog).values():
            assert json.loads(as_json(rows)) == [dict(row) for row in copy.deepcopy(rows)]
        assert json.loads(as_json([])) == []

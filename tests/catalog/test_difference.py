"""What changed for a user between two catalogs."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from peft_shop.catalog.difference import (
    CatalogDifference,
    RecordChange,
    ValueChange,
    default_front,
    diff,
)
from peft_shop.catalog.store import parse
from peft_shop.curate.publish.compile import ARTIFACT, compile_catalog

if TYPE_CHECKING:
    from peft_shop.catalog.catalog import Catalog

SEEN = "catalog/observed/lora.json"


@pytest.fixture
def old(folders: Any) -> Catalog:
    return compiled(folders)


def compiled(folders: Any) -> Catalog:
    return compile_catalog(folders.catalog, folders.data)


def only(found: CatalogDifference, **expected: Any) -> None:
    """Exactly the members `expected` differ."""
    changed = {
        field.name: getattr(found, field.name)
        for field in dataclasses.fields(found)
        if getattr(found, field.name)
    }
    assert changed == expected
    assert found.is_empty == (not expected)


def test_a_catalog_does_not_differ_from_itself(old: Catalog) -> None:
    only(diff(old, old))


def test_versions(folders: Any, old: Catalog) -> None:
    folders.edit("catalog/version.toml", "2026.11.0", "2026.12.0")
    only(
        diff(old, compiled(folders)),
        versions=(ValueChange("catalog_version", "2026.11.0", "2026.12.0"),),
    )


def test_methods_come_and_go(folders: Any, old: Catalog) -> None:
    for name in ("curated/cpt.toml", "observed/cpt.json"):
        (folders.catalog / name).unlink()
    new = compiled(folders)
    only(diff(old, new), methods_removed=("cpt",))
    only(diff(new, old), methods_added=("cpt",))


def test_variants_come_and_go(folders: Any, old: Catalog) -> None:
    folders.edit("catalog/curated/lora.toml", 'id = "lora_fa"', 'id = "lora_ga"')
    only(
        diff(old, compiled(folders)),
        variants_added=("lora/lora_ga",),
        variants_removed=("lora/lora_fa",),
    )


def test_capabilities_change_in_support_and_in_level(folders: Any, old: Catalog) -> None:
    linear = ("capabilities", "layer_types.linear")
    folders.edit_json(SEEN, *linear, "level", value="injected")
    swap = ("variants", "rslora", "capabilities", "hot_swapping")
    folders.edit_json(SEEN, *swap, value=None)
    found = diff(old, compiled(folders))
    method, variant = found.capabilities
    assert (method.method, method.variant, method.feature) == ("lora", None, "layer_types.linear")
    assert (method.old, method.new) == (("yes", "trained"), ("yes", "injected"))
    assert (variant.variant, variant.old, variant.new) == ("rslora", ("yes", "trained"), None)
    only(found, capabilities=(method, variant))


def test_a_note_alone_changes_nothing_for_a_query(folders: Any, old: Catalog) -> None:
    note = ("capabilities", "layer_types.linear", "note")
    folders.edit_json(SEEN, *note, value="Also with bias.")
    only(diff(old, compiled(folders)))


ENGINE = """\
id = "vend"
title = "ve.nd"
kind = "llm_server"
version = "1"
checked = "2026-01-01"
sources.code.place = "vend.py"
ranks = { flag = "--rank", default = 16 }
facts.lora = { value = "yes" }
facts.dora = { value = "no", note = "Read." }
"""
CONVERSION = """\
[[conversions]]
method = "lora"
verdict = "exact"
rank = [["r"]]
defaults = { r = 8 }
"""


def test_engines_come_go_and_change(folders: Any, old: Catalog) -> None:
    folders.write("catalog/engines/vend.toml", ENGINE)
    one = compiled(folders)
    only(diff(old, one), engines_added=("vend",))
    only(diff(one, old), engines_removed=("vend",))
    folders.edit("catalog/engines/vend.toml", 'dora = { value = "no"', 'dora = { value = "silent"')
    folders.edit("catalog/engines/vend.toml", "default = 16", "default = 32")
    changes = (ValueChange("dora", "no", "silent"), ValueChange("ranks.default", 16, 32))
    only(diff(one, compiled(folders)), engines_changed=(RecordChange("vend", changes),))


TRAINER = """\
id = "tune"
title = "Tune"
kind = "file"
version = "1.0"
checked = "2026-01-02"
entry = "flags"
saves = "peft"
sources.code.place = "tune.py"
facts.lora = { value = "yes", note = "Read." }
rules = [{ when = "quantized", topics = ["lora"], value = "reject", note = "Read." }]
keys = { r = "rank" }
"""


def test_trainers_come_go_and_change(folders: Any, old: Catalog) -> None:
    folders.write("catalog/trainers/tune.toml", TRAINER)
    one = compiled(folders)
    only(diff(old, one), trainers_added=("tune",))
    only(diff(one, old), trainers_removed=("tune",))
    folders.edit(
        "catalog/trainers/tune.toml",
        'facts.lora = { value = "yes"',
        'facts.lora = { value = "silent"',
    )
    folders.edit("catalog/trainers/tune.toml", '"rank"', '"dim"')
    folders.edit(
        "catalog/trainers/tune.toml", '"reject", note = "Read."', '"reject", note = "Again."'
    )
    changes = (ValueChange("key: r", "rank", "dim"), ValueChange("lora", "yes", "silent"))
    only(diff(one, compiled(folders)), trainers_changed=(RecordChange("tune", changes),))


def test_words_about_an_engine_change_nothing(folders: Any) -> None:
    folders.write("catalog/engines/vend.toml", ENGINE)
    one = compiled(folders)
    folders.edit("catalog/engines/vend.toml", "Read.", "Read again.")
    folders.edit("catalog/engines/vend.toml", "vend.py", "src/vend.py")
    only(diff(one, compiled(folders)))


def test_conversions_come_go_and_change(folders: Any, old: Catalog) -> None:
    folders.write("catalog/conversions.toml", CONVERSION)
    one = compiled(folders)
    only(diff(old, one), conversions_added=("convert:lora",))
    only(diff(one, old), conversions_removed=("convert:lora",))
    folders.edit("catalog/conversions.toml", '[["r"]]', '[["2", "r"]]')
    (found,) = diff(one, compiled(folders)).conversions_changed
    assert found.name == "convert:lora"
    assert [(one.field, one.new) for one in found.changes] == [("rank", [["2", "r"]])]


def test_what_a_lora_holds_of_a_method_changes(folders: Any) -> None:
    folders.edit_json(SEEN, "fidelity", value={"rank": 8, "layers": ["linear"]})
    one = compiled(folders)
    folders.edit_json(SEEN, "fidelity", "rank", value=4)
    folders.edit_json(SEEN, "fidelity", "grid", value=[{"ranks": {"4x4": 1}}])
    folders.edit_json(SEEN, "variants", "rslora", "fidelity", value={"rank": 6})
    found = diff(one, compiled(folders))
    layers = ValueChange("layers", ["linear"], [])
    only(
        found,
        fidelities_changed=(
            RecordChange("lora", (ValueChange("rank", 8, 4),)),
            RecordChange("lora/rslora", (layers, ValueChange("rank", 8, 6))),
        ),
    )


def test_runs_come_go_and_change(folders: Any, old: Catalog) -> None:
    folders.edit_run(2, "metrics", "test_accuracy", value=0.46)
    changed = diff(old, compiled(folders))
    name = "lora/waste@2026-01-02T03:04:05+00:00"
    (run,) = changed.runs_changed
    assert (run.benchmark, run.run) == ("sums", name)
    assert run.changes == (ValueChange("metrics.test_accuracy", 0.45, 0.46),)
    only(changed, runs_changed=(run,))
    folders.edit_run(2, "experiment", value="lora/wasteful")
    only(
        diff(old, compiled(folders)),
        runs_added=("sums:lora/wasteful@2026-01-02T03:04:05+00:00",),
        runs_removed=(f"sums:{name}",),
    )


def test_the_front_says_who_entered_and_left(folders: Any, old: Catalog) -> None:
    assert default_front(old, "sums") == ("2026-02", ("lora/thin", "lora/wide"))
    folders.add_run("lora/better", 2_900, 0.6)
    found = diff(old, compiled(folders))
    (front,) = found.fronts
    assert (front.entered, front.left, front.stayed) == (
        ("lora/better",),
        ("lora/wide",),
        ("lora/thin",),
    )
    assert front.snapshots == ("2026-02", "2026-02")


def test_a_new_snapshot_is_a_new_front(folders: Any, old: Catalog) -> None:
    folders.write(
        "data/snapshots.toml",
        (folders.data / "snapshots.toml").read_text()
        + '[[snapshots]]\nid = "2026-03"\ndate = "2026-03-31"\nsource = "lab"\n',
    )
    folders.edit_run(0, "snapshots", value=["2026-03"])
    found = diff(old, compiled(folders))
    assert found.snapshots_added == ("2026-03",)
    (front,) = found.fronts
    assert front.snapshots == ("2026-02", "2026-03")
    assert front.left == ("lora/wide",)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("metrics",), {"test_accuracy": 0.99}),
        (("era",), "old"),
        (("flags",), [{"code": "broken_config", "reason": "x"}]),
        (("flags",), [{"code": "artefact", "metrics": ["train_seconds"], "reason": "x"}]),
        (("flags",), [{"code": "environment", "metrics": ["peak_memory_bytes"], "reason": "x"}]),
        (("flags",), [{"code": "environment", "reason": "x"}]),
    ],
)
def test_who_is_never_on_the_front(folders: Any, place: tuple[str, ...], value: Any) -> None:
    folders.edit_run(0, *place, value=value)
    if place == ("era",):  # keeps its snapshots: the benchmark's newest era is ranked
        folders.edit("data/runs/sums.jsonl", "5.1.0", "4.1.0")
    _, front = default_front(compiled(folders), "sums")
    assert "lora/thin" not in front


def test_without_snapshots_all_runs_count(folders: Any) -> None:
    folders.edit("data/runs/sums.jsonl", '["2026-01", "2026-02"]', "[]")
    assert default_front(compiled(folders), "sums") == (None, ("lora/thin", "lora/wide"))


def test_the_default_front_is_the_one_that_is_recommended() -> None:
    from peft_shop import recommend

    catalog = parse(Path(ARTIFACT).read_bytes())
    for benchmark in catalog.benchmark_by_id:
        _, front = default_front(catalog, benchmark)
        answer = recommend(benchmark, catalog=catalog, peft_version="any")
        assert sorted(member.run.experiment for member in answer.front) == list(front)
        assert front

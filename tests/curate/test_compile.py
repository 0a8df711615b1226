"""The compiled catalog: what goes into it, and that it is the same every time."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from peft_shop.catalog.export import dump
from peft_shop.catalog.features import FEATURE_IDS, FEATURES
from peft_shop.catalog.runs import Run
from peft_shop.catalog.store import parse
from peft_shop.curate.publish.compile import ARTIFACT, compile_catalog, write
from peft_shop.curate.sources.rules import validate
from peft_shop.errors import CatalogError

if TYPE_CHECKING:
    from peft_shop.catalog.catalog import Catalog

ROOT = Path(__file__).parents[2]


def compiled(folders: Any) -> Catalog:
    return compile_catalog(folders.catalog, folders.data)


class TestJoining:
    def test_what_people_and_probe_and_wheels_say_is_joined(self, folders: Any) -> None:
        lora = compiled(folders).method_by_id["lora"]
        assert (lora.title, lora.category, lora.since) == ("LoRA", "adapter", "0.3.0")
        assert lora.fields == {"bias": "0.3.0", "r": "0.3.0", "use_rslora": "0.9.0"}
        assert lora.options == ("bias",)
        assert tuple(lora.capabilities) == FEATURE_IDS
        assert lora.capabilities["layer_types.linear"].support == "yes"
        rslora, lora_fa = lora.variants
        assert (rslora.id, rslora.since) == ("rslora", "0.9.0")
        assert set(rslora.capabilities) == {"hot_swapping"}
        assert lora_fa.capabilities == {}
        assert lora.capability("hot_swapping").support == "no"
        assert lora.capability("hot_swapping", ("rslora",)).support == "yes"

    def test_an_override_is_a_decision_with_its_reason(self, folders: Any) -> None:
        merging = compiled(folders).method_by_id["cpt"].capabilities["merging"]
        assert (merging.support, merging.source, merging.level) == ("no", "curated", "declared")
        assert merging.note == "Prompt tokens are no weights."
        assert merging.measured == {}

    def test_versions_and_hashes_are_in_it(self, folders: Any) -> None:
        catalog = compiled(folders)
        assert catalog.peft_version == "0.9.0"
        assert catalog.catalog_version == "2026.11.0"
        assert catalog.features == FEATURES
        assert "data/runs/sums.jsonl" in catalog.files

    def test_history_and_noise_may_be_absent(self, folders: Any) -> None:
        (folders.catalog / "observed" / "history.json").unlink()
        lora = compiled(folders).method_by_id["lora"]
        assert lora.since is None
        assert lora.fields == {}
        assert compiled(folders).noise == ()
        noise: dict[str, Any] = {
            "benchmark": "sums",
            "metric": "test_accuracy",
            "sd": 0.01,
            "method": "repeated",
        }
        noise["runs"] = ["lora/thin@2026-01-02T03:04:05+00:00"]
        folders.write_json("data/noise.json", {"noise": [noise], "era_shifts": []})
        (found,) = compiled(folders).noise
        assert (found.sd, found.runs) == (0.01, ())

    def test_contradictions_are_told_all_at_once(self, folders: Any) -> None:
        folders.edit_json("catalog/observed/lora.json", "capabilities", "merging", value=None)
        folders.edit_run(0, "snapshots", value=["2026-01", "2026-11"])
        with pytest.raises(CatalogError) as caught:
            compiled(folders)
        assert {problem.where for problem in caught.value.problems} == {
            "capabilities",
            "line 1: snapshots[1]",
        }

    def test_a_hash_is_kept_only_where_no_commit_pins_the_file(self, folders: Any) -> None:
        folders.edit_run(0, "provenance", "commit", value=None)
        runs = {run.experiment: run.provenance for run in compiled(folders).runs}
        assert runs["lora/thin"].sha256 == "a" * 64
        assert runs["lora/wide"].sha256 is None

    def test_a_rule_of_sense_does_not_stop_compiling(self, folders: Any) -> None:
        folders.edit("catalog/curated/lora.toml", "sets its size.", "sets its size")
        assert compiled(folders).method_by_id["lora"].notes == ("The rank r sets its size",)

    def test_a_catalog_without_methods_is_refused(self, folders: Any) -> None:
        for name in ("curated/lora.toml", "curated/cpt.toml", "observed/lora.json"):
            (folders.catalog / name).unlink()
        (folders.catalog / "observed" / "cpt.json").unlink()
        folders.write_runs()
        with pytest.raises(CatalogError, match="catalog probe"):
            compiled(folders)


class TestBytes:
    def test_reading_it_back_gives_the_same_catalog(self, folders: Any) -> None:
        catalog = compiled(folders)
        again = parse(dump(catalog))
        assert again.model_dump() == catalog.model_dump()
        assert dump(again) == dump(catalog)

    def test_a_null_that_someone_chose_stays(self, folders: Any) -> None:
        runs = {run.experiment: run for run in parse(dump(compiled(folders))).runs}
        assert runs["lora/thin"].recipe.config == {"r": 8, "bias": None}

    def test_defaults_are_left_out_but_the_licence_stays(self, folders: Any) -> None:
        document = json.loads(dump(compiled(folders)))
        assert document["licence"] == "Apache-2.0"
        assert "noise" not in document
        assert "flags" not in document["runs"][0]

    def test_a_record_stands_on_a_line(self, folders: Any) -> None:
        text = dump(compiled(folders)).decode()
        assert text.endswith("}\n")
        lines = [line for line in text.splitlines() if line.startswith('{"benchmark"')]
        assert len(lines) == 6

    def test_the_order_of_lines_does_not_matter(self, folders: Any) -> None:
        before = json.loads(dump(compiled(folders)))
        path = folders.data / "runs" / "sums.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        lines.reverse()
        folders.write("data/runs/sums.jsonl", "".join(lines))
        after = json.loads(dump(compiled(folders)))
        assert after["runs"] == before["runs"]

    def test_writing_twice_changes_nothing(self, folders: Any, tmp_path: Path) -> None:
        path = tmp_path / "out.json"
        assert write(compiled(folders), path)
        stamp = path.stat().st_mtime_ns
        assert not write(compiled(folders), path)
        assert path.stat().st_mtime_ns == stamp


class TestCommitted:
    """Laws on the files of the repository."""

    def test_compiling_again_changes_nothing(self) -> None:
        catalog = compile_catalog(ROOT / "catalog", ROOT / "data")
        assert dump(catalog) == ARTIFACT.read_bytes()

    def test_no_rule_is_broken(self) -> None:
        assert [str(v) for v in validate(ROOT / "catalog", ROOT / "data").violations] == []

    def test_it_is_small(self) -> None:
        content = ARTIFACT.read_bytes()
        assert len(content) < 1_500_000
        assert len(gzip.compress(content, 9, mtime=0)) < 160_000

    def test_it_has_every_method_and_every_run_as_it_is_on_file(self) -> None:
        catalog = parse(ARTIFACT.read_bytes())
        assert len(catalog.methods) == 45
        on_file = {
            (run.benchmark, run.id): run
            for path in (ROOT / "data" / "runs").glob("*.jsonl")
            for line in path.read_text(encoding="utf-8").splitlines()
            for run in (Run.model_validate_json(line),)
        }
        assert len(catalog.runs) == len(on_file)
        for run in catalog.runs:
            known = on_file[run.benchmark, run.id]
            # times are told to the millisecond, everything else to the last digit
            measured = {k: v for k, v in run.metrics.items() if k not in run.computed}
            assert measured == pytest.approx(known.metrics, rel=0, abs=0.00051)
            exact = {name for name in known.metrics if not name.endswith("_seconds")}
            assert {name: run.metrics[name] for name in exact} == {
                name: known.metrics[name] for name in exact
            }
            assert run.recipe == known.recipe
            left_out = {
                "provenance": known.provenance,
                "curve": known.curve,
                "metrics": known.metrics,
                "computed": known.computed,
            }
            assert run.model_copy(update=left_out) == known

"""The catalog file serves those who have nothing of peft-shop but the file."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import jsonschema

from peft_shop import recommend
from peft_shop.catalog.catalog import Catalog
from peft_shop.catalog.export import schema_json
from peft_shop.curate.publish.compile import ARTIFACT
from peft_shop.pareto import dominates

if TYPE_CHECKING:
    from peft_shop.catalog.methods import Capability

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs" / "how-to" / "vendor-the-catalog.md"
FEATURES = ("quantization.bnb_4bit", "merging")


def consumer() -> str:
    """The blocks of the guide that use the file alone."""
    blocks = re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    alone = [block for block in blocks if "peft_shop." not in block and "jsonschema" not in block]
    assert len(alone) == 2
    return "\n".join(alone)


def is_met(capability: Capability) -> bool:
    """Whether the method does it, or does under conditions that a script or the model meets."""
    given = {"bias": frozenset({False}), "dtype": frozenset({"bfloat16"})}
    return any(
        capability.under({**given, "prepared": frozenset({prepared})}) == "yes"
        for prepared in (True, False)
    )


def answer_of(folder: Path) -> tuple[list[str], list[str]]:
    """Experiments that fit and those on the front, as a consumer without any package sees them."""
    (folder / "peft_shop").mkdir()
    shutil.copy(ARTIFACT, folder / "peft_shop")
    code = consumer() + "\nprint(json.dumps([[r['experiment'] for r in fitting], "
    code += "[r['experiment'] for r in front(fitting)]]))\n"
    # -I and -S: neither this repository nor any installed package can be imported
    command = [sys.executable, "-I", "-S", "-c", code]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    fitting, front = json.loads(done.stdout.splitlines()[-1])
    return fitting, front


def test_a_consumer_with_json_alone_gets_the_same_answer(tmp_path: Path) -> None:
    fitting, front = answer_of(tmp_path)
    answer = recommend(
        "image_gen",
        quantization="bnb_4bit",
        merging=True,
        max_peak_memory="10GiB",
        peft_version="any",
    )
    assert sorted(front) == sorted(member.name for member in answer.front)
    kept = {one.name for group in (answer.front, answer.ties, answer.dominated) for one in group}
    assert set(fitting) == kept
    assert front


def test_and_the_same_as_a_computation_of_ones_own(tmp_path: Path) -> None:
    catalog = Catalog.model_validate_json(ARTIFACT.read_bytes())
    benchmark = catalog.benchmark_by_id["image_gen"]
    newest = max(
        (
            snap
            for snap in catalog.snapshots
            if any(snap.id in run.snapshots for run in catalog.runs)
        ),
        key=lambda snap: snap.date,
    )
    figures = {
        run.experiment: (run.metrics["peak_memory_bytes"], -run.metrics["dino_similarity"])
        for run in catalog.runs
        if run.benchmark == "image_gen"
        and newest.id in run.snapshots
        and run.method in catalog.method_by_id
        and not any(flag.code != "sentinel" for flag in run.flags)
        and run.metrics["dino_similarity"] >= benchmark.floor
        and run.metrics["peak_memory_bytes"] <= 10 * 2**30
        and all(
            is_met(catalog.method_by_id[run.method].capability(feature, run.variants))
            for feature in FEATURES
        )
    }
    fitting, front = answer_of(tmp_path)
    assert set(fitting) == set(figures)
    undominated = {
        name
        for name, cost in figures.items()
        if not any(dominates(other, cost) for other in figures.values())
    }
    assert set(front) == undominated


def test_the_file_keeps_its_published_schema() -> None:
    validator = jsonschema.Draft202012Validator(json.loads(schema_json()))
    document = json.loads(ARTIFACT.read_bytes())
    assert [error.message for error in validator.iter_errors(document)] == []
    document["runs"][0]["metrics"]["peak_memory_bytes"] = "21 GiB"
    assert not validator.is_valid(document)

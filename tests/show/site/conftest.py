"""Seeded questions in the words of a link, which several tests of the page ask."""

from __future__ import annotations

import json
import random
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from peft_shop import load_catalog
from peft_shop.catalog.features import EVIDENCE_LEVELS, SINGLES
from peft_shop.show.site.pages import site_files
from peft_shop.show.site.table import shown_benchmarks
from peft_shop.units import format_quantity

if TYPE_CHECKING:
    from collections.abc import Callable

    from peft_shop.catalog.benchmarks import Benchmark, Metric
    from peft_shop.catalog.catalog import Catalog

Parameters = dict[str, str]


def _joined(draw: random.Random, names: list[str], most: int = 2) -> str:
    chosen = draw.sample(names, min(len(names), draw.randint(1, most)))
    return draw.choice(",|").join(chosen)


def _objectives(draw: random.Random, metrics: list[Metric], headline: str) -> str:
    names = [metric.id for metric in metrics]
    count = draw.choice([1, 2, 2, 2, 3, 4])
    chosen = draw.sample(names, min(count, len(names)))
    if draw.random() < 0.7 and headline not in chosen:
        chosen[0] = headline
    return ",".join(chosen)


def _bound(draw: random.Random, catalog: Catalog, benchmark: Benchmark, metric: Metric) -> str:
    values = [
        run.metrics[metric.field]
        for run in catalog.runs_by_benchmark[benchmark.id]
        if metric.field in run.metrics
    ] or [1.0]
    value = draw.choice(values)
    if metric.unit == "bytes":
        return draw.choice([f"{int(value)}B", f"{value / 2**30:.1f}GiB"])
    text = format_quantity(value, metric.unit, digits=draw.choice([0, 1, 2])).replace(" ", "")
    return text if value else repr(value) + _unit(metric)


def _unit(metric: Metric) -> str:
    return {"seconds": "s"}.get(metric.unit, "")


def _demands(draw: random.Random, catalog: Catalog) -> Parameters:
    found: Parameters = {}
    groups = {
        name: [one.id.partition(".")[2] for one in catalog.features if one.group == name]
        for name in ("quantization", "layer_types")
    }
    for name, values in groups.items():
        if draw.random() < 0.2:
            found[name] = _joined(draw, values)
            if draw.random() < 0.3:
                found[name] = found[name].split(",")[0].split("|")[0] + ":partial"
    for single in draw.sample(SINGLES, draw.choice([0, 0, 0, 1, 1, 2])):
        found[single.id] = draw.choice(["1", "1", "1", "partial", "0"])
    methods = catalog.methods
    attributes = {
        "category": sorted({one.category for one in methods}),
        "family": sorted({one.family for one in methods}),
        "task_types": sorted({task for one in methods for task in one.task_types}),
        "options": sorted({name for one in methods for name in one.options}),
    }
    for name, values in attributes.items():
        if draw.random() < 0.08:
            found[name] = _joined(draw, values)
    if draw.random() < 0.3:
        engines = [one.id for one in catalog.engines]
        engines += [f"{one}:{kind}" for one in engines for kind in ("native", "convert", "merge")]
        found["serve"] = _joined(draw, engines)
    if draw.random() < 0.1:
        found["min_evidence"] = draw.choice(EVIDENCE_LEVELS)
    return found


def _picks(draw: random.Random, catalog: Catalog) -> Parameters:
    found: Parameters = {}
    names = [one.id for one in catalog.methods]
    names += [f"{one.id}:{variant.id}" for one in catalog.methods for variant in one.variants]
    if draw.random() < 0.12:
        found["methods"] = ",".join(draw.sample(names, draw.choice([1, 2, 6, 20])))
    if draw.random() < 0.12:
        found["exclude"] = ",".join(draw.sample(names, draw.choice([1, 2, 6])))
    return found


def _question(draw: random.Random, catalog: Catalog) -> Parameters:
    benchmark = draw.choice(shown_benchmarks(catalog))
    metrics = [
        catalog.metric_by_id[name]
        for name in benchmark.metrics
        if not catalog.metric_by_id[name].retired
    ]
    found = {"benchmark": benchmark.id}
    if draw.random() < 0.6:
        found["objectives"] = _objectives(draw, metrics, benchmark.headline)
    found |= _demands(draw, catalog) | _picks(draw, catalog)
    for metric in draw.sample(metrics, draw.choice([0, 0, 1, 1, 2])):
        side = "max" if (metric.better == "lower") == (draw.random() < 0.8) else "min"
        found[f"{side}_{metric.id}"] = _bound(draw, catalog, benchmark, metric)
    headline = catalog.metric_by_id[benchmark.headline]
    if draw.random() < 0.15:
        found["floor"] = draw.choice(["0", _bound(draw, catalog, benchmark, headline)])
    if draw.random() < 0.4:
        orders = ["knee", "cheapest-tie", *(metric.id for metric in metrics)]
        orders.append(",".join(f"{one.id}={draw.randint(1, 3)}" for one in draw.sample(metrics, 2)))
        found["rank_by"] = draw.choice(orders)
    if draw.random() < 0.1:
        found["include_flagged"] = "1"
    if draw.random() < 0.1:
        found["confidence"] = draw.choice(["0.5", "0.8", "0.9", "0.99"])
    if draw.random() < 0.15:
        found["peft_version"] = draw.choice(["0.10.0", "0.15.2", "0.19.0", "0.21.2"])
    return found


@pytest.fixture(scope="session")
def questions() -> Callable[[int, int], list[Parameters]]:
    """Questions by link parameters: how many, from which seed."""
    catalog = load_catalog()

    def drawn(count: int, seed: int = 0) -> list[Parameters]:
        draw = random.Random(seed)
        return [_question(draw, catalog) for _ in range(count)]

    return drawn


@pytest.fixture
def page_answers(tmp_path: Path) -> Callable[..., list[dict[str, Any]]]:
    """What the built page of a catalog, the embedded one by default, answers to links."""

    def answers(links: list[str], catalog: Catalog | None = None) -> list[dict[str, Any]]:
        for name, content in site_files(catalog or load_catalog()).items():
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_bytes(content)
        cases = tmp_path / "cases.json"
        cases.write_text(json.dumps(links))
        script = Path(__file__).with_name("parity.mjs")
        done = subprocess.run(
            ["node", script, tmp_path, cases], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        found: list[dict[str, Any]] = json.loads(done.stdout)
        assert len(found) == len(links)
        return found

    return answers

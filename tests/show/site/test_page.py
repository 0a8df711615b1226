"""The page as people use it, in Debian's Chromium: one visit, every acceptance read off it."""

from __future__ import annotations

import json
import random
import re
import shutil
import subprocess
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

import pytest

from peft_shop import load_catalog, recommend
from peft_shop.ask.links import read_url
from peft_shop.catalog.samples import sample_addresses
from peft_shop.curate.publish.planning import models, structure_of
from peft_shop.show import site
from peft_shop.show.site.pages import single_page, site_files
from peft_shop.show.site.serving import PageServer

if TYPE_CHECKING:
    from collections.abc import Callable

    from peft_shop.catalog.catalog import Catalog

HERE = Path(__file__).parent
SOURCES = Path(site.__file__).parent / "src"
CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        CHROMIUM is None or shutil.which("node") is None,
        reason="needs a browser and node: apt-get install chromium nodejs npm",
    ),
    pytest.mark.skipif(
        not (SOURCES / "node_modules" / "playwright-core").is_dir(),
        reason="needs the page's tools: npm ci --prefix peft_shop/show/site/src",
    ),
]
HOSTILE = "</script><img src=x onerror=alert(1)> \"'` 🦙 \u202egnp.exe " + "x" * 10_000

MODEL = "Qwen/Qwen3-8B"
IMAGES = "lora/flux2-klein-default"
STEP = "batch_size=2;sequence_length=1024;gradient_checkpointing=true;quantization=bnb_4bit"


def link(parameters: dict[str, str]) -> str:
    return "#" + urlencode(parameters, quote_via=quote, safe="/,:|=;")


def states(drawn: list[dict[str, str]]) -> list[str]:
    """Questions with everything beside that a link may say of how they are shown."""
    draw = random.Random(5)
    catalog = load_catalog()
    found = []
    for parameters in drawn:
        benchmark = catalog.benchmark_by_id[parameters["benchmark"]]
        metrics = [name for name in benchmark.metrics if not catalog.metric_by_id[name].retired]
        runs = [run for run in catalog.runs_by_benchmark[benchmark.id] if run.snapshots]
        view = {
            "show": draw.choice(["kept", "left", "all"]),
            "sort": draw.choice(["serving", "again", *metrics, f"-{metrics[0]}"]),
            "x": draw.choice(metrics),
            "y": draw.choice(metrics),
            "run": draw.choice(runs).experiment,
            "tab": draw.choice(["python", "script", "cli"]),
            "find": draw.choice(["lora", "o", "no such thing"]),
            "columns": ",".join(draw.sample(metrics, 3)),
            "compare": ",".join(run.experiment for run in draw.sample(runs, 2)),
        }
        chosen = {name: text for name, text in view.items() if draw.random() < 0.4}
        if benchmark.modality == "text" and draw.random() < 0.2:
            chosen |= {"model": MODEL, "training": STEP}
        found.append(link(parameters | chosen))
    return found


def forged(catalog: Catalog) -> Catalog:
    """A catalog whose image addresses are a script, as if nothing had checked it on the way."""
    benchmarks = []
    for benchmark in catalog.benchmarks:
        samples = benchmark.samples and benchmark.samples.model_copy(
            update={"image": "javascript:alert('{experiment}{number}')"}
        )
        benchmarks.append(benchmark.model_copy(update={"samples": samples}))
    return catalog.model_copy(update={"benchmarks": tuple(benchmarks)})


@pytest.fixture(scope="module")
def shots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shots")


@pytest.fixture(scope="module")
def asked(questions: Callable[[int, int], list[dict[str, str]]]) -> dict[str, Any]:
    answer = recommend(peft_version="any")
    return {
        "compare": [one.name for one in (*answer.front, *answer.ties)][:4],
        "states": states(questions(200, 3)),
        "parity": [link(parameters) for parameters in questions(50, 4)],
        "model": MODEL,
        "images": link({"benchmark": "image_gen", "run": IMAGES}),
        "plan": link({"model": MODEL, "training": STEP, "device": "RTX 3090", "fit": "off"}),
    }


@pytest.fixture(scope="module")
def seen(
    tmp_path_factory: pytest.TempPathFactory, asked: dict[str, Any], shots: Path
) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("page")
    catalog = load_catalog()
    contents = site_files(catalog)
    methods = tuple(
        one.model_copy(update={"title": HOSTILE, "summary": HOSTILE}) for one in catalog.methods
    )
    first = catalog.benchmarks[0].model_copy(update={"description": HOSTILE, "caveats": (HOSTILE,)})
    hostile = catalog.model_copy(
        update={"methods": methods, "benchmarks": (first, *catalog.benchmarks[1:])}
    )
    for name, content in contents.items():
        (folder / "site" / name).parent.mkdir(exist_ok=True, parents=True)
        (folder / "site" / name).write_bytes(content)
    (folder / "single.html").write_bytes(single_page(catalog))
    (folder / "hostile.html").write_bytes(single_page(hostile))
    (folder / "forged.html").write_bytes(single_page(forged(catalog)))
    with PageServer(contents) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        cases = folder / "cases.json"
        other = {
            "served": server.address,
            "single": f"file://{folder}/single.html",
            "hostile": f"file://{folder}/hostile.html",
        }
        forgery = f"file://{folder}/forged.html"
        cases.write_text(json.dumps({**asked, "other": other, "forged": forgery}))
        command = ["node", HERE / "browser.mjs", SOURCES, folder / "site", cases, shots]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=1500)
        server.shutdown()
        thread.join()
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    found["server"] = other["served"]
    return found


def test_nothing_is_asked_of_others_and_nothing_fails(seen: dict[str, Any]) -> None:
    assert seen["errors"] == []
    strange = [
        url for url in seen["requests"] if not url.startswith(("file://", "data:", seen["server"]))
    ]
    assert [url for url in strange if "example.org" not in url] == []
    assert seen["image"] == "blocked by policy"


def test_the_first_screen_shows_sentence_plot_and_three_rows(seen: dict[str, Any]) -> None:
    first = seen["first"]
    assert first["plot"]
    assert first["rows"] >= 3
    assert first["status"] == 1
    answer = recommend(peft_version="any")
    assert f"{len(answer.front)} best, {len(answer.ties)} as good within noise" in first["counts"]
    assert f"{len(answer.dropped)} left out" in first["counts"]


def test_three_choices_lead_to_the_configuration(seen: dict[str, Any]) -> None:
    best = recommend(**read_url(seen["taken"]["url"])).best
    assert best.name == seen["taken"]["best"][0]
    assert json.loads(seen["taken"]["config"]) == best.config_dict
    assert "serve=vllm" in seen["taken"]["url"]


def test_marks_are_where_the_figures_say(seen: dict[str, Any]) -> None:
    catalog = load_catalog()
    scales = {"bytes": 2**30, "seconds": 60, "fraction": 0.01, "count": 1e6, "score": 1}
    for plot in seen["marks"]:
        x, y = (catalog.metric_by_id[name] for name in plot["axes"])
        assert len(plot["marks"]) > 5
        newest = catalog.snapshots[-1].id
        runs = {run.experiment: run for run in catalog.runs if newest in run.snapshots}
        for mark in plot["marks"]:
            metrics = runs[mark["name"]].metrics
            for axis, metric, place in (("across", x, "x"), ("up", y, "y")):
                value = metrics[metric.field] / scales[metric.unit]
                wanted = plot[axis]["start"] + plot[axis]["slope"] * value
                assert abs(wanted - mark[place]) <= 1, mark
            assert mark["kind"] != "front" or mark["hit"] >= 20
        numbers = {mark["name"]: mark["number"] for mark in plot["marks"] if mark["number"]}
        listed = dict(plot["numbers"])
        assert numbers
        assert all(listed[name] == number for name, number in numbers.items())


def test_no_violation_of_accessibility(seen: dict[str, Any]) -> None:
    assert seen["axe"] == []


def test_a_model_of_ones_own_by_the_controls(seen: dict[str, Any]) -> None:
    plan = seen["plan"]
    asked_for = read_url(plan["url"])
    assert asked_for["model"] == MODEL
    assert asked_for["device"] == "RTX 3090"  # which leaves as much as the one that was chosen
    assert asked_for["training"]["sequence_length"] == "1024"
    assert asked_for["training"]["gradient_checkpointing"] == "true"
    model = next(one for one in models() if one["id"] == MODEL)
    assert asked_for["training"]["quantization"] == "bnb_4bit"
    answer = recommend(**asked_for | {"model": structure_of(model)})
    assert answer.front
    shown = [name for name, place in plan["rows"] if place == "front"]
    assert shown == [one.name for one in answer.front]
    assert f"--model {MODEL}" in plan["elsewhere"]
    assert f'model="{MODEL}"' in plan["elsewhere"]
    back = read_url(plan["back"])
    assert back["max_peak_memory"] == "23.4GiB"
    assert not {"model", "device", "training", "fit"} & back.keys()


def test_the_way_by_keyboard(seen: dict[str, Any]) -> None:
    way = seen["keyboard"]
    assert len(set(way["way"])) > 8
    assert way["kept"] == "SELECT.engine"
    assert way["engine"] == "vllm"
    assert way["before"] == way["after"] == way["chosen"]
    assert way["tab"] == "tab-python"
    assert way["typing"] == "INPUT.find"


def test_on_a_phone(seen: dict[str, Any]) -> None:
    for one in seen["phone"]:
        assert one["sideways"] <= 0, one
        # a model of one's own asks for its training step too, above the answer
        assert one["first"] is None or one["first"] < 700 or "model=" in one["hash"], one
        assert one["small"] == [], one


def test_a_state_is_its_link(seen: dict[str, Any], asked: dict[str, Any]) -> None:
    assert len(seen["states"]) == len(asked["states"]) == 200
    assert [state for state in seen["states"] if state is not True] == []
    assert seen["history"]["same"]
    assert seen["history"]["back"] == seen["history"]["expected"]
    assert all(name in seen["named"] for name in ("serv", "max_peak_memory", "device"))
    assert "peft-shop recommend" in seen["named"]


def test_the_page_answers_as_python_does(seen: dict[str, Any], asked: dict[str, Any]) -> None:
    kinds = ("front", "tie", "beaten")
    for question, rows in zip(asked["parity"], seen["parity"], strict=True):
        answer = recommend(**read_url(question))
        for kind, members in zip(kinds, (answer.front, answer.ties, answer.dominated), strict=True):
            shown = [name for name, place in rows if place == kind]
            names = [one.name for one in members]
            assert shown == names if kind == "front" else sorted(shown) == sorted(names), question


def test_filters_are_quick(seen: dict[str, Any]) -> None:
    times = seen["times"]
    assert len(times) == 100
    # the budget is 5 and 20 ms on an idle machine; a busy one is no mistake of the page
    assert times[50] <= 100
    assert times[95] <= 400


def test_one_click_applies_advice(seen: dict[str, Any]) -> None:
    advice = recommend(max_peak_memory="12GiB", peft_version="any").relaxations
    assert seen["relax"]["told"] == [one.suggestion for one in advice][:6]
    assert seen["relax"]["after"]["rows"]
    assert recommend(**read_url(seen["relax"]["after"]["url"])).front


def test_sample_images_are_links_to_another_site(seen: dict[str, Any]) -> None:
    samples = seen["samples"]
    catalog = load_catalog()
    run = next(one for one in catalog.runs if one.experiment == IMAGES)
    addresses = sample_addresses(catalog.benchmark_by_id["image_gen"], run)
    assert [one["href"] for one in samples["links"]] == list(addresses)
    assert all(one["place"] and "noopener" in one["rel"] for one in samples["links"])
    assert all("huggingface.co" in one["text"] for one in samples["links"])
    assert "another site, huggingface.co (not checked here" in samples["told"]
    assert samples["early"] == 0
    assert samples["opened"]["url"] == addresses[0]
    assert not samples["opened"]["opener"]
    assert samples["opened"]["stays"].endswith(f"run={IMAGES}")
    for name in ("text", "forged"):
        assert not [
            href for href in samples[name] if href and not href.startswith("https://github")
        ]


def test_other_ways_to_the_page(seen: dict[str, Any]) -> None:
    for name in ("served", "single", "hostile"):
        assert seen[name]["counts"] == seen["first"]["counts"]
        assert seen[name]["script"] > 1000
        assert seen[name]["images"] == 0
    assert seen["embedded"]["nav"] == 0
    assert seen["embedded"]["marked"] >= 1
    assert seen["paper"]["side"] == "none"
    assert seen["paper"]["rows"] > 5


def test_what_is_committed_is_what_is_built(tmp_path: Path) -> None:
    subprocess.run(["node", SOURCES / "build.mjs", tmp_path], check=True)
    for name in ("app.js", "app.css"):
        assert (tmp_path / name).read_bytes() == (SOURCES.parent / "assets" / name).read_bytes()
    done = subprocess.run(
        [SOURCES / "node_modules" / ".bin" / "tsc", "--noEmit", "-p", SOURCES],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert not re.findall(r'"resolved"', (SOURCES / "package-lock.json").read_text())

"""What commands show first: one method, routes, help; and what a shell completes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from peft_shop.ask.recommend import recommend
from peft_shop.catalog.store import load
from peft_shop.cli.completion import (
    benchmark_names,
    device_names,
    engine_names,
    method_names,
    run_names,
)
from peft_shop.serve.adapter import adapter_of_method
from peft_shop.serve.routes import routes
from peft_shop.show.method_screen import LINES, SECTIONS, method_lines, method_sections
from peft_shop.show.routes import routes_document
from peft_shop.show.tables import records
from peft_shop.show.terminal import lines_text, width_of

if TYPE_CHECKING:
    from collections.abc import Callable

    Command = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize("width", [60, 80])
def test_every_method_and_variant_has_a_screen_of_thirty_lines(width: int) -> None:
    catalog = load()
    for method in catalog.methods:
        for variant in (None, *method.variants):
            lines = lines_text(method_lines(catalog, method, variant, width=width)).splitlines()
            assert len(lines) <= LINES
            assert max(map(width_of, lines)) <= width
            who = variant or method
            assert " ".join(lines[:2]).startswith(f"{who.title} ({who.id})")
            runs = [run for run in catalog.runs if run.method == method.id]
            if variant is not None:
                runs = [run for run in runs if variant.id in run.variants]
            assert runs or any("No run of" in line for line in lines)


def test_every_capability_of_a_method_is_on_its_screen_or_counted_as_cut() -> None:
    catalog = load()
    lines = lines_text(method_lines(catalog, catalog.method_by_id["lora"], width=120), 120)
    flat = " ".join(lines.split())
    for feature in catalog.features:
        name = feature.id.rpartition(".")[2] if feature.group else feature.title.lower()
        assert name in flat


def test_the_flags_of_show_tell_all_of_the_card(run: Command) -> None:
    _, first, _ = run("show", "dora")
    assert first.startswith("DoRA (dora)")
    assert "Differs from LoRA" in first
    for flag, told in (
        ("--layers", "lora.ParamWrapper does not work"),
        ("--quantization", "Quantized bases"),
        ("--runs", "lora/rank32-dora"),
        ("--variants", "Other variants of LoRA"),
        ("--capabilities", "What it can do"),
    ):
        code, out, _ = run("show", "dora", flag)
        assert code == 0
        assert out.startswith(first)
        assert re.sub(r"\s+", " ", told) in re.sub(r"\s+", " ", out[len(first) :])
    _, whole, _ = run("show", "dora", "--all")
    assert len(whole.splitlines()) > 100
    catalog = load()
    lora = catalog.method_by_id["lora"]
    assert all(method_sections(catalog, lora, None, [name]) for name in SECTIONS)


def test_engines_with_the_same_verdict_share_a_row() -> None:
    catalog = load()
    for name in ("oft", "lora", "lily"):
        adapter = adapter_of_method(catalog.method_by_id[name], models="text")
        found = routes(catalog, adapter)
        titles = {engine.id: engine.title for engine in catalog.engines}
        (table,) = routes_document(adapter, found, titles).tables
        rows = records(table)
        listed = [engine for row in rows for engine in str(row["engine"]).split(", ")]
        assert sorted(listed) == sorted(route.engine for route in found)
        kinds = {route.engine: route.kind for route in found}
        for row in rows:
            assert {kinds[engine] for engine in str(row["engine"]).split(", ")} == {row["route"]}
        verdicts = [(row["route"], row["also"], row["conditions"]) for row in rows]
        assert len(set(verdicts)) == len(verdicts)
        assert name != "oft" or len(rows) < len(catalog.engines) / 2


def test_help_starts_with_the_ten_options_that_people_use_first(run: Command) -> None:
    _, out, _ = run("recommend", "--help")
    first, _, rest = out.partition("used first")[2].partition("╰")
    options = re.findall(r"^│ (--[a-z-]+)", first, re.MULTILINE)
    assert options == [
        *("--benchmark", "--model", "--device", "--serve", "--max"),
        *("--min", "--quantization", "--merging", "--method", "--objective"),
    ]
    assert not set(options) & set(re.findall(r"^│ (--[a-z-]+)", rest, re.MULTILINE))
    _, again, _ = run("recommend", "--help")
    assert again == out, "writing the help changes nothing"


def test_why_takes_a_place_of_the_front(run: Command) -> None:
    second = recommend("metamathqa").front[1]
    _, by_rank, _ = run("why", "2")
    _, by_name, _ = run("why", second.name)
    assert by_rank.splitlines()[2:] == by_name.splitlines()[2:]
    code, out, err = run("why", "99")
    assert (code, out) == (2, "")
    assert "no place 99 among the best: 1 to 6" in err


def test_quiet_brief_limit_and_columns(run: Command) -> None:
    _, out, err = run("recommend", "--quiet")
    assert out.split() == [recommend().short(one) for one in recommend()]
    assert err == ""
    _, out, _ = run("recommend", "--quiet", "--limit", "2")
    assert len(out.split()) == 2
    code, out, _ = run("recommend", "--json", "--brief")
    assert code == 0
    assert len(out.encode()) <= 4096
    assert json.loads(out)["next"][0].startswith("peft-shop snippet ")
    code, _, err = run("recommend", "--brief")
    assert code == 2
    assert "add --json" in err
    code, _, err = run("recommend", "--columns", "memry")
    assert code == 2
    assert "did you mean 'memory'" in err


# --- completion ---


def test_names_are_offered_as_they_are_typed() -> None:
    assert engine_names("vl") == ["vllm"]
    assert engine_names("tgi,vl") == ["tgi,vllm"]
    assert engine_names("tgi|vl") == ["tgi|vllm"]
    assert method_names("lok") == ["lokr"]
    assert method_names("lora,dor") == ["lora,dora"]
    assert "lora/rank64-rslora" in run_names("lora/rank6")
    assert run_names("lora/llama-3.2-3B-rank64-r") == ["lora/llama-3.2-3B-rank64-rslora"]
    assert set(device_names("L4")) >= {"L4", "L40S"}
    assert "gsm8k" in benchmark_names("g")
    assert run_names("nothing like it") == []


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("peft-shop recommend --serve vl", "vllm"),
        ("peft-shop show lok", "lokr"),
        ("peft-shop snippet lora/rank64-rs", "lora/rank64-rslora"),
    ],
)
def test_a_shell_completes_them(words: str, offered: str) -> None:
    environment: dict[str, Any] = {
        **os.environ,
        "_PEFT_SHOP_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split()) - 1),
    }
    command = [sys.executable, "-m", "peft_shop"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.stdout.split() == [offered]

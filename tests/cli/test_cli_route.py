"""`peft-shop route`: methods, variants, runs and folders, in every form."""

from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING

import pytest

from peft_shop.catalog.store import load
from peft_shop.serve.routes import Route

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Result = tuple[int, str, str]
    Command = Callable[..., Result]

RUN = "lora/llama-3.2-3B-rank64-rslora"


def adapter(folder: Path, **config: object) -> Path:
    folder.mkdir(exist_ok=True)
    text = json.dumps({"peft_type": "LORA", "r": 32, "lora_alpha": 64, **config})
    (folder / "adapter_config.json").write_text(text, encoding="utf-8")
    return folder


def test_every_engine_has_a_row(run: Command) -> None:
    code, out, err = run("route", RUN)
    assert (code, err) == (0, "")
    assert max(map(len, out.splitlines())) <= 80
    for text in (
        "Rank 64, lora_alpha 64.",
        "Pass --max-lora-rank 64",
        "lora_alpha * sqrt(r) = 512",
    ):
        assert text in " ".join(out.split())
    assert "14 engines" in out


def test_one_engine_is_shown_with_the_facts_behind_it(run: Command) -> None:
    code, out, _ = run("route", "rslora", "--engine", "llama-cpp")
    assert code == 0
    assert max(map(len, out.splitlines())) <= 80
    for text in ("Careful: rslora", "convert_lora_to_gguf.py", "silent", "Facts behind it"):
        assert text in out
    assert "method as such" in out


def test_a_folder_is_read(run: Command, tmp_path: Path) -> None:
    folder = adapter(tmp_path / "mine", use_dora=True)
    code, out, err = run("route", str(folder), "-e", "vllm", "-e", "tgi", "--json")
    assert (code, err) == (0, "")
    found = [Route.model_validate(one) for one in json.loads(out)]
    assert [(one.adapter, one.engine, one.kind) for one in found] == [
        ("mine", "vllm", "merge"),
        ("mine", "tgi", "merge"),
    ]


def test_a_name_of_the_catalog_goes_before_a_folder(
    run: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    adapter(tmp_path / "oft")
    assert "Rank 32" not in run("route", "oft", "-e", "vllm")[1]
    assert "Rank 32" in run("route", "./oft", "-e", "vllm")[1]


def test_json_and_csv_have_every_way(run: Command) -> None:
    routes = [Route.model_validate(one) for one in json.loads(run("route", "loha", "--json")[1])]
    assert [one.engine for one in routes] == [one.id for one in load().engines]
    rows = list(csv.DictReader(io.StringIO(run("route", "loha", "--format", "csv")[1])))
    assert len(rows) == sum(len(one.ways) for one in routes)
    assert {row["works"] for row in rows} <= {"yes", "no", "unknown"}
    assert "| vllm |" in run("route", "loha", "--format", "markdown")[1].replace("  ", " ")


def test_nothing_known_to_work_is_an_exit_code(run: Command) -> None:
    assert run("route", "lily", "--engine", "vllm")[0] == 1
    assert run("route", "lora", "--engine", "vllm")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["route", "loora"], "did you mean 'lora'"),
        (["route", "lora", "-e", "vlm"], "did you mean 'vllm'"),
        (["route", "./absent"], "no such file"),
        (["route", "absent/adapter_config.json"], "no such file"),
        (["recommend", "--serve", "vlm"], "did you mean 'vllm'"),
        (["recommend", "--serve", "vllm:natively"], "did you mean 'native'"),
        (["recommend", "--serve", ","], "expected a name"),
    ],
)
def test_bad_input(run: Command, arguments: list[str], said: str) -> None:
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert said in err


def test_a_broken_folder_tells_all_its_mistakes(run: Command, tmp_path: Path) -> None:
    folder = adapter(tmp_path / "mine", r="32", use_rslora=1)
    code, out, err = run("route", str(folder))
    assert (code, out) == (2, "")
    assert "adapter_config.json: r: expected a whole number" in err
    assert "adapter_config.json: use_rslora: expected true or false" in err


def test_names_in_a_file_cannot_move_the_cursor(run: Command, tmp_path: Path) -> None:
    folder = adapter(tmp_path / "mi\x1b[31mne", modules_to_save=["a\x1b[2J"])
    assert "\x1b" not in run("route", str(folder))[1]


def test_serving_is_part_of_a_question(run: Command) -> None:
    code, out, _ = run("recommend", "--serve", "vllm:native|tgi", "--json")
    assert code == 0
    (asked,) = json.loads(out)["query"]["requirements"]
    assert asked == {"name": "serve", "values": ["vllm:native", "tgi"], "mode": "any"}
    code, out, _ = run("why", "oft", "--serve", "vllm:native")
    assert code == 0
    assert "refused with an error" in out
    code, out, _ = run("why", RUN, "--serve", "vllm")
    assert "Pass --max-lora-rank 64" in " ".join(out.split())

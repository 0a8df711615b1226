"""The command line: every option asks what it says, every answer has its form and its exit code."""

from __future__ import annotations

import csv
import inspect
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from typer.main import get_command

import peft_shop
from peft_shop import recommend
from peft_shop.ask.recommendation import Recommendation
from peft_shop.ask.requirements import any_of
from peft_shop.catalog.features import EVIDENCE_LEVELS, FEATURES
from peft_shop.catalog.store import load
from peft_shop.cli import output as cli_output
from peft_shop.cli.app import app
from peft_shop.cli.capabilities import capabilities
from peft_shop.cli.question import question
from peft_shop.cli.values import limits, names, partial, ranking, split
from peft_shop.curate.publish.compile import compile_catalog, write
from peft_shop.errors import InputError, PeftShopError, QueryError, UnknownNameError
from peft_shop.names import Bounds

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Folders, Suite

    Result = tuple[int, str, str]
    Command = Callable[..., Result]


@pytest.fixture
def catalog_file(folders: Folders, tmp_path: Path) -> Path:
    path = tmp_path / "small.json"
    write(compile_catalog(folders.catalog, folders.data), path)
    return path


def options(command: str) -> set[str]:
    group: Any = get_command(app)
    for name in command.split():
        group = group.commands[name]
    return {name for one in group.params for name in (*one.opts, *one.secondary_opts)}


# --- options and questions ---


def test_every_argument_of_recommend_is_an_option_and_the_other_way_round() -> None:
    asked = set(question(**defaults(question)))
    arguments = set(inspect.signature(recommend).parameters) - {"bounds"}
    assert asked == arguments


def defaults(block: Callable[..., Any]) -> dict[str, Any]:
    return {one.name: one.default for one in inspect.signature(block).parameters.values()}


@pytest.mark.parametrize("command", ["recommend", "why", "methods"])
def test_every_feature_is_an_option(command: str) -> None:
    known = options(command)
    for feature in FEATURES:
        name = feature.id.replace("_", "-")
        if feature.group is None:
            assert {f"--{name}", f"--no-{name}"} <= known
    assert {"--quantization", "--layer-type"} <= known


def test_why_takes_the_options_of_recommend() -> None:
    assert options("recommend") - options("why") == {
        *("--all", "--why", "--ties", "--left-out", "--sure"),
        *("--limit", "--columns", "--quiet", "--brief", "--plot", "--force", "--open"),
    }
    assert options("why") - options("recommend") == {"name"}


def test_every_feature_can_be_asked_for(run: Command) -> None:
    for feature in FEATURES:
        value = feature.id.rpartition(".")[2]
        given = {
            None: [f"--{value.replace('_', '-')}"],
            "quantization": ["--quantization", value],
            "layer_types": ["--layer-type", value.replace("_", "-")],
        }[feature.group]
        code, out, err = run("recommend", "--json", *given)
        assert code in {0, 1}, err
        asked = json.loads(out)["query"]["requirements"]
        expected = {"name": feature.group or feature.id}
        expected["values"] = [value] if feature.group else ["yes"]
        assert asked == [expected]


@pytest.mark.parametrize("benchmark", ["metamathqa", "image_gen"])
def test_every_metric_can_be_bounded_and_optimised(run: Command, benchmark: str) -> None:
    catalog = load()
    known = inspect.get_annotations(Bounds)
    for name in catalog.benchmark_by_id[benchmark].metrics:
        arguments = ("-b", benchmark, "--json", "-o", name)
        unit = catalog.metric_by_id[name].unit
        most = {"bytes": "9GiB", "seconds": "9min", "fraction": "9%"}.get(unit, "9")
        code, out, err = run(
            "recommend", *arguments, "--max", f"{name}={most}", "--min", f"{name}=0"
        )
        if catalog.metric_by_id[name].retired:
            assert (code, out) == (2, "")
            continue
        assert {f"max_{name}", f"min_{name}"} <= set(known)
        assert code in {0, 1}, err
        query = json.loads(out)["query"]
        assert query["objectives"] == [name]
        assert [(b["kind"], b["metric"], b["text"]) for b in query["bounds"]] == [
            ("max", name, most),
            ("min", name, "0"),
        ]


@pytest.mark.parametrize(
    ("arguments", "same"),
    [
        ([], {}),
        (["-b", "image-gen"], {"benchmark": "image-gen"}),
        (["-o", "test_accuracy,train_time"], {"objectives": ["test_accuracy", "train_time"]}),
        (["-o", "test_accuracy", "-o", "peak_memory"], {}),
        (["--max", "peak_memory=20GiB"], {"max_peak_memory": "20GiB"}),
        (["--min", "test_accuracy=45%"], {"min_test_accuracy": "45%"}),
        (["--quantization", "gptq|awq"], {"quantization": any_of("gptq", "awq")}),
        (["--quantization", "gptq,awq"], {"quantization": ["gptq", "awq"]}),
        (["--quantization", "gptq", "--quantization", "awq"], {"quantization": ["gptq", "awq"]}),
        (["--merging", "--no-mixed-batches"], {"merging": True, "mixed_batches": False}),
        (["--accept-partial", "merging"], {"merging": "partial"}),
        (["--merging", "--accept-partial", "merging"], {"merging": "partial"}),
        (["--method", "lora,shira", "--method", "miss"], {"methods": ["lora", "shira", "miss"]}),
        (["--exclude", "lora"], {"exclude": "lora"}),
        (["--family", "low_rank|prompt"], {"family": any_of("low_rank", "prompt")}),
        (["--category", "adapter"], {"category": "adapter"}),
        (["--task-type", "SEQ_CLS"], {"task_types": "SEQ_CLS"}),
        (["--option", "rank_pattern"], {"options": "rank_pattern"}),
        (
            ["--merging", "--min-evidence", "verified"],
            {"merging": True, "min_evidence": "verified"},
        ),
        (["--floor", "0"], {"floor": 0}),
        (["--rank-by", "knee"], {"rank_by": "knee"}),
        (["--rank-by", "cheapest-tie"], {"rank_by": "cheapest-tie"}),
        (
            ["--rank-by", "test_accuracy=2,peak_memory=1"],
            {"rank_by": {"test_accuracy": 2, "peak_memory": 1}},
        ),
        (["--snapshot", "2026-06-10"], {"snapshot": "2026-06-10"}),
        (
            ["--snapshot", "2026-06-10", "--era", "shifted"],
            {"snapshot": "2026-06-10", "era": "shifted"},
        ),
        (["--pooled"], {"evidence": "pooled"}),
        (["--accelerator", "NVIDIA L40S"], {"accelerator": "NVIDIA L40S"}),
        (["--include-flagged"], {"include_flagged": True}),
        (["--confidence", "0.8"], {"confidence": 0.8}),
        (["--peft-version", "0.15.0"], {"peft_version": "0.15.0"}),
        (["--peft-version", "any"], {"peft_version": "any"}),
    ],
)
def test_the_command_answers_as_python_does(
    run: Command, arguments: list[str], same: dict[str, Any]
) -> None:
    code, out, _ = run("recommend", "--json", *arguments)
    answer = recommend(**same)
    assert Recommendation.from_json(out) == answer
    assert code == (0 if answer.front else 1)


# --- values ---


def test_lists_are_split() -> None:
    assert split(None) == []
    assert split(["a,b", "c", "d e"]) == ["a", "b", "c", "d", "e"]
    with pytest.raises(QueryError, match="expected a name"):
        split([""])


def test_all_and_any_cannot_be_mixed() -> None:
    assert names("x", ["a", "b"]) == ["a", "b"]
    assert names("x", ["a|b"]) == any_of("a", "b")
    assert names("x", None) is None
    with pytest.raises(QueryError, match="comma means all"):
        names("x", ["a|b", "c"])
    with pytest.raises(InputError):
        names("x", ["|"])


@pytest.mark.parametrize("text", ["peak_memory", "=3", "peak_memory=", " = "])
def test_a_limit_has_a_metric_and_a_value(text: str) -> None:
    with pytest.raises(QueryError, match="METRIC=VALUE"):
        limits("max", [text])


def test_a_limit_is_given_once() -> None:
    assert limits("max", ["a=1", "b = 2 GiB"]) == {"max_a": "1", "max_b": "2 GiB"}
    with pytest.raises(QueryError, match="twice"):
        limits("max", ["a=1", "a=2"])


@pytest.mark.parametrize("text", ["a=1,b", "a=,b=1", "=1", "a=1,a=2"])
def test_weights_are_names_and_numbers(text: str) -> None:
    with pytest.raises(QueryError, match="--rank-by"):
        ranking(text)


def test_partial_is_for_capabilities_that_have_a_flag() -> None:
    assert partial({"merging": None}, ["merging"]) == {"merging": "partial"}
    with pytest.raises(UnknownNameError, match="merging"):
        partial({}, ["mergin"])
    with pytest.raises(QueryError, match="contradict"):
        partial({"merging": False}, ["merging"])


# --- exit codes and streams ---


def test_an_answer_is_zero_and_nothing_met_is_one(run: Command) -> None:
    code, out, err = run("recommend")
    assert (code, err) == (0, "")
    assert "Serving" in out
    code, out, err = run("recommend", "--max", "peak_memory=1GiB")
    assert (code, err) == (1, "")
    assert "raise max_peak_memory" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["recommend", "--max", "peak_memry=3GiB"], "did you mean 'peak_memory'"),
        (["recommend", "--max", "peak_memory=3miles"], "known units"),
        (["recommend", "--max", "peak_memory"], "METRIC=VALUE"),
        (["recommend", "--min", "evidence=3"], "unknown metric 'evidence'"),
        (["recommend", "-b", "metamath"], "did you mean 'metamathqa'"),
        (["recommend", "--quantization", "bnb_4bt"], "did you mean 'bnb_4bit'"),
        (["recommend", "--quantization", ""], "expected a name"),
        (["recommend", "--min-evidence", "seen"], "evidence level"),
        (["recommend", "--rank-by", "memory"], "did you mean"),
        (["recommend", "--confidence", "1.5"], "confidence must be"),
        (["recommend", "--json", "--format", "csv"], "contradict each other"),
        (["recommend", "--peft-version", "new"], "cannot read 'new'"),
        (["recommend", "--catalog", "nowhere.json"], "nowhere.json"),
        (["recommend", "--mergin"], "--merging"),
        (["recommend", "--confidence", "much"], "--confidence"),
        (["recommend", "surplus"], "surplus"),
        (["recomend"], "recomend"),
        (["why", "lorra"], "did you mean 'lora'"),
        (["show", "lorra"], "did you mean 'lora'"),
        (["methods", "--family", "orthogonl"], "did you mean 'orthogonal'"),
        (["runs", "--sort", "peak"], "did you mean"),
        (["runs", "--method", "lorra"], "did you mean 'lora'"),
        (["compare", "lora"], "two different"),
        (["compare", "lora", "lora"], "two different"),
        (["compare", "lora", "lorra"], "did you mean"),
        (["snippet", "lora/llama-3.2-3B-rank3"], "did you mean"),
        (["snippet", "lora", "--format", "csv"], "runs; name one"),
        (["snippet", "boft/llama-3.2-3B-default", "--format", "csv"], "CSV"),
        (["snippet", "full-finetuning/llama-3.2-3B-lr_0.00001"], "full fine-tuning"),
        (["config", "cpt"], "was not measured"),
        (["catalog", "export", "--format", "csv"], "--table"),
        (["catalog", "export", "--table", "run"], "did you mean 'runs'"),
        (["catalog", "diff", "nowhere.json"], "nowhere.json"),
        (["catalog", "history", "nowhere"], "no wheel of peft"),
    ],
)
def test_bad_input_is_two_and_only_on_the_error_stream(
    run: Command, arguments: list[str], said: str
) -> None:
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert said in " ".join(err.replace("│", " ").split())
    assert "Traceback" not in err


def test_a_broken_catalog_is_told_with_every_place(run: Command, catalog_file: Path) -> None:
    document = json.loads(catalog_file.read_text())
    document["methods"][0]["family"] = "low_rnk"
    document["runs"][0]["method"] = 3
    catalog_file.write_text(json.dumps(document))
    code, out, err = run("recommend", "--catalog", str(catalog_file))
    assert (code, out) == (2, "")
    assert "methods[0].family" in err
    assert "runs[0].method" in err
    assert str(catalog_file) in err


def test_a_users_catalog_is_asked(run: Command, catalog_file: Path) -> None:
    given = ("--catalog", str(catalog_file))
    for command in (
        ["recommend", "--peft-version", "any"],
        ["why", "lora", "--peft-version", "any"],
        ["methods"],
        ["show", "lora"],
        ["runs"],
        ["compare", "lora/thin", "lora/wide"],
        ["config", "lora/thin"],
        ["snippet", "lora/thin"],
        ["catalog", "export"],
    ):
        code, out, err = run(*command, *given)
        assert code == 0, err
        assert "thin" in out or "lora" in out.lower()


def test_an_unexpected_failure_shows_itself(run: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("peft_shop.cli.show.load", fail)
    with pytest.raises(ZeroDivisionError):
        run("show", "lora")


def test_an_interrupt_ends_quietly(run: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("peft_shop.cli.show.load", interrupt)
    code, out, err = run("show", "lora")
    assert (code, out) == (130, "")
    assert "Traceback" not in err


def test_a_name_in_an_error_cannot_move_the_cursor(run: Command) -> None:
    code, _, err = run("show", "lo\x1b[2Jra")
    assert code == 2
    assert "\x1b" not in err


# --- forms ---

PRINTING = [
    "recommend",
    "recommend --all",
    "recommend -b image-gen --quantization bnb_4bit --merging --max peak_memory=10GiB",
    "recommend --max peak_memory=1GiB",
    "why lora",
    "why lora/flux2-klein-rank64",
    "methods",
    "methods --merging --quantization gptq|awq",
    "show lora",
    "show cpt",
    "runs",
    "runs -b image-gen --snapshot all --sort peak_memory",
    "compare lora shira",
    "compare lora oft boft cpt --all",
    "snippet boft/llama-3.2-3B-default",
    "config boft/llama-3.2-3B-default",
]


@pytest.mark.parametrize("command", PRINTING)
def test_every_command_prints_every_form(run: Command, command: str) -> None:
    arguments = command.split()
    code, out, err = run(*arguments)
    assert code in {0, 1}, err
    assert "\x1b" not in out
    if arguments[0] not in {"snippet", "config"}:
        assert max(map(len, out.splitlines())) <= 80
        _, listed, _ = run(*arguments, "--format", "csv")
        rows = list(csv.reader(io.StringIO(listed)))
        assert len({len(row) for row in rows}) == 1
    _, data, _ = run(*arguments, "--json")
    assert json.loads(data)
    assert run(*arguments, "--format", "json") == (code, data, "")
    _, marked, _ = run(*arguments, "--format", "markdown")
    assert marked.startswith(("## ", "```"))


@pytest.mark.parametrize("columns", ["20", "40", "79", "200"])
@pytest.mark.parametrize("command", ["recommend --all", "show lora", "compare lora oft", "methods"])
def test_no_line_is_wider_than_the_terminal(
    run: Command, monkeypatch: pytest.MonkeyPatch, command: str, columns: str
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    _, out, _ = run(*command.split())
    assert max(map(len, out.splitlines())) <= int(columns)


def test_csv_has_the_figures_of_a_data_frame(run: Command) -> None:
    _, out, _ = run("recommend", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    frame = recommend().to_frame()
    fields = [metric.field for metric in recommend().metrics if metric.field in frame]
    assert {"place", "name", "method", "reasons", *fields} <= set(rows[0])
    front = [row["name"] for row in rows if row["place"] == "front"]
    assert front == list(frame[frame["place"] == "front"]["name"])


def test_methods_are_those_that_can(run: Command) -> None:
    _, out, _ = run("methods", "--json", "--merging", "--convertible-to-lora")
    found = {row["method"] for row in json.loads(out)}
    assert found == {
        one.id
        for one in load().methods
        if one.capabilities["merging"].support == "yes"
        and one.capabilities["convertible_to_lora"].support == "yes"
    }


def test_no_method_is_exit_code_one(run: Command) -> None:
    code, out, _ = run("methods", "--family", "prompt", "--merging")
    assert code == 1
    assert "0 of 45 methods" in out


def test_a_snippet_is_a_script(run: Command) -> None:
    _, out, _ = run("snippet", "boft/llama-3.2-3B-default")
    compile(out, "snippet.py", "exec")
    _, data, _ = run("snippet", "boft/llama-3.2-3B-default", "--json")
    assert json.loads(data)["script"] == out


def test_a_snippet_runs_as_the_training_step_was_stated(run: Command) -> None:
    name = "lora/llama-3.2-3B-rank32"
    stated = ("--training", "quantization=bnb_4bit", "--training", "batch-size=1")
    code, out, _ = run("snippet", name, *stated)
    assert code == 0
    compile(out, "snippet.py", "exec")
    for part in (
        "BitsAndBytesConfig",
        "prepare_model_for_kbit_training(",
        "BATCH_SIZE = 1\nACCUMULATION = 4 ",
        "MAX_LENGTH = 768 ",
        "measured with: batch 4, 768 tokens",
    ):
        assert part in out
    code, _, err = run("snippet", "loha/llama-3.2-3B-rank32", *stated)
    assert code == 2
    assert "does not train on a bnb_4bit base" in err
    code, _, err = run("snippet", name, "--training", "quantisation=bnb_4bit")
    assert code == 2
    assert "did you mean 'quantization'" in err


def test_a_snippet_for_a_device_has_the_setup_that_fits(run: Command, tmp_path: Path) -> None:
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "num_hidden_layers": 32,
        "vocab_size": 128256,
        "torch_dtype": "bfloat16",
    }
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    name, model = "lora/llama-3.2-3B-rank32", ("--model", str(tmp_path))
    code, out, _ = run("snippet", name, *model, "--device", "RTX 4090")
    assert code == 0
    compile(out, "snippet.py", "exec")
    assert "setup for RTX 4090: bfloat16, 4 sequences of 512 tokens a step, gradient" in out
    assert "gradient_checkpointing_enable" in out
    stated = ("--training", "quantization=bnb_4bit", "--training", "effective_batch=8")
    code, out, _ = run("snippet", name, *model, "--device", "RTX 4090", *stated)
    assert code == 0
    assert "load_in_4bit=True" in out
    code, out, err = run("snippet", name, *model, "--device", "4GiB")
    assert (code, out) == (1, "")
    assert "no setup of lora/llama-3.2-3B-rank32 for 4GiB: " in err
    code, out, _ = run("snippet", name, *model, "--device", "4GiB", "--fit", "off", *stated)
    assert code == 0
    assert "BATCH_SIZE = 8\nACCUMULATION = 1 " in out
    code, _, err = run("snippet", name, "--device", "RTX 4090")
    assert code == 2
    assert "give --model too" in err


def test_a_file_is_not_replaced_unless_forced(run: Command, tmp_path: Path) -> None:
    target = tmp_path / "train.py"
    arguments = ("snippet", "boft/llama-3.2-3B-default", "-o", str(target))
    code, out, err = run(*arguments)
    assert (code, out) == (0, "")
    assert str(target) in err
    whole = target.read_text()
    target.write_text("mine")
    code, _, err = run(*arguments)
    assert code == 2
    assert "--force" in err
    assert target.read_text() == "mine"
    assert run(*arguments, "--force")[0] == 0
    assert target.read_text() == whole
    assert [path.name for path in tmp_path.iterdir()] == ["train.py"]


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(PeftShopError, match="cannot write"):
        cli_output.write_file(tmp_path / "absent" / "x.py", "text")
    (tmp_path / "folder").mkdir()
    with pytest.raises(PeftShopError, match="cannot write"):
        cli_output.write_file(tmp_path / "folder", "text", force=True)
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_an_output_is_a_regular_file_or_nothing_happens(run: Command, tmp_path: Path) -> None:
    real = tmp_path / "real.json"
    link = tmp_path / "link.json"
    real.write_text("old")
    link.symlink_to("real.json")
    arguments = ("catalog", "export", "--force", "--output")
    for place, reason in (
        ("/dev/null", "is a device"),
        (str(tmp_path), "is a folder"),
        (".", "is a folder"),
        ("/", "is a folder"),
        (str(tmp_path / ("x" * 300)), "too long"),
        ("/proc/nowhere/x", "no folder"),
    ):
        code, _, err = run(*arguments, place)
        assert code == 2, place
        assert reason in err
        assert len(err.strip().splitlines()) == 1
    assert Path("/dev/null").is_char_device()
    assert run(*arguments, str(link))[0] == 0
    assert link.is_symlink()
    assert json.loads(real.read_text())["schema_version"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link.json", "real.json"]


def test_tables_come_all_or_none(
    run: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "new" / "tables"
    arguments = ("catalog", "export", "--format", "csv", "--output", str(folder))
    names = ["capabilities.csv", "methods.csv", "runs.csv", "variants.csv"]
    assert run(*arguments)[0] == 0
    assert sorted(path.name for path in folder.iterdir()) == names
    assert [path.name for path in folder.parent.iterdir()] == ["tables"]
    (folder / "runs.csv").write_text("mine")
    (folder / "methods.csv").unlink()
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert run(*arguments)[0] == 2
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    replace, calls = os.replace, 0

    def fail(source: Any, target: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", fail)
    code, _, err = run(*arguments, "--force")
    assert (code, "No space left" in err) == (2, True)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert run(*arguments, "--force")[0] == 0
    assert sorted(path.name for path in folder.iterdir()) == names


def test_the_versions(run: Command) -> None:
    code, out, _ = run("--version")
    catalog = load()
    assert code == 0
    for said in (peft_shop.__version__, catalog.catalog_version, catalog.peft_version):
        assert said in out


def test_nothing_asked_shows_the_help(run: Command) -> None:
    _, out, err = run()
    assert "recommend" in out + err


def commands(group: Any, place: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = [place]
    for name, one in getattr(group, "commands", {}).items():
        found += commands(one, (*place, name))
    return found


def test_the_help_of_every_command_names_every_option_whole(run: Command) -> None:
    for place in commands(get_command(app)):
        code, out, _ = run(*place, "--help")
        assert code == 0
        assert max(map(len, out.splitlines())) <= 80
        for name in options(" ".join(place)):
            if name.startswith("--") and not name.startswith("--no-"):
                assert name in out, place
        assert "…" not in out


def test_every_option_has_a_help_text() -> None:
    for place in commands(get_command(app)):
        group: Any = get_command(app)
        for name in place:
            group = group.commands[name]
        for one in group.params:
            assert getattr(one, "help", ""), (place, one.name)


def test_the_help_of_evidence_names_every_level() -> None:
    (found,) = [
        one
        for one in inspect.signature(capabilities).parameters.values()
        if one.name == "min_evidence"
    ]
    text = found.annotation.__metadata__[0].help
    assert all(level in text for level in EVIDENCE_LEVELS)


# --- streams of all sorts ---


def test_colours_are_for_terminals_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert cli_output._has_colour()
    monkeypatch.setenv("NO_COLOR", "1")
    assert not cli_output._has_colour()
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert not cli_output._has_colour()


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_every_terminal_gets_what_it_can_show(
    monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    buffer = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(buffer, encoding=encoding))
    cli_output.write_out("score ↑ 51.3 ± 0.9 ──\n")
    expected = "score ↑ 51.3 ± 0.9 ──\n" if encoding == "utf-8" else "score ^ 51.3 +- 0.9 --\n"
    assert buffer.getvalue().decode(encoding) == expected


def test_nobody_reads_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    class Closed(io.StringIO):
        encoding = "utf-8"

        def write(self, _: str) -> int:
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stdout", Closed())
    with pytest.raises(SystemExit) as end:
        cli_output.write_out("text")
    assert end.value.code == 141


def test_a_process_that_is_cut_off_says_nothing() -> None:
    command = [sys.executable, "-m", "peft_shop", "show", "lora"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        said = process.stderr.read()
    assert said == b""


def test_the_process_loads_no_more_than_it_needs() -> None:
    code = (
        "import sys; sys.argv = ['peft-shop', 'recommend']\n"
        "from peft_shop.__main__ import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "sys.stderr.write(' '.join(m for m in sys.modules if '.' not in m))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "COLUMNS": "80"},
    )
    loaded = set(done.stderr.split())
    # rich is loaded by some versions of typer
    assert not loaded & {"numpy", "pandas", "peft", "torch", "transformers"}


# --- maintainers ---


def sources(folders: Folders) -> tuple[str, ...]:
    return ("--catalog", str(folders.catalog), "--data", str(folders.data))


def test_compile_writes_checks_and_tells(run: Command, folders: Folders, tmp_path: Path) -> None:
    target = tmp_path / "out.json"
    place = (*sources(folders), "-o", str(target))
    code, out, err = run("catalog", "compile", *place, "--check")
    assert (code, out) == (1, "")
    assert "out of date" in err
    assert not target.exists()
    assert run("catalog", "compile", *place)[0] == 0
    assert load(target).catalog_version
    assert run("catalog", "compile", *place, "--check")[0] == 0
    assert "unchanged" in run("catalog", "compile", *place)[2]
    folders.edit("catalog/curated/lora.toml", 'family = "low_rank"', 'family = "low"')
    code, out, err = run("catalog", "compile", *place)
    assert (code, out) == (2, "")
    assert "lora.toml" in err


def test_validate_is_one_when_a_rule_is_broken(
    run: Command, folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "peft_shop.curate.sources.rules.installed_methods", lambda: frozenset({"lora", "cpt"})
    )
    assert run("catalog", "validate", *sources(folders))[0] == 0
    folders.edit("catalog/curated/lora.toml", "2021", "1066")
    code, out, _ = run("catalog", "validate", *sources(folders), "--json")
    assert code == 1
    assert json.loads(out)[0]["path"].endswith("lora.toml")


def test_ingest_takes_in_all_or_nothing(run: Command, suite: Suite) -> None:
    suite.write("MetaMathQA/lora--llama-3.2-3B-rank8.json")
    broken = suite.write_text("MetaMathQA/broken.json", '{"run_info": {')
    place = (str(suite.root), "--data", str(suite.data), "--catalog", str(suite.catalog))
    code, out, err = run("catalog", "ingest", *place)
    assert (code, out) == (2, "")
    assert str(broken) in err
    assert not (suite.data / "runs").exists()
    code, out, err = run("catalog", "ingest", *place, "--keep-going", "--json")
    assert code == 0, err
    counts = {row["kind"]: row["count"] for row in json.loads(out)}
    assert (counts["added"], counts["left out"]) == (1, 1)
    assert list((suite.data / "runs").glob("*.jsonl"))


def test_ingest_says_which_folder_is_not_there(run: Command, suite: Suite) -> None:
    code, out, err = run("catalog", "ingest", "nowhere", "--data", str(suite.data))
    assert (code, out) == (2, "")
    assert "nowhere" in err


def test_diff_tells_what_changed(run: Command, folders: Folders, catalog_file: Path) -> None:
    folders.add_run("lora/best", 1_500, 0.8, created_at="2026-02-01T00:00:00Z")
    newer = catalog_file.with_name("newer.json")
    write(compile_catalog(folders.catalog, folders.data), newer)
    code, out, _ = run("catalog", "diff", str(catalog_file), str(newer))
    assert code == 0
    assert "lora/best" in out
    assert "Nothing changed" in run("catalog", "diff", str(newer), str(newer))[1]


def test_export_and_schema(run: Command, catalog_file: Path, tmp_path: Path) -> None:
    assert json.loads(run("catalog", "schema")[1])["title"]
    given = ("--catalog", str(catalog_file))
    assert json.loads(run("catalog", "export", *given)[1]) == json.loads(catalog_file.read_text())
    _, out, _ = run("catalog", "export", *given, "--table", "runs", "--format", "csv")
    assert len(list(csv.DictReader(io.StringIO(out)))) == 6
    _, out, _ = run("catalog", "export", *given, "--table", "methods")
    assert [row["method"] for row in json.loads(out)] == ["cpt", "lora"]
    folder = tmp_path / "tables"
    assert run("catalog", "export", *given, "--format", "csv", "-o", str(folder))[0] == 0
    assert {path.name for path in folder.iterdir()} == {
        "methods.csv",
        "variants.csv",
        "capabilities.csv",
        "runs.csv",
    }
    assert run("catalog", "export", *given, "--format", "csv", "-o", str(folder))[0] == 2


def test_noise_is_written_only_on_request(run: Command, folders: Folders) -> None:
    place = folders.data / "noise.json"
    code, out, err = run("catalog", "noise", *sources(folders), "--json")
    assert code == 0, err
    assert json.loads(out) == {"noise": [], "era_shifts": []}
    assert not place.exists()
    assert run("catalog", "noise", *sources(folders), "--write")[0] == 0
    assert json.loads(place.read_text()) == {"noise": [], "era_shifts": []}


def test_probe_passes_its_options_on(
    run: Command, folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    from peft_shop.curate.probe import runner

    asked: dict[str, Any] = {}

    def observe(methods: object, features: object, **further: object) -> dict[str, Any]:
        asked.update(further, methods=methods, features=features)
        found = runner.read_observations(folders.catalog, ["lora"])
        merging = found["lora"].capabilities["merging"].model_copy(update={"support": "no"})
        changed = {**found["lora"].capabilities, "merging": merging}
        return {"lora": found["lora"].model_copy(update={"capabilities": changed})}

    monkeypatch.setattr(runner, "probe", observe)
    given = ("lora", "--feature", "merging", "--jobs", "2", "--catalog", str(folders.catalog))
    file = folders.catalog / "observed" / "lora.json"
    before = file.read_bytes()
    code, out, err = run("catalog", "probe", *given, "--check", "--json")
    assert code == 1, err
    assert [row["feature"] for row in json.loads(out)] == ["merging"]
    assert file.read_bytes() == before
    assert asked == {
        "methods": ["lora"],
        "features": ["merging"],
        "catalog": folders.catalog,
        "jobs": 2,
        "device": "cpu",
    }
    code, _, err = run("catalog", "probe", *given)
    assert code == 0
    assert "lora.json" in err
    assert file.read_bytes() != before

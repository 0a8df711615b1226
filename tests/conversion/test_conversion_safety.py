"""Files from outside run nothing, hang nothing and exhaust nothing; an old output is never lost."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peft_shop.errors import ConversionError, InputError, UnknownNameError

if TYPE_CHECKING:
    from collections.abc import Iterator

torch = pytest.importorskip("torch", reason="needs peft-shop[peft]")
peft = pytest.importorskip("peft", reason="needs peft-shop[peft]")

import transformers  # noqa: E402 - after the check for torch
from safetensors.torch import save  # noqa: E402 - as above

from peft_shop import convert  # noqa: E402 - as above
from peft_shop.conversion.headers import read_header  # noqa: E402 - as above
from peft_shop.conversion.report import REPORT_FILE  # noqa: E402 - as above


@pytest.fixture(autouse=True)
def _quiet_and_small() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft and transformers warn of what is done on purpose
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small base and an adapter of it."""
    folder = tmp_path_factory.mktemp("places")
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        tie_word_embeddings=False,
    )
    model = transformers.LlamaForCausalLM(config)
    model.save_pretrained(folder / "base")
    lora = peft.LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as in the tests
        peft.get_peft_model(model, lora).save_pretrained(folder / "adapter")
    return folder


def changed(source: Path, target: Path, **files: bytes | dict[str, Any]) -> Path:
    """A copy of a folder with some files replaced, or with fields of JSON files changed."""
    target.mkdir()
    for path in source.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    for name, content in files.items():
        path = target / name.replace("_json", ".json").replace("_tensors", ".safetensors")
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(json.dumps(json.loads(path.read_bytes()) | content))
    return target


# --- code that comes with a model ---

CODE: Final = """
from pathlib import Path
from transformers import LlamaConfig, LlamaForCausalLM
Path({marker!r}).write_text("run")
class OwnConfig(LlamaConfig):
    model_type = "own_model"
class OwnModel(LlamaForCausalLM):
    config_class = OwnConfig
"""


def with_code(places: Path, folder: Path) -> tuple[Path, Path]:
    """A base that brings its own code, and the file that the code writes when it runs."""
    marker = folder / "marker"
    own = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"}
    fields = {"model_type": "own_model", "architectures": ["OwnModel"], "auto_map": own}
    base = changed(places / "base", folder / "base", config_json=fields)
    (base / "own.py").write_text(CODE.format(marker=str(marker)))
    return base, marker


def test_code_that_comes_with_a_model_is_not_run_and_nobody_is_asked(
    places: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, marker = with_code(places, tmp_path)
    answers = io.StringIO("y\n" * 100)
    monkeypatch.setattr(sys, "stdin", answers)
    with pytest.raises(ConversionError, match="--trust-remote-code") as caught:
        convert(places / "adapter", base=base, output=tmp_path / "out")
    assert "own.py" in str(caught.value)
    assert answers.tell() == 0
    assert not marker.exists()
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_code_that_comes_with_a_model_runs_when_told(places: Path, tmp_path: Path) -> None:
    base, marker = with_code(places, tmp_path)
    config = json.loads((places / "adapter" / "adapter_config.json").read_text())
    config["task_type"] = "CAUSAL_LM"
    adapter = changed(places / "adapter", tmp_path / "adapter", adapter_config_json=config)
    for to in ("lora", "merged"):
        command = [sys.executable, "-m", "peft_shop", "convert", str(adapter), "--base", str(base)]
        command += ["-o", str(tmp_path / to), "--to", to, "--trust-remote-code"]
        env = os.environ | {"HF_HOME": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        report = json.loads((tmp_path / to / REPORT_FILE).read_text())
        assert report["logits"]["deviation"] < 1e-4
    assert marker.exists()


def test_no_module_is_imported_because_an_adapter_names_it(places: Path, tmp_path: Path) -> None:
    fields = {"megatron_config": {"a": 1}, "megatron_core": "this"}
    adapter = changed(places / "adapter", tmp_path / "adapter", adapter_config_json=fields)
    with pytest.raises(ConversionError, match="megatron"):
        convert(adapter, base=places / "base", output=tmp_path / "out")
    assert "this" not in sys.modules


# --- files that are no good ---


def tensors(header: bytes, numbers: bytes = b"") -> bytes:
    return len(header).to_bytes(8, "little") + header + numbers


ENTRY: Final = '{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'
BROKEN: Final[dict[str, tuple[bytes, str]]] = {
    "empty": (b"", "not a safetensors file"),
    "a length beyond the file": (b"\xff" * 8, "its header would have"),
    "no JSON": (tensors(b"{nothing}"), "not a safetensors file"),
    "a list": (tensors(b"[]"), "no JSON object"),
    "deep": (tensors(b"[" * 100_000 + b"]" * 100_000), "nested too deeply"),
    "keys twice": (tensors(f'{{"a":{ENTRY},"a":{ENTRY}}}'.encode(), b"\0" * 4), "there twice"),
    "no entry": (tensors(b'{"a":3}'), "unknown type"),
    "unknown type": (
        tensors(b'{"a":{"dtype":"F12","shape":[1],"data_offsets":[0,4]}}', b"\0" * 4),
        "unknown type of numbers F12",
    ),
    "shape of text": (
        tensors(b'{"a":{"dtype":"F32","shape":["1"],"data_offsets":[0,4]}}', b"\0" * 4),
        "no shape",
    ),
    "negative": (
        tensors(b'{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}', b"\0" * 4),
        "no shape",
    ),
    "huge": (
        tensors(b'{"a":{"dtype":"F32","shape":[9999999999,9],"data_offsets":[0,4]}}', b"\0" * 4),
        "does not fit its shape",
    ),
    "cut": (tensors(f'{{"a":{ENTRY}}}'.encode(), b"\0\0"), "is it cut"),
    "too long": (tensors(f'{{"a":{ENTRY}}}'.encode(), b"\0" * 9), "is it cut"),
    "overlapping": (tensors(f'{{"a":{ENTRY},"b":{ENTRY}}}'.encode(), b"\0" * 4), "begin at 0"),
}


@pytest.mark.parametrize("what", sorted(BROKEN))
def test_a_file_that_contradicts_itself(what: str, places: Path, tmp_path: Path) -> None:
    content, reason = BROKEN[what]
    adapter = changed(places / "adapter", tmp_path / "adapter", adapter_model_tensors=content)
    with pytest.raises(ConversionError, match=reason):
        convert(adapter, base=places / "base", output=tmp_path / "out")
    base = changed(places / "base", tmp_path / "base", model_tensors=content)
    with pytest.raises(ConversionError, match=reason):
        convert(places / "adapter", base=base, output=tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "base"]


@settings(max_examples=60)
@given(data=st.data())
def test_damaged_headers_are_read_or_refused_and_nothing_else(
    data: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = bytearray(save({"a": torch.zeros(2, 3), "b": torch.zeros(4, dtype=torch.int64)}))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    del content[data.draw(st.integers(len(content) - 3, len(content))) :]
    file = tmp_path_factory.mktemp("damaged") / "x.safetensors"
    file.write_bytes(content)
    told = ""
    try:
        stored = read_header(file)
    except ConversionError as error:
        stored, told = {}, str(error)
    assert bool(stored) != bool(told) or content[8:10] == b"{}"
    assert len(told) < 1000
    assert not told or str(file) in told
    assert all(isinstance(size, int) for tensor in stored.values() for size in tensor.shape)


@pytest.mark.parametrize("name", ["../x.safetensors", "/etc/passwd", "a/b.safetensors", "..", ""])
def test_shards_lie_in_the_models_own_folder(name: str, places: Path, tmp_path: Path) -> None:
    base = changed(places / "base", tmp_path / "base")
    (base / "model.safetensors").rename(tmp_path / "x.safetensors")
    index = {"metadata": {}, "weight_map": {"model.embed_tokens.weight": name}}
    (base / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ConversionError, match="weight_map"):
        convert(places / "adapter", base=base, output=tmp_path / "out")


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"num_hidden_layers": 10**6}, "num_hidden_layers: 1e\\+06,"),
        ({"text_config": {"num_hidden_layers": 3000}}, "text_config.num_hidden_layers"),
        ({"num_hidden_layers": "two"}, "."),
        ({"hidden_size": [16]}, "."),
        ({"vocab_size": None}, "."),
        ({"hidden_size": 10**9}, "."),
        ({"model_type": "nothing_known"}, "."),
        ({"model_type": 3}, "."),
        ({"quantization_config": ["x"]}, "quantized"),
        ({"_class_name": "load_image"}, "no model load_image"),
        ({"_class_name": 7}, "no model 7"),
    ],
)
def test_configurations_of_no_honest_model(
    fields: dict[str, Any], reason: str, places: Path, tmp_path: Path
) -> None:
    base = changed(places / "base", tmp_path / "base", config_json=fields)
    began = time.monotonic()
    with pytest.raises(ConversionError, match=reason) as caught:
        convert(places / "adapter", base=base, output=tmp_path / "out", check="layers")
    assert len(str(caught.value)) < 1500
    assert time.monotonic() - began < 30


def test_a_class_that_is_no_model_is_not_called(places: Path, tmp_path: Path) -> None:
    names = ["pipeline", "logging", "Trainer", "os"]
    base = changed(places / "base", tmp_path / "base", config_json={"architectures": names})
    report = convert(places / "adapter", base=base, output=tmp_path / "out")
    assert report.logits is not None
    assert report.logits.deviation < 1e-4


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes")
@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("adapter", "adapter_config.json"),
        ("adapter", "adapter_model.safetensors"),
        ("base", "config.json"),
        ("base", "model.safetensors"),
        ("base", "model.safetensors.index.json"),
    ],
)
@pytest.mark.parametrize("kind", ["pipe", "device", "deep", "large"])
def test_pipes_devices_and_floods(
    kind: str, folder: str, name: str, places: Path, tmp_path: Path
) -> None:
    here = {part: changed(places / part, tmp_path / part) for part in ("adapter", "base")}
    path = here[folder] / name
    path.unlink(missing_ok=True)
    if name.endswith("index.json"):
        (here["base"] / "model.safetensors").unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "deep":
        path.write_bytes(b"[" * 10**6)
    else:
        with path.open("wb") as file:
            file.truncate(10**9)
    with pytest.raises(Exception, match=name.replace(".", r"\.")) as caught:
        convert(here["adapter"], base=here["base"], output=tmp_path / "out")
    assert type(caught.value).__module__ == "peft_shop.errors"
    assert len(str(caught.value)) < 1000


def test_wrong_types_of_keywords(places: Path, tmp_path: Path) -> None:
    right: dict[str, Any] = {"base": places / "base", "output": tmp_path / "out"}
    for error, wrong in (
        (ConversionError, {"output": 3}),
        (ConversionError, {"output": "a\0b"}),
        (ConversionError, {"initial": 3}),
        (InputError, {"tolerance": "much"}),
        (InputError, {"tolerance": float("nan")}),
        (InputError, {"tolerance": -1}),
        (UnknownNameError, {"check": "all"}),
        (UnknownNameError, {"to": 3}),
        (UnknownNameError, {"way": []}),
    ):
        with pytest.raises(error):
            convert(places / "adapter", **right | wrong)
    with pytest.raises(ConversionError):
        convert(3, **right)  # type: ignore[arg-type] # what is tested


# --- outputs ---


def test_places_that_no_folder_can_have(
    places: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    monkeypatch.chdir(tmp_path / "here")
    for output, reason in (
        (".", "the folder that you are in"),
        ("", "expected the name of a folder"),
        ("..", "the folder that you are in"),
        ("/", "the folder that you are in"),
        ("/dev/null", "is no folder"),
        ("/dev/null/x", "cannot write"),
        ("x" * 300, "too long"),
        (tmp_path / "loop", "."),
        ("/proc/nowhere/x", "cannot write"),
    ):
        with pytest.raises(ConversionError, match=reason):
            convert(places / "adapter", base=places / "base", output=output, check="layers")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["here", "loop"]
    assert list((tmp_path / "here").iterdir()) == []
    assert Path("/dev/null").is_char_device()


def test_a_link_to_a_folder_is_followed(places: Path, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    options: dict[str, Any] = {"base": places / "base", "check": "layers"}
    convert(places / "adapter", output=tmp_path / "link", **options)
    convert(places / "adapter", output=tmp_path / "link", overwrite=True, **options)
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / REPORT_FILE).is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "real"]


def test_a_folder_that_somebody_made_meanwhile_stays(places: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"

    def meddle(done: int, _total: int, _name: str) -> None:
        if done == 0 and not out.exists():
            out.mkdir()
            (out / "theirs").write_text("first")

    with pytest.raises(ConversionError, match="another process made it meanwhile"):
        convert(
            places / "adapter", base=places / "base", output=out, check="layers", progress=meddle
        )
    assert [path.name for path in out.iterdir()] == ["theirs"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


KILLED: Final = """
import json, os, random, signal, sys, time
from pathlib import Path
import torch
torch.set_num_threads(1)
from peft_shop import convert
from peft_shop.conversion.headers import read_header
adapter, base, out = map(Path, sys.argv[1:])

def work():
    convert(adapter, base=base, output=out, overwrite=True, check="layers")

work()  # everything is loaded now: children begin at once
chance = random.Random(0)
for _ in range(20):
    child = os.fork()
    if child == 0:
        try:
            while True:
                work()
        finally:
            os._exit(1)
    time.sleep(chance.uniform(0.05, 1.0))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    json.loads((out / "conversion_report.json").read_bytes())
    read_header(out / "adapter_model.safetensors")
    left = [path.name for path in out.parent.iterdir() if path != out]
    print(json.dumps([sorted(path.name for path in out.iterdir()), left]))
work()
print(json.dumps([sorted(path.name for path in out.iterdir()), os.listdir(out.parent)]))
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks")
def test_a_killed_conversion_loses_nothing(places: Path, tmp_path: Path) -> None:
    """Killed at 20 moments: the old output or a new one is there; the next run cleans up."""
    command = [sys.executable, "-W", "ignore", "-c", KILLED]
    command += [str(places / "adapter"), str(places / "base"), str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    *killed, (last, beside) = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(killed) == 20
    assert {tuple(names) for names, _ in killed} == {tuple(last)}
    assert last == ["adapter_config.json", "adapter_model.safetensors", REPORT_FILE]
    assert beside == ["out"]
    left = [names for _, names in killed if names]
    assert all(len(names) == 1 for names in left), "what the run before left was not taken away"
    print(f"20 kills, {len(left)} left something for the next run")  # noqa: T201 - the count
    assert left

"""Folders that nobody would save: an error that names the place, soon, and nothing is run."""

from __future__ import annotations

import contextlib
import json
import os
import struct
import time
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import CONFIG_MAPPING

from peft_shop.errors import ModelError, PeftShopError
from peft_shop.model import checkpoints
from peft_shop.model.inspection import inspect_model
from peft_shop.model.limits import check_sizes
from peft_shop.model.sources import open_checkpoint

if TYPE_CHECKING:
    from pathlib import Path

LLAMA: dict[str, Any] = {
    "model_type": "llama", "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
    "num_attention_heads": 4, "vocab_size": 128,
}  # fmt: skip
LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 663\n"


def saved(folder: Path, content: Any) -> Path:
    folder.mkdir(exist_ok=True)
    text = content if isinstance(content, str) else json.dumps(content)
    (folder / "config.json").write_text(text)
    return folder


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"num_hidden_layers": 10_000_000}, "num_hidden_layers: 10000000 is no layers"),
        ({"num_hidden_layers": "4"}, "num_hidden_layers: expected a whole number, got '4'"),
        ({"num_hidden_layers": 2.5}, "num_hidden_layers: expected a whole number"),
        ({"num_hidden_layers": -1}, "num_hidden_layers: -1 is no layers"),
        ({"hidden_size": 10**300}, "hidden_size: 10000"),
        ({"vocab_size": 2**40}, "vocab_size: 1099511627776 is no size of a vocabulary"),
        ({"model_type": "mixtral", "num_local_experts": 10**6}, "num_local_experts: 1000000"),
        ({"model_type": "llava", "text_config": {"num_hidden_layers": 9_999}},
         r"text_config\.num_hidden_layers: 9999"),
        ({"model_type": "swin", "depths": [2, 2, 10**7, 2]}, "depths: 10000000"),
        ({"model_type": "swin", "depths": [1] * 30_000}, "depths: a list longer than"),
        ({"model_type": ["llama"]}, "model_type: missing"),
        ({"model_type": "lama"}, "model_type: .* does not know 'lama'; nearest: .*llama"),
        ({"model_type": "llama", "architectures": 5, "auto_map": 5}, "auto_map|architectures"),
        ({"_class_name": 5}, "no model class '5'"),
    ],
)  # fmt: skip
def test_sizes_that_no_model_has_are_refused_by_name(
    tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    start = time.monotonic()
    with pytest.raises(ModelError, match=said) as refused:
        inspect_model(saved(tmp_path / "m", LLAMA | change))
    assert time.monotonic() - start < 10
    assert len(str(refused.value)) < 1000


@pytest.mark.slow
def test_no_type_of_the_installed_transformers_is_refused_for_its_sizes() -> None:
    for kind in CONFIG_MAPPING:
        try:
            content = CONFIG_MAPPING[kind]().to_dict()
        except Exception:  # noqa: BLE001, S112 - some have no defaults, for any reason
            continue
        check_sizes(content, kind)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (LFS, "is a Git LFS pointer, not the file: run `git lfs pull`"),
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON: nested deeper than 100"),
        ('{"a": ' * 150 + "1" + "}" * 150, "nested deeper than 100"),
        ('{"num_hidden_layers": 1' + "0" * 5000 + "}", "more than 400 digits"),
        ("[]", "expected an object, got list"),
    ],
)
def test_files_that_are_none_say_so(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ModelError, match=said):
        inspect_model(saved(tmp_path / "m", text))


def test_large_files_pipes_and_devices_are_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "_CONFIG_LIMIT", 100)
    folder = saved(tmp_path / "m", LLAMA)
    with pytest.raises(ModelError, match="too large for a configuration"):
        inspect_model(folder)
    (folder / "config.json").unlink()
    os.mkfifo(folder / "config.json")
    with pytest.raises(ModelError, match="is a pipe, not a regular file"):
        inspect_model(folder)
    (folder / "config.json").unlink()
    (folder / "config.json").symlink_to("/dev/zero")
    with pytest.raises(ModelError, match="is a device, not a regular file"):
        inspect_model(folder)


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff" * 7, struct.pack("<Q", 2**63), struct.pack("<Q", 4) + b"[1]x",
     struct.pack("<Q", 9) + b'{"a": [2]', struct.pack("<Q", 2) + b"{}"],
)  # fmt: skip
def test_broken_weights_do_not_matter(tmp_path: Path, content: bytes) -> None:
    folder = saved(tmp_path / "m", LLAMA)
    (folder / "model.safetensors").write_bytes(content)
    os.mkfifo(folder / "model-2.safetensors")
    assert open_checkpoint(folder).stored_types == {}
    assert not inspect_model(folder).structure.dtype_stated


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (["model.gguf"], r"model\.gguf is a GGUF file, which is made for inference"),
        (["params.json", "consolidated.00.pth"], "params.json is the original format of Meta"),
        (["model.safetensors"], "only weights: copy the config.json"),
        (["step-9/config.json"], r"did you mean .*step-9\?"),
        (["tokenizer.json"], "save the model's configuration there"),
        ([], "neither config.json nor model_index.json"),
    ],
)
def test_a_folder_without_a_configuration_gets_the_next_step(
    tmp_path: Path, files: list[str], said: str
) -> None:
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
    with pytest.raises(ModelError, match=said):
        inspect_model(tmp_path)


def test_a_gguf_file_itself_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_text("GGUF")
    with pytest.raises(ModelError, match="pass the model that it was made from"):
        inspect_model(tmp_path / "x.gguf")


def test_what_is_missing_beside_weights_is_told(tmp_path: Path) -> None:
    folder = saved(tmp_path / "m", LLAMA)
    notes = inspect_model(folder).structure.notes
    assert not any("tokenizer" in note for note in notes)
    (folder / "model.safetensors").write_text(LFS)
    notes = inspect_model(folder).structure.notes
    assert any("no tokenizer or processor" in note for note in notes)
    assert any("model.safetensors in its folder is a Git LFS pointer" in note for note in notes)
    (folder / "tokenizer.json").write_text("{}")
    assert not any("no tokenizer" in one for one in inspect_model(folder).structure.notes)


def test_a_class_that_transformers_lacks_is_told(tmp_path: Path) -> None:
    draft = LLAMA | {"architectures": ["LlamaForCausalLMEagle3"], "draft_vocab_size": 64}
    structure = inspect_model(saved(tmp_path / "m", draft)).structure
    assert structure.architecture == "LlamaForCausalLM"
    assert any("LlamaForCausalLMEagle3" in note for note in structure.notes)
    assert inspect_model(saved(tmp_path / "n", LLAMA | {"dtype": "float16"})).structure.notes == ()


@pytest.mark.parametrize("place", ["auto_map", "quantization_config", "config"])
def test_nothing_that_comes_with_a_model_is_run(tmp_path: Path, place: str) -> None:
    witness = tmp_path / "witness"
    folder = saved(tmp_path / "m", LLAMA)
    code = f"open({str(witness)!r}, 'w').close()\n"
    for name in ("modeling_own.py", "configuration_own.py", "config.py", "sitecustomize.py"):
        (folder / name).write_text(code)
    own = {"AutoConfig": "configuration_own.Own", "AutoModelForCausalLM": "modeling_own.Own"}
    change = {"auto_map": own, "model_type": "own"} if place == "auto_map" else {place: own}
    saved(folder, LLAMA | change)
    if place == "auto_map":
        with pytest.raises(ModelError, match="code that comes with it"):
            inspect_model(folder)
    else:
        inspect_model(folder)
    assert not witness.exists()


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.text(max_size=5) | st.floats(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)
KEYS = (
    "num_hidden_layers", "hidden_size", "num_attention_heads", "num_key_value_heads", "head_dim",
    "intermediate_size", "vocab_size", "dtype", "torch_dtype", "architectures", "auto_map",
    "quantization_config", "rope_scaling", "rope_parameters", "layer_types", "text_config",
    "tie_word_embeddings", "pad_token_id", "id2label", "num_labels", "_class_name", "model_type",
    "is_encoder_decoder", "attention_bias", "max_position_embeddings", "transformers_version",
)  # fmt: skip


@given(st.dictionaries(st.sampled_from(KEYS), VALUES, min_size=1, max_size=3))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_values_end_in_a_structure_or_in_an_error_of_ours(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    folder = saved(tmp_path / "m", LLAMA | change)
    with contextlib.suppress(PeftShopError):
        inspect_model(folder)

"""A trial is made as the model allows, and what cannot be made leaves nothing behind."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from peft_shop.trial.preparing import usual_length
from peft_shop.trial.trial import Trial
from peft_shop.trial.trust import demand_safetensors

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def model(folder: Path, positions: int) -> Path:
    """A folder with the configuration of a small Llama, without weights and tokenizer."""
    folder.mkdir()
    configuration = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "vocab_size": 64,
        "max_position_embeddings": positions,
    }
    (folder / "config.json").write_text(json.dumps(configuration), encoding="utf-8")
    return folder


@pytest.mark.parametrize(("positions", "length"), [(128, 128), (4096, 512)])
def test_examples_are_as_long_as_the_model_takes(
    tmp_path: Path, positions: int, length: int
) -> None:
    place = model(tmp_path / "m", positions)
    assert usual_length(place) == length
    (tmp_path / "t.txt").write_text("a\n\nb", encoding="utf-8")
    trial = Trial.create(tmp_path / "t", model=place, train=tmp_path / "t.txt")
    assert trial.asked.max_length == length
    stated = Trial.create(tmp_path / "s", model=place, train=tmp_path / "t.txt", max_length=99)
    assert stated.asked.max_length == 99


def test_of_what_is_no_model_nothing_is_guessed(tmp_path: Path) -> None:
    assert usual_length(tmp_path) is None


def test_what_cannot_be_made_leaves_nothing_behind(
    tmp_path: Path, run: Callable[..., tuple[int, str, str]]
) -> None:
    file = tmp_path / "t.txt"
    file.write_text("a\n\nb", encoding="utf-8")
    command = ("trial", "new", str(tmp_path / "t"), "--model", str(file))
    code, _, told = run(*command, "--train", str(file))
    assert code == 2
    assert "needs the folder of a model" in told
    assert not (tmp_path / "t").exists(), "the same command works once it is put right"


def test_weights_that_are_pickles_are_refused_with_what_to_do(
    tmp_path: Path, run: Callable[..., tuple[int, str, str]]
) -> None:
    place = model(tmp_path / "m", 128)
    (place / "pytorch_model.bin").write_bytes(b"never loaded")
    # weights of something else do not stand for the model's own
    (place / "adapter_model.safetensors").write_bytes(b"")
    file = tmp_path / "t.txt"
    file.write_text("a\n\nb", encoding="utf-8")
    words = ("trial", "new", str(tmp_path / "t"), "--model", str(place), "--train", str(file))
    code, _, told = run(*words)
    told = " ".join(told.split())
    assert code == 2
    assert "its weights are pickles (pytorch_model.bin)" in told
    assert "safetensors only. Take a revision" in told
    assert not (tmp_path / "t").exists()


@pytest.mark.parametrize("name", ["model.safetensors", "model.safetensors.index.json"])
def test_pickles_beside_safetensors_are_not_loaded_and_not_minded(
    tmp_path: Path, name: str
) -> None:
    (tmp_path / "pytorch_model.bin").touch()
    (tmp_path / name).touch()
    demand_safetensors(tmp_path)

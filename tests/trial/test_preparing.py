"""A trial is made as the model allows, and what cannot be made leaves nothing behind."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from peft_shop.trial.preparing import usual_length
from peft_shop.trial.trial import Trial

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

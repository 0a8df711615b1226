"""A preflight's verdict is kept per model and configuration, good or bad."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from peft_shop.errors import ConfigError
from peft_shop.model.inspection import Target, inspect_model
from peft_shop.preflight import checking
from peft_shop.preflight.remembered import preflight

if TYPE_CHECKING:
    from pathlib import Path

LORA: dict[str, Any] = {"peft_type": "LORA", "r": 4, "target_modules": ["q_proj", "v_proj"]}
NOWHERE = LORA | {"target_modules": ["no_such_layer"]}


@pytest.fixture(name="kept")
def _kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PEFT_SHOP_CACHE", str(tmp_path / "kept"))
    return tmp_path / "kept" / "preflights"


@pytest.fixture(name="target")
def _target(tmp_path: Path) -> Target:
    content = {
        "model_type": "llama", "hidden_size": 64, "intermediate_size": 96, "vocab_size": 128,
        "num_hidden_layers": 2, "num_attention_heads": 4, "dtype": "bfloat16",
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(content))
    return inspect_model(tmp_path)


@pytest.fixture(name="made")
def _made(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Configurations that were really tried."""
    seen: list[Any] = []
    whole = checking.preflight

    def counted(target: Target, config: Any) -> Any:
        seen.append(config)
        return whole(target, config)

    monkeypatch.setattr(checking, "preflight", counted)
    return seen


def test_a_verdict_is_made_once_whatever_the_order_of_the_fields(
    target: Target, kept: Path, made: list[Any]
) -> None:
    first = preflight(target, LORA)
    assert preflight(target, dict(reversed(LORA.items()))) == first
    assert len(made) == 1
    assert preflight(target, LORA | {"r": 8}) != first
    assert len(made) == 2
    assert len(list(kept.iterdir())) == 2


def test_a_refusal_is_kept_in_its_words(target: Target, kept: Path, made: list[Any]) -> None:
    said = []
    for _ in range(2):
        with pytest.raises(ConfigError) as refused:
            preflight(target, NOWHERE)
        said.append(str(refused.value))
    assert said[0] == said[1]
    assert "no_such_layer" in said[0]
    assert len(made) == 1
    assert kept.is_dir()


@pytest.mark.parametrize("content", [b"", b"3", b"{}", b'{"preflight": 1}', b"\xff", b"[" * 9999])
def test_a_broken_file_is_passed_over(
    target: Target, kept: Path, made: list[Any], content: bytes
) -> None:
    first = preflight(target, LORA)
    (file,) = kept.iterdir()
    file.write_bytes(content)
    assert preflight(target, LORA) == first
    assert len(made) == 2


def test_what_came_as_an_instance_is_tried_each_time(
    target: Target, kept: Path, made: list[Any]
) -> None:
    own = inspect_model(target.skeleton())
    assert preflight(own, LORA) == preflight(own, LORA)
    assert len(made) == 2
    assert not kept.exists()

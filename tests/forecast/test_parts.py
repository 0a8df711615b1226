"""Parts of a training step's memory, summed up once more by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from peft_shop.forecast.quick import memory
from peft_shop.forecast.quick.base_memory import base_bytes
from peft_shop.forecast.quick.memory import STATES, parts_of
from peft_shop.forecast.quick.methods.parts import Additions
from peft_shop.forecast.records import Settings
from peft_shop.model.structure import Structure

FOLDER = Path(__file__).resolve().parents[2] / "data" / "structures"
TEXT, IMAGE = (
    Structure.model_validate_json((FOLDER / name).read_bytes())
    for name in ("llama-3.2-3b.json", "flux.2-klein-base-4b.json")
)


def test_optimizers_keep_what_they_are_known_to_keep() -> None:
    """Bytes of state per byte of a float32 parameter."""
    moment, byte, scale = 4, 1, 4 / 256  # bitsandbytes: one float32 scale for 256 values
    assert {
        "adamw": 2 * moment / 4,
        "adamw_8bit": 2 * (byte + scale) / 4,
        "sgd": 0,
        "adafactor": 0,
        "lora_fa": 2 * moment / 4,
        "riemannian": 2 * moment / 4,
    } == STATES


@pytest.mark.parametrize("structure", [TEXT, IMAGE], ids=["text", "image"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_blocks_of_image_models_alone_are_checkpointed_by_the_block(
    structure: Structure, checkpointing: bool
) -> None:
    step = Settings(gradient_checkpointing=checkpointing, batch_size=1)
    parts = parts_of(structure, Additions(), step)
    image = structure is IMAGE
    assert (parts.block > 0) == (image and checkpointing)
    assert (parts.reserve is not None) == (not image and checkpointing)
    assert ("activations_checkpoint" in parts.dynamic) == checkpointing
    assert parts.static["base"] == base_bytes(structure, step)
    assert parts.trained == parts.static["adapter"] == parts.static["optimizer"] == 0


HEADS = [(0.0, 0.0), (1.0, -1.0), (3.0, -2.0), (0.0, 9.0)]


@pytest.mark.parametrize(("logits", "loss"), HEADS)
@pytest.mark.parametrize("kept", [{}, {(0, 1): [1e12, 1e11]}, {(1, 3): [5.0, 1e12]}])
def test_the_peak_is_at_the_loss_or_in_the_largest_block(
    monkeypatch: pytest.MonkeyPatch, kept: dict[Any, list[float]], logits: float, loss: float
) -> None:
    step, tokens = Settings(batch_size=2), 640
    blocks = memory.blocks_of(IMAGE)
    assert len(blocks) > 1
    loads = [
        (
            memory.block_load(IMAGE, block, step, tokens, 0),
            kept.get((block.stack, index), [0.0, 0.0]),
        )
        for block in blocks
        for index in range(block.count)
    ]
    load, own = max(loads, key=lambda one: one[0].total + sum(one[1]))
    largest = load.total + sum(own)
    # relative to the largest block: below it, equal, above
    head = (largest + logits, loss)
    monkeypatch.setattr(memory, "head_bytes", lambda *_: head)
    found, block_bytes = memory._checkpointed(IMAGE, Additions(), step, tokens, kept)
    inputs = sum(
        block.count * 2 * memory.hidden_width(IMAGE, block) * 2 * tokens for block in blocks
    )
    if sum(head) > largest:
        expected = {"logits": head[0], "loss": head[1]}
        assert block_bytes == 0
    else:
        expected = {
            "activations_norm": load.norm,
            "activations_attention": load.attention,
            "activations_mlp": load.mlp,
            "activations_adapter": own[0],
            "weights_materialized": own[1],
        }
        assert block_bytes == load.total
    assert found == {"activations_checkpoint": inputs, **expected}

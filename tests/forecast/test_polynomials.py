"""Peaks as polynomials: the closed forms' own, whatever the adapter, the batch and the length."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from peft_shop.curate.calibration.structures import load_structures
from peft_shop.errors import ConfigError
from peft_shop.forecast.quick.closed_forms import closed_form
from peft_shop.forecast.quick.methods.registry import adapter_of
from peft_shop.forecast.quick.polynomials import Polynomials, peak_of
from peft_shop.forecast.quick.spread import shape_of
from peft_shop.forecast.records import Settings

STRUCTURES = load_structures(Path(__file__).resolve().parents[2] / "data")
LLAMA = STRUCTURES["metamathqa"]
ON_ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
CONFIGS: dict[str, dict[str, Any]] = {
    "lora": {"peft_type": "LORA", "r": 16, "target_modules": ["q_proj", "v_proj"]},
    "lora on all": {"peft_type": "LORA", "r": 64, "target_modules": ON_ALL},
    "late layers": {
        "peft_type": "LORA",
        "target_modules": ["q_proj"],
        "layers_to_transform": [20, 21],
    },
    "dora": {"peft_type": "LORA", "use_dora": True, "target_modules": ["v_proj"]},
    "loha": {"peft_type": "LOHA", "r": 8, "target_modules": ["q_proj", "v_proj"]},
    "prompt": {
        "peft_type": "PROMPT_TUNING",
        "num_virtual_tokens": 20,
        "task_type": "CAUSAL_LM",
    },
    "prefix": {
        "peft_type": "PREFIX_TUNING",
        "num_virtual_tokens": 30,
        "task_type": "CAUSAL_LM",
    },
}


@pytest.mark.parametrize("name", CONFIGS)
def test_the_largest_branch_is_the_peak_of_the_closed_form(name: str) -> None:
    draw = random.Random(name)
    adapter = adapter_of(LLAMA, CONFIGS[name])
    for quantization in (None, "bnb_4bit"):
        for checkpointing in (False, True):
            settings = Settings(quantization=quantization, gradient_checkpointing=checkpointing)
            shape = shape_of(LLAMA, adapter, settings)
            (branches,) = Polynomials(LLAMA, [shape]).polynomials(settings)
            batch, length = draw.randint(1, 40), draw.randint(1, 9000)
            step = settings.model_copy(update={"batch_size": batch, "sequence_length": length})
            peak = closed_form(LLAMA, CONFIGS[name], step).peak_memory.value
            assert peak_of(branches, batch, length) == pytest.approx(peak, rel=1e-8)


def test_what_is_more_than_polynomials_is_refused() -> None:
    for structure, settings in (
        (LLAMA, Settings(fused_loss=True)),
        (LLAMA, Settings(attention="eager")),
        (STRUCTURES["image_gen"], Settings(gradient_checkpointing=True)),
    ):
        with pytest.raises(ConfigError, match="polynomial"):
            Polynomials(structure, []).polynomials(settings)

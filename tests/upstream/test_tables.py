"""peft's tables of modules, read from its source, against those of the imported peft."""

from __future__ import annotations

from typing import TYPE_CHECKING

import peft
import pytest
from peft.tuners.adaption_prompt.config import TRANSFORMERS_MODEL_CONFIG
from peft.utils import constants

from peft_shop.upstream import tables
from peft_shop.upstream.tables import own_targets

if TYPE_CHECKING:
    from pathlib import Path

METHODS = sorted(member.value for member in peft.PeftType)


@pytest.mark.parametrize("method", METHODS)
def test_every_entry_is_that_of_peft(method: str) -> None:
    """For every method that has a table, each type of model and one that is in none."""
    tuner = peft.PEFT_TYPE_TO_TUNER_MAPPING.get(peft.PeftType(method))
    table = getattr(tuner, "target_module_mapping", None) or {}
    for model_type in [*table, "no_such_type"]:
        expected = table.get(model_type)
        assert own_targets(method, model_type).get("target_modules") == expected


def test_ia3_has_two_tables() -> None:
    """Which of its targets are scaled at their input is a table of its own."""
    scaled = constants.TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING
    for model_type, names in constants.TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING.items():
        found = own_targets("IA3", model_type)
        assert found["target_modules"] == names
        assert found.get("feedforward_modules") == scaled.get(model_type)


def test_adaption_prompt_keeps_its_own_table() -> None:
    """Beside its configuration, as records of which one member names the modules."""
    for model_type, record in TRANSFORMERS_MODEL_CONFIG.items():
        found = own_targets("ADAPTION_PROMPT", model_type)
        assert found == {"target_modules": record.target_modules}


def test_a_model_of_no_type_has_no_entry() -> None:
    """Models of diffusers state no type."""
    assert own_targets("LORA", None) == {}


def test_without_peft_nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which is told by an empty answer, not by an error."""
    monkeypatch.setattr(tables, "find_peft", lambda: None)
    assert own_targets("LORA", "llama") == {}


def test_a_table_that_is_built_by_code_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of peft is run; an entry that is no literal is unknown, its neighbours are read."""
    (tmp_path / "tuners" / "mine").mkdir(parents=True)
    (tmp_path / "utils").mkdir()
    name = "TRANSFORMERS_MODELS_TO_MINE_TARGET_MODULES_MAPPING"
    (tmp_path / "tuners" / "mine" / "model.py").write_text(f"target_module_mapping = {name}\n")
    (tmp_path / "utils" / "constants.py").write_text(
        'TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING = {"a": ["x"], "b": ["y"]}\n'
        f"{name} = TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING.copy()\n"
        f'{name}["b"] = ["z"]\n'
        f'{name}["c"] = sorted(["z"])\n'
    )
    monkeypatch.setattr(tables, "find_peft", lambda: tmp_path)
    assert own_targets("MINE", "a") == {"target_modules": ["x"]}
    assert own_targets("MINE", "b") == {"target_modules": ["z"]}
    assert own_targets("MINE", "c") == {}
    assert own_targets("LORA", "b") == {}

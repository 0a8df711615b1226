"""A structure that was found once is found again without an inspection, and only while it holds."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from peft_shop.model import cache, inspection
from peft_shop.model.inspection import inspect_model

if TYPE_CHECKING:
    from pathlib import Path

OLMO: dict[str, Any] = {
    "model_type": "olmo2", "architectures": ["Olmo2ForCausalLM"], "hidden_size": 64,
    "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 128,
    "dtype": "bfloat16",
}  # fmt: skip


@pytest.fixture(name="folder")
def _folder(tmp_path: Path) -> Path:
    made = tmp_path / "model"
    made.mkdir()
    (made / "config.json").write_text(json.dumps(OLMO))
    return made


@pytest.fixture(name="kept")
def _kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the cache, which is in use."""
    monkeypatch.setenv("PEFT_SHOP_CACHE", str(tmp_path / "kept"))
    return tmp_path / "kept"


@pytest.fixture(name="inspections")
def _inspections(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Everything that was inspected the long way."""
    seen: list[Any] = []
    whole = inspection._inspected

    def counted(model: Any, **options: Any) -> Any:
        seen.append(model)
        return whole(model, **options)

    monkeypatch.setattr(inspection, "_inspected", counted)
    return seen


def files(kept: Path) -> list[Path]:
    return list((kept / "structures").iterdir())


def test_a_second_question_needs_no_inspection(
    folder: Path, kept: Path, inspections: list[Any]
) -> None:
    first, second = inspect_model(folder), inspect_model(folder)
    assert len(inspections) == 1
    assert first.structure == second.structure
    assert len(files(kept)) == 1
    # its instance is made when it is asked for
    assert second.config.hidden_size == 64
    assert {name for name, _ in second.skeleton().named_modules()} == {
        name for name, _ in first.skeleton().named_modules()
    }


def test_a_copy_elsewhere_has_its_own_name(
    folder: Path, kept: Path, inspections: list[Any], tmp_path: Path
) -> None:
    inspect_model(folder)
    copy = folder.rename(tmp_path / "copy")
    assert inspect_model(copy).structure.name == str(copy)
    assert len(inspections) == 1
    assert kept.is_dir()


@pytest.mark.parametrize("what", ["configuration", "files", "version", "task"])
def test_what_has_changed_is_inspected_again(
    folder: Path,
    kept: Path,
    inspections: list[Any],
    monkeypatch: pytest.MonkeyPatch,
    what: str,
) -> None:
    before = inspect_model(folder).structure
    if what == "configuration":
        (folder / "config.json").write_text(json.dumps(OLMO | {"vocab_size": 256}))
    elif what == "files":
        (folder / "hf_quant_config.json").write_text('{"quantization": {"quant_algo": "FP8"}}')
    elif what == "version":
        monkeypatch.setattr(cache, "_versions", lambda: [("peft", "of tomorrow")])
    after = inspect_model(folder, task_type="SEQ_CLS" if what == "task" else None).structure
    assert len(inspections) == 2
    assert (after == before) == (what == "version")
    # another class for a task is not kept
    assert len(files(kept)) == (1 if what == "task" else 2)


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", b"[" * 10_000, b'{"name": "x"}'])
def test_a_broken_file_is_passed_over_and_replaced(
    folder: Path, kept: Path, inspections: list[Any], content: bytes
) -> None:
    before = inspect_model(folder).structure
    (file,) = files(kept)
    whole = file.read_bytes()
    file.write_bytes(content)
    assert inspect_model(folder).structure == before
    assert len(inspections) == 2
    assert file.read_bytes() == whole


def test_it_can_be_switched_off_and_cannot_fail(
    folder: Path, kept: Path, inspections: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept.write_text("no folder")
    inspect_model(folder)
    kept.unlink()
    monkeypatch.setenv("PEFT_SHOP_CACHE", "off")
    inspect_model(folder)
    assert len(inspections) == 2
    assert not kept.exists()


def test_it_is_bounded(folder: Path, kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "_STRUCTURES", cache.Drawer("structures", ("model",), 3))
    for size in range(1, 6):
        (folder / "config.json").write_text(json.dumps(OLMO | {"vocab_size": 100 + size}))
        inspect_model(folder)
    assert len(files(kept)) == 3
    monkeypatch.setattr(cache, "_LARGEST", 10)
    (folder / "config.json").write_text(json.dumps(OLMO | {"vocab_size": 99}))
    inspect_model(folder)
    assert len(files(kept)) == 3


def test_code_that_comes_with_a_model_is_not_kept(
    folder: Path, kept: Path, inspections: list[Any]
) -> None:
    content = OLMO | {"auto_map": {"AutoModelForCausalLM": "modeling.Own"}}
    (folder / "config.json").write_text(json.dumps(content))
    inspect_model(folder)
    inspect_model(folder)
    assert len(inspections) == 2
    assert not kept.exists()


def test_a_second_process_imports_no_torch(folder: Path, kept: Path) -> None:
    inspect_model(folder)
    assert kept.is_dir()
    code = (
        "import sys; from peft_shop import inspect_model\n"
        f"print(inspect_model({str(folder)!r}).structure.parameters, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.endswith(" False\n"), done.stderr

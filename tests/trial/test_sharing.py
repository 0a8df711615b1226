"""All candidates of a trial have one setup, and the loop has it too."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from peft_shop.errors import CatalogError, InputError
from peft_shop.trial.asking import asked_of
from peft_shop.trial.freezing import write_frozen
from peft_shop.trial.preparing import prepare
from peft_shop.trial.records import Asked, Job, Protocol
from peft_shop.trial.running import Running, script_of

if TYPE_CHECKING:
    from pathlib import Path
    from types import SimpleNamespace


def passes(protocol: Protocol, name: str) -> tuple[int, int, bool]:
    """Micro-batch, accumulation and checkpointing of a candidate's script."""
    rate = protocol.contestant(name).rates[0]
    job = Job(stage="rates", contestant=name, learning_rate=rate, seed=0)
    script = script_of(protocol, job)
    sizes = re.findall(r"^(?:BATCH_SIZE|ACCUMULATION) = (\d+)", script, re.MULTILINE)
    return int(sizes[0]), int(sizes[1]), "gradient_checkpointing_enable" in script


@pytest.mark.parametrize("parts", [1, 2, 8])
def test_a_step_is_divided_as_the_protocol_says(made: SimpleNamespace, parts: int) -> None:
    protocol = made.protocol()
    lora = protocol.contestant("lora/a")
    options = {**lora.recipe.training.options, **({"accumulation": parts} if parts > 1 else {})}
    training = lora.recipe.training.model_copy(update={"options": options})
    recipe = lora.recipe.model_copy(update={"training": training})
    changed = lora.model_copy(update={"recipe": recipe})
    protocol = protocol.model_copy(update={"contestants": (protocol.base, changed)})
    assert passes(protocol, "lora/a") == (8 // parts, parts, False)


def test_parts_that_make_no_batch_are_refused() -> None:
    with pytest.raises(CatalogError, match="no multiple"):
        asked_of({"model": "m", "train": "t", "batch_size": 8, "accumulation": 3}, "here")


def asked(tiny: Path, device: str | None, **more: Any) -> Asked:
    question = {
        "model": str(tiny / "model"),
        "train": str(tiny / "train.jsonl"),
        "candidates": ["lora", "miss", "lily"],
        "max_length": 128,
        "batch_size": 4096,
        "steps": 5,
        "device": device,
        **more,
    }
    return asked_of(question, "here")


@pytest.mark.slow
def test_what_the_neediest_needs_all_have(tiny: Path, tmp_path: Path) -> None:
    roomy = prepare(tmp_path, asked(tiny, None)).protocol
    assert (roomy.accumulation, roomy.gradient_checkpointing, roomy.left_out) == (1, False, {})
    tight = prepare(tmp_path, asked(tiny, "1GiB")).protocol
    assert tight.accumulation > 1
    assert any("for all alike" in note for note in tight.notes)
    shapes = {passes(tight, each.name) for each in tight.contestants[1:]}
    assert shapes == {
        (4096 // tight.accumulation, tight.accumulation, tight.gradient_checkpointing)
    }
    for contestant in tight.contestants[1:]:
        assert contestant.peak is not None
        assert contestant.peak[0] < 2**30
    # what was stated stays: nobody fits, and that is said before anything starts
    with pytest.raises(InputError, match="is above 1GiB"):
        prepare(tmp_path, asked(tiny, "1GiB", accumulation=1, gradient_checkpointing=False))


@pytest.mark.slow
def test_the_loop_trains_with_the_setup(tiny: Path, tmp_path: Path) -> None:
    """Parts of a step and blocks that run again change no loss beyond rounding."""
    losses = {}
    setups: list[dict[str, Any]] = [{}, {"accumulation": 4, "gradient_checkpointing": True}]
    for number, setup in enumerate(setups):
        folder = tmp_path / str(number)
        folder.mkdir()
        question = asked(tiny, None, candidates=["lora"], batch_size=8, max_length=32, **setup)
        prepared = prepare(folder, question)
        write_frozen(folder, prepared)
        protocol = prepared.protocol
        (lora,) = protocol.contestants[1:]
        assert passes(protocol, lora.name) == ((2, 4, True) if setup else (8, 1, False))
        job = Job(stage="rates", contestant=lora.name, learning_rate=lora.rates[-1], seed=0)
        run = Running(folder, protocol, job)
        run.process.wait(240)
        result = run.result()
        assert result is not None
        assert result.measured is not None, result.detail
        losses[number] = result.measured
    assert losses[0].tokens == losses[1].tokens
    assert losses[0].test_loss == pytest.approx(losses[1].test_loss, abs=1e-5)
    assert losses[0].train_loss == pytest.approx(losses[1].train_loss, abs=1e-5)

"""Every method takes part in a trial or is left out with the reason."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

import pytest

from peft_shop.catalog.store import load
from peft_shop.trial.asking import asked_of
from peft_shop.trial.preparing import prepare
from peft_shop.trial.records import Job
from peft_shop.trial.running import script_of

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow


def test_every_method_is_planned_or_refused_with_the_reason(tiny: Path, tmp_path: Path) -> None:
    methods = load().methods
    names = [method.id for method in methods]
    asked = asked_of(
        {
            "model": str(tiny / "model"),
            "train": str(tiny / "train.jsonl"),
            "candidates": names,
            "steps": 5,
            "max_length": 32,
        },
        "here",
    )
    protocol = prepare(tmp_path, asked).protocol
    planned = {each.method for each in protocol.contestants[1:]}
    assert planned | set(protocol.left_out) == set(names)
    assert not planned & set(protocol.left_out)
    for method in methods:
        if method.loop_needs is not None:
            assert method.loop_needs in protocol.left_out[method.id]
    assert {"cpt", "multitask_prompt_tuning", "poly", "xlora"} <= set(protocol.left_out)
    assert len(planned) > len(names) // 2
    assert all(reason.strip() for reason in protocol.left_out.values())
    for contestant in protocol.contestants[1:]:
        rate = contestant.rates[0]
        job = Job(stage="rates", contestant=contestant.name, learning_rate=rate, seed=0)
        ast.parse(script_of(protocol, job))
        assert contestant.rates == tuple(sorted(contestant.rates))
        assert len(contestant.rates) == asked.rates

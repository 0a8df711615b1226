"""What a trial's state says of runs that ran out of memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from peft_shop.trial.status import status_of

if TYPE_CHECKING:
    from types import SimpleNamespace


@pytest.mark.parametrize(
    ("setup", "cures"),
    [
        ({}, "--accumulation 2 or --gradient-checkpointing or less than --max-length 512"),
        ({"accumulation": 4}, "--accumulation 8 or --gradient-checkpointing or less than"),
        ({"accumulation": 8, "gradient_checkpointing": True}, "with less than --max-length 512"),
    ],
)
def test_what_ran_out_of_memory_is_told_what_would_fit_all(
    made: SimpleNamespace, setup: dict[str, object], cures: str
) -> None:
    protocol = made.protocol().model_copy(update=setup)
    lost = protocol.contestants[1].model_copy(update={"peak": (1e9, 2 * 2**30, 3e9)})
    contestants = (protocol.base, lost, *protocol.contestants[2:])
    protocol = protocol.model_copy(update={"contestants": contestants})
    results = made.carried_out(protocol, lambda job: None if job.contestant == lost.name else 2.0)
    assert not any("out of memory" in note for note in status_of(protocol, results).notes)
    results = {
        name: each.model_copy(update={"outcome": "out_of_memory"}) if not each.measured else each
        for name, each in results.items()
    }
    (note,) = (note for note in status_of(protocol, results).notes if "out of memory" in note)
    assert f"{lost.name} (forecast 2.00 GiB)" in note
    assert cures in note

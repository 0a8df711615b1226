"""What a preflight refused is known to later answers about the same model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import transformers

from peft_shop import recommend
from peft_shop.model.inspection import inspect_model
from peft_shop.model.structure import Structure
from peft_shop.preflight.refused import known_refusal, remember_refusal

if TYPE_CHECKING:
    from peft_shop import Recommendation

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::RuntimeWarning")

LORA = {"peft_type": "LORA", "r": 4}


def structure(**more: Any) -> Structure:
    fields: dict[str, Any] = {"name": "mine", "architecture": "Any", "library": "torch"}
    fields |= {"modality": "text", "benchmark_because": "any", "groups": (), "parameters": 9}
    return Structure(**{**fields, **more})


def test_a_refusal_is_of_one_structure_and_configuration() -> None:
    on, other = structure(), structure()
    remember_refusal(on, LORA, "it cannot")
    assert known_refusal(on, dict(reversed(LORA.items()))) == "it cannot"
    assert known_refusal(on, {**LORA, "r": 5}) is None
    assert known_refusal(other, LORA) is None


def test_old_structures_go() -> None:
    several = [structure() for _ in range(40)]
    for on in several:
        remember_refusal(on, LORA, "no")
    kept = [on for on in several if known_refusal(on, LORA)]
    assert kept == several[-len(kept) :]
    assert 0 < len(kept) < len(several)


def names(answer: Recommendation) -> list[str]:
    return sorted(one.name for one in (*answer.candidates, *answer.dropped))


def test_an_answer_drops_what_a_preflight_refuses() -> None:
    """A front of prefix tuning alone, on a model whose attention cannot take a prefix."""
    config = transformers.FalconConfig(
        vocab_size=64, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, multi_query=True
    )
    target = inspect_model(config)
    first = recommend(model=target, methods=["prefix_tuning", "prompt_tuning"])
    assert {one.method for one in first.front} >= {"prefix_tuning"}
    checked = first.preflighted()
    assert {one.method for one in checked.front} == {"prompt_tuning"}
    assert all(one.preflighted is not None for one in checked.front)
    told = [one for one in checked.dropped if one.method == "prefix_tuning"]
    assert told
    assert any("a forward pass with it raises" in failure.reason for failure in told[0].failures)
    again = recommend(model=target, methods=["prefix_tuning", "prompt_tuning"])
    assert {one.method for one in again.front} == {"prompt_tuning"}
    assert names(again) == names(first)

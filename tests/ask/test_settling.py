"""Memory that no closed form tells: kept as unknown, and told by dry runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from peft_shop import recommend
from peft_shop.ask import settling
from peft_shop.ask.watching import watched

if TYPE_CHECKING:
    from peft_shop.ask.recommendation import Recommendation
    from peft_shop.model.inspection import Target

transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def experts() -> Target:
    """A small mixture of experts, of which no closed form knows."""
    from peft_shop.model.inspection import inspect_model

    return inspect_model(
        transformers.Qwen3MoeConfig(
            hidden_size=64,
            intermediate_size=128,
            moe_intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=16,
            num_experts=4,
            num_experts_per_tok=2,
            vocab_size=128,
            dtype="bfloat16",
            architectures=["Qwen3MoeForCausalLM"],
        )
    )


def kept(found: Recommendation) -> set[str]:
    return {getattr(one, "name", one.method) for one in found.kept}


def test_what_is_not_known_is_kept_and_ranked_by_what_is(experts: Target) -> None:
    found = recommend(model=experts.structure, device="H200")
    assert kept(found) == kept(recommend(model=experts.structure, objectives="test_accuracy"))
    ranked = [*found.front, *found.ties, *found.dominated]
    assert len(ranked) > 30
    assert all(one.forecasted is None and "peak_memory" not in one.values for one in ranked)
    scores = [one.values["test_accuracy"] for one in ranked]
    assert found.best.values["test_accuracy"] == max(scores)
    assert found.surely is None
    assert not found.relaxations
    text = " ".join(str(found).split())
    assert "allow more memory" not in text
    assert "is not known" in text
    assert all("not known" in one.why or "Best" in one.why for one in found)


@pytest.mark.parametrize("fit", ["auto", "off"])
def test_dry_runs_tell_the_best_first_as_far_as_the_time_reaches(
    experts: Target, fit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # a clock that stands still until three candidates were looked at
    heard: list[str] = []
    monkeypatch.setattr(settling.time, "monotonic", lambda: float(len(heard) > 3))
    with watched(lambda _done, _total, name: heard.append(name)):
        found = recommend(model=experts, device="H200", fit=fit, within="500ms")
    first = recommend(model=experts.structure, device="H200", fit=fit)
    yardstick = next(one.name for one in first.baselines if one.kind == "lora")
    assert heard[0] == yardstick
    assert first.best.name in heard[1:3]
    known = [one for one in found.candidates if one.forecasted is not None]
    assert {one.name for one in known} <= set(heard)
    assert known
    assert all(one.forecasted.way == "dry_run" for one in known if one.forecasted)
    assert kept(found) == kept(recommend(model=experts.structure, device="H200", fit=fit))
    assert found.surely is True
    if fit == "auto":
        assert all(one.setup is not None and one.setup.fits == "yes" for one in known)
        assert found.setup is not None
    assert any("is not known" in one for one in found.warnings)


def test_a_device_that_is_too_small_takes_another_setup(experts: Target) -> None:
    plain = recommend(model=experts, device="H200", methods="lora", within="2s")
    some = next(one for one in plain.candidates if one.setup is not None)
    assert some.setup is not None
    limit = int(some.setup.peak.high) - 1
    found = recommend(model=experts, max_memory=limit, methods="lora", within="5s")
    own = next((one for one in found.candidates if one.name == some.name), None)
    if own is not None and own.setup is not None:
        assert own.setup.changes or own.setup.fits == "maybe"
        assert own.setup.peak.low <= limit


def test_where_the_base_alone_is_too_large_nothing_fits_though_nothing_was_traced(
    experts: Target,
) -> None:
    found = recommend(model=experts.structure, max_memory="100kB", methods="lora")
    assert not list(found.kept)
    text = " ".join(str(found).split())
    assert "Nothing fits 100kB: the base alone takes" in text
    assert "is not known" not in text


def test_a_common_model_gets_no_dry_run_unless_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    from peft_shop.model.inspection import inspect_model

    target = inspect_model(
        transformers.Qwen3Config(
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=16,
            vocab_size=128,
            dtype="bfloat16",
            architectures=["Qwen3ForCausalLM"],
        )
    )

    def never(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(settling._DryRuns, "trace", never)
    found = recommend(model=target, device="H200")
    assert any(one.forecasted is None for one in found.kept), "SHADOW has no closed form"
    with pytest.raises(AssertionError):
        recommend(model=target, device="H200", within="1s")


# --- without evidence ---


def test_a_model_without_evidence_gets_no_ranking_but_what_works_on_it() -> None:
    from peft_shop.model.inspection import inspect_model

    config = transformers.ResNetConfig(
        embedding_size=16, hidden_sizes=[16, 32], depths=[1, 1], layer_type="basic"
    )
    target = inspect_model(config)
    found = recommend(model=target.structure)
    assert not found.query.ranked
    assert not [*found.front, *found.ties, *found.dominated]
    assert found.unmeasured[0].method == "lora"
    assert all(one.retargeted is not None and one.retargeted.applies for one in found.unmeasured)
    assert all(
        any(failure.constraint == "model" for failure in one.failures) for one in found.dropped
    )
    assert found.surely is True
    text = " ".join(str(found).split())
    assert "without a ranking" in text
    assert "MetaMathQA" not in text
    assert "nothing is ranked: no benchmark on record measures a vision model" in text
    named = recommend(model=target.structure, benchmark="metamathqa")
    assert named.query.ranked, "who names a benchmark gets its order, as a guess"


def test_a_guess_is_of_the_same_kind() -> None:
    from peft_shop import load_catalog
    from peft_shop.ask.model import default_benchmark
    from peft_shop.model.inspection import inspect_model

    catalog = load_catalog()
    structure = inspect_model(
        transformers.BertConfig(
            hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64
        )
    ).structure
    by_kind = {
        kind: default_benchmark(
            catalog, structure.model_copy(update={"modality": kind, "benchmark": None})
        )
        for kind in ("text", "multimodal", "image", "vision", "audio", "unknown")
    }
    assert {kind: one and one.id for kind, one in by_kind.items()} == {
        "text": "metamathqa",
        "multimodal": "metamathqa",
        "image": "image_gen",
        "vision": None,
        "audio": None,
        "unknown": None,
    }

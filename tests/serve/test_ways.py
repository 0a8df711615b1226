"""What each way to an engine says: ranks, exactness, reasons and warnings, by the facts."""

from __future__ import annotations

from typing import Any

import pytest

from peft_shop import load_catalog
from peft_shop.catalog.engines import RankRule
from peft_shop.catalog.store import parse
from peft_shop.errors import CatalogError
from peft_shop.serve.adapter import Adapter, variants_of
from peft_shop.serve.ranks import exact_rule, formula, loss, matching_rules
from peft_shop.serve.routes import KINDS, route
from peft_shop.serve.ways import conversions, merged, native, whole_model

CATALOG = load_catalog()
ENGINES = CATALOG.engines
VLLM = CATALOG.engine_by_id["vllm"]
METHODS = CATALOG.methods


def of(method: str, variants: tuple[str, ...] | None = None, **config: Any) -> Adapter:
    known = CATALOG.method_by_id[method]
    named = variants_of(known, config) if variants is None else variants
    return Adapter("mine", method, named, config)


def by(adapter: Adapter, who: str, engine: Any = VLLM) -> Any:
    (way,) = [way for way in conversions(CATALOG, engine, adapter) if way.by == who]
    return way


def everyone() -> list[Adapter]:
    return [of(method.id) for method in METHODS] + [
        of(method.id, (variant.id,)) for method in METHODS for variant in method.variants
    ]


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.id)
def test_only_a_rule_without_doubt_makes_a_conversion_exact(engine: Any) -> None:
    for adapter in everyone():
        method = CATALOG.method_by_id[adapter.method]
        for way in conversions(CATALOG, engine, adapter):
            if not way.exact or any("path_initial" in text for text in way.conditions):
                continue
            stage = "convert" if way.by == "peft" else "extract"
            rules = matching_rules(CATALOG.conversions, adapter, stage)
            assert way.works != "unknown", (adapter, way)
            assert not {"wrong", "refused", "unknown"} & {rule.verdict for rule in rules}
            if way.by == "peft":
                found = method.capability("convertible_to_lora", adapter.variants)
                assert found.support == "yes"
            else:
                assert exact_rule(CATALOG.conversions, adapter) is not None


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.id)
def test_an_approximation_has_the_rank_at_which_its_loss_was_measured(engine: Any) -> None:
    most = max(engine.ranks.choices, default=engine.ranks.most)
    seen = 0
    for adapter in everyone():
        if exact_rule(CATALOG.conversions, adapter) is not None:
            continue
        for way in conversions(CATALOG, engine, adapter):
            method = CATALOG.method_by_id[adapter.method]
            found = loss(method.fidelities(adapter.variants), most)
            if way.by != "peft-shop" or way.rank is None:
                continue
            assert found is not None
            assert way.rank == found.rank
            commands = [text for text in way.conditions if "peft-shop convert ADAPTER" in text]
            assert len(commands) == (way.works != "no")
            assert all(f"--rank {found.rank} " in text for text in commands)
            seen += 1
    assert seen


@pytest.mark.parametrize(
    ("method", "config"),
    [
        (method.id, {name: value})
        for method in METHODS
        for variant in method.variants
        for name, value in [("use_dora", True), ("use_rslora", True), ("init_weights", "mini")]
        if name in method.fields
    ],
)
def test_a_variant_that_nobody_named_is_seen_in_the_configuration(
    method: str, config: dict[str, Any]
) -> None:
    unnamed, named = of(method, (), **config), of(method, **config)
    mine, theirs = by(unnamed, "peft-shop"), by(named, "peft-shop")
    basis = [one for one in mine.basis if one.topic == "update"]
    assert basis == [one for one in theirs.basis if one.topic == "update"]
    assert (mine.works, mine.rank) == (theirs.works, theirs.rank)


def test_what_was_measured_is_told_as_verified() -> None:
    for adapter in everyone():
        way = by(adapter, "peft-shop")
        method = CATALOG.method_by_id[adapter.method]
        measured = method.fidelities(adapter.variants)
        told = [one for one in way.basis if one.topic == "update"]
        assert [one.place for one in told] == [
            "declared" if one.rank is None else "verified" for one in measured
        ]


@pytest.mark.parametrize("pattern", ["rank_pattern", "alpha_pattern"])
def test_saving_against_the_start_refuses_patterns_beside_rslora(pattern: str) -> None:
    plain = {"init_lora_weights": "pissa", "r": 8}
    patterned = plain | {pattern: {"q_proj": 4}}
    for config, refused in (
        (plain, False),
        (plain | {"use_rslora": True}, False),
        (patterned, False),
        (patterned | {"use_rslora": True}, True),
    ):
        way = by(of("lora", **config), "peft")
        assert any("rslora" in text for text in way.reasons) == refused
        assert not refused or way.works == "no"


def test_the_warning_quotes_the_rule_about_the_start() -> None:
    adapter = of("lora", init_lora_weights="pissa", r=8)
    rules = matching_rules(CATALOG.conversions, adapter, "convert")
    starts = [rule for rule in rules if rule.initial_model]
    way = by(adapter, "peft")
    warned = [text for text in way.warnings if "save_as_lora" in text]
    assert warned == [f"Do not use peft's save_as_lora on it: {rule.because}" for rule in starts]
    assert warned
    assert way.rank == 16
    told = [(one.value, one.place) for one in way.basis if one.topic == "convertible_to_lora"]
    assert told == [(rule.verdict, rule.level) for rule in starts]


def test_a_reason_of_an_approximation_is_that_of_its_rule() -> None:
    seen = 0
    for adapter in everyone():
        rules = [
            rule
            for to in ("convert", "extract")
            for rule in matching_rules(CATALOG.conversions, adapter, to)
        ]
        approximate = [r.because for r in rules if r.verdict == "approximate" and r.because]
        others = [r.because for r in rules if r.verdict != "approximate" and r.because]
        way = by(adapter, "peft-shop")
        losses = [text for text in way.reasons if "layers" in text and "lose more" in text]
        for text in losses:
            quoted = [because for because in approximate if because.rstrip(".") in text]
            assert quoted == approximate[:1]
            assert not [because for because in others if f"({because.rstrip('.')})" in text]
            seen += 1
    assert seen


def test_peft_refuses_ranks_above_a_layer_unless_it_keeps_the_adapters_own() -> None:
    seen = set()
    for adapter in everyone():
        exact = exact_rule(CATALOG.conversions, adapter, "convert")
        for way in conversions(CATALOG, VLLM, adapter):
            if way.by != "peft" or way.works == "no" or "Convert" not in way.conditions[0]:
                continue
            warned = any("above the smaller side" in text for text in way.warnings)
            assert warned == (exact is not None and formula(exact) != "r"), adapter
            shown = way.rank or ("..." if exact is None else formula(exact))
            assert way.conditions[0].endswith(f"rank={shown}).")
            told = [one.value for one in way.basis if one.topic == "exact rank"]
            assert told == ([] if exact is None else [formula(exact)])
            seen.add(warned)
    assert seen == {True, False}


def test_what_else_a_conversion_changes_is_told() -> None:
    """Of an embedding that the head may share, and of a bias of the base."""
    seen = set()
    for adapter in everyone():
        kinds = {
            kind
            for one in CATALOG.method_by_id[adapter.method].fidelities(adapter.variants)
            for kind in one.delta
        }
        way = by(adapter, "peft-shop")
        if way.works == "no":
            continue
        tied = any("head is not tied" in text for text in way.reasons)
        bias = any("may have a bias" in text for text in way.conditions)
        assert (tied, bias) == ("embedding" in kinds, "base_bias" in kinds), adapter
        seen |= {("tied", tied), ("bias", bias)}
    assert {("tied", True), ("tied", False), ("bias", False)} <= seen


@pytest.mark.parametrize("method", ["lora", "boft", "prompt_tuning", "trainable_tokens"])
def test_obstacles_are_those_of_the_ways_that_were_asked_about(method: str) -> None:
    for engine in ENGINES:
        found = route(CATALOG, of(method), engine.id)
        for kinds in (("native",), ("convert",), ("merge",), ("native", "merge"), KINDS):
            barred = [way for way in found.ways if way.works != "yes" and way.kind in kinds]
            told = found.obstacles(kinds)
            for way in found.ways:
                state = "silently wrong" if way.silent else way.works
                assert (f"{way.name} ({state})" in told) == (way in barred)
            for way in barred:
                assert ", ".join(text.rstrip(".") for text in way.reasons) in told
            assert found.reaches(kinds) == any(
                way.works == "yes" and way.kind in kinds for way in found.ways
            )


def test_a_change_without_a_place_has_one_reason() -> None:
    way = by(of("prompt_tuning"), "peft-shop")
    assert way.works == "no"
    assert len(way.reasons) == len(set(way.reasons))
    assert not any("no LoRA holds" in text for text in way.reasons)


def test_a_whole_model_costs_a_copy() -> None:
    for way in (merged(CATALOG, VLLM, of("lora")), whole_model(VLLM)):
        assert way.kind == "merge"
        assert "Costs a full copy of the model for every task." in way.warnings
        assert f"{VLLM.title} must serve the base model itself." in way.conditions


@pytest.mark.parametrize("method", ["lora", "adalora", "boft"])
def test_what_loads_as_it_is_needs_no_conversion(method: str) -> None:
    """Only plain LoRA, and only where nothing is to be warned of."""
    for engine in ENGINES:
        adapter = of(method)
        found = route(CATALOG, adapter, engine.id).ways
        first = native(engine, adapter)
        spared = method == "lora" and first.works == "yes" and not first.warnings
        assert any(way.kind == "convert" for way in found) != spared, engine.id


def test_ranks_of_an_engine_cite_a_source_that_it_has() -> None:
    document = CATALOG.model_copy(
        update={
            "engines": tuple(
                one.model_copy(update={"ranks": RankRule(most=7, source="nowhere")})
                if one.id == "vllm"
                else one
                for one in ENGINES
            )
        }
    )
    with pytest.raises(CatalogError, match="nowhere"):
        parse(document.model_dump_json(exclude_defaults=True).encode())

"""What a LoRA keeps of an update: ranks by rule, losses by measurement, and what follows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peft_shop import load_catalog, recommend
from peft_shop.catalog.engines import Conversion
from peft_shop.catalog.methods import FIDELITY_RANKS, Fidelity
from peft_shop.serve.adapter import Adapter, adapter_of_method, variants_of
from peft_shop.serve.ranks import (
    NO_PLACE,
    TOLERANCE,
    exact_rank,
    exact_rule,
    formula,
    loss,
    rank_by,
)
from peft_shop.serve.routes import route

if TYPE_CHECKING:
    from peft_shop.serve.cases import Way

CATALOG = load_catalog()
ENGINES = [engine.id for engine in CATALOG.engines]
laws = settings(max_examples=60, deadline=None, derandomize=True)
METHODS = [method.id for method in CATALOG.methods]


def of(method: str, **config: Any) -> Adapter:
    known = CATALOG.method_by_id[method]
    return Adapter("mine", method, variants_of(known, config), config)


def ours(engine: str, adapter: Adapter) -> Way:
    (one,) = [one for one in route(CATALOG, adapter, engine).ways if one.by == "peft-shop"]
    return one


# --- ranks ---


@laws
@given(
    st.lists(
        st.lists(st.sampled_from(["a", "b", "2", "3"]), min_size=1, max_size=3),
        min_size=1,
        max_size=3,
    ),
    st.integers(1, 9),
    st.integers(1, 9),
)
def test_a_rank_is_the_sum_of_products_that_its_formula_shows(
    terms: list[list[str]], a: int, b: int
) -> None:
    rule = Conversion(
        method="loha",
        verdict="exact",
        rank=tuple(tuple(term) for term in terms),
        defaults={"a": 1, "b": b},
    )
    shown = formula(rule).replace("a", str(a)).replace("b", str(b))
    value = 0
    for product in shown.split(" + "):
        part = 1
        for factor in product.split(" * "):
            part *= int(factor)
        value += part
    assert rank_by(rule, Adapter("it", "loha", (), {"a": a, "x": 3})) == value


@pytest.mark.parametrize(
    ("adapter", "rank"),
    [
        (of("lora", r=6), 6),
        (of("lora", r=6, rank_pattern={"q": 9}), 9),
        (of("lora", r=6, init_lora_weights="pissa_niter_4"), 12),
        (of("lora", r=6, init_lora_weights="corda", rank_pattern={"q": 9}), 18),
        (of("lora", kasa_config={"gamma": 1}), 16),
        (of("lora", r=6, use_bdlora={"nblocks": 2}), 6),
        (of("lora", r=6, use_dora=True), None),
        (of("lora", r=6, use_dora=True, init_lora_weights="pissa"), None),
        (of("loha", r=3), 9),
        (of("adalora"), 12),
        (of("adalora", init_r=5, target_r=2), 5),
        (of("adamss", num_subspaces=3, subspace_rank=4), 12),
        (of("trainable_tokens", token_indices=[4, 8, 9]), 3),
        (of("fourierft", n_frequency=20), 40),
        (of("miss", r=4, init_weights="bat"), None),
        (of("oft"), None),
        (adapter_of_method(CATALOG.method_by_id["loha"]), None),
    ],
)
def test_exact_ranks(adapter: Adapter, rank: int | None) -> None:
    assert exact_rank(CATALOG.conversions, adapter) == rank


def test_the_measured_rank_of_a_method_is_within_its_rule() -> None:
    """At the probe's settings, which the catalog does not tell: by the grid in its sources."""
    for method in CATALOG.methods:
        capability = method.capabilities["extractable_to_lora"]
        rule = exact_rule(CATALOG.conversions, of(method.id))
        if capability.support == "yes":
            assert rule is not None, method.id
            assert method.fidelity is not None
            assert method.fidelity.errors == ()


# --- losses ---


def test_what_was_measured_is_consistent() -> None:
    for method in CATALOG.methods:
        own = method.fidelity
        assert own is not None, method.id
        for one in (own, *(v.fidelity for v in method.variants if v.fidelity)):
            assert len(one.errors) in {0, len(FIDELITY_RANKS)}
            assert list(one.errors) == sorted(one.errors, reverse=True)
            held = {"weight", "embedding"} & set(one.delta)
            assert (one.rank is not None) == bool(held), method.id
            if held:
                assert one.layers
            else:
                assert set(one.delta) <= set(NO_PLACE)


@laws
@given(
    st.lists(
        st.tuples(*[st.floats(0, 1) for _ in FIDELITY_RANKS]).map(
            lambda values: tuple(sorted(values, reverse=True))
        ),
        max_size=3,
    ),
    st.integers(1, 600) | st.none(),
)
def test_the_loss_is_that_of_the_highest_rank_allowed(
    errors: list[tuple[float, ...]], most: int | None
) -> None:
    found = loss([Fidelity(rank=128, errors=one) for one in errors], most)
    fitting = [rank for rank in FIDELITY_RANKS if most is None or rank <= most]
    if not errors or not fitting:
        assert found is None
        return
    assert found is not None
    assert found.rank == fitting[-1]
    place = FIDELITY_RANKS.index(found.rank)
    assert found.error == max(one[place] for one in errors)
    assert found.least_error >= found.error


# --- routes ---


@pytest.mark.parametrize("engine", ENGINES)
def test_an_approximation_never_satisfies(engine: str) -> None:
    for method in CATALOG.methods:
        for variant in ("", *(one.id for one in method.variants)):
            adapter = adapter_of_method(method, [variant] if variant else [])
            for way in route(CATALOG, adapter, engine).ways:
                if way.works == "yes":
                    assert way.exact
                fidelities = method.fidelities((variant,))
                lossy = loss(
                    fidelities, max(CATALOG.engine_by_id[engine].ranks.choices, default=64)
                )
                if (
                    way.by
                    and lossy
                    and lossy.error > TOLERANCE
                    and exact_rule(CATALOG.conversions, adapter) is None
                ):
                    assert way.works == "no", (method.id, variant, engine)


def test_a_way_of_ours_names_its_command() -> None:
    one = ours("vllm", of("adalora", init_r=24))
    assert (one.works, one.exact, one.rank) == ("yes", True, 24)
    assert one.conditions[:2] == (
        "Convert: peft-shop convert ADAPTER --base MODEL --to lora --rank 24 --engine vllm -o OUT.",
        "Pass --max-lora-rank 32: the default is 16.",
    )


@pytest.mark.parametrize(
    ("adapter", "works", "said"),
    [
        (of("lora", r=8, kasa_config={"gamma": 1}), "yes", "--rank 16"),
        (of("lora", r=8, use_bdlora={"nblocks": 2}), "yes", "--rank 8"),
        (of("lora", r=8, init_lora_weights="pissa"), "yes", "--rank 16"),
        (of("lora", r=8, use_dora=True), "no", "about 8 % of the update is lost at rank 64"),
        (of("lora", r=8, lora_bias=True), "no", "no place for the trained bias"),
        (of("lora", r=8, bias="all"), "no", "no place for trained biases"),
        (of("lora", alora_invocation_tokens=[1]), "no", "other inputs, positions or tasks"),
        (of("lora", arrow_config={"top_k": 1}), "no", "no fixed matrix"),
        (of("oft"), "no", "about 25 % of the update is lost at rank 64 and 85 % at rank 8"),
        (of("adalora", init_r=600), "unknown", "exact at rank 600, which is more than"),
        (of("adamss"), "yes", "No adapted layer may have a bias"),
        (of("pvera", sample_at_inference=True), "no", "differ from call to call"),
        (of("trainable_tokens", token_indices=[1]), "unknown", "not tied to its embedding"),
        (of("beft"), "no", "it trains biases"),
        (of("ln_tuning"), "no", "it trains norms"),
        (of("prompt_tuning"), "no", "virtual tokens"),
        (of("adaption_prompt"), "no", "no weight of a layer"),
        (of("poly"), "no", "other inputs, positions or tasks"),
        (of("xlora"), "no", "other inputs, positions or tasks"),
        (of("glora"), "unknown", "about 1 % of the update is lost at rank 64"),
    ],
)
def test_our_conversion_to_vllm(adapter: Adapter, works: str, said: str) -> None:
    one = ours("vllm", adapter)
    assert one.works == works
    assert said in " ".join((*one.reasons, *one.conditions))


@laws
@given(
    st.sampled_from(METHODS),
    st.dictionaries(st.sampled_from(["r", "init_r", "n_frequency"]), st.integers(1, 700)),
    st.sampled_from(ENGINES),
)
def test_our_exact_lora_is_one_that_the_engine_takes(
    method: str, config: dict[str, Any], engine: str
) -> None:
    adapter = of(method, **config)
    for one in route(CATALOG, adapter, engine).ways:
        if one.by == "peft-shop" and one.works == "yes":
            assert one.rank is not None
            plain = route(CATALOG, adapter.converted(one.rank), engine)
            assert plain.ways[0].kind == "native"
            assert plain.ways[0].works == "yes"


# --- in a question ---


def reached(**options: Any) -> set[str]:
    answer = recommend(peft_version="any", floor=0, **options)
    groups = (answer.front, answer.ties, answer.dominated, answer.unmeasured)
    return {one.method for group in groups for one in group}


def test_peft_s_own_conversion_and_ours_are_told_apart() -> None:
    peft_s, exact, any_ = (
        reached(convertible_to_lora=True),
        reached(extractable_to_lora=True),
        reached(extractable_to_lora="partial"),
    )
    assert {"deft", "hra", "peanut", "pvera"} <= exact - peft_s
    assert "c3a" in peft_s - exact  # at full rank only
    assert exact < any_
    assert {"oft", "boft", "ia3"} <= any_ - exact
    assert not {"prompt_tuning", "poly", "xlora", "lily", "beft"} & any_


def test_a_server_is_reached_by_our_conversion_too() -> None:
    answer = recommend(serve="vllm:convert", peft_version="any", floor=0)
    groups = (answer.front, answer.ties, answer.dominated)
    found = {one.run.experiment: one.routes["vllm"] for group in groups for one in group}
    adalora = [way for name, way in found.items() if name.startswith("adalora/")]
    assert adalora
    for one in adalora:
        (way,) = [way for way in one.ways if way.works == "yes" and way.kind == "convert"]
        assert way.by == "peft-shop"
    for one in found.values():
        assert any(way.kind == "convert" and way.works == "yes" and way.exact for way in one.ways)


def test_a_catalog_without_measurements_extracts_nothing(alter: Any) -> None:
    bare = tuple(
        method.model_copy(
            update={
                "fidelity": None,
                "variants": tuple(
                    one.model_copy(update={"fidelity": None}) for one in method.variants
                ),
            }
        )
        for method in CATALOG.methods
    )
    found = route(alter(CATALOG, methods=bare), of("adalora"), "vllm")
    (one,) = [way for way in found.ways if way.by == "peft-shop"]
    assert one.works == "unknown"
    assert "nobody measured" in one.reasons[0]


def test_what_the_catalog_denies_is_not_extracted(alter: Any) -> None:
    denied = alter(
        CATALOG,
        methods=tuple(
            method.model_copy(
                update={
                    "capabilities": {
                        **method.capabilities,
                        "extractable_to_lora": method.capabilities[
                            "extractable_to_lora"
                        ].model_copy(update={"support": "no"}),
                    }
                }
            )
            for method in CATALOG.methods
        ),
    )
    for method in METHODS:
        for way in route(denied, of(method), "vllm").ways:
            if way.by == "peft-shop":
                assert way.works == "no", method

"""Routes: golden rules from what was read, and laws that hold whatever the facts are."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peft_shop import any_of, load_catalog, recommend
from peft_shop.ask.query import Requirement
from peft_shop.ask.recommendation import Recommendation
from peft_shop.catalog.features import FULL_FINETUNING
from peft_shop.errors import AdapterError, QueryError, UnknownNameError
from peft_shop.serve.adapter import Adapter, adapter_of_method, adapter_of_run, read_adapter
from peft_shop.serve.cases import KINDS, Way
from peft_shop.serve.routes import Route, resolve_demand, resolve_engine, route, routes
from peft_shop.serve.traits import TRAITS
from peft_shop.upstream.configs import config_dict

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from peft_shop.ask.candidates import Candidate
    from peft_shop.catalog.catalog import Catalog

CATALOG = load_catalog()
ENGINES = [engine.id for engine in CATALOG.engines]
laws = settings(max_examples=60, deadline=None, derandomize=True)


def lora(**config: Any) -> Adapter:
    return Adapter("mine", "lora", (), config)


def of(method: str, **config: Any) -> Adapter:
    return Adapter("mine", method, (), config)


def way(found: Route, kind: str) -> Way:
    """The way of a kind; of conversions, peft's own."""
    (one,) = [one for one in found.ways if one.kind == kind and one.by in {None, "peft"}]
    return one


def ours(found: Route) -> Way:
    """The conversion by `peft-shop convert`."""
    (one,) = [one for one in found.ways if one.by == "peft-shop"]
    return one


def to(engine: str, adapter: Adapter) -> Route:
    return route(CATALOG, adapter, engine)


# --- golden rules ---


@pytest.mark.parametrize(
    ("engine", "adapter", "kind", "said"),
    [
        ("vllm", lora(r=16, lora_alpha=32), "native", ""),
        ("vllm", lora(r=17), "native", "Pass --max-lora-rank 32: the default is 16."),
        ("vllm", lora(r=64), "native", "Pass --max-lora-rank 64"),
        ("vllm", lora(r=300), "native", "Pass --max-lora-rank 320"),
        ("vllm", lora(r=8, rank_pattern={"q": 40}), "native", "Pass --max-lora-rank 64"),
        ("vllm", lora(r=600), "merge", "rank 600: --max-lora-rank takes at most 512"),
        ("vllm", lora(r=8, use_rslora=True), "native", ""),
        ("vllm", lora(r=8, use_dora=True), "merge", "dora: refused with an error"),
        ("vllm", lora(r=8, bias="all"), "merge", "bias: refused with an error"),
        ("vllm", lora(lora_bias=True), "merge", "The trained bias of B is dropped"),
        ("vllm", lora(init_lora_weights="gaussian"), "native", ""),
        ("vllm", lora(init_lora_weights="pissa_niter_16"), "convert", "twice the rank"),
        ("vllm", lora(init_lora_weights="lora_ga"), "convert", "wrongly without a word"),
        ("vllm", lora(init_lora_weights="loftq"), "merge", "loftq: refused with an error"),
        ("vllm", lora(kasa_config={"beta": 1}), "convert", "extra tensors: refused"),
        ("vllm", lora(velora_config={"groups": 1}), "convert", "rank=8"),
        ("vllm", lora(alora_invocation_tokens=[1, 2]), "none", "does not merge"),
        ("vllm", lora(arrow_config={"top_k": 3}), "none", "arrow: computed wrongly"),
        ("vllm", lora(modules_to_save=["classifier"]), "native", ""),
        ("vllm", lora(task_type="SEQ_CLS"), "native", ""),
        ("vllm", lora(modules_to_save=["norm"]), "merge", "saved modules: not supported"),
        ("vllm", lora(trainable_token_indices=[5]), "merge", "trainable tokens: refused"),
        ("vllm", lora(target_modules=["model.embed_tokens"]), "native", "keep its size"),
        ("vllm", of("loha", r=4), "convert", "rank=16"),
        ("vllm", of("loha", r=8), "convert", "Pass --max-lora-rank 64"),
        ("vllm", of("loha", r=32), "merge", "exact at rank 1024, which is more than"),
        ("vllm", of("vera"), "convert", "Pass --max-lora-rank 256"),
        ("vllm", of("gralora", r=8, gralora_k=4, hybrid_r=2), "convert", "rank=34"),
        ("vllm", of("miss", r=16, init_weights="bat"), "merge", "has full rank"),
        ("vllm", of("c3a"), "merge", "about 37 % of the update is lost at rank 64"),
        ("vllm", of("adalora", init_r=24), "convert", "--rank 24 --engine vllm"),
        ("vllm", of("adamss"), "convert", "No adapted layer may have a bias"),
        ("vllm", of("trainable_tokens", token_indices=[5, 9]), "merge", "not tied"),
        ("vllm", of("ia3"), "merge", "ia3: refused with an error"),
        ("vllm", of("prompt_tuning"), "none", "removed"),
        ("vllm", of("xlora"), "none", "without their gates"),
        ("vllm", of("lily"), "none", "lily: refused with an error"),
        ("sglang", lora(r=16, use_rslora=True), "native", "lora_alpha * sqrt(r) = 32"),
        ("sglang", lora(r=16), "native", "Pass --max-lora-rank 16"),
        ("sglang", lora(r=8, rank_pattern={"q": 4}), "convert", "rank=8"),
        ("sglang", of("adalora"), "convert", "A bare assertion fails"),
        ("llama.cpp", lora(r=16, lora_alpha=32, use_rslora=True), "native", "sqrt(r) = 128"),
        ("llama.cpp", lora(r=8, rank_pattern={"q": 4}), "native", "convert_lora_to_gguf.py"),
        ("llama.cpp", lora(alpha_pattern={"q": 4}), "convert", "One alpha for all layers"),
        (
            "llama.cpp",
            lora(r=8, rank_pattern={"q": 4}, use_rslora=True),
            "convert",
            "no single alpha is right",
        ),
        ("llama.cpp", lora(alora_invocation_tokens=[1]), "native", ""),
        ("llama.cpp", lora(init_lora_weights="olora"), "convert", "twice the rank"),
        ("tgi", lora(use_dora=True), "merge", "computed wrongly without a word"),
        ("tgi", lora(r=128), "native", ""),
        ("tgi", lora(r=256), "merge", "kernels are made for 1 to 128"),
        ("lorax", lora(r=4), "merge", "kernels are made for 8 to 128"),
        ("lorax", lora(use_dora=True), "merge", "Magnitudes are never read"),
        ("ollama", lora(r=16, use_rslora=True), "native", "sqrt(r) = 32"),
        ("ollama", lora(r=32, use_rslora=True), "convert", "45.2548 is none"),
        ("ollama", lora(r=8, lora_alpha=8.5), "convert", "8.5 is none"),
        ("openvino-genai", lora(r=16, lora_alpha=32), "native", "32 / 16 = 2"),
        ("openvino-genai", lora(r=16, lora_alpha=16), "native", ""),
        ("openvino-genai", lora(use_dora=True), "merge", "debug print"),
        ("tensorrt-llm", lora(r=128), "native", "Pass max_lora_rank 128: the default is 64."),
        ("tensorrt-llm", lora(use_dora=True), "native", "dense layers only"),
        ("mlx-lm", lora(r=8), "merge", "a format of its own"),
        ("mlx-lm", of("vera"), "merge", "a format of its own"),
        ("diffusers", lora(r=8, lora_alpha=16), "native", "transformer_lora_adapter_metadata"),
        ("diffusers", lora(r=8, lora_alpha=8), "native", "save_lora_weights"),
        ("diffusers", of("lokr"), "merge", "lycoris's names of keys"),
        ("comfyui", lora(r=8, lora_alpha=16), "native", "Set the strength"),
        ("a1111", lora(r=8), "merge", "kohya's names of keys"),
        ("onnxruntime-genai", lora(r=8), "native", "olive convert-adapters"),
        ("lmdeploy", lora(r=16, use_rslora=True), "native", "sqrt(r) = 32"),
        ("lmdeploy", lora(use_dora=True), "merge", "A bare assertion fails on the magnitudes"),
    ],
)
def test_what_was_read_decides(engine: str, adapter: Adapter, kind: str, said: str) -> None:
    found = to(engine, adapter)
    assert found.kind == kind
    assert said in found.model_dump_json()


def test_a_format_of_the_same_name_is_not_the_format_of_peft() -> None:
    """Whether OFT merges is for the probe to say, and no matter here."""
    native = way(to("comfyui", of("oft")), "native")
    assert native.works == "no"
    assert "peft saves oft_R" in native.reasons[0]
    renamed = way(to("comfyui", of("loha")), "native")
    assert renamed.works == "unknown"
    assert "lycoris's names of keys" in renamed.reasons[0]


def test_a_scale_that_is_not_read_comes_with_a_warning() -> None:
    for engine in ("sglang", "llama.cpp", "ollama", "lmdeploy", "openvino-genai"):
        native = way(to(engine, lora(r=16, use_rslora=True)), "native")
        assert any("rslora" in text for text in native.warnings), engine
        assert any("sqrt(r)" in text for text in native.conditions), engine
        plain = way(to(engine, lora(r=16, lora_alpha=16)), "native")
        assert plain.warnings == ()


def test_ten_methods_and_one_more_reach_no_language_model_server() -> None:
    """The ten of the facts, and SHADOW, whose merge raises an error."""
    none = {
        method.id
        for method in CATALOG.methods
        if to("vllm", adapter_of_method(method)).kind == "none"
    }
    assert none == {
        "adaption_prompt",
        "cartridge",
        "cpt",
        "lily",
        "multitask_prompt_tuning",
        "poly",
        "prefix_tuning",
        "prompt_tuning",
        "p_tuning",
        "xlora",
        "shadow",
    }


@pytest.mark.parametrize(
    "config",
    [
        {"use_dora": True},
        {"alora_invocation_tokens": [1]},
        {"arrow_config": {"top_k": 3}},
        {"use_bdlora": {"nblocks": 2}},
        {"lora_bias": True},
        {"bias": "lora_only"},
        {"target_modules": ["embed_tokens"]},
        {"trainable_token_indices": [1]},
        {"kasa_config": {"beta": 1}},
    ],
)
def test_what_peft_converts_wrongly_or_not_at_all_is_no_conversion(config: dict[str, Any]) -> None:
    for engine in ENGINES:
        found = [one for one in to(engine, lora(**config)).ways if one.by == "peft"]
        assert all(one.works == "no" for one in found), engine
    tiny = to("vllm", of("tinylora", target_modules=["embed_tokens"]))
    assert way(tiny, "convert").works == "no"


@pytest.mark.parametrize("start", ["pissa", "pissa_niter_4", "olora", "corda", "lora_ga"])
def test_a_changed_base_goes_by_the_untrained_adapter(start: str) -> None:
    one = way(to("vllm", lora(r=12, init_lora_weights=start)), "convert")
    assert (one.works, one.exact, one.rank) == ("yes", True, 24)
    assert any("path_initial_model_for_weight_conversion" in text for text in one.conditions)
    assert any("save_as_lora" in text for text in one.warnings)
    both = lora(init_lora_weights=start, use_rslora=True, rank_pattern={"q": 4})
    assert way(to("vllm", both), "convert").works == "no"


def test_merging_says_what_it_costs() -> None:
    one = way(to("vllm", of("adalora")), "merge")
    assert one.works == "yes"
    assert any("full copy" in text for text in one.warnings)
    assert any("4-bit" in text for text in one.warnings)


def test_another_kind_of_model_is_not_known_about() -> None:
    text = Adapter("mine", "lora", (), {"r": 8}, models="text")
    image = Adapter("mine", "lora", (), {"r": 8}, models="image")
    assert to("diffusers", text).kind == "unknown"
    assert to("vllm", image).kind == "unknown"
    assert to("diffusers", image).kind == to("vllm", text).kind == "native"
    assert {to("openvino-genai", one).kind for one in (text, image)} == {"native"}


def test_full_fine_tuning_is_a_whole_model() -> None:
    found = to("vllm", of(FULL_FINETUNING))
    assert found.kind == "merge"
    assert [one.kind for one in found.ways] == ["merge"]


def test_a_method_as_such_has_open_ranks() -> None:
    found = to("vllm", adapter_of_method(CATALOG.method_by_id["lora"]))
    assert found.kind == "native"
    assert "(one of 1, 8, 16, 32, 64, 128, 256, 320, 512; 16 by default)" in str(found.best)
    loha = to("vllm", adapter_of_method(CATALOG.method_by_id["loha"]))
    assert way(loha, "convert").rank is None
    assert "rank=r * r" in way(loha, "convert").conditions[0]


def test_names_of_engines() -> None:
    for text, engine in {
        "vLLM": "vllm",
        "llama-cpp": "llama.cpp",
        "LLaMA.cpp": "llama.cpp",
        "gguf": "llama.cpp",
        "TensorRT": "tensorrt-llm",
        "text-generation-inference": "tgi",
        "automatic1111": "a1111",
        "openvino": "openvino-genai",
    }.items():
        assert resolve_engine(CATALOG, text).id == engine
    assert resolve_demand(CATALOG, "vLLM : Native") == "vllm:native"
    with pytest.raises(UnknownNameError, match="did you mean 'vllm'"):
        resolve_engine(CATALOG, "vlm")
    with pytest.raises(UnknownNameError, match="did you mean 'native'"):
        resolve_demand(CATALOG, "vllm:nativ")
    for text in ("", ":native", "vllm:"):
        with pytest.raises(QueryError):
            resolve_demand(CATALOG, text)


def test_a_catalog_without_engines_says_so(alter: Callable[..., Catalog]) -> None:
    old = alter(CATALOG, engines=(), conversions=())
    with pytest.raises(UnknownNameError, match="knows no engines"):
        recommend(serve="vllm", catalog=old)


# --- laws of one route ---

CONFIGS = st.fixed_dictionaries(
    {},
    optional={
        "r": st.integers(1, 700),
        "lora_alpha": st.one_of(st.integers(1, 200), st.floats(0.25, 99)),
        "use_rslora": st.booleans(),
        "use_dora": st.booleans(),
        "lora_bias": st.booleans(),
        "use_qalora": st.booleans(),
        "bias": st.sampled_from(["none", "all", "lora_only"]),
        "init_lora_weights": st.sampled_from(
            [True, "gaussian", "pissa", "olora", "corda", "lora_ga", "loftq", "eva", "mica"]
        ),
        "rank_pattern": st.dictionaries(st.sampled_from("abc"), st.integers(1, 90), max_size=2),
        "alpha_pattern": st.dictionaries(st.sampled_from("abc"), st.integers(1, 90), max_size=2),
        "modules_to_save": st.lists(st.sampled_from(["score", "lm_head", "norm"]), max_size=2),
        "target_modules": st.lists(st.sampled_from(["q_proj", "lm_head"]), max_size=2),
        "alora_invocation_tokens": st.lists(st.integers(1, 9), max_size=1),
        "kasa_config": st.just({"beta": 1}),
        "layer_replication": st.just([[0, 4]]),
    },
)
METHODS = st.one_of(st.just("lora"), st.sampled_from([one.id for one in CATALOG.methods]))


@laws
@given(METHODS, CONFIGS, st.sampled_from(ENGINES))
def test_what_works_stands_first_and_everything_else_has_a_reason(
    method: str, config: dict[str, Any], engine: str
) -> None:
    found = to(engine, of(method, **config))
    order = [("yes", "unknown", "no").index(one.works) for one in found.ways]
    assert order == sorted(order)
    assert all((one.works == "yes") != bool(one.reasons) for one in found.ways)
    working = [one.kind for one in found.ways if one.works == "yes"]
    assert working == sorted(working, key=KINDS.index)
    assert found.kind == (working or [found.kind])[0]
    if not working:
        unsure = any(one.works == "unknown" for one in found.ways)
        assert found.kind == ("unknown" if unsure else "none")
    assert all(one.exact for one in found.ways if one.works == "yes")
    assert Route.model_validate_json(found.model_dump_json()) == found


@laws
@given(METHODS, CONFIGS, st.sampled_from(ENGINES), st.data())
def test_knowing_less_never_makes_more_work(
    method: str, config: dict[str, Any], engine: str, data: st.DataObject
) -> None:
    known = CATALOG.engine_by_id[engine]
    lost = data.draw(st.sets(st.sampled_from(sorted(known.facts)), max_size=4))
    less = known.model_copy(
        update={"facts": {key: fact for key, fact in known.facts.items() if key not in lost}}
    )
    others = tuple(less if one.id == engine else one for one in CATALOG.engines)
    adapter = of(method, **config)
    before = to(engine, adapter)
    after = route(CATALOG.model_copy(update={"engines": others}), adapter, engine)
    worked = {one.kind for one in before.ways if one.works == "yes"}
    for one in after.ways:
        if one.works == "yes" and one.kind != "convert":
            assert one.kind in worked
        # a conversion of LoRA is only looked at where LoRA itself does not do
        if one.works == "yes" and one.kind == "convert":
            assert one.kind in worked or "native" in worked


@laws
@given(CONFIGS, st.sampled_from(ENGINES))
def test_a_plain_lora_goes_wherever_a_special_one_goes_natively(
    config: dict[str, Any], engine: str
) -> None:
    special = to(engine, lora(**config))
    if way(special, "native").works == "yes":
        rank = max(lora(**config).ranks)
        plain = to(engine, lora(r=rank, lora_alpha=rank))
        assert way(plain, "native").works == "yes"


def test_a_route_depends_on_the_recipe_alone() -> None:
    for run in CATALOG.runs[::7]:
        if run.method == FULL_FINETUNING:
            continue
        other = run.model_copy(
            update={
                "metrics": {},
                "flags": (),
                "snapshots": (),
                "provenance": run.provenance.model_copy(update={"accelerator": "Abacus"}),
            }
        )
        mine, theirs = adapter_of_run(run), adapter_of_run(other)
        assert routes(CATALOG, mine) == routes(CATALOG, theirs)


# --- in a question ---


def kept(**options: Any) -> dict[str, Candidate]:
    answer = recommend(peft_version="any", include_flagged=True, floor=0, era="any", **options)
    groups = (answer.front, answer.ties, answer.dominated)
    return {one.name: one for group in groups for one in group}


@pytest.mark.parametrize("benchmark", ["metamathqa", "image_gen"])
@pytest.mark.parametrize("engine", ENGINES)
def test_nothing_is_recommended_that_does_not_reach_the_engine(benchmark: str, engine: str) -> None:
    found = kept(benchmark=benchmark, serve=engine)
    for one in found.values():
        assert one.routes[engine].kind in KINDS
        assert one.routes[engine] == one.route(engine)
    everyone = kept(benchmark=benchmark)
    left_out = set(everyone) - set(found)
    assert all(everyone[name].route(engine).kind in {"none", "unknown"} for name in left_out)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("vllm", "llama.cpp"),
        ("vllm:native", "ollama"),
        ("tgi:convert", "lorax"),
        ("sglang", "a1111"),
    ],
)
def test_a_list_is_all_of_these_and_any_of_is_one_of_these(first: str, second: str) -> None:
    one, other = set(kept(serve=first)), set(kept(serve=second))
    assert set(kept(serve=[first, second])) == one & other
    assert set(kept(serve=any_of(first, second))) == one | other
    assert one & other <= one


def test_a_kind_demands_more_than_an_engine() -> None:
    whole = kept(serve="vllm")
    parts = {kind: kept(serve=f"vllm:{kind}") for kind in KINDS}
    assert set().union(*parts.values()) == set(whole)
    assert {one.method for one in parts["native"].values()} == {"lora"}
    assert "adalora" in {one.method for one in parts["merge"].values()}


def test_a_dropped_one_names_the_rule() -> None:
    answer = recommend("metamathqa", serve=["vllm:native", "llama.cpp"], peft_version="any")
    assert answer.query.requirements == (
        Requirement(name="serve", values=("vllm:native", "llama.cpp")),
    )
    (dora,) = [one for one in answer.dropped if one.name == "lora/llama-3.2-3B-rank32-dora"]
    (failure,) = dora.failures
    assert failure.constraint == "serve"
    assert "vllm:native: native (no): dora: refused with an error" in failure.reason
    assert Recommendation.from_json(answer.to_json()) == answer
    assert "Pass --max-lora-rank" in str(answer)


def test_an_empty_answer_tells_what_to_give_up() -> None:
    answer = recommend("metamathqa", serve="vllm:native", methods="ia3", peft_version="any")
    assert not answer
    assert "another engine" in " ".join(one.suggestion for one in answer.relaxations)


def test_other_engines_can_be_asked_about_afterwards() -> None:
    best = recommend("metamathqa", peft_version="any").best
    assert best.routes == {}
    assert best.route("llama-cpp").engine == "llama.cpp"
    with pytest.raises(UnknownNameError):
        best.route("toaster")


# --- adapters ---


def test_an_adapter_in_a_folder_is_what_its_run_is(tmp_path: Path) -> None:
    for run in CATALOG.runs:
        if run.method == FULL_FINETUNING:
            continue
        config = {**run.recipe.resolved, **config_dict(run.recipe), "inference_mode": True}
        (tmp_path / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
        read, known = read_adapter(CATALOG, tmp_path), adapter_of_run(run)
        assert (read.method, read.traits, read.ranks) == (known.method, known.traits, known.ranks)
        # a setting of the trainer leaves no trace in the file
        assert set(read.variants) <= set(known.variants)


def test_what_peft_writes_out_in_full_counts_as_unset(tmp_path: Path) -> None:
    config = {
        "peft_type": "LORA",
        "r": 16,
        "lora_alpha": 16,
        "rank_pattern": {},
        "alpha_pattern": {},
        "alora_invocation_tokens": None,
        "arrow_config": None,
        "bias": "none",
        "init_lora_weights": True,
        "layer_replication": None,
        "lora_bias": False,
        "modules_to_save": None,
        "target_modules": ["q_proj"],
        "target_parameters": None,
        "trainable_token_indices": None,
        "use_bdlora": None,
        "use_dora": False,
        "use_qalora": False,
        "use_rslora": False,
    }
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps(config), encoding="utf-8")
    for place in (tmp_path, path):
        found = read_adapter(CATALOG, place)
        assert (found.traits, found.variants, found.name) == ((), (), tmp_path.name)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "not JSON"),
        ("[1]", "expected a JSON object, got list"),
        ("[" * 100_000, "nested deeper than 100"),
        ('{"peft_type": "LORA", "r": NaN}', "NaN is not a number"),
        ("{}", "peft_type: missing"),
        ('{"peft_type": "LOORA"}', "did you mean 'LORA'?"),
        ('{"peft_type": 3}', "knows no method 3"),
        ('{"peft_type": "LORA", "r": 0}', "r: expected a whole number of at least 1, got 0"),
        ('{"peft_type": "LORA", "r": "8"}', "got '8'"),
        ('{"peft_type": "LORA", "r": true}', "got True"),
        ('{"peft_type": "LORA", "lora_alpha": 1e999}', "is not a number"),
        ('{"peft_type": "LORA", "rank_pattern": {"q": -1}}', "rank_pattern"),
        ('{"peft_type": "LORA", "rank_pattern": [4]}', "rank_pattern"),
        ('{"peft_type": "LORA", "use_rslora": "yes"}', "use_rslora: expected true or false"),
        ('{"peft_type": "LORA", "modules_to_save": "head"}', "expected a list of names"),
        ('{"peft_type": "LORA", "target_modules": [1]}', "target_modules"),
    ],
)
def test_a_folder_that_holds_no_configuration(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "adapter_config.json").write_text(text, encoding="utf-8")
    with pytest.raises(AdapterError) as caught:
        read_adapter(CATALOG, tmp_path)
    assert said in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_every_mistake_of_a_configuration_is_told(tmp_path: Path) -> None:
    text = '{"peft_type": "X", "r": -1, "use_dora": 1}'
    (tmp_path / "adapter_config.json").write_text(text, encoding="utf-8")
    with pytest.raises(AdapterError) as caught:
        read_adapter(CATALOG, tmp_path)
    assert [one.where for one in caught.value.problems] == ["r", "use_dora", "peft_type"]


def test_a_folder_without_a_configuration(tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match=r"no such file.*with adapter_config\.json in it"):
        read_adapter(CATALOG, tmp_path / "absent")
    (tmp_path / "adapter_config.json").write_bytes(b" " * (8 * 2**20 + 1))
    with pytest.raises(AdapterError, match="too large"):
        read_adapter(CATALOG, tmp_path)


@laws
@given(
    st.dictionaries(
        st.sampled_from([*TRAITS, "r", "lora_alpha", "rank_pattern", "bias"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(max_size=3),
            lambda inner: (
                st.lists(inner, max_size=2)
                | st.dictionaries(st.text(max_size=2), inner, max_size=2)
            ),
            max_leaves=4,
        ),
    )
)
def test_whatever_a_recipe_states_has_an_answer(config: dict[str, Any]) -> None:
    """A vendored catalog's recipes are JSON; strange values must not end in a traceback."""
    for engine in ENGINES:
        assert to(engine, lora(**config)).ways


def test_a_variant_implies_its_settings() -> None:
    lora_method = CATALOG.method_by_id["lora"]
    expected = {
        "rslora": {"rslora"},
        "dora": {"dora", "scale"},
        "pissa": {"changed_base", "scale"},
        "loftq": {"loftq", "scale"},
        "eva": {"rank_pattern", "alpha_pattern", "scale"},
        "kasa": {"extra_tensors", "kasa", "scale"},
        "bdlora": {"bdlora", "scale"},
        "lora_fa": {"scale"},
    }
    for variant, traits in expected.items():
        assert set(adapter_of_method(lora_method, [variant]).traits) == traits

"""Hazards of engines as rules: what goes wrong in silence, and what a folder may hold."""

from __future__ import annotations

import json
import os
import struct
from typing import TYPE_CHECKING, Any

import pytest

from peft_shop import load_catalog, recommend
from peft_shop.errors import AdapterError
from peft_shop.model.structure import Dimensions, ModuleGroup, Structure
from peft_shop.serve.adapter import Adapter, read_adapter
from peft_shop.serve.bases import Base, base_of_structure
from peft_shop.serve.routes import Route, route
from peft_shop.serve.targets import targets_of
from peft_shop.show.routes import route_document, route_sentence, routes_document
from peft_shop.show.terminal import text as render

if TYPE_CHECKING:
    from pathlib import Path

    from peft_shop.serve.cases import Way

CATALOG = load_catalog()
LLAMA = Base(
    "meta-llama/Llama-3.1-8B", "LlamaForCausalLM", frozenset({"decoder"}), layers=4, by="name"
)


def to(engine: str, base: Base | None = LLAMA, **config: Any) -> Route:
    config = {"r": 16, "lora_alpha": 16, **config}
    return route(CATALOG, Adapter("mine", "lora", (), config, base=base), engine)


def native(found: Route) -> Way:
    (way,) = [way for way in found.ways if way.kind == "native"]
    return way


# --- hazards, in the order in which they were found ---


@pytest.mark.parametrize(
    ("targets", "works", "silent"),
    [
        (["q_proj", "v_proj"], "yes", False),
        (["q_proj", "k_proj", "v_proj", "o_proj"], "yes", False),
        (["o_proj", "down_proj"], "yes", False),
        (["qkv_proj"], "yes", False),
        ("all-linear", "yes", False),
        (["q_proj"], "no", False),  # a KeyError
        (["q_proj", "k_proj"], "no", False),
        (["v_proj"], "no", True),  # skipped with a warning: the base answers
        (["k_proj", "v_proj", "o_proj"], "no", True),
        (r".*\.v_proj", "no", True),
    ],
)
def test_sglang_joins_q_k_and_v(targets: Any, works: str, silent: bool) -> None:
    way = native(to("sglang", target_modules=targets))
    assert (way.works, way.silent) == (works, silent)
    if silent:
        assert "the base answers" in way.reasons[0]
        assert "--lora-strict-loading" in way.reasons[0]


@pytest.mark.parametrize("engine", ["tgi", "lorax"])
def test_a_type_of_module_is_lost_where_one_layer_lacks_it(engine: str) -> None:
    targets = ["q_proj", "v_proj"]
    whole = native(to(engine, target_modules=targets))
    assert whole.works == "yes"
    assert native(to(engine, target_modules=targets, layers_to_transform=[0, 1, 2, 3])) == whole
    for some in (
        {"layers_to_transform": [0, 1]},
        {"layers_to_transform": 2, "layers_pattern": "layers"},
        {"exclude_modules": r".*layers\.3\..*"},
        {"target_modules": ["model.layers.0.self_attn.q_proj", "v_proj"]},
    ):
        way = native(to(engine, **{"target_modules": targets, **some}))
        assert (way.works, way.silent) == ("no", True), some
        assert "loses that type everywhere" in way.reasons[0]


def test_lmdeploy_takes_a_pattern_letter_by_letter() -> None:
    way = native(to("lmdeploy", target_modules=r".*\.(q|v)_proj"))
    assert way.works == "yes"
    assert any("as a list" in text for text in way.conditions)
    assert any("letter by letter" in text for text in way.warnings)


def test_sglang_takes_no_pattern_whatever_its_own_flag_says() -> None:
    way = native(to("sglang", target_modules=r".*\.(q|v)_proj"))
    assert any("--lora-target-modules" in text for text in way.conditions)
    assert any("the adapter's own field is read first" in text for text in way.warnings)


@pytest.mark.parametrize(
    "config",
    [
        {"lora_alpha": 32},
        {"use_rslora": True},
        {"rank_pattern": {"a": 4}},
        {"alpha_pattern": {"a": 4}},
        {"init_lora_weights": "pissa"},
        {"init_lora_weights": "olora"},
        {"kasa_config": {"beta": 1}},
    ],
)
def test_diffusers_needs_the_metadata(config: dict[str, Any]) -> None:
    flux = Base(None, "FluxTransformer2DModel", frozenset({"diffusion_transformer"}), by="class")
    way = native(to("diffusers", flux, target_modules=["to_q"], **config))
    assert way.works == "yes"
    assert any("metadata" in text for text in way.conditions)
    plain = native(to("diffusers", flux, target_modules=["to_q"]))
    assert not any("metadata" in text for text in plain.conditions)


def test_adalora_loads_in_diffusers_and_the_base_answers() -> None:
    flux = Base(None, "FluxTransformer2DModel", frozenset({"diffusion_transformer"}), by="class")
    found = route(CATALOG, Adapter("mine", "adalora", (), {"init_r": 8}, base=flux), "diffusers")
    assert native(found).silent
    assert found.silent


def test_diffusers_leaves_saved_modules_in_the_base() -> None:
    unet = Base(None, "UNet2DConditionModel", frozenset({"unet"}), by="class")
    way = native(to("diffusers", unet, target_modules=["to_q"], modules_to_save=["conv_in"]))
    assert any("unload_lora" in text for text in way.warnings)


def test_ollama_takes_one_adapter_and_other_classes_through_llama_cpp() -> None:
    way = native(to("ollama", target_modules=["q_proj"]))
    assert any("one adapter only" in text for text in way.conditions)
    assert not any("does not know this class" in text for text in way.conditions)
    qwen = Base("Qwen/Qwen3-8B", "Qwen3ForCausalLM", frozenset({"decoder"}), by="name")
    other = native(to("ollama", qwen, target_modules=["q_proj"]))
    assert any("does not know this class" in text for text in other.conditions)


def test_llama_cpp_ignores_trained_norms() -> None:
    way = native(to("llama.cpp", target_modules=["q_proj"], modules_to_save=["norm"]))
    assert way.silent
    assert "ignored at run time" in way.reasons[0]


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_a_grown_vocabulary_needs_the_same_base(engine: str) -> None:
    base = Base(None, "LlamaForCausalLM", frozenset({"decoder"}), vocabulary=256, by="model")
    config = {"r": 8, "target_modules": ["embed_tokens", "q_proj", "v_proj"]}

    def on(rows: int | None) -> Way:
        adapter = Adapter("mine", "lora", (), config, base=base, rows=rows)
        return native(route(CATALOG, adapter, engine))

    same, grown = on(256), on(260)
    assert same.works == "yes"
    assert grown != same
    assert "rows" in str(grown) or grown.works == "no"


def test_what_goes_wrong_in_silence_is_read_first() -> None:
    adapter = Adapter("mine", "lora", (), {"r": 16, "target_modules": ["v_proj"]}, base=LLAMA)
    found = route(CATALOG, adapter, "sglang")
    page = render(route_document(CATALOG, adapter, found), width=100)
    ways = page[page.index("Ways") :]
    assert ways.index("something else answers without a word") < ways.index("merge (works")
    table = render(routes_document(adapter, [found]), width=100)
    assert "Not as it is" in table
    assert "LlamaForCausalLM" in table
    only = found.model_copy(update={"ways": tuple(w for w in found.ways if w.works == "no")})
    assert "silently wrong" in route_sentence(only)


def test_a_route_ends_with_a_command() -> None:
    adapter = Adapter(
        "mine", "lora", (), {"r": 20, "target_modules": ["q_proj", "v_proj"]}, base=LLAMA
    )
    page = render(route_document(CATALOG, adapter, route(CATALOG, adapter, "vllm")), width=200)
    assert (
        "vllm serve meta-llama/Llama-3.1-8B --enable-lora --lora-modules mine=ADAPTER "
        "--max-lora-rank 32" in page
    )


# --- in a question about a model ---


def model(architecture: str, roles: dict[str, str], **more: Any) -> Structure:
    groups = tuple(
        ModuleGroup(
            pattern=f"model.layers.*.self_attn.{name}",
            names=tuple(f"model.layers.{i}.self_attn.{name}" for i in range(2)),
            role=role,  # type: ignore[arg-type]  # a text that pydantic checks
            tower=more.get("tower", "text"),
            kind="linear",
            class_name="Linear",
            in_features=8,
            out_features=8,
            parameters=64,
            shape=(8, 8),
        )
        for name, role in roles.items()
    )
    return Structure(
        name=architecture,
        architecture=architecture,
        library="transformers",
        modality=more.get("modality", "text"),
        task_type=more.get("task", "CAUSAL_LM"),
        benchmark="metamathqa",
        benchmark_because="it is text",
        groups=groups,
        parameters=256,
        dimensions=Dimensions(layers=2, hidden_size=8, vocabulary=16),
    )


QKV = {"q_proj": "attention_query", "k_proj": "attention_key", "v_proj": "attention_value"}


def test_a_candidate_that_the_engine_does_not_serve_on_this_model_is_left_out() -> None:
    for architecture, kept in {"LlamaForCausalLM": True, "Olmo2ForCausalLM": False}.items():
        answer = recommend(
            "metamathqa",
            model=model(architecture, QKV),
            serve="vllm:native",
            methods="lora",
            peft_version="any",
        )
        assert bool(answer.front) is kept
        if not kept:
            reasons = [
                failure.reason
                for one in answer.dropped
                for failure in one.failures
                if failure.constraint == "serve"
            ]
            assert any("Olmo2ForCausalLM" in reason for reason in reasons)
        else:
            best = answer.front[0]
            assert "LlamaForCausalLM" in (best.route("vllm").base or "")
            assert best.route("sglang").base == best.route("vllm").base


def saved_for(modules: str, base: Base) -> Adapter:
    keys = tuple(
        f"base_model.model.{start}.{i}.self_attn.{name}.lora_{half}.weight"
        for start in modules.split()
        for i in range(2)
        for name in QKV
        for half in "AB"
    )
    config = {"r": 8, "lora_alpha": 8, "target_modules": list(QKV)}
    return Adapter("mine", "lora", (), config, base=base, tensors=keys)


def test_an_adapter_of_another_model_is_noticed() -> None:
    """One of a text model alone, given to the multimodal model that holds it."""
    structure = model("Qwen3VLForConditionalGeneration", QKV, modality="multimodal")
    base = base_of_structure(structure)
    mine = route(CATALOG, saved_for("model.layers", base), "vllm")
    assert native(mine).works == "yes"
    theirs = route(CATALOG, saved_for("language_model.layers", base), "vllm")
    assert native(theirs).silent
    assert "trained on another model" in native(theirs).reasons[0]
    assert all(way.works != "yes" for way in theirs.ways)
    for engine in ("sglang", "llama.cpp", "tgi"):
        assert (
            native(route(CATALOG, saved_for("language_model.layers", base), engine)).works != "yes"
        )


def test_a_tied_head_has_no_tensor_in_llama_cpp() -> None:
    config = {"r": 8, "lora_alpha": 8, "target_modules": ["lm_head"]}
    for tied, works in {True: "no", False: "yes", None: "yes"}.items():
        base = Base(None, "LlamaForCausalLM", frozenset({"decoder"}), tied=tied, by="model")
        way = native(route(CATALOG, Adapter("mine", "lora", (), config, base=base), "llama.cpp"))
        assert way.works == works
        assert any("--model" in text for text in way.conditions) is (tied is None)


def test_vllm_takes_a_classifier_for_its_decoder() -> None:
    for name, works in {
        "Qwen2ForSequenceClassification": "yes",
        "Qwen2ForTokenClassification": "yes",
        "GPT2ForSequenceClassification": "no",
        "NewForSequenceClassification": "unknown",
    }.items():
        base = Base(None, name, frozenset({"decoder"}), by="model")
        assert native(to("vllm", base, target_modules=["q_proj", "v_proj"])).works == works, name


def test_a_structure_tells_its_kinds() -> None:
    assert base_of_structure(model("LlamaForCausalLM", QKV)).kinds == {"decoder"}
    mixed = model("NewForCausalLM", QKV | {"gate": "expert_gate", "A": "mixer_state"})
    assert base_of_structure(mixed).kinds == {"decoder", "experts", "hybrid"}
    assert base_of_structure(model("New", QKV, modality="vision")).kinds == {"vision"}
    assert base_of_structure(model("New", QKV, modality="audio")).kinds == {"speech"}
    whisper = model("WhisperForConditionalGeneration", QKV, modality="multimodal")
    assert base_of_structure(whisper).kinds == {"speech"}
    sees = base_of_structure(model("New", QKV, modality="multimodal"))
    assert sees.kinds == {"decoder", "multimodal"}


# --- patterns are looked at, never run ---


@pytest.mark.parametrize(
    ("pattern", "names", "uneven"),
    [
        (r".*\.(q|v)_proj", {"q_proj", "v_proj"}, False),
        (r".*\.(?:q|v)_proj$", {"q_proj", "v_proj"}, False),
        (r"model\.layers\.\d+\.self_attn\.q_proj", {"q_proj"}, False),
        (r"model\.layers\.[\d]{1,}\.mlp\.down_proj", {"down_proj"}, False),
        (r"model\.layers\.(0|1|2)\.self_attn\.q_proj", {"q_proj"}, True),
        (r"model\.layers\.[0-9]\.self_attn\.q_proj", {"q_proj"}, True),
        (r"^(?!.*vision).*(?:q_proj|k_proj|v_proj)$", {"q_proj", "k_proj", "v_proj"}, False),
        (r"(a+)+$", None, False),
        ("([", None, False),
    ],
)
def test_what_a_pattern_can_hit(pattern: str, names: set[str] | None, uneven: bool) -> None:
    found = targets_of({"target_modules": pattern}, (), None)
    assert (found.names, found.uneven) == (names and frozenset(names), uneven)
    assert found.pattern


def test_a_pattern_that_leaves_the_tower_out_does_not_adapt_it() -> None:
    base = Base(
        None, "Qwen2_5_VLForConditionalGeneration", frozenset({"decoder", "multimodal"}), by="name"
    )
    without = native(to("vllm", base, target_modules=r"^(?!.*(?:visual|vision)).*\.(q|v)_proj$"))
    with_it = native(to("vllm", base, target_modules=r".*(?:visual|language_model).*\.q_proj"))
    assert not any("tower" in text for text in without.conditions)
    assert any("tower" in text for text in with_it.conditions)


@pytest.mark.parametrize(
    ("layers", "known", "uneven"),
    [
        ([0, 1], None, True),
        (list(range(32)), None, None),
        (list(range(32)), 32, False),
        (list(range(31)), 32, True),
        (list(range(1, 32)), None, True),
    ],
)
def test_layers_that_may_be_all(layers: list[int], known: int | None, uneven: bool | None) -> None:
    base = Base(layers=known)
    config = {"target_modules": ["q_proj"], "layers_to_transform": layers}
    assert targets_of(config, (), base).uneven is uneven


def test_what_a_stranger_wrote_is_shown_short_and_without_codes(tmp_path: Path) -> None:
    name = "\x1b[31m" + "x" * 5000
    folder = prepared(tmp_path, base_model_name_or_path=name, target_modules=[name])
    adapter = read_adapter(CATALOG, folder)
    for engine in ("vllm", "sglang", "lorax", "comfyui"):
        found = route(CATALOG, adapter, engine)
        shown = json.dumps(found.model_dump(mode="json"), ensure_ascii=False)
        assert "\x1b" not in shown
        assert "\\u001b" not in shown
        assert len(shown) < 20_000


# --- folders, read with bounds ---


def header(path: Path, document: Any, *, length: int | None = None) -> None:
    text = document if isinstance(document, bytes) else json.dumps(document).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text)


def prepared(tmp_path: Path, **config: Any) -> Path:
    document = {"peft_type": "LORA", "r": 8, "target_modules": ["q_proj"], **config}
    (tmp_path / "adapter_config.json").write_text(json.dumps(document), encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize(
    ("document", "length", "said"),
    [
        (b"{}", 10**15, "longer than the file"),
        (b"not json", None, "not a safetensors file"),
        ([], None, "no JSON object"),
        ({"a": 3}, None, "has no shape"),
        ({"a": {"shape": [-1]}}, None, "has no shape"),
        ({"a": {"shape": "no"}}, None, "has no shape"),
        (b"[" * 5000, None, "nested deeper"),
    ],
)
def test_tensors_that_are_none(
    tmp_path: Path, document: Any, length: int | None, said: str
) -> None:
    folder = prepared(tmp_path)
    header(folder / "adapter_model.safetensors", document, length=length)
    with pytest.raises(AdapterError, match=r"adapter_model\.safetensors") as caught:
        read_adapter(CATALOG, folder, weights=True)
    assert said in str(caught.value)
    assert read_adapter(CATALOG, folder).tensors == ()


def test_a_pointer_is_no_file(tmp_path: Path) -> None:
    folder = prepared(tmp_path)
    text = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    (folder / "adapter_model.safetensors").write_text(text, encoding="utf-8")
    with pytest.raises(AdapterError, match="Git LFS pointer"):
        read_adapter(CATALOG, folder, weights=True)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_a_pipe_is_not_waited_for(tmp_path: Path, name: str) -> None:
    folder = prepared(tmp_path)
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    with pytest.raises(AdapterError, match="a pipe"):
        read_adapter(CATALOG, folder, weights=True)


def test_a_key_that_stands_twice_is_a_mistake(tmp_path: Path) -> None:
    text = '{"peft_type": "LORA", "r": 8, "r": 16}'
    (tmp_path / "adapter_config.json").write_text(text, encoding="utf-8")
    with pytest.raises(AdapterError, match="the key 'r' stands twice"):
        read_adapter(CATALOG, tmp_path)


def test_a_long_value_is_not_shown_whole(tmp_path: Path) -> None:
    for value in ([1] * 100_000, "x" * 100_000, {str(i): i for i in range(10_000)}):
        with pytest.raises(AdapterError) as caught:
            read_adapter(CATALOG, prepared(tmp_path, r=value, task_type=value))
        assert len(str(caught.value)) < 2000
    many = [f"layers.{i}.q_proj" for i in range(50_000)]
    adapter = read_adapter(CATALOG, prepared(tmp_path, target_modules=many))
    assert len(route(CATALOG, adapter, "sglang").model_dump_json()) < 40_000


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("base_model_name_or_path", 3),
        ("task_type", ["CAUSAL_LM"]),
        ("auto_mapping", "UNet"),
        ("layers_to_transform", ["a"]),
        ("layers_pattern", 3),
        ("target_parameters", "experts"),
        ("exclude_modules", {"a": 1}),
    ],
)
def test_fields_that_tell_the_base_have_their_types(tmp_path: Path, field: str, value: Any) -> None:
    with pytest.raises(AdapterError, match=field):
        read_adapter(CATALOG, prepared(tmp_path, **{field: value}))


@pytest.mark.parametrize("kind", ["BONE", "bone"])
def test_bone_is_miss_by_now(tmp_path: Path, kind: str) -> None:
    with pytest.raises(AdapterError) as caught:
        read_adapter(CATALOG, prepared(tmp_path, peft_type=kind))
    assert "MiSS" in str(caught.value)
    assert "convert-bone-to-miss.py" in str(caught.value)
    assert "BOFT" not in str(caught.value)


def test_folders_of_other_tools_are_named(tmp_path: Path) -> None:
    (tmp_path / "pytorch_lora_weights.safetensors").write_bytes(b"")
    with pytest.raises(AdapterError, match="as diffusers saves it"):
        read_adapter(CATALOG, tmp_path)
    text = '{"fine_tune_type": "lora", "lora_parameters": {"rank": 8}}'
    (tmp_path / "adapter_config.json").write_text(text, encoding="utf-8")
    with pytest.raises(AdapterError, match="MLX LM"):
        read_adapter(CATALOG, tmp_path)

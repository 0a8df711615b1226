"""Routes look at the base: adapters as trainers save them, on bases of every kind."""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peft_shop import load_catalog
from peft_shop.catalog.engines import BASE_KINDS, CIRCUMSTANCES
from peft_shop.serve.adapter import Adapter, read_adapter
from peft_shop.serve.bases import UNKNOWN_BASE, Base, base_of_folder, kinds_of_class
from peft_shop.serve.circumstances import TESTS, applies
from peft_shop.serve.families import FAMILIES, family_of
from peft_shop.serve.routes import Route, route
from peft_shop.serve.targets import targets_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from peft_shop.serve.cases import Way

CATALOG = load_catalog()
ENGINES = [engine.id for engine in CATALOG.engines]
IMAGE = {"diffusers", "comfyui", "a1111"}
SERVERS = {"vllm", "sglang", "lmdeploy", "lorax", "tgi", "tensorrt-llm"}
LOCAL = {"llama.cpp", "ollama", "mlx-lm", "onnxruntime-genai", "openvino-genai"}
LANGUAGE = SERVERS | LOCAL
QV = ["q_proj", "v_proj"]
ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
LLAMA = "meta-llama/Llama-3.1-8B-Instruct"
laws = settings(max_examples=80, deadline=None, derandomize=True)


def keys_of(modules: Iterable[str], *, prefix: str = "base_model.model.") -> list[str]:
    """Names of the tensors of a LoRA on modules, as peft saves them."""
    return [f"{prefix}{name}.lora_{half}.weight" for name in modules for half in "AB"]


def write_header(path: Path, shapes: Mapping[str, list[int]]) -> None:
    """A safetensors file of zeros, of which nothing but the header is of interest."""
    header: dict[str, Any] = {}
    end = 0
    for name, shape in shapes.items():
        size = 1
        for length in shape:
            size *= length
        header[name] = {"dtype": "U8", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(end))


def write_folder(
    folder: Path,
    config: Mapping[str, Any],
    keys: Iterable[str] = (),
    *,
    shapes: Mapping[str, list[int]] | None = None,
    tokens: Mapping[str, int] | None = None,
) -> Path:
    """An adapter's folder, with a LoRA's fields where the configuration does not state them."""
    folder.mkdir(parents=True, exist_ok=True)
    usual = {"peft_type": "LORA", "r": 16, "lora_alpha": 16, "bias": "none"}
    document = {**usual, **config} if config.get("peft_type", "LORA") == "LORA" else dict(config)
    (folder / "adapter_config.json").write_text(json.dumps(document), encoding="utf-8")
    named = {name: [2, 2] for name in keys} | dict(shapes or {})
    if named:
        write_header(folder / "adapter_model.safetensors", named)
    if tokens is not None:
        (folder / "added_tokens.json").write_text(json.dumps(tokens), encoding="utf-8")
    return folder


def native(found: Route) -> Way:
    (way,) = [way for way in found.ways if way.kind == "native"]
    return way


def is_bare(way: Way) -> bool:
    """Native, exact, with nothing to be done and nothing to be careful of."""
    return way.works == "yes" and way.exact and not way.conditions and not way.warnings


class Folder(NamedTuple):
    """An adapter's folder, and which engines must not, need not and should load it.

    Attributes:
        config: its configuration.
        keys: names of its tensors.
        never: engines for which `native` must not work.
        careful: engines for which it must not work without a word.
        yes: engines for which it must work.
    """

    config: dict[str, Any]
    keys: tuple[str, ...] = ()
    never: frozenset[str] = frozenset()
    careful: frozenset[str] = frozenset()
    yes: frozenset[str] = frozenset()


def folder(
    targets: Any = None,
    base: str | None = None,
    task: str | None = None,
    wrapped: str | None = None,
    *,
    keys: list[str] | None = None,
    never: set[str] | None = None,
    careful: set[str] | None = None,
    yes: set[str] | None = None,
    **config: Any,
) -> Folder:
    library = "diffusers.models" if wrapped and "2D" in wrapped else "transformers.models"
    document = {
        "target_modules": targets,
        "base_model_name_or_path": base,
        "task_type": task,
        "auto_mapping": wrapped and {"base_model_class": wrapped, "parent_library": library},
        **config,
    }
    return Folder(
        {name: value for name, value in document.items() if value is not None},
        tuple(keys or ()),
        frozenset(never or ()),
        frozenset(careful or ()),
        frozenset(yes or ()),
    )


def layers(modules: str, count: int = 4, start: str = "model.layers") -> list[str]:
    return [f"{start}.{i}.{name}" for i in range(count) for name in modules.split()]


ATTENTION = "self_attn.q_proj self_attn.k_proj self_attn.v_proj self_attn.o_proj"
CAUSAL = "CAUSAL_LM"

FOLDERS: dict[str, Folder] = {
    # what is rightly native stays native
    "llama-qv": folder(QV, LLAMA, CAUSAL, yes=SERVERS | {"llama.cpp", "ollama"}, never=IMAGE),
    "llama-all": folder(
        ALL, LLAMA, CAUSAL, yes={"vllm", "sglang", "lorax", "lmdeploy"}, never=IMAGE
    ),
    "llama-all-linear": folder("all-linear", LLAMA, CAUSAL, yes={"vllm", "llama.cpp"}, never=IMAGE),
    "mistral": folder(QV, "mistralai/Mistral-7B-v0.3", CAUSAL, yes={"vllm", "sglang", "ollama"}),
    "qwen2.5": folder(ALL, "Qwen/Qwen2.5-7B-Instruct", CAUSAL, yes={"vllm", "sglang", "lorax"}),
    "qwen3-keys": folder(
        ALL, "Qwen/Qwen3-8B", CAUSAL, keys=keys_of(layers(ATTENTION)), yes={"vllm", "sglang"}
    ),
    "gemma2": folder(QV, "google/gemma-2-9b-it", CAUSAL, yes={"vllm", "sglang", "ollama"}),
    "phi3": folder(
        ["qkv_proj", "o_proj"], "microsoft/Phi-3-mini-4k-instruct", CAUSAL, yes={"vllm"}
    ),
    "unknown-decoder": folder(
        QV, "someone/my-model", CAUSAL, careful={"vllm", "lorax"}, never=IMAGE
    ),
    "sdxl-by-diffusers": folder(
        ["to_q", "to_k", "to_v", "to_out.0"],
        "stabilityai/stable-diffusion-xl-base-1.0",
        wrapped="UNet2DConditionModel",
        yes={"diffusers"},
        careful={"comfyui", "a1111"},
        never=LANGUAGE - {"openvino-genai"},
    ),
    # text models of other kinds
    "t5": folder(["q", "v"], "google/flan-t5-base", "SEQ_2_SEQ_LM", never=SERVERS | IMAGE | LOCAL),
    "mt5-local": folder(
        ["q", "v"], "./checkpoint", "SEQ_2_SEQ_LM", never=IMAGE | {"vllm", "sglang", "lmdeploy"}
    ),
    "bart": folder(["q_proj", "v_proj"], "facebook/bart-large-cnn", "SEQ_2_SEQ_LM", never=LANGUAGE),
    "t5-by-keys": folder(
        ["q"], keys=keys_of(["encoder.block.0.layer.0.SelfAttention.q"]), never=IMAGE | {"vllm"}
    ),
    "bert-classifier": folder(
        ["query", "value"],
        "google-bert/bert-base-uncased",
        "SEQ_CLS",
        never={"llama.cpp", "comfyui"},
    ),
    "deberta": folder(
        ["query_proj"], "microsoft/deberta-v3-base", "SEQ_CLS", never={"vllm", "comfyui"}
    ),
    "olmo2": folder(
        QV, "allenai/OLMo-2-1124-7B", CAUSAL, never=IMAGE | {"vllm", "lmdeploy", "lorax"}
    ),
    "smollm3": folder(QV, "HuggingFaceTB/SmolLM3-3B", CAUSAL, never=IMAGE | {"vllm", "lorax"}),
    "gpt2": folder(["c_attn"], "openai-community/gpt2", CAUSAL, never={"vllm", "sglang", "lorax"}),
    "bloom": folder(["query_key_value"], "bigscience/bloomz-7b1", CAUSAL, never={"vllm", "sglang"}),
    "pythia": folder(
        ["query_key_value"], "EleutherAI/pythia-1.4b", CAUSAL, never={"vllm", "sglang"}
    ),
    # other layers than attention and MLP
    "mamba": folder(
        ["in_proj", "x_proj", "dt_proj"],
        "state-spaces/mamba-2.8b-hf",
        CAUSAL,
        never=SERVERS | IMAGE,
    ),
    "gated-delta-net": folder(
        ["in_proj_qkv", "in_proj_z", "q_proj"], "Qwen/Qwen3.5-9B", CAUSAL, never=SERVERS | IMAGE
    ),
    "jamba": folder(["in_proj", "q_proj", "v_proj"], "ai21labs/Jamba-v0.1", CAUSAL, never={"vllm"}),
    "qwen3-moe-mlp": folder(
        ALL, "Qwen/Qwen3-30B-A3B", CAUSAL, never={"sglang", "lorax", "tgi", "lmdeploy", "llama.cpp"}
    ),
    "mixtral-experts": folder(
        ["w1", "w2", "w3"], "mistralai/Mixtral-8x7B-v0.1", CAUSAL, never={"lorax", "tgi", "sglang"}
    ),
    "gpt-oss-unpacked": folder(
        ["q_proj", "gate_up_projs.0", "down_projs.0"], "unsloth/gpt-oss-20b", CAUSAL, never=LANGUAGE
    ),
    "megatron": folder(
        ["linear_qkv", "linear_proj", "linear_fc1", "linear_fc2"], None, CAUSAL, never=LANGUAGE
    ),
    # what sees and hears
    "whisper": folder(
        QV,
        "openai/whisper-large-v3-turbo",
        wrapped="WhisperForConditionalGeneration",
        never=IMAGE | {"llama.cpp", "lmdeploy", "lorax", "tgi", "ollama"},
    ),
    "wav2vec2": folder(QV, "facebook/wav2vec2-base", never=IMAGE | {"lmdeploy", "llama.cpp"}),
    "vit": folder(["query", "value"], "google/vit-base-patch16-224", never=LANGUAGE | IMAGE),
    "vl-language": folder(
        QV,
        "Qwen/Qwen2.5-VL-7B-Instruct",
        CAUSAL,
        keys=keys_of(layers(ATTENTION, start="model.language_model.layers")),
        yes={"vllm", "sglang"},
        never=IMAGE | {"lmdeploy"},
    ),
    "vl-tower": folder(
        ["qkv"],
        "Qwen/Qwen2.5-VL-7B-Instruct",
        CAUSAL,
        keys=keys_of(["model.visual.blocks.0.attn.qkv"]),
        careful={"vllm"},
        never={"sglang", "llama.cpp", "lmdeploy"},
    ),
    "vl-pattern": folder(
        r"^model\.language_model(?=\.).*\.(q_proj|v_proj)$",
        "Qwen/Qwen2.5-VL-7B-Instruct",
        CAUSAL,
        careful={"sglang"},
        yes={"sglang"},
        never=IMAGE,
    ),
    # diffusion transformers
    "flux": folder(
        ["to_q", "to_k", "to_v"],
        "black-forest-labs/FLUX.1-dev",
        wrapped="FluxTransformer2DModel",
        yes={"diffusers"},
        careful={"comfyui"},
        never=LANGUAGE - {"openvino-genai"} | {"a1111"},
    ),
    "flux-scaled": folder(
        ["to_q"], "black-forest-labs/FLUX.1-dev", lora_alpha=32, careful={"diffusers", "comfyui"}
    ),
    "nothing-but-names": folder(QV, never={"comfyui", "a1111", "diffusers"}, careful={"vllm"}),
    "nothing-but-t5": folder(["q", "v"], never=IMAGE | {"vllm", "sglang", "lmdeploy"}),
    "nothing-but-mlp": folder(["gate_proj", "o_proj"], never=IMAGE, careful={"vllm", "sglang"}),
    "nothing-but-encoder": folder(["query", "value"], never={"comfyui", "a1111", "diffusers"}),
    "text-encoder": folder(["q_proj", "v_proj"], wrapped="CLIPTextModel", never=IMAGE | {"vllm"}),
    "code-llama": folder(QV, "codellama/CodeLlama-7b-hf", CAUSAL, yes={"vllm", "sglang"}),
    "diffusion-unnamed": folder(["to_q", "to_v"], careful={"comfyui"}, never=SERVERS),
    # shapes of targets
    "v-only": folder(["v_proj"], LLAMA, CAUSAL, never={"sglang"}, yes={"vllm", "lorax"}),
    "q-only": folder(["q_proj"], LLAMA, CAUSAL, never={"sglang"}, yes={"vllm"}),
    "qk": folder(["q_proj", "k_proj"], LLAMA, CAUSAL, never={"sglang"}, yes={"vllm"}),
    "some-layers": folder(
        QV, LLAMA, CAUSAL, layers_to_transform=[0, 1, 2], never={"tgi", "lorax"}, yes={"vllm"}
    ),
    "some-layers-by-keys": folder(
        QV,
        LLAMA,
        CAUSAL,
        keys=keys_of(layers("self_attn.q_proj self_attn.v_proj")[:-1]),
        never={"tgi", "lorax"},
        yes={"vllm"},
    ),
    "layer-pattern": folder(
        r".*layers\.(1|2)\.self_attn\.(q|v)_proj", LLAMA, CAUSAL, never={"tgi", "lorax"}
    ),
    "plain-pattern": folder(
        r".*\.self_attn\.(q|v)_proj", LLAMA, CAUSAL, careful={"sglang", "lmdeploy"}, yes={"vllm"}
    ),
    "keys-with-a-name": folder(
        QV,
        LLAMA,
        CAUSAL,
        keys=[key.replace(".weight", ".default.weight") for key in keys_of(layers(ATTENTION))],
        careful={"vllm", "tgi", "lorax", "llama.cpp"},
        never={"sglang", "openvino-genai"},
    ),
    "keys-without-prefix": folder(
        QV,
        LLAMA,
        CAUSAL,
        keys=keys_of(layers(ATTENTION), prefix=""),
        never=SERVERS - {"tensorrt-llm"},
    ),
}
"""Adapters of several trainers, on bases of every kind."""


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_is_native_where_it_should_be_and_nowhere_else(tmp_path: Path, name: str) -> None:
    case = FOLDERS[name]
    adapter = read_adapter(
        CATALOG, write_folder(tmp_path / "a", case.config, case.keys), weights=True
    )
    ways = {engine: native(route(CATALOG, adapter, engine)) for engine in ENGINES}
    assert not {one for one in case.never if ways[one].works == "yes"}, "native works"
    assert not {one for one in case.careful if is_bare(ways[one])}, "native, nothing to be done"
    assert not {one for one in case.yes if ways[one].works != "yes"}, "not native"


def test_no_language_model_s_adapter_is_bare_native_for_engines_of_images() -> None:
    """The complaint that this is about: 31 of 33 were."""
    for case in FOLDERS.values():
        known = targets_of(case.config, case.keys, None)
        base = base_of_folder(case.config, [*known.places, *(known.names or ())])
        if not base.kinds or base.kinds & {"unet", "diffusion_transformer"}:
            continue
        adapter = Adapter("mine", "lora", (), case.config, base=base, tensors=case.keys)
        for engine in IMAGE:
            assert native(route(CATALOG, adapter, engine)).works != "yes"


# --- laws ---

BASES = st.one_of(
    st.none(),
    st.just(UNKNOWN_BASE),
    st.builds(
        Base,
        architecture=st.sampled_from(
            [None, "LlamaForCausalLM", "GPT2LMHeadModel", "Olmo2ForCausalLM"]
        ),
        kinds=st.sets(st.sampled_from(sorted(BASE_KINDS)), min_size=1, max_size=3).map(frozenset),
        layers=st.sampled_from([None, 4]),
        by=st.sampled_from(["model", "class", "modules", "name", "task"]),
    ),
)
CONFIGS = st.fixed_dictionaries(
    {"r": st.just(16), "lora_alpha": st.just(16)},
    optional={
        "target_modules": st.one_of(
            st.lists(
                st.sampled_from([*ALL, "to_q", "c_attn", "linear_qkv", "in_proj_z", "lm_head"]),
                min_size=1,
                unique=True,
            ),
            st.sampled_from(["all-linear", r".*\.(q|v)_proj", r"layers\.1\.q_proj", "(["]),
        ),
        "layers_to_transform": st.lists(st.integers(0, 3), min_size=1, unique=True),
        "use_rslora": st.booleans(),
        "use_dora": st.booleans(),
    },
)
KEYS = st.sampled_from(
    [
        (),
        tuple(keys_of(layers(ATTENTION))),
        tuple(keys_of(layers("self_attn.v_proj"))),
        tuple(keys_of(layers(ATTENTION), prefix="")),
        tuple(keys_of(["model.visual.blocks.0.attn.qkv"])),
        tuple(keys_of(["model.layers.0.mlp.experts.0.w1", "model.layers.1.mlp.experts.0.w1"])),
    ]
)


@laws
@given(BASES, CONFIGS, KEYS, st.sampled_from(ENGINES))
def test_what_works_and_is_exact_no_rule_of_the_engine_speaks_against(
    base: Base | None, config: dict[str, Any], keys: tuple[str, ...], engine: str
) -> None:
    """Neither a rule, nor the kind of base, nor its class, unless something is to be done first."""
    adapter = Adapter("mine", "lora", (), config, base=base, tensors=keys)
    target = CATALOG.engine_by_id[engine]
    kinds = base.kinds if base is not None else frozenset()
    group = target.of_class(base.architecture) if base and base.architecture else None
    for way in route(CATALOG, adapter, engine).ways:
        if way.works != "yes" or not way.exact:
            assert way.reasons or not way.exact
            continue
        if way.kind == "merge":
            assert "no" not in {target.kinds[kind].value for kind in kinds}
            assert group is None or group.value != "no"
            continue
        loaded = (
            adapter
            if way.kind == "native"
            else adapter.converted(way.rank, renamed=way.by == "peft-shop")
        )
        for rule in target.rules:
            if applies(rule, loaded):
                assert rule.needs in way.conditions, rule.when
                assert any(rule.note in text for text in way.warnings)
        assert group is None or group.value == "yes"
        if group is None:  # a class is known better than its kinds
            assert {target.kinds[kind].value for kind in kinds} <= {"yes"}


@laws
@given(BASES, CONFIGS, KEYS, st.sampled_from(ENGINES))
def test_a_silent_way_does_not_work_and_is_read_first(
    base: Base | None, config: dict[str, Any], keys: tuple[str, ...], engine: str
) -> None:
    found = route(CATALOG, Adapter("mine", "lora", (), config, base=base, tensors=keys), engine)
    for way in found.ways:
        assert not way.silent or way.works == "no"
    if found.silent and found.best is None:
        assert "silently wrong" in found.obstacles().split(";")[0]
    assert Route.model_validate_json(found.model_dump_json()) == found


@laws
@given(CONFIGS, KEYS, st.sampled_from(ENGINES))
def test_knowing_the_base_less_well_gives_no_bare_yes(
    config: dict[str, Any], keys: tuple[str, ...], engine: str
) -> None:
    """A folder that tells nothing of its base has a condition wherever it is native."""
    adapter = Adapter("mine", "lora", (), config, base=UNKNOWN_BASE, tensors=keys)
    assert not is_bare(native(route(CATALOG, adapter, engine)))


def test_every_circumstance_has_one_test_and_is_used() -> None:
    assert set(TESTS) == set(CIRCUMSTANCES)
    assert {rule.when for engine in CATALOG.engines for rule in engine.rules} == set(CIRCUMSTANCES)


# --- what tells the base ---


@pytest.mark.parametrize(
    ("name", "architecture", "kinds"),
    [
        ("meta-llama/Llama-3.1-8B", "LlamaForCausalLM", {"decoder"}),
        (
            "meta-llama/Llama-3.2-11B-Vision",
            "MllamaForConditionalGeneration",
            {"decoder", "multimodal"},
        ),
        ("unsloth/Meta-Llama-3.1-8B-bnb-4bit", "LlamaForCausalLM", {"decoder"}),
        ("deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", "Qwen2ForCausalLM", {"decoder"}),
        ("deepseek-ai/DeepSeek-R1", "DeepseekV3ForCausalLM", {"decoder", "experts"}),
        ("Qwen/Qwen3-30B-A3B", "Qwen3MoeForCausalLM", {"decoder", "experts"}),
        (
            "Qwen/Qwen3-Next-80B-A3B-Instruct",
            "Qwen3NextForCausalLM",
            {"decoder", "hybrid", "experts"},
        ),
        ("google/gemma-3-1b-it", "Gemma3ForCausalLM", {"decoder"}),
        ("google/gemma-3-27b-it", "Gemma3ForConditionalGeneration", {"decoder", "multimodal"}),
        ("google/gemma-2b", "GemmaForCausalLM", {"decoder"}),
        ("google/gemma-2-2b-it", "Gemma2ForCausalLM", {"decoder"}),
        ("tiiuae/Falcon3-7B-Base", "LlamaForCausalLM", {"decoder"}),
        ("tiiuae/falcon-7b", "FalconForCausalLM", {"decoder"}),
        ("google/t5gemma-2b", "T5GemmaForConditionalGeneration", {"encoder_decoder"}),
        ("allenai/OLMo-2-1124-7B", "Olmo2ForCausalLM", {"decoder"}),
        ("state-spaces/mamba-130m-hf", "MambaForCausalLM", {"decoder", "hybrid"}),
        ("google/flan-t5-base", None, {"encoder_decoder"}),
        ("openai/whisper-small", "WhisperForConditionalGeneration", {"speech"}),
        ("FacebookAI/xlm-roberta-base", None, {"encoder"}),
        ("distilbert/distilbert-base-uncased", None, {"encoder"}),
        (
            "stabilityai/stable-diffusion-3-medium",
            "SD3Transformer2DModel",
            {"diffusion_transformer"},
        ),
        ("black-forest-labs/FLUX.2-dev", "Flux2Transformer2DModel", {"diffusion_transformer"}),
        ("runwayml/stable-diffusion-v1-5", "UNet2DConditionModel", {"unet"}),
        ("facebook/dinov2-base", None, {"vision"}),
    ],
)
def test_a_name_points_to_a_family(name: str, architecture: str | None, kinds: set[str]) -> None:
    family = family_of(name)
    assert family is not None
    assert (family.architecture, set(family.kinds)) == (architecture, kinds)


@pytest.mark.parametrize("name", ["someone/my-model", "./out/checkpoint-500", "", "a" * 5000])
def test_a_name_that_says_nothing_points_nowhere(name: str) -> None:
    assert family_of(name) is None


def test_classes_that_families_name_are_of_their_kinds() -> None:
    for family in FAMILIES:
        if family.architecture is not None:
            by_class = kinds_of_class(family.architecture)
            assert not by_class or by_class & set(family.kinds), family


def test_the_class_that_was_wrapped_outweighs_name_and_task() -> None:
    config = {
        "auto_mapping": {"base_model_class": "UNet2DConditionModel", "parent_library": "diffusers"},
        "base_model_name_or_path": LLAMA,
        "task_type": CAUSAL,
    }
    found = base_of_folder(config, ())
    assert (found.kinds, found.by) == (frozenset({"unet"}), "class")


def test_names_of_tensors_outweigh_the_name_of_the_base() -> None:
    modules = ["base_model.model.encoder.block.*.layer.*.SelfAttention.q"]
    found = base_of_folder({"base_model_name_or_path": LLAMA}, modules)
    assert (found.kinds, found.by) == (frozenset({"encoder_decoder"}), "modules")


def test_weaker_evidence_adds_what_a_decoder_is_besides() -> None:
    found = base_of_folder(
        {"base_model_name_or_path": "Qwen/Qwen3-30B-A3B", "task_type": CAUSAL}, ()
    )
    assert found.kinds == {"decoder", "experts"}
    assert found.architecture == "Qwen3MoeForCausalLM"

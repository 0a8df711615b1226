"""A script is exactly its setup, and every setup with the same result has the same gradient."""

from __future__ import annotations

import ast
import itertools
import json
import math
import re
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from peft_shop import recommend
from peft_shop.catalog.runs import Run
from peft_shop.catalog.store import load
from peft_shop.errors import ConfigError
from peft_shop.forecast.records import Interval, Settings, Setup
from peft_shop.model.structure import StoredQuantization
from peft_shop.scripts.script import snippet

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Runner = Callable[[str, list[dict[str, Any]]], dict[str, Any]]

CATALOG = load()
SUPERVISED = {one.id for one in CATALOG.benchmarks if one.procedure == "supervised"}
RUNS = {
    run.experiment: run
    for run in CATALOG.runs
    if run.recipe.peft_type is not None and run.benchmark in SUPERVISED
}
LORA = RUNS["lora/llama-3.2-3B-rank32"]
FLUX = RUNS["lora/flux2-klein-default"]
TYPES = {method.peft_type: method for method in CATALOG.methods}
UNEVEN = [
    {"query": " ".join(["what is 1 + 2"] * n), "response": "the sum is 2 " * (7 - n)}
    for n in (1, 6, 2, 5, 3)
]
"""Five texts of 20 to 40 tokens: a step of four, and one of what is left of the epoch."""


def script(run: Run, setup: Setup | Settings | None = None, **more: Any) -> str:
    return snippet(run, CATALOG.benchmark_by_id[run.benchmark], setup=setup, **more)


def changed(run: Run, config: dict[str, Any] | None = None, **training: Any) -> Run:
    """`run` with another configuration or other settings, validated anew."""
    document = run.model_dump()
    document["recipe"]["config"] = run.recipe.config if config is None else config
    document["recipe"]["training"] |= training
    return Run.model_validate(document)


def plan(settings: Settings, **changes: Any) -> Setup:
    """A setup around `settings`."""
    peak = Interval(low=7.4 * 2**30, value=8.6 * 2**30, high=9.8 * 2**30, basis="a test")
    document: dict[str, Any] = {
        "settings": settings,
        "class": "slight" if settings.quantization else "same",
        "effective_batch": settings.batch_size * settings.accumulation,
        "time_factor": 1.31,
        "fits": "yes",
        "peak": peak,
    }
    return Setup.model_validate(document | changes)


# --- a script states its setup ---


class Stated:
    """What a script says, read from its source."""

    def __init__(self, source: str) -> None:
        nodes = list(ast.walk(ast.parse(source)))
        self.calls = {ast.unparse(node.func): node for node in nodes if isinstance(node, ast.Call)}
        self.constants = {
            ast.unparse(node.targets[0]): node.value.value
            for node in ast.parse(source).body
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        }
        self.imported = {
            alias.name: node.module
            for node in nodes
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        }
        self.header = " ".join(str(ast.get_docstring(ast.parse(source))).split())

    def arguments(self, name: str) -> dict[str, str]:
        """Keyword arguments of a call, as source."""
        return {str(one.arg): ast.unparse(one.value) for one in self.calls[name].keywords}


TEXT_SETTINGS = st.builds(
    Settings,
    batch_size=st.integers(1, 16),
    accumulation=st.integers(1, 16),
    sequence_length=st.integers(1, 8192),
    dtype=st.sampled_from(["bfloat16", "float16", "float32"]),
    quantization=st.sampled_from([None, "bnb_4bit", "bnb_8bit"]),
    double_quantization=st.booleans(),
    prepare_kbit=st.booleans(),
    optimizer=st.sampled_from(["adamw", "adamw_8bit", "sgd", "adafactor"]),
    gradient_checkpointing=st.booleans(),
    attention=st.sampled_from(["sdpa", "eager", "flash"]),
    fused_loss=st.booleans(),
    autocast_adapter_dtype=st.booleans(),
)
OPTIMIZERS = {
    "adamw": "torch.optim.AdamW",
    "adamw_8bit": "AdamW8bit",
    "sgd": "torch.optim.SGD",
    "adafactor": "torch.optim.Adafactor",
}


@given(TEXT_SETTINGS)
@examples(max_examples=60)
def test_a_script_is_exactly_its_setup(settings: Settings) -> None:
    source = script(LORA, plan(settings), device="RTX 4090")
    stated = Stated(source)
    check_step(stated, settings)
    made = {name for name in OPTIMIZERS.values() if name in stated.calls}
    assert made == {OPTIMIZERS[settings.optimizer]}
    autocast = stated.arguments("get_peft_model")["autocast_adapter_dtype"]
    assert autocast == str(settings.autocast_adapter_dtype)
    assert "setup for RTX 4090: " in stated.header
    assert "measured with: batch 4, 768 tokens" in stated.header
    assert "8.60 GiB (7.40 GiB to 9.80 GiB), fits surely" in stated.header


def check_step(stated: Stated, settings: Settings) -> None:
    """Sizes, loading, kernel, checkpointing, loss and scaling are those of the settings."""
    sizes = ("BATCH_SIZE", "ACCUMULATION", "MAX_LENGTH")
    assert [stated.constants[name] for name in sizes] == [
        settings.batch_size,
        settings.accumulation,
        settings.sequence_length,
    ]
    check_loading(stated, settings, "AutoModelForCausalLM.from_pretrained", "transformers")
    attention = {"sdpa": None, "eager": "'eager'", "flash": "'flash_attention_2'"}
    loading = stated.arguments("AutoModelForCausalLM.from_pretrained")
    assert loading.get("attn_implementation") == attention[settings.attention]
    assert ("model.gradient_checkpointing_enable" in stated.calls) == (
        "model.enable_input_require_grads" in stated.calls
    )
    if settings.gradient_checkpointing:
        options = stated.arguments("model.gradient_checkpointing_enable")
        assert options == {"gradient_checkpointing_kwargs": "{'use_reentrant': False}"}
    else:
        assert "model.gradient_checkpointing_enable" not in stated.calls
    assert ("chunked_loss" in stated.calls) == settings.fused_loss
    assert ("checkpoint" in stated.calls) == settings.fused_loss
    assert ("torch.amp.GradScaler" in stated.calls) == (settings.dtype == "float16")


def check_loading(stated: Stated, settings: Settings, name: str, library: str) -> None:
    loading = stated.arguments(name)
    assert loading["dtype"] == f"torch.{settings.dtype}"
    if settings.quantization is None:
        assert not {"quantization_config", "device_map"} & set(loading)
        assert "prepare_model_for_kbit_training" not in stated.calls
        assert any(called.endswith(".to") for called in stated.calls if library == "transformers")
        return
    assert loading["device_map"] == "{'': device}"
    assert f"{name}(MODEL_ID).to" not in stated.calls
    assert stated.imported["BitsAndBytesConfig"] == library
    bits = stated.arguments("BitsAndBytesConfig")
    if settings.quantization == "bnb_8bit":
        assert bits == {"load_in_8bit": "True"}
    else:
        assert bits == {
            "load_in_4bit": "True",
            "bnb_4bit_quant_type": "'nf4'",
            "bnb_4bit_use_double_quant": str(settings.double_quantization),
            "bnb_4bit_compute_dtype": f"torch.{settings.dtype}",
        }
    assert ("prepare_model_for_kbit_training" in stated.calls) == settings.prepare_kbit
    if settings.prepare_kbit:
        options = stated.arguments("prepare_model_for_kbit_training")
        assert options == {"use_gradient_checkpointing": "False"}


def shape(name: str, widths: tuple[int, int, int, int, int], **more: Any) -> dict[str, Any]:
    """Configuration of a model: hidden, inner, layers, heads, vocabulary."""
    hidden, inner, layers, heads, vocabulary = widths
    return {
        "model_type": name,
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": 8,
        "vocab_size": vocabulary,
        "max_position_embeddings": 40960,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        **more,
    }


QWEN3_8B = shape("qwen3", (4096, 12288, 36, 32, 151936), head_dim=128)
LLAMA_8B = shape("llama", (4096, 14336, 32, 32, 128256))
MISTRAL_7B = shape("mistral", (4096, 14336, 32, 32, 32000))
GEMMA_12B = shape(
    "gemma3_text", (3840, 15360, 48, 16, 262208), head_dim=256, tie_word_embeddings=True
)
QWEN2_32B = shape("qwen2", (5120, 27648, 64, 40, 152064))


@pytest.mark.parametrize(
    ("model", "device", "training"),
    [
        (QWEN3_8B, "RTX 4090", {}),
        (QWEN3_8B, "T4", {}),
        pytest.param(QWEN3_8B, "A100-40GB", {}, marks=pytest.mark.slow),
        pytest.param(
            QWEN3_8B,
            "RTX 3060",
            {"sequence_length": 2048, "effective_batch": 16},
            marks=pytest.mark.slow,
        ),
        (LLAMA_8B, "RTX 4090", {}),
        pytest.param(MISTRAL_7B, "T4", {}, marks=pytest.mark.slow),
        pytest.param(GEMMA_12B, "RTX 4090", {}, marks=pytest.mark.slow),
        pytest.param(QWEN2_32B, "RTX 4090", {}, marks=pytest.mark.slow),
        (QWEN2_32B, "A100-40GB", {}),
    ],
    ids=lambda value: value.get("model_type", "") if isinstance(value, dict) else value,
)
def test_the_script_of_every_candidate_is_its_plan(
    model: dict[str, Any], device: str, training: dict[str, int], tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(model), encoding="utf-8")
    answer = recommend(model=str(tmp_path), device=device, training=training or None)
    planned = [
        candidate
        for candidate in answer.candidates
        if candidate.setup is not None and candidate.run.recipe.peft_type is not None
    ]
    assert len(planned) > 15
    for candidate in planned:
        assert candidate.setup is not None
        settings = candidate.setup.settings
        stated = Stated(candidate.snippet)
        check_step(stated, settings)
        assert settings.batch_size * settings.accumulation == candidate.setup.effective_batch
        assert f"setup for {device}: " in stated.header
        plain = candidate.run.recipe.training.optimizer == "AdamW"
        assert ("AdamW8bit" in stated.calls) == (plain and settings.optimizer == "adamw_8bit")


@given(
    st.builds(
        Settings,
        batch_size=st.integers(1, 4),
        accumulation=st.integers(1, 4),
        image_size=st.sampled_from([256, 512, 1024]),
        sequence_length=st.sampled_from([77, 512]),
        dtype=st.sampled_from(["bfloat16", "float16", "float32"]),
        quantization=st.sampled_from([None, "bnb_4bit", "bnb_8bit"]),
        double_quantization=st.booleans(),
        prepare_kbit=st.booleans(),
        optimizer=st.sampled_from(["adamw", "adamw_8bit"]),
        gradient_checkpointing=st.booleans(),
    )
)
@examples(max_examples=40)
def test_a_script_for_images_is_exactly_its_setup(settings: Settings) -> None:
    stated = Stated(script(FLUX, plan(settings)))
    sizes = ("BATCH_SIZE", "ACCUMULATION", "RESOLUTION")
    assert [stated.constants[name] for name in sizes] == [
        settings.batch_size,
        settings.accumulation,
        settings.image_size,
    ]
    prompt = stated.arguments("pipeline.encode_prompt")
    assert prompt["max_sequence_length"] == str(settings.sequence_length)
    if settings.quantization is None:
        assert stated.arguments("Flux2KleinPipeline.from_pretrained") == {
            "dtype": f"torch.{settings.dtype}"
        }
    else:
        assert stated.arguments("Flux2KleinPipeline.from_pretrained")["transformer"] == "None"
        check_loading(stated, settings, "Flux2Transformer2DModel.from_pretrained", "diffusers")
    checkpointed = "base.enable_gradient_checkpointing" in stated.calls
    assert checkpointed == settings.gradient_checkpointing
    made = {name for name in OPTIMIZERS.values() if name in stated.calls}
    assert made == {OPTIMIZERS[settings.optimizer]}
    assert ("torch.amp.GradScaler" in stated.calls) == (settings.dtype == "float16")


def test_of_bare_settings_only_what_was_stated_counts() -> None:
    stated = Stated(script(LORA, Settings(quantization="bnb_4bit")))
    assert stated.constants["BATCH_SIZE"] == 4
    assert stated.constants["MAX_LENGTH"] == 768
    assert "prepare_model_for_kbit_training" in stated.calls
    assert "attn_implementation" not in stated.arguments("AutoModelForCausalLM.from_pretrained")
    assert "scores were measured on a base in bfloat16" in stated.header
    assert "accelerate bitsandbytes" in stated.header


@pytest.mark.parametrize(
    ("settings", "sizes"),
    [
        ({"batch_size": 1}, (1, 4)),
        ({"batch_size": 8}, (8, 1)),
        ({"batch_size": 3}, (3, 2)),
        ({"accumulation": 2}, (2, 2)),
        ({"accumulation": 3}, (2, 3)),
        ({"batch_size": 2, "accumulation": 1}, (2, 1)),
    ],
)
def test_one_stated_size_makes_up_at_least_the_measured_batch(
    settings: dict[str, int], sizes: tuple[int, int]
) -> None:
    constants = Stated(script(LORA, Settings.model_validate(settings))).constants
    assert (constants["BATCH_SIZE"], constants["ACCUMULATION"]) == sizes


def test_a_script_does_by_itself_what_a_plan_shares_among_devices() -> None:
    shared = plan(Settings(batch_size=2, accumulation=2), effective_batch=8)
    stated = Stated(script(LORA, shared, device="2xA100-80GB"))
    assert (stated.constants["BATCH_SIZE"], stated.constants["ACCUMULATION"]) == (2, 4)
    assert "the plan shares 8 among devices; this script trains on one" in stated.header


def test_the_usual_kernel_of_attention_is_left_to_transformers_unless_it_was_stated() -> None:
    def kernel(run: Run, setup: Setup | Settings) -> str | None:
        loading = Stated(script(run, setup)).arguments("AutoModelForCausalLM.from_pretrained")
        return loading.get("attn_implementation")

    measured = changed(LORA, options={"attn_implementation": "eager"})
    assert kernel(LORA, plan(Settings())) is None
    assert kernel(LORA, Settings(attention="sdpa")) == "'sdpa'"
    assert kernel(measured, Settings(batch_size=2)) == "'eager'"
    assert kernel(measured, plan(Settings())) == "'sdpa'"


def test_what_a_script_does_otherwise_is_told_in_its_header() -> None:
    for experiment, made in (
        ("lora/llama-3.2-3B-rank32-lorafa", "create_lorafa_optimizer"),
        ("lora/llama-3.2-3B-rank32-riemannian", "create_riemannian_optimizer"),
    ):
        stated = Stated(script(RUNS[experiment], Settings(optimizer="adamw_8bit")))
        assert made in stated.calls
        assert "AdamW8bit" not in stated.calls
        assert "which the recipe needs" in stated.header
    with pytest.raises(ConfigError, match=r"optimizer 'lora_fa'.* its recipe has AdamW"):
        script(LORA, Settings(optimizer="lora_fa"))
    packed = Stated(script(LORA, Settings(padding=False)))
    assert "packing is not in this script" in packed.header
    sgd = Stated(script(LORA, Settings(optimizer="sgd")))
    assert "the learning rate was measured with AdamW" in sgd.header


# --- the catalog's conditions are met, and its denials heard ---


def of_type(peft_type: str) -> Run:
    """A run of the method on text."""
    return next(
        run
        for run in RUNS.values()
        if run.recipe.peft_type == peft_type and run.benchmark == "metamathqa"
    )


BACKENDS = ("bnb_4bit", "bnb_8bit")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("asked", [True, False])
def test_every_method_gets_the_quantized_base_that_it_trains_on(backend: str, asked: bool) -> None:
    kinds = set()
    for run in RUNS.values():
        method = TYPES[run.recipe.peft_type or ""]
        capability = method.capability(f"quantization.{backend}", run.variants)
        settings = Settings.model_validate({"quantization": backend, "prepare_kbit": asked})
        if capability.support == "no":
            with pytest.raises(ConfigError, match=f"does not train on a {backend} base"):
                script(run, settings)
            kinds.add("no")
            continue
        prepared = "prepare_model_for_kbit_training" in Stated(script(run, settings)).calls
        note = capability.note or ""
        if note.startswith("only after"):
            assert prepared
            kinds.add("after")
        elif note.startswith("only as loaded"):
            assert not prepared
            kinds.add("loaded")
        else:
            assert prepared == asked
            kinds.add("either")
    assert kinds == {"no", "after", "loaded", "either"}


def test_a_base_that_comes_quantized_is_loaded_as_it_is(language_model: Path) -> None:
    run, target = LORA, inspected(language_model)
    own = target.structure.model_copy(update={"quantization": "gptq"})
    retargeted = adapted(run, own)
    stated = Stated(script(run, retargeted=retargeted, model=own))
    loading = stated.arguments("AutoModelForCausalLM.from_pretrained")
    assert loading == {"dtype": "torch.bfloat16", "device_map": "{'': device}"}
    assert "gptq base as it is" in stated.header
    with pytest.raises(ConfigError, match="comes quantized with gptq"):
        script(run, Settings(quantization="bnb_4bit"), retargeted=retargeted, model=own)
    with pytest.raises(ConfigError, match="name a model that comes quantized so"):
        script(run, Settings(quantization="gptq"))


def test_a_format_that_peft_does_not_know_is_left_as_it_comes(language_model: Path) -> None:
    fp8 = StoredQuantization(name="fp8", bits=8)
    own = inspected(language_model).structure.model_copy(update={"stored_quantization": fp8})
    stated = Stated(script(LORA, retargeted=adapted(LORA, own), model=own))
    loading = stated.arguments("AutoModelForCausalLM.from_pretrained")
    assert loading == {"dtype": "torch.bfloat16", "device_map": "{'': device}"}
    assert "prepare_model_for_kbit_training" not in stated.calls
    assert "nobody has tried whether it trains on a fp8 base" in stated.header


def inspected(folder: Path) -> Any:
    from peft_shop.model.inspection import inspect_model

    return inspect_model(folder)


def adapted(run: Run, structure: Any) -> Any:
    from peft_shop.adapt.retarget import retarget

    return retarget(CATALOG, run, structure)


def test_what_cannot_be_is_refused_with_the_reason(language_model: Path) -> None:
    prefix = of_type("PREFIX_TUNING")
    with pytest.raises(ConfigError, match="does not train with gradient checkpointing: refused"):
        script(prefix, Settings(gradient_checkpointing=True))
    with pytest.raises(ConfigError, match=r"fused_loss.*ShadowPEFT predicts the labels"):
        script(of_type("SHADOW"), Settings(fused_loss=True))
    with pytest.raises(ConfigError, match=r"fused_loss.*no logits"):
        script(FLUX, Settings(fused_loss=True))
    structure = inspected(language_model).structure
    retargeted = adapted(LORA, structure)
    with pytest.raises(ConfigError, match=r"9999 tokens: .* takes 2048 at most"):
        script(LORA, Settings(sequence_length=9999), retargeted=retargeted, model=structure)
    headless = structure.model_copy(
        update={"groups": tuple(one for one in structure.groups if one.role != "head")}
    )
    with pytest.raises(ConfigError, match="no linear head whose outputs"):
        script(LORA, Settings(fused_loss=True), retargeted=retargeted, model=headless)
    with pytest.raises(ConfigError, match="bnb_4bit with 8 bits"):
        script(LORA, Settings(quantization="bnb_4bit", quantization_bits=8))


# --- setups with the same result have the same gradient ---

SAME = [
    {
        "batch_size": size,
        "accumulation": 4 // size,
        "gradient_checkpointing": again,
        "fused_loss": c,
    }
    for size, again, c in itertools.product((4, 2, 1), (False, True), (False, True))
][1:]
FEW = [SAME[0], SAME[1], SAME[3], SAME[-1]]
"""Each change by itself, and all of them."""
METHODS: dict[str, dict[str, Any]] = {
    "LORA": {"init_lora_weights": False, "target_modules": ["q_proj", "down_proj"]},
    "ADALORA": {"init_r": 8, "target_r": 4, "tinit": 1, "tfinal": 1, "total_step": 9},
    "OFT": {"target_modules": ["q_proj"]},
    "PROMPT_TUNING": {"num_virtual_tokens": 5},
    "P_TUNING": {"num_virtual_tokens": 5, "encoder_hidden_size": 8},
    "PREFIX_TUNING": {"num_virtual_tokens": 5},
    "TRAINABLE_TOKENS": {"token_indices": [3, 4]},
    "SHADOW": {"shadow_dropout": 0.0},
}
"""One of every sort of adapter, and those that add to the loss or to the length."""
SGD = {
    "optimizer": "SGD",
    "optimizer_options": {},
    "learning_rate": 1.0,
    "lr_scheduler": None,
    "grad_norm_clip": None,
    "dtype": "float32",
    "max_length": 60,
}
"""One step of this moves every weight by its gradient."""


def gradients(run: Run, setup: Settings | None, run_script: Runner, **more: Any) -> dict[str, Any]:
    names = run_script(script(run, setup, **more), UNEVEN)
    after = dict(names["model"].named_parameters())
    return {name: before - after[name].detach() for name, before in names["initial"].items()}


@pytest.mark.parametrize("peft_type", METHODS)
def test_setups_with_the_same_result_have_the_same_gradient(
    peft_type: str, language_model: Path, run_script: Runner
) -> None:
    import torch

    run = of_type(peft_type)
    options = {**run.recipe.training.options}
    options.pop("init_kv_cache_prefix", None)
    config = run.recipe.config | METHODS[peft_type]
    # the second step has the one text that is left of the epoch
    small = changed(run, config, model_id=str(language_model), max_steps=2, options=options, **SGD)
    whole = gradients(small, None, run_script)
    assert any(gradient.any() for gradient in whole.values())
    for kind in SAME if peft_type == "LORA" else FEW:
        if kind["gradient_checkpointing"] and peft_type == "PREFIX_TUNING":
            continue
        if kind["fused_loss"] and peft_type == "SHADOW":
            continue
        same = gradients(small, Settings.model_validate(kind), run_script)
        for name, gradient in whole.items():
            assert torch.allclose(same[name], gradient, rtol=1e-4, atol=1e-5), (kind, name)


TINY: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "num_local_experts": 4,
    "pad_token_id": 0,
    "layer_types": None,
}


@pytest.mark.parametrize(
    "model_type", ["qwen3", "mistral", "gemma3_text", "mixtral", "gpt_neox", "gpt_oss"]
)
def test_the_gradient_is_the_same_on_models_of_other_types(
    model_type: str, tmp_path: Path, language_model: Path, run_script: Runner
) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    folder = tmp_path / model_type
    AutoTokenizer.from_pretrained(language_model).save_pretrained(folder)
    known = AutoConfig.for_model(model_type).to_dict()
    torch.manual_seed(0)
    config = AutoConfig.for_model(model_type, **{k: v for k, v in TINY.items() if k in known})
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(folder)
    structure = inspected(folder).structure
    retargeted = adapted(LORA, structure)
    config = {**retargeted.config, "init_lora_weights": False}
    more = {"retargeted": retargeted.model_copy(update={"config": config}), "model": structure}
    small = changed(LORA, max_steps=1, **SGD)
    whole = gradients(small, Settings(sequence_length=60), run_script, **more)
    for kind in (SAME[-1], SAME[4]):
        same = gradients(small, Settings(sequence_length=60, **kind), run_script, **more)
        for name, gradient in whole.items():
            assert torch.allclose(same[name], gradient, rtol=1e-4, atol=1e-5), (kind, name)


def test_a_mean_of_means_would_have_another_gradient(
    language_model: Path, run_script: Runner
) -> None:
    """The check above can fail: the lengths differ enough."""
    import torch

    settings = {"model_id": str(language_model), "max_steps": 1, **SGD}
    small = changed(LORA, METHODS["LORA"], **settings)
    source = script(small, Settings(batch_size=1, accumulation=4))
    careless = source.replace("(count / sum(tokens))", "(1 / len(tokens))")
    assert careless != source
    whole = gradients(small, None, run_script)
    names = run_script(careless, UNEVEN)
    after = dict(names["model"].named_parameters())
    assert not all(
        torch.allclose(names["initial"][name] - after[name].detach(), gradient, atol=1e-5)
        for name, gradient in whole.items()
    )


def test_batches_of_images_count_alike(image_model: Path, run_script: Runner) -> None:
    import torch
    from PIL import Image

    options = {"max_sequence_length": 8, "text_encoder_out_layers": [0, 1, 2]}
    size = {"batch_size": 4, "max_length": 8, "max_steps": 2}
    settings = {**SGD, **size, "model_id": str(image_model), "options": options}
    config = FLUX.recipe.config | {"init_lora_weights": False}
    small = changed(FLUX, config, **settings)
    rows = [{"image": Image.new("L", (20, 12 + n), 40 * n)} for n in range(5)]
    results = []
    for kind in (
        {"gradient_checkpointing": False},
        {"batch_size": 3, "accumulation": 1, "gradient_checkpointing": True},
        {"batch_size": 2, "accumulation": 2, "gradient_checkpointing": True},
        {"batch_size": 1, "accumulation": 4},
    ):
        names = run_script(script(small, Settings.model_validate(kind)), rows)
        after = dict(names["model"].named_parameters())
        results.append({n: b - after[n].detach() for n, b in names["initial"].items()})
    first, other, *same = results
    for one in same:
        assert all(torch.allclose(one[n], g, rtol=1e-4, atol=1e-5) for n, g in first.items())
    # three of them at a time are another step
    assert not all(torch.allclose(other[n], g, atol=1e-5) for n, g in first.items())


# --- every kind of setup runs to the end ---

KINDS: dict[str, dict[str, Any]] = {
    "float16": {"dtype": "float16"},
    "float16, everything else": {
        "dtype": "float16",
        "batch_size": 1,
        "accumulation": 4,
        "gradient_checkpointing": True,
        "fused_loss": True,
    },
    "eager": {"attention": "eager", "dtype": "float32"},
    "adafactor": {"optimizer": "adafactor", "dtype": "bfloat16"},
}


@pytest.mark.parametrize("peft_type", ["LORA", "PROMPT_TUNING", "LN_TUNING", "ADALORA"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_setup_runs(
    kind: str, peft_type: str, language_model: Path, run_script: Runner
) -> None:
    run = of_type(peft_type)
    config = run.recipe.config | METHODS.get(peft_type, {})
    rate = {"learning_rate": 0.05}  # that bfloat16 can tell from nothing
    small = changed(run, config, model_id=str(language_model), max_steps=3, max_length=60, **rate)
    names = run_script(script(small, Settings.model_validate(KINDS[kind])), UNEVEN)
    assert math.isfinite(names["loss"].item())
    assert names["step"] == 3
    adapter = {name: w for name, w in names["model"].named_parameters() if name in names["initial"]}
    assert any(not w.detach().equal(names["initial"][name].to(w)) for name, w in adapter.items())
    if KINDS[kind]["dtype"] == "float16":
        assert all(str(w.dtype) == "torch.float32" for w in adapter.values())


def test_a_model_that_caps_its_logits_is_no_case_for_chunks(
    tmp_path: Path, language_model: Path, run_script: Runner
) -> None:
    import torch
    from transformers import AutoTokenizer, Gemma2Config, Gemma2ForCausalLM

    torch.manual_seed(0)
    config = Gemma2Config(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=16,
        final_logit_softcapping=2.0,
    )
    capped = tmp_path / "capped"
    Gemma2ForCausalLM(config).save_pretrained(capped)
    AutoTokenizer.from_pretrained(language_model).save_pretrained(capped)
    small = changed(LORA, METHODS["LORA"], model_id=str(capped), max_steps=1, dtype="float32")
    assert "loss" in run_script(script(small), UNEVEN)
    with pytest.raises(SystemExit, match="changes its logits behind the head"):
        run_script(script(small, Settings(fused_loss=True)), UNEVEN)


# --- nothing trained is a result too ---


def test_a_step_that_bfloat16_rounds_away_stops_the_script(
    language_model: Path, run_script: Runner, capsys: pytest.CaptureFixture[str]
) -> None:
    small = {"model_id": str(language_model), "max_steps": 9, "max_length": 60}
    norms = changed(of_type("LN_TUNING"), learning_rate=0.001, **small)
    with pytest.raises(SystemExit, match="nothing trains"):
        run_script(script(norms), UNEVEN)
    assert "torch.bfloat16 rounds steps of 0.001 away; float32 would" in capsys.readouterr().out
    names = run_script(script(norms, Settings(dtype="float32")), UNEVEN)
    assert names["step"] == 9


def test_a_rate_of_zero_is_told_as_such(
    language_model: Path, run_script: Runner, capsys: pytest.CaptureFixture[str]
) -> None:
    small = {"model_id": str(language_model), "dtype": "float32", "max_length": 60}
    run = changed(LORA, {"target_modules": ["q_proj"]}, max_steps=9, **small)
    source = re.sub(r"(?m)^LEARNING_RATE = .*", "LEARNING_RATE = 0", script(run))
    with pytest.raises(SystemExit, match="nothing trains"):
        run_script(source, UNEVEN)
    told = capsys.readouterr().out
    assert "2 of 2 trainable tensors stay: the learning rate is 0" in told
    assert "rounds steps" not in told


def test_weights_that_no_gradient_reaches_stop_the_script_or_are_named(
    language_model: Path, run_script: Runner, capsys: pytest.CaptureFixture[str]
) -> None:
    small = {"model_id": str(language_model), "dtype": "float32", "max_length": 60}
    unseen = changed(of_type("TRAINABLE_TOKENS"), {"token_indices": [60]}, max_steps=9, **small)
    with pytest.raises(SystemExit, match="nothing trains"):
        run_script(script(unseen), UNEVEN)
    assert "1 of 1 trainable tensors stay: no gradient reaches them" in capsys.readouterr().out
    # A has no gradient until B is no longer zero
    run_script(script(changed(LORA, {"target_modules": ["q_proj"]}, max_steps=1, **small)), UNEVEN)
    assert "1 of 2 trainable tensors stay: no gradient" in capsys.readouterr().out
    run_script(script(changed(LORA, {"target_modules": ["q_proj"]}, max_steps=9, **small)), UNEVEN)
    assert "stay" not in capsys.readouterr().out


def test_a_frozen_factor_stops_the_script(language_model: Path, run_script: Runner) -> None:
    small = {"model_id": str(language_model), "dtype": "float32", "max_length": 60}
    source = script(changed(LORA, {"target_modules": ["q_proj"]}, max_steps=9, **small))
    forgotten = source.replace("(trainable, lr", "([torch.nn.Parameter(torch.ones(2))], lr")
    assert forgotten != source
    with pytest.raises(SystemExit, match="nothing trains"):
        run_script(forgotten, UNEVEN)
    broken = source.replace("part_loss * (count", "part_loss * float('nan') * (count")
    assert broken != source
    with pytest.raises(SystemExit, match="the loss is nan"):
        run_script(broken, UNEVEN)


# --- in bits ---


@pytest.mark.slow
@pytest.mark.parametrize("peft_type", ["LORA", "C3A", "IA3", "SHIRA", "PROMPT_TUNING"])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "kind",
    [
        {},
        {"prepare_kbit": False},
        {
            "batch_size": 2,
            "accumulation": 2,
            "gradient_checkpointing": True,
            "fused_loss": True,
            "optimizer": "adamw_8bit",
        },
    ],
    ids=["prepared", "loaded", "everything"],
)
def test_quantized_setups_run(
    kind: dict[str, Any], backend: str, peft_type: str, language_model: Path, run_script: Runner
) -> None:
    pytest.importorskip("bitsandbytes")
    run = of_type(peft_type)
    capability = TYPES[peft_type].capability(f"quantization.{backend}", run.variants)
    config = run.recipe.config | METHODS.get(peft_type, {})
    small = changed(
        run, config, model_id=str(language_model), max_steps=3, max_length=60, learning_rate=0.05
    )
    settings = Settings.model_validate({"quantization": backend, **kind})
    if capability.support == "no":
        with pytest.raises(ConfigError):
            script(small, settings)
        return
    names = run_script(script(small, settings), UNEVEN)
    assert math.isfinite(names["loss"].item())
    classes = {type(module).__name__ for module in names["base"].modules()}
    assert {"bnb_4bit": "Linear4bit", "bnb_8bit": "Linear8bitLt"}[backend] in classes

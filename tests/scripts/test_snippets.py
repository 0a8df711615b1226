"""Scripts state what was measured, cannot carry foreign code, and train."""

from __future__ import annotations

import ast
import doctest
import importlib.machinery
import importlib.util
import math
import subprocess
import sys
import types
import warnings
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peft_shop.catalog.runs import Run
from peft_shop.catalog.store import load
from peft_shop.errors import ConfigError
from peft_shop.scripts import source as literals
from peft_shop.scripts.script import snippet
from peft_shop.scripts.source import call, comment, literal

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Runner = Callable[[str, list[dict[str, Any]]], dict[str, Any]]

CATALOG = load()
SUPERVISED = {one.id for one in CATALOG.benchmarks if one.procedure == "supervised"}
RUNS = [
    run for run in CATALOG.runs if run.recipe.peft_type is not None and run.benchmark in SUPERVISED
]
NEWEST = [run for run in RUNS if CATALOG.snapshots[-1].id in run.snapshots]
METHODS = {method.peft_type: method for method in CATALOG.methods}
NEED_MORE = [method.peft_type for method in CATALOG.methods if method.loop_needs is not None]


def script(run: Run) -> str:
    return snippet(run, CATALOG.benchmark_by_id[run.benchmark])


def find(experiment: str) -> Run:
    return next(run for run in reversed(RUNS) if run.experiment == experiment)


def changed(run: Run, config: dict[str, Any] | None = None, **training: Any) -> Run:
    """`run` with another configuration or other settings, validated anew."""
    document = run.model_dump()
    document["recipe"]["config"] = run.recipe.config if config is None else config
    document["recipe"]["training"] |= training
    return Run.model_validate(document)


LORA = find("lora/llama-3.2-3B-rank32")


# --- what a script states ---


def calls(source: str) -> dict[str, ast.Call]:
    """Calls of a script by the name they are made under."""
    nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    return {ast.unparse(node.func): node for node in nodes}


def constants(source: str) -> dict[str, Any]:
    """Top-level names that are bound to a literal."""
    found = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant | ast.List):
            found[ast.unparse(node.targets[0])] = ast.literal_eval(node.value)
    return found


def arguments(node: ast.Call, bound: dict[str, Any]) -> dict[str, Any]:
    """Keyword arguments of a call; names stand for what they are bound to."""
    return {
        str(keyword.arg): bound[keyword.value.id]
        if isinstance(keyword.value, ast.Name)
        else ast.literal_eval(keyword.value)
        for keyword in node.keywords
    }


@pytest.mark.parametrize("run", RUNS, ids=lambda run: f"{run.benchmark}:{run.id}")
def test_script_states_the_measured_configuration_and_settings(run: Run) -> None:
    source, recipe, training = script(run), run.recipe, run.recipe.training
    made, bound = calls(source), constants(source)
    assert arguments(made[METHODS[recipe.peft_type or ""].config_class], bound) == recipe.config
    sizes = (bound["STEPS"], bound["BATCH_SIZE"], bound["SEED"], bound["MODEL_ID"])
    assert sizes == (training.max_steps, training.batch_size, training.seed, training.model_id)
    length = "RESOLUTION" if run.benchmark == "image_gen" else "MAX_LENGTH"
    assert bound[length] == training.max_length
    optimizers = {
        "AdamW": "torch.optim.AdamW",
        "lora-fa": "create_lorafa_optimizer",
        "riemannian": "create_riemannian_optimizer",
    }
    settings = {"lr": training.learning_rate, **training.optimizer_options}
    assert arguments(made[optimizers[training.optimizer]], bound) == settings
    wrapped = arguments(made["get_peft_model"], bound)
    assert wrapped == {"autocast_adapter_dtype": training.autocast_adapter_dtype}
    clip = made["torch.nn.utils.clip_grad_norm_"].args[1]
    assert ast.literal_eval(clip) == training.grad_norm_clip
    assert ("scheduler.step" in made) == (training.lr_scheduler == "cosine")
    assert f"torch.{training.dtype}" in source
    assert ("model.base_model.update_and_allocate" in made) == (recipe.peft_type == "ADALORA")
    checkpointing = {"model.gradient_checkpointing_enable", "base.enable_gradient_checkpointing"}
    assert bool(checkpointing & set(made)) == training.gradient_checkpointing
    prefix = training.options.get("init_kv_cache_prefix")
    if prefix:
        start = arguments(made["initialize_kv_prefix_from_text"], bound)
        assert start == {"text": prefix, "use_chat_template": False}
    else:
        assert "initialize_kv_prefix_from_text" not in made


def test_scripts_are_formatted_as_ruff_would(tmp_path: Path) -> None:
    if importlib.util.find_spec("ruff") is None:
        pytest.skip("ruff is not installed")
    for number, run in enumerate(RUNS):
        (tmp_path / f"{number}.py").write_text(script(run), encoding="utf-8")
    ruff = [sys.executable, "-m", "ruff"]
    options = ["--isolated", "--line-length", "100", str(tmp_path)]
    for verb in (["format", "--check"], ["check", "--select", "E,F,I,W,B,UP"]):
        done = subprocess.run([*ruff, *verb, *options], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


def test_header_names_run_figures_hardware_versions_and_limits() -> None:
    run = find("lora/llama-3.2-3B-rank64-rslora")
    header = str(ast.get_docstring(ast.parse(script(run))))
    for part in (
        "lora/llama-3.2-3B-rank64-rslora",
        run.created_at[:10],
        f"test accuracy: {run.metrics['test_accuracy']:.4g}",
        f"{run.metrics['peak_memory_bytes'] / 2**30:.2f} GiB",
        "NVIDIA L40S",
        f"peft {run.provenance.packages['peft']}",
        "belong to that model, data and hardware",
        "pip install peft",
    ):
        assert part in header


def test_header_tells_flags_missing_figures_and_what_it_leaves_out() -> None:
    flagged = find("unilora/llama-3.2-3B-default")
    assert "caution, broken_config: " in script(flagged)
    bare = LORA.model_copy(update={"metrics": {}})
    assert "test accuracy: not recorded" in script(bare)
    assert "peak memory: not recorded" in script(bare)
    other = changed(LORA, compile=True, mixed_precision=True, options={"eval_steps": 500})
    source = script(other)
    for setting in ("torch.compile", "automatic mixed precision", "eval_steps = 500"):
        assert f"not in this script: {setting}" in source
    assert "scikit-learn" in script(find("adamss/llama-3.2-3B-rank32"))


def test_notes_tell_what_peft_leaves_to_the_loop() -> None:
    assert "_get_kasa_loss" in script(find("lora/llama-3.2-3B-rank32-kasa"))
    assert "initialize_lora_eva_weights" in script(changed(LORA, {"init_lora_weights": "eva"}))
    assert "_get_monteclora_loss" in script(changed(LORA, {"monteclora_config": {"use": 1}}))
    assert "peft chose for this model: target_modules q_proj, v_proj" in script(LORA)


def test_names_of_classes_are_those_of_peft() -> None:
    from peft import PEFT_TYPE_TO_CONFIG_MAPPING as CLASSES

    real = {str(key.value): cls.__name__ for key, cls in CLASSES.items()}
    assert {peft_type: method.config_class for peft_type, method in METHODS.items()} == real


def test_a_method_of_a_later_peft_goes_through_its_mapping() -> None:
    later = changed(LORA, {"r": 8, "target_modules": ["q_proj"]})
    document = later.model_dump()
    document["recipe"]["peft_type"] = "EWORA"
    made = calls(script(Run.model_validate(document)))["get_peft_config"]
    assert ast.literal_eval(made.args[0]) == {
        "peft_type": "EWORA",
        "r": 8,
        "target_modules": ["q_proj"],
    }


def test_optimizers() -> None:
    plus = changed(LORA, optimizer="lora+", optimizer_options={"loraplus_lr_ratio": 16})
    made = calls(script(plus))["create_loraplus_optimizer"]
    assert [ast.unparse(one) for one in made.args] == ["model", "torch.optim.AdamW"]
    assert "torch.optim.SGD" in calls(script(changed(LORA, optimizer="SGD")))
    # a second learning rate among the options would be a syntax error
    twice = changed(LORA, optimizer_options={"lr": 9, "weight_decay": 0.1})
    made = calls(script(twice))["torch.optim.AdamW"]
    assert arguments(made, constants(script(twice))) == {
        "lr": LORA.recipe.training.learning_rate,
        "weight_decay": 0.1,
    }


@pytest.mark.parametrize(
    ("training", "message"),
    [
        ({"dtype": "int4"}, r"training\.dtype 'int4'"),
        ({"lr_scheduler": "linear"}, r"training\.lr_scheduler 'linear'"),
        ({"optimizer": "a.b"}, r"training\.optimizer 'a\.b'; known: .*lora-fa"),
        ({"optimizer_options": {"a b": 1}}, "'a b'"),
        ({"optimizer_options": {"lambda": 1}}, "'lambda'"),
    ],
)
def test_settings_that_no_script_can_have(training: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        script(changed(LORA, **training))


def test_methods_that_no_script_can_train() -> None:
    assert len(NEED_MORE) == 4
    for peft_type in NEED_MORE:
        document = LORA.model_dump()
        document["recipe"]["peft_type"] = peft_type
        with pytest.raises(ConfigError, match=peft_type):
            script(Run.model_validate(document))
    full = next(
        run for run in CATALOG.runs if run.recipe.peft_type is None and run.benchmark in SUPERVISED
    )
    with pytest.raises(ConfigError, match="full fine-tuning"):
        script(full)


# --- nothing of a catalog becomes code ---

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
TRICKS = [
    '"""',
    "'''",
    "\\",
    '\\"""',
    "x'); import os; ('",
    "\n",
    "\r",
    "\x00",
    "${header}",
    "$model_id",
    "#\nimport os",
    "{x!r}",
    "\u2028",
    "\ud83d\ude00",
    "\u202e",
]
HOSTILE = st.text() | st.sampled_from(TRICKS)


def shape(source: str) -> str:
    """Structure of a script, blind to the values of its literals."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant):
            node.value = None
            node.kind = None
    return ast.dump(tree)


@given(JSON, st.integers(0, 40), st.integers(0, 90))
def test_literals_mean_what_they_were_made_from(value: Any, indent: int, used: int) -> None:
    source = literal(value, indent=indent, used=used)
    assert ast.literal_eval(f"(\n{source}\n)") == value


@given(st.dictionaries(st.from_regex(r"[a-j]{1,8}", fullmatch=True), JSON, max_size=5))
def test_calls_pass_what_they_were_made_from(given_arguments: dict[str, Any]) -> None:
    reserved = {"if", "as", "de", "f"}
    clean = {key: value for key, value in given_arguments.items() if key not in reserved}
    node = ast.parse(call("f", clean, "first"), mode="eval").body
    assert isinstance(node, ast.Call)
    assert arguments(node, {}) == clean


@given(HOSTILE, HOSTILE, HOSTILE, HOSTILE)
def test_text_of_a_catalog_changes_values_and_comments_only(
    model: str, module: str, accelerator: str, reason: str
) -> None:
    def build(*texts: str) -> str:
        config = {"r": 8, "target_modules": [texts[1]], "rank_pattern": {texts[1]: 4}}
        document = changed(LORA, config).model_dump()
        document["recipe"]["training"]["model_id"] = texts[0]
        document["recipe"]["resolved"] = {"feedforward_modules": [texts[2]]}
        document["recipe"]["training"]["options"] = {"strange": texts[3]}
        document["provenance"]["accelerator"] = texts[2]
        document["provenance"]["packages"] = {"peft": texts[3]}
        document["flags"] = [{"code": "artefact", "reason": f"x{texts[3]}"}]
        return script(Run.model_construct(**{**dict(LORA), **parts(document)}))

    source = build(model, module, accelerator, reason)
    assert shape(source) == shape(build("a", "b", "c", "d"))
    assert constants(source)["MODEL_ID"] == model
    assert arguments(calls(source)["LoraConfig"], {})["target_modules"] == [module]
    assert all(letter.isprintable() or letter == "\n" for letter in source)


def parts(document: dict[str, Any]) -> dict[str, Any]:
    """Members of a run from plain data, without the patterns that would keep hostile text out."""
    recipe = LORA.recipe
    training = recipe.training.model_copy(update=document["recipe"]["training"])
    flag = types.SimpleNamespace(**document["flags"][0])
    return {
        "recipe": recipe.model_copy(
            update={
                "config": document["recipe"]["config"],
                "resolved": document["recipe"]["resolved"],
                "training": training,
            }
        ),
        "provenance": LORA.provenance.model_copy(
            update={key: document["provenance"][key] for key in ("accelerator", "packages")}
        ),
        "flags": (flag,),
    }


@given(HOSTILE)
def test_comments_are_one_line_of_harmless_characters(text: str) -> None:
    kept = comment(text)
    assert kept.isascii()
    assert kept.isprintable()
    assert not {'"', "\\", "\n", "#", "$"} & set(kept)


@pytest.mark.parametrize("value", [math.nan, math.inf, b"x", {1: 2}, {1, 2}, object()])
def test_what_is_no_json_value_is_refused(value: Any) -> None:
    with pytest.raises(ConfigError, match="JSON value"):
        literal(value)
    with pytest.raises(ConfigError, match="JSON value"):
        literal([{"a": value}])


def test_examples_in_the_docstrings() -> None:
    outcome = doctest.testmod(literals)
    assert outcome.attempted
    assert not outcome.failed


# --- scripts run ---


def check_text_script(
    run: Run,
    model: Path,
    config: dict[str, Any],
    run_script: Runner,
) -> dict[str, Any]:
    """Trains three steps, saves, loads the adapter into a fresh model; returns the names."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    if run.recipe.peft_type == "ADALORA":
        config |= {"tinit": 1, "tfinal": 1, "total_step": 3}
    if run.recipe.peft_type == "TRAINABLE_TOKENS":
        config["token_indices"] = [3, 4]
    tiny = changed(run, config, model_id=str(model), max_steps=3, max_length=24, dtype="float32")
    rows = [{"query": f"what is {n} + 2", "response": "the sum is 2" * n} for n in range(1, 6)]
    names = run_script(script(tiny), rows)
    assert math.isfinite(names["loss"].item())
    assert names["step"] == 3
    batch = names["tokenizer"](["Question: what is 1"], return_tensors="pt")
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as above
        fresh = AutoModelForCausalLM.from_pretrained(model).eval()
        before = fresh(**batch).logits
        trained = names["model"].eval()(**batch).logits
        loaded = PeftModel.from_pretrained(fresh, "adapter").eval()(**batch).logits
    length = before.shape[1]
    assert torch.allclose(trained, loaded, atol=1e-5), "saved and loaded again"
    assert not torch.equal(trained[:, -length:], before), "trained"
    return names


# a recipe of each way to train; sizes that a narrow model cannot have are cut down
SAMPLE: dict[str, dict[str, Any]] = {
    "adalora/llama-3.2-3B-rank32": {"init_r": 8, "target_r": 4},
    "adaptionprompt/llama-3.2-3B-lr_5e-3": {"adapter_layers": 1, "adapter_len": 4},
    "ia3/llama-3.2-3B-lr_0.001": {},
    "lora/llama-3.2-3B-rank32-dora": {},
    "lora/llama-3.2-3B-rank32-kasa": {},
    "lora/llama-3.2-3B-rank32-lorafa": {},
    "lora/llama-3.2-3B-rank32-riemannian": {},
    "lora/llama-3.2-3B-rank64-rslora": {},
    "lora/llama-3.2-3B-rank14-target-mlp-bdlora": {},
    "miss/llama-3.2-3B-mini": {"r": 8, "mini_r": 8},
    "oft/llama-3.2-3B-rank32": {},
    "prefixtuning/llama-3.2-3B-tokens50-init_prefix-lr_0.005": {"num_virtual_tokens": 20},
    "prompt_tuning/llama-3.2-3B-lr_0.001": {"num_virtual_tokens": 8},
    "ptuning/llama-3.2-3B-default": {"encoder_hidden_size": 8},
    "trainable_tokens/llama-3.2-3B-sos+eos": {},
    "vera/llama-3.2-3B-default": {},
}


@pytest.mark.parametrize("experiment", SAMPLE)
def test_text_scripts_train_save_and_load(
    experiment: str, language_model: Path, run_script: Runner
) -> None:
    run = find(experiment)
    config = run.recipe.config | SAMPLE[experiment]
    names = check_text_script(run, language_model, config, run_script)
    trainable = [name for name, weight in names["model"].named_parameters() if weight.requires_grad]
    assert any("lora_A" in name for name in trainable) == (
        run.recipe.peft_type in {"LORA", "ADALORA"} and run.recipe.training.optimizer != "lora-fa"
    )
    if run.recipe.peft_type == "ADALORA":
        assert names["model"].peft_config["default"].rank_pattern, "ranks were allocated"


@pytest.mark.parametrize(
    "training",
    [
        {"gradient_checkpointing": True},
        {"optimizer": "lora+", "optimizer_options": {"loraplus_lr_ratio": 4}},
        {"lr_scheduler": None, "grad_norm_clip": None, "optimizer": "SGD"},
        {"options": {"attn_implementation": "eager"}},
    ],
    ids="-".join,  # of the names of the settings
)
def test_other_settings_run_too(
    training: dict[str, Any],
    language_model: Path,
    run_script: Runner,
) -> None:
    options = {"learning_rate": 0.01, "optimizer_options": {}, **training}
    run = changed(LORA, {"target_modules": ["q_proj"]}, **options)
    check_text_script(run, language_model, run.recipe.config, run_script)


@pytest.mark.slow
@pytest.mark.parametrize(
    "run",
    [run for run in NEWEST if run.benchmark == "metamathqa"],
    ids=lambda run: run.experiment,
)
def test_every_text_script_trains_saves_and_loads(
    run: Run, deep_language_model: Path, run_script: Runner
) -> None:
    config = dict(run.recipe.config)
    if "initialize" in script(run):
        config["num_virtual_tokens"] = 20
    if run.recipe.peft_type == "OSF":  # which keeps more ranks than the small model has
        config["rank_pattern"] = {}
    check_text_script(run, deep_language_model, config, run_script)


@pytest.mark.parametrize(
    "experiment",
    ["lora/flux2-klein-default", "oft/flux2-klein-default", "adalora/flux2-klein-default"],
)
def test_image_scripts_train_save_and_load(
    experiment: str, image_model: Path, run_script: Runner
) -> None:
    import torch
    from diffusers import Flux2Transformer2DModel
    from peft import PeftModel
    from PIL import Image

    run = find(experiment)
    config = dict(run.recipe.config)
    if run.recipe.peft_type == "ADALORA":
        config |= {"tinit": 1, "tfinal": 1, "total_step": 3}
    options = {"max_sequence_length": 8, "text_encoder_out_layers": [0, 1, 2]}
    settings = {"model_id": str(image_model), "max_steps": 3, "max_length": 8, "dtype": "float32"}
    rows = [{"image": Image.new("L", (20, 12 + n), 50 * n)} for n in range(3)]
    names = run_script(script(changed(run, config, options=options, **settings)), rows)
    assert math.isfinite(names["loss"].item())
    assert names["images"].shape[0] == 3, "one latent an image"
    inputs = {
        "hidden_states": names["clean"],
        "timestep": torch.full((len(names["clean"]),), 0.5),
        "encoder_hidden_states": names["prompts"].expand(len(names["clean"]), -1, -1),
        "txt_ids": names["text_ids"],
        "img_ids": names["image_ids"],
        "return_dict": False,
    }
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as above
        fresh = Flux2Transformer2DModel.from_pretrained(image_model / "transformer").eval()
        before = fresh(**inputs)[0]
        trained = names["model"].eval()(**inputs)[0]
        loaded = PeftModel.from_pretrained(fresh, "adapter").eval()(**inputs)[0]
    assert torch.allclose(trained, loaded, atol=1e-5), "saved and loaded again"
    assert not torch.equal(trained, before), "trained"

"""Files for training tools: the measured recipe in their words, and what they cannot express."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import importlib.util
import io
import json
import shlex
import subprocess
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from peft_shop import recommend
from peft_shop.adapt.records import TargetOptions
from peft_shop.adapt.retarget import retarget
from peft_shop.ask.adapted import recipe_of_run
from peft_shop.catalog.runs import Run
from peft_shop.catalog.store import load
from peft_shop.cli.app import app
from peft_shop.errors import ConfigError, UnknownNameError
from peft_shop.forecast.records import Settings
from peft_shop.scripts.script import snippet
from peft_shop.scripts.trainers.file import LANGUAGES, WRITERS
from peft_shop.serve.trainers import accepts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Runner = Callable[[str, list[dict[str, Any]]], dict[str, Any]]

CATALOG = load()
TRAINERS = [one for one in CATALOG.trainers if one.file is not None]
STATING = [one for one in TRAINERS if one.file != "script" and one.id != "kohya"]
"""Trainers whose file states values by keys; kohya has no script for a measured model."""
SUPERVISED = {one.id for one in CATALOG.benchmarks if one.procedure == "supervised"}
RUNS = [
    run for run in CATALOG.runs if run.recipe.peft_type is not None and run.benchmark in SUPERVISED
]
LATEST = {(run.method, run.variants, run.benchmark): run for run in RUNS}
TEXT = [run for run in LATEST.values() if run.benchmark == "metamathqa"]
LORA = LATEST[("lora", ("rslora",), "metamathqa")]
FLUX = LATEST[("lora", (), "image_gen")]
INSTALL = {
    "trl": "pip install 'trl==1.16.0' 'datasets>=4.7'",
    "axolotl": "pip install --no-deps --ignore-requires-python axolotl==0.21.0 addict",
    "llamafactory": "pip install --no-deps llamafactory==0.9.5 omegaconf",
    "swift": "pip install --no-deps ms-swift==4.6.0",
    "unsloth": "pip install --no-deps unsloth==2026.10.9",
}
"""What makes the checks by a tool's own code possible; none of it needs a GPU."""
TINY_ROWS = [
    {"query": "what is 1 + 2", "response": "the sum is 2"},
    {"query": "what is the sum 1", "response": "2 is the sum , a 1 ."},
] * 2


def file(run: Run, trainer: str, **more: Any) -> str:
    return snippet(run, CATALOG.benchmark_by_id[run.benchmark], trainer=trainer, **more)


def written(trainer: str) -> Iterator[tuple[Run, str]]:
    """The files of a tool for all recipes that it takes."""
    for run in LATEST.values():
        with contextlib.suppress(ConfigError):
            yield run, file(run, trainer)


def changed(run: Run, config: dict[str, Any] | None = None, **training: Any) -> Run:
    document = run.model_dump()
    document["recipe"]["config"] = run.recipe.config if config is None else config
    document["recipe"]["training"] |= training
    return Run.model_validate(document)


def entries(source: str, kind: str) -> dict[str, Any]:
    """What a configuration file or a command states."""
    if kind == "yaml":
        found: dict[str, Any] = pytest.importorskip("yaml").safe_load(source)
        return found
    line = "".join(part for part in source.splitlines(keepends=True) if not part.startswith("#"))
    words = shlex.split(line.replace("\\\n", " "))
    stated: dict[str, Any] = {}
    for word in words:
        if word.startswith("--"):
            name = word[2:]
            stated[name] = []
        elif stated:
            stated[name].append(word)
    return {key: values[0] if len(values) == 1 else values for key, values in stated.items()}


# --- what every file says ---


def test_every_trainer_with_a_file_has_a_writer() -> None:
    assert {one.id for one in TRAINERS} == {"trl", *WRITERS}
    assert {one.file for one in TRAINERS} == set(LANGUAGES)


@pytest.mark.parametrize("trainer", TRAINERS, ids=lambda one: one.id)
def test_files_are_written_for_what_is_accepted_and_refused_for_the_rest(trainer: Any) -> None:
    benchmark = "image_gen" if "image" in trainer.models else "metamathqa"
    models = CATALOG.benchmark_by_id[benchmark].modality
    for run in LATEST.values():
        if run.benchmark != benchmark:
            continue
        found = accepts(CATALOG, recipe_of_run(run, models), trainer)
        # kohya has no script for the measured model, and some methods no loop at all
        if not found.satisfies(partly=True) or trainer.id == "kohya":
            with pytest.raises(ConfigError, match=r"^no "):
                file(run, trainer.id)
        else:
            source = file(run, trainer.id)
            assert run.experiment in source
            assert f"Facts about {trainer.title} {trainer.version}" in source


@pytest.mark.parametrize("trainer", STATING, ids=lambda one: one.id)
def test_files_have_recorded_keys_alone_and_the_measured_values(trainer: Any) -> None:
    known = {*trainer.keys.values(), *trainer.extra_keys}
    runs = list(written(trainer.id))
    assert runs
    for run, source in runs:
        stated, training = entries(source, trainer.file), run.recipe.training
        assert set(stated) <= known, set(stated) - known
        keys = trainer.keys

        def value(field: str, stated: dict[str, Any] = stated, keys: Any = keys) -> str:
            return str(stated[keys[field]])

        assert float(value("learning_rate")) == training.learning_rate
        assert int(value("max_steps")) == training.max_steps
        assert int(value("batch_size")) * int(value("accumulation")) == training.batch_size
        assert int(value("max_length")) == training.max_length
        assert int(value("seed")) == training.seed
        assert float(value("grad_norm_clip")) == (training.grad_norm_clip or 0.0)
        decay = training.optimizer_options.get("weight_decay", 0.01)
        assert float(value("weight_decay")) == decay
        assert value("lr_scheduler") == (training.lr_scheduler or "constant")
        warmup = training.max_steps // 10 if training.lr_scheduler else 0
        assert int(value("warmup")) == warmup
        assert value("model") == training.model_id
        if run.method == "lora":
            assert int(value("r")) == run.recipe.config.get("r", 8)
            assert float(value("lora_alpha")) == run.recipe.config.get("lora_alpha", 8)
            assert float(value("lora_dropout")) == run.recipe.config.get("lora_dropout", 0.0)
            chosen = {**run.recipe.resolved, **run.recipe.config}["target_modules"]
            assert all(str(target) in value("target_modules") for target in chosen)


@pytest.mark.parametrize("name", ["trl", "unsloth"])
def test_scripts_are_python_as_formatters_have_it(name: str, tmp_path: Path) -> None:
    count = 0
    for number, (run, source) in enumerate(written(name)):
        tree = ast.parse(source)
        calls = {
            ast.unparse(node.func): node for node in ast.walk(tree) if isinstance(node, ast.Call)
        }
        constants = {
            ast.unparse(node.targets[0]): node.value.value
            for node in tree.body
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        }
        training = run.recipe.training
        assert constants["STEPS"] == training.max_steps
        assert constants["LEARNING_RATE"] == training.learning_rate
        assert constants["BATCH_SIZE"] * constants["ACCUMULATION"] == training.batch_size
        assert constants["MAX_LENGTH"] == training.max_length
        stated = {one.arg: ast.unparse(one.value) for one in calls["SFTConfig"].keywords}
        assert stated["packing"] == "False"
        assert stated["max_steps"] == "STEPS"
        (tmp_path / f"{number}.py").write_text(source, encoding="utf-8")
        count += 1
    assert count >= (50 if name == "trl" else 3)
    if importlib.util.find_spec("ruff") is None:
        pytest.skip("ruff is not installed")
    ruff = [sys.executable, "-m", "ruff"]
    options = ["--isolated", "--line-length", "100", str(tmp_path)]
    for verb in (["format", "--check"], ["check", "--select", "F,W,B,UP"]):
        done = subprocess.run([*ruff, *verb, *options], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


def test_a_setup_is_written_in_the_tool_s_words() -> None:
    setup = Settings(
        batch_size=1,
        accumulation=4,
        quantization="bnb_4bit",
        gradient_checkpointing=True,
        optimizer="adamw_8bit",
        fused_loss=True,
        sequence_length=512,
    )
    stated = entries(file(LORA, "axolotl", setup=setup), "yaml")
    assert (stated["adapter"], stated["load_in_4bit"]) == ("qlora", True)
    assert (stated["micro_batch_size"], stated["gradient_accumulation_steps"]) == (1, 4)
    assert (stated["optimizer"], stated["sequence_len"]) == ("adamw_bnb_8bit", 512)
    assert stated["gradient_checkpointing"] is stated["chunked_cross_entropy"] is True
    stated = entries(file(LORA, "llama-factory", setup=setup), "yaml")
    assert (stated["quantization_bit"], stated["disable_gradient_checkpointing"]) == (4, False)
    stated = entries(file(LORA, "ms-swift", setup=setup), "shell")
    assert (stated["quant_bits"], stated["gradient_checkpointing"]) == ("4", "true")
    script = file(LORA, "unsloth", setup=setup)
    assert "load_in_4bit=True" in script
    assert "use_gradient_checkpointing=True" in script
    script = file(LORA, "trl", setup=setup)
    assert "weight.data.to(dtypes[name])" in script  # TRL casts, the file casts back
    assert 'gradient_checkpointing_kwargs={"use_reentrant": False}' in script
    assert "done here: Cast the trainable tensors to float32" in " ".join(script.split())


def test_what_is_lost_and_what_differs_stands_above_the_file() -> None:
    config = {**LORA.recipe.config, "bias": "all", "exclude_modules": ["lm_head"]}
    source = file(changed(LORA, config), "axolotl")
    told = " ".join(source.replace("#", " ").split())
    assert "lost: bias: lora_bias is dropped without a word" in told
    assert "not written: bias = 'all'" in told
    assert "lora_bias" not in entries(source, "yaml")
    for name in ("axolotl", "llama-factory", "ms-swift", "unsloth", "trl"):
        told = " ".join(file(LORA, name).replace("#", " ").split())
        for words in ("loss over question and answer, as measured", "chat template", "packing"):
            assert words in told, f"{name}: {words}"


@pytest.mark.parametrize("name", ["axolotl", "llama-factory", "ms-swift", "unsloth", "trl"])
def test_text_of_a_catalog_cannot_become_code(name: str) -> None:
    evil = 'x"\n$(touch here) `id` \n- y: {z}\n"""'
    config = {**LORA.recipe.config, "target_modules": [evil]}
    source = file(changed(LORA, config, model_id=evil), name)
    kind = next(one.file for one in TRAINERS if one.id == name)
    if kind == "script":
        values = {
            node.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant)
        }
        assert evil in values
        return
    stated = entries(source, str(kind))
    assert stated[next(one.keys["model"] for one in TRAINERS if one.id == name)] == evil
    comments = [line for line in source.splitlines() if line.startswith("#")]
    assert not any(mark in line for line in comments for mark in ("`", "$(")) or kind == "yaml"


# --- refusals ---


def test_refusals_say_why_and_who_takes_it() -> None:
    oft = LATEST[("oft", (), "metamathqa")]
    with pytest.raises(ConfigError, match="LoRA alone; it is taken by: llama-factory, trl"):
        file(oft, "unsloth")
    prefix = LATEST[("prefix_tuning", (), "metamathqa")]
    with pytest.raises(ConfigError, match="does not train with gradient checkpointing"):
        file(prefix, "trl", setup=Settings(gradient_checkpointing=True))
    assert "gradient_checkpointing=False" in file(prefix, "trl")
    with pytest.raises(ConfigError, match="there are files for: axolotl"):
        file(LORA, "ludwig")
    with pytest.raises(UnknownNameError, match="unsloth"):
        file(LORA, "unslooth")
    with pytest.raises(ConfigError, match="no image models"):
        file(FLUX, "trl")
    with pytest.raises(ConfigError, match="UNet2DConditionModel"):
        file(FLUX, "kohya")


def test_another_version_is_a_caution_in_the_file() -> None:
    assert "not about 1.15.0" in " ".join(file(LORA, "trl==1.15.0").split())


def test_the_command_line_writes_it() -> None:
    words = ["snippet", LORA.experiment, "--trainer", "axolotl"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0
    assert entries(done.stdout, "yaml")["peft_use_rslora"] is True
    done = CliRunner().invoke(app, [*words, "--format", "json"])
    whole = json.loads(done.stdout)
    assert (whole["trainer"], whole["language"]) == ("axolotl", "yaml")
    done = CliRunner().invoke(app, [*words, "--format", "markdown"])
    assert done.stdout.startswith("```yaml\n")


def test_candidates_write_it_too() -> None:
    best = recommend("metamathqa", peft_version="any").best
    assert best.snippet(trainer="trl") != best.snippet == best.snippet()


# --- for a model of one's own ---

LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "num_hidden_layers": 4,
    "vocab_size": 1024,
    "dtype": "bfloat16",
}
HOSTILE = "it's: 'x\" $(touch pwned) `id` # {y}\n- z"
TEXT_TRAINERS = ["axolotl", "llama-factory", "ms-swift", "trl", "unsloth"]


def local(folder: Path, name: str = "llama", **more: Any) -> str:
    """Folder of a model that is its configuration alone."""
    (folder / name).mkdir()
    (folder / name / "config.json").write_text(json.dumps(LLAMA | more), encoding="utf-8")
    return str(folder / name)


def asked(*words: str) -> Any:
    return CliRunner().invoke(app, ["snippet", LORA.experiment, *words])


def value_of(source: str, trainer: str, field: str) -> Any:
    """What a file states for a field of a recipe."""
    tool = CATALOG.trainer_by_id[trainer]
    if tool.file != "script":
        return entries(source, str(tool.file))[tool.keys[field]]
    found = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
            found[ast.unparse(node.targets[0])] = node.value.value
        elif isinstance(node, ast.keyword) and not isinstance(node.value, ast.Name):
            with contextlib.suppress(ValueError):
                found.setdefault(str(node.arg), ast.literal_eval(node.value))
    return found["MODEL_ID"] if field == "model" else found.get(tool.keys.get(field, field))


@pytest.mark.parametrize("trainer", TEXT_TRAINERS)
@pytest.mark.parametrize("device", [(), ("--device", "RTX 4090")], ids=["any", "fits"])
def test_the_next_step_of_an_answer_works_on_a_local_model(
    trainer: str, device: tuple[str, ...], tmp_path: Path
) -> None:
    # its recipe leaves the modules to peft's own table, which other tools do not have
    model = local(tmp_path, HOSTILE)
    done = asked("--model", model, *device, "--trainer", trainer)
    assert done.exit_code == 0, done.exception
    assert value_of(done.stdout, trainer, "model") == model
    if trainer == "trl":
        assert "# peft chose for this model: target_modules q_proj, v_proj" in done.stdout
    else:
        targets = value_of(done.stdout, trainer, "target_modules")
        listed = targets.split(",") if isinstance(targets, str) else targets
        assert listed == ["q_proj", "v_proj"]
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("trainer", TEXT_TRAINERS)
def test_a_base_in_another_format_is_named_or_refused_and_never_loaded_as_something_else(
    trainer: str, tmp_path: Path
) -> None:
    gptq = {"quant_method": "gptq", "bits": 4, "group_size": 128}
    done = asked("--model", local(tmp_path, quantization_config=gptq), "--trainer", trainer)
    if trainer == "trl":  # the files say so themselves
        assert "BitsAndBytesConfig" not in done.stdout
    elif trainer == "unsloth":
        assert isinstance(done.exception, ConfigError)
        assert "a base in gptq: it is not on record" in str(done.exception)
    else:
        tool = CATALOG.trainer_by_id[trainer]
        stated = entries(done.stdout, str(tool.file))
        assert not {"load_in_4bit", "load_in_8bit", "quant_method"} & set(stated)
        assert tool.keys["quantization"] not in stated
        assert stated.get("gptq", False) == (trainer == "axolotl")
    # a format that no key is on record for
    fp8 = {"quant_method": "fp8", "weight_block_size": [128, 128]}
    done = asked("--model", local(tmp_path, "fp8", quantization_config=fp8), "--trainer", trainer)
    assert done.exit_code == 0 if trainer == "trl" else isinstance(done.exception, ConfigError)


@pytest.mark.parametrize("trainer", TEXT_TRAINERS)
def test_what_only_a_loop_can_carry_out_of_a_setup_is_told(trainer: str) -> None:
    setup = Settings(
        attention="eager",
        quantization="bnb_4bit",
        double_quantization=False,
        autocast_adapter_dtype=False,
    )
    told = " ".join(file(LORA, trainer, setup=setup).replace("#", " ").split())
    if trainer == "trl":
        assert 'attn_implementation="eager"' in told
        assert "bnb_4bit_use_double_quant=False" in told
        assert "not written" not in told
        return
    for words in (
        "not written: attention = 'eager'",
        "not written: double_quantization = False",
        "not written: adapters in bfloat16",
        "not written: how the base is prepared",
    ):
        assert words in told
    assert "not written" not in file(LORA, trainer, setup=Settings(batch_size=2)).replace(
        "not written: the benchmark's words", ""
    )


# --- images ---


@pytest.fixture
def kohya(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Run], str]:
    """Writes kohya's command for a run, as if its model were of this class."""
    from peft_shop.scripts.trainers import file as writing

    original = writing.WRITERS["kohya"]

    def write(architecture: str, run: Run) -> str:
        def of_class(order: Any) -> str:
            return original(dataclasses.replace(order, architecture=architecture))

        monkeypatch.setattr(writing, "WRITERS", {**writing.WRITERS, "kohya": of_class})
        return file(run, "kohya")

    return write


@pytest.mark.parametrize(
    ("architecture", "script"),
    [
        ("UNet2DConditionModel", "sdxl_train_network.py"),
        ("FluxTransformer2DModel", "flux_train_network.py"),
    ],
)
def test_kohya_s_command_for_models_that_it_trains(
    kohya: Callable[[str, Run], str], architecture: str, script: str
) -> None:
    source = kohya(architecture, FLUX)
    trainer = CATALOG.trainer_by_id["kohya"]
    stated = entries(source, "shell")
    assert f"accelerate launch {script}" in source
    assert set(stated) <= {*trainer.keys.values(), *trainer.extra_keys}
    assert stated["network_module"] == "networks.lora"
    assert int(stated["network_dim"]) == FLUX.recipe.config.get("r", 8)
    assert float(stated["network_alpha"]) == FLUX.recipe.config.get("lora_alpha", 8)
    assert f"batch_size = {FLUX.recipe.training.batch_size}" in source


UNET = "UNet2DConditionModel"


@pytest.mark.parametrize(
    ("config", "training", "network", "arguments"),
    [
        ({}, {}, "networks.lora", []),
        ({"use_dora": True}, {}, "lycoris.kohya", ["algo=lora", "dora_wd=True"]),
        ({"use_rslora": True}, {}, "lycoris.kohya", ["algo=lora", "rs_lora=True"]),
        ({}, {"optimizer": "lora-fa"}, "networks.lora_fa", []),
        (
            {},
            {"optimizer": "lora+", "optimizer_options": {"loraplus_lr_ratio": 16}},
            "networks.lora",
            ["loraplus_lr_ratio=16"],
        ),
        (
            {"use_dora": True},
            {"optimizer": "lora+", "optimizer_options": {"loraplus_lr_ratio": 16}},
            "lycoris.kohya",
            ["algo=lora", "dora_wd=True", "loraplus_lr_ratio=16"],
        ),
    ],
)
def test_kohya_gets_the_network_that_has_the_variant(
    kohya: Callable[[str, Run], str],
    config: dict[str, Any],
    training: dict[str, Any],
    network: str,
    arguments: list[str],
) -> None:
    run = changed(FLUX, {**FLUX.recipe.config, **config}, **training)
    variants = tuple(field.removeprefix("use_") for field in config)
    source = kohya(UNET, run.model_copy(update={"variants": variants}))
    stated = entries(source, "shell")
    assert stated["network_module"] == network
    given = stated.get("network_args", [])
    assert (given if isinstance(given, list) else [given]) == arguments
    if network == "lycoris.kohya":
        assert "do first: Install lycoris_lora" in source


def test_kohya_keeps_the_scale_and_refuses_what_it_counts_otherwise(
    kohya: Callable[[str, Run], str],
) -> None:
    stated = entries(kohya(UNET, LATEST[("glora", (), "image_gen")]), "shell")
    assert stated["network_alpha"] == stated["network_dim"]  # a scale of 1, which peft has
    stated = entries(kohya(UNET, LATEST[("loha", (), "image_gen")]), "shell")
    assert (stated["network_dim"], stated["network_alpha"]) == ("32", "32")
    for method in ("oft", "boft", "ia3"):
        with pytest.raises(ConfigError, match="something else"):
            kohya(UNET, LATEST[(method, (), "image_gen")])


def test_diffusers_script_of_the_measured_model() -> None:
    source = file(FLUX, "diffusers")
    assert "accelerate launch train_dreambooth_lora_flux2_klein.py" in source
    with pytest.raises(ConfigError, match="use_dora"):
        file(LATEST[("lora", ("dora",), "image_gen")], "diffusers")


# --- by the tools' own code, where it is installed; none of it needs a GPU ---


def needed(package: str) -> Path:
    """Folder of an installed package that is not imported, or a skip with the command."""
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        pytest.skip(f"{package} is not installed, recorded keys stand for it: {INSTALL[package]}")
    return Path(next(iter(found.submodule_search_locations)))


@pytest.mark.slow
def test_axolotl_s_own_schema_takes_every_key() -> None:
    needed("axolotl")
    schema = pytest.importorskip("axolotl.utils.schemas.config").AxolotlInputConfig
    count = 0
    for _, source in written("axolotl"):
        stated = entries(source, "yaml")
        kept = schema(**stated).model_dump(exclude_unset=True)
        assert {key: kept.get(key) for key in stated if key != "datasets"} == {
            key: value for key, value in stated.items() if key != "datasets"
        }
        assert kept["datasets"][0]["type"] == stated["datasets"][0]["type"]
        count += 1
    assert count >= 3


@pytest.mark.slow
def test_llama_factory_s_own_parser_takes_every_key(monkeypatch: pytest.MonkeyPatch) -> None:
    needed("llamafactory")
    monkeypatch.setenv("DISABLE_VERSION_CHECK", "1")
    parser = pytest.importorskip("llamafactory.hparams.parser")
    from transformers import HfArgumentParser

    count = 0
    for _, source in written("llama-factory"):
        stated = entries(source, "yaml")
        # a machine without a GPU refuses the type, which says nothing of the key
        parsed = HfArgumentParser(parser._TRAIN_ARGS).parse_dict(
            {**stated, "bf16": False}, allow_extra_keys=False
        )
        flat: dict[str, Any] = {}
        for group in parsed:
            flat |= vars(group)
        for key, value in stated.items():
            if key not in {"bf16", "report_to"}:
                given = flat[key]
                assert (",".join(given) if isinstance(given, list) else given) == value
        count += 1
    assert count >= 3


@pytest.mark.slow
def test_swift_s_arguments_have_every_flag() -> None:
    folder = needed("swift")
    from transformers import Seq2SeqTrainingArguments

    fields = {one.name for one in dataclasses.fields(Seq2SeqTrainingArguments)}
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                fields |= {
                    ast.unparse(one.target) for one in node.body if isinstance(one, ast.AnnAssign)
                }
    for run, source in written("ms-swift"):
        assert set(entries(source, "shell")) <= fields, run.experiment


@pytest.mark.slow
def test_unsloth_s_signatures_have_every_argument() -> None:
    folder = needed("unsloth")
    names: dict[str, set[str]] = {}
    for place in ("models/llama.py", "models/loader.py"):
        for node in ast.walk(ast.parse((folder / place).read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                known = names.setdefault(node.name, set())
                known |= {one.arg for one in (*node.args.args, *node.args.kwonlyargs)}
    # these go on to peft as further arguments
    further = {"use_dora", "rank_pattern", "alpha_pattern"}
    for _, source in written("unsloth"):
        for node in ast.walk(ast.parse(source)):
            if not isinstance(node, ast.Call):
                continue
            owner, _, function = ast.unparse(node.func).rpartition(".")
            if owner == "FastLanguageModel":
                given = {str(one.arg) for one in node.keywords}
                assert given <= names[function] | further


def training(
    monkeypatch: pytest.MonkeyPatch, folder: Path
) -> Callable[[str, Any], tuple[dict[str, Any], str]]:
    """Runs a script in a folder on these rows: its names and what it printed. Skips without TRL."""
    if importlib.util.find_spec("trl") is None or importlib.util.find_spec("datasets") is None:
        pytest.skip(f"TRL is not installed: {INSTALL['trl']}")
    import datasets

    monkeypatch.chdir(folder)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def train(source: str, rows: Any) -> tuple[dict[str, Any], str]:
        monkeypatch.setattr(datasets, "load_dataset", lambda *_, split: rows)  # noqa: ARG005 - its signature
        names: dict[str, Any] = {"__name__": "__main__"}
        with contextlib.redirect_stdout(io.StringIO()) as told, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # packages warn about one another
            exec(compile(source, "script", "exec"), names)  # noqa: S102 - running it is the test
        return names, told.getvalue()

    return train


def subjects() -> list[Run]:
    """A run of every method and variant that TRL takes."""
    found = []
    for run in TEXT:
        with contextlib.suppress(ConfigError):
            file(run, "trl")
            found.append(run)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("run", subjects(), ids=lambda run: run.experiment)
def test_trl_trains_every_method_that_it_takes_as_the_plain_loop_does(
    run: Run, two_layers: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    train = training(monkeypatch, tmp_path)
    import datasets
    import torch

    from peft_shop.model.inspection import inspect_model

    structure = inspect_model(str(two_layers)).structure
    short = changed(run, max_steps=6, batch_size=len(TINY_ROWS), dtype="float32")
    if run.method == "trainable_tokens":
        config = {**run.recipe.config, "token_indices": [6, 7]}
        short = changed(short, config, model_id=str(two_layers))
        more: tuple[Any, ...] = ()
    else:
        options = TargetOptions(total_steps=6) if run.method == "adalora" else TargetOptions()
        more = (retarget(CATALOG, short, structure, options), structure)
    benchmark = CATALOG.benchmark_by_id[run.benchmark]
    source = snippet(short, benchmark, *more, trainer="trl", catalog=CATALOG)
    rows = datasets.Dataset.from_list(TINY_ROWS)
    names, told = train(source.replace("logging_steps=50", "logging_steps=1"), rows)
    losses = [row["loss"] for row in names["trainer"].state.log_history if "loss" in row]
    plain = snippet(short, benchmark, *more, catalog=CATALOG)
    _, printed = train(plain.replace("step % 50 == 0", "True"), TINY_ROWS)
    steps = [line for line in printed.splitlines() if line.startswith("step ")]
    expected = [float(line.split()[-1]) for line in steps]
    assert losses[0] == pytest.approx(expected[0], abs=2e-4)
    # transformers keeps weight decay from norms and biases, of which a shadow has some
    assert losses == pytest.approx(expected, abs=2e-2 if run.method == "shadow" else 2e-3)
    initial = names["initial"]
    moved = {
        name
        for name, weight in names["model"].named_parameters()
        if name in initial and not torch.equal(weight.detach().cpu(), initial[name])
    }
    assert moved
    # what AdaLoRA has pruned is back at its start, 0
    still = {name for name in set(initial) - moved if "lora_E" not in name}
    assert "stay" in told or not still
    assert (tmp_path / "adapter" / "adapter_config.json").is_file()
    if run.method == "adalora":
        assert names["model"].peft_config["default"].rank_pattern


@pytest.mark.slow
@pytest.mark.parametrize("method", ["ia3", "ln_tuning"])
def test_on_a_4_bit_base_the_file_trains_what_trl_alone_leaves_as_it_is(
    method: str, two_layers: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    train = training(monkeypatch, tmp_path)
    pytest.importorskip("bitsandbytes", reason="pip install bitsandbytes")
    import datasets
    import torch

    from peft_shop.model.inspection import inspect_model

    structure = inspect_model(str(two_layers)).structure
    run = changed(LATEST[(method, (), "metamathqa")], max_steps=4, learning_rate=1e-4)
    source = snippet(
        run,
        CATALOG.benchmark_by_id[run.benchmark],
        retarget(CATALOG, run, structure, TargetOptions()),
        structure,
        setup=Settings(quantization="bnb_4bit", dtype="float32", batch_size=4),
        trainer="trl",
    )
    rows = datasets.Dataset.from_list(TINY_ROWS)
    names, _ = train(source, rows)
    weights = dict(names["model"].named_parameters())
    for name, start in names["initial"].items():
        assert weights[name].dtype == torch.float32
        assert not torch.equal(weights[name].detach().cpu(), start), name
    cure = "weight.data = weight.data.to(dtypes[name])"
    assert cure in source
    with pytest.raises(SystemExit, match="nothing trains"):
        train(source.replace(cure, "pass"), rows)

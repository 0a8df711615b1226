"""Run -> complete training script with the run's own configuration and hyper-parameters.

Nothing of a catalog can become code: values go in as literals, names as plain identifiers, free
text only into the header, cut down to harmless characters (`peft_shop.scripts.source`).
"""

from __future__ import annotations

import re
import textwrap
from typing import TYPE_CHECKING, Final

from peft_shop.adapt.records import retargeted_recipe
from peft_shop.errors import ConfigError
from peft_shop.scripts.image import image_script
from peft_shop.scripts.source import WIDTH, Parts, Raw, call, comment, imports, literal
from peft_shop.scripts.text import text_script
from peft_shop.units import format_quantity
from peft_shop.upstream.configs import config_dict

if TYPE_CHECKING:
    from peft_shop.adapt.records import Retargeted
    from peft_shop.catalog.runs import Benchmark, Recipe, Run, Training
    from peft_shop.model.structure import Structure
    from peft_shop.records import Json

__all__ = ["snippet"]

_CLASSES: Final = {
    "ADALORA": "AdaLoraConfig",
    "ADAMSS": "AdamssConfig",
    "ADAPTION_PROMPT": "AdaptionPromptConfig",
    "BEFT": "BeftConfig",
    "BOFT": "BOFTConfig",
    "C3A": "C3AConfig",
    "CARTRIDGE": "CartridgeConfig",
    "DEFT": "DeftConfig",
    "DELORA": "DeloraConfig",
    "FOURIERFT": "FourierFTConfig",
    "FROD": "FrodConfig",
    "GLORA": "GloraConfig",
    "GRALORA": "GraloraConfig",
    "HIRA": "HiraConfig",
    "HRA": "HRAConfig",
    "IA3": "IA3Config",
    "LILY": "LilyConfig",
    "LN_TUNING": "LNTuningConfig",
    "LOHA": "LoHaConfig",
    "LOKR": "LoKrConfig",
    "LORA": "LoraConfig",
    "MISS": "MissConfig",
    "OFT": "OFTConfig",
    "OSF": "OSFConfig",
    "PEANUT": "PeanutConfig",
    "PREFIX_TUNING": "PrefixTuningConfig",
    "PROMPT_TUNING": "PromptTuningConfig",
    "PSOFT": "PsoftConfig",
    "PVERA": "PveraConfig",
    "P_TUNING": "PromptEncoderConfig",
    "RANDLORA": "RandLoraConfig",
    "ROAD": "RoadConfig",
    "SHADOW": "ShadowConfig",
    "SHIRA": "ShiraConfig",
    "SUPERTUNING": "SupertuningConfig",
    "TINYLORA": "TinyLoraConfig",
    "TRAINABLE_TOKENS": "TrainableTokensConfig",
    "UNILORA": "UniLoraConfig",
    "VBLORA": "VBLoRAConfig",
    "VERA": "VeraConfig",
    "WAVEFT": "WaveFTConfig",
}
"""Class names of peft 0.21.2; another method is configured through `get_peft_config`."""
_NEEDS_MORE: Final = {
    "CPT": "a mask of the kinds of tokens for every batch",
    "MULTITASK_PROMPT_TUNING": "task ids for every batch",
    "POLY": "task ids for every batch",
    "XLORA": "folders of trained LoRA adapters",
}
"""Methods that a loop of this form cannot train, and what they need besides."""
_PACKAGES: Final = {"ADAMSS": ("scikit-learn",)}
_DTYPES: Final = ("bfloat16", "float16", "float32")
_DATA_DRIVEN: Final = {
    "corda": "peft.tuners.lora.corda.preprocess_corda before get_peft_model",
    "eva": "peft.initialize_lora_eva_weights after get_peft_model",
    "lora_ga": "peft.preprocess_loraga before get_peft_model",
}
"""Initialisations of LoRA that look at data, by `init_lora_weights`."""
_FACTORIES: Final = {
    "lora-fa": ("create_lorafa_optimizer", ()),
    "lora+": ("create_loraplus_optimizer", ("torch.optim.AdamW",)),
    "riemannian": ("create_riemannian_optimizer", ("torch.optim.AdamW",)),
}
"""Optimizers of peft: function of `peft.optimizers` and what it takes besides the model."""
_HANDLED: Final = {
    "attn_implementation",
    "init_kv_cache_prefix",
    "max_sequence_length",
    "text_encoder_out_layers",
}
_IMAGE_MODEL: Final = "Flux2Transformer2DModel"
"""The backbone that the image script loads."""
_TORCH_OPTIMIZER: Final = re.compile(r"[A-Z][A-Za-z]*")


def snippet(
    run: Run,
    benchmark: Benchmark,
    retargeted: Retargeted | None = None,
    model: Structure | None = None,
) -> str:
    """Python script that trains with the configuration and settings of `run`.

    The user's choices (model, data, output folder) are constants at its top. Its header names the
    run, what was measured, on which hardware and with which versions.

    Args:
        run: what is repeated.
        benchmark: what it was measured on.
        retargeted: the configuration for another model; its changes are told in the script.
        model: that model.

    Raises:
        ConfigError: full fine-tuning; a method or setting that such a script cannot have; a value
            that is no JSON value; a model of another kind than the benchmark's.
    """
    recipe = run.recipe
    if retargeted is not None and model is not None:
        recipe = _for_model(recipe, retargeted, model, benchmark)
    configuration = config_dict(recipe)
    peft_type = configuration.pop("peft_type")
    if peft_type in _NEEDS_MORE:
        needs = _NEEDS_MORE[peft_type]
        msg = f"no script for {peft_type}: it needs {needs}; see peft's documentation of it"
        raise ConfigError(msg)
    training = recipe.training
    if training.dtype not in _DTYPES:
        msg = (
            f"no script for training.dtype {training.dtype!r}; "
            f"scripts load the base model as {', '.join(_DTYPES)}"
        )
        raise ConfigError(msg)
    if training.lr_scheduler not in {None, "cosine"}:
        msg = f"no script for training.lr_scheduler {training.lr_scheduler!r}; known: cosine, None"
        raise ConfigError(msg)
    factory = _FACTORIES.get(training.optimizer)
    parts = Parts(
        shared={
            "header": _header(run, recipe, benchmark, retargeted),
            "model_id": literal(training.model_id),
            "steps": literal(training.max_steps),
            "batch_size": literal(training.batch_size),
            "seed": literal(training.seed),
            "config": _config(peft_type, configuration, recipe),
            "optimizer": _optimizer(training),
            "update": _update(peft_type, recipe),
        },
        dtype=training.dtype,
        autocast_adapter_dtype=training.autocast_adapter_dtype,
        peft_names=(_CLASSES.get(peft_type, "get_peft_config"),),
        optimizer_imports=(imports("peft.optimizers", factory[0]),) if factory else (),
        transformers_names=("get_cosine_schedule_with_warmup",) if training.lr_scheduler else (),
    )
    script = image_script if benchmark.modality == "image" else text_script
    return script(recipe, parts)


def _for_model(
    recipe: Recipe, retargeted: Retargeted, model: Structure, benchmark: Benchmark
) -> Recipe:
    """The recipe with the other model's configuration and name."""
    known = benchmark.modality != "image" or model.architecture == _IMAGE_MODEL
    if model.benchmark != benchmark.id or not known:
        msg = (
            f"no script for {model.name}: the script of {benchmark.title} trains another kind of "
            f"model ({model.benchmark_because})"
        )
        raise ConfigError(msg)
    if retargeted.problems:
        raise ConfigError(f"no script for {model.name}: {'; '.join(retargeted.problems)}")
    loadable = model.name != model.architecture
    name = model.name if loadable else f"path-or-id-of-your-{model.architecture}"
    training = recipe.training.model_copy(update={"model_id": name})
    return retargeted_recipe(recipe, retargeted).model_copy(update={"training": training})


def _changes(retargeted: Retargeted | None) -> list[str]:
    if retargeted is None or not retargeted.changes:
        return []
    fields = ", ".join(change.field for change in retargeted.changes)
    return [f"  changed for this model: {fields}"]


def _header(run: Run, recipe: Recipe, benchmark: Benchmark, retargeted: Retargeted | None) -> str:
    score = run.metrics.get(benchmark.headline)
    memory = run.metrics.get("peak_memory_bytes")
    packages = ["peft", "torch", "transformers", "datasets"]
    packages += ["'diffusers>=0.40'", "pillow"] if benchmark.modality == "image" else []
    packages += _PACKAGES.get(recipe.peft_type or "", ())
    versions = [
        f"{name} {version}"
        for name, version in run.provenance.packages.items()
        if name in {"peft", "torch", "transformers", "diffusers"}
    ]
    left_out = [
        setting
        for setting, used in (
            ("torch.compile", recipe.training.compile),
            ("automatic mixed precision", recipe.training.mixed_precision),
        )
        if used
    ]
    left_out += [
        f"{key} = {value!r}"
        for key, value in sorted(recipe.training.options.items())
        if key not in _HANDLED
    ]
    label = benchmark.headline.replace("_", " ")
    shown = "not recorded" if score is None else f"{score:.4g}"
    lines = [
        f"Train an adapter of {recipe.training.model_id} with peft ({recipe.peft_type}).",
        "",
        f"Measured run: {run.experiment} of {benchmark.title}, {run.created_at[:10]}",
        f"  {label}: {shown}",
        f"  peak memory: {'not recorded' if memory is None else format_quantity(memory, 'bytes')}",
        *_changes(retargeted),
        f"  hardware: {run.provenance.accelerator}",
        f"  versions: {', '.join(versions) or 'not recorded'}",
        *(f"  caution, {flag.code}: {flag.reason}" for flag in run.flags),
        *(f"  not in this script: {setting}" for setting in left_out),
        "These figures belong to that model, data and hardware; on others they will differ.",
        "",
        f"pip install {' '.join(packages)}",
    ]
    # a docstring: the characters that comment lets through cannot end it
    return '"""' + "\n".join(_wrapped(comment(line)) for line in lines) + '\n"""\n'


def _wrapped(line: str) -> str:
    folded = textwrap.wrap(
        line, WIDTH, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False
    )
    return "\n".join(folded)


def _config(peft_type: str, configuration: dict[str, Json], recipe: Recipe) -> str:
    """Statement that makes the configuration, with notes on what peft does not do by itself."""
    if configuration.get("total_step") == recipe.training.max_steps:
        configuration["total_step"] = Raw("STEPS")  # AdaLoRA's plan follows the steps
    lines = [
        f"# peft chose for this model: {comment(key)} {comment(_listed(modules))}"
        for key, modules in sorted(recipe.resolved.items())
        if key.endswith("_modules") and key not in configuration
    ]
    needed = _DATA_DRIVEN.get(str(configuration.get("init_lora_weights")))
    if needed:
        lines.append(f"# This initialisation looks at data: it needs {needed}.")
    if configuration.get("kasa_config"):
        lines += [
            "# KaSA's two regularisers are left to the loop. The losses on record are without; to",
            "# add them: loss = loss + model._get_kasa_loss()",
        ]
    if configuration.get("monteclora_config"):
        lines.append("# MonteCLoRA's own loss: loss = loss + model._get_monteclora_loss()")
    if peft_type == "TRAINABLE_TOKENS":
        lines.append("# The indices belong to that model's vocabulary.")
    name = _CLASSES.get(peft_type)
    if name is not None:
        lines.append("config = " + call(name, configuration, used=9))
    else:
        whole = literal({"peft_type": peft_type, **configuration}, indent=4, used=4)
        lines.append("config = " + call("get_peft_config", {}, whole, used=9))
    return "\n".join(lines)


def _listed(names: Json) -> str:
    return ", ".join(map(str, names)) if isinstance(names, list | tuple) else str(names)


def _optimizer(training: Training) -> str:
    """Statements that make the optimizer and, where there is one, the schedule."""
    options = {"lr": training.learning_rate, **training.optimizer_options}
    options["lr"] = training.learning_rate
    factory = _FACTORIES.get(training.optimizer)
    if factory is not None:
        name, first = factory
        lines = ["optimizer = " + call(name, options, "model", *first, used=12)]
    elif _TORCH_OPTIMIZER.fullmatch(training.optimizer):
        made = call(f"torch.optim.{training.optimizer}", options, "trainable", used=12)
        lines = [
            "trainable = [weight for weight in model.parameters() if weight.requires_grad]",
            f"optimizer = {made}",
        ]
    else:
        known = ", ".join(["a class of torch.optim", *_FACTORIES])
        msg = f"no script for training.optimizer {training.optimizer!r}; known: {known}"
        raise ConfigError(msg)
    if training.lr_scheduler == "cosine":
        schedule = {"num_warmup_steps": Raw("STEPS // 10"), "num_training_steps": Raw("STEPS")}
        made = call("get_cosine_schedule_with_warmup", schedule, "optimizer", used=12)
        lines.append(f"scheduler = {made}")
    return "\n".join(lines)


def _update(peft_type: str, recipe: Recipe) -> str:
    """Body of the loop from the backward pass to the next step."""
    training = recipe.training
    lines = ["loss.backward()"]
    if training.grad_norm_clip:
        clip = literal(training.grad_norm_clip)
        lines.append(f"torch.nn.utils.clip_grad_norm_(model.parameters(), {clip})")
    lines.append("optimizer.step()")
    if training.lr_scheduler:
        lines.append("scheduler.step()")
    if peft_type == "ADALORA" or recipe.config.get("use_asa"):
        # both decide by the gradients of this step which ranks to keep
        lines.append("model.base_model.update_and_allocate(step)")
    lines.append("optimizer.zero_grad()")
    return "\n".join(f"    {line}" for line in lines)

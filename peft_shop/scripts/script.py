"""Run -> complete training script with the run's own configuration and hyper-parameters.

Nothing of a catalog can become code: values go in as literals, names as plain identifiers, free
text only into the header, cut down to harmless characters (`peft_shop.scripts.source`).
"""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Final

from peft_shop.adapt.records import retargeted_recipe
from peft_shop.catalog.store import load
from peft_shop.errors import ConfigError
from peft_shop.forecast.records import Setup
from peft_shop.scripts.data import TRAIN_FILE
from peft_shop.scripts.header import about, docstring, packages
from peft_shop.scripts.image import image_script
from peft_shop.scripts.loop import optimizer, update
from peft_shop.scripts.parts import ScriptParts
from peft_shop.scripts.source import WIDTH, Raw, call, comment, literal
from peft_shop.scripts.step import step_of
from peft_shop.scripts.text import text_script
from peft_shop.scripts.trainers.file import trainer_file
from peft_shop.scripts.trainers.grpo import grpo_script
from peft_shop.serve.trainers import (
    demanded_trainer,
    resolve_trainer,
    resolve_trainer_demand,
)
from peft_shop.upstream.configs import config_dict

if TYPE_CHECKING:
    from peft_shop.adapt.records import Retargeted
    from peft_shop.catalog.benchmarks import Benchmark
    from peft_shop.catalog.catalog import Catalog
    from peft_shop.catalog.methods import Method, Variant
    from peft_shop.catalog.runs import Recipe, Run
    from peft_shop.forecast.records import Settings
    from peft_shop.model.structure import Structure
    from peft_shop.records import Json

__all__ = ["snippet"]

_IMAGE_MODEL: Final = "Flux2Transformer2DModel"
"""The backbone that the image script loads."""
_NO_SETUP: Final = (
    "Not in this script: the setup that was chosen. It is of a supervised step; what generating "
    "answers needs comes on top."
)
_ANY_CLASS: Final = "get_peft_config"
"""What makes the configuration of a method that the catalog does not know."""


def snippet(
    run: Run,
    benchmark: Benchmark,
    retargeted: Retargeted | None = None,
    model: Structure | None = None,
    *,
    setup: Setup | Settings | None = None,
    device: str | None = None,
    catalog: Catalog | None = None,
    watch: str | None = None,
    trainer: str | None = None,
) -> str:
    """Python script that trains with the configuration and settings of `run`.

    The user's choices (model, data, output folder) are constants at its top. Its header names the
    run, what was measured, on which hardware and with which versions, and the setup.

    Args:
        run: what is repeated.
        benchmark: what it was measured on.
        retargeted: the configuration for another model; its changes are told in the script.
        model: that model; a quantized one is loaded as it is.
        setup: how it is trained: a plan, every setting of which holds, or settings, of which those
            hold that were stated; the rest is as measured.
        device: what the setup is for, in words.
        catalog: holds what is known of the method; the embedded one by default.
        watch: file with the order to a trial's meter, for a trial's own copy of the script.
        trainer: the tool that is to train it, such as `trl`, `axolotl` or `trl==1.15.0`: then what
            that tool reads is written instead. `None` writes the plain loop, the reference.

    Raises:
        UnknownNameError: there is no such trainer; names the nearest.
        ConfigError: a method that the trainer refuses, or of which nobody knows; full fine-tuning
            on data that is not the user's own; a method or setting that such a script cannot have,
            or that was seen not to train so; a value that is no JSON value; a model of another kind
            than the benchmark's.
    """
    recipe = run.recipe
    source = load() if catalog is None else catalog
    tool = None if trainer is None else resolve_trainer_demand(source, trainer)
    if retargeted is not None and model is not None:
        recipe = _for_model(recipe, retargeted, model, benchmark, any_image=tool is not None)
    whole = recipe.peft_type is None and (
        TRAIN_FILE in recipe.training.options or benchmark.procedure == "grpo"
    )
    configuration = {} if whole else config_dict(recipe)
    peft_type = configuration.pop("peft_type", None)
    method = next(
        (method for method in source.methods if method.peft_type == peft_type and not whole), None
    )
    if method is not None and method.loop_needs is not None:
        needs = method.loop_needs
        msg = f"no script for {peft_type}: it needs {needs}; see peft's documentation of it"
        raise ConfigError(msg)
    training = recipe.training
    if benchmark.procedure == "grpo":
        return _by_grpo(
            source,
            run,
            recipe,
            benchmark,
            configuration,
            method=method,
            tool=tool,
            retargeted=retargeted,
            setup=setup,
        )
    if training.lr_scheduler not in {None, "cosine"}:
        msg = f"no script for training.lr_scheduler {training.lr_scheduler!r}; known: cosine, None"
        raise ConfigError(msg)
    step = step_of(run, recipe, benchmark, setup=setup, method=method, model=model)
    lines = about(run, recipe, benchmark, step, retargeted=retargeted, setup=setup, device=device)
    variants = _variants(configuration, method)
    allocates = any(variant.allocates for variant in variants)
    allocates = allocates or (method is not None and method.allocates)
    needed = tuple(packages(recipe, benchmark, step, method))
    shared = {
        "header": docstring([*lines, f"pip install {' '.join(needed)}"]),
        "model_id": literal(training.model_id),
        "dataset": literal(benchmark.dataset or "path-or-id-of-your-data"),
        "origin": "as measured" if setup is None else "as measured, in the setup above",
        "steps": literal(training.max_steps),
        "learning_rate": literal(training.learning_rate),
        "batch_size": literal(step.batch_size),
        "accumulation": literal(step.accumulation),
        "seed": literal(training.seed),
        "config": (
            "# every weight is trained"
            if whole
            else _config(str(peft_type), configuration, recipe, method)
        ),
        "optimizer": optimizer(step, training),
    }
    parts = ScriptParts(
        recipe=recipe,
        step=step,
        method=method,
        config_class=None if whole else _ANY_CLASS if method is None else method.config_class,
        shared=shared,
        update=update(step, training, allocates=allocates),
        watch=watch,
        packages=needed,
        prefix=tuple(_prefix(recipe)),
    )
    shared["model"] = parts.wrap("base")
    if tool is not None:
        return trainer_file(
            source,
            tool,
            run,
            benchmark,
            parts,
            config=configuration,
            about=lines,
            architecture=None if model is None else model.architecture,
            allocates=allocates,
        )
    return image_script(parts) if benchmark.modality == "image" else text_script(parts)


def _by_grpo(
    catalog: Catalog,
    run: Run,
    recipe: Recipe,
    benchmark: Benchmark,
    configuration: dict[str, Json],
    *,
    method: Method | None,
    tool: str | None,
    retargeted: Retargeted | None,
    setup: Setup | Settings | None,
) -> str:
    """The script of a run of reinforcement learning, which TRL alone is written for.

    Raises:
        ConfigError: another tool is asked for, or another setup than the measured one.
    """
    trl = resolve_trainer(catalog, "trl")
    if tool is not None and demanded_trainer(tool)[0] != trl.id:
        msg = f"no file of {run.experiment} for {tool}: it was trained by GRPO, as TRL does it"
        raise ConfigError(f"{msg} (leave --trainer out)")
    step = step_of(run, recipe, benchmark, method=method)
    lines = about(run, recipe, benchmark, step, retargeted=retargeted)
    if isinstance(setup, Setup):
        lines.append(_NO_SETUP)
    elif setup is not None:
        msg = f"no script of {run.experiment} in another setup: it was trained by GRPO, and what "
        raise ConfigError(f"{msg}generating answers needs is not forecast; leave the setup out")
    if recipe.peft_type is not None and method is None:
        raise ConfigError(f"no script of {run.experiment}: nothing is known of its method")
    return grpo_script(
        recipe,
        benchmark,
        about=lines,
        config=(
            "# every weight is trained"
            if recipe.peft_type is None
            else _config(recipe.peft_type, configuration, recipe, method)
        ),
        config_class=None if method is None else method.config_class,
        packages=packages(recipe, benchmark, step, method),
        version=trl.version,
    )


def _for_model(
    recipe: Recipe,
    retargeted: Retargeted,
    model: Structure,
    benchmark: Benchmark,
    *,
    any_image: bool,
) -> Recipe:
    """The recipe with the other model's configuration and name."""
    known = any_image or benchmark.modality != "image" or model.architecture == _IMAGE_MODEL
    kindred = benchmark.on_request and model.modality == benchmark.modality
    if not (model.benchmark == benchmark.id or kindred) or not known:
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
    # what peft fills in is told, and tools need it whose own table says something else
    return retargeted_recipe(recipe, retargeted).model_copy(
        update={"training": training, "resolved": retargeted.resolved}
    )


def _config(
    peft_type: str, configuration: dict[str, Json], recipe: Recipe, method: Method | None
) -> str:
    """Statement that makes the configuration, with notes on what peft does not do by itself."""
    if configuration.get("total_step") == recipe.training.max_steps:
        configuration["total_step"] = Raw("STEPS")  # AdaLoRA's plan follows the steps
    lines = [
        f"# peft chose for this model: {comment(key)} {comment(_listed(modules))}"
        for key, modules in sorted(recipe.resolved.items())
        if key.endswith("_modules") and key not in configuration
    ]
    for variant in _variants(configuration, method):
        if variant.looks_at_data is not None:
            lines += _comments(
                f"This initialisation looks at data: it needs {variant.looks_at_data}."
            )
        if variant.left_to_loop is not None:
            lines += _comments(f"{variant.title} leaves to the loop {variant.left_to_loop}")
    if "token_indices" in configuration:
        lines.append("# The indices belong to that model's vocabulary.")
    if method is not None:
        lines.append("config = " + call(method.config_class, configuration, used=9))
    else:
        whole = literal({"peft_type": peft_type, **configuration}, indent=4, used=4)
        lines.append("config = " + call(_ANY_CLASS, {}, whole, used=9))
    return "\n".join(lines)


def _prefix(recipe: Recipe) -> list[str]:
    """Statements that start a prefix from a text, where the run did."""
    prefix = recipe.training.options.get("init_kv_cache_prefix")
    if prefix is None:
        return []
    start = {"text": prefix, "use_chat_template": False}
    return [
        "# The prefix starts as the model's own cache of a text instead of random numbers.",
        call("initialize_kv_prefix_from_text", start, "model", "tokenizer"),
    ]


def _variants(configuration: dict[str, Json], method: Method | None) -> list[Variant]:
    """Variants that the configuration alone tells."""
    return [
        variant
        for variant in (() if method is None else method.variants)
        if variant.when
        and all(
            condition.config is not None and condition.met_by(configuration.get(condition.config))
            for condition in variant.when
        )
    ]


def _comments(text: str) -> list[str]:
    return [f"# {line}" for line in textwrap.wrap(comment(text), WIDTH - 2)]


def _listed(names: Json) -> str:
    return ", ".join(map(str, names)) if isinstance(names, list | tuple) else str(names)

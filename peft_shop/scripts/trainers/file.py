"""Recipe, setup and trainer -> what that tool reads: a script, a configuration or a command."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from peft_shop.errors import ConfigError
from peft_shop.scripts.data import TRAIN_FILE
from peft_shop.scripts.trainers.axolotl import axolotl_file
from peft_shop.scripts.trainers.images import diffusers_file, kohya_file
from peft_shop.scripts.trainers.llama_factory import llama_factory_file
from peft_shop.scripts.trainers.order import Order
from peft_shop.scripts.trainers.swift import swift_file
from peft_shop.scripts.trainers.trl import trl_file
from peft_shop.scripts.trainers.unsloth import unsloth_file
from peft_shop.serve.recipes import TrainerRecipe
from peft_shop.serve.trainers import accepts, demanded_trainer, resolve_trainer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from peft_shop.catalog.benchmarks import Benchmark
    from peft_shop.catalog.catalog import Catalog
    from peft_shop.catalog.runs import Run
    from peft_shop.records import Json
    from peft_shop.scripts.parts import ScriptParts
    from peft_shop.serve.trainers import Acceptance

__all__ = ["LANGUAGES", "WRITERS", "trainer_file"]

WRITERS: Final[Mapping[str, Callable[[Order], str]]] = {
    "axolotl": axolotl_file,
    "diffusers": diffusers_file,
    "kohya": kohya_file,
    "llama-factory": llama_factory_file,
    "ms-swift": swift_file,
    "unsloth": unsloth_file,
}
"""What writes each tool's file, besides TRL's, which is made of the parts of the plain script."""
LANGUAGES: Final = {"script": "python", "yaml": "yaml", "shell": "sh"}
"""What a file is written in, by `Trainer.file`."""
_TRL: Final = "trl"


def trainer_file(
    catalog: Catalog,
    demand: str,
    run: Run,
    benchmark: Benchmark,
    parts: ScriptParts,
    *,
    config: Mapping[str, Json],
    about: Sequence[str],
    architecture: str | None,
    allocates: bool,
) -> str:
    """What the trainer of a demand reads for a recipe.

    Args:
        catalog: holds the facts.
        demand: as `resolve_trainer_demand` gave it.
        run: what is repeated.
        benchmark: what it was measured on.
        parts: what the scripts have in common, the plain one among them.
        config: the peft configuration without its type.
        about: lines about the run, the setup and the device.
        architecture: class of the base, where it is known.
        allocates: whether a loop must call `update_and_allocate` after each step.

    Raises:
        ConfigError: the trainer refuses the recipe in this setup, nobody knows whether it takes it,
            or no file is written for it.
    """
    name, version, _ = demanded_trainer(demand)
    trainer = resolve_trainer(catalog, name)
    if trainer.file is None:
        known = ", ".join(one.id for one in catalog.trainers if one.file is not None)
        msg = f"no file is written for {trainer.title}; there are files for: {known}"
        raise ConfigError(msg)
    if TRAIN_FILE in parts.recipe.training.options:
        msg = (
            f"no file of {run.experiment} for {trainer.title}: it was trained on your own file of "
            "rows, which the plain loop reads (leave --trainer out)"
        )
        raise ConfigError(msg)
    if parts.method is None:
        msg = f"no file for {trainer.title}: nothing is on record of {run.recipe.peft_type}"
        raise ConfigError(msg)
    step = parts.step
    recipe = TrainerRecipe(
        name=run.experiment,
        method=parts.method.id,
        variants=run.variants,
        config=config,
        models=benchmark.modality,
        quantized=step.backend is not None,
        checkpointing=step.checkpointing,
        half=step.dtype != "float32",
    ).on_stored(None if step.quantize else step.backend)
    found = accepts(catalog, recipe, trainer, version=version)
    if found.verdict in {"no", "unknown"}:
        raise ConfigError(_refusal(catalog, recipe, found, trainer.title))
    order = Order(
        trainer=trainer,
        acceptance=found,
        recipe=parts.recipe,
        config=config,
        benchmark=benchmark,
        step=step,
        method=parts.method,
        architecture=architecture,
        allocates=allocates,
        about=tuple(about),
    )
    if name == _TRL:
        return trl_file(order, parts)
    return WRITERS[name](order)


def _refusal(catalog: Catalog, recipe: TrainerRecipe, found: Acceptance, title: str) -> str:
    """Why there is no file, and which tools take the recipe in this setup."""
    verb = "does not take it" if found.verdict == "no" else "may or may not take it"
    takers = [
        trainer.id
        for trainer in catalog.trainers
        if trainer.file is not None and accepts(catalog, recipe, trainer).verdict == "accepts"
    ]
    others = f"it is taken by: {', '.join(takers)}" if takers else "no trainer with a file takes it"
    return (
        f"no file of {recipe.name} for {title} {found.version}, which {verb}: {found.obstacles}; "
        f"{others}; the plain loop trains it (leave --trainer out)"
    )

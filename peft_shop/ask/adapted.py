"""A contender on the question's model: its configuration, engines that it reaches, trainers."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

from peft_shop.catalog.features import FULL_FINETUNING
from peft_shop.serve.recipes import TrainerRecipe
from peft_shop.serve.routes import candidate_route
from peft_shop.serve.trainers import (
    accepts,
    demanded_trainer,
    resolve_trainer,
)

if TYPE_CHECKING:
    from peft_shop.adapt.records import Retargeted
    from peft_shop.ask.contenders import Contender
    from peft_shop.ask.query import Query
    from peft_shop.catalog.catalog import Catalog
    from peft_shop.catalog.engines import Modality
    from peft_shop.catalog.runs import Run
    from peft_shop.forecast.records import Settings
    from peft_shop.serve.routes import Route
    from peft_shop.serve.trainers import Acceptance

__all__ = ["recipe_of_run", "retargeted", "routed", "trained_by"]


def retargeted(catalog: Catalog, query: Query, contender: Contender) -> Retargeted | None:
    """The contender's configuration for the question's model; `None` where it names none.

    Worked out once per catalog and model; a run of full fine-tuning has none.
    """
    if query.model is None or contender.method == FULL_FINETUNING:
        return None
    options = query.adapt
    if options.peft_version is None:
        options = options.model_copy(update={"peft_version": query.peft_version})
    subject = contender.run or catalog.method_by_id[contender.method]
    key = ("retargeted", query.benchmark, subject.id, options, query.model)
    if key not in catalog.derived:
        from peft_shop.adapt.retarget import retarget  # noqa: PLC0415 - only where a model is named

        catalog.derived[key] = retarget(catalog, subject, query.model, options)
    adaptation: Retargeted = catalog.derived[key]
    from peft_shop.preflight.refused import known_refusal  # noqa: PLC0415 - as above

    refusal = None if adaptation.problems else known_refusal(query.model, adaptation.config)
    return adaptation if refusal is None else adaptation.model_copy(update={"problems": (refusal,)})


def routed(catalog: Catalog, query: Query, contender: Contender, engine: str) -> Route:
    """The contender's route to an engine, on the question's model where it names one."""
    adapted = retargeted(catalog, query, contender)
    return candidate_route(
        catalog,
        engine,
        query.benchmark,
        contender.run or contender.method,
        model=query.model,
        config=None if adapted is None else adapted.config,
    )


def recipe_of_run(
    run: Run, models: Modality | None, settings: Settings | None = None
) -> TrainerRecipe:
    """What a trainer is asked to train for a run: as measured, or under `settings`."""
    training = run.recipe.training
    measured = TrainerRecipe(
        name=run.experiment,
        method=run.method,
        variants=run.variants,
        config=run.recipe.config,
        models=models,
        quantized=False,
        checkpointing=training.gradient_checkpointing,
        half=training.dtype != "float32",
    )
    return measured if settings is None else measured.under(settings)


def trained_by(
    catalog: Catalog,
    query: Query,
    contender: Contender,
    demand: str,
    *,
    settings: Settings | None = None,
) -> Acceptance:
    """What the trainer of a demand takes of the contender, in its setup; kept with the catalog.

    Args:
        catalog: holds the facts.
        query: the question.
        contender: the contender.
        demand: as `resolve_trainer_demand` gave it.
        settings: the training step; by default that of its setup, else the question's, else as
            measured.
    """
    name, version, _ = demanded_trainer(demand)
    step = settings
    if step is None:
        step = contender.setup.settings if contender.setup is not None else query.training
    models = catalog.benchmark_by_id[query.benchmark].modality
    adapted = retargeted(catalog, query, contender)
    if contender.run is not None:
        recipe = recipe_of_run(contender.run, models, step)
    else:
        recipe = TrainerRecipe(
            name=contender.name, method=contender.method, variants=contender.variants, models=models
        )
        if step is not None:
            recipe = recipe.under(step)
    if adapted is not None and not adapted.problems:
        recipe = replace(recipe, config=adapted.config)
    if query.model is not None:
        recipe = recipe.on_stored(query.model.stored_format)
    config = None if recipe.config is None else json.dumps(dict(recipe.config), default=list)
    key = ("trained", name, version, config, replace(recipe, config=None))
    if key not in catalog.derived:
        trainer = resolve_trainer(catalog, name)
        catalog.derived[key] = accepts(catalog, recipe, trainer, version=version)
    acceptance: Acceptance = catalog.derived[key]
    return acceptance

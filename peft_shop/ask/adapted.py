"""A contender on the question's model: its configuration there, and how that reaches engines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from peft_shop.catalog.features import FULL_FINETUNING
from peft_shop.serve.routes import candidate_route

if TYPE_CHECKING:
    from peft_shop.adapt.records import Retargeted
    from peft_shop.ask.contenders import Contender
    from peft_shop.ask.query import Query
    from peft_shop.catalog.catalog import Catalog
    from peft_shop.serve.routes import Route

__all__ = ["retargeted", "routed"]


def retargeted(catalog: Catalog, query: Query, one: Contender) -> Retargeted | None:
    """The contender's configuration for the question's model; `None` where it names none.

    Worked out once per catalog and model; a run of full fine-tuning has none.
    """
    if query.model is None or one.method == FULL_FINETUNING:
        return None
    options = query.adapt
    if options.peft_version is None:
        options = options.model_copy(update={"peft_version": query.peft_version})
    subject = one.run or catalog.method_by_id[one.method]
    key = ("retargeted", query.benchmark, subject.id, options, query.model)
    if key not in catalog.derived:
        from peft_shop.adapt.retarget import retarget  # noqa: PLC0415 - only where a model is named

        catalog.derived[key] = retarget(catalog, subject, query.model, options)
    found: Retargeted = catalog.derived[key]
    from peft_shop.preflight.refused import known_refusal  # noqa: PLC0415 - as above

    refusal = None if found.problems else known_refusal(query.model, found.config)
    return found if refusal is None else found.model_copy(update={"problems": (refusal,)})


def routed(catalog: Catalog, query: Query, one: Contender, engine: str) -> Route:
    """The contender's route to an engine, on the question's model where it names one."""
    adapted = retargeted(catalog, query, one)
    return candidate_route(
        catalog,
        engine,
        query.benchmark,
        one.run or one.method,
        model=query.model,
        config=None if adapted is None else adapted.config,
    )

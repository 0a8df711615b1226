"""`peft-shop trainers`: which methods the tools take that people train with."""

import json
from typing import Annotated

import typer

from peft_shop.catalog.store import load
from peft_shop.cli.options import CatalogFile, takes
from peft_shop.cli.output import Output, output
from peft_shop.serve.trainers import methods_taken, resolve_trainer, variants_taken
from peft_shop.show.trainers import acceptance_records, trainer_document, trainers_document

__all__ = ["trainers"]


@takes(output)
def trainers(
    out: Output,
    name: Annotated[
        str | None,
        typer.Argument(
            help="A trainer such as trl, axolotl, llama-factory, unsloth or kohya. Default: all.",
            metavar="TRAINER",
        ),
    ] = None,
    *,
    catalog: CatalogFile = None,
) -> None:
    """Tell which methods training tools take, what they lose in silence, and their words for it.

    Each verdict says how it is known, what to do for the right result, and what goes wrong
    otherwise, on a quantized base or under gradient checkpointing for instance.
    """
    source = load(catalog)
    if name is None:
        every = [(one, methods_taken(source, one)) for one in source.trainers]
        found = [taken for _, group in every for taken in group]
        document = trainers_document(source, every)
        whole = [one.model_dump(mode="json") for one, _ in every]
    else:
        trainer = resolve_trainer(source, name)
        methods, variants = methods_taken(source, trainer), variants_taken(source, trainer)
        found = [*methods, *variants]
        document = trainer_document(source, trainer, methods, variants)
        whole = [trainer.model_dump(mode="json")]
    text = json.dumps(whole, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    out.show(document, rows=lambda: acceptance_records(found), json=lambda: text)

"""`peft-shop inspect`: what there is in a user's model."""

import json
from typing import Annotated

import typer

from peft_shop.catalog.store import load
from peft_shop.cli.model import TrustRemoteCode
from peft_shop.cli.options import takes
from peft_shop.cli.output import Output, output
from peft_shop.show.progress import waiting
from peft_shop.show.structures import structure_document, structure_records

__all__ = ["inspect"]


@takes(output)
def inspect(
    out: Output,
    model: Annotated[
        str,
        typer.Argument(
            help="A local folder with config.json or a pipeline's model_index.json, or a hub id. "
            "Only configuration files are read, never weights.",
            metavar="MODEL",
        ),
    ],
    *,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Show a model's modules by what they do, with sizes, and the benchmark that fits it.

    Needs torch and transformers, and diffusers for a diffusion model; no weights and no GPU.
    """
    from peft_shop.model.inspection import inspect_model  # noqa: PLC0415 - torch only for a model

    with waiting(f"Looking at {model}"):
        structure = inspect_model(model, trust_remote_code=trust_remote_code).structure

    def whole() -> str:
        plain = structure.model_dump(mode="json")
        return json.dumps(plain, indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    catalog = None if structure.quantization is None else load()
    out.show(
        structure_document(structure, catalog),
        rows=lambda: structure_records(structure),
        json=whole,
    )

"""`peft-shop convert`: an adapter becomes a plain LoRA or a merged model, measured."""

import signal
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from peft_shop.catalog.methods import PLAIN
from peft_shop.catalog.store import load
from peft_shop.cli.model import TrustRemoteCode
from peft_shop.cli.options import CatalogFile, takes
from peft_shop.cli.output import NOTHING_FOUND, Output, output
from peft_shop.conversion.verb import convert as work
from peft_shop.errors import InexactError
from peft_shop.show.conversions import conversion_document
from peft_shop.show.progress import progress_bar

__all__ = ["convert"]

_PANEL = "Measuring"


class To(StrEnum):
    """What to make."""

    LORA = PLAIN
    MERGED = "merged"


class By(StrEnum):
    """How to convert."""

    AUTO = "auto"
    PEFT = "peft"
    GENERIC = "generic"


class Check(StrEnum):
    """What to compare."""

    AUTO = "auto"
    LOGITS = "logits"
    LAYERS = "layers"


class Dtype(StrEnum):
    """Types of the numbers written."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"


@takes(output)
def convert(
    out: Output,
    adapter_dir: Annotated[
        Path,
        typer.Argument(help="Folder that peft's save_pretrained wrote.", metavar="ADAPTER_DIR"),
    ],
    *,
    base: Annotated[
        str,
        typer.Option(
            "--base",
            help="The model it was trained on, not quantized: a folder, or the id of a model in "
            "the hub's cache.",
            metavar="MODEL",
        ),
    ],
    target: Annotated[
        Path,
        typer.Option("--output", "-o", help="Folder to make, whole or not at all.", metavar="DIR"),
    ],
    to: Annotated[
        To, typer.Option("--to", help="A plain LoRA, or the whole model with the adapter in it.")
    ] = To.LORA,
    rank: Annotated[
        str,
        typer.Option(
            "--rank",
            help="auto: the lowest that loses nothing; a whole number; or a share of the squared "
            "singular values that every layer keeps, such as 0.99.",
            metavar="auto|K|SHARE",
        ),
    ] = "auto",
    engine: Annotated[
        str | None,
        typer.Option(
            "--engine", "-e", help="That is to load the LoRA, such as vllm.", metavar="ENGINE"
        ),
    ] = None,
    way: Annotated[
        By,
        typer.Option(
            "--way",
            help="Insist on peft's own conversion, or on taking the change of every layer as it "
            "is measured.",
        ),
    ] = By.AUTO,
    initial: Annotated[
        Path | None,
        typer.Option(
            "--initial",
            help="The adapter as it was before training, for PiSSA, OLoRA, CorDA and LoRA-GA.",
            metavar="DIR",
        ),
    ] = None,
    dtype: Annotated[
        Dtype | None,
        typer.Option(
            "--dtype", help="Of the numbers written; else fp32 for a LoRA, merged as the base."
        ),
    ] = None,
    tolerance: Annotated[
        float | None,
        typer.Option(
            "--tolerance",
            help="Largest error of a layer, and of the outputs, that counts as done; else 0.001, "
            "in 16 bits 0.01 for a LoRA and 0.05 for the outputs of a merged model.",
            rich_help_panel=_PANEL,
            min=0.0,
        ),
    ] = None,
    check: Annotated[
        Check,
        typer.Option(
            "--check",
            help="Compare the whole model's outputs, or only the layers; auto: the first where "
            "memory allows.",
            rich_help_panel=_PANEL,
        ),
    ] = Check.AUTO,
    allow_inexact: Annotated[
        bool,
        typer.Option(
            "--allow-inexact",
            help="Write it even beyond the tolerance, or if the engine refuses it.",
            rich_help_panel=_PANEL,
        ),
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace an earlier conversion in the output folder.")
    ] = False,
    trust_remote_code: TrustRemoteCode = False,
    catalog: CatalogFile = None,
) -> None:
    """Turn an adapter of any weight-based method into a plain LoRA, or merge it, and measure it.

    The change of every layer is measured against the base, and the result compared with the
    original before it counts as done. Exit code 1: further off than the tolerance, nothing written.
    """
    # so that what was begun is taken away again
    before = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        with progress_bar("Converting" if to is To.LORA else "Merging") as tell:
            report = work(
                adapter_dir,
                base=base,
                output=target,
                to=to.value,
                rank=rank,
                engine=engine,
                way=way.value,
                initial=initial,
                tolerance=tolerance,
                allow_inexact=allow_inexact,
                dtype=None if dtype is None else dtype.value,
                check=check.value,
                overwrite=force,
                trust_remote_code=trust_remote_code,
                progress=tell,
                catalog=load(catalog),
            )
    except InexactError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(NOTHING_FOUND) from error
    finally:
        signal.signal(signal.SIGTERM, before)
    out.show(conversion_document(report), json=lambda: report.model_dump_json(indent=2) + "\n")

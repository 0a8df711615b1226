"""`peft-shop site`: the web page as a folder or one file."""

from pathlib import Path
from typing import Annotated

import typer

from peft_shop.catalog.export import require_shareable
from peft_shop.catalog.store import load
from peft_shop.cli.options import CatalogFile, Force
from peft_shop.cli.output import say
from peft_shop.show.site.writing import write_single, write_site

__all__ = ["site"]


def site(
    *,
    destination: Annotated[
        Path,
        typer.Option("--output", "-o", help="Folder to write, or the file with --single."),
    ],
    single: Annotated[
        bool, typer.Option("--single", help="One HTML file that needs nothing beside it.")
    ] = False,
    force: Force = False,
    catalog: CatalogFile = None,
) -> None:
    """Write the shop as a static web page: filters, plot, methods, comparisons, configurations.

    It opens from a file and needs no network. A folder that this command wrote is replaced.

    Example: peft-shop site -o shop
    """
    source = load(catalog)
    require_shareable(source)
    if single:
        write_single(source, destination, force=force)
        say(f"wrote {destination}")
    else:
        names = write_site(source, destination)
        say(f"wrote {destination / 'index.html'} and {len(names) - 1} files beside it")

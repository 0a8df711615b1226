"""`peft-shop serve`: the web page on this machine."""

from typing import Annotated

import typer

from peft_shop.catalog.store import load
from peft_shop.cli.opening import serve_page
from peft_shop.cli.options import CatalogFile

__all__ = ["serve"]


def serve(
    *,
    port: Annotated[
        int,
        typer.Option("--port", min=0, max=65535, help="Port to listen on; 0 takes a free one."),
    ] = 0,
    open_browser: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
    catalog: CatalogFile = None,
) -> None:
    """Serve the web page on 127.0.0.1 until you press Ctrl-C; nobody else can reach it.

    The address is printed first.
    """
    serve_page(load(catalog), port=port, browse=open_browser, printed=True)

"""Opens the web page at a question, a comparison or a method."""

import contextlib
from typing import TYPE_CHECKING, Annotated, TypeAlias
from urllib.parse import quote, urlencode

import typer

from peft_shop.cli.output import say, write_out
from peft_shop.errors import QueryError

if TYPE_CHECKING:
    from peft_shop.catalog.catalog import Catalog

__all__ = ["Open", "check_shown", "link", "serve_page"]

Open: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--open",
        help="Open it in the web page, which is served until Ctrl-C; over ssh its address is told.",
        rich_help_panel="Output",
    ),
]


def link(**parameters: str) -> str:
    """What stands behind the page's address, such as `#view=method&name=lora`."""
    return f"#{urlencode(parameters, quote_via=quote, safe='/,:|=;')}"


def check_shown(catalog: "Catalog", benchmark: str) -> None:
    """Refuses a benchmark that the page does not show.

    Raises:
        QueryError: it is answered in the terminal only.
    """
    found = catalog.benchmark_by_id[benchmark]
    if found.on_request:
        raise QueryError(f"the page does not show {found.title}: leave --open out")


def serve_page(
    catalog: "Catalog",
    place: str = "",
    *,
    port: int = 0,
    browse: bool = True,
    printed: bool = False,
) -> None:
    """Serves the page until it is interrupted, and tells its address first.

    Args:
        catalog: what it shows.
        place: what stands behind its address, such as `#merging=1`.
        port: where; 0 takes a free one.
        browse: whether a browser is opened where one can be seen.
        printed: whether the address goes to the standard output.

    Raises:
        PeftShopError: the port cannot be had.
    """
    import webbrowser  # noqa: PLC0415 - only for the page, as what follows

    from peft_shop.show.site.pages import site_files  # noqa: PLC0415 - as above
    from peft_shop.show.site.serving import PageServer, has_screen  # noqa: PLC0415 - as above

    with PageServer(site_files(catalog), port) as server:
        address = f"{server.address}{place}"
        if printed:
            write_out(f"{address}\n")
        else:
            say(address)
        if browse and has_screen():
            with contextlib.suppress(webbrowser.Error):
                webbrowser.open(address)
        say("Ctrl-C ends it")
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()

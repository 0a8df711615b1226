"""`peft-shop methods`: the methods, or those that can do what is asked for."""

from typing import Any

import typer

from peft_shop.ask.demanding import GROUPS
from peft_shop.ask.lookup import matching_methods
from peft_shop.ask.requirements import AnyOf
from peft_shop.cli.capabilities import capabilities
from peft_shop.cli.options import takes
from peft_shop.cli.output import NOTHING_FOUND, Output, output
from peft_shop.show.methods import methods_document

__all__ = ["methods"]


@takes(capabilities, output)
def methods(asked: dict[str, Any], out: Output) -> None:
    """List the methods, or those that can do what you ask for, measured or not."""
    catalog = asked.pop("catalog")
    chosen = {key: asked.pop(key) for key in ("methods", "exclude", "min_evidence")}
    wanted = asked.pop("peft_version")
    found = matching_methods(
        catalog, asked, peft_version=None if wanted == "any" else wanted, **chosen
    )
    features = [name for name, value in asked.items() if value is not None]
    for group in GROUPS:
        values = asked[group]
        names = values.values if isinstance(values, AnyOf) else values or ()
        features += [f"{group}.{name.lower().replace('-', '_')}" for name in names]
    out.show(methods_document(catalog, found, features))
    if not found:
        raise typer.Exit(NOTHING_FOUND)

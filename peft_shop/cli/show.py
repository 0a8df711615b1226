"""`peft-shop show`: one method on a page."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from peft_shop.ask.lookup import resolve_card
from peft_shop.catalog.store import load
from peft_shop.cli.options import CatalogFile, takes
from peft_shop.cli.output import Output, output
from peft_shop.show.methods import card_document
from peft_shop.show.tables import json_text

if TYPE_CHECKING:
    from peft_shop.catalog.catalog import Catalog
    from peft_shop.catalog.methods import Method

__all__ = ["show"]


@takes(output)
def show(
    out: Output,
    method: Annotated[str, typer.Argument(help="A method or a variant, such as lora or dora.")],
    *,
    catalog: CatalogFile = None,
) -> None:
    """Show one method on a page: what it does, what it can do, variants, and all its runs."""
    source = load(catalog)
    found = resolve_card(source, method)

    def whole() -> str:
        runs = [run for run in source.runs if run.method == found.id]
        card = {
            "method": found.model_dump(mode="json"),
            "runs": [run.model_dump(mode="json") for run in runs],
        }
        return json_text(card)

    out.show(card_document(source, found), rows=_capability_rows(source, found), json=whole)


def _capability_rows(catalog: "Catalog", method: "Method") -> list[dict[str, Any]]:
    return [
        {
            "method": method.id,
            "feature": feature.id,
            "support": method.capabilities[feature.id].support,
            "evidence": method.capabilities[feature.id].level,
            "note": method.capabilities[feature.id].note,
        }
        for feature in catalog.features
    ]

"""`peft-shop show`: one method on a page."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from peft_shop.ask.meanings import method_meaning
from peft_shop.catalog.store import load
from peft_shop.cli.options import CatalogFile, takes
from peft_shop.cli.output import Output, output
from peft_shop.show.methods import card_document
from peft_shop.show.naming import briefly
from peft_shop.show.tables import json_text

if TYPE_CHECKING:
    from peft_shop.catalog.catalog import Catalog
    from peft_shop.catalog.methods import Method, Variant

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
    meaning = method_meaning(source, method)
    found = source.method_by_id[meaning.method]
    variant = next((one for one in found.variants if one.id == meaning.variant), None)

    def whole() -> str:
        runs = [run for run in source.runs if run.method == found.id]
        card = {
            "method": found.model_dump(mode="json"),
            "runs": [run.model_dump(mode="json") for run in runs],
        }
        if variant is not None:
            card["variant"] = variant.model_dump(mode="json")
        if meaning.quantization is not None:
            card["quantization"] = meaning.quantization
        return json_text(card)

    out.show(
        briefly(source, card_document(source, found, variant, meaning.remark)),
        rows=_capability_rows(source, found, variant),
        json=whole,
    )


def _capability_rows(
    catalog: "Catalog", method: "Method", variant: "Variant | None"
) -> list[dict[str, Any]]:
    own = () if variant is None else (variant.id,)
    found = {feature.id: method.capability(feature.id, own) for feature in catalog.features}
    return [
        {
            "method": method.id,
            "feature": feature,
            "support": capability.support,
            "evidence": capability.level,
            "note": capability.note,
        }
        for feature, capability in found.items()
    ]

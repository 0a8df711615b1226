"""`peft-shop show`: one method on a page."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from peft_shop.ask.meanings import method_meaning
from peft_shop.catalog.store import load
from peft_shop.cli.completion import method_names
from peft_shop.cli.opening import Open, link, serve_page
from peft_shop.cli.options import CatalogFile, takes
from peft_shop.cli.output import Output, output, terminal_width
from peft_shop.show.method_screen import method_lines, method_sections
from peft_shop.show.methods import card_document
from peft_shop.show.naming import briefly
from peft_shop.show.tables import json_text

if TYPE_CHECKING:
    from peft_shop.catalog.catalog import Catalog
    from peft_shop.catalog.methods import Method, Variant

__all__ = ["show"]


def _section(flag: str, text: str) -> Any:
    return typer.Option(flag, help=text, rich_help_panel="What is shown")


@takes(output)
def show(
    out: Output,
    method: Annotated[
        str,
        typer.Argument(
            help="A method or a variant, such as lora or dora.", autocompletion=method_names
        ),
    ],
    *,
    layers: Annotated[
        bool, _section("--layers", "Also which layers it adapts, and how that is known.")
    ] = False,
    quantization: Annotated[
        bool, _section("--quantization", "Also on which quantized bases it trains.")
    ] = False,
    capabilities: Annotated[
        bool, _section("--capabilities", "Also what else it can do, with notes.")
    ] = False,
    variants: Annotated[bool, _section("--variants", "Also its variants.")] = False,
    runs: Annotated[bool, _section("--runs", "Also all its runs.")] = False,
    everything: Annotated[bool, _section("--all", "Everything, in place of the first screen.")] = (
        False
    ),
    open_page: Open = False,
    catalog: CatalogFile = None,
) -> None:
    """Show one method on a page: what it does, what it can do, variants, and all its runs.

    The first screen has at most 30 lines; flags tell the rest.
    """
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

    wanted = {
        "layers": layers,
        "quantization": quantization,
        "capabilities": capabilities,
        "variants": variants,
        "runs": runs,
    }
    width = terminal_width()
    lines = None
    if not everything:
        lines = method_lines(source, found, variant, meaning.remark, width)
        names = [name for name, asked in wanted.items() if asked]
        lines += method_sections(source, found, variant, names, width) if names else []
    out.show(
        lambda: briefly(source, card_document(source, found, variant, meaning.remark)),
        lines=lines,
        rows=lambda: _capability_rows(source, found, variant),
        json=whole,
    )
    if open_page:
        serve_page(source, link(view="method", name=meaning.variant or found.id))


def _capability_rows(
    catalog: "Catalog", method: "Method", variant: "Variant | None"
) -> list[dict[str, Any]]:
    own = () if variant is None else (variant.id,)
    capabilities = {feature.id: method.capability(feature.id, own) for feature in catalog.features}
    return [
        {
            "method": method.id,
            "feature": feature,
            "support": capability.support,
            "evidence": capability.level,
            "note": capability.note,
        }
        for feature, capability in capabilities.items()
    ]

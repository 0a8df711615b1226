"""Pages for programs that read text: an index, and every method in Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from peft_shop.show.markup import markdown
from peft_shop.show.methods import card_document
from peft_shop.show.naming import briefly

if TYPE_CHECKING:
    from peft_shop.catalog.catalog import Catalog
    from peft_shop.catalog.methods import Method

__all__ = ["llms_text", "method_markdown"]

_WHAT: Final = (
    "Which parameter-efficient fine-tuning method, with which configuration, from measured runs."
)
_RULES: Final = (
    "Figures are single runs unless said; quote them with their standard deviation, and name the "
    "snapshot. What is unknown is not yes."
)


def method_markdown(catalog: Catalog, method: Method) -> str:
    """All that is known of a method, in Markdown."""
    return markdown(briefly(catalog, card_document(catalog, method)))


def llms_text(catalog: Catalog) -> str:
    """The index `llms.txt`: what there is, with a line for each benchmark and method."""
    lines = [
        "# peft-shop",
        "",
        f"> {_WHAT} Catalog {catalog.catalog_version}, peft {catalog.peft_version}.",
        "",
        _RULES,
        "",
        "## Data",
        "",
        "- [catalog.json](catalog.json): everything, with runs, capabilities and routes",
        "",
        "## Benchmarks",
        "",
        *(
            f"- {benchmark.title} ({benchmark.id}), {benchmark.model_id}: "
            f"{' '.join(benchmark.description.split())}"
            for benchmark in catalog.benchmarks
        ),
        "",
        "## Methods",
        "",
        *(
            f"- [{method.title}](methods/{method.id}.md): {' '.join(method.summary.split())}"
            for method in catalog.methods
        ),
    ]
    return "\n".join(lines) + "\n"

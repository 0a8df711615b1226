"""The files of the web page: one HTML page, its data as classic scripts, texts for agents.

Everything from the catalog goes into scripts as JSON without a `<`, and into HTML escaped; the page
shows it as text. The same catalog gives the same bytes.
"""

from __future__ import annotations

from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final

from peft_shop.ask.contenders import field_of_play
from peft_shop.ask.reading import build_query
from peft_shop.catalog.export import dump
from peft_shop.records import compact_json
from peft_shop.show.markup import markdown
from peft_shop.show.methods import card_document
from peft_shop.show.site.details import configurations, scripts
from peft_shop.show.site.planning import plans_for
from peft_shop.show.site.table import candidate_table, shown_benchmarks

if TYPE_CHECKING:
    from collections.abc import Mapping

    from peft_shop.catalog.catalog import Catalog

__all__ = ["CSP", "MARK", "TABLE", "single_page", "site_files"]

MARK: Final = "peft-shop-site.txt"
"""File that tells a folder of ours, which may be replaced."""
TABLE: Final = "data/table.js"
CSP: Final = (
    "default-src 'self' 'unsafe-inline'; connect-src 'none'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'"
)
_ICON: Final = (
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E"
    "%3Cpath d='M2 14V2' stroke='%230072b2' stroke-width='2'/%3E"
    "%3Cpath d='M2 14h12' stroke='%230072b2' stroke-width='2'/%3E"
    "%3Ccircle cx='6' cy='9' r='2' fill='%23d55e00'/%3E%3Ccircle cx='11' cy='5' r='2' "
    "fill='%23d55e00'/%3E%3C/svg%3E"
)


_PURPOSE: Final = (
    "> Which parameter-efficient fine-tuning (PEFT) method, with which configuration, for a model, "
    "a GPU and a server: answered from measured runs."
)
_READING: Final = (
    "Figures are measured runs on the benchmark's own model, unless they say forecast; `±` is one "
    "standard deviation. Unknown is not yes. Ask with `peft-shop recommend --json "
    "--brief`; the question in a link of the page is asked by `peft-shop recommend --url URL`."
)


_LIMITS: Final = (
    (
        "Every figure was measured on the benchmark's own model and data; on yours they will "
        "differ, and the order may too."
    ),
    (
        "Peak memory is that of the benchmark's training step, unless you choose your model: "
        "then it is a forecast, with the range in which nine of ten are expected."
    ),
    (
        "Most runs have one seed: ± is one standard deviation, of re-runs and, where it is "
        "known, of the choice of test questions."
    ),
    (
        "“Again” is the chance to be among the best once more under that uncertainty; it says "
        "nothing about other data."
    ),
    (
        "The learning rate was not tuned for every method, so a beaten run does not prove a "
        "bad method."
    ),
    "Unknown is not yes: what nobody tried meets no demand.",
    "Serving facts are about the versions named below and age with them.",
    (
        "The page is about the newest snapshot alone and about the models that it lists; all "
        "else is a question for the command line."
    ),
)
"""What the page cannot tell."""


def site_files(catalog: Catalog) -> dict[str, bytes]:
    """Contents of the page's folder, by path in it."""
    data = _data(catalog)
    found = {f"data/{name}.js": _script(name, value).encode() for name, value in data.items()}
    found |= {f"assets/{name}": _asset(name).encode() for name in ("app.css", "app.js")}
    head = '<link rel="stylesheet" href="assets/app.css">'
    tail = f'<script src="{TABLE}"></script>\n<script src="assets/app.js"></script>'
    found["index.html"] = _html(catalog, head, tail).encode()
    found |= {name: text.encode() for name, text in _texts(catalog).items()}
    found["catalog.json"] = dump(catalog)
    found[MARK] = b"Written by `peft-shop site`, which may replace this folder.\n"
    return dict(sorted(found.items()))


def single_page(catalog: Catalog) -> bytes:
    """The whole page in one file, which needs nothing beside it."""
    head = f"<style>{_asset('app.css')}</style>"
    scripts_ = [_script(name, value) for name, value in _data(catalog).items()]
    scripts_.append(_asset("app.js"))
    if any("</script" in text.lower() or "<!--" in text for text in scripts_):
        raise AssertionError("a script would end the page's own")
    tail = "\n".join(f"<script>{text}</script>" for text in scripts_)
    return _html(catalog, head, tail).encode()


def _data(catalog: Catalog) -> dict[str, Any]:
    """Data by name: the table first, then what is loaded once it is wanted."""
    table = candidate_table(catalog)
    found: dict[str, Any] = {"table": table, "texts": table.pop("texts"), "words": _words(table)}
    for place, benchmark in enumerate(shown_benchmarks(catalog)):
        found[f"runs-{place}"] = configurations(catalog, benchmark)
        found[f"scripts-{place}"] = scripts(catalog, benchmark)
    models = plans_for(
        {
            shown_benchmark.id: field_of_play(
                catalog, build_query(catalog, benchmark=shown_benchmark.id)
            ).contenders
            for shown_benchmark in shown_benchmarks(catalog)
        }
    )
    table["models"] = [
        {name: model.pop(name) for name in ("id", "positions", "benchmark")} for model in models
    ]
    return found | {f"model-{place}": model for place, model in enumerate(models)}


def _words(table: dict[str, Any]) -> dict[str, Any]:
    """Takes descriptions out of the table, which no answer needs: they are loaded after it."""

    def taken(records: list[dict[str, Any]], *names: str) -> list[dict[str, Any]]:
        return [{name: record.pop(name) for name in names} for record in records]

    return {
        "methods": taken(table["methods"], "summary", "notes", "paper", "requires", "aliases"),
        "variants": [taken(one["variants"], "summary", "paper") for one in table["methods"]],
        "metrics": taken(table["metrics"], "description"),
        "features": taken(table["features"], "question"),
        "benchmarks": taken(table["benchmarks"], "description", "floorBecause"),
        "limits": list(_LIMITS),
    }


def _script(name: str, value: Any) -> str:
    # ASCII without a `<`: nothing in it ends a script, and no encoding changes it
    text = compact_json(value).replace("<", "\\u003c")
    return f"(globalThis.peftShopData??={{}})[{compact_json(name)}]={text};\n"


def _asset(name: str) -> str:
    return (files("peft_shop.show.site") / "assets" / name).read_text(encoding="utf-8")


def _html(catalog: Catalog, head: str, tail: str) -> str:
    runs = len(catalog.runs)
    about = (
        f"{len(catalog.methods)} parameter-efficient fine-tuning methods and {runs} measured runs: "
        "the best configurations under your constraints, with their certainty."
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{escape(CSP)}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="description" content="{escape(about)}">
<meta name="referrer" content="no-referrer">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="{escape(_ICON)}">
<title>peft-shop</title>
{head}
</head>
<body>
<div id="app"><main><h1>peft-shop</h1><p>{escape(about)}</p></main></div>
<noscript><p>This page answers questions with JavaScript, which is switched off. The same facts:
<a href="llms.txt">llms.txt</a>, <a href="catalog.json">catalog.json</a>, or
<code>peft-shop recommend</code> on the command line.</p></noscript>
{tail}
</body>
</html>
"""


def _texts(catalog: Catalog) -> Mapping[str, str]:
    """For agents: an index, and every method as Markdown."""
    found = {
        f"methods/{method.id}.md": markdown(card_document(catalog, method))
        for method in catalog.methods
    }
    lines = [
        "# peft-shop",
        "",
        _PURPOSE,
        "",
        f"Catalog {catalog.catalog_version}, peft {catalog.peft_version}. {_READING}",
        "",
        "## Data",
        "",
        "- [catalog.json](catalog.json): everything (`peft-shop catalog schema` explains it)",
        "- [index.html](index.html): the page; its parameters are the keywords of `recommend`",
        "",
        "## Benchmarks",
        "",
        *(
            f"- {_line(benchmark.title)} (`{benchmark.id}`): {_line(benchmark.description)}"
            for benchmark in catalog.benchmarks
        ),
        "",
        "## Methods",
        "",
        *(
            f"- [{_line(method.title)}](methods/{method.id}.md): {_line(method.summary)}"
            for method in catalog.methods
        ),
        "",
    ]
    return {"llms.txt": "\n".join(lines), **found}


def _line(text: str) -> str:
    """Text on one line, with nothing in it that Markdown takes for a link or HTML."""
    plain = " ".join(text.split())
    for sign in "\\[]<>`*_":
        plain = plain.replace(sign, f"\\{sign}")
    return plain

"""Writes the generated pages of docs/reference and refreshes what the examples print.

python docs/generate.py                     write the reference pages
python docs/generate.py --check             say which are stale; exit code 1 if any is
python docs/generate.py --update-examples   run every example and write its output
python docs/generate.py --update-examples docs/tutorial.md   of some pages only
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import catalog_pages
import code_pages
import examples
import forecast_pages
import readiness_pages
import serving_pages
import trainer_pages

if TYPE_CHECKING:
    from collections.abc import Callable

REFERENCE = Path(__file__).resolve().parent / "reference"
PAGES: dict[str, Callable[[], str]] = {
    "api.md": code_pages.api,
    "cli.md": code_pages.cli,
    "engines.md": serving_pages.engines,
    "errors.md": code_pages.errors_page,
    "forecast.md": forecast_pages.forecast,
    "methods.md": catalog_pages.methods,
    "metrics.md": catalog_pages.metrics,
    "readiness.md": readiness_pages.readiness,
    "rules.md": catalog_pages.rules,
    "trainers.md": trainer_pages.trainers,
}


PAGES |= serving_pages.engine_pages()
PAGES |= trainer_pages.trainer_pages()


def stale() -> list[str]:
    """Names of reference pages that are missing or say something else than they should."""
    return [
        name
        for name, page in PAGES.items()
        if not (REFERENCE / name).is_file()
        or (REFERENCE / name).read_text(encoding="utf-8") != page()
    ]


def write() -> list[str]:
    """Writes the stale reference pages, each whole or not at all; their names."""
    changed = stale()
    for name in changed:
        page = REFERENCE / name
        page.parent.mkdir(parents=True, exist_ok=True)
        fresh = page.with_name(f".{page.name}.new")
        fresh.write_text(PAGES[name](), encoding="utf-8")
        fresh.replace(page)
    return changed


def update_examples(names: list[str]) -> list[str]:
    """Writes the outputs of the pages `names`, of all if there are none; the changed ones."""
    chosen = [Path(name).resolve() for name in names] or examples.pages()
    changed = []
    for page in chosen:
        with tempfile.TemporaryDirectory() as folder:
            if examples.refresh(page, Path(folder)):
                changed.append(page.relative_to(examples.ROOT).as_posix())
    return changed


def main() -> int:
    """Exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing")
    parser.add_argument("--update-examples", action="store_true", help="run and rewrite examples")
    parser.add_argument("pages", nargs="*", help="pages whose examples are refreshed")
    options = parser.parse_args()
    if options.check:
        found = stale()
        for name in found:
            print(f"docs/reference/{name} is stale: run python docs/generate.py")
        return 1 if found else 0
    changed = (
        update_examples(options.pages)
        if options.update_examples
        else [f"docs/reference/{name}" for name in write()]
    )
    for name in changed:
        print(f"written: {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""`peft-shop --version`: what answers, and what it describes."""

from importlib.metadata import version

from peft_shop.ask.recommend import installed_peft_version
from peft_shop.catalog.store import load
from peft_shop.cli.output import write_out

__all__ = ["versions"]


def versions() -> None:
    """Prints the versions of peft-shop, its catalog and peft."""
    catalog = load()
    write_out(
        f"peft-shop {version('peft-shop')}\n"
        f"catalog {catalog.catalog_version} (schema {catalog.schema_version})\n"
        f"describes peft {catalog.peft_version}\n"
        f"installed peft {installed_peft_version() or 'none'}\n"
    )

"""Which parameter-efficient fine-tuning method, with which configuration, for my model?

>>> from peft_shop import recommend
>>> recommend("metamathqa", max_peak_memory="20GiB", peft_version="any").best.method
'miss'
"""

from __future__ import annotations

# type checkers take a variable of this name as true; importing `typing` would take 10 ms
TYPE_CHECKING = False

if TYPE_CHECKING:
    from peft_shop.ask.candidates import Candidate
    from peft_shop.ask.recommend import recommend
    from peft_shop.ask.recommendation import Recommendation
    from peft_shop.ask.requirements import any_of
    from peft_shop.catalog.catalog import Catalog
    from peft_shop.catalog.store import load as load_catalog
    from peft_shop.conversion.report import ConversionReport
    from peft_shop.conversion.verb import convert
    from peft_shop.errors import (
        CatalogError,
        ConfigError,
        ConversionError,
        InexactError,
        InputError,
        MissingExtraError,
        ModelError,
        PeftShopError,
    )
    from peft_shop.model.inspection import Target, inspect_model
    from peft_shop.trial.trial import Trial

    __version__: str

__all__ = [
    "Candidate",
    "Catalog",
    "CatalogError",
    "ConfigError",
    "ConversionError",
    "ConversionReport",
    "InexactError",
    "InputError",
    "MissingExtraError",
    "ModelError",
    "PeftShopError",
    "Recommendation",
    "Target",
    "Trial",
    "any_of",
    "convert",
    "inspect_model",
    "load_catalog",
    "recommend",
]

if not TYPE_CHECKING:
    # type checkers see the imports above, so that a misspelt name is still an error to them

    _HOMES = {
        "Candidate": ("ask.candidates", "Candidate"),
        "Catalog": ("catalog.catalog", "Catalog"),
        "CatalogError": ("errors", "CatalogError"),
        "ConfigError": ("errors", "ConfigError"),
        "ConversionError": ("errors", "ConversionError"),
        "ConversionReport": ("conversion.report", "ConversionReport"),
        "InexactError": ("errors", "InexactError"),
        "InputError": ("errors", "InputError"),
        "MissingExtraError": ("errors", "MissingExtraError"),
        "ModelError": ("errors", "ModelError"),
        "PeftShopError": ("errors", "PeftShopError"),
        "Recommendation": ("ask.recommendation", "Recommendation"),
        "Target": ("model.inspection", "Target"),
        "Trial": ("trial.trial", "Trial"),
        "any_of": ("ask.requirements", "any_of"),
        "convert": ("conversion.verb", "convert"),
        "inspect_model": ("model.inspection", "inspect_model"),
        "load_catalog": ("catalog.store", "load"),
        "recommend": ("ask.recommend", "recommend"),
    }

    def __getattr__(name: str) -> object:
        """Public name, imported when first used."""
        from importlib import import_module  # noqa: PLC0415 - `import peft_shop` stays free

        if name == "__version__":
            return import_module("importlib.metadata").version("peft-shop")
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        room, attribute = _HOMES[name]
        value = getattr(import_module(f"{__name__}.{room}"), attribute)
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return [*__all__, "__version__"]

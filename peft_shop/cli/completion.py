"""What a shell offers for names: methods, runs, engines, benchmarks and devices."""

from collections.abc import Iterable

from peft_shop.ask.meanings import names_of_methods
from peft_shop.catalog.short_names import short_names
from peft_shop.catalog.store import load

__all__ = [
    "benchmark_names",
    "device_names",
    "engine_names",
    "method_names",
    "run_names",
    "run_or_method_names",
]


def benchmark_names(incomplete: str) -> list[str]:
    """Benchmarks and their aliases."""
    found = (name for benchmark in load().benchmarks for name in (benchmark.id, *benchmark.aliases))
    return _starting(found, incomplete)


def method_names(incomplete: str) -> list[str]:
    """Methods and variants by their identifiers; after a comma, the next one of a list."""
    listed, comma, start = incomplete.rpartition(",")
    catalog = load()
    names = [method.id for method in catalog.methods]
    names += [variant.id for method in catalog.methods for variant in method.variants]
    found = _starting(names, start) or _starting(names_of_methods(catalog), start)
    return [f"{listed}{comma}{name}" for name in found]


def run_names(incomplete: str) -> list[str]:
    """Runs by their short names; by their whole ones where the beginning is of one."""
    catalog = load()
    names = [short_names(catalog, benchmark.id) for benchmark in catalog.benchmarks]
    short = _starting((short for known in names for short in known.values()), incomplete)
    return short or _starting((name for known in names for name in known), incomplete)


def run_or_method_names(incomplete: str) -> list[str]:
    """Methods, variants and runs."""
    return [*method_names(incomplete), *run_names(incomplete)]


def engine_names(incomplete: str) -> list[str]:
    """Serving engines; after a comma or bar, the next one of a list."""
    cut = max(incomplete.rfind(","), incomplete.rfind("|")) + 1
    found = _starting((engine.id for engine in load().engines), incomplete[cut:])
    return [incomplete[:cut] + name for name in found]


def device_names(incomplete: str) -> list[str]:
    """Devices of the table."""
    from peft_shop.forecast.devices import devices  # noqa: PLC0415 - only where one is named

    return _starting((device.name for device in devices()), incomplete)


def _starting(names: Iterable[str], incomplete: str) -> list[str]:
    """Those that begin so, whatever their case, each once."""
    start = incomplete.casefold()
    return [name for name in dict.fromkeys(names) if name.casefold().startswith(start)]

"""What the page shows of one run besides figures: configuration, script, settings, source."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peft_shop.ask.contenders import field_of_play
from peft_shop.ask.reading import build_query
from peft_shop.catalog.samples import sample_addresses
from peft_shop.errors import PeftShopError
from peft_shop.scripts.script import snippet
from peft_shop.show.samples import samples_sentence
from peft_shop.upstream.configs import config_dict

if TYPE_CHECKING:
    from peft_shop.catalog.benchmarks import Benchmark
    from peft_shop.catalog.catalog import Catalog
    from peft_shop.catalog.runs import Run

__all__ = ["configurations", "scripts"]


def _measured(catalog: Catalog, benchmark: Benchmark) -> dict[str, Run]:
    """Runs that the page knows, by the name that answers give them."""
    field = field_of_play(catalog, build_query(catalog, benchmark=benchmark.id))
    every = (*field.contenders, *field.baselines)
    return {one.name: one.run for one in every if one.run is not None}


def configurations(catalog: Catalog, benchmark: Benchmark) -> dict[str, dict[str, Any]]:
    """Configuration, training settings and source of every run, by name."""
    return {
        name: {
            "config": None if run.recipe.peft_type is None else config_dict(run.recipe),
            "targets": run.recipe.resolved.get("target_modules"),
            "training": run.recipe.training.model_dump(mode="json", exclude_defaults=True),
            "created": run.created_at,
            "accelerator": run.provenance.accelerator,
            "packages": dict(run.provenance.packages),
            "source": run.provenance.source,
            "url": _page_of(catalog, run),
            **_samples(benchmark, run),
        }
        for name, run in _measured(catalog, benchmark).items()
    }


def _samples(benchmark: Benchmark, run: Run) -> dict[str, Any]:
    """What is said of its images before their addresses, and these."""
    addresses = sample_addresses(benchmark, run)
    if benchmark.samples is None or not addresses:
        return {}
    said = f"Sample images, {samples_sentence(benchmark.samples)}:"
    return {"samples": [said, benchmark.samples.host, addresses]}


def _page_of(catalog: Catalog, run: Run) -> str | None:
    """Where the run's result file can be read; `None` where its source has no pages."""
    source = next((one for one in catalog.sources if one.id == run.provenance.source), None)
    if source is None or source.url is None or run.provenance.commit is None:
        return None
    repository, mark, _ = source.url.partition("/tree/")
    return f"{repository}/blob/{run.provenance.commit}/{run.provenance.file}" if mark else None


def scripts(catalog: Catalog, benchmark: Benchmark) -> dict[str, str]:
    """Training script of every run that can have one, by name."""
    found = {}
    for name, run in _measured(catalog, benchmark).items():
        if run.recipe.peft_type is None:
            continue
        try:
            found[name] = snippet(run, benchmark, catalog=catalog)
        except PeftShopError:
            continue  # the page says that there is none and how to ask for the reason
    return found

"""Runs under short names: without the model that all of a benchmark were made with.

`lora/llama-3.2-3B-rank32` is `lora/rank32` on its benchmark. A short name is unique there and is
never the name of another run; where it would be, the run keeps its whole name.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from peft_shop.catalog.catalog import Catalog
    from peft_shop.catalog.runs import Run

__all__ = ["run_of_short", "short_name", "short_names", "shortened"]

_PARTS: Final = re.compile(r"[-_]")
_LEAST: Final = 4
"""Letters and digits of a model's name that are taken for it; `v1-...` could be anything."""


def short_name(experiment: str, model_id: str) -> str:
    """The name without the model in it, whether or not it is unique.

    >>> short_name("lora/llama-3.2-3B-rank64-rslora", "meta-llama/Llama-3.2-3B")
    'lora/rank64-rslora'
    >>> short_name("lora/flux2-klein-rank64", "black-forest-labs/FLUX.2-klein-base-4B")
    'lora/rank64'
    >>> short_name("mine/best", "meta-llama/Llama-3.2-3B")
    'mine/best'
    """
    folder, slash, rest = experiment.rpartition("/")
    model = _letters(model_id.rpartition("/")[2])
    start = 0
    for gap in _PARTS.finditer(rest):
        beginning = _letters(rest[: gap.start()])
        if len(beginning) >= _LEAST and model.startswith(beginning) and rest[gap.end() :]:
            start = gap.end()
    return f"{folder}{slash}{rest[start:]}" if slash else experiment


def _letters(name: str) -> str:
    return "".join(letter for letter in name.casefold() if letter.isalnum())


def short_names(catalog: Catalog, benchmark: str) -> Mapping[str, str]:
    """Short names of all experiments of a benchmark, by experiment; worked out once."""
    key = ("short names", benchmark)
    if key not in catalog.derived:
        catalog.derived[key] = _unique(catalog.runs_by_benchmark.get(benchmark, ()))
    found: Mapping[str, str] = catalog.derived[key]
    return found


def _unique(runs: Iterable[Run]) -> dict[str, str]:
    wanted = {
        run.experiment: short_name(run.experiment, run.recipe.training.model_id) for run in runs
    }
    often = Counter(wanted.values())
    return {
        name: name if often[short] > 1 or (short in wanted and short != name) else short
        for name, short in wanted.items()
    }


def shortened(catalog: Catalog, run: Run, name: str) -> str:
    """`name` of a run (its experiment or its id) with the experiment's short name."""
    short = short_names(catalog, run.benchmark).get(run.experiment, run.experiment)
    return short + name.removeprefix(run.experiment)


def run_of_short(catalog: Catalog, name: str, runs: Iterable[Run]) -> list[Run]:
    """Those of `runs` whose short name, or id with it, is `name`."""
    short, at, created = name.partition("@")
    return [
        run
        for run in runs
        if short_names(catalog, run.benchmark).get(run.experiment) == short
        and (not at or run.created_at == created)
    ]

"""Runs under short names: without the model that all of a benchmark were made with.

`lora/llama-3.2-3B-rank32` is `lora/rank32` on its benchmark. Where a benchmark has a procedure of
its own, that and the data go too. A short name is unique there and is never the name of another
run; where it would be, the run keeps its whole name.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from peft_shop.catalog.benchmarks import Benchmark
    from peft_shop.catalog.catalog import Catalog
    from peft_shop.catalog.runs import Run

__all__ = ["run_of_short", "short_name", "short_names", "shortened", "words_of"]

_PARTS: Final = re.compile(r"[-_]")
_LEAST: Final = 4
"""Letters and digits of a model's name that are taken for it; `v1-...` could be anything."""


def words_of(benchmark: Benchmark | None) -> tuple[str, ...]:
    """Words in the names of a benchmark's runs that say nothing there."""
    if benchmark is None or benchmark.procedure == "supervised":
        return ()
    return benchmark.procedure, (benchmark.dataset or "").rpartition("/")[2]


def short_name(experiment: str, model_id: str, words: Sequence[str] = ()) -> str:
    """The name without the model in it, nor `words`, whether or not it is unique.

    >>> short_name("lora/llama-3.2-3B-rank64-rslora", "meta-llama/Llama-3.2-3B")
    'lora/rank64-rslora'
    >>> short_name("lora/flux2-klein-rank64", "black-forest-labs/FLUX.2-klein-base-4B")
    'lora/rank64'
    >>> short_name("mine/best", "meta-llama/Llama-3.2-3B")
    'mine/best'
    >>> short_name("dora/grpo-qwen35-4b-sums-r4", "Qwen/Qwen3.5-4B", ("grpo", "sums"))
    'dora/r4'
    >>> short_name("dora/grpo-qwen35-4b-sums", "Qwen/Qwen3.5-4B", ("grpo", "sums"))
    'dora/sums'
    """
    folder, slash, rest = experiment.rpartition("/")
    if not slash:
        return experiment
    model, *others = (_letters(model_id.rpartition("/")[2]), *map(_letters, words))
    while True:
        start = 0
        for gap in _PARTS.finditer(rest):
            beginning = _letters(rest[: gap.start()])
            if not any(word.startswith(beginning) for word in (model, *others)):
                break  # nor does any with what follows
            known = beginning in others or model.startswith(beginning)
            if len(beginning) >= _LEAST and known and rest[gap.end() :]:
                start = gap.end()
        if not start:
            return f"{folder}/{rest}"
        rest = rest[start:]


def _letters(name: str) -> str:
    return "".join(filter(str.isalnum, name.casefold()))


def short_names(catalog: Catalog, benchmark: str) -> Mapping[str, str]:
    """Short names of all experiments of a benchmark, by experiment; worked out once."""
    key = ("short names", benchmark)
    if key not in catalog.derived:
        words = words_of(catalog.benchmark_by_id.get(benchmark))
        catalog.derived[key] = _unique(catalog.runs_by_benchmark.get(benchmark, ()), words)
    found: Mapping[str, str] = catalog.derived[key]
    return found


def _unique(runs: Iterable[Run], words: Sequence[str]) -> dict[str, str]:
    wanted = {
        run.experiment: short_name(run.experiment, run.recipe.training.model_id, words)
        for run in runs
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

"""Catalogs of many runs: the time that they take to load and to answer, and how it grows.

    python benchmarks/large.py

Times are CPU seconds of this process, the least of three; those of first answers count what is
worked out once a catalog or once a process.
"""

from __future__ import annotations

import json
import math
import random
import time
from functools import partial
from importlib.resources import files
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from peft_shop.catalog.catalog import Catalog

SIZES: Final = (2_500, 10_000)
QUESTIONS: Final[dict[str, dict[str, object]]] = {
    "default question": {},
    "one noisy objective": {"objectives": ("test_accuracy",)},
    "four objectives": {
        "objectives": ("test_accuracy", "peak_memory", "train_time", "checkpoint_size")
    },
    "pooled": {"evidence": "pooled"},
}
HEADLINES: Final = ("default question", "one noisy objective", "pooled")
"""Questions whose front stays small; that of four objectives grows with the runs."""


def grown(count: int, seed: int = 1) -> bytes:
    """A catalog file of `count` runs of one benchmark, all of the newest snapshot."""
    raw = json.loads((files("peft_shop") / "_catalog.json").read_bytes())
    rng = random.Random(seed)
    seeds = [run for run in raw["runs"] if run["benchmark"] == "metamathqa"]
    newest = raw["snapshots"][-1]["id"]
    raw["runs"] = [
        {
            **run,
            "experiment": f"{run['experiment']}-{place}",
            "snapshots": [newest],
            "metrics": {
                name: value if value <= 0 else type(value)(value * rng.uniform(0.7, 1.2))
                for name, value in run["metrics"].items()
            },
        }
        for place in range(count)
        for run in [seeds[place % len(seeds)]]
    ]
    return json.dumps(raw).encode()


def cpu_seconds(action: Callable[[], object], runs: int = 3) -> float:
    """Least CPU time of `action` [s]."""
    best = math.inf
    for _ in range(runs):
        start = time.process_time()
        action()
        best = min(best, time.process_time() - start)
    return best


def measure() -> dict[str, tuple[float, float]]:
    """By what was done the CPU time at the largest size [s], and the exponent of its growth."""
    from peft_shop import recommend
    from peft_shop.ask import quantiles
    from peft_shop.catalog.store import parse

    taken: dict[str, list[float]] = {}
    for size in SIZES:
        text = grown(size)
        taken.setdefault("load", []).append(cpu_seconds(lambda text=text: parse(text)))
        catalog = parse(text)
        for name, question in QUESTIONS.items():
            ask = partial(recommend, "metamathqa", catalog=catalog, peft_version="any", **question)

            def first(ask: Callable[[], object] = ask, catalog: Catalog = catalog) -> None:
                catalog.derived.clear()
                quantiles.dunnett_factor.cache_clear()
                ask()

            first()
            taken.setdefault(f"{name}, first", []).append(cpu_seconds(first))
            taken.setdefault(name, []).append(cpu_seconds(ask))
    ratio = SIZES[1] / SIZES[0]
    return {name: (more, math.log(more / less, ratio)) for name, (less, more) in taken.items()}


def main() -> None:
    """Prints the table."""
    for name, (spent, growth) in measure().items():
        print(f"{SIZES[1]:,} runs, {name:<26} {spent:6.2f} s, grows by the power {growth:.2f}")


if __name__ == "__main__":
    main()

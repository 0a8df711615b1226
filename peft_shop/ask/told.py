"""What tells candidates apart where the runs of a benchmark vary in their settings.

There a title names size and learning rate, "DoRA r4, lr 4e-5", and an answer tells which rates
were tried: a best one at the edge of them, or a rate that nobody varied, says that a method may
have been under-tuned.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from peft_shop.upstream.defaults import CLASS_DEFAULTS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from peft_shop.ask.contenders import Contender
    from peft_shop.catalog.benchmarks import Benchmark, Metric
    from peft_shop.catalog.catalog import Catalog
    from peft_shop.catalog.runs import Run

__all__ = ["RatesTried", "rate_text", "rates_tried", "told_title"]

_SIZES: Final = {
    "u": "u{}",
    "n_frequency": "{} frequencies",
    "block_size": "blocks of {}",
    "oft_block_size": "blocks of {}",
    "boft_block_size": "blocks of {}",
    "r": "r{}",
}
"""Fields that set how large an adapter is, the most telling first, and how they read."""


@dataclass(frozen=True, slots=True)
class RatesTried:
    """Learning rates at which one configuration of a method ran, all else alike.

    Attributes:
        title: method and variants.
        size: of the configuration with most rates, the best of them; may be empty.
        rates: ascending.
        best: rate of the best score.
        worst_score: lowest score among them [1].
        best_score: highest [1].
    """

    title: str
    size: str
    rates: tuple[float, ...]
    best: float
    worst_score: float
    best_score: float

    @property
    def edge(self) -> str | None:
        """`only`, `lowest` or `highest` where the best rate has no neighbour on a side."""
        if len(self.rates) == 1:
            return "only"
        ends = {self.rates[0]: "lowest", self.rates[-1]: "highest"}
        return ends.get(self.best)

    def __str__(self) -> str:
        who = f"{self.title} {self.size}".rstrip()
        if self.edge == "only":
            return f"{who}: one rate only, {rate_text(self.rates[0])}"
        moved = 100 * (self.best_score - self.worst_score)
        where = "inside" if self.edge is None else f"at the {self.edge}"
        return (
            f"{who}: {len(self.rates)} rates from {rate_text(self.rates[0])} to "
            f"{rate_text(self.rates[-1])} moved it by {moved:.1f} points, best "
            f"{rate_text(self.best)}, {where}"
        )


def rate_text(rate: float) -> str:
    """A learning rate as people write it.

    >>> rate_text(0.0001), rate_text(4e-05), rate_text(0.00045)
    ('1e-4', '4e-5', '4.5e-4')
    """
    mantissa, _, power = f"{rate:e}".partition("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(power)}"


def told_title(catalog: Catalog, benchmark: Benchmark, plain: str, run: Run | None) -> str:
    """The title of a candidate with what its benchmark's runs vary in; `plain` where nothing."""
    if run is None or not benchmark.told_by or run.recipe.peft_type is None:
        return plain
    method = catalog.method_by_id.get(run.method)
    names = [] if method is None else [v.title for v in method.variants if v.id in run.variants]
    title = names[0] if len(names) == 1 else plain
    if "rank" in benchmark.told_by:
        title = f"{title} {_size(run)}".rstrip()
    if "learning_rate" in benchmark.told_by:
        title = f"{title}, lr {rate_text(run.recipe.training.learning_rate)}"
    return title


def _size(run: Run) -> str:
    defaults = CLASS_DEFAULTS.get(run.recipe.peft_type or "", {})
    for field, text in _SIZES.items():
        value = run.recipe.config.get(field, defaults.get(field))
        if isinstance(value, int) and value:
            return text.format(value)
    return ""


def rates_tried(
    catalog: Catalog, benchmark: Benchmark, contenders: Iterable[Contender]
) -> dict[tuple[str, tuple[str, ...]], RatesTried]:
    """Rates by method and variants, of the configuration that ran with most of them.

    Empty for a benchmark whose runs do not vary in the rate. Only comparable runs count.
    """
    if "learning_rate" not in benchmark.told_by:
        return {}
    headline = catalog.metric_by_id[benchmark.headline]
    groups: dict[tuple[str, tuple[str, ...]], dict[str, list[Contender]]] = {}
    for contender in contenders:
        if contender.run is None or headline.id not in contender.values:
            continue
        if any(flag.code == "broken_config" for flag in contender.run.flags):
            continue
        configurations = groups.setdefault((contender.method, contender.variants), {})
        key = json.dumps(contender.run.recipe.config, sort_keys=True)
        configurations.setdefault(key, []).append(contender)
    return {
        key: _rates(catalog, key, configurations.values(), headline)
        for key, configurations in sorted(groups.items())
    }


def _rates(
    catalog: Catalog,
    key: tuple[str, tuple[str, ...]],
    configurations: Iterable[Sequence[Contender]],
    headline: Metric,
) -> RatesTried:
    sign = 1 if headline.better == "higher" else -1

    def score(contender: Contender) -> float:
        return sign * contender.values[headline.id]

    def rate(contender: Contender) -> float:
        return contender.run.recipe.training.learning_rate if contender.run is not None else 0.0

    most = max(configurations, key=lambda group: (len({*map(rate, group)}), max(map(score, group))))
    best, worst = max(most, key=score), min(most, key=score)
    method = catalog.method_by_id[key[0]]
    names = [variant.title for variant in method.variants if variant.id in key[1]]
    return RatesTried(
        title=", ".join(names) or method.title,
        size="" if best.run is None else _size(best.run),
        rates=tuple(sorted({*map(rate, most)})),
        best=rate(best),
        worst_score=worst.values[headline.id],
        best_score=best.values[headline.id],
    )

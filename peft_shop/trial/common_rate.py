"""The trap of one learning rate for all: where it gives another order than each one's own rate."""

from __future__ import annotations

import math
from itertools import combinations
from typing import TYPE_CHECKING, Final, NamedTuple

from peft_shop.ask.quantiles import significance_threshold
from peft_shop.catalog.features import FULL_FINETUNING
from peft_shop.units import format_quantity

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from peft_shop.catalog.benchmarks import Metric
    from peft_shop.catalog.noise import Noise
    from peft_shop.catalog.runs import Run

__all__ = ["common_rate_notes"]

_CONFIDENCE: Final = 0.95


class _Swap(NamedTuple):
    """A pair whose order turns round.

    Attributes:
        sureness: the smaller of the two leads, in its own standard deviations; the leads
            themselves where no noise is known.
        rate: the common one.
        ahead: the candidate that is better at it.
        behind: the one that is better with rates of their own.
        common: figures of both at the common rate, `ahead` first.
        tuned: means of both at rates of their own, `ahead` first.
    """

    sureness: float
    rate: float
    ahead: str
    behind: str
    common: tuple[float, float]
    tuned: tuple[float, float]


def common_rate_notes(
    runs: Iterable[Run],
    owners: Mapping[str, str],
    metric: Metric,
    noise: Sequence[Noise],
    sampling: Mapping[frozenset[str], float],
) -> tuple[str, ...]:
    """What a comparison at one rate would have got wrong, in one sentence; empty for nothing.

    A pair counts where both leads are beyond noise: a single run each at the common rate, the
    means of all seeds at rates of their own.

    Args:
        runs: of the trial.
        owners: candidate by the experiment of its sweep; other experiments are candidates.
        metric: that candidates are ordered by.
        noise: of one run, of all candidates or of single ones; empty where too few seeds tell it,
            then every pair counts and the sentence says so.
        sampling: standard deviation that the test examples add to the difference of two
            experiments.
    """
    sign = 1 if metric.better == "lower" else -1
    tuned: dict[str, list[float]] = {}
    sweeps: dict[float, dict[str, tuple[str, float]]] = {}
    for run in runs:
        value = run.metrics.get(metric.field)
        if value is None or run.method == FULL_FINETUNING:
            continue
        owner = owners.get(run.experiment)
        if owner is None:
            tuned.setdefault(run.experiment, []).append(value)
        else:
            rate = run.recipe.training.learning_rate
            sweeps.setdefault(rate, {})[owner] = run.experiment, value
    common = next((item for item in noise if not item.experiments), None)
    own = {name: item.sd for item in noise for name in item.experiments}
    degrees = math.inf if common is None or common.degrees is None else common.degrees
    threshold = significance_threshold(_CONFIDENCE, degrees)
    swaps = []
    for rate, tried in sweeps.items():
        for one, other in combinations(sorted(set(tried) & set(tuned)), 2):
            means = {name: math.fsum(tuned[name]) / len(tuned[name]) for name in (one, other)}
            lead = sign * (tried[other][1] - tried[one][1])
            own_lead = sign * (means[other] - means[one])
            if lead * own_lead >= 0:
                continue
            sureness = min(abs(lead), abs(own_lead))
            if common is not None:
                sd, other_sd = own.get(one, common.sd), own.get(other, common.sd)
                here = sampling.get(frozenset((tried[one][0], tried[other][0])), 0.0)
                there = sampling.get(frozenset((one, other)), 0.0)
                roots = math.sqrt(len(tuned[one])), math.sqrt(len(tuned[other]))
                sds = (
                    math.hypot(sd, other_sd, here),
                    math.hypot(sd / roots[0], other_sd / roots[1], there),
                )
                leads = zip((lead, own_lead), sds, strict=True)
                sureness = min(abs(each) / max(error, 1e-300) for each, error in leads)
                if sureness <= threshold:
                    continue
            ahead, behind = (one, other) if lead > 0 else (other, one)
            swaps.append(
                _Swap(
                    sureness,
                    rate,
                    ahead,
                    behind,
                    (tried[ahead][1], tried[behind][1]),
                    (means[ahead], means[behind]),
                )
            )
    return _sentence(swaps, metric, common is not None) if swaps else ()


def _sentence(swaps: list[_Swap], metric: Metric, beyond_noise: bool) -> tuple[str]:
    swap = max(swaps, key=lambda each: (each.sureness, each.ahead, each.behind))
    pairs = len({frozenset((each.ahead, each.behind)) for each in swaps})
    others = f"; so with {pairs - 1} more pair{'s' if pairs > 2 else ''}" if pairs > 1 else ""
    sure = "misleads" if beyond_noise else "may mislead (too few seeds to be sure)"
    figures = [format_quantity(each, metric.unit) for each in (*swap.common, *swap.tuned)]
    text = (
        f"one learning rate {sure}: at {swap.rate:g} {swap.ahead} leads {swap.behind} "
        f"({metric.label} {figures[0]} to {figures[1]}), each tuned it trails "
        f"({figures[2]} to {figures[3]}){others}"
    )
    return (text,)

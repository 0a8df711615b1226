"""An answer in at most 4 kB of JSON, for programs that read it whole: agents above all."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from peft_shop.ask.candidates import Candidate
from peft_shop.ask.places import Unmeasured
from peft_shop.show.cautions import cautions
from peft_shop.show.doubts import again
from peft_shop.show.naming import in_short
from peft_shop.show.overview import (
    advised,
    all_metrics,
    entries,
    objectives_of,
    yardsticks,
)
from peft_shop.show.questions import demands
from peft_shop.show.setups import answer_setup, setup_words

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from peft_shop.ask.recommendation import Recommendation
    from peft_shop.catalog.benchmarks import Metric
    from peft_shop.show.overview import Entry

__all__ = ["BYTES", "brief_json", "brief_record"]

BYTES: Final = 4096
"""Most bytes of a brief answer."""
_BEST: Final = 5
_DIGITS: Final = 5
"""Significant digits of a figure: more than any of them is sure to."""
_LONG: Final = 300
"""Characters of a text that are kept where not even one member has room."""


def brief_json(
    recommendation: Recommendation, next_commands: Callable[[str], Sequence[str]] | None = None
) -> str:
    """The brief answer as JSON text of at most `BYTES` bytes, with a final newline.

    Args:
        recommendation: the answer.
        next_commands: what to do next with a candidate, by its short name.
    """
    text = ""
    for best, most, long in (
        *((count, 6, None) for count in range(_BEST, 0, -1)),
        *((1, most, _LONG) for most in (6, 3, 1)),
        (0, 1, _LONG),
    ):
        record = brief_record(
            recommendation, next_commands, best=best, cautions_shown=most, longest=long
        )
        text = json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n"
        if len(text.encode()) <= BYTES:
            return text
    return text


def brief_record(
    recommendation: Recommendation,
    next_commands: Callable[[str], Sequence[str]] | None = None,
    *,
    best: int = _BEST,
    cautions_shown: int = 6,
    longest: int | None = None,
) -> dict[str, Any]:
    """The brief answer as plain data.

    Keys: `asked` (in words), `benchmark`, `objectives`, `units` (of figures, by metric), `counts`,
    `best` (rank, name, title, figures as `[value, sd]` or a value, `again`, serving, config; where
    a setup was chosen fits, range and setup), `yardsticks` (likewise, with their place and what
    the first of the best has more), `setup`, `relax`, `careful`, `evidence`, `next`.

    Args:
        recommendation: the answer.
        next_commands: what to do next with a candidate, by its short name.
        best: most members.
        cautions_shown: most cautions; how many there are besides is counted.
        longest: characters of a value of a configuration or of a caution; all where `None`.
    """
    shown, objectives = entries(recommendation), objectives_of(recommendation)
    metrics = all_metrics(recommendation)
    query = recommendation.query
    rows = shown[:best]
    warnings = cautions(recommendation, shown, objectives)
    texts = [_cut(in_short(recommendation.catalog, one.text), longest) for one in warnings]
    warned = [name for one in warnings for name in one.about]
    chosen = advised(rows, warned)
    record: dict[str, Any] = {
        "asked": "; ".join(demands(recommendation)) or "nothing beyond the defaults",
        "benchmark": query.benchmark if query.ranked else None,
        "objectives": {metric.id: metric.better for metric in objectives},
        "units": {metric.id: metric.unit for metric in metrics},
        "counts": {
            "best": len(recommendation.front),
            "as_good_within_noise": len(recommendation.ties),
            "beaten": len(recommendation.dominated),
            "too_close_to_call": len(recommendation.too_close),
            "left_out": len(recommendation.dropped),
            "never_measured_here": len(recommendation.unmeasured),
        },
        "best": [_member(recommendation, entry, metrics, longest) for entry in rows],
        "more_best": len(shown) - len(rows),
        "yardsticks": [
            _yardstick(recommendation, entry, metrics, rows) for entry in yardsticks(recommendation)
        ],
    }
    if recommendation.benchmark.caveats:
        record["caveats"] = list(recommendation.benchmark.caveats)
    setup = answer_setup(recommendation)
    if setup:
        record["setup"] = " ".join(setup)
    if recommendation.relaxations:
        relax = [
            _cut(in_short(recommendation.catalog, relaxation.suggestion), longest)
            for relaxation in recommendation.relaxations[:3]
        ]
        record["relax"] = relax
    record["careful"] = texts[:cautions_shown]
    if len(texts) > cautions_shown:
        record["more_careful"] = len(texts) - cautions_shown
    record["evidence"] = {
        "snapshot": query.snapshot,
        "era": query.era,
        "catalog": recommendation.catalog_version,
        "peft": recommendation.peft_version,
        "noise": f"sd {again(query)}; every figure is one run unless pooled",
        "certainty": query.certainty,
    }
    if next_commands is not None and chosen is not None:
        record["next"] = list(next_commands(chosen.short))
    return record


def _member(
    recommendation: Recommendation, entry: Entry, metrics: Sequence[Metric], longest: int | None
) -> dict[str, Any]:
    one = entry.one
    record: dict[str, Any] = {
        "rank": entry.rank,
        "name": entry.short,
        "title": entry.title,
        **_figures(one, metrics),
        "again": None,
        "serving": entry.serving,
    }
    if isinstance(one, Candidate):
        record["again"] = None if one.front_probability is None else _round(one.front_probability)
        config = {name: _cut(value, longest) for name, value in one.config_dict.items()}
        record["config"] = config
    if one.setup is not None:
        model = recommendation.query.model
        peak = one.setup.peak
        record["fits"] = one.setup.fits
        record["peak_range"] = [round(peak.low), round(peak.high)]
        record["setup"] = setup_words(one.setup.settings, model)
    return record


def _figures(candidate: Candidate | Unmeasured, metrics: Sequence[Metric]) -> dict[str, Any]:
    """`[value, sd]` where there is noise, a value where not, `None` for what is not known."""
    if isinstance(candidate, Unmeasured):
        return {}
    found: dict[str, Any] = {}
    for metric in metrics:
        value, sd = candidate.values.get(metric.id), candidate.sds.get(metric.id)
        shown = None if value is None else _round(value)
        found[metric.id] = [shown, _round(sd)] if shown is not None and sd else shown
    return found


def _yardstick(
    recommendation: Recommendation, entry: Entry, metrics: Sequence[Metric], rows: Sequence[Entry]
) -> dict[str, Any]:
    record: dict[str, Any] = {
        "name": entry.short,
        "title": entry.title,
        **_figures(entry.one, metrics),
        "serving": entry.serving,
        "place": entry.again,
    }
    if rows and isinstance(rows[0].one, Candidate) and isinstance(entry.one, Candidate):
        mine, theirs = rows[0].one.values, entry.one.values
        record["first_minus_it"] = {
            metric.id: _round(mine[metric.id] - theirs[metric.id])
            for metric in objectives_of(recommendation)
            if metric.id in mine and metric.id in theirs
        }
    return record


def _round(value: float) -> float | int:
    if isinstance(value, int) or float(value).is_integer():
        return int(value)
    return float(f"{value:.{_DIGITS}g}")


def _cut(value: Any, longest: int | None) -> Any:
    """A value as it is, or the beginning of its text where that is too long."""
    if longest is None:
        return value
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return value if len(text) <= longest else f"{text[:longest]}..."

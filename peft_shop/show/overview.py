"""An answer reduced to what people read first: entries with their figures, and one comparison.

The first screen, the brief JSON and the notebook's card are made of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from peft_shop.ask.places import Unmeasured
from peft_shop.ask.reasons import lead
from peft_shop.show.figures import chance, signed, uncertain
from peft_shop.show.serving import serving_word
from peft_shop.units import format_quantity

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from peft_shop.ask.candidates import Candidate
    from peft_shop.ask.places import Baseline
    from peft_shop.ask.recommendation import Recommendation
    from peft_shop.catalog.benchmarks import Metric

__all__ = [
    "Entry",
    "advised",
    "all_metrics",
    "entries",
    "figure_text",
    "header",
    "objectives_of",
    "place_word",
    "versus_yardstick",
    "yardsticks",
]

_WIDEST: Final = 10
"""Characters of a header."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of an answer.

    Attributes:
        rank: place on the front, from 1; `None` for what has none.
        title: method and variants, for people.
        name: whole name.
        short: short name.
        one: the candidate.
        serving: how it reaches the engines, in one word.
        again: chance to be among the best if all were measured again, or its place in a word.
    """

    rank: int | None
    title: str
    name: str
    short: str
    one: Candidate | Unmeasured
    serving: str
    again: str


def entries(recommendation: Recommendation) -> tuple[Entry, ...]:
    """The best; where nothing is, what is too close to call; without a ranking, what works."""
    if recommendation.front:
        return tuple(
            _entry(recommendation, member, rank, chance(member.front_probability).text)
            for rank, member in enumerate(recommendation.front, start=1)
        )
    if recommendation.too_close:
        return tuple(
            _entry(recommendation, candidate, None, "-") for candidate in recommendation.too_close
        )
    if recommendation.query.ranked:
        return ()
    return tuple(
        Entry(
            None,
            unmeasured.title,
            unmeasured.method,
            unmeasured.method,
            unmeasured,
            serving_word(recommendation, unmeasured),
            "-",
        )
        for unmeasured in recommendation.unmeasured
    )


def _entry(
    recommendation: Recommendation, candidate: Candidate, rank: int | None, again: str
) -> Entry:
    short = recommendation.short(candidate)
    return Entry(
        rank,
        candidate.title,
        candidate.name,
        short,
        candidate,
        serving_word(recommendation, candidate),
        again,
    )


def yardsticks(recommendation: Recommendation) -> tuple[Entry, ...]:
    """Plain LoRA and full fine-tuning, with their places instead of chances."""
    found = []
    for baseline in recommendation.baselines:
        plain = baseline.is_yardstick
        title = "Plain LoRA, the yardstick" if plain else "Full fine-tuning"
        serving = serving_word(recommendation, baseline) if plain else "-"
        again = place_word(recommendation, baseline) if plain else "-"
        short = recommendation.short(baseline)
        found.append(Entry(None, title, baseline.name, short, baseline, serving, again))
    return tuple(found)


def place_word(recommendation: Recommendation, baseline: Baseline) -> str:
    """Where a yardstick stands among the candidates, in one word."""
    for rank, member in enumerate(recommendation.front, start=1):
        if member.name == baseline.name:
            return f"no. {rank}"
    places = (
        ("tie", recommendation.ties),
        ("beaten", recommendation.dominated),
        ("close", recommendation.too_close),
        ("out", recommendation.dropped),
    )
    return next(
        (word for word, group in places if any(one.name == baseline.name for one in group)), "-"
    )


# --- figures ---


def objectives_of(recommendation: Recommendation) -> list[Metric]:
    """The metrics optimised, the benchmark's score first."""
    by_id = {metric.id: metric for metric in recommendation.metrics}
    headline = recommendation.benchmark.headline
    names = sorted(recommendation.query.objectives, key=lambda name: name != headline)
    return [by_id[name] for name in names]


def all_metrics(recommendation: Recommendation) -> list[Metric]:
    """Score, memory and size of the file, then whatever else is optimised or bounded."""
    by_id = {metric.id: metric for metric in recommendation.metrics}
    usual = (recommendation.benchmark.headline, "peak_memory", "checkpoint_size")
    bounded = [bound.metric for bound in recommendation.query.bounds]
    names = dict.fromkeys([*usual, *recommendation.query.objectives, *bounded])
    return [by_id[name] for name in names if name in by_id]


def header(metric: Metric) -> str:
    """A short header: "Accuracy", "Memory", "File", "Trainable", "Train time"."""
    if metric.id in {"peak_memory", "checkpoint_size"}:
        return "Memory" if metric.id == "peak_memory" else "File"
    if metric.id == "trainable_parameters":
        return "Trainable"
    words = metric.id.replace("_", " ")
    if len(words) > _WIDEST and metric.scope == "score":
        words = words.rpartition(" ")[2]
    return words[0].upper() + words[1:]


def figure_text(candidate: Candidate | Unmeasured, metric: Metric) -> str:
    """A figure in few characters: "52.6 ± 0.9", "23.9 GiB"; what is not known is `unknown`."""
    value: float | None
    sd = 0.0
    if isinstance(candidate, Unmeasured):
        known = candidate.forecasted
        costs: dict[str, float | None] = {}
        if known is not None:
            costs = {
                "peak_memory": known.peak_memory.value,
                "checkpoint_size": known.checkpoint_bytes,
                "trainable_parameters": known.trainable_parameters,
            }
        value = costs.get(metric.id)
        if value is None:
            return "-" if metric.scope in {"score", "time"} else "unknown"
    else:
        value, sd = candidate.values.get(metric.id), candidate.sds.get(metric.id, 0.0)
        if value is None:
            return "unknown"
    if metric.unit == "bytes":
        return format_quantity(value, "bytes", digits=1)
    text = uncertain(value, sd, metric)
    return text.replace(" %", "", 1) if metric.scope == "score" else text


# --- against plain LoRA ---


def versus_yardstick(
    recommendation: Recommendation, shown: Sequence[Entry], objectives: Sequence[Metric]
) -> str:
    """Who is better than plain LoRA in every objective, and by how much; empty without one."""
    plain = recommendation.yardstick
    ranked = [entry for entry in shown if entry.rank is not None]
    if plain is None or not ranked or any(metric.id not in plain.values for metric in objectives):
        return ""
    where = _how_many(len(objectives))
    better = [entry for entry in ranked if _beats(entry.one, plain, objectives)]
    if not better:
        return f"None of them is better than plain LoRA {where}."
    if len(better) == len(ranked) > 1:
        subject = f"Better than plain LoRA {where}: all, "
    else:
        subject = f"Better than plain LoRA {where}: "
    listed = [
        f"{entry.rank} ({_differences(entry.one, plain, objectives, units=not place)})"
        for place, entry in enumerate(better)
    ]
    return subject + ", ".join(listed)


def _how_many(count: int) -> str:
    return {1: "in that", 2: "in both"}.get(count, f"in all {count}")


def _beats(
    candidate: Candidate | Unmeasured, plain: Baseline, objectives: Sequence[Metric]
) -> bool:
    return not isinstance(candidate, Unmeasured) and all(
        metric.id in candidate.values and lead(candidate, plain, metric) > 0
        for metric in objectives
    )


def _differences(
    candidate: Candidate | Unmeasured, plain: Baseline, objectives: Sequence[Metric], *, units: bool
) -> str:
    """Differences with signs; units the first time only."""
    if isinstance(candidate, Unmeasured):
        return ""
    found = []
    for metric in objectives:
        text = signed(candidate.values[metric.id] - plain.values[metric.id], metric)
        if (
            metric.unit == "bytes"
            and abs(candidate.values[metric.id] - plain.values[metric.id]) > 2**30
        ):
            size = (candidate.values[metric.id] - plain.values[metric.id]) / 2**30
            text = f"{size:+.1f} GiB"
        same = metric.unit in {"fraction", "bytes"}
        found.append(text if units or not same else _bare(text))
    return ", ".join(found)


def _bare(text: str) -> str:
    """Without a unit that the one before has: only where it is the same."""
    return text.removesuffix(" points").removesuffix(" GiB")


def advised(rows: Sequence[Entry], reserved: Iterable[str]) -> Entry | None:
    """The entry to go on with: the first that is served somehow and has nothing against it.

    Args:
        rows: entries, best first.
        reserved: names of those that a caution is about.
    """
    warned = set(reserved)
    usable = [entry for entry in rows if entry.serving not in {"none", "unknown"}]
    sound = [entry for entry in usable if entry.name not in warned]
    return next(iter([*sound, *usable, *rows]), None)

"""An answer as flat records, for tables and data frames."""

from __future__ import annotations

from typing import TYPE_CHECKING

from peft_shop.show.answer_notes import failures
from peft_shop.show.serving import serving_word
from peft_shop.show.setups import setup_words

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import TypeAlias

    from peft_shop.ask.candidates import Candidate
    from peft_shop.ask.places import Dropped
    from peft_shop.ask.recommendation import Recommendation
    from peft_shop.catalog.runs import Run
    from peft_shop.show.documents import Value

    _Record: TypeAlias = dict[str, Value]

__all__ = ["answer_records", "frame_records"]


def answer_records(recommendation: Recommendation) -> list[_Record]:
    """Every candidate with a run and the baselines, one dictionary each, figures in base units.

    Keys: place (`front`, `tie`, `too_close`, `dominated`, `dropped`, `baseline`), name, method,
    variants (joined by spaces), front_probability, every metric by its field, reasons; where setups
    were chosen also fits, own_peak_bytes, low_bytes, high_bytes, setup. Absent values are `None`.
    """
    found = [
        _record(recommendation, "front", member, f"{member.why} {member.gives_up}")
        for member in recommendation.front
    ]
    found += [_record(recommendation, "tie", tie, tie.because) for tie in recommendation.ties]
    found += [
        _record(recommendation, "too_close", candidate, candidate.because)
        for candidate in recommendation.too_close
    ]
    found += [
        _record(recommendation, "dominated", candidate, f"dominated by {candidate.dominated_by}")
        for candidate in recommendation.dominated
    ]
    found += [
        _dropped_record(recommendation, dropped, dropped.run)
        for dropped in recommendation.dropped
        if dropped.run is not None
    ]
    found += [
        _record(recommendation, "baseline", baseline, f"baseline: {baseline.kind}")
        for baseline in recommendation.baselines
    ]
    return found


def frame_records(recommendation: Recommendation, *, reasons: bool = False) -> list[_Record]:
    """The same for a data frame: every run once, no column that is empty, more of each.

    Keys besides: title, short_name, `<metric>_sd` where a figure has noise, serving (as on the
    first screen), yardstick (`lora`, `full_finetuning`: what it stands for beside the others).
    What is prose is left out unless `reasons`.
    """
    kinds = {baseline.name: baseline.kind for baseline in recommendation.baselines}
    by_name: dict[str, Candidate] = {
        candidate.name: candidate for candidate in recommendation.candidates
    }
    short = {dropped.name: recommendation.short(dropped) for dropped in recommendation.dropped}
    titles = {dropped.name: dropped.title for dropped in recommendation.dropped}
    noisy = [
        metric
        for metric in recommendation.metrics
        if any(one.sds.get(metric.id) for one in by_name.values())
    ]
    records: dict[str, _Record] = {}
    for record in answer_records(recommendation):
        name = str(record["name"])
        if name in records:  # a yardstick that is a candidate too
            continue
        one = by_name.get(name)
        start = {key: record[key] for key in ("place", "name")}
        more: _Record = {
            "short_name": short.get(name, name) if one is None else recommendation.short(one),
            "title": titles.get(name) if one is None else one.title,
        }
        sds = {
            f"{metric.field}_sd": None if one is None else one.sds.get(metric.id)
            for metric in noisy
        }
        records[name] = {
            **start,
            **more,
            **{key: value for key, value in record.items() if key != "reasons"},
            **sds,
            "serving": None if one is None else serving_word(recommendation, one),
            "yardstick": kinds.get(name),
            **({"reasons": record["reasons"]} if reasons else {}),
        }
    rows = list(records.values())
    filled = {key for row in rows for key, value in row.items() if value is not None}
    return [{key: value for key, value in row.items() if key in filled} for row in rows]


def _record(
    recommendation: Recommendation, place: str, candidate: Candidate, reasons: str
) -> _Record:
    return _flat(
        recommendation,
        place,
        candidate,
        candidate.values,
        candidate.front_probability,
        reasons=reasons,
    )


def _dropped_record(recommendation: Recommendation, dropped: Dropped, run: Run) -> _Record:
    """Figures as measured, comparable or not: the reasons tell."""
    values = {
        metric.id: run.metrics[metric.field]
        for metric in recommendation.metrics
        if metric.field in run.metrics
    }
    return _flat(recommendation, "dropped", dropped, values, None, reasons=failures(dropped))


def _flat(
    recommendation: Recommendation,
    place: str,
    candidate: Candidate | Dropped,
    values: Mapping[str, float],
    probability: float | None,
    *,
    reasons: str,
) -> _Record:
    return {
        "place": place,
        "name": candidate.name,
        "method": candidate.method,
        "variants": " ".join(candidate.variants),
        "front_probability": probability,
        **{metric.field: values.get(metric.id) for metric in recommendation.metrics},
        "reasons": reasons,
        **_fit(recommendation, candidate),
    }


def _fit(recommendation: Recommendation, candidate: Candidate | Dropped) -> _Record:
    """Whether it fits and under which setup, where the question asks for one."""
    if recommendation.query.fit == "off":
        return {}
    setup = getattr(candidate, "setup", None)
    if setup is None:
        return dict.fromkeys(("fits", "own_peak_bytes", "low_bytes", "high_bytes", "setup"))
    model = recommendation.query.model
    return {
        "fits": setup.fits,
        "own_peak_bytes": round(setup.peak.value),
        "low_bytes": round(setup.peak.low),
        "high_bytes": round(setup.peak.high),
        "setup": setup_words(setup.settings, model),
    }

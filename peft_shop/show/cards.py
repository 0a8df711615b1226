"""Answers and their members in a notebook: HTML without scripts, in light and in dark."""

from __future__ import annotations

import json
from html import escape
from typing import TYPE_CHECKING, Final

from peft_shop.catalog.short_names import short_name, words_of
from peft_shop.catalog.store import load
from peft_shop.show.cautions import USUAL, cautions
from peft_shop.show.documents import Item, clean
from peft_shop.show.figures import chance, figure
from peft_shop.show.naming import in_short
from peft_shop.show.overview import (
    all_metrics,
    entries,
    figure_text,
    header,
    objectives_of,
    versus_yardstick,
    yardsticks,
)
from peft_shop.show.routes import route_sentence
from peft_shop.show.screen import summary
from peft_shop.show.sections import SECTIONS
from peft_shop.show.setups import interval

if TYPE_CHECKING:
    from collections.abc import Sequence

    from peft_shop.ask.candidates import Candidate
    from peft_shop.ask.recommendation import Recommendation
    from peft_shop.catalog.benchmarks import Metric
    from peft_shop.show.overview import Entry

__all__ = ["answer_html", "candidate_html"]

_BYTES: Final = 10_000
"""Most bytes of an answer in a notebook, which keeps every output."""
_ROWS: Final = 6
_FIGURES: Final = ("peak_memory", "checkpoint_size", "trainable_parameters", "train_time")
# no colours of text or ground but the notebook's own: bars are see-through
_STYLE: Final = """<style>.peft-shop{font-size:13px;line-height:1.45}
.peft-shop table{border-collapse:collapse;margin:.5em 0}
.peft-shop th,.peft-shop td{padding:2px 10px 2px 4px;text-align:right;border:0}
.peft-shop th:nth-child(-n+2),.peft-shop td:nth-child(-n+2){text-align:left}
.peft-shop thead th{border-bottom:1px solid #8888}
.peft-shop small{opacity:.75;display:block}
.peft-shop .b{background:linear-gradient(90deg,#0072b244 var(--w),transparent var(--w))}
.peft-shop .ref td{border-top:1px dotted #8888}
.peft-shop .card td{text-align:left;vertical-align:top}
.peft-shop .direct{font-weight:600}.peft-shop .none,.peft-shop .unknown{opacity:.6}
.peft-shop summary{cursor:pointer}.peft-shop pre{white-space:pre-wrap}</style>"""
_SUMMARIES: Final = {
    "why": "Why these",
    "ties": "As good within noise",
    "left-out": "Left out",
    "sure": "How sure this is",
}


def answer_html(recommendation: Recommendation) -> str:
    """The answer for a notebook, under 10 kB: sentence, table, plain LoRA, four sections."""
    for most, longest in ((12, 400), (8, 240), (5, 160), (3, 110), (1, 80)):
        text = _answer(recommendation, most, longest)
        if len(text.encode()) < _BYTES:
            return text
    return text


def _answer(recommendation: Recommendation, most: int, longest: int) -> str:
    shown = entries(recommendation)
    rows = shown[:_ROWS]
    objectives = objectives_of(recommendation)
    parts = [f"<b>{_text(line, longest)}</b>" for line in summary(recommendation)[:1]]
    parts += [_text(line, longest) for line in summary(recommendation)[1:]]
    body = [f"<div>{'<br>'.join(parts)}</div>"]
    if rows or recommendation.baselines:
        body.append(_table(recommendation, rows, longest))
    if shown[_ROWS:]:
        body.append(f"<div>+ {len(shown) - _ROWS} more: <code>answer.text('all')</code></div>")
    sentence = versus_yardstick(recommendation, rows, objectives)
    if sentence:
        body.append(f"<div>{_text(sentence, longest)}</div>")
    body += [
        "<div><b>Careful:</b> "
        f"{_text(in_short(recommendation.catalog, caution.text), longest)}</div>"
        for caution in cautions(recommendation, rows, objectives)[:2]
        if caution.gravity < USUAL
    ]
    body += [
        f"<div>{_text(in_short(recommendation.catalog, relaxation.suggestion), longest)}</div>"
        for relaxation in recommendation.relaxations[:most]
    ]
    body += [_details(recommendation, name, most, longest) for name in SECTIONS]
    return f'{_STYLE}<div class="peft-shop">{"".join(body)}</div>'


def _table(recommendation: Recommendation, rows: Sequence[Entry], longest: int) -> str:
    metrics = all_metrics(recommendation)
    below = yardsticks(recommendation)
    greatest = {
        metric.id: max(
            (value for entry in (*rows, *below) if (value := _value(entry, metric)) is not None),
            default=0.0,
        )
        for metric in metrics
    }
    heads = ["", "", *(header(metric) for metric in metrics), "Serving", "Again"]
    lines = [f"<thead><tr>{''.join(f'<th>{_text(head)}</th>' for head in heads)}</tr></thead>"]
    for entry in (*rows, *below):
        name = f"<small><code>{_text(entry.short, longest)}</code></small>"
        cells = [
            f"<td>{entry.rank or ''}</td>",
            f"<td>{_text(entry.title, longest)}{name}</td>",
            *(_bar(entry, metric, greatest[metric.id]) for metric in metrics),
            f'<td class="{escape(entry.serving)}">{_text(entry.serving)}</td>',
            f"<td>{_text(entry.again)}</td>",
        ]
        kind = "" if entry in rows else ' class="ref"'
        lines.append(f"<tr{kind}>{''.join(cells)}</tr>")
    return f"<table>{''.join(lines)}</table>"


def _value(entry: Entry, metric: Metric) -> float | None:
    values = getattr(entry.one, "values", None)
    return None if values is None else values.get(metric.id)


def _bar(entry: Entry, metric: Metric, greatest: float) -> str:
    """A figure over a bar of its share of the greatest beside it."""
    value = _value(entry, metric)
    text = _text(figure_text(entry.one, metric))
    if value is None or greatest <= 0:
        return f"<td>{text}</td>"
    share = min(100, max(0, round(100 * value / greatest)))
    return f'<td class="b" style="--w:{share}%">{text}</td>'


def _details(recommendation: Recommendation, name: str, most: int, longest: int) -> str:
    items = SECTIONS[name](recommendation).items
    listed = [_item(recommendation, item, longest) for item in items[:most]]
    if items[most:]:
        listed.append(f"<li>+ {len(items) - most} more: <code>answer.text('{name}')</code></li>")
    if not listed:
        listed = ["<li>nothing</li>"]
    return (
        f"<details><summary>{_SUMMARIES[name]} ({len(items)})</summary>"
        f"<ul>{''.join(listed)}</ul></details>"
    )


def _item(recommendation: Recommendation, item: Item, longest: int) -> str:
    label = "" if item.label == "-" else f"{item.label} "
    text = in_short(recommendation.catalog, label + " ".join(item.texts))
    return f"<li>{_text(text, longest)}</li>"


def _text(text: str, longest: int | None = None) -> str:
    """Text that cannot become markup, cut where it is longer than `longest`."""
    text = clean(text)
    if longest is not None and len(text) > longest:
        text = f"{text[: longest - 3].rstrip()}..."
    return escape(text)


# --- one member ---


def candidate_html(candidate: Candidate) -> str:
    """A candidate as a card: figures, configuration as code, why, routes, what to call next."""
    metrics = load().metric_by_id
    benchmark = candidate._benchmark  # noqa: SLF001 - which the answer set
    shown = list(_FIGURES) if benchmark is None else [benchmark.headline, *_FIGURES]
    lines = [
        (metrics[name].title, figure(candidate, metrics[name]).text)
        for name in shown
        if name in candidate.values and name in metrics
    ]
    if candidate.front_probability is not None:
        lines.append(("Again among the best", chance(candidate.front_probability).text))
    if candidate.setup is not None:
        lines.append(("Fits", f"{candidate.setup.fits}: {interval(candidate.setup.peak)}"))
    lines += [
        (head, text)
        for head, name in (("Why", "why"), ("Gives up", "gives_up"), ("Careful", "warning"))
        if (text := getattr(candidate, name, None))
    ]
    lines += [("Careful", caveat) for caveat in (() if benchmark is None else benchmark.caveats)]
    lines += [("Note", note) for note in candidate.notes]
    lines += [("Serving", route_sentence(route)) for route in candidate.routes.values()]
    listed = "".join(
        f"<tr><td><b>{_text(head)}</b></td><td>{_text(text, 600)}</td></tr>" for head, text in lines
    )
    config = json.dumps(candidate.config_dict, indent=1, ensure_ascii=False, default=str)
    code = "\n".join(_text(line, 300) for line in config.splitlines()[:60])
    name = short_name(
        candidate.run.experiment, candidate.run.recipe.training.model_id, words_of(benchmark)
    )
    return (
        f'{_STYLE}<div class="peft-shop"><b>{_text(candidate.title, 200)}</b> '
        f'<code>{_text(name, 200)}</code><table class="card">{listed}</table><pre>{code}</pre>'
        "<div>Next: <code>.config</code>, <code>.snippet</code>, <code>.save(folder)</code>, "
        "<code>.forecast(model)</code>, <code>.route(engine)</code></div></div>"
    )

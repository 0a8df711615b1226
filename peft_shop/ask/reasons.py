"""Why a candidate stands where it stands, in words that carry their certainty."""

from __future__ import annotations

from typing import TYPE_CHECKING

from peft_shop.ask.quantiles import significance_threshold, student_below
from peft_shop.ask.spread import between, factor
from peft_shop.units import format_quantity

if TYPE_CHECKING:
    from collections.abc import Sequence

    from peft_shop.ask.contenders import Contender
    from peft_shop.ask.rivals import Rivals
    from peft_shop.ask.spread import HasFigures
    from peft_shop.catalog.benchmarks import Metric

__all__ = ["certainty", "gives_up", "lead", "luck", "tie_reason", "why"]


def cost(one: HasFigures, metric: Metric) -> float:
    """Figure turned so that less is better."""
    value = one.values[metric.id]
    return value if metric.better == "lower" else -value


def amount(difference: float, metric: Metric) -> str:
    """Size of a difference with its unit: "1.3 points", "2.85 GiB"."""
    if metric.unit == "fraction":
        return f"{abs(difference) * 100:.1f} points"
    if metric.scope == "memory" and abs(difference) >= 0.01 * 2**30:
        # the unit of the figures beside it
        return f"{abs(difference) / 2**30:.2f} GiB"
    return format_quantity(abs(difference), metric.unit)


def lead(one: HasFigures, other: HasFigures, metric: Metric) -> float:
    """By how much `one` is better than `other`; negative when it is worse."""
    return cost(other, metric) - cost(one, metric)


def certainty(one: HasFigures, other: HasFigures, metric: Metric) -> str:
    """How likely the order of two figures is real, in words; empty for exact metrics.

    Where other questions are asked about and their part is a bound, so is the likelihood.
    """
    spread = between(one, other, metric.id)
    if spread.sd == 0:
        return ""
    real = student_below(abs(lead(one, other, metric)) / spread.sd, spread.degrees)
    shown = "over 99" if real > 0.995 else f"{real * 100:.0f}"
    if not _asks_others(one, metric) and not _asks_others(other, metric):
        return f"{shown} % likely to happen again in a re-run"
    told = other.name in one.paired_sds.get(metric.id, {})
    least = "" if told or real > 0.995 else "at least "
    return f"{least}{shown} % likely to hold on other questions like these"


def _asks_others(one: HasFigures, metric: Metric) -> bool:
    """Whether the deviation of a figure covers other questions."""
    sd = one.sds.get(metric.id, 0.0)
    return sd > one.rerun_sds.get(metric.id, sd) or metric.id in one.paired_sds


def _bracket(text: str) -> str:
    return f" ({text})" if text else ""


def _figure(contender: Contender, metric: Metric) -> str:
    if metric.id not in contender.values:
        return "not known"
    return format_quantity(contender.values[metric.id], metric.unit)


def why(place: int, rivals: Rivals, objectives: Sequence[Metric]) -> str:
    """What puts a member on the front: the best rival that is no worse elsewhere, and the lead.

    Args:
        place: index of the member in `rivals.kept`.
        rivals: every kept contender with a run.
        objectives: the m metrics optimised, the one to argue with first.
    """
    kept = rivals.kept
    one = kept[place]
    first, others = objectives[0], objectives[1:]
    tail = f" It dominates {rivals.beaten(place)} of the {len(kept)} kept runs."
    title = first.label
    if first.id not in one.values:
        return f"Its {title} is not known, nor that of any other kept run.{tail}"
    # what is not known of it sets no limit for its rivals
    others = [metric for metric in others if metric.id in one.values]
    rival = next((kept[j] for j in rivals.of(place) if first.id in kept[j].values), None)
    if rival is None:
        if others:
            names = " and ".join(f"{metric.label} ({_figure(one, metric)})" for metric in others)
            if len(others) == 1:
                word = "lower" if others[0].better == "lower" else "higher"
                return f"No other kept run has as good a {names}; none is {word}.{tail}"
            return f"No other kept run is as good in {names} together.{tail}"
        return f"The only kept run with a {title}.{tail}"
    limit = " and ".join(
        f"{metric.label} {'up to' if metric.better == 'lower' else 'of at least'} "
        f"{_figure(one, metric)}"
        for metric in others
    )
    where = f" with {limit}" if limit else ""
    ahead = lead(one, rival, first)
    if ahead == 0:
        text = f"Equal best {title} ({_figure(one, first)}){where}, with {rival.name}."
    else:
        text = (
            f"Best {title} ({_figure(one, first)}){where}: leads {rival.name} "
            f"({_figure(rival, first)}) by {amount(ahead, first)}"
            f"{_bracket(certainty(one, rival, first))}."
        )
    return text + tail


def gives_up(contender: Contender, front: Sequence[Contender], objectives: Sequence[Metric]) -> str:
    """What the nearest better member of the front offers, and for how much."""
    first, others = objectives[0], objectives[1:]
    if len(front) == 1:
        return "Nothing: it is the whole front."
    if first.id not in contender.values:
        return "Nothing that is known."
    front = [other for other in front if first.id in other.values]
    better = [other for other in front if lead(other, contender, first) > 0]
    if better:
        other = min(better, key=lambda o: (lead(o, contender, first), o.name))
        gain = f"{amount(lead(other, contender, first), first)} of {first.label}"
        sure = _bracket(certainty(other, contender, first))
        price = _changes(other, contender, others, better=False) or "what it needs is not known"
        return f"{other.name} is ahead by {gain}{sure}, but {price}."
    rest = [other for other in front if other is not contender]
    if not rest:
        return "Nothing that is known."
    other = min(rest, key=lambda o: (cost(o, first), o.name))
    saving = _changes(other, contender, others, better=True)
    behind = lead(contender, other, first)
    if behind == 0 or not saving:
        return f"Nothing in {first.label}; {other.name} is the nearest alternative."
    sure = _bracket(certainty(contender, other, first))
    return (
        f"{other.name} {saving}, but is behind by {amount(behind, first)} of {first.label}{sure}."
    )


def _changes(
    other: Contender, contender: Contender, metrics: Sequence[Metric], *, better: bool
) -> str:
    """Where `other` is better (or worse) than `contender`: "needs 2.84 GiB more peak memory"."""
    found = []
    for metric in metrics:
        if metric.id not in contender.values or metric.id not in other.values:
            continue
        ahead = lead(other, contender, metric)
        if ahead == 0 or (ahead > 0) != better:
            continue
        less = better == (metric.better == "lower")
        verb = "needs" if metric.better == "lower" else "gives"
        equal = metric.tie is not None and abs(ahead) < metric.tie
        note = ", which counts as equal" if equal else ""
        found.append(
            f"{verb} {amount(ahead, metric)} {'less' if less else 'more'} {metric.label}{note}"
        )
    return " and ".join(found)


def tie_reason(
    contender: Contender,
    dominator: Contender,
    objectives: Sequence[Metric],
    confidence: float,
    *,
    rivals: int = 1,
) -> str:
    """Why a dominated run still counts as a tie.

    Args:
        contender: the run.
        dominator: the front member that is formally better.
        objectives: the metrics optimised.
        confidence: one-sided, of a lead that counts.
        rivals: with how many others the run is compared.
    """
    parts = []
    objectives = [m for m in objectives if m.id in contender.values and m.id in dominator.values]
    for metric in objectives:
        ahead = lead(dominator, contender, metric)
        spread = between(contender, dominator, metric.id)
        if spread.sd <= 0:
            continue
        needed = factor(confidence, spread.degrees, rivals) * spread.sd
        if ahead <= needed:
            name = metric.label
            leads = (
                f"leads by {amount(ahead, metric)} of {name}" if ahead else f"is level in {name}"
            )
            parts.append(
                f"{dominator.name} {leads}, "
                f"and only a lead over {amount(needed, metric)} would count"
                + (f" against {rivals} rivals" if rivals > 1 else "")
            )
    if parts:
        return "; ".join(parts) + "."
    sizes = ", ".join(
        f"{amount(lead(dominator, contender, metric), metric)} of {metric.label}"
        for metric in objectives
        if lead(dominator, contender, metric) > 0
    )
    return f"{dominator.name} is ahead by {sizes or 'nothing'}, within what counts as equal."


def luck(
    place: int, rivals: Rivals, objectives: Sequence[Metric], configurations: int
) -> str | None:
    """Warning when picking the best of several configurations explains the lead, else `None`.

    The best of n equal configurations is expected to be ahead by about
    Phi^-1((n - 0.375) / (n + 0.25)) standard deviations (Blom, 1958).

    Args:
        place: index of the member in `rivals.kept`.
        rivals: every kept contender with a run.
        objectives: the m metrics optimised, the one to argue with first.
        configurations: how many configurations of the member's method were looked at.
    """
    kept, first = rivals.kept, objectives[0]
    one = kept[place]
    sd = one.sds.get(first.id, 0.0)
    if configurations < 3 or sd == 0:
        return None
    others = (kept[j] for j in rivals.of(place))
    rival = next(
        (other for other in others if other.method != one.method and first.id in other.values),
        None,
    )
    if rival is None:
        return None
    ahead = lead(one, rival, first)
    expected = sd * significance_threshold((configurations - 0.375) / (configurations + 0.25))
    if ahead > expected:
        return None
    bound = "up to " if _asks_others(one, first) and first.id not in one.paired_sds else ""
    return (
        f"{configurations} configurations of {one.method} were tried: the best of that many equal "
        f"ones is ahead by {bound}{amount(expected, first)} by luck alone, and its lead over "
        f"{rival.name} is {amount(ahead, first)}."
    )

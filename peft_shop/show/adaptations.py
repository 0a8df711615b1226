"""What became of a measured recipe on the user's model, and what it touches there, in words."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from peft_shop.adapt.records import Change, Preflight, Retargeted
    from peft_shop.ask.candidates import Candidate
    from peft_shop.records import Json

__all__ = ["adaptation_sentences", "change_sentence", "preflight_sentences"]

_WIDTH: Final = 160
"""Characters of a value that are shown; a long list of names is told by its ends."""


def adaptation_sentences(candidate: Candidate) -> tuple[str, ...]:
    """What was changed for the model and what the configuration touches; empty without a model."""
    changes = [] if candidate.retargeted is None else list(_changes(candidate.retargeted))
    return (
        *changes,
        *(() if candidate.preflighted is None else preflight_sentences(candidate.preflighted)),
    )


def _changes(retargeted: Retargeted) -> Iterable[str]:
    if retargeted.changes:
        listed = "; ".join(change_sentence(change) for change in retargeted.changes)
        yield f"On your model: {listed}."
    else:
        yield "On your model: as measured, nothing had to change."
    if retargeted.notes:
        yield f"Note: {'; '.join(note.rstrip('.') for note in retargeted.notes)}."


def change_sentence(change: Change) -> str:
    """One change with its reason, such as `r = 8 (measured with 16): ...`."""
    after = "left at its default" if change.after is None else f"= {shown(change.after)}"
    before = "" if change.before is None else f" (measured with {shown(change.before)})"
    if change.before == change.after:
        before = " (as measured, by peft's own choice)"
    return f"{change.field} {after}{before}: {change.because.rstrip('.')}"


def preflight_sentences(found: Preflight) -> tuple[str, ...]:
    """What is touched, how much is trained, and what is surprising about it."""
    share = 100 * found.trainable_share
    listed = ", ".join(
        f"{one.touched} of {one.present} {one.pattern.rpartition('.')[2]} "
        f"({one.role.replace('_', ' ')})"
        for one in found.touched
    )
    how = "" if found.basis == "meta" else ", reckoned from a smaller model of the same widths"
    text = f"Touches {listed or 'no module'}: {found.trainable_parameters:,} trainable parameters"
    sentences = [f"{text} ({share:.3g} % of {found.total_parameters:,}){how}."]
    if found.trained_in_full:
        sentences.append(f"Trained whole: {', '.join(found.trained_in_full)}.")
    return (*sentences, *(f"Careful: {warning.rstrip('.')}." for warning in found.warnings))


def shown(value: Json) -> str:
    """A value as JSON, cut in its middle where it is long."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if len(text) <= _WIDTH:
        return text
    return f"{text[: _WIDTH // 2]} ... {text[-_WIDTH // 2 :]}"

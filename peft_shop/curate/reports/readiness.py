"""What maintainers see of the readiness matrix: counts, differences, failures, forced refusals."""

from __future__ import annotations

from typing import TYPE_CHECKING

from peft_shop.show.documents import Cell, Column, Document, Item, Listing, Row, Table, label

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from peft_shop.curate.readiness.matrix import Forced
    from peft_shop.curate.readiness.verdicts import Change, Readiness

__all__ = ["forced_document", "readiness_document"]

_STATUSES = ("ready", "refused", "failed")


def readiness_document(
    found: Readiness, subjects: Iterable[str], changes: Sequence[Change] | None
) -> Document:
    """Counts by architecture, and what differs from the committed file.

    Args:
        found: what was found now.
        subjects: the methods and recipes that were tried.
        changes: differences to the committed file; `None` where there is none.
    """
    chosen = set(subjects)
    rows, failures = [], []
    for name, findings in found.architectures.items():
        cells = {key: verdict for key, verdict in found.cells(name).items() if key in chosen}
        counts = [sum(v.status == status for v in cells.values()) for status in _STATUSES]
        rows.append(
            Row((label(name), Cell(findings.title, findings.title), *(_count(c) for c in counts)))
        )
        failures += [
            Item(f"{name}: {subject}:", verdict.reasons)
            for subject, verdict in cells.items()
            if verdict.status == "failed"
        ]
    parts: list[Table | Listing] = [
        Table(
            key="architectures",
            title="Architectures",
            columns=(
                Column("architecture", "Architecture", least=12),
                Column("title", "Title", priority=1),
                *(Column(status, status.title(), right=True) for status in _STATUSES),
            ),
            rows=tuple(rows),
        )
    ]
    if failures:
        parts.append(Listing(f"Failed ({len(failures)})", tuple(failures)))
    if changes:
        parts.append(
            Table(
                key="differences",
                title="Not as on file",
                columns=(
                    Column("architecture", "Architecture", least=12),
                    Column("subject", "Subject", least=16),
                    Column("committed", "On file", least=16),
                    Column("found", "Seen now", least=16),
                ),
                rows=tuple(
                    Row(
                        (
                            label(change.architecture),
                            label(change.subject),
                            label(change.committed),
                            label(change.found),
                        )
                    )
                    for change in changes
                ),
            )
        )
    count = len(found.architectures)
    if changes is None:
        said = "There is nothing on file to compare with."
    elif changes:
        said = f"{len(changes)} verdicts differ from what is on file."
    else:
        said = "All verdicts are as on file."
    return Document(
        title=f"Tried on {count} architecture{'' if count == 1 else 's'}",
        paragraphs=(said,),
        parts=tuple(parts),
    )


def _count(value: int) -> Cell:
    return Cell(str(value), value)


def forced_document(found: Sequence[Forced]) -> Document:
    """Refused subjects that were tried all the same: those that work first."""
    wrong = [one for one in found if one.verdict.status == "ready"]
    order = [*wrong, *(one for one in found if one.verdict.status != "ready")]
    said = (
        f"{len(found)} refused subjects were tried all the same; {len(wrong)} of them work, so "
        "that they should not be refused."
    )
    return Document(
        title="Refusals put to the test",
        paragraphs=(said,),
        parts=(
            Table(
                key="forced",
                title="",
                columns=(
                    Column("architecture", "Architecture", least=12),
                    Column("subject", "Subject", least=16),
                    Column("reasons", "Refused because", least=20),
                    Column("outcome", "Came to", least=20),
                ),
                rows=tuple(
                    Row(
                        (
                            label(one.architecture),
                            label(one.subject),
                            label("; ".join(one.reasons)),
                            label(str(one.verdict)),
                        )
                    )
                    for one in order
                ),
            ),
        ),
    )

"""What maintainers see: violations, what an ingestion did, what changed, noise, observations."""

from __future__ import annotations

from typing import TYPE_CHECKING

from peft_shop.show.documents import (
    Cell,
    Column,
    Document,
    Item,
    Listing,
    Row,
    Table,
    label,
    plain,
)
from peft_shop.units import format_quantity

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from peft_shop.catalog.catalog import Catalog
    from peft_shop.catalog.methods import Observation
    from peft_shop.catalog.noise import EraShift, Noise
    from peft_shop.curate.intake.ingest import IngestReport
    from peft_shop.curate.sources.rules import Report
    from peft_shop.errors import Problem

__all__ = [
    "ingest_document",
    "noise_document",
    "observation_document",
    "validation_document",
]


def validation_document(report: Report) -> Document:
    """Every violation with its file and place, exceptions in force, and the debt of unknowns."""
    counts = ", ".join(f"{count} {kind}" for kind, count in (report.counts or {}).items())
    count = len(report.violations)
    found = "No rule is broken" if report.ok else f"{count} violation{'s' if count > 1 else ''}"
    parts: list[Table | Listing] = [
        Table(
            key="violations",
            title="Violations",
            columns=_PROBLEM_COLUMNS,
            rows=tuple(
                _problem_row(violation.rule, violation.record, violation.problem)
                for violation in report.violations
            ),
        )
    ]
    if report.excused:
        parts.append(
            Listing(
                "Excused by catalog/exceptions.toml",
                tuple(Item(f"{one.rule}:", (str(one.problem),)) for one in report.excused),
            )
        )
    if report.unknown:
        parts.append(
            Listing(
                f"Unknown: {report.unknowns} capabilities that nobody has tried",
                tuple(
                    Item(f"{feature} ({len(methods)}):", (", ".join(methods),))
                    for feature, methods in report.unknown.items()
                ),
            )
        )
    return Document(
        title="Catalog sources",
        paragraphs=(f"{found}{f' in {counts}' if counts else ''}.",),
        parts=tuple(parts),
        warnings=report.skipped,
    )


_PROBLEM_COLUMNS = (
    Column("rule", "Rule", least=12),
    Column("record", hidden=True),
    Column("path", "File", least=18),
    Column("where", "Where", least=12),
    Column("message", "What", least=24),
    Column("hint", hidden=True),
)


def _problem_row(rule: str, record: str, problem: Problem) -> Row:
    text = f"{problem.message} ({problem.hint})" if problem.hint else problem.message
    return Row(
        (
            label(rule),
            label(record),
            label(problem.path),
            label(problem.where),
            Cell(text, problem.message),
            Cell(problem.hint, problem.hint or None),
        )
    )


def ingest_document(report: IngestReport) -> Document:
    """What was taken in, what was left out and why, and what is on file now."""
    figures: tuple[tuple[str, int], ...] = (
        ("added", len(report.added)),
        ("updated", len(report.updated)),
        ("unchanged", len(report.unchanged)),
        ("outside every snapshot", len(report.outside)),
        ("duplicates", len(report.duplicates)),
        ("left out", len(report.left_out)),
    )
    lists = (
        ("Left out", _problems(report.left_out)),
        (
            "Duplicates of runs on file",
            _problems(report.duplicates),
        ),
        ("Notes", _problems(report.notes)),
        ("Added", report.added),
        ("New snapshots", report.snapshots),
        ("Written", tuple(str(path) for path in report.written)),
    )
    total = ", ".join(f"{count} on {name}" for name, count in report.total.items())
    rows = tuple(Row((label(kind), Cell(str(count), count))) for kind, count in figures)
    return Document(
        title="Ingestion",
        paragraphs=(f"On file now: {total or 'nothing'}.",),
        parts=(
            Table(
                "counts",
                "Runs",
                (Column("kind", "Kind"), Column("count", "Count", right=True)),
                rows,
            ),
            *(
                Listing(f"{title} ({len(texts)})", tuple(Item("", (text,)) for text in texts))
                for title, texts in lists
                if texts
            ),
        ),
    )


def _problems(problems: Iterable[Problem]) -> tuple[str, ...]:
    return tuple(str(problem) for problem in problems)


def noise_document(
    catalog: Catalog, noise: Sequence[Noise], shifts: Sequence[EraShift]
) -> Document:
    """Run-to-run noise of every metric, and the shifts between eras."""

    def amount(value: float, noise: Noise) -> str:
        unit = catalog.metric_by_id[noise.metric].unit
        if noise.relative:
            return f"{value * 100:.1f} % of it"
        if unit == "fraction":
            return f"{value * 100:.2f} points"
        return f"{value:.2g}" if unit == "score" else format_quantity(value, unit)

    def row(noise: Noise) -> Row:
        shown = "-"
        if noise.low is not None and noise.high is not None:
            shown = f"{amount(noise.low, noise)} to {amount(noise.high, noise)}"
        return Row(
            (
                label(noise.benchmark),
                label(noise.metric),
                Cell(noise.era or "all", noise.era),
                label(" ".join(noise.methods)),
                Cell(amount(noise.sd, noise), noise.sd),
                Cell(shown),
                Cell("", noise.low),
                Cell("", noise.high),
                Cell("", noise.relative),
                Cell("-" if noise.degrees is None else f"{noise.degrees:g}", noise.degrees),
                Cell(str(len(noise.runs)), len(noise.runs)),
                label(noise.method),
            ),
            note=noise.method,
        )

    return Document(
        title="Run-to-run noise",
        paragraphs=("Standard deviation of one run, with its 95 % confidence interval.",),
        parts=(
            Table(
                key="noise",
                title="",
                columns=(
                    Column("benchmark", "Benchmark", least=10),
                    Column("metric", "Metric", least=14),
                    Column("era", "Era", least=7),
                    Column("methods", "Only of", least=7),
                    Column("sd", "SD", right=True),
                    Column("", "95 %", least=12),
                    Column("low", hidden=True),
                    Column("high", hidden=True),
                    Column("relative", hidden=True),
                    Column("degrees", "Degrees", right=True, priority=1),
                    Column("runs", "Runs", right=True, priority=2),
                    Column("method", hidden=True),
                ),
                rows=tuple(row(one) for one in noise),
            ),
            Table(
                key="era_shifts",
                title="Shifts from one era to the next",
                columns=(
                    Column("benchmark", "Benchmark", least=10),
                    Column("metric", "Metric", least=13),
                    Column("older", "From", least=7),
                    Column("newer", "To", least=7),
                    Column("shift", "Shift", right=True),
                    Column("standard_error", "± SE", right=True),
                    Column("pairs", "Pairs", right=True),
                ),
                rows=tuple(
                    Row(
                        (
                            label(shift.benchmark),
                            label(shift.metric),
                            label(shift.older),
                            label(shift.newer),
                            Cell(f"{shift.shift:+.4f}", shift.shift),
                            Cell(f"{shift.standard_error:.4f}", shift.standard_error),
                            Cell(str(shift.pairs), shift.pairs),
                        )
                    )
                    for shift in shifts
                ),
            ),
        ),
    )


def observation_document(
    earlier: Mapping[str, Observation], found: Mapping[str, Observation]
) -> Document:
    """Where observations differ from those on file."""
    rows = []
    for method, observation in sorted(found.items()):
        before = earlier[method].capabilities if method in earlier else {}
        for feature, now in observation.capabilities.items():
            old = before.get(feature)
            if old is not None and (old.support, old.level) == (now.support, now.level):
                continue
            cells = (
                label(method),
                label(feature),
                plain(f"{old.support} {old.level}" if old else None),
                plain(f"{now.support} {now.level}"),
                Cell(now.note or "", now.note),
            )
            rows.append(Row(cells, note=now.note or ""))
    return Document(
        title=f"Probed {len(found)} method{'' if len(found) == 1 else 's'}",
        paragraphs=(
            f"{len(rows)} capabilities differ from what is on file."
            if rows
            else "All capabilities are as they are on file.",
        ),
        parts=(
            Table(
                key="differences",
                title="",
                columns=(
                    Column("method", "Method", least=12),
                    Column("feature", "Feature", least=20),
                    Column("old", "On file", least=12),
                    Column("new", "Seen now", least=12),
                    Column("note", hidden=True),
                ),
                rows=tuple(rows),
            ),
        ),
    )

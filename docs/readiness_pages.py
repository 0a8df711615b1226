"""Reference page made from data/readiness.json: what was tried on which architecture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from code_pages import GENERATED, table

from peft_shop.curate.readiness.verdicts import read

if TYPE_CHECKING:
    from peft_shop.curate.readiness.verdicts import Readiness

FILE = Path(__file__).resolve().parents[1] / "data" / "readiness.json"
_COLUMNS = 9
"""Methods a table has room for."""
_MARKS = {"ready": "yes", "failed": "failed"}


def readiness() -> str:
    """`reference/readiness.md`: methods and measured recipes on architectures."""
    found = read(FILE)
    versions = ", ".join(f"{package} {version}" for package, version in found.packages.items())
    tiny = "two layers and a few thousand parameters"
    parts = [
        "# Methods and recipes on architectures",
        GENERATED,
        (
            "Every method, in its smallest default configuration, and every measured recipe of the "
            "newest snapshots were adapted to each of these architectures, and what came out was "
            f"tried on a tiny model of it ({tiny}, random weights, 32-bit floats, on a CPU): "
            "wrapped, one training step with a gradient for every trainable weight, saved, loaded "
            "on a fresh base, and the outputs compared. It says that the configuration works, not "
            "that it learns well. `peft-shop catalog ready --check` tries all of it again. "
            f"Versions: {versions}."
        ),
        "## Architectures",
        _architectures(found),
        "## Methods",
        (
            "`yes`: all of it works. A number: the method is refused there, for the reasons under "
            "[Refusals](#refusals). `failed`: it was tried, and did not work."
        ),
    ]
    reasons = _numbered(found)
    for start in range(0, len(found.methods), _COLUMNS):
        some = found.methods[start : start + _COLUMNS]
        parts.append(
            table(
                ("architecture", *(f"`{name}`" for name in some)),
                (
                    (f"`{name}`", *(_mark(found, name, method, reasons) for method in some))
                    for name in found.architectures
                ),
            )
        )
    parts += [
        "## Refusals",
        table(("", "reason"), ((str(number), reason) for reason, number in reasons.items())),
    ]
    failures = [
        (f"`{name}`", f"`{subject}`", reason)
        for name, findings in found.architectures.items()
        for reason, subjects in findings.failed.items()
        for subject in subjects
    ]
    if failures:
        parts += ["## Failures", table(("architecture", "subject", "stage and reason"), failures)]
    return "\n\n".join(parts) + "\n"


def _architectures(found: Readiness) -> str:
    header = ("architecture", "title", "class", "parameters", "methods ready", "recipes ready")
    return table(
        header,
        (
            (
                f"`{name}`",
                one.title,
                f"`{one.class_name}`",
                f"{one.parameters:,}",
                _share(found, name, found.methods),
                _share(found, name, found.recipes),
            )
            for name, one in found.architectures.items()
        ),
    )


def _share(found: Readiness, name: str, subjects: tuple[str, ...]) -> str:
    cells = found.cells(name)
    return f"{sum(cells[one].status == 'ready' for one in subjects)} of {len(subjects)}"


def _numbered(found: Readiness) -> dict[str, int]:
    """Reasons for refusing a method, numbered in the order in which a reader meets them."""
    reasons: dict[str, int] = {}
    for name in found.architectures:
        cells = found.cells(name)
        for method in found.methods:
            if cells[method].status == "refused":
                for reason in cells[method].reasons:
                    reasons.setdefault(reason, len(reasons) + 1)
    return reasons


def _mark(found: Readiness, name: str, method: str, reasons: dict[str, int]) -> str:
    verdict = found.cells(name)[method]
    if verdict.status == "refused":
        return ", ".join(str(reasons[reason]) for reason in verdict.reasons)
    return _MARKS[verdict.status]

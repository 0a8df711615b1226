"""What was found for every architecture and subject, as a file: written, read, merged, compared.

Needs no torch: the pages of the documentation are made from the file.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from pydantic import Field, ValidationError

from peft_shop.catalog.diagnosis import problems_of
from peft_shop.errors import CatalogError, Problem
from peft_shop.files import write_atomically
from peft_shop.records import Record, Text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

__all__ = [
    "Cells",
    "Change",
    "Findings",
    "Readiness",
    "Status",
    "Verdict",
    "by_reason",
    "differences",
    "dump",
    "merge",
    "read",
    "write",
]

Status: TypeAlias = Literal["ready", "refused", "failed"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of one subject on one architecture.

    Attributes:
        status: `ready` (trained, saved and reloaded), `refused` (retargeting says that it cannot
            work) or `failed` (it was tried and did not work).
        reasons: the problems that retargeting names, or the stage and what went wrong there.
    """

    status: Status
    reasons: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.status}: {'; '.join(self.reasons)}" if self.reasons else self.status


Cells: TypeAlias = "dict[str, Verdict]"
"""Verdicts by subject: `lora` is a method's default, `metamathqa:EXPERIMENT` a run's recipe."""


class Findings(Record):
    """One architecture; subjects that are named nowhere are ready.

    Attributes:
        title: name for people.
        class_name: class of the model.
        modality: what it works on.
        parameters: of the tiny model [count].
        refused: subjects by reason; one that is refused for several reasons is under each.
        failed: subjects by stage and what went wrong.
    """

    title: Text
    class_name: Text
    modality: Text
    parameters: int
    refused: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    failed: dict[str, tuple[str, ...]] = Field(default_factory=dict)


class Readiness(Record):
    """The whole matrix.

    Attributes:
        packages: versions that ran.
        methods: subjects that are methods in their smallest default configuration.
        recipes: subjects that are measured recipes.
        architectures: what was found, by id.
    """

    packages: dict[str, str]
    methods: tuple[str, ...]
    recipes: tuple[str, ...]
    architectures: dict[str, Findings]

    def cells(self, architecture: str) -> Cells:
        """Verdicts of one architecture, for every subject in the order of the file."""
        found = self.architectures[architecture]
        refused = _by_subject(found.refused)
        failed = _by_subject(found.failed)
        return {
            subject: Verdict("failed", failed[subject])
            if subject in failed
            else Verdict("refused", refused[subject])
            if subject in refused
            else Verdict("ready")
            for subject in (*self.methods, *self.recipes)
        }


def _by_subject(reasons: Mapping[str, Iterable[str]]) -> dict[str, tuple[str, ...]]:
    found: dict[str, list[str]] = {}
    for reason, subjects in sorted(reasons.items()):
        for subject in subjects:
            found.setdefault(subject, []).append(reason)
    return {subject: tuple(texts) for subject, texts in found.items()}


def by_reason(cells: Cells, status: Status) -> dict[str, tuple[str, ...]]:
    """Subjects of one status by reason, both sorted."""
    found: dict[str, list[str]] = {}
    for subject, verdict in sorted(cells.items()):
        if verdict.status == status:
            for reason in verdict.reasons:
                found.setdefault(reason, []).append(subject)
    return {reason: tuple(subjects) for reason, subjects in sorted(found.items())}


def dump(readiness: Readiness) -> bytes:
    """The file's content: keys sorted, one reason a line, the same for equal findings."""
    plain = readiness.model_dump(mode="json")
    lines = ["{"]
    architectures = plain.pop("architectures")
    for key, value in sorted(plain.items()):
        lines.append(f" {json.dumps(key)}: {json.dumps(value, sort_keys=True)},")
    lines.append(' "architectures": {')
    for number, (name, found) in enumerate(sorted(architectures.items())):
        lines.append(f"  {json.dumps(name)}: {{")
        rows = []
        for key, value in sorted(found.items()):
            if isinstance(value, dict) and value:
                inner = ",\n".join(
                    f"    {json.dumps(reason)}: {json.dumps(subjects)}"
                    for reason, subjects in sorted(value.items())
                )
                rows.append(f"   {json.dumps(key)}: {{\n{inner}\n   }}")
            else:
                rows.append(f"   {json.dumps(key)}: {json.dumps(value)}")
        lines.append(",\n".join(rows))
        lines.append("  }" if number == len(architectures) - 1 else "  },")
    lines += [" }", "}", ""]
    return "\n".join(lines).encode()


def read(path: Path) -> Readiness:
    """The committed matrix.

    Raises:
        CatalogError: there is no such file, or it does not keep the format.
    """
    again = "make it with: peft-shop catalog ready"
    try:
        plain = json.loads(path.read_bytes())
    except OSError as error:
        problem = Problem(str(path), "", error.strerror or str(error), again)
        raise CatalogError("cannot read", [problem]) from error
    except ValueError as error:
        problem = Problem(str(path), "", f"is not JSON: {error}", again)
        raise CatalogError("cannot read", [problem]) from error
    try:
        return Readiness.model_validate(plain)
    except ValidationError as error:
        problems = problems_of(error, Readiness, plain, str(path))
        raise CatalogError("cannot read", problems) from error


def write(readiness: Readiness, path: Path) -> bool:
    """Write the file, whole or not at all; says whether anything changed.

    Raises:
        CatalogError: the operating system refuses.
    """
    try:
        return write_atomically(path, dump(readiness))
    except OSError as error:
        problem = Problem(str(path), "", error.strerror or str(error), "check the path")
        raise CatalogError("cannot write", [problem]) from error


def merge(committed: Readiness, found: Readiness, subjects: Iterable[str]) -> Readiness:
    """`found` put into what was committed: only its architectures and `subjects` are replaced.

    Raises:
        CatalogError: other versions or other subjects were committed, so that parts of the two
            do not belong into one file; or some subjects of a new architecture are missing.
    """
    for key in ("packages", "methods", "recipes"):
        if getattr(committed, key) != getattr(found, key):
            problem = Problem(
                "readiness.json",
                key,
                "is not what it was when the file was made",
                "make the whole matrix: peft-shop catalog ready",
            )
            raise CatalogError("cannot replace a part", [problem])
    chosen = set(subjects)
    merged = dict(committed.architectures)
    for name, findings in found.architectures.items():
        cells = found.cells(name)
        if not chosen >= set(cells):
            if name not in merged:
                problem = Problem(
                    "readiness.json",
                    f"architectures.{name}",
                    "is not there, and only some methods were tried",
                    f"try all of them: peft-shop catalog ready {name}",
                )
                raise CatalogError("cannot replace a part", [problem])
            old = committed.cells(name)
            cells = {key: cells[key] if key in chosen else old[key] for key in cells}
        merged[name] = findings.model_copy(
            update={
                "refused": by_reason(cells, "refused"),
                "failed": by_reason(cells, "failed"),
            }
        )
    return found.model_copy(update={"architectures": dict(sorted(merged.items()))})


@dataclass(frozen=True, slots=True, order=True)
class Change:
    """One verdict that is not as committed.

    Attributes:
        architecture: id of the architecture.
        subject: method or recipe; `packages` where versions differ.
        committed: what the file says.
        found: what was found now.
    """

    architecture: str
    subject: str
    committed: str
    found: str

    def __str__(self) -> str:
        return f"{self.architecture}: {self.subject}: committed {self.committed}, now {self.found}"


def differences(
    committed: Readiness, found: Readiness, subjects: Iterable[str] | None = None
) -> list[Change]:
    """What `found` says otherwise than the committed file, on its architectures and `subjects`."""
    chosen = set(subjects if subjects is not None else (*found.methods, *found.recipes))
    changes = []
    for package, version in found.packages.items():
        old = committed.packages.get(package, "absent")
        if old != version:
            changes.append(Change("", "packages", f"{package} {old}", f"{package} {version}"))
    for name in found.architectures:
        new = found.cells(name)
        old_cells = committed.cells(name) if name in committed.architectures else {}
        for subject in sorted(chosen & (set(new) | set(old_cells))):
            one, other = old_cells.get(subject), new.get(subject)
            if one != other:
                changes.append(
                    Change(name, subject, str(one or "nothing"), str(other or "nothing"))
                )
    return changes

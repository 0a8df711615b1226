"""What a new probing says that the committed files do not, for `--check` and for people."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from peft_shop.curate.probe.runner import probe, read_observations

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from peft_shop.catalog.methods import Capability, Fidelity, Observation

__all__ = ["Change", "check", "differences"]

FACTOR: Final = 10.0
"""Orders of magnitude may differ by one from machine to machine."""
ROUNDING: Final = 0.0101
"""Errors [1] are told to two digits, of which the last may differ."""
_SHARE: Final = re.compile(r"(\d+) %")


@dataclass(frozen=True, slots=True, order=True)
class Change:
    """One fact that is not as committed.

    Attributes:
        method: identifier.
        where: dotted place in the method's file, such as `capabilities.merging.support`.
        committed: what the file says; `None` where it says nothing.
        found: what was seen now; `None` where nothing was.
    """

    method: str
    where: str
    committed: str | None
    found: str | None

    def __str__(self) -> str:
        return f"{self.method}: {self.where}: committed {self.committed}, now {self.found}"


def check(
    methods: Iterable[str] | None = None,
    features: Iterable[str] | None = None,
    *,
    catalog: Path,
    jobs: int = 1,
    device: str = "cpu",
) -> list[Change]:
    """Probe again and list every difference to the committed files; writes nothing.

    Raises:
        ProbeError: the set-up of a method is wrong.
        UnknownNameError: a method or feature that does not exist.
        CatalogError: a committed file cannot be read.
    """
    found = probe(methods, features, catalog=catalog, jobs=jobs, device=device)
    return differences(read_observations(catalog, found), found)


def differences(
    committed: Mapping[str, Observation], found: Mapping[str, Observation]
) -> list[Change]:
    """Every difference, ordered by method and place; methods only committed are left out."""
    changes: list[Change] = []
    for method, now in sorted(found.items()):
        before = committed.get(method)
        if before is None:
            changes.append(Change(method, "", None, "a method that was never probed"))
            continue
        changes += _facts(method, before, now)
        for feature in sorted({*before.capabilities, *now.capabilities}):
            old, new = before.capabilities.get(feature), now.capabilities.get(feature)
            changes += _capability(method, f"capabilities.{feature}", old, new)
        changes += _fidelity(method, "fidelity", before.fidelity, now.fidelity)
        for variant in sorted({*before.variants, *now.variants}):
            olds = before.variants[variant].capabilities if variant in before.variants else {}
            news = now.variants[variant].capabilities if variant in now.variants else {}
            for feature in sorted({*olds, *news}):
                place = f"variants.{variant}.{feature}"
                changes += _capability(method, place, olds.get(feature), news.get(feature))
            held, holds = (
                one.variants[variant].fidelity if variant in one.variants else None
                for one in (before, now)
            )
            changes += _fidelity(method, f"variants.{variant}.fidelity", held, holds)
    return changes


def _facts(method: str, before: Observation, now: Observation) -> list[Change]:
    names = ("config_class", "category", "options", "requires", "initialisation", "inference")
    changes = [
        Change(method, name, str(getattr(before, name)), str(getattr(now, name)))
        for name in names
        if getattr(before, name) != getattr(now, name)
    ]
    for key in sorted({*before.environments} & {*now.environments}):
        old, new = before.environments[key], now.environments[key]
        if old != new:
            # a difference may come from there: say it beside the others
            changes.append(Change(method, f"environments.{key}", _versions(old), _versions(new)))
    return changes


def _versions(environment: object) -> str:
    return " ".join(str(environment).split())


def _capability(
    method: str, where: str, old: Capability | None, new: Capability | None
) -> list[Change]:
    if old is None or new is None:
        said = [None if each is None else each.support for each in (old, new)]
        return [Change(method, where, said[0], said[1])]
    changes = [
        Change(method, f"{where}.{name}", str(getattr(old, name)), str(getattr(new, name)))
        for name in ("support", "level", "conditions", "note")
        if getattr(old, name) != getattr(new, name)
        and not (name == "note" and _same_note(old.note or "", new.note or ""))
    ]
    for name in sorted({*old.measured, *new.measured}):
        one, other = old.measured.get(name), new.measured.get(name)
        if one is None or other is None or not _close(float(one), float(other)):
            changes.append(Change(method, f"{where}.measured.{name}", str(one), str(other)))
    return changes


def _fidelity(method: str, where: str, old: Fidelity | None, new: Fidelity | None) -> list[Change]:
    if old is None or new is None:
        said = [None if each is None else str(each) for each in (old, new)]
        return [] if old is new else [Change(method, where, said[0], said[1])]
    names = ("delta", "base_changed", "rank", "shape", "layers", "grid")
    changes = [
        Change(method, f"{where}.{name}", str(getattr(old, name)), str(getattr(new, name)))
        for name in names
        if getattr(old, name) != getattr(new, name)
    ]
    if len(old.errors) != len(new.errors) or any(
        abs(error - other) > ROUNDING for error, other in zip(old.errors, new.errors, strict=True)
    ):
        changes.append(Change(method, f"{where}.errors", str(old.errors), str(new.errors)))
    return changes


def _same_note(old: str, new: str) -> bool:
    """Whether two notes say the same, give or take the rounding of the shares that they quote."""
    if _SHARE.sub("%", old) != _SHARE.sub("%", new):
        return False
    shares = zip(_SHARE.findall(old), _SHARE.findall(new), strict=True)
    return all(abs(int(one) - int(other)) <= 100 * ROUNDING for one, other in shares)


def _close(one: float, other: float) -> bool:
    """Whether two deviations are of the same order, give or take one."""
    if one == other:
        return True
    low, high = sorted((abs(one), abs(other)))
    return high <= FACTOR * low * (1 + 1e-9)

"""What speaks for and against one way to an engine: the records, and what is known of the adapter.

An unknown fact stays unknown: a way that rests on one is shown, and satisfies nobody. What goes
wrong without a word is the worst of all, and stands first.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, get_args

from peft_shop.records import Record

if TYPE_CHECKING:
    from collections.abc import Iterable

    from peft_shop.catalog.catalog import Catalog
    from peft_shop.catalog.engines import Conversion, Engine
    from peft_shop.catalog.methods import Capability
    from peft_shop.serve.adapter import Adapter

__all__ = ["KINDS", "PEFT", "Basis", "Case", "Way", "ask_capability", "fact_basis", "judge_rules"]

WayKind: TypeAlias = Literal["native", "convert", "merge"]
KINDS: Final[tuple[WayKind, ...]] = get_args(WayKind)
Converter: TypeAlias = Literal["peft", "peft-shop"]
PEFT: Final = "peft"


class Basis(Record):
    """One fact that a way rests on.

    Attributes:
        about: the engine's identifier, or `peft`.
        version: that the fact is about.
        topic: what it is about.
        value: what was found.
        place: the source; of a capability, how it is known.
        date: of the source; `None` where it is not on record.
    """

    about: str
    version: str
    topic: str
    value: str
    place: str
    date: str | None = None


class Way(Record):
    """One kind of way to an engine.

    Attributes:
        kind: `native`, `convert` (to LoRA) or `merge`.
        by: who converts; `None` for the other kinds.
        works: yes, no or unknown.
        silent: whether it does not work and nobody is told: the engine loads it, and computes
            something else.
        exact: whether the engine computes what was trained, up to rounding.
        rank: rank of the LoRA that a conversion makes; `None` where it is open.
        reasons: why it does not work, or why nobody knows.
        conditions: what to do for it to work.
        warnings: what it costs, and what goes wrong otherwise.
        basis: the facts it rests on.
    """

    kind: WayKind
    by: Converter | None = None
    works: Literal["yes", "no", "unknown"]
    silent: bool = False
    exact: bool = True
    rank: int | None = None
    reasons: tuple[str, ...] = ()
    conditions: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    basis: tuple[Basis, ...] = ()

    @property
    def name(self) -> str:
        """Its kind, and who converts."""
        return f"{self.kind} by {self.by}" if self.by else self.kind


@dataclass(slots=True)
class Case:
    """What speaks for and against one way."""

    silents: list[str] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)
    conditions: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    basis: list[Basis] = field(default_factory=list)
    excess: str | None = None
    """Why the rank is more than the engine takes."""

    def way(
        self,
        kind: WayKind,
        *,
        by: Converter | None = None,
        exact: bool = True,
        rank: int | None = None,
    ) -> Way:
        """The way, as far as it is known."""
        refusals = [*self.refusals, *([self.excess] if self.excess else [])]
        against = [*self.silents, *refusals]
        works: Literal["yes", "no", "unknown"] = "yes"
        if against or self.doubts:
            works = "no" if against else "unknown"
        return Way(
            kind=kind,
            by=by,
            works=works,
            # an engine that ends with an error computes nothing
            silent=bool(self.silents) and not refusals,
            exact=exact,
            rank=rank,
            reasons=tuple(dict.fromkeys(against or self.doubts)),
            conditions=tuple(dict.fromkeys(self.conditions)) if works != "no" else (),
            warnings=tuple(dict.fromkeys(self.warnings)) if works != "no" else (),
            basis=tuple(dict.fromkeys(self.basis)),
        )


def fact_basis(engine: Engine, topic: str, value: str, key: str) -> Basis:
    """A fact about an engine as something that a way rests on; `key` names its source."""
    source = engine.sources[key]
    return Basis(
        about=engine.id,
        version=source.version or engine.version,
        topic=topic,
        value=value,
        place=source.place,
        date=source.date,
    )


# --- what is known of the adapter ---


def judge_rules(case: Case, catalog: Catalog, rules: Iterable[Conversion]) -> None:
    """Counts rules about what goes wrong against the way."""
    for rule in rules:
        if rule.verdict not in {"wrong", "refused", "unknown"}:
            continue
        because = rule.because or ""
        if rule.verdict == "unknown":
            case.doubts.append(because)
        else:
            case.refusals.append(
                f"peft does it wrongly without a word: {because}"
                if rule.verdict == "wrong"
                else because
            )
        case.basis.append(
            Basis(
                about=PEFT,
                version=catalog.peft_version,
                topic=f"{rule.way} {' + '.join(rule.traits) or rule.method or ''}".strip(),
                value=rule.verdict,
                place=rule.level,
            )
        )


def ask_capability(
    case: Case,
    catalog: Catalog,
    adapter: Adapter,
    feature: str,
    refusal: str,
    *,
    partly: bool = False,
) -> None:
    """A capability counts only as a plain yes, as it does for a question, or `partly` as well."""
    method = catalog.method_by_id[adapter.method]
    capability: Capability = method.capability(feature, adapter.variants)
    note = f" ({capability.note})" if capability.note else ""
    if capability.support == "no":
        case.refusals.append(f"{refusal}{note}")
    elif capability.support != "yes" and not (partly and capability.support == "partial"):
        case.doubts.append(f"{feature.replace('_', ' ')}: {capability.support}{note}")
    case.basis.append(
        Basis(
            about=PEFT,
            version=catalog.peft_version,
            topic=feature,
            value=capability.support,
            place=capability.level,
        )
    )

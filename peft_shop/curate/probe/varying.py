"""One question put to several hosts: a verdict that hangs on the host says on what of it."""

from __future__ import annotations

from functools import partial
from itertools import combinations
from typing import TYPE_CHECKING, Final, NamedTuple

from peft_shop.catalog.conditions import Circumstances, in_words
from peft_shop.curate.probe.judgement import attempt, found

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from peft_shop.catalog.features import Support
    from peft_shop.catalog.methods import Capability
    from peft_shop.curate.probe.bench import Bench

__all__ = ["MAPPED", "Cell", "alternatives", "joined", "on_hosts", "said"]

_RANK: Final[dict[Support, int]] = {"unknown": 0, "no": 1, "partial": 2, "yes": 3}

ASKED_WITH_MAP: Final = frozenset({"disable_adapter", "save_and_reload"})
"""Features that are also asked of a host that says that a device map placed it: wrapping, forward
passes and loading, which read the map, are part of each."""
MAPPED: Final = "not where a device map puts the whole model on the CPU"


class Cell(NamedTuple):
    """One combination of circumstances, by member of `Circumstances`, and whether it works."""

    given: Mapping[str, object]
    works: bool


def alternatives(cells: Sequence[Cell]) -> tuple[Circumstances, ...]:
    """The fewest and shortest circumstances that hold just where it works.

    Empty where it works everywhere or nowhere.

    >>> cells = [Cell({"bias": b, "prepared": p}, p or not b) for b in (0, 1) for p in (0, 1)]
    >>> [one.model_dump(exclude_none=True) for one in alternatives(cells)]
    [{'bias': False}, {'prepared': True}]
    """
    working = [cell for cell in cells if cell.works]
    if len(working) in {0, len(cells)}:
        return ()
    names = list(cells[0].given)
    chosen: list[dict[str, object]] = []
    open_ones = list(working)
    for size in range(1, len(names) + 1):
        for members in combinations(names, size):
            for cell in list(open_ones):
                term = {name: cell.given[name] for name in members}
                if cell in open_ones and _sound(term, cells):
                    chosen.append(term)
                    open_ones = [each for each in open_ones if not _covers(term, each)]
    return tuple(Circumstances.model_validate(term) for term in chosen)


def _covers(term: dict[str, object], cell: Cell) -> bool:
    return all(cell.given[name] == value for name, value in term.items())


def _sound(term: dict[str, object], cells: Iterable[Cell]) -> bool:
    return all(cell.works for cell in cells if _covers(term, cell))


def joined(tries: Sequence[tuple[Mapping[str, object], Capability]]) -> Capability:
    """The verdict of several hosts: the first one's where all agree, else the best with its terms.

    Args:
        tries: circumstances and verdict of each host, by the same members.
    """
    best = max(_RANK[capability.support] for _, capability in tries)
    cells = [Cell(given, _RANK[one.support] == best) for given, one in tries]
    good = next(one for _, one in tries if _RANK[one.support] == best)
    terms = alternatives(cells)
    if not terms:
        return good
    bad = next(one for _, one in tries if _RANK[one.support] < best)
    if good.support == "yes":
        note = f"only {in_words(terms)}; otherwise {_reason(bad)}"
        note = "; ".join([note, good.note] if good.note else [note])
        return good.model_copy(update={"support": "partial", "note": note, "conditions": terms})
    note = f"{in_words(terms)}: {_reason(good)}; otherwise {_reason(bad)}"
    return good.model_copy(update={"note": note})


def _reason(capability: Capability) -> str:
    return capability.note or capability.support


def on_hosts(
    bench: Bench, names: Iterable[str], room: Callable[[Bench], dict[str, Capability]]
) -> dict[str, Capability]:
    """What a room that fills the features `names` says of every host, joined by feature.

    A device map that puts the whole model on the CPU is nobody's but a probe's: what fails there
    alone is told and does not count.
    """
    plain, biased = (said(bench.on(bias=bias), names, room) for bias in (False, True))
    verdicts = {
        feature: joined([({"bias": False}, answer), ({"bias": True}, biased[feature])])
        for feature, answer in plain.items()
    }
    if ASKED_WITH_MAP.isdisjoint(names):
        return verdicts
    for feature, mapped in said(bench.on(device_map=True), names, room).items():
        if _RANK[mapped.support] < _RANK[plain[feature].support]:
            verdicts[feature] = _told(verdicts[feature], f"{MAPPED} ({_reason(mapped)})")
    return verdicts


def said(
    bench: Bench, names: Iterable[str], room: Callable[[Bench], dict[str, Capability]]
) -> dict[str, Capability]:
    """What a room says of one host; where it breaks down itself, that."""
    outcome = attempt(partial(room, bench))
    if outcome.done:
        answers: dict[str, Capability] = outcome.value
        return answers
    # a helper step that works for every other method
    return dict.fromkeys(names, found("no", outcome.level, outcome.note))


def _told(capability: Capability, words: str) -> Capability:
    note = f"{capability.note}; {words}" if capability.note else words
    return capability.model_copy(update={"note": note})

"""Tables in a configuration that name layers: OSF's ranks and BD-LoRA's blocks."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Final

from peft_shop.adapt.measured import MEASURED
from peft_shop.upstream.targets import endings

if TYPE_CHECKING:
    from peft_shop.adapt.drafts import RetargetCase
    from peft_shop.records import Json

__all__ = ["fit_blocks", "fit_ranks", "nearest_divisor"]

_ROW_PARALLEL: Final = {"attention_output", "mlp_down", "attention_mlp_out", "mixer_out"}
"""Roles whose layers tensor parallelism cuts along the input."""


def nearest_divisor(value: int, number: int, *, even: bool = False) -> int | None:
    """The divisor of `number` whose ratio to `value` is nearest to 1; the smaller of two.

    `None` where there is none, which happens only with `even`.
    """
    divisors = {
        one
        for small in range(1, math.isqrt(number) + 1)
        if number % small == 0
        for one in (small, number // small)
        if not even or one % 2 == 0
    }
    return min(
        divisors, key=lambda divisor: (abs(math.log(divisor / value)), divisor), default=None
    )


def fit_blocks(case: RetargetCase) -> None:
    """BD-LoRA: which targets are cut along the input (A), which along the output (B)."""
    stated = dict(case.draft.value("use_bdlora"))
    rows = [group for group in case.groups if group.role in _ROW_PARALLEL]
    columns = [group for group in case.groups if group not in rows]
    along = {
        "target_modules_bd_a": ({n for row in rows for n in row.names}, rows),
        "target_modules_bd_b": ({n for column in columns for n in column.names}, columns),
    }
    changed = dict(stated)
    every = {name for group in case.groups for name in group.names}
    for key, (names, _) in along.items():
        # peft looks for these words anywhere in a module's full name
        hit = {name for name in every if any(word in name for word in stated.get(key) or ())}
        if hit != names:
            changed[key] = _words(names, every - names)
    ranks = [int(case.draft.value("r"))]
    widths = [row.in_features for row in rows] + [column.out_features for column in columns]
    blocks = stated.get("nblocks", 1)
    fit = nearest_divisor(blocks, math.gcd(*widths, *ranks))
    if fit is not None and fit != blocks:
        changed["nblocks"] = fit
    case.draft.set(
        "use_bdlora", changed, "the names and widths of this model's layers: outputs of attention "
        "and MLP are cut along the input, all others along the output",
    )  # fmt: skip


def _words(names: set[str], others: set[str]) -> list[str]:
    """Shortest words that occur in all of `names` and none of `others`."""
    words = []
    rest = dict.fromkeys(sorted(names))
    while rest:
        name = next(iter(rest))
        word = next(
            (ending for ending in endings(name) if not any(ending in other for other in others)),
            name,
        )
        words.append(word)
        rest = {one: None for one in rest if word not in one}
    return sorted(words)


def fit_ranks(case: RetargetCase, pattern: dict[str, Json]) -> None:
    """OSF: keep the number of directions that train; a stored table belongs to other widths."""
    recipe = case.recipe
    measured = MEASURED.get(recipe.training.model_id) if recipe else None
    here = {name: (one.in_features, one.out_features) for one in case.groups for name in one.names}
    known = measured.widths if measured else here
    if measured is None and all(
        any(_searched(key, name) and 0 < kept < min(here[name]) for key, kept in pattern.items())
        for name in here
    ):
        return  # it is for these layers already
    trained = {
        min(known[name]) - kept
        for key, kept in pattern.items()
        for name in known
        if _searched(key, name)
        if isinstance(kept, int)
    }
    if len(trained) != 1:
        case.draft.drop("rank_pattern", "it belongs to the layers of another model")
        return
    train = trained.pop()
    fit: dict[str, int] = {}
    for group in case.groups:
        least = min(group.in_features, group.out_features)
        for name in group.names:
            fit[name] = max(1, least - train)
    case.draft.set(
        "rank_pattern", _by_ending(fit, pattern), f"all but {train} singular directions of each "
        "layer are kept, as measured",
    )  # fmt: skip


def _by_ending(values: dict[str, int], before: dict[str, Json]) -> dict[str, int]:
    """One entry for all names that end alike, as long as they share a value.

    peft searches for these keys anywhere in a name, as regular expressions, first one first.
    """
    pattern: dict[str, int] = {}
    for name, value in values.items():
        if any(_searched(key, name) for key in pattern):
            continue
        for ending in endings(name):
            key = ending if ending in before else rf"(^|\.){re.escape(ending)}$"
            hit = [one for one in values if _searched(key, one)]
            if all(values[one] == value for one in hit):
                pattern[key] = value
                break
    return dict(sorted(pattern.items()))


def _searched(key: str, name: str) -> bool:
    return re.search(key, name) is not None

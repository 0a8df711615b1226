"""Candidates on a model and a device -> the setup under which each fits at the least cost.

Every rung of the ladder is tried on every candidate, from shapes alone; the cheapest that fits
surely is taken, else the cheapest that may.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import isfinite
from typing import TYPE_CHECKING, Final

import numpy as np

from peft_shop.errors import PeftShopError
from peft_shop.forecast.choice import GridChoice
from peft_shop.forecast.devices import Device, devices
from peft_shop.forecast.grid import Fittable, Grid
from peft_shop.forecast.ladder import ladder
from peft_shop.forecast.records import NothingFits, Setup
from peft_shop.forecast.reference import plain_lora
from peft_shop.forecast.traced import traced_base

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from peft_shop.catalog.features import QuantizationBackend
    from peft_shop.forecast.quick.spread import Array
    from peft_shop.forecast.records import Settings
    from peft_shop.model.structure import Structure

__all__ = ["Fittable", "Fitting", "fitted"]

_CUT: Final = "the time for dry runs was up before every setup was traced"
_LONGEST: Final = 1 << 17
"""Tokens up to which the longest sequence is looked for where the model states no limit."""
_SHORTEST: Final = 64
"""Tokens below which a shorter sequence is not offered."""
# about how large a model fits: 0.57 B per parameter in 4 bit, 2 GiB for everything else, and the
# upper end of its interval
_FOUR_BIT_BYTES: Final = 0.57
_BESIDE_BYTES: Final = 2 * 2**30
_UPPER: Final = 1.12


@dataclass(frozen=True)
class Fitting:
    """What fits, and how.

    Attributes:
        setup: the answer's one setup, with the peak of plain LoRA (of the candidate in the middle
            where that cannot be reckoned); `None` where nothing fits.
        setups: of each candidate by its key; `None` for one that does not fit, or is unknown.
        compared: peak of each candidate at the answer's setup [B]; at its own, or at the one that
            needs least, where it cannot take that one.
        lacking: capabilities, as the catalog names them, without which a candidate does not fit.
        unknown: why a candidate's memory is not known, by its key.
        nothing_fits: what to do where no candidate has a setup.
    """

    setup: Setup | None
    setups: Mapping[str, Setup | None]
    compared: Mapping[str, float]
    lacking: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    unknown: Mapping[str, str] = field(default_factory=dict)
    nothing_fits: NothingFits | None = None


def fitted(
    structure: Structure,
    fittables: Sequence[Fittable],
    settings: Settings,
    *,
    fixed: Collection[str],
    device: Device | int,
    effective_batch: int,
) -> Fitting:
    """The setup of each candidate on a device.

    Args:
        structure: of the base model.
        fittables: the candidates.
        settings: the training step that was asked for.
        fixed: fields of it that the user stated, which are kept.
        device: the device, or what the allocator may take of one [B]. Of several devices each
            holds the whole model and a share of the batch.
        effective_batch: sequences or images behind one step of the optimizer, on all devices.
    """
    asked = device if isinstance(device, Device) else None
    count = asked.count if asked else 1
    rungs = ladder(
        structure,
        settings,
        fixed,
        effective=max(1, effective_batch // count),
        bfloat16=asked.bfloat16 if asked else True,
        backends=_backends(fittables),
    )
    base = traced_base(structure, settings)
    if base is not None:
        known = [rung for rung in rungs if base.knows(rung.settings)]
        base, rungs = (base, known) if known else (None, rungs)
    reference = _reference(structure)
    grid = Grid(structure, [*fittables, *reference], rungs, base=base)
    unknown = {
        fittable.key: grid.unknown[fittable.key]
        for fittable in fittables
        if fittable.key in grid.unknown
    }
    nobody: dict[str, Setup | None] = {fittable.key: None for fittable in fittables}
    if len(unknown) == len(fittables):
        return Fitting(None, nobody, {}, unknown=unknown)
    usable = device.usable_bytes if isinstance(device, Device) else device
    choice = GridChoice(
        grid,
        fixed=frozenset(fixed),
        prepared=asked is not None and not asked.bfloat16,
        usable=usable,
        wanted=[row for row, one in enumerate(grid.rows) if one is not _first(reference)],
    )
    found = _Records(choice, count).fitting()
    if base is not None and base.cut:
        # no setup among those that were traced, which says nothing of the others
        late = [key for key, setup in found.setups.items() if setup is None]
        unknown |= dict.fromkeys(late, _CUT)
        found = replace(found, nothing_fits=None)
    return Fitting(
        setup=found.setup,
        setups={**nobody, **found.setups},
        compared=found.compared,
        lacking=found.lacking,
        unknown=unknown,
        nothing_fits=found.nothing_fits,
    )


def _backends(fittables: Sequence[Fittable]) -> list[QuantizationBackend]:
    """4 bit, and 8 bit where a candidate trains on nothing smaller."""
    eight = any(fittable.bnb_4bit == "no" and fittable.bnb_8bit != "no" for fittable in fittables)
    return ["bnb_4bit", "bnb_8bit"] if eight else ["bnb_4bit"]


def _first(fittables: Sequence[Fittable]) -> Fittable | None:
    return fittables[0] if fittables else None


def _reference(structure: Structure) -> list[Fittable]:
    """Plain LoRA, where the model has layers for it."""
    try:
        config = plain_lora(structure)
    except PeftShopError:
        return []
    return [Fittable("", config, bnb_4bit="yes", bnb_8bit="yes", checkpointing=True)]


class _Records:
    """The answer's records from its choices.

    Args:
        choice: of rungs.
        count: devices that share a batch.
    """

    def __init__(self, choice: GridChoice, count: int) -> None:
        self.choice = choice
        self.grid = choice.grid
        self.count = count

    def fitting(self) -> Fitting:
        """The choices."""
        choice, grid = self.choice, self.grid
        own = {row: choice.cheapest(row) for row in choice.wanted}
        common = choice.common()
        columns = dict(own)
        compared: dict[str, float] = {}
        for row in choice.wanted:
            column, mine = choice.of_common(row, common), own[row]
            value = float(grid.values[row, choice.compared(row, common, mine)])
            if isfinite(value):
                compared[grid.rows[row].key] = value
            if column is not None and mine is not None and choice.takes(row, column, mine):
                columns[row] = column
        setups = self._setups(columns)
        if common is None:
            return Fitting(None, setups, compared, choice.lacking(own), {}, self._nothing_fits())
        return Fitting(self._answer(common), setups, compared, choice.lacking(own))

    def _setups(self, columns: Mapping[int, int | None]) -> dict[str, Setup | None]:
        longest = self._longest(columns)
        setups: dict[str, Setup | None] = {}
        for row, column in columns.items():
            key = self.grid.rows[row].key
            if column is None:
                setups[key] = None
                continue
            other = self.choice.alternative(row, column)
            alternative = None if other is None else self._setup(row, other)
            setups[key] = self._setup(row, column, longest.get(row), alternative)
        return setups

    def _setup(
        self,
        row: int,
        column: int,
        longest: int | None = None,
        alternative: Setup | None = None,
        *,
        surely: bool | None = None,
    ) -> Setup:
        rung = self.grid.rungs[column]
        step = self.grid.rows[row].trained_by(rung.settings)
        surely = bool(self.choice.sure[row, column]) if surely is None else surely
        return Setup(
            settings=step,
            effect="slight" if rung.slight else "same",
            changes=rung.changes,
            effective_batch=step.batch_size * step.accumulation * self.count,
            time_factor=rung.time,
            fits="yes" if surely else "maybe",
            peak=self.grid.interval(row, column),
            longest_sequence=longest,
            alternative=alternative,
        )

    def _answer(self, common: tuple[object, ...]) -> Setup | None:
        """The common setup with the peak of the reference, else of the candidate in the middle."""
        rows = [row for row in range(len(self.grid.rows)) if row not in set(self.choice.wanted)]
        if not rows:
            takers = [
                row for row in self.choice.wanted if self.choice.of_common(row, common) is not None
            ]
            takers.sort(
                key=lambda row: self.grid.values[row, self.choice.of_common(row, common) or 0]
            )
            rows = takers[len(takers) // 2 :]
        for row in rows:
            column = self.choice.of_common(row, common)
            if column is not None:
                return self._setups({row: column})[self.grid.rows[row].key]
        return None

    def _limit(self) -> int:
        step = self.grid.rungs[0].settings
        stated = self.grid.structure.dimensions.max_positions or _LONGEST
        return max(step.sequence_length, min(stated, _LONGEST))

    def _longest(self, columns: Mapping[int, int | None]) -> dict[int, int]:
        """Tokens up to which each candidate's rung surely fits; those that fit surely only."""
        if self.grid.structure.modality == "image" or not self.grid.any_length:
            return {}
        start = self.grid.rungs[0].settings.sequence_length
        found: dict[int, int] = {}
        for column in {one for one in columns.values() if one is not None}:
            rows = [
                row
                for row, one in columns.items()
                if one == column and self.choice.sure[row, column]
            ]
            if rows:
                lengths = self._bisected(column, start, self._limit())
                found |= {row: int(lengths[row]) for row in rows}
        return found

    def _bisected(self, column: int, low: int, high: int) -> Array:
        """The longest sequence of `low` to `high` tokens that surely fits at a rung, (n,)."""
        few = np.full(len(self.grid.rows), float(low))
        many = np.full(len(self.grid.rows), float(high))
        while (few < many).any():
            middle = np.ceil((few + many) / 2)
            fits = self.grid.highs(column, middle) <= self.choice.usable
            few, many = np.where(fits, middle, few), np.where(fits, many, middle - 1)
        return few

    def _nothing_fits(self) -> NothingFits:
        grid = self.grid
        parameters = (self.choice.usable / _UPPER - _BESIDE_BYTES) / _FOUR_BIT_BYTES
        large = int(parameters) if parameters >= 1 else None
        values = np.where(self.choice.allowed, grid.values, np.inf)
        rows = values[self.choice.wanted]
        if not rows.size or not np.isfinite(rows).any():
            return NothingFits(parameters=large)
        place, column = divmod(int(rows.argmin()), rows.shape[1])
        row = self.choice.wanted[place]
        step = grid.rungs[column].settings
        holds = [
            device
            for device in devices()
            if grid.high[row, column] <= device.usable_bytes
            and (device.bfloat16 or step.dtype != "bfloat16")
            # bitsandbytes and the forecast's allocator are those of CUDA
            and device.platform == "cuda"
            and not device.shared
        ]
        smallest = min(holds, key=lambda hold: hold.memory_bytes, default=None)
        longest = None
        lengths = grid.any_length and grid.structure.modality != "image"
        if lengths and step.sequence_length > _SHORTEST:
            tokens = int(self._bisected(column, 0, step.sequence_length)[row])
            longest = tokens if tokens >= _SHORTEST else None
        return NothingFits(
            least=self._setup(row, column, surely=smallest is not None),
            device=None if smallest is None else smallest.name,
            longest_sequence=longest,
            parameters=large,
        )

"""Candidates x setups -> peaks from shapes alone: a row a candidate, a column a rung."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from peft_shop.catalog.features import FULL_FINETUNING
from peft_shop.errors import ConfigError, PeftShopError
from peft_shop.forecast.constants import constants
from peft_shop.forecast.intervals import memory_shares
from peft_shop.forecast.quick.beside import require_plain
from peft_shop.forecast.quick.closed_forms import memory_terms
from peft_shop.forecast.quick.full import full_parts
from peft_shop.forecast.quick.methods.registry import adapter_of
from peft_shop.forecast.quick.remembered import remembered
from peft_shop.forecast.quick.spread import ShapeSpread, shape_of
from peft_shop.forecast.records import Interval
from peft_shop.forecast.reference import plain_lora

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peft_shop.forecast.ladder import QuantizedTraining, Rung
    from peft_shop.forecast.quick.spread import Array, Shape
    from peft_shop.forecast.records import Optimizer, Settings
    from peft_shop.forecast.traced import TracedBase
    from peft_shop.model.structure import Structure
    from peft_shop.records import Json

__all__ = ["Fittable", "Grid"]


@dataclass(frozen=True)
class Fittable:
    """One candidate to fit.

    Attributes:
        key: tells it apart.
        config: fields of a peft configuration; `None` for full fine-tuning.
        optimizer: of its recipe, or the one that was asked for.
        plain_adamw: whether the recipe has plain AdamW, which 8 bit can stand for.
        bnb_4bit: how its method trains on a 4-bit base of bitsandbytes.
        bnb_8bit: likewise in 8 bit.
        checkpointing: whether it is known to train under gradient checkpointing.
        chunked: whether it can do without whole logits.
        autocast_adapter_dtype: of its recipe; `None` for the settings'.
    """

    key: str
    config: Mapping[str, Json] | None
    optimizer: Optimizer = "adamw"
    plain_adamw: bool = True
    bnb_4bit: QuantizedTraining = "no"
    bnb_8bit: QuantizedTraining = "no"
    checkpointing: bool = False
    chunked: bool = True
    autocast_adapter_dtype: bool | None = None

    @property
    def method(self) -> str:
        """Identifier of the method."""
        if self.config is None:
            return FULL_FINETUNING
        return str(self.config.get("peft_type", "")).lower()

    @property
    def abilities(self) -> tuple[object, ...]:
        """What decides which rungs it can take."""
        return (
            self.config is None,
            self.plain_adamw,
            self.bnb_4bit,
            self.bnb_8bit,
            self.checkpointing,
            self.chunked,
        )

    def trained_by(self, settings: Settings) -> Settings:
        """The settings with what this candidate's recipe says of the optimizer and the dtype."""
        changes: dict[str, object] = {}
        if settings.optimizer != "adamw_8bit" or not self.plain_adamw:
            changes["optimizer"] = self.optimizer
        if self.autocast_adapter_dtype is not None:
            changes["autocast_adapter_dtype"] = self.autocast_adapter_dtype
        # a copy takes longer than looking whether it is needed, and there are thousands
        changed = any(getattr(settings, name) != value for name, value in changes.items())
        return settings.model_copy(update=changes) if changed else settings


class Grid:
    """Peaks of every candidate at every rung.

    Args:
        structure: of the base model.
        fittables: the candidates.
        rungs: the setups.
        base: peaks of plain LoRA at all of them, where closed forms know nothing of the model.

    Attributes:
        rows: candidates whose memory can be reckoned.
        rungs: the setups.
        unknown: why the others' cannot, by key.
        values: (n, m) peaks [B].
        low: (n, m) lower ends [B].
        high: (n, m) upper ends [B].
    """

    def __init__(
        self,
        structure: Structure,
        fittables: Sequence[Fittable],
        rungs: Sequence[Rung],
        *,
        base: TracedBase | None = None,
    ) -> None:
        self.structure = structure
        self.rungs = tuple(rungs)
        self.unknown: dict[str, str] = {}
        self.rows: list[Fittable] = []
        shapes: list[Shape] = []
        self._adapted: list[int] = []
        self._traced = base
        for fittable in fittables:
            try:
                shape = self._shape(fittable)
                if self._traced is not None:
                    _require_plain(fittable, shape)
                elif not shapes and shape is not None:
                    # whether the model has a closed form shows with the first
                    ShapeSpread(structure, [shape]).peaks(rungs[0].settings)
            except PeftShopError as error:
                self.unknown[fittable.key] = str(error)
                continue
            if shape is not None:
                self._adapted.append(len(self.rows))
                shapes.append(shape)
            self.rows.append(fittable)
        self.spread = ShapeSpread(structure, shapes)
        self.values = self._values()
        below, above = self._shares()
        self.low, self.high = self.values * (1 + below), self.values * (1 + above)

    def _shape(self, fittable: Fittable) -> Shape | None:
        """What the adapter adds; `None` for full fine-tuning.

        Raises:
            ConfigError: there is no closed form.
        """
        config = fittable.config
        if config is None:
            full_parts(
                self.structure, self.rungs[0].settings.model_copy(update={"quantization": None})
            )
            return None
        first = fittable.trained_by(self.rungs[0].settings)
        settings = first.model_copy(update={"optimizer": fittable.optimizer})
        key = (
            json.dumps(config, sort_keys=True, default=sorted),
            settings.dtype,
            settings.optimizer,
            settings.autocast_adapter_dtype,
            settings.moved_after_injection,
        )
        return remembered(
            self.structure,
            ("shape", *key),
            lambda: shape_of(self.structure, adapter_of(self.structure, config), settings),
        )

    def _values(self) -> Array:
        found = np.zeros((len(self.rows), len(self.rungs)))
        if self._traced is not None:
            return self._beside(self._traced)
        for column, rung in enumerate(self.rungs if self._adapted else ()):
            found[self._adapted, column] = self.spread.peaks(rung.settings)
        adapted = set(self._adapted)
        for row, fittable in enumerate(self.rows):
            if row in adapted:
                continue
            for column, rung in enumerate(self.rungs):
                found[row, column] = self._full(fittable.trained_by(rung.settings))
        return found

    def _beside(self, base: TracedBase) -> Array:
        """Peaks as that of plain LoRA, which was traced, and what each adds beyond it."""
        config = plain_lora(self.structure)
        settings = self.rungs[0].settings.model_copy(update={"optimizer": "adamw"})
        plain = shape_of(self.structure, adapter_of(self.structure, config), settings)
        lora = ShapeSpread(self.structure, [plain])
        found = np.zeros((len(self.rows), len(self.rungs)))
        for column, rung in enumerate(self.rungs if self.rows else ()):
            step = rung.settings
            own = lora.added(step.model_copy(update={"optimizer": "adamw"}))
            found[:, column] = base.peak(step) + self.spread.added(step) - own
        return found

    def _full(self, settings: Settings) -> float:
        """Peak of full fine-tuning [B]; infinite where the base is quantized."""
        if settings.quantization is not None:
            return float("inf")
        sizes, _ = memory_terms(full_parts(self.structure, settings), settings, constants())
        return float(sum(sizes.values()))

    def _shares(self) -> tuple[Array, Array]:
        """Ends of the intervals as shares of the values beyond one, (n, m) each."""
        methods = [fittable.method for fittable in self.rows]
        names = sorted(set(methods))
        places = [names.index(method) for method in methods]
        found = np.zeros((2, len(self.rows), len(self.rungs)))
        known: dict[tuple[object, ...], Array] = {}
        for column, rung in enumerate(self.rungs):
            step = rung.settings
            key = (step.quantization, step.gradient_checkpointing, step.fused_loss)
            if key not in known:
                pairs = [self._ends(method, step)[:2] for method in names]
                known[key] = np.array(pairs).reshape(len(names), 2).T[:, places]
            found[:, :, column] = known[key]
        return found[0], found[1]

    def _ends(self, method: str, step: Settings) -> tuple[float, float, list[str]]:
        fitted = constants()
        regime = fitted.checkpointed if step.gradient_checkpointing else fitted.whole
        branch = (step.quantization, step.gradient_checkpointing, step.fused_loss)
        kernel = (step.attention, step.dtype, step.accelerator)
        return remembered(
            self.structure,
            ("ends", self._traced is None, method, *branch, *kernel),
            lambda: memory_shares(
                method,
                self.structure,
                step,
                regime,
                way="closed_form" if self._traced is None else "dry_run",
            ),
        )

    def interval(self, row: int, column: int) -> Interval:
        """Peak of one candidate at one rung."""
        _, _, reasons = self._ends(self.rows[row].method, self.rungs[column].settings)
        return Interval(
            low=float(self.low[row, column]),
            value=float(self.values[row, column]),
            high=float(self.high[row, column]),
            basis="; ".join(reasons),
        )

    @property
    def any_length(self) -> bool:
        """Whether peaks at other lengths are known."""
        return self._traced is None

    def highs(self, column: int, lengths: Array) -> Array:
        """Upper ends at one rung with sequences of other `lengths`, (n,); of full tuning none."""
        found = np.full(len(self.rows), np.inf)
        peaks = self.spread.peaks(self.rungs[column].settings, lengths[self._adapted])
        rows = self._adapted
        found[rows] = peaks * (self.high[rows, column] / self.values[rows, column])
        return found


def _require_plain(fittable: Fittable, shape: Shape | None) -> None:
    """Raise unless the candidate differs from plain LoRA by what it adds alone.

    Raises:
        ConfigError: it trains the base, or lengthens sequences.
    """
    if shape is None:
        msg = (
            f"{fittable.method}: no closed form on such a model; make a dry run, which needs torch"
        )
        raise ConfigError(msg)
    require_plain(fittable.method, prompts=bool(shape.prompt or shape.prefix))

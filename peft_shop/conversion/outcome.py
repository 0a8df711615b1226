"""What to say of a conversion: how it came about, how far it is off, and what to watch out for."""

from __future__ import annotations

import contextlib
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from peft_shop.catalog.methods import PLAIN
from peft_shop.conversion.lora import LoraParts
from peft_shop.conversion.reading import RECOMPUTED
from peft_shop.conversion.report import ConversionReport

if TYPE_CHECKING:
    from collections.abc import Iterator

    from peft_shop.catalog.engines import Engine
    from peft_shop.conversion.bases import BaseWeights
    from peft_shop.conversion.merging import MergedParts
    from peft_shop.conversion.plan import Plan
    from peft_shop.conversion.reading import AdapterFolder
    from peft_shop.conversion.report import LayerReport, LogitsCheck
    from peft_shop.serve.cases import Way

__all__ = ["Outcome", "excuse", "peak_memory"]

_EXACT: Final = 1e-4
_PACKAGES: Final = ("peft-shop", "peft", "transformers", "torch", "safetensors")


@dataclass
class Outcome:
    """A finished conversion.

    Attributes:
        source: the adapter.
        base: its base model.
        found: what the adapter changes.
        parts: what was made.
        target: the output folder.
        rank: as it was asked for.
        known: the exact rank by the configuration, and its formula.
        not_peft: why peft's own conversion was not used.
        engine: that is to load the result.
        loads: how it does.
    """

    source: AdapterFolder
    base: BaseWeights
    found: Plan
    parts: LoraParts | MergedParts
    target: Path
    rank: str | float
    known: tuple[int, str] | None
    not_peft: str | None
    engine: Engine | None
    loads: Way | None

    def report(
        self,
        logits: LogitsCheck | None,
        because: str | None,
        tolerance: float | None,
        seconds: float,
    ) -> ConversionReport:
        """Everything that was done and measured.

        Args:
            logits: comparison of the outputs.
            because: why there is none.
            tolerance: what the user allows [1]; `None` for what fits the types of the numbers.
            seconds: it took.
        """
        parts = self.parts
        layers = tuple(parts.layers)
        worst = max((layer.error for layer in layers), default=0.0)
        deviation = logits.deviation if logits is not None else 0.0
        lora = isinstance(parts, LoraParts)
        way = self._way(layers)
        allowed = tolerance if tolerance is not None else parts.tolerance
        judged = worst if tolerance is not None or parts.judges_layers else 0.0
        return ConversionReport(
            adapter=str(self.source.folder),
            base=self.base.name,
            to=PLAIN if lora else "merged",
            output=str(self.target),
            method=self.source.adapter.method,
            variants=self.source.adapter.variants,
            way=way,
            because=self._because(way),
            rank=parts.rank if isinstance(parts, LoraParts) else None,
            rank_from=self._rank_from(parts) if isinstance(parts, LoraParts) else None,
            dtype=parts.dtype or "as the base",
            layers=layers,
            error=worst,
            logits=logits,
            logits_because=because,
            tolerance=allowed,
            within_tolerance=judged <= allowed and deviation <= allowed,
            exact=worst <= _EXACT and deviation <= _EXACT,
            modules_to_save=tuple(dict.fromkeys(self.found.saved.values())),
            engine=self.loads,
            engine_name=self.engine.id if self.engine else None,
            warnings=tuple(self._warnings()),
            seconds=seconds,
            peak_memory_bytes=peak_memory(),
            versions=_versions(),
        )

    def _brings(self, name: str) -> bool:
        """Whether the adapter holds a parameter of the base whole."""
        owners = {*self.found.saved.values(), *self.found.replaced.values()}
        return any(f"{name}.".startswith(f"{owner}.") for owner in owners)

    def _way(self, layers: tuple[LayerReport, ...]) -> Any:
        counts: dict[str, int] = {}
        for layer in layers:
            counts[layer.way] = counts.get(layer.way, 0) + 1
        if not counts:
            return "copied" if isinstance(self.parts, LoraParts) else "merged"
        return max(counts, key=lambda name: counts[name])

    def _because(self, way: str) -> str:
        if way == "peft":
            return "peft's own conversion is exact for this method"
        if way == "initial_model":
            return "the start changed the base, and the untrained adapter tells by how much"
        if way == "merged":
            return "the whole model was asked for"
        if self.not_peft is None:
            return "peft's own conversion does not take these layers, or would take long on them"
        return self.not_peft

    def _rank_from(self, parts: LoraParts) -> str:
        asked = parts.request
        if asked.kind == "rank":
            return "the number that was asked for"
        if asked.kind == "share":
            return f"the share {self.rank} of the squared singular values, in the worst layer"
        if self.known is not None and self.known[0] == parts.rank:
            return f"the configuration: {self.known[1]}"
        if all(layer.full_rank is not None for layer in parts.layers):
            return "measured: the lowest that loses nothing"
        if self.engine is not None:
            return f"the highest that {self.engine.title} takes; more would be needed"
        return "the highest that was tried; more would be needed"

    def _warnings(self) -> Iterator[str]:
        parts = self.parts
        yield from self.source.notes
        yield from self.base.notes
        absent = [name for name in self.base.absent if not self._brings(name)]
        if absent:
            yield (
                f"{self.base.name} has no weights for {absent[0]}"
                + (f" and {len(absent) - 1} more" if len(absent) > 1 else "")
                + ", and the adapter does not bring them: they started at random in the training "
                "and were not saved, so nobody gets the trained model's outputs again."
            )
        if isinstance(parts, LoraParts):
            wide = [layer for layer in parts.layers if parts.rank >= min(layer.shape)]
            if wide:
                yield (
                    f"The rank {parts.rank} is at least a whole side of {len(wide)} layers (such "
                    f"as {wide[0].name}): there the LoRA is no smaller than the weight; merging "
                    "may serve better."
                )
        elif not parts.judges_layers:
            worst = max((layer.error for layer in parts.layers), default=0.0)
            yield (
                f"Rounding the merged weights to 16 bits loses up to {100 * worst:.2g} % of the "
                "change of a layer; fp32 would lose nothing (--dtype float32)."
            )
        adapter, targets = self.source.adapter, self.found.targets
        stored = self.base.dtype(f"{targets[0]}.weight") if targets else None
        anew = adapter.method in RECOMPUTED or "changed_base" in adapter.traits
        if anew and stored is not None and stored.itemsize < 4:
            yield (
                f"The base is stored in {str(stored).removeprefix('torch.')}, and {adapter.method} "
                "computes frozen factors from it: in fp32 here. If it was trained on a base in 16 "
                "bits, they were rounded there: evaluate the result once."
            )
        if self.source.config.get("ensure_weight_tying"):
            yield "ensure_weight_tying was set: see to it that the tied layers are both adapted."


def _versions() -> dict[str, str]:
    versions = {}
    for name in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions


def excuse(report: ConversionReport) -> str:
    """Why a result counts as too far off, and what to do."""
    worst = max(report.layers, key=lambda layer: layer.error)
    text = (
        f"{report.adapter}: the result is off by {report.error:.2g} of the change of {worst.name}"
    )
    if report.logits is not None:
        text += f" and by {report.logits.deviation:.2g} of the largest output"
    text += f", more than the tolerance of {report.tolerance:g}; nothing was written. "
    if report.to != "merged":
        needed = max((layer.full_rank or 0 for layer in report.layers), default=0)
        full = all(layer.full_rank is not None for layer in report.layers)
        text += (
            f"At rank {needed} nothing would be lost"
            if full and report.rank is not None and needed > report.rank
            else f"At rank {report.rank} something is left of the change, which has a higher rank"
            if not full
            else "The layers do not explain it"
        )
        text += ": ask for a higher rank, merge instead (--to merged), or accept it with "
    else:
        text += "Write fp32 (--dtype float32), or accept it with "
    return text + "--tolerance or --allow-inexact"


def peak_memory() -> int | None:
    """Highest resident memory of this process so far [bytes]; `None` where nobody counts it."""
    if sys.platform == "win32":
        return None
    with contextlib.suppress(OSError, ValueError, StopIteration):
        # what getrusage says on Linux may be that of the process that started this one
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        line = next(one for one in lines if one.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    import resource  # noqa: PLC0415 - not everywhere

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024

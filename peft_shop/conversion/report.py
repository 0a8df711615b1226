"""What a conversion did and how far it is off, as plain data: no torch here."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

from peft_shop.conversion.options import To
from peft_shop.records import Finite, Frozen, Record, Text
from peft_shop.serve.cases import Way

__all__ = [
    "HALF_TOLERANCE",
    "MERGED_HALF_TOLERANCE",
    "REPORT_FILE",
    "TOLERANCE",
    "ConversionReport",
    "LayerReport",
    "LayerWay",
    "LogitsCheck",
]

REPORT_FILE: Final = "conversion_report.json"
"""Lies in the output folder, beside the weights."""

TOLERANCE: Final = 1e-3
"""Largest error of a layer and largest deviation of the outputs [1] that count as done."""
HALF_TOLERANCE: Final = 1e-2
"""The same for a LoRA in 16 bits: each of its numbers is rounded by up to 2^-9."""
MERGED_HALF_TOLERANCE: Final = 5e-2
"""Largest deviation of the outputs [1] of a model merged into 16 bits, which rounds the base as
much as the change. The layers are not judged then: a small change loses much of itself."""

LayerWay: TypeAlias = Literal["peft", "generic", "initial_model", "merged", "copied"]


class LayerReport(Record):
    """One layer of the output, compared with what the adapter does to the base's layer.

    Attributes:
        name: of the module in the base model.
        kind: what it is.
        shape: outputs and inputs of its weight [count]; of other modules, of their first parameter.
        way: how it came about; `copied` for parameters that the adapter holds whole.
        rank: of the factors that were found; the output pads them to one rank. 0 when merged.
        full_rank: smallest rank that would lose nothing; `None` where it was not looked for.
        size: norm of the change relative to the norm of the base's weight [1].
        error: norm of what is missing relative to the norm of the change [1].
    """

    name: Text
    kind: Literal["linear", "conv1d", "embedding", "convolution", "other"]
    shape: tuple[int, ...]
    way: LayerWay
    rank: int
    full_rank: int | None = None
    size: Finite
    error: Finite


class LogitsCheck(Record):
    """Outputs of the base with the original adapter and with what was made of it.

    Attributes:
        inputs: what was fed to both.
        effect: largest change that the original makes to the base's outputs, relative to the
            largest of its own outputs [1].
        deviation: largest difference between the two, relative to the same [1].
        agreement: share of positions where both name the same token or class [1].
    """

    inputs: Text
    effect: Finite
    deviation: Finite
    agreement: Finite


class ConversionReport(Record):
    """What became of one adapter.

    Attributes:
        adapter: the folder it came from.
        base: the base model, as it was named.
        to: what was asked for.
        output: the folder that was written; `None` where nothing was.
        method: identifier of the adapter's method.
        variants: recognised variants.
        way: how most layers came about.
        because: why that way.
        rank: of the LoRA; `None` when merged.
        rank_from: what decided on it.
        dtype: of the numbers written.
        layers: every layer, in the model's order.
        error: the worst of the layers' errors [1].
        logits: comparison of the whole model's outputs; `None` where it was not made.
        logits_because: why it was not made.
        tolerance: largest error and deviation that count as done [1].
        within_tolerance: whether both keep it.
        exact: whether every layer is the original's up to rounding (1e-4).
        modules_to_save: whole modules that went along.
        engine: how the engine that was named loads the output; `None` where none was.
        warnings: what a reader should know.
        seconds: it took.
        peak_memory_bytes: highest resident memory of the process until then.
        versions: of what was used.
    """

    adapter: Text
    base: Text
    to: To
    output: str | None = None
    method: Text
    variants: tuple[str, ...] = ()
    way: LayerWay
    because: Text
    rank: int | None = None
    rank_from: str | None = None
    dtype: Text
    layers: tuple[LayerReport, ...]
    error: Finite
    logits: LogitsCheck | None = None
    logits_because: str | None = None
    tolerance: Finite
    within_tolerance: bool
    exact: bool
    modules_to_save: tuple[str, ...] = ()
    engine: Way | None = None
    engine_name: str | None = None
    warnings: tuple[Text, ...] = ()
    seconds: Finite
    peak_memory_bytes: int | None = None
    versions: Frozen[dict[str, str]]

"""Forecasts as documents: one with its parts, or many side by side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from peft_shop.show.documents import Cell, Column, Document, Item, Listing, Row, Table, label
from peft_shop.show.setups import setup_words
from peft_shop.units import format_quantity

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Literal

    from peft_shop.forecast.records import Forecast, Interval, Settings, Setup
    from peft_shop.model.structure import Structure
    from peft_shop.show.documents import Value

__all__ = ["Appraised", "forecast_document", "forecast_records", "forecasts_document"]

_WORDS: Final = {"yes": "fits", "no": "does not fit", "maybe": "too close to call"}
_WAYS: Final = {
    "dry_run": "a training step run on the meta device, its allocations replayed",
    "closed_form": "reckoned from the shapes of the layers",
}


@dataclass(frozen=True, slots=True)
class Appraised:
    """What became of one candidate.

    Attributes:
        name: of the run, or of the method without one.
        method: its identifier.
        forecast: `None` where there is none.
        fit: whether it fits on the device; `None` where none is named.
        reason: why there is no forecast.
        setup: the setup that was chosen; `None` where the settings are as asked.
    """

    name: str
    method: str
    forecast: Forecast | None
    fit: Literal["yes", "no", "maybe"] | None = None
    reason: str = ""
    setup: Setup | None = None

    @property
    def verdict(self) -> str:
        """Whether it fits, in words."""
        if self.fit is None or self.forecast is None:
            return self.reason
        return _WORDS[self.fit]


def forecast_document(appraised: Appraised, structure: Structure, device: str | None) -> Document:
    """One forecast: the verdict, what it costs, and the parts of the memory."""
    forecast = appraised.forecast
    if forecast is None:
        return Document(title=f"{appraised.name} on {structure.name}: {appraised.reason}")
    paragraphs = [_settings(forecast.settings, structure)]
    if appraised.fit is not None:
        paragraphs.insert(0, f"{device}: {appraised.verdict}.")
    if appraised.setup is not None:
        words = setup_words(appraised.setup.settings, structure)
        paragraphs.append(f"Setup that fits: {words}.")
        if appraised.setup.effect == "slight":
            paragraphs.append("A quantized base changes the result a little.")
    facts = [
        ("Peak memory:", _interval(forecast.peak_memory)),
        ("Rests on:", forecast.peak_memory.basis),
        ("Way:", _WAYS[forecast.way]),
        ("Trainable parameters:", f"{forecast.trainable_parameters:,}"),
        ("All parameters:", f"{forecast.total_parameters:,}"),
        (
            "Checkpoint:",
            "unknown"
            if forecast.checkpoint_bytes is None
            else f"{format_quantity(forecast.checkpoint_bytes, 'bytes')} "
            f"({forecast.checkpoint_bytes:,} bytes)",
        ),
    ]
    facts += [
        (
            f"Step time ({step.benchmark}):",
            f"{step.factor.value:.2f} ({step.factor.low:.2f} to {step.factor.high:.2f}) times "
            "plain LoRA on this model"
            + ("" if step.seconds is None else f", {step.seconds.value:.2f} s"),
        )
        for step in forecast.step_time
    ]
    return Document(
        title=f"{appraised.name} on {structure.name}",
        paragraphs=tuple(paragraphs),
        parts=(
            Listing("What it costs", tuple(Item(name, (text,)) for name, text in facts)),
            _terms(forecast),
        ),
        warnings=forecast.warnings,
        footnotes=("Peak memory is what torch's allocator reserves; a process needs more.",),
    )


def _settings(settings: Settings, structure: Structure) -> str:
    told = [f"batch {settings.batch_size}"]
    if structure.modality == "image":
        told.append(f"{settings.image_size} pixels")
    else:
        told.append(f"{settings.sequence_length} tokens")
    told += [settings.dtype, settings.optimizer]
    if settings.quantization:
        told.append(f"{settings.quantization} base")
    if settings.gradient_checkpointing:
        told.append("gradient checkpointing")
    told.append(f"{settings.attention} attention")
    return f"One training step: {', '.join(told)}."


def _interval(interval: Interval) -> str:
    low, value, high = (
        format_quantity(number, "bytes") for number in (interval.low, interval.value, interval.high)
    )
    return f"{value} ({low} to {high}, {100 * interval.confidence:.0f} %)"


def _terms(found: Forecast) -> Table:
    return Table(
        key="terms",
        title="Parts of the peak",
        columns=(
            Column("term", "Part", least=20),
            Column("bytes", "Size", right=True),
            Column("equation", "How", least=20, priority=1),
        ),
        rows=tuple(
            Row(
                (
                    Cell(term.name.replace("_", " "), term.name),
                    Cell(format_quantity(term.bytes, "bytes"), term.bytes),
                    label(term.equation or "counted"),
                )
            )
            for term in found.terms
        ),
    )


def forecasts_document(
    found: Sequence[Appraised], structure: Structure, settings: Settings, device: str | None
) -> Document:
    """Many forecasts side by side, the smallest first; those without one last, with the reason."""
    order = sorted(
        found,
        key=lambda one: (
            one.forecast is None,
            one.forecast.peak_memory.value if one.forecast else 0.0,
            one.name,
        ),
    )
    return Document(
        title=f"Forecasts for {structure.name}",
        paragraphs=(_settings(settings, structure),),
        parts=(
            Table(
                key="forecasts",
                title="" if device is None else f"On {device}",
                columns=(
                    Column("name", "Configuration", least=28),
                    Column("peak_memory_bytes", "Peak memory", right=True),
                    Column("low_high", "90 %", right=True),
                    Column("trainable_parameters", "Trainable", right=True, priority=2),
                    Column("checkpoint_bytes", "Checkpoint", right=True, priority=3),
                    Column("verdict", "Fits" if device else "", least=10),
                ),
                rows=tuple(map(_row, order)),
            ),
        ),
        footnotes=("Peak memory is what torch's allocator reserves; a process needs more.",),
    )


def _row(appraised: Appraised) -> Row:
    forecast = appraised.forecast
    if forecast is None:
        none = Cell("-")
        return Row((label(appraised.name), none, none, none, none, label(appraised.reason)))
    peak = forecast.peak_memory
    low, high = format_quantity(peak.low, "bytes"), format_quantity(peak.high, "bytes")
    size = forecast.checkpoint_bytes
    return Row(
        (
            label(appraised.name),
            Cell(format_quantity(peak.value, "bytes"), round(peak.value)),
            label(f"{low.removesuffix(' GiB')} to {high}"),
            Cell(f"{forecast.trainable_parameters:,}", forecast.trainable_parameters),
            Cell("-") if size is None else Cell(format_quantity(size, "bytes"), size),
            label(appraised.verdict),
        )
    )


def forecast_records(found: Sequence[Appraised]) -> list[dict[str, Value]]:
    """One dictionary each, sizes in bytes; absent values are `None`."""
    records: list[dict[str, Value]] = []
    for one in found:
        known = one.forecast
        records.append(
            {
                "name": one.name,
                "method": one.method,
                "fit": one.fit,
                "peak_memory_bytes": round(known.peak_memory.value) if known else None,
                "low_bytes": round(known.peak_memory.low) if known else None,
                "high_bytes": round(known.peak_memory.high) if known else None,
                "trainable_parameters": known.trainable_parameters if known else None,
                "total_parameters": known.total_parameters if known else None,
                "checkpoint_bytes": known.checkpoint_bytes if known else None,
                "way": known.way if known else None,
                "reason": one.reason,
            }
        )
    return records

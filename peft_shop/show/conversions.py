"""What a conversion did, as a document: the outcome, its measured error, and the layers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from peft_shop.show.documents import Cell, Column, Document, Row, Table, label

if TYPE_CHECKING:
    from peft_shop.conversion.report import ConversionReport, LayerReport

__all__ = ["conversion_document"]

_WAYS: Final = {
    "peft": "by peft's own conversion",
    "generic": "from the measured change of every layer",
    "initial_model": "against the untrained adapter",
    "merged": "merged into the base",
    "copied": "copied",
}
_COLUMNS: Final = (
    Column("layer", "Layer"),
    Column("kind", "Kind", priority=3),
    Column("shape", "Shape", right=True, priority=2),
    Column("way", "Way", priority=2),
    Column("rank", "Rank", right=True),
    Column("full_rank", "Of", right=True, priority=1),
    Column("size", "Change", right=True, priority=1),
    Column("error", "Error", right=True),
)
_FOOTNOTES: Final = (
    (
        "Change: norm of the change relative to the base's weight. Error: norm of what is missing "
        "of the change, relative to it."
    ),
    "Of: the lowest rank at which nothing would be lost.",
)


def conversion_document(report: ConversionReport) -> Document:
    """The report for people; its table has every layer, in the model's order."""
    return Document(
        title=_title(report),
        paragraphs=tuple(_paragraphs(report)),
        parts=(Table("layers", "Layers", _COLUMNS, tuple(_row(layer) for layer in report.layers)),),
        warnings=report.warnings,
        footnotes=_FOOTNOTES,
    )


def _title(report: ConversionReport) -> str:
    what = f"LoRA of rank {report.rank}" if report.to != "merged" else "merged model"
    if report.output is None:
        return f"{report.adapter}: no {what} was written"
    return f"{report.output}: {what} made of {report.adapter}"


def _paragraphs(report: ConversionReport) -> list[str]:
    paragraphs = [
        f"{report.method}, {_WAYS[report.way]} ({report.because}); numbers in {report.dtype}."
    ]
    if report.rank is not None:
        paragraphs.append(f"Rank {report.rank}, by {report.rank_from}.")
    worst = f"Error of the worst of {len(report.layers)} layers: {report.error:.1e}"
    if report.logits is not None:
        worst += (
            f"; outputs off by {report.logits.deviation:.1e} of the largest, where the adapter "
            f"itself changes {report.logits.effect:.1e} ({report.logits.inputs}; the same "
            f"choice at {100 * report.logits.agreement:.4g} % of the positions)"
        )
    else:
        worst += f"; outputs not compared: {report.logits_because}"
    verdict = "exact up to rounding" if report.exact else "not exact"
    kept = "within" if report.within_tolerance else "beyond"
    paragraphs.append(f"{worst}: {verdict}, {kept} the tolerance of {report.tolerance:g}.")
    if report.modules_to_save:
        paragraphs.append(f"Went along whole: {', '.join(report.modules_to_save)}.")
    if report.engine is not None:
        said = [*report.engine.reasons, *report.engine.conditions, *report.engine.warnings]
        works = {"yes": "loads it", "no": "does not load it", "unknown": "may load it"}
        tail = f": {' '.join(said)}" if said else "."
        paragraphs.append(f"{report.engine_name} {works[report.engine.works]}{tail}")
    peak = report.peak_memory_bytes
    memory = "" if peak is None else f", at most {peak / 1e9:.2f} GB of memory"
    paragraphs.append(f"{report.seconds:.0f} s{memory}.")
    return paragraphs


def _row(layer: LayerReport) -> Row:
    return Row(
        (
            label(layer.name),
            label(layer.kind),
            Cell(" x ".join(map(str, layer.shape)), " x ".join(map(str, layer.shape))),
            label(layer.way),
            Cell(str(layer.rank) if layer.rank else "", layer.rank),
            Cell("" if layer.full_rank is None else str(layer.full_rank), layer.full_rank),
            Cell(f"{100 * layer.size:.2g} %", layer.size),
            Cell(f"{layer.error:.1e}", layer.error),
        )
    )

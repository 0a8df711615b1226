"""The structure of a user's model: what it is, and its modules by what they do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from peft_shop.show.documents import Cell, Column, Document, Item, Listing, Row, Table, label

if TYPE_CHECKING:
    from peft_shop.catalog.catalog import Catalog
    from peft_shop.model.structure import ModuleGroup, Structure
    from peft_shop.show.documents import Value

__all__ = ["structure_document", "structure_records"]

_SIZES: Final = {
    "layers": "layers",
    "encoder_layers": "layers in the encoder",
    "hidden_size": "width",
    "intermediate_size": "width of the MLP",
    "attention_heads": "heads",
    "key_value_heads": "heads of keys and values",
    "head_dim": "width of a head",
    "vocabulary": "tokens",
    "max_positions": "longest input",
}
_FOOTNOTE: Final = (
    "A * stands for every index. in and out are the inputs and outputs of one module; rows and "
    "width of an embedding; for a convolution, channels."
)


def structure_records(structure: Structure) -> list[dict[str, Value]]:
    """Every group of modules, one dictionary each."""
    return [
        {
            "pattern": group.pattern,
            "role": group.role,
            "tower": group.tower,
            "count": group.count,
            "in_features": group.in_features,
            "out_features": group.out_features,
            "experts": group.experts,
            "kind": group.kind,
            "class": group.class_name,
            "bias": group.bias,
            "parameters": group.parameters,
        }
        for group in structure.groups
    ]


def structure_document(structure: Structure, catalog: Catalog | None = None) -> Document:
    """What is known of a model, and a row for every group of its modules.

    Args:
        structure: the model.
        catalog: tells which methods were seen to train on a base that is quantized so.
    """
    return Document(
        title=f"{structure.name}: {structure.architecture}"
        if structure.name != structure.architecture
        else structure.name,
        paragraphs=tuple(_paragraphs(structure, catalog)),
        parts=(_about(structure), _modules(structure)),
        warnings=structure.notes,
        footnotes=(_FOOTNOTE,),
    )


def _paragraphs(structure: Structure, catalog: Catalog | None) -> list[str]:
    because = structure.benchmark_because
    evidence = (
        f"Evidence: the runs of {structure.benchmark} ({because})."
        if structure.benchmark
        else f"No evidence: {because}."
    )
    if catalog is None or structure.quantization is None:
        return [evidence]
    name = structure.quantization
    seen = [
        method.title
        for method in catalog.methods
        if method.capability(f"quantization.{name}").support in {"yes", "partial"}
    ]
    return [evidence, f"Seen to train on {name} layers: {', '.join(seen) or 'no method'}."]


def _about(structure: Structure) -> Listing:
    facts = [
        ("Library:", structure.library),
        ("Model type:", structure.model_type),
        ("Modality:", structure.modality),
        ("Task type:", structure.task_type),
        ("Parameters:", f"{structure.parameters:,}"),
        ("Data type:", _dtype(structure)),
        ("Quantization:", _quantization(structure)),
        ("Tied weights:", "; ".join(" = ".join(names) for names in structure.tied) or "none"),
        ("Layer types:", ", ".join(structure.layer_types)),
        ("Sizes:", _sizes(structure)),
    ]
    return Listing("What it is", tuple(Item(name, (text,)) for name, text in facts if text))


def _dtype(structure: Structure) -> str | None:
    if structure.dtype is None or structure.dtype_stated:
        return structure.dtype
    return f"not stated, assumed {structure.dtype}"


def _quantization(structure: Structure) -> str:
    stored = structure.stored_quantization
    name = structure.quantization or (stored.name if stored else "none")
    if stored is None or stored.bits is None:
        return name
    group = f", groups of {stored.group_size}" if stored.group_size else ""
    return f"{name} ({stored.bits:g} bits a weight{group})"


def _sizes(structure: Structure) -> str:
    dimensions = structure.dimensions.model_dump(exclude_none=True)
    return ", ".join(f"{_SIZES[name]} {value:,}" for name, value in dimensions.items())


def _modules(structure: Structure) -> Table:
    return Table(
        key="modules",
        title="Modules",
        columns=(
            Column("role", "Role", least=16),
            Column("tower", "Tower", least=7, priority=2),
            Column("pattern", "Modules", least=24),
            Column("count", "Count", right=True, least=5),
            Column("in_out", "In x out", right=True, least=11),
            Column("kind", "Kind", least=9, priority=1),
        ),
        rows=tuple(map(_row, structure.groups)),
    )


def _row(group: ModuleGroup) -> Row:
    size = f"{group.in_features} x {group.out_features}"
    if group.experts:
        size = f"{group.experts} x {size}"
    return Row(
        (
            label(group.role),
            label(group.tower),
            label(group.pattern),
            Cell(str(group.count), group.count),
            Cell(size, size),
            label(group.kind),
        )
    )

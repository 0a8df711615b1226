"""The catalog in forms that other tools read: JSON Schema, flat tables, CSV."""

from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from peft_shop.catalog.catalog import SCHEMA_VERSION, Catalog
from peft_shop.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from peft_shop.catalog.methods import Capability, Environment, Method
    from peft_shop.catalog.runs import Run

__all__ = ["TABLES", "Row", "as_csv", "as_json", "guarded", "schema_json", "tables"]

Cell: TypeAlias = str | int | float | bool | None
Row: TypeAlias = dict[str, Cell]
TABLES: Final = ("methods", "variants", "capabilities", "runs")
_LIST: Final = " "
"""Joins lists of names, none of which holds a space."""
_FORMULAS: Final = ("=", "+", "-", "@", "\t", "\r")
"""Beginnings of text that spreadsheets would run."""

_ALWAYS: Final = ("schema_version", "catalog_version", "peft_version", "licence")
"""Members that stand in the file even where they have their default."""


def require_shareable(catalog: Catalog) -> None:
    """That nothing in a catalog is private, before it is written for others.

    Raises:
        InputError: it is that of a trial, which has paths and names of the user's own.
    """
    private = [benchmark.id for benchmark in catalog.benchmarks if benchmark.private]
    if private:
        raise InputError(
            f"{private[0]} is private: it has paths and names of your own; write it without them "
            "by `peft-shop trial export DIR -o mine.json`, and take --catalog mine.json"
        )


def schema_json() -> str:
    """JSON Schema (draft 2020-12) of the catalog file, with a final newline."""
    schema = Catalog.model_json_schema()
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:peft-shop:catalog:{SCHEMA_VERSION}",
        "title": f"peft-shop catalog, schema {SCHEMA_VERSION}",
    }
    return (
        json.dumps({**head, **{k: v for k, v in schema.items() if k not in head}}, indent=1) + "\n"
    )


def tables(catalog: Catalog) -> dict[str, tuple[Row, ...]]:
    """Flat tables by name, in the order of `TABLES`; all rows of a table have the same columns.

    A metric is a column of `runs`, named by its field and so by its unit; what was not measured
    is `None`. Lists of names are joined with spaces, configurations are JSON.
    """
    return {
        "methods": tuple(_method_row(method) for method in catalog.methods),
        "variants": tuple(_variant_rows(catalog)),
        "capabilities": tuple(_capability_rows(catalog)),
        "runs": tuple(_run_row(run, catalog) for run in catalog.runs),
    }


def guarded(cell: Any) -> Any:
    """The cell; text that a spreadsheet would take for a formula gets an apostrophe in front."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULAS) else cell


def as_csv(rows: Sequence[Mapping[str, Any]], cell: Callable[[Any], Any] = guarded) -> str:
    """CSV with a header line; `None` is an empty cell.

    Args:
        rows: with the same columns each.
        cell: what to write for a value.
    """
    if not rows:
        return ""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({column: cell(value) for column, value in row.items()})
    return stream.getvalue()


def as_json(rows: Sequence[Row]) -> str:
    """JSON list of objects, one a line, with a final newline."""
    lines = [json.dumps(row, ensure_ascii=False, allow_nan=False) for row in rows]
    return "[\n" + ",\n".join(lines) + "\n]\n" if lines else "[]\n"


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def _method_row(method: Method) -> Row:
    row: Row = {
        "method": method.id,
        "title": method.title,
        "summary": method.summary,
        "family": method.family,
        "category": method.category,
        "task_types": _LIST.join(method.task_types),
        "peft_type": method.peft_type,
        "config_class": method.config_class,
        "since": method.since,
        "paper_title": method.paper.title if method.paper else None,
        "paper_year": method.paper.year if method.paper else None,
        "paper_url": method.paper.url if method.paper else None,
        "aliases": _LIST.join(method.aliases),
        "variants": _LIST.join(variant.id for variant in method.variants),
        "options": _LIST.join(method.options),
        "requires": _LIST.join(method.requires),
        "initialisation": method.initialisation,
        "inference": method.inference,
        "notes": _LIST.join(method.notes),
    }
    return row | {
        feature: capability.support for feature, capability in method.capabilities.items()
    }


def _variant_rows(catalog: Catalog) -> Iterator[Row]:
    for method in catalog.methods:
        for variant in method.variants:
            conditions = [condition.model_dump(exclude_defaults=True) for condition in variant.when]
            yield {
                "method": method.id,
                "variant": variant.id,
                "title": variant.title,
                "summary": variant.summary,
                "since": variant.since,
                "paper_title": variant.paper.title if variant.paper else None,
                "paper_year": variant.paper.year if variant.paper else None,
                "paper_url": variant.paper.url if variant.paper else None,
                "when": _compact(conditions),
            }


def _capability_rows(catalog: Catalog) -> Iterator[Row]:
    """Of a method every feature, of a variant those that differ."""
    for method in catalog.methods:
        for feature, capability in method.capabilities.items():
            yield _capability_row(method, None, feature, capability)
        for variant in method.variants:
            for feature, found in variant.capabilities.items():
                yield _capability_row(method, variant.id, feature, found)


def _capability_row(
    method: Method, variant: str | None, feature: str, capability: Capability
) -> Row:
    environment: Environment = method.environments[capability.environment]
    return {
        "method": method.id,
        "variant": variant,
        "feature": feature,
        "support": capability.support,
        "level": capability.level,
        "source": capability.source,
        "note": capability.note,
        "measured": _compact(capability.measured) if capability.measured else None,
        "conditions": _compact(
            [condition.model_dump(exclude_none=True) for condition in capability.conditions]
        )
        if capability.conditions
        else None,
        "peft": environment.peft,
        "torch": environment.torch,
        "transformers": environment.transformers,
        "device": environment.device,
    }


def _run_row(run: Run, catalog: Catalog) -> Row:
    training, origin = run.recipe.training, run.provenance
    row: Row = {
        "benchmark": run.benchmark,
        "experiment": run.experiment,
        "created_at": run.created_at,
        "method": run.method,
        "variants": _LIST.join(run.variants),
        "era": run.era,
        "snapshots": _LIST.join(run.snapshots),
    }
    row |= {metric.field: run.metrics.get(metric.field) for metric in catalog.metrics}
    return row | {
        "flags": _LIST.join(flag.code for flag in run.flags),
        "config": _compact(run.recipe.config),
        "model_id": training.model_id,
        "optimizer": training.optimizer,
        "learning_rate": training.learning_rate,
        "lr_scheduler": training.lr_scheduler,
        "max_steps": training.max_steps,
        "batch_size": training.batch_size,
        "max_length": training.max_length,
        "dtype": training.dtype,
        "gradient_checkpointing": training.gradient_checkpointing,
        "seed": origin.seed,
        "accelerator": origin.accelerator,
        "peft": origin.packages.get("peft"),
        "torch": origin.packages.get("torch"),
        "transformers": origin.packages.get("transformers"),
        "source": origin.source,
        "commit": origin.commit,
        "file": origin.file,
        "sha256": origin.sha256,
    }


def dump(catalog: Catalog) -> bytes:
    """The catalog as compact JSON in UTF-8, a record a line so that two versions can be compared.

    What has its default is left out, so that the file stays small; the JSON Schema tells the
    defaults. Read back, it gives the same catalog.
    """
    # not `exclude_none`: a null in a configuration is a value that someone chose
    document = catalog.model_dump(mode="json", exclude_defaults=True)
    for name in _ALWAYS:
        document[name] = getattr(catalog, name)
    members = [
        f"{_json(name)}:{_lines(document[name])}"
        for name in Catalog.model_fields
        if name in document
    ]
    return ("{" + ",\n".join(members) + "}\n").encode("utf-8")


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def _lines(value: Any) -> str:
    """JSON of one member of the catalog; of a list or an object, an element a line."""
    if isinstance(value, list):
        return "[\n" + ",\n".join(_json(element) for element in value) + "\n]"
    if isinstance(value, dict):
        members = (f"{_json(key)}:{_json(element)}" for key, element in value.items())
        return "{\n" + ",\n".join(members) + "\n}"
    return _json(value)

"""peft's own choice of modules by type of model, read from its source.

A configuration that states no `target_modules` gets them from a table in `peft/utils/constants.py`
that the method's model class names (peft 0.21.2, `tuners_utils.BaseTuner._prepare_adapter_config`).
"""

from __future__ import annotations

import ast
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from peft_shop.upstream.source import find_peft, source_text, source_tree

if TYPE_CHECKING:
    from pathlib import Path

    from peft_shop.records import Json

__all__ = ["own_targets"]

_Table: TypeAlias = dict[str, "Json"]
"""Modules by type of model, as a list of endings or one regular expression."""
_START: Final = "TRANSFORMERS_MODELS_TO_"
_RECORDS: Final = "TRANSFORMERS_MODEL_CONFIG"
_NAME: Final = re.compile(rf"\b{_START}\w+_(?:TARGET|FEEDFORWARD)_MODULES_MAPPING\b")


def own_targets(peft_type: str, model_type: str | None) -> dict[str, Json]:
    """Fields that the installed peft fills in for a type of model; empty where it has no entry.

    Without an installed peft nothing is known, and the answer is empty too.

    Args:
        peft_type: member of `PeftType`.
        model_type: of the model's configuration; `None` in diffusers, whose models have none.
    """
    folder = find_peft()
    if folder is None or model_type is None:
        return {}
    entries = {
        field: table.get(model_type) for field, table in _of_method(folder, peft_type).items()
    }
    return {field: entry for field, entry in entries.items() if entry is not None}


@lru_cache(maxsize=128)
def _of_method(folder: Path, peft_type: str) -> dict[str, _Table]:
    """Tables of a method by the field that they fill in."""
    tuner = folder / "tuners" / peft_type.lower()
    if not (tuner / "model.py").is_file():
        return {}
    own = _calls(tuner / "config.py")
    if own:
        return {"target_modules": own}
    tables = _constants(folder)
    return {
        "feedforward_modules" if "_FEEDFORWARD_" in name else "target_modules": tables[name]
        for name in sorted(set(_NAME.findall(source_text(tuner / "model.py"))))
        if name in tables
    }


def _calls(source: Path) -> _Table:
    """Table that a method keeps beside its configuration: records that name `target_modules`."""
    if not source.is_file() or f"\n{_RECORDS} = " not in source_text(source):
        return {}
    return {
        key.value: _literal(keyword.value)
        for statement in source_tree(source).body
        if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Dict)
        for key, record in zip(statement.value.keys, statement.value.values, strict=True)
        if isinstance(key, ast.Constant) and isinstance(key.value, str)
        if isinstance(record, ast.Call)
        for keyword in record.keywords
        if keyword.arg == "target_modules"
    }


@lru_cache(maxsize=8)
def _constants(folder: Path) -> dict[str, _Table]:
    """Every table of modules, by its name."""
    tables: dict[str, _Table] = {}
    for statement in source_tree(folder / "utils" / "constants.py").body:
        if not isinstance(statement, ast.Assign):
            continue
        target = statement.targets[0]
        if isinstance(target, ast.Name) and target.id.startswith(_START):
            tables[target.id] = _table(statement.value, tables)
        elif isinstance(target, ast.Subscript) and isinstance(target.value, ast.Name):
            # `TABLE["type"] = [...]` after a copy
            table = tables.get(target.value.id)
            if table is not None:
                table[_literal(target.slice)] = _literal(statement.value)
    return tables


def _table(value: ast.expr, tables: dict[str, _Table]) -> _Table:
    """A dictionary, or a copy of an earlier one."""
    if isinstance(value, ast.Call) and isinstance(value.func, ast.Attribute):
        original = value.func.value
        return dict(tables.get(original.id, {})) if isinstance(original, ast.Name) else {}
    table = _literal(value)
    return dict(table) if isinstance(table, dict) else {}


def _literal(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except ValueError:  # built by code: what it is worth is not known without running it
        return None

"""What a user asks of a trial, in the file that people may edit until its first run."""

from __future__ import annotations

import json
import tomllib
from typing import TYPE_CHECKING, Any, Final

from pydantic import ValidationError

from peft_shop.catalog.diagnosis import problems_of
from peft_shop.errors import CatalogError, Problem
from peft_shop.files import read_bounded, write_atomically
from peft_shop.trial.records import Asked

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["ASKED", "asked_of", "read_asked", "write_asked"]

ASKED: Final = "trial.toml"
_LARGEST: Final = 2**20


def asked_of(table: Mapping[str, Any], place: str) -> Asked:
    """The question as a record.

    Args:
        table: its fields.
        place: where they come from, for messages.

    Raises:
        CatalogError: it breaks its format; lists every mistake.
    """
    try:
        return Asked.model_validate(table)
    except ValidationError as error:
        raise CatalogError(
            "cannot make such a trial", problems_of(error, Asked, dict(table), place)
        ) from error


def read_asked(folder: Path) -> Asked:
    """What the trial in `folder` was asked.

    Raises:
        CatalogError: the file is broken.
    """
    path = folder / ASKED
    try:
        table = tomllib.loads(read_bounded(path, _LARGEST, "a question").decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        problem = Problem(str(path), "", f"not a TOML file: {error}")
        raise CatalogError("cannot read the trial", [problem]) from error
    return asked_of(table, str(path))


def write_asked(folder: Path, asked: Asked) -> None:
    """Writes the question as people edit it."""
    lines = ["# What is asked of this trial. It may be edited until its first run.", ""]
    for name, value in asked.model_dump(mode="json").items():
        if value is not None:
            # strings, numbers, booleans and lists of them are written alike in JSON and TOML
            lines.append(f"{name} = {json.dumps(value, ensure_ascii=False)}")
    write_atomically(folder / ASKED, ("\n".join(lines) + "\n").encode())

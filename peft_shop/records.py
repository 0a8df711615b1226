"""What every record of the vocabulary is made of: the base class and the common types."""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

__all__ = ["Date", "Finite", "Json", "Name", "Number", "Record", "Text", "Url"]

Name: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$", max_length=60)]
"""Identifier of a method, variant, benchmark, metric or feature."""
Date: TypeAlias = Annotated[str, StringConstraints(pattern=r"^\d{4}-\d\d-\d\d$")]
Url: TypeAlias = Annotated[str, StringConstraints(pattern=r"^https://[^\s]*[A-Za-z0-9/_-]$")]
Text: TypeAlias = Annotated[str, StringConstraints(min_length=1, strip_whitespace=True)]
Finite: TypeAlias = Annotated[float, Field(allow_inf_nan=False)]
Number: TypeAlias = int | Finite
Json: TypeAlias = Any
"""A JSON value of a peft configuration or of a trainer's settings."""


class Record(BaseModel):
    """Base of every record: frozen, unknown keys forbidden, finite numbers only."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=()
    )

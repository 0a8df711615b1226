"""A user's model -> its structure, on the meta device: no weight is read, copied or changed."""

from __future__ import annotations

from importlib.util import find_spec

from peft_shop.errors import MissingExtraError

for _package in ("torch", "transformers"):
    if find_spec(_package) is None:
        raise MissingExtraError(_package, "peft", "inspecting a model")

from peft_shop.target.inspection import Target, inspect_model  # noqa: E402 - needs both packages

__all__ = ["Target", "inspect_model"]

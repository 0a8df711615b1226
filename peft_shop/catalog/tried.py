"""Architectures on which every method was tried: adapted, trained, saved and loaded again."""

from __future__ import annotations

from pydantic import Field

from peft_shop.records import Frozen, Name, Record, Text

__all__ = ["TriedModel"]


class TriedModel(Record):
    """A tiny model of one architecture, and what came of each method's defaults on it.

    A method that is named nowhere here trained one step on it, and its saved adapter gave the same
    outputs once it was loaded again.

    Attributes:
        architecture: class of the model, such as `Qwen3ForCausalLM`.
        title: name for people.
        refused: methods that cannot work there by what is known of them.
        failed: by method, what went wrong.
    """

    architecture: Text
    title: Text
    refused: tuple[Name, ...] = ()
    failed: Frozen[dict[Name, Text]] = Field(default_factory=dict)

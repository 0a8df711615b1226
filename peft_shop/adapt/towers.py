"""Which parts of a model are meant when nobody says so, and what goes into it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from peft_shop.model.structure import Role, Structure, Tower

__all__ = ["WRAPPED", "main_towers", "takes_text_alone", "told"]

_LANGUAGE: Final[tuple[Tower, ...]] = ("text", "encoder", "decoder")
_HEADS: Final = {"CAUSAL_LM", "SEQ_2_SEQ_LM", "SEQ_CLS", "TOKEN_CLS", "QUESTION_ANS"}
WRAPPED: Final = frozenset({*_HEADS, "FEATURE_EXTRACTION"})
"""Task types whose wrapper in peft (0.21.2) always passes `inputs_embeds` to the model."""


def told(roles: Iterable[Role]) -> str:
    """Roles as words in a sentence."""
    return ", ".join(role.replace("_", " ") for role in roles)


def main_towers(structure: Structure, *, include_towers: bool = False) -> frozenset[Tower]:
    """Parts of a model that are adapted by default.

    Beside a language model, vision and audio towers are left out. A model without a language
    model's head, such as CLIP, is taken whole; so is the encoder of one that hears and writes.
    """
    present = {group.tower for group in structure.groups}
    language = present.intersection(_LANGUAGE)
    if include_towers or not language or structure.task_type not in _HEADS:
        return frozenset(present)
    if "decoder" in language and "encoder" not in language and "text" not in language:
        return frozenset(language | (present & {"audio", "vision"}))
    return frozenset(language)


def takes_text_alone(structure: Structure) -> bool:
    """Whether token ids are all that goes in, as peft's wrappers for tasks expect."""
    return structure.modality == "text"

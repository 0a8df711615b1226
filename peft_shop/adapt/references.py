"""Values of a recipe that refer to names or tokens of the model that it was measured on."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from peft_shop.adapt.intent import measured_model

if TYPE_CHECKING:
    from peft_shop.adapt.drafts import RetargetCase

__all__ = ["fit_references"]

_BY_NAME: Final = (
    "alpha_pattern",
    "block_size_pattern",
    "lambda_pattern",
    "n_frequency_pattern",
    "rank_pattern",
)
"""Tables of single layers' values; their keys are matched against the end of a layer's name."""
_TOKENS: Final = ("alora_invocation_tokens", "trainable_token_indices")


def fit_references(case: RetargetCase) -> None:
    """Take out of `case.draft` what refers to nothing here; peft would pass over it in silence."""
    if case.peft_type != "OSF":  # its table is made anew for the layers of this model
        for name in _BY_NAME:
            _fit_table(case, name)
    _fit_saved(case)
    _fit_tokens(case)
    if not case.parameters:
        case.draft.drop("target_parameters", "this model has no such parameters")
    _tell(case)


def _fit_table(case: RetargetCase, name: str) -> None:
    table = case.draft.value(name)
    if not table:
        return
    layers = [one for group in (*case.groups, *case.parameters) for one in group.names]
    kept = {
        key: value
        for key, value in table.items()
        if any(re.fullmatch(rf"(.*\.)?({key})", layer) for layer in layers)
    }
    because = "its other keys name no adapted layer of this model"
    if not kept:
        case.draft.drop(name, "its keys name no adapted layer of this model")
    elif kept != table:
        case.draft.set(name, kept, because)


def _fit_saved(case: RetargetCase) -> None:
    stated = case.draft.value("modules_to_save")
    if not stated:
        return
    kept = [one for one in stated if case.names.named_by([one])]
    if not kept:
        case.draft.drop("modules_to_save", "this model has no modules of these names")
    elif kept != list(stated):
        case.draft.set("modules_to_save", kept, "this model has no modules of the other names")


def _fit_tokens(case: RetargetCase) -> None:
    model = measured_model(case)
    if model is None or model.vocabulary == case.structure.dimensions.vocabulary:
        return
    for name in _TOKENS:
        if case.draft.value(name):
            case.draft.problem(f"{name} are tokens of another tokenizer: state this model's")


def _tell(case: RetargetCase) -> None:
    bare = [group for group in case.groups if not group.bias]
    if bare and case.peft_type == "BEFT":
        case.draft.note("layers without a bias of their own: the trained adapter cannot be merged")
    if len(bare) == len(case.groups) > 0 and case.peft_type == "GLORA":
        case.draft.note("no adapted layer has a bias, so that parts C, D and E do not train")

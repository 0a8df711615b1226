"""What a checkpoint states -> a configuration as transformers or diffusers have it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import transformers
from huggingface_hub.errors import StrictDataclassError
from transformers import CONFIG_MAPPING, AutoConfig

from peft_shop.errors import ModelError, nearest_names
from peft_shop.model.choosing import diffusers_class
from peft_shop.model.datatypes import unprefixed

if TYPE_CHECKING:
    from peft_shop.model.checkpoints import Checkpoint

__all__ = ["configuration_of"]


def configuration_of(checkpoint: Checkpoint, *, trust_remote_code: bool = False) -> Any:
    """The configuration as an object of transformers, or as diffusers' own models have it.

    Raises:
        ModelError: it is none that the installed libraries know.
        MissingExtraError: diffusers is needed and not installed.
    """
    content, place = checkpoint.content, checkpoint.place
    if "_class_name" in content:
        cls = diffusers_class(str(content["_class_name"]))
        return {"_class_name": cls.__name__, **content}
    names, references = content.get("architectures"), content.get("auto_map")
    if names is not None and not (
        isinstance(names, list) and all(isinstance(name, str) for name in names)
    ):
        raise ModelError(
            f"{place}: architectures: expected names of classes, got {str(names)[:60]}"
        )
    if references is not None and not isinstance(references, dict):
        raise ModelError(
            f"{place}: auto_map: expected references by class, got {str(references)[:60]}"
        )
    remote = references is not None and "AutoConfig" in references
    kind = content.get("model_type")
    if remote and kind not in CONFIG_MAPPING and not trust_remote_code:
        raise ModelError(
            f"{place}: auto_map: the model is code that comes with it; read it, and if you trust "
            "it pass trust_remote_code=True (--trust-remote-code)"
        )
    if not remote and not isinstance(kind, str):
        raise ModelError(f"{place}: model_type: missing; it says which model this is")
    if not remote and isinstance(kind, str) and kind not in CONFIG_MAPPING:
        near = nearest_names(kind, list(CONFIG_MAPPING.keys()))
        hint = f"; nearest: {', '.join(near)}" if near else ""
        raise ModelError(
            f"{place}: model_type: transformers {transformers.__version__} does not know "
            f"{kind!r}{hint}; a newer one may: pip install -U transformers"
        )
    try:
        if remote:
            return AutoConfig.from_pretrained(
                checkpoint.source, trust_remote_code=trust_remote_code
            )
        made = CONFIG_MAPPING[kind].from_dict(unprefixed(content))
        made.name_or_path = checkpoint.source
    except (
        ArithmeticError, AttributeError, ImportError, LookupError, OSError, StrictDataclassError,
        TypeError, ValueError,
    ) as error:  # fmt: skip
        raise ModelError(f"{place}: {type(error).__name__}: {str(error)[:500]}") from error
    return made

"""A configuration -> the class of model that it is for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import transformers
from transformers.dynamic_module_utils import get_class_from_dynamic_module
from transformers.models.auto import modeling_auto

from peft_shop.errors import MissingExtraError, ModelError, nearest_names

if TYPE_CHECKING:
    from torch import nn

    from peft_shop.catalog.features import TaskType

__all__ = ["class_for", "diffusers_class", "unmapped"]

_BY_TASK: Final[dict[TaskType, tuple[str, ...]]] = {
    "CAUSAL_LM": ("CAUSAL_LM", "IMAGE_TEXT_TO_TEXT", "MULTIMODAL_LM"),
    "SEQ_2_SEQ_LM": ("SEQ_TO_SEQ_CAUSAL_LM", "SPEECH_SEQ_2_SEQ", "IMAGE_TEXT_TO_TEXT"),
    "SEQ_CLS": (
        "SEQUENCE_CLASSIFICATION",
        "IMAGE_CLASSIFICATION",
        "AUDIO_CLASSIFICATION",
        "VIDEO_CLASSIFICATION",
    ),
    "TOKEN_CLS": ("TOKEN_CLASSIFICATION",),
    "QUESTION_ANS": ("QUESTION_ANSWERING",),
    "FEATURE_EXTRACTION": ("",),
}
"""Tables of transformers' auto classes that are tried for a task; the empty one has base models."""
_ORDER: Final = (
    "CAUSAL_LM",
    "MASKED_LM",
    "IMAGE_TEXT_TO_TEXT",
    "MULTIMODAL_LM",
    "SPEECH_SEQ_2_SEQ",
    "SEQ_TO_SEQ_CAUSAL_LM",
    "",
    "PRETRAINING",
)
"""Tables that are tried where neither the configuration nor the user names a class."""


def class_for(
    config: Any, *, task_type: TaskType | None = None, trust_remote_code: bool = False
) -> type[nn.Module]:
    """The class of `config`: for the task if one is asked for, else the one that it names.

    A configuration that names none gives the first that there is: sequence to sequence where it
    is an encoder-decoder, causal language model (masked where it is an encoder), image-text,
    speech, the base model.

    Raises:
        ModelError: there is none, or its code comes from elsewhere and is not trusted.
    """
    if isinstance(config, dict):
        return diffusers_class(str(config["_class_name"]))
    remote = getattr(config, "auto_map", None) or {}
    if task_type is None:
        for name in getattr(config, "architectures", None) or ():
            cls = getattr(transformers, name, None)
            if isinstance(cls, type):
                return cls
    tables = _BY_TASK.get(task_type, ()) if task_type else _tables(config)
    for table in tables:
        cls = _in_table(config, table)
        if cls is not None:
            return cls
    if remote:
        return _remote_class(config, remote, trust_remote_code=trust_remote_code)
    kind = f" for {task_type}" if task_type else ""
    raise ModelError(
        f"transformers has no model class{kind} of model type {config.model_type!r}; pass "
        "(class, configuration) instead"
    )


def unmapped(config: Any, cls: type[nn.Module]) -> tuple[str, ...]:
    """What to say where a configuration names another class than the one that is shown."""
    named = None if isinstance(config, dict) else getattr(config, "architectures", None)
    names = [one for one in named or () if isinstance(one, str)]
    if not names or cls.__name__ in names or any(hasattr(transformers, name) for name in names):
        return ()
    text = (
        f"Its configuration names the class {names[0]}, which transformers "
        f"{transformers.__version__} does not have (a draft, a reward head or a model of another "
        f"project): {cls.__name__} is shown, and parts that only {names[0]} has are missing."
    )
    return (text,)


def _tables(config: Any) -> tuple[str, ...]:
    if getattr(config, "is_encoder_decoder", False):
        return ("SEQ_TO_SEQ_CAUSAL_LM", "SPEECH_SEQ_2_SEQ", *_ORDER)
    if _in_table(config, "MASKED_LM") and not getattr(config, "is_decoder", False):
        return ("MASKED_LM", *_ORDER)
    return _ORDER


def _in_table(config: Any, table: str) -> type[nn.Module] | None:
    name = f"MODEL_FOR_{table}_MAPPING" if table else "MODEL_MAPPING"
    mapping = getattr(modeling_auto, name, {})
    if type(config) not in mapping:
        return None
    classes: type[nn.Module] | tuple[type[nn.Module], ...] = mapping[type(config)]
    return classes[0] if isinstance(classes, tuple) else classes


def _remote_class(
    config: Any, references: dict[str, Any], *, trust_remote_code: bool
) -> type[nn.Module]:
    wanted = ("AutoModelForCausalLM", "AutoModelForSeq2SeqLM", "AutoModel")
    models = [key for key in references if key.startswith("AutoModel")]
    order = [key for key in wanted if key in models] + sorted(set(models) - set(wanted))
    where = getattr(config, "name_or_path", "") or "this configuration"
    if not order:
        raise ModelError(f"the code that comes with {where} has a configuration but no model")
    if not trust_remote_code:
        raise ModelError(
            f"the model class of {where} is code that comes with it ({references[order[0]]}); "
            "read it, and if you trust it pass trust_remote_code=True (--trust-remote-code)"
        )
    try:
        remote_class: type[nn.Module] = get_class_from_dynamic_module(references[order[0]], where)
    except (ImportError, AttributeError, OSError, ValueError) as error:
        raise ModelError(f"the code that comes with {where} does not load: {error}") from error
    return remote_class


def diffusers_class(name: str) -> type[nn.Module]:
    """The class of diffusers with this name.

    Raises:
        MissingExtraError: diffusers is not installed.
        ModelError: it has no such class.
    """
    try:
        import diffusers  # noqa: PLC0415 - only for a diffusion model
    except ImportError as error:
        raise MissingExtraError("diffusers", "diffusion", f"inspecting a {name}") from error
    cls = getattr(diffusers, name, None)
    if not isinstance(cls, type):
        near = nearest_names(name, [one for one in dir(diffusers) if "Model" in one])
        hint = f"; nearest: {', '.join(near)}" if near else ""
        raise ModelError(
            f"diffusers {diffusers.__version__} has no model class {name!r}{hint}; a newer one "
            "may: pip install -U diffusers"
        )
    return cls
